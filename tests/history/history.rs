//! The records of a run: the calls of the service, and the steps of its agents.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use turnwise::{ArchiveMode, CancelReason, WhenBusy};

use crate::answers::{Begun, Ending, Figures, Opened, Refused, View};
use crate::plan::Settings;

/// A point in the run. No two points have the same stamp.
pub(crate) type Stamp = u64;

/// The stamp after all others.
pub(crate) const NEVER: Stamp = Stamp::MAX;

/// The clock of a run.
#[derive(Debug, Default)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    pub(crate) fn now(&self) -> Stamp {
        // SeqCst: a call that has returned on one thread has a lower stamp than one that then begins on another.
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    /// The next stamp, without using it.
    pub(crate) fn last(&self) -> Stamp {
        self.0.load(Ordering::SeqCst)
    }
}

/// The number of a turn, a session's build or an interaction.
pub(crate) type Uid = u32;

/// The number of a session id, in the order in which the ids of a run were recorded.
pub(crate) type Key = usize;

/// A record about one id: a call with its answer, or a step of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// `figures`: the figures of the history that the session begins with.
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
        when_busy: WhenBusy,
        answer: Result<Begun, Refused>,
    },
    /// A caller has got the turn's result.
    Result {
        uid: Uid,
    },
    /// A caller has polled for the turn's result, and got none.
    NoResult {
        uid: Uid,
    },
    IsQueued {
        uid: Uid,
        answer: bool,
    },
    InterruptHandle {
        uid: Uid,
    },
    Interrupt {
        only: Option<u64>,
        answer: Result<(), Refused>,
    },
    WaitIdle(Result<(), Refused>),
    Read(Result<View, Refused>),
    History(Result<Figures, Refused>),
    /// The session is in a list.
    Listed(View),
    /// The session is missing in a list whose page covers its place.
    Unlisted,
    /// The session is the cursor of a list.
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
    /// `timed_out`: a session had not ended within the timeout.
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
    /// The agent publishes a snapshot during the turn.
    Shows(Figures),
    /// The agent reads its cancel token.
    Looks(Option<CancelReason>),
    /// The agent has finished the prompt or interaction.
    Leave {
        ending: Ending,
        figures: Figures,
    },
    /// The agent's drop is over.
    Dropped,
}

impl What {
    /// The creation that this call is, if it is one.
    pub(crate) fn creates(&self) -> Option<Uid> {
        match *self {
            Self::Create { uid, .. } | Self::Open { uid, .. } => Some(uid),
            _ => None,
        }
    }
}

/// A record with its two stamps and its thread.
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

/// A list call and its answer.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(crate) who: Who,
    pub(crate) call: Stamp,
    pub(crate) ret: Stamp,
    pub(crate) after: Option<Key>,
    pub(crate) limit: Option<usize>,
    pub(crate) answer: Result<Vec<(Key, View)>, Refused>,
}

/// A count that a call returned.
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
    /// The answer of `wait_session_registered` with this `seen` and without a wait.
    RegisteredAfter { seen: u64, answer: Option<u64> },
    /// A create was refused with `CapacityExceeded`.
    Exceeded { active: usize, max: usize },
    /// The number of sessions that ended during a shutdown.
    Joined(usize),
}

/// The lifetime of one session, for the rules about several sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) key: Key,
    /// The session was registered after this stamp.
    pub(crate) created_after: Stamp,
    /// The session was registered before this stamp.
    pub(crate) created_before: Stamp,
    /// The session certainly held its capacity until this stamp.
    pub(crate) released_after: Stamp,
    /// The session held no capacity after this stamp.
    pub(crate) released_before: Stamp,
}

/// What a client has shown: a history, and the events after its boundary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Followed {
    /// All messages of the session at its end. `None` if its build has failed.
    pub(crate) whole: Option<Vec<String>>,
    pub(crate) shown: Vec<String>,
    pub(crate) seq: u64,
    /// The numbers of the events, each with the message that it announces, if it does.
    pub(crate) events: Vec<(u64, Option<String>)>,
    /// How many events the client was told that it has missed.
    pub(crate) dropped: u64,
}

/// All records of a run.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) settings: Settings,
    /// The name of each id, by key.
    pub(crate) names: Vec<String>,
    pub(crate) events: Vec<(Key, Event)>,
    pub(crate) listings: Vec<Listing>,
    pub(crate) counts: Vec<Count>,
    pub(crate) lives: Vec<Life>,
    /// The result of each turn, once for each caller that got it.
    pub(crate) results: Vec<(Uid, Ending)>,
    /// Whether the receiver of a turn has got events, for each turn that had one.
    pub(crate) received: Vec<(Uid, bool)>,
    /// The turns of each session in the order in which they were started. Empty without a subscriber of all sessions.
    pub(crate) started: Vec<(Key, Uid)>,
    pub(crate) followed: Vec<Followed>,
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
