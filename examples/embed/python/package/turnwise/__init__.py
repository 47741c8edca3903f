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
import sys as _sys

from . import _errors, _native, _service
from ._agent import Agent, Answer, Context, Spec, agent_fn
from ._errors import *  # noqa: F403
from ._errors import AgentFailure, Error
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
    _service.exit_timeout = seconds


def _at_exit() -> None:
    """Shuts all services down. A session that is stuck would end the interpreter in the middle of its code."""
    stuck = _native.shut_down_all(_service.exit_timeout)
    if not stuck:
        return
    print(f"turnwise: sessions that do not end at exit: {', '.join(stuck)}", file=_sys.stderr)
    for stream in (_sys.stdout, _sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass
    _os._exit(70)


_atexit.register(_at_exit)
