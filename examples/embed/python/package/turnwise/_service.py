"""Services, sessions, turns and subscriptions."""

from __future__ import annotations

import dataclasses
import json
import os
from types import TracebackType
from typing import Any, Callable, Iterator, Mapping, Optional, Type, Union

from . import _native
from ._agent import AgentFactory, builder
from ._errors import Closed, InputNotPending

Json = dict[str, Any]
#: Answers an input request, on the thread that reads the turn. ``None`` declines it.
OnInput = Callable[[Json], Optional[str]]
OnEvent = Callable[[Json], None]
#: The ids of sessions.
Ids = list[str]


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a turn."""

    session_id: str
    turn_id: int
    text: str
    usage: Mapping[str, Any]
    turns: int
    tool_calls: int
    structured_output: Optional[str]
    stop_reason: str

    @staticmethod
    def _of(text: str) -> Result:
        return Result(**json.loads(text))


@dataclasses.dataclass(frozen=True)
class Event:
    """An event of a queue."""

    session_id: str
    turn_id: Optional[int]
    seq: int
    event: Json

    @property
    def type(self) -> str:
        return str(self.event["type"])

    @staticmethod
    def _of(text: str) -> Event:
        return Event(**json.loads(text))


def _options(options: Mapping[str, Any]) -> Optional[str]:
    return json.dumps(options) if options else None


def _turn_options(options: dict[str, Any]) -> dict[str, Any]:
    timeout = options.pop("timeout", None)
    if timeout is not None:
        options["timeout_ms"] = max(0, round(timeout * 1000))
    return options


class Turn:
    """A begun turn. As an iterator it has the events of the turn, if it was begun by ``stream``.

    As a context manager it interrupts the turn at the end of the block, if that has not ended.
    """

    __slots__ = ("_native",)

    def __init__(self, native: _native.Turn) -> None:
        self._native = native

    @property
    def session_id(self) -> str:
        return self._native.ids()[0]

    @property
    def turn_id(self) -> int:
        return self._native.ids()[1]

    @property
    def is_finished(self) -> bool:
        return self._native.is_finished()

    def interrupt(self) -> None:
        """Tells the turn to stop. Never reaches another turn."""
        self._native.interrupt()

    def poll(self) -> Optional[Result]:
        """The result, if it is there."""
        return self.wait(0)

    def wait(self, timeout: Optional[float] = None) -> Optional[Result]:
        """Waits for the result; ``None`` if it does not come in ``timeout`` seconds. Raises what the turn failed with."""
        result = self._native.wait(timeout)
        return None if result is None else Result._of(result)

    def result(self) -> Result:
        """Waits for the result without a limit."""
        result = self.wait()
        assert result is not None, "a wait without a limit has a result"
        return result

    def next_event(self, timeout: Optional[float] = None) -> Optional[Json]:
        """The next event; ``None`` if there is none in time. Raises ``StopIteration`` at the end of the turn."""
        is_open, event = self._native.next_event(timeout)
        if not is_open:
            raise StopIteration
        return None if event is None else json.loads(event)

    def __iter__(self) -> Iterator[Json]:
        return self

    def __next__(self) -> Json:
        while True:
            event = self.next_event()
            if event is not None:
                return event

    def close(self) -> None:
        """Frees the unread events. The turn goes on, and other calls than the ids raise ``Closed``, as in waiting threads."""
        self._native.close()

    def __enter__(self) -> Turn:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        try:
            if not self._native.is_finished():
                self._native.interrupt()
        except Closed:
            pass  # The block has closed the turn, which goes on.


class Subscription:
    """A queue of events, as an iterator. It ends with its session."""

    __slots__ = ("_native",)

    def __init__(self, native: _native.Subscription) -> None:
        self._native = native

    def next_event(self, timeout: Optional[float] = None) -> Optional[Event]:
        """The next event; ``None`` if there is none in time. Raises ``StopIteration`` at the end."""
        is_open, event = self._native.next_event(timeout)
        if not is_open:
            raise StopIteration
        return None if event is None else Event._of(event)

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while True:
            event = self.next_event()
            if event is not None:
                return event

    @property
    def dropped(self) -> int:
        """The number of events that the subscription has missed."""
        return self._native.dropped()

    @property
    def interaction_id(self) -> Optional[str]:
        """The id of the interaction, for a subscription of ``steer`` or ``inject``."""
        return self._native.interaction_id()

    def close(self) -> None:
        """Ends the subscription and frees its queue. Later calls raise ``Closed``, as in threads that wait."""
        self._native.close()


class Session:
    """A session of a service, by its id. It need not exist: then its calls raise ``SessionNotFound``."""

    __slots__ = ("id", "_service")

    def __init__(self, service: Service, id: str) -> None:
        #: The id, as text.
        self.id = id
        self._service = service

    def __repr__(self) -> str:
        return f"Session({self.id})"

    @property
    def _native(self) -> _native.Service:
        return self._service._native

    def run(
        self,
        prompt: str,
        *,
        on_event: Optional[OnEvent] = None,
        on_input: Optional[OnInput] = None,
        **options: Any,
    ) -> Result:
        """Runs a turn and waits for its result. Ctrl-C interrupts the turn.

        ``on_event`` and ``on_input`` are called on this thread. Options: ``timeout`` in seconds, ``host_mode``,
        ``skill_references``, ``tool_results``, and ``when_busy``: ``refuse``, ``queue`` or ``interrupt``.
        """
        if on_event is None and on_input is None:
            return Result._of(self._native.run_turn(self.id, prompt, _options(_turn_options(options))))
        with self.stream(prompt, **options) as turn:
            for event in turn:
                if on_event is not None:
                    on_event(event)
                if on_input is not None and event["type"] == "input_requested":
                    self._answer(event, on_input)
            return turn.result()

    def _answer(self, event: Json, on_input: OnInput) -> None:
        answer = on_input(event["request"])
        try:
            if answer is None:
                self.decline(event["input_id"])
            else:
                self.respond(event["input_id"], answer)
        except InputNotPending:
            pass  # The request has ended meanwhile, by its timeout or another answer. The turn goes on.

    def begin(self, prompt: str, **options: Any) -> Turn:
        """Begins a turn, and does not wait for it. The options are those of ``run``."""
        options_json = _options(_turn_options(options))
        return Turn(self._native.begin_turn(self.id, prompt, options_json, False))

    def stream(self, prompt: str, **options: Any) -> Turn:
        """Begins a turn whose events are read from the result. The turn waits while 256 events are unread."""
        options_json = _options(_turn_options(options))
        return Turn(self._native.begin_turn(self.id, prompt, options_json, True))

    def interrupt(self, turn_id: Optional[int] = None) -> None:
        """Tells the running turn to stop, or only the one with this number."""
        self._native.interrupt(self.id, turn_id)

    def interrupt_interaction(self, interaction_id: str) -> None:
        self._native.interrupt_interaction(self.id, interaction_id)

    def respond(self, input_id: int, answer: str) -> None:
        """Answers an input request. The first response wins."""
        self._native.respond(self.id, input_id, answer)

    def decline(self, input_id: int, reason: Optional[str] = None) -> None:
        self._native.decline(self.id, input_id, reason)

    def pending_inputs(self) -> list[Json]:
        value: list[Json] = json.loads(self._native.pending_inputs(self.id))
        return value

    def steer(self, message: str, turn_id: Optional[int] = None) -> Subscription:
        """Sends a message to the turn that is admitted now. The result has the message's end as an event."""
        return Subscription(self._native.steer(self.id, message, turn_id))

    def inject(self, message: str, source: str = "rpc") -> Subscription:
        """Puts a message into the inbox."""
        return Subscription(self._native.inject(self.id, message, source))

    def dismiss(self, source: str = "rpc") -> None:
        """Ends host mode, behind the messages that are in the inbox already."""
        self._native.dismiss(self.id, source)

    def subscribe(self, **options: Any) -> Subscription:
        """Follows the session across turns. Options: ``capacity``, ``overflow``, ``from_seq``."""
        return Subscription(self._native.subscribe(self.id, json.dumps(options)))

    def read(self) -> Json:
        """The state and the figures. Never waits for a turn."""
        value: Json = json.loads(self._native.read(self.id))
        return value

    def history(self) -> Json:
        """The history as of the last finished turn."""
        value: Json = json.loads(self._native.history(self.id)[0])
        return value

    def history_at(self) -> tuple[Json, int]:
        """The history, and the number of the event at its end."""
        history, boundary = self._native.history(self.id)
        return json.loads(history), boundary

    def export(self, timeout: Optional[float] = None) -> Json:
        """The history at the end of the running turn, which ``open(resume=..)`` takes."""
        value: Json = json.loads(self._native.export(self.id, False, timeout))
        return value

    def take(self, timeout: Optional[float] = None) -> Json:
        """Exports the history and archives the session, with no turn in between."""
        value: Json = json.loads(self._native.export(self.id, True, timeout))
        return value

    def set_labels(self, labels: Mapping[str, str]) -> None:
        self._native.set_labels(self.id, dict(labels))

    def archive(self, *, interrupt: bool = False) -> None:
        """Ends the session when its turns have ended, or cancels them."""
        self._native.archive(self.id, interrupt)

    def archive_wait(self, timeout: Optional[float] = None) -> None:
        """Archives the session and waits until it has ended."""
        self._native.archive_wait(self.id, timeout)

    def wait_idle(self, timeout: Optional[float] = None) -> None:
        self._native.wait_idle(self.id, timeout)

    def restart(self, timeout: Optional[float] = None) -> None:
        """Restarts a faulted session from its last history."""
        self._native.restart(self.id, timeout)

    def resume(self) -> None:
        """Resumes a stored session."""
        self._native.resume(self.id)

    def unload(self, timeout: Optional[float] = None) -> None:
        """Ends the life of a stored session, which its next turn resumes."""
        self._native.unload(self.id, timeout)

    def delete(self) -> None:
        """Deletes the record of a stored session."""
        self._native.delete(self.id)


