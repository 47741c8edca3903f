//! The answers of the calls of a run.

use std::fmt;

use turnwise::{AgentError, CancelReason, RunResult, SessionError, SessionState, TurnId};

use crate::history::Uid;

/// The figures of a session's history. The three change together.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Figures {
    pub(crate) messages: usize,
    pub(crate) tokens: u64,
    /// The prompt or interaction whose answer is the last.
    pub(crate) last: Uid,
}

/// The error of a refused call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Refused {
    NotFound,
    /// With the number of the admitted turn.
    Busy(Option<u64>),
    /// With the capacity of the queue.
    QueueFull(usize),
    NotRunning,
    AlreadyExists,
    Capacity {
        active: usize,
        max: usize,
    },
    ShuttingDown,
    Faulted,
    /// The timeout of a wait until the session is idle has passed.
    TimedOut,
    /// An error that no step of a plan can cause.
    Other(&'static str),
}

/// The result of a turn, as its caller got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ending {
    /// Success. `last` is the prompt or interaction that was answered last; `turns` counts all of them.
    Well {
        last: Uid,
        turns: u32,
    },
    Failed,
    Cancelled(CancelReason),
    Panicked,
    NotBuilt,
    /// A result that no turn can have.
    Wrong(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) state: SessionState,
    pub(crate) active: bool,
    /// The number of turns that were accepted.
    pub(crate) turns: u64,
    /// The number of turns that wait in the queue.
    pub(crate) queued: usize,
    pub(crate) figures: Figures,
}

/// The answer to a call that started a turn. If the call waits for the end, the number is known only of a turn that
/// succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Begun {
    pub(crate) number: Option<u64>,
    /// True if the call has waited for the end.
    pub(crate) ended: bool,
}

/// The error of `open_session`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Opened {
    Refused(Refused),
    /// The session was registered, and closed during its build.
    Closed(Refused),
    NotBuilt,
}

impl Refused {
    pub(crate) fn from(error: &SessionError) -> Self {
        match error {
            SessionError::NotFound { .. } => Self::NotFound,
            SessionError::Busy { turn, .. } => Self::Busy(turn.map(TurnId::get)),
            SessionError::QueueFull { capacity, .. } => Self::QueueFull(*capacity),
            SessionError::NotRunning { .. } => Self::NotRunning,
            SessionError::AlreadyExists { .. } => Self::AlreadyExists,
            SessionError::CapacityExceeded { active, max } => Self::Capacity { active: *active, max: *max },
            SessionError::ShuttingDown => Self::ShuttingDown,
            SessionError::Faulted { .. } => Self::Faulted,
            SessionError::Timeout { .. } => Self::TimedOut,
            other => Self::Other(other.code()),
        }
    }
}

impl Ending {
    pub(crate) fn of(result: &Result<RunResult, SessionError>) -> Self {
        match result {
            Ok(result) => result
                .text
                .parse()
                .map_or(Self::Wrong("an answer that no agent gave"), |last| Self::Well { last, turns: result.turns }),
            Err(SessionError::Agent { source, .. }) => Self::of_agent(source),
            Err(SessionError::Faulted { .. }) => Self::Panicked,
            Err(SessionError::Build { .. }) => Self::NotBuilt,
            Err(other) => Self::Wrong(other.code()),
        }
    }

    pub(crate) fn of_agent(error: &AgentError) -> Self {
        match error {
            AgentError::Cancelled { reason } => Self::Cancelled(*reason),
            AgentError::Internal(_) => Self::Failed,
            _ => Self::Wrong("an error that no agent gave"),
        }
    }
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m {}t last {}", self.messages, self.tokens, self.last)
    }
}
