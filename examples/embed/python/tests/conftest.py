"""What the tests share: agents that tests command, and services that end with their test."""

from __future__ import annotations

import faulthandler
import signal
import threading
from typing import Any, Callable, Iterator

import pytest

import turnwise

#: The longest wait of a test. One that takes longer hangs, and the test fails.
LIMIT = 60.0

# A shell that runs the tests in the background lets them ignore SIGINT, and so would the programs that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    """Ends a run that hangs, with the stacks of all threads."""
    faulthandler.dump_traceback_later(2 * LIMIT, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


class Commands(turnwise.Agent):
    """Does what its prompt says."""

    def __init__(self, spec: turnwise.Spec) -> None:
        super().__init__(spec)
        self.thread = threading.get_ident()
        self.local = threading.local()
        self.local.turns = 0

    def run_turn(self, prompt: str, turn: turnwise.Context) -> Any:
        assert threading.get_ident() == self.thread
        self.local.turns += 1
        command, _, rest = prompt.partition(" ")
        return getattr(self, f"do_{command}")(rest, turn)

    def do_say(self, text: str, turn: turnwise.Context) -> str:
        return text

    def do_count(self, text: str, turn: turnwise.Context) -> str:
        return str(self.local.turns)

    def do_emit(self, text: str, turn: turnwise.Context) -> str:
        for index in range(int(text)):
            turn.emit_text(str(index))
        return "emitted"

    def do_sleep(self, text: str, turn: turnwise.Context) -> None:
        turn.emit_custom("sleeping")
        turn.sleep(None)

    def do_ask(self, text: str, turn: turnwise.Context) -> str:
        try:
            return turn.request_input(text, options={"yes": "Yes", "no": "No"})
        except turnwise.Declined:
            return "declined"

    def do_raise(self, text: str, turn: turnwise.Context) -> None:
        raise ZeroDivisionError(text)


@pytest.fixture
def host() -> Iterator[Callable[..., turnwise.Service]]:
    """Makes services, which have ended at the end of the test."""
    services: list[turnwise.Service] = []

    def make(agent: Any = Commands, **options: Any) -> turnwise.Service:
        services.append(turnwise.Service(agent, **options))
        return services[-1]

    yield make
    for service in services:
        if not service.is_closed:
            assert service.shutdown(LIMIT) == []
            service.close()


class Thread(threading.Thread):
    """A thread whose result or exception the test gets."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self.start()

    def run(self) -> None:
        try:
            self._result, self._error = self._function(), None
        except BaseException as error:  # noqa: BLE001: it is raised again in `get`
            self._error = error

    def get(self) -> Any:
        self.join(LIMIT)
        assert not self.is_alive(), "the thread hangs"
        if self._error is not None:
            raise self._error
        return self._result


@pytest.fixture
def thread() -> type[Thread]:
    return Thread
