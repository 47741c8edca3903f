//! What is recorded of a run: calls of the service, and what its agents saw of themselves.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use turnwise::{AgentError, ArchiveMode, CancelReason, RunResult, SessionError, SessionState};

use crate::plan::Settings;

/// A point in the run. No two moments have the same.
pub(crate) type Stamp = u64;

/// After everything.
pub(crate) const NEVER: Stamp = Stamp::MAX;

/// The one clock of a run.
#[derive(Debug, Default)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    pub(crate) fn now(&self) -> Stamp {
        // SeqCst: a call that has returned on one thread has a lower stamp than one that then begins on another.
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    /// How far it is, without a moment of its own.
    pub(crate) fn last(&self) -> Stamp {
        self.0.load(Ordering::SeqCst)
    }
}

/// Names what a call has brought into the world: a turn, a session's build, an interaction.
pub(crate) type Uid = u32;

/// Which id, in the order in which the ids of a run came up.
pub(crate) type Key = usize;

/// What a session shows of its history. The three change together.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Figures {
    pub(crate) messages: usize,
    pub(crate) tokens: u64,
    /// Whose answer is the last.
    pub(crate) last: Uid,
}

/// What a call that failed says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Refused {
    NotFound,
    Busy,
    NotRunning,
    AlreadyExists,
    Capacity {
        active: usize,
        max: usize,
    },
    ShuttingDown,
    Faulted,
    /// Something that nothing in a plan can lead to.
    Other(&'static str),
}

/// How a turn has ended, for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ending {
    /// With the answer to this prompt or interaction, the sum of so many.
    Well {
        last: Uid,
        turns: u32,
    },
    Failed,
    Cancelled(CancelReason),
    Panicked,
    NotBuilt,
    /// Something that no turn ends with.
    Wrong(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) state: SessionState,
    pub(crate) active: bool,
    pub(crate) figures: Figures,
}

/// What a turn's beginning came to. Where the call waits for the end, the number is known of a turn that went well only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Begun {
    pub(crate) number: Option<u64>,
    /// Whether the call has waited for the end.
    pub(crate) ended: bool,
}

/// Something that concerns one id: a call with its answer, or a moment of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// `figures`: what the session begins with.
    Create {
        uid: Uid,
        figures: Figures,
        host: bool,
        answer: Result<Begun, Refused>,
    },
    Open {
        uid: Uid,
        figures: Figures,
        answer: Result<(), Opened>,
    },
    Turn {
        uid: Uid,
        host: bool,
        answer: Result<Begun, Refused>,
    },
    /// Somebody has the turn's result.
    Result {
        uid: Uid,
    },
    InterruptHandle {
        uid: Uid,
    },
    Interrupt {
        only: Option<u64>,
        answer: Result<(), Refused>,
    },
    Read(Result<View, Refused>),
    /// In a list.
    Listed(View),
    /// Missing in a list that it would be in.
    Unlisted,
    /// Named by a list that begins after it.
    ListedAfter(Result<(), Refused>),
    Export(Result<Figures, Refused>),
    Take(Result<Figures, Refused>),
    Archive {
        mode: ArchiveMode,
        answer: Result<(), Refused>,
    },
    ArchiveWait(Result<(), Refused>),
    Inject {
        dismissal: bool,
        answer: Result<(), Refused>,
    },
    Subscribe(Result<(), Refused>),
    /// `timed_out`: some session had not ended in time.
    Shutdown {
        mode: ArchiveMode,
        timed_out: bool,
    },
    /// The builder has begun.
    BuildBegins {
        uid: Uid,
    },
    BuildEnds {
        well: bool,
        figures: Figures,
    },
    /// The agent begins with a prompt or an interaction of turn `uid`.
    Enter {
        uid: Uid,
        number: u64,
    },
    /// The agent shows something in the middle of it.
    Shows(Figures),
    /// The agent looks at its token.
    Looks(Option<CancelReason>),
    /// The agent is done with it.
    Leave {
        ending: Ending,
        figures: Figures,
    },
    /// The agent's drop is over.
    Dropped,
}

impl What {
    /// Whose creation it is.
    pub(crate) fn creates(&self) -> Option<Uid> {
        match *self {
            Self::Create { uid, .. } | Self::Open { uid, .. } => Some(uid),
            _ => None,
        }
    }
}

/// What `open_session` fails with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Opened {
    Refused(Refused),
    /// Registered, and closed while it was being built.
    Closed(Refused),
    NotBuilt,
}

/// When it was, by whom, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) who: Who,
    pub(crate) call: Stamp,
    pub(crate) ret: Stamp,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Thread(usize),
    Agent,
}

/// A list, as it was answered.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(crate) who: Who,
    pub(crate) call: Stamp,
    pub(crate) ret: Stamp,
    pub(crate) after: Option<Key>,
    pub(crate) limit: Option<usize>,
    pub(crate) answer: Result<Vec<(Key, View)>, Refused>,
}

/// Something that was counted during a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    pub(crate) call: Stamp,
    pub(crate) ret: Stamp,
    pub(crate) of: Counted,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Counted {
    /// `stats().sessions`.
    Sessions(usize),
    /// `stats().running_turns`.
    RunningTurns(usize),
    /// `registered_sessions`.
    Registered(u64),
    /// What `wait_session_registered` answered to who had seen so many, and waited for none.
    RegisteredAfter { seen: u64, answer: Option<u64> },
    /// A creation was refused for want of capacity.
    Exceeded { active: usize, max: usize },
    /// Sessions that a shutdown has seen off.
    Joined(usize),
}

/// One session from its creation on: for the checks that are about several.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) key: Key,
    /// It was registered after this,
    pub(crate) created_after: Stamp,
    /// and before this.
    pub(crate) created_before: Stamp,
    /// It held its capacity at least until then,
    pub(crate) released_after: Stamp,
    /// and no longer than that.
    pub(crate) released_before: Stamp,
}

/// All that is known of a run.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) settings: Settings,
    /// By key.
    pub(crate) names: Vec<String>,
    pub(crate) events: Vec<(Key, Event)>,
    pub(crate) listings: Vec<Listing>,
    pub(crate) counts: Vec<Count>,
    pub(crate) lives: Vec<Life>,
    /// How each turn ended, as everybody was told who asked.
    pub(crate) results: Vec<(Uid, Ending)>,
}

impl Refused {
    pub(crate) fn from(error: &SessionError) -> Self {
        match error {
            SessionError::NotFound { .. } => Self::NotFound,
            SessionError::Busy { .. } => Self::Busy,
            SessionError::NotRunning { .. } => Self::NotRunning,
            SessionError::AlreadyExists { .. } => Self::AlreadyExists,
            SessionError::CapacityExceeded { active, max } => Self::Capacity { active: *active, max: *max },
            SessionError::ShuttingDown => Self::ShuttingDown,
            SessionError::Faulted { .. } => Self::Faulted,
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

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.who {
            Who::Thread(number) => format!("thread {number}"),
            Who::Agent => "agent".to_owned(),
        };
        let ret = if self.ret == NEVER { "-".to_owned() } else { self.ret.to_string() };
        write!(f, "{:>5} {:>5}  {who:<9} {:?}", self.call, ret, self.what)
    }
}
