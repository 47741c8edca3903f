//! The codes that calls return, and the failure behind a code.
//!
//! **Invariants.** The number of a code never changes. A code is 0 for success, 1 and 2 for results that are no failure,
//! 10 to 99 for failures at the border of the languages, and 100 or more for errors of the library, each by its
//! `SessionError::code`.

use std::fmt;

use library::{AgentError, CancelReason, Cancelled, ConfigError, InjectError, InputError, SessionError};

/// The call succeeded.
pub const TURNWISE_OK: i32 = 0;
/// There is nothing yet: no event, no result, or the timeout of the wait passed.
pub const TURNWISE_EMPTY: i32 = 1;
/// There will be no further event.
pub const TURNWISE_END: i32 = 2;
/// A pointer is null that must not be, or a value is out of range.
pub const TURNWISE_INVALID_ARGUMENT: i32 = 10;
/// The number is no handle: 0, or one that was never given out.
pub const TURNWISE_INVALID_HANDLE: i32 = 11;
/// The handle is one of another kind.
pub const TURNWISE_WRONG_KIND: i32 = 12;
/// The handle was closed, or its callback has returned.
pub const TURNWISE_STALE: i32 = 13;
/// A context belongs to another thread.
pub const TURNWISE_WRONG_THREAD: i32 = 14;
/// A text is not valid UTF-8.
pub const TURNWISE_INVALID_UTF8: i32 = 15;
/// The size of a struct is too small, or a larger struct uses fields that this version does not know.
pub const TURNWISE_INVALID_STRUCT: i32 = 16;
/// A text is not the JSON that the call takes.
pub const TURNWISE_INVALID_JSON: i32 = 17;
/// The handle was closed during the call.
pub const TURNWISE_CLOSED: i32 = 18;
/// A callback asked for what waits for its own thread.
pub const TURNWISE_REENTRANT: i32 = 19;
/// The process is a forked child. Nothing can be called in it.
pub const TURNWISE_FORKED: i32 = 20;
/// A defect of the library. The object may be in an undefined state: close it.
pub const TURNWISE_PANIC: i32 = 21;
/// The turn was told to stop.
pub const TURNWISE_CANCELLED: i32 = 22;
/// The timeout of an input request passed.
pub const TURNWISE_TIMED_OUT: i32 = 23;
/// The host declined an input request.
pub const TURNWISE_DECLINED: i32 = 24;
/// A setting of the service is out of range.
pub const TURNWISE_INVALID_CONFIG: i32 = 25;
/// The operating system refused a resource.
pub const TURNWISE_SYSTEM_ERROR: i32 = 26;
/// The table of handles is full.
pub const TURNWISE_TOO_MANY_HANDLES: i32 = 27;
/// The text was not given out by the library, or it was freed already.
pub const TURNWISE_UNKNOWN_TEXT: i32 = 28;
/// The inbox of the session is closed.
pub const TURNWISE_INBOX_CLOSED: i32 = 29;
/// The service or the agent does not support the call.
pub const TURNWISE_UNSUPPORTED: i32 = 30;
/// The interpreter of a language binding is shutting down.
pub const TURNWISE_INTERPRETER: i32 = 31;
/// There is no such session.
pub const TURNWISE_SESSION_NOT_FOUND: i32 = 100;
/// The session is archived and stored.
pub const TURNWISE_SESSION_ARCHIVED: i32 = 101;
/// The session runs a turn or builds its agent.
pub const TURNWISE_SESSION_BUSY: i32 = 102;
/// The queue of the session is full.
pub const TURNWISE_QUEUE_FULL: i32 = 103;
/// The inbox of the session is full.
pub const TURNWISE_INBOX_FULL: i32 = 104;
/// There is no such turn or interaction.
pub const TURNWISE_SESSION_NOT_RUNNING: i32 = 105;
/// The session is not faulted.
pub const TURNWISE_SESSION_NOT_FAULTED: i32 = 106;
/// The id is in use.
pub const TURNWISE_SESSION_ALREADY_EXISTS: i32 = 107;
/// The service has its maximum number of sessions.
pub const TURNWISE_CAPACITY_EXCEEDED: i32 = 108;
/// The reservation is spent, or belongs to another service.
pub const TURNWISE_INVALID_RESERVATION: i32 = 109;
/// The service accepts no new work.
pub const TURNWISE_SHUTTING_DOWN: i32 = 110;
/// The session's agent has panicked.
pub const TURNWISE_SESSION_FAULTED: i32 = 111;
/// A wait of a turn ended because that turn was cancelled.
pub const TURNWISE_SESSION_INTERRUPTED: i32 = 112;
/// The session would wait for itself.
pub const TURNWISE_SESSION_REENTRANT: i32 = 113;
/// The timeout of a wait passed.
pub const TURNWISE_SESSION_TIMEOUT: i32 = 114;
/// The timeout of a wait passed after the call had taken effect.
pub const TURNWISE_SESSION_ENDING: i32 = 115;
/// The agent could not be built.
pub const TURNWISE_SESSION_BUILD_FAILED: i32 = 116;
/// The agent failed its turn, or the turn was cancelled.
pub const TURNWISE_AGENT_ERROR: i32 = 117;
/// The input request has ended, or never existed.
pub const TURNWISE_INPUT_NOT_PENDING: i32 = 118;
/// The answer is none of the options.
pub const TURNWISE_INVALID_ANSWER: i32 = 119;
/// A text is not a valid id.
pub const TURNWISE_INVALID_ID: i32 = 120;
/// The system refused another thread.
pub const TURNWISE_THREAD_SPAWN_FAILED: i32 = 121;
/// The store could not read or write a record.
pub const TURNWISE_STORE_FAILED: i32 = 122;
/// An error that this version has no code for.
pub const TURNWISE_OTHER_ERROR: i32 = 199;