class Service:
    """Hosts sessions, each with an agent of its own on a thread of its own.

    ``agent`` is a class derived from ``Agent``, or any callable that makes an agent of a ``Spec``. ``store`` is the path
    of a file in which sessions are kept. Settings: ``max_sessions``, ``max_running_turns``, ``stack_size``,
    ``thread_name_prefix``, ``idle_threads``, ``inbox_capacity``, ``event_history``, ``turn_queue``,
    ``restart_faulted``, ``events``, ``unload_idle_after_ms``, ``unload_when_full``.

    As a context manager it shuts down at the end of the block.
    """

    __slots__ = ("_native", "__weakref__")

    def __init__(self, agent: AgentFactory, *, store: Union[str, os.PathLike[str], None] = None, **settings: Any) -> None:
        path = None if store is None else os.fspath(store)
        self._native = _native.Service(builder(agent), path, json.dumps(settings))

    def open(self, **spec: Any) -> Session:
        """Opens a session without a turn, and waits until its agent is built.

        Options: ``session_id``, ``model``, ``system_prompt``, ``max_tokens``, ``resume``, ``labels``,
        ``rewrites_history``.
        """
        return Session(self, self._native.open(json.dumps(spec)))

    def create(self, prompt: str, *, session: Optional[Mapping[str, Any]] = None, **options: Any) -> Result:
        """Creates a session and runs its first turn. ``session`` has the options of ``open``."""
        return Result._of(self._native.create(prompt, self._create_options(session, options)))

    def begin(self, prompt: str, *, session: Optional[Mapping[str, Any]] = None, **options: Any) -> Turn:
        """Begins a session with its first turn, and does not wait."""
        return Turn(self._native.begin_session(prompt, self._create_options(session, options), False))

    def stream(self, prompt: str, *, session: Optional[Mapping[str, Any]] = None, **options: Any) -> Turn:
        """Begins a session with its first turn, as a stream of events."""
        return Turn(self._native.begin_session(prompt, self._create_options(session, options), True))

    @staticmethod
    def _create_options(session: Optional[Mapping[str, Any]], options: dict[str, Any]) -> str:
        return json.dumps({"session": dict(session or {}), "turn": _turn_options(options)})

    def session(self, id: str) -> Session:
        """The session with this id."""
        return Session(self, id)

    def list(self, *, archived: bool = False, **query: Any) -> list[Json]:
        """Lists the sessions. Options: ``limit``, ``offset``, ``after``, ``labels``."""
        value: list[Json] = json.loads(self._native.list(json.dumps(query), archived))
        return value

    def subscribe(self, **options: Any) -> Subscription:
        """Follows all sessions."""
        return Subscription(self._native.subscribe(None, json.dumps(options)))

    def next_event(self, timeout: Optional[float] = None) -> Optional[Event]:
        """The next item of the service's queue: an event, if the settings have ``events``, or ``turn_finished``.

        ``None`` if there is none in time. Raises ``StopIteration`` at the end.
        """
        is_open, event = self._native.next_event(timeout)
        if not is_open:
            raise StopIteration
        return None if event is None else Event._of(event)

    def fileno(self) -> int:
        """A descriptor that is readable while there is something to read. For ``select`` and event loops; only poll it."""
        return self._native.fileno()

    def stats(self) -> Json:
        value: Json = json.loads(self._native.stats())
        return value

    def shutdown(self, timeout: Optional[float] = None, *, interrupt: bool = True) -> Ids:
        """Ends all sessions, and returns the ids of those that have not ended in time."""
        return self._native.shutdown(interrupt, timeout)[1]

    def close(self) -> None:
        """Cancels all turns and wakes all waiting threads. Does not wait."""
        self._native.close()

    @property
    def is_closed(self) -> bool:
        return self._native.is_closed()

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if not self.is_closed:
            self.shutdown(exit_timeout)
            self.close()


#: The seconds that a service has to end at the end of a ``with`` block, and all services at the exit of the program.
exit_timeout: float = 5.0
