"""Hosts stateful, turn-based agents in programs that block: one thread per session, no event loop.

    import turnwise

    class Echo(turnwise.Agent):
        def run_turn(self, prompt, turn):
            turn.emit_text(prompt.upper())
            return prompt.upper()

    with turnwise.Service(Echo) as service:
        session = service.open()
        print(session.run("hello").text)
        for event in session.stream("again"):
            print(event["type"])
"""

from __future__ import annotations

import atexit as _atexit
import os as _os
import signal as _signal
import sys as _sys
import threading as _threading

from . import _errors, _native, _service
from ._agent import Agent, Answer, Context, Spec, agent_fn
from ._errors import *  # noqa: F403
from ._errors import AgentFailure, Error, InvalidArgument
from ._service import Event, Result, Service, Session, Subscription, Turn

__version__: str = _native.VERSION

__all__ = [
    "Agent",
    "AgentFailure",
    "Answer",
    "Context",
    "Error",
    "Event",
    "Result",
    "Service",
    "Session",
    "Spec",
    "Subscription",
    "Turn",
    "agent_fn",
    "set_exit_timeout",
]
__all__ += [name for name, value in vars(_errors).items() if isinstance(value, type) and issubclass(value, Error)]


def set_exit_timeout(seconds: float) -> None:
    """Sets how long the exit of the program, or of a ``with`` block of a service, waits for sessions to end."""
    if not seconds >= 0:
        raise InvalidArgument(f"the exit timeout is a number of seconds, not {seconds!r}")
    _service.exit_timeout = float(seconds)


def _ignore_interrupt() -> None:
    """Ignores SIGINT. A signal that has arrived already raises in the first attempt, and is dropped."""
    for _ in range(2):
        try:
            _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
            return
        except BaseException:  # noqa: B902: the handler is the program's, and may raise anything
            pass


def _at_exit() -> None:
    """Shuts all services down. A session that is stuck would end the interpreter in the middle of its code."""
    stuck: list[str] = []
    handler = _signal.getsignal(_signal.SIGINT)
    try:
        _ignore_interrupt()
        _native.shut_down_all(_service.exit_timeout, stuck)
        if stuck:
            _report(stuck)
    finally:
        if stuck:
            _os._exit(70)
        if handler is not None and _threading.current_thread() is _threading.main_thread():
            _signal.signal(_signal.SIGINT, handler)


def _report(stuck: list[str]) -> None:
    try:
        _sys.stderr.write(f"turnwise: sessions that do not end at exit: {', '.join(stuck)}\n")
    except (AttributeError, OSError, ValueError):
        pass  # The program has closed the stream, or has none.
    for stream in (_sys.stdout, _sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass


# Twice: a signal that is pending at the beginning of the first call raises there, before the call can do anything.
_atexit.register(_at_exit)
_atexit.register(_at_exit)
