"""The exceptions: one class for each code of the library."""

from __future__ import annotations

import json
import traceback
from types import TracebackType
from typing import Optional

_REASONS = {
    0: None,
    1: "interrupted",
    2: "deadline_exceeded",
    3: "archived",
    4: "shutdown",
    5: "superseded",
}


class Error(Exception):
    """Why a call failed. Each code has a class of its own."""

    #: The code, for programs and logs.
    code: str = "OTHER_ERROR"

    def __init__(self, message: str = "", *, cancel_reason: Optional[str] = None, is_retryable: bool = False) -> None:
        super().__init__(message)
        #: ``interrupted``, ``deadline_exceeded``, ``archived``, ``shutdown``, ``superseded`` or ``other`` if the
        #: failure is a cancellation; ``None`` otherwise.
        self.cancel_reason = cancel_reason
        #: Whether the same request may succeed later, because a provider failed temporarily.
        self.is_retryable = is_retryable


class UsageError(Error):
    """The program has called the library wrongly."""


class InvalidArgument(UsageError, ValueError):
    code = "INVALID_ARGUMENT"


class InvalidJson(UsageError, ValueError):
    code = "INVALID_JSON"


class InvalidConfig(UsageError, ValueError):
    code = "INVALID_CONFIG"


class InvalidId(UsageError, ValueError):
    code = "INVALID_ID"


class WrongKind(UsageError):
    code = "WRONG_KIND"


class Stale(UsageError):
    """The context was used after its callback had returned."""

    code = "STALE"


class WrongThread(UsageError):
    """The context was used on another thread than that of its callback."""

    code = "WRONG_THREAD"


class Reentrant(UsageError):
    """A callback asked for what waits for its own thread."""

    code = "REENTRANT"


class Forked(UsageError):
    """The process is a forked child. Use the start method ``spawn``."""

    code = "FORKED"


class Unsupported(UsageError):
    code = "UNSUPPORTED"


class Closed(Error):
    """The object was closed, perhaps while the call waited."""

    code = "CLOSED"


class Cancelled(Error):
    """In an agent: the turn has been told to stop. Let it pass."""

    code = "CANCELLED"


class InputTimedOut(Error, TimeoutError):
    """In an agent: the timeout of an input request passed."""

    code = "TIMED_OUT"


class Declined(Error):
    """In an agent: the host declined an input request."""

    code = "DECLINED"


class SystemFailure(Error):
    code = "SYSTEM_ERROR"


class InterpreterExit(Error):
    code = "INTERPRETER"


class InboxClosed(Error):
    code = "INBOX_CLOSED"


class SessionNotFound(Error, LookupError):
    code = "SESSION_NOT_FOUND"


class SessionArchived(Error):
    code = "SESSION_ARCHIVED"


class SessionBusy(Error):
    code = "SESSION_BUSY"


class QueueFull(Error):
    code = "QUEUE_FULL"


class InboxFull(Error):
    code = "INBOX_FULL"


class SessionNotRunning(Error):
    code = "SESSION_NOT_RUNNING"


class SessionNotFaulted(Error):
    code = "SESSION_NOT_FAULTED"


class SessionAlreadyExists(Error):
    code = "SESSION_ALREADY_EXISTS"


class CapacityExceeded(Error):
    code = "CAPACITY_EXCEEDED"


class ShuttingDown(Error):
    code = "SHUTTING_DOWN"


class SessionFaulted(Error):
    code = "SESSION_FAULTED"


class SessionInterrupted(Cancelled):
    """In an agent: a wait for another session ended because the agent's own turn was cancelled."""

    code = "SESSION_INTERRUPTED"


class SessionReentrant(UsageError):
    """The session would wait for itself."""

    code = "SESSION_REENTRANT"


class SessionTimeout(Error, TimeoutError):
    """The timeout of a wait passed."""

    code = "SESSION_TIMEOUT"


class SessionEnding(SessionTimeout):
    code = "SESSION_ENDING"


class BuildFailed(Error):
    """The agent could not be built."""

    code = "SESSION_BUILD_FAILED"


class TurnFailed(Error):
    """The agent failed its turn, or the turn was cancelled: see ``cancel_reason``."""

    code = "AGENT_ERROR"


class InputNotPending(Error):
    code = "INPUT_NOT_PENDING"


class InvalidAnswer(Error, ValueError):
    code = "INVALID_ANSWER"


class ThreadSpawnFailed(Error):
    code = "THREAD_SPAWN_FAILED"


class StoreFailed(Error):
    code = "STORE_FAILED"


class AgentFailure(Exception):
    """An agent raises it to fail its turn with a kind that the host can tell apart.

    ``kind`` is ``other``, ``tool`` (with ``name``), ``config``, ``llm`` (with ``provider``, ``reason`` and perhaps
    ``retry_after_ms``) or ``callback_pending`` (with ``tool_name`` and ``args``, as JSON text).
    """

    def __init__(self, message: str = "", kind: str = "other", **details: object) -> None:
        super().__init__(message)
        self.kind = {"kind": kind, **details}


def _classes(of: type[Error]) -> dict[str, type[Error]]:
    found = {of.code: of} if "code" in of.__dict__ else {}
    for derived in of.__subclasses__():
        found.update(_classes(derived))
    return found


_BY_CODE = _classes(Error)


def make(code: str, message: str, reason: int, is_retryable: bool) -> Error:
    """Makes the exception of a failure. Called by the extension module."""
    made = _BY_CODE.get(code, Error)(
        message, cancel_reason=_REASONS.get(reason, "other"), is_retryable=is_retryable
    )
    if type(made) is Error:
        made.code = code
    return made


def describe(error: BaseException, trace: Optional[TracebackType]) -> tuple[bool, str, Optional[str]]:
    """Says whether an agent has let a cancellation pass, the text for the host, and the kind as JSON, if there is one.

    Called by the extension module.
    """
    if isinstance(error, AgentFailure):
        return False, str(error), json.dumps(error.kind)
    text = "".join(traceback.format_exception_only(type(error), error)).strip()
    frames = traceback.extract_tb(trace)
    if frames:
        text = f"{text} ({frames[-1].filename}:{frames[-1].lineno})"
    return isinstance(error, Cancelled), text, None