/// Every code with its name.
pub const ALL: &[(i32, &str)] = &[
    (TURNWISE_OK, "OK"),
    (TURNWISE_EMPTY, "EMPTY"),
    (TURNWISE_END, "END"),
    (TURNWISE_INVALID_ARGUMENT, "INVALID_ARGUMENT"),
    (TURNWISE_INVALID_HANDLE, "INVALID_HANDLE"),
    (TURNWISE_WRONG_KIND, "WRONG_KIND"),
    (TURNWISE_STALE, "STALE"),
    (TURNWISE_WRONG_THREAD, "WRONG_THREAD"),
    (TURNWISE_INVALID_UTF8, "INVALID_UTF8"),
    (TURNWISE_INVALID_STRUCT, "INVALID_STRUCT"),
    (TURNWISE_INVALID_JSON, "INVALID_JSON"),
    (TURNWISE_CLOSED, "CLOSED"),
    (TURNWISE_REENTRANT, "REENTRANT"),
    (TURNWISE_FORKED, "FORKED"),
    (TURNWISE_PANIC, "PANIC"),
    (TURNWISE_CANCELLED, "CANCELLED"),
    (TURNWISE_TIMED_OUT, "TIMED_OUT"),
    (TURNWISE_DECLINED, "DECLINED"),
    (TURNWISE_INVALID_CONFIG, "INVALID_CONFIG"),
    (TURNWISE_SYSTEM_ERROR, "SYSTEM_ERROR"),
    (TURNWISE_TOO_MANY_HANDLES, "TOO_MANY_HANDLES"),
    (TURNWISE_UNKNOWN_TEXT, "UNKNOWN_TEXT"),
    (TURNWISE_INBOX_CLOSED, "INBOX_CLOSED"),
    (TURNWISE_UNSUPPORTED, "UNSUPPORTED"),
    (TURNWISE_INTERPRETER, "INTERPRETER"),
    (TURNWISE_SESSION_NOT_FOUND, "SESSION_NOT_FOUND"),
    (TURNWISE_SESSION_ARCHIVED, "SESSION_ARCHIVED"),
    (TURNWISE_SESSION_BUSY, "SESSION_BUSY"),
    (TURNWISE_QUEUE_FULL, "QUEUE_FULL"),
    (TURNWISE_INBOX_FULL, "INBOX_FULL"),
    (TURNWISE_SESSION_NOT_RUNNING, "SESSION_NOT_RUNNING"),
    (TURNWISE_SESSION_NOT_FAULTED, "SESSION_NOT_FAULTED"),
    (TURNWISE_SESSION_ALREADY_EXISTS, "SESSION_ALREADY_EXISTS"),
    (TURNWISE_CAPACITY_EXCEEDED, "CAPACITY_EXCEEDED"),
    (TURNWISE_INVALID_RESERVATION, "INVALID_RESERVATION"),
    (TURNWISE_SHUTTING_DOWN, "SHUTTING_DOWN"),
    (TURNWISE_SESSION_FAULTED, "SESSION_FAULTED"),
    (TURNWISE_SESSION_INTERRUPTED, "SESSION_INTERRUPTED"),
    (TURNWISE_SESSION_REENTRANT, "SESSION_REENTRANT"),
    (TURNWISE_SESSION_TIMEOUT, "SESSION_TIMEOUT"),
    (TURNWISE_SESSION_ENDING, "SESSION_ENDING"),
    (TURNWISE_SESSION_BUILD_FAILED, "SESSION_BUILD_FAILED"),
    (TURNWISE_AGENT_ERROR, "AGENT_ERROR"),
    (TURNWISE_INPUT_NOT_PENDING, "INPUT_NOT_PENDING"),
    (TURNWISE_INVALID_ANSWER, "INVALID_ANSWER"),
    (TURNWISE_INVALID_ID, "INVALID_ID"),
    (TURNWISE_THREAD_SPAWN_FAILED, "THREAD_SPAWN_FAILED"),
    (TURNWISE_STORE_FAILED, "STORE_FAILED"),
    (TURNWISE_OTHER_ERROR, "OTHER_ERROR"),
];

