"""Agents, and what they call during a turn."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Callable, Mapping, Optional, Sequence, Union

from . import _native


@dataclasses.dataclass(frozen=True)
class Spec:
    """The specification of a session, as its agent sees it."""

    session_id: str
    model: str
    system_prompt: Optional[str]
    max_tokens: Optional[int]
    labels: Mapping[str, str]
    is_resumed: bool


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer of a turn, with figures. A turn may also return a plain text."""

    text: str
    usage: Optional[Mapping[str, Any]] = None
    model_calls: int = 0
    tool_calls: int = 0
    structured_output: Optional[str] = None
    stop_reason: Optional[str] = None


class Context:
    """What an agent calls during a callback, on the thread of the callback and until that returns."""

    __slots__ = ("_native",)

    def __init__(self, native: _native.Context) -> None:
        self._native = native

    @property
    def session_id(self) -> str:
        return self._native.ids()[0]

    @property
    def turn_id(self) -> int:
        """The number of the turn in its session; 0 while the agent is built."""
        return self._native.ids()[1]

    def emit(self, type: str, **fields: Any) -> None:
        """Emits an event. Waits while a receiver has no room. Raises ``Cancelled`` if the turn is to stop."""
        self._native.emit(json.dumps({"type": type, **fields}))

    def emit_text(self, delta: str) -> None:
        """Emits a piece of the answer."""
        self._native.emit_text(delta)

    def emit_custom(self, name: str, payload: Any = None) -> None:
        """Emits an event of the agent's own, with data that JSON can hold."""
        self.emit("custom", name=name, payload=json.dumps(payload))

    def check(self) -> None:
        """Raises ``Cancelled`` if the turn has been told to stop."""
        self._native.check()

    def sleep(self, seconds: Optional[float]) -> None:
        """Sleeps; without a limit for ``None``. Raises ``Cancelled`` as soon as the turn is told to stop."""
        self._native.sleep(seconds)

    @property
    def remaining(self) -> Optional[float]:
        """The seconds until the turn's timeout; ``None`` without one."""
        return self._native.remaining()

    def request_input(
        self,
        message: str,
        *,
        kind: str = "question",
        options: Union[Mapping[str, str], Sequence[str]] = (),
        payload: Any = None,
        timeout: Optional[float] = None,
    ) -> str:
        """Asks the host and waits for its answer. ``options`` are the valid answers, with a label for each.

        Raises ``Declined``, ``InputTimedOut`` or ``Cancelled``.
        """
        labels = options if isinstance(options, Mapping) else {option: option for option in options}
        request = {
            "kind": kind,
            "message": message,
            "options": [{"id": key, "label": label} for key, label in labels.items()],
            "payload": None if payload is None else json.dumps(payload),
            "timeout_ms": None if timeout is None else max(0, round(timeout * 1000)),
        }
        return self._native.request_input(json.dumps(request))

    def publish(
        self,
        *,
        message_count: Optional[int] = None,
        usage: Optional[Mapping[str, Any]] = None,
        last_assistant_text: Optional[str] = None,
    ) -> None:
        """Publishes what reads of the session show during the turn."""
        snapshot = {"message_count": message_count, "usage": usage, "last_assistant_text": last_assistant_text}
        self._native.publish(json.dumps(snapshot))

    def next_message(self, timeout: Optional[float] = 0) -> Optional[dict[str, Any]]:
        """Takes the next message of the inbox; ``None`` if there is none within ``timeout`` seconds."""
        message = self._native.next_message(timeout)
        return None if message is None else json.loads(message)

    def history(self) -> dict[str, Any]:
        """The history before this turn."""
        value: dict[str, Any] = json.loads(self._native.history())
        return value

    def tool_results(self) -> list[dict[str, Any]]:
        """The results of tools that the host has run."""
        value: list[dict[str, Any]] = json.loads(self._native.tool_results())
        return value


class Agent:
    """The base of agents. One is made for each session, on the thread of the session, and runs and ends there.

    A class need not derive from it: any callable that takes a ``Spec`` and returns an object with ``run_turn`` will do.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def run_turn(self, prompt: str, turn: Context) -> Union[str, Answer, None]:
        """Answers a prompt. An exception fails the turn with its text, and the session goes on."""
        raise NotImplementedError

    def close(self) -> None:
        """Called when the session ends, on its thread."""


AgentFactory = Callable[[Spec], Any]


class _Runner:
    """The object that the extension module calls."""

    __slots__ = ("agent",)

    def __init__(self, agent: Any) -> None:
        self.agent = agent

    def run_turn(self, prompt: str, context: _native.Context) -> tuple[str, Optional[str]]:
        answer = self.agent.run_turn(prompt, Context(context))
        if isinstance(answer, str):
            return answer, None
        if answer is None:
            return "", None
        if isinstance(answer, Answer):
            details = dataclasses.asdict(answer)
            return details.pop("text"), json.dumps(details)
        raise TypeError(f"run_turn returned {type(answer).__name__}, not a text, an Answer or None")

    def close(self) -> None:
        close = getattr(self.agent, "close", None)
        if close is not None:
            close()


class _FunctionAgent:
    __slots__ = ("function",)

    def __init__(self, function: Callable[[str, Context], Any]) -> None:
        self.function = function

    def run_turn(self, prompt: str, turn: Context) -> Any:
        return self.function(prompt, turn)


def agent_fn(function: Callable[[str, Context], Union[str, Answer, None]]) -> AgentFactory:
    """Makes agents of a function that answers a prompt."""
    return lambda _spec: _FunctionAgent(function)


def builder(factory: AgentFactory) -> Callable[[str, _native.Context], _Runner]:
    """The function by which the extension module makes an agent."""

    def build(spec: str, context: _native.Context) -> _Runner:
        del context  # A build has no use for it so far: it checks nothing.
        return _Runner(factory(Spec(**json.loads(spec))))

    return build