/// The names for C, in the order of [`ALL`].
pub const C_NAMES: &[&std::ffi::CStr] = &[
    c"OK",
    c"EMPTY",
    c"END",
    c"INVALID_ARGUMENT",
    c"INVALID_HANDLE",
    c"WRONG_KIND",
    c"STALE",
    c"WRONG_THREAD",
    c"INVALID_UTF8",
    c"INVALID_STRUCT",
    c"INVALID_JSON",
    c"CLOSED",
    c"REENTRANT",
    c"FORKED",
    c"PANIC",
    c"CANCELLED",
    c"TIMED_OUT",
    c"DECLINED",
    c"INVALID_CONFIG",
    c"SYSTEM_ERROR",
    c"TOO_MANY_HANDLES",
    c"UNKNOWN_TEXT",
    c"INBOX_CLOSED",
    c"UNSUPPORTED",
    c"INTERPRETER",
    c"SESSION_NOT_FOUND",
    c"SESSION_ARCHIVED",
    c"SESSION_BUSY",
    c"QUEUE_FULL",
    c"INBOX_FULL",
    c"SESSION_NOT_RUNNING",
    c"SESSION_NOT_FAULTED",
    c"SESSION_ALREADY_EXISTS",
    c"CAPACITY_EXCEEDED",
    c"INVALID_RESERVATION",
    c"SHUTTING_DOWN",
    c"SESSION_FAULTED",
    c"SESSION_INTERRUPTED",
    c"SESSION_REENTRANT",
    c"SESSION_TIMEOUT",
    c"SESSION_ENDING",
    c"SESSION_BUILD_FAILED",
    c"AGENT_ERROR",
    c"INPUT_NOT_PENDING",
    c"INVALID_ANSWER",
    c"INVALID_ID",
    c"THREAD_SPAWN_FAILED",
    c"STORE_FAILED",
    c"OTHER_ERROR",
];

/// The name of a code, without the prefix; `UNKNOWN` for a number that is none.
pub fn name(code: i32) -> &'static str {
    ALL.iter().find(|(number, _)| *number == code).map_or("UNKNOWN", |(_, name)| name)
}

/// The code of an error of the library: by the error's stable name.
fn code_of(error: &SessionError) -> i32 {
    let name = error.code();
    ALL.iter().find(|(code, text)| *code >= 100 && *text == name).map_or(TURNWISE_OTHER_ERROR, |(code, _)| *code)
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code.
    pub code: i32,
    /// The text for people.
    pub message: String,
    /// The reason of the cancellation, if the failure is one.
    pub cancel_reason: Option<CancelReason>,
    /// Whether the same request may succeed later, because the model's provider failed temporarily.
    pub is_retryable: bool,
}

impl Failure {
    /// A failure without more data.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), cancel_reason: None, is_retryable: false }
    }

    /// The handle's object was closed.
    pub fn closed() -> Self {
        Self::new(TURNWISE_CLOSED, "the handle was closed")
    }

    /// A wait would be one of a session for itself.
    pub fn reentrant(what: &str) -> Self {
        Self::new(TURNWISE_REENTRANT, format!("{what} waits for the thread of this callback"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", name(self.code), self.message)
    }
}

impl std::error::Error for Failure {}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        Self {
            code: code_of(&error),
            message: error.to_string(),
            cancel_reason: error.cancel_reason(),
            is_retryable: error.agent_error().is_some_and(AgentError::is_retryable),
        }
    }
}

impl From<Cancelled> for Failure {
    fn from(cancelled: Cancelled) -> Self {
        Self { cancel_reason: Some(cancelled.reason), ..Self::new(TURNWISE_CANCELLED, cancelled.to_string()) }
    }
}

impl From<InputError> for Failure {
    fn from(error: InputError) -> Self {
        match error {
            InputError::Cancelled(cancelled) => cancelled.into(),
            InputError::Declined { .. } => Self::new(TURNWISE_DECLINED, error.to_string()),
            InputError::TimedOut { .. } => Self::new(TURNWISE_TIMED_OUT, error.to_string()),
            _ => Self::new(TURNWISE_OTHER_ERROR, error.to_string()),
        }
    }
}

impl From<InjectError> for Failure {
    fn from(error: InjectError) -> Self {
        let code = match error {
            InjectError::Full(_) => TURNWISE_INBOX_FULL,
            InjectError::Closed(_) => TURNWISE_INBOX_CLOSED,
            _ => TURNWISE_UNSUPPORTED,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(TURNWISE_INVALID_CONFIG, error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::new(TURNWISE_INVALID_JSON, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(TURNWISE_SYSTEM_ERROR, error.to_string())
    }
}

/// The number of a cancel reason; 0 for none.
pub fn cancel_reason_number(reason: Option<CancelReason>) -> i32 {
    match reason {
        None => 0,
        Some(CancelReason::Interrupted) => TURNWISE_CANCEL_INTERRUPTED,
        Some(CancelReason::DeadlineExceeded) => TURNWISE_CANCEL_DEADLINE,
        Some(CancelReason::Archived) => TURNWISE_CANCEL_ARCHIVED,
        Some(CancelReason::Shutdown) => TURNWISE_CANCEL_SHUTDOWN,
        Some(CancelReason::Superseded) => TURNWISE_CANCEL_SUPERSEDED,
        Some(_) => TURNWISE_CANCEL_OTHER,
    }
}

/// The cancellation had a reason that this version has no number for.
pub const TURNWISE_CANCEL_OTHER: i32 = 99;
/// The host interrupted the turn.
pub const TURNWISE_CANCEL_INTERRUPTED: i32 = 1;
/// The timeout of the request passed.
pub const TURNWISE_CANCEL_DEADLINE: i32 = 2;
/// The session was archived.
pub const TURNWISE_CANCEL_ARCHIVED: i32 = 3;
/// The service was shut down or closed.
pub const TURNWISE_CANCEL_SHUTDOWN: i32 = 4;
/// A later turn took this one's place.
pub const TURNWISE_CANCEL_SUPERSEDED: i32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use library::SessionId;

    #[test]
    fn c90_errors_of_the_library_have_codes_of_their_own() {
        let id = SessionId::new();
        assert_eq!(Failure::from(SessionError::NotFound { id }).code, TURNWISE_SESSION_NOT_FOUND);
        assert_eq!(Failure::from(SessionError::Busy { id, turn: None }).code, TURNWISE_SESSION_BUSY);
        assert_eq!(Failure::from(SessionError::ShuttingDown).code, TURNWISE_SHUTTING_DOWN);
        assert_eq!(Failure::from(SessionError::InvalidReservation).code, TURNWISE_INVALID_RESERVATION);
    }

    #[test]
    fn c90_the_names_for_c_are_those_for_rust() {
        assert_eq!(ALL.len(), C_NAMES.len());
        for ((code, text), name) in ALL.iter().zip(C_NAMES) {
            assert_eq!(name.to_bytes(), text.as_bytes(), "{code}");
        }
    }

    #[test]
    fn c90_no_two_codes_have_one_number_or_one_name() {
        for (index, (code, text)) in ALL.iter().enumerate() {
            assert!(ALL[index + 1..].iter().all(|(other, name)| other != code && name != text), "{text}");
        }
    }
}
