//! The plan of one run: plain data. [`generate`](crate::generate) makes it.

use turnwise::{ArchiveMode, WhenBusy};

/// The plan of one run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    /// The steps of each thread, in order.
    pub(crate) threads: Vec<Vec<Step>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) max_sessions: usize,
    pub(crate) max_running_turns: Option<usize>,
    /// The most turns that may be queued in a session.
    pub(crate) turn_queue: usize,
    pub(crate) idle_threads: usize,
    /// True if a subscriber reads the events of all sessions from their first event on.
    pub(crate) subscribe_all: bool,
    /// True if each session keeps its events for later subscribers.
    pub(crate) keeps_events: bool,
    /// The number of first slots that have a session when the threads begin.
    pub(crate) opened: u8,
    /// True if the last shutdown drains the running turns.
    pub(crate) drained: bool,
}

/// Selects a session. The first [`NAMED`] slots have fixed ids, which several creates may ask for. The other slots are
/// the sessions with ids from the library, the latest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(pub(crate) u8);

/// The number of slots with a fixed id.
pub(crate) const NAMED: u8 = 3;

/// The script of an agent for a turn or an interaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// Yields that many times, then answers. Stops at a cancel.
    Answer(u8),
    /// Yields that many times, then fails.
    Fail(u8),
    /// Yields that many times, then panics.
    Panic(u8),
    /// Waits for a cancel.
    Hold,
    /// Yields that many times, then answers. Ignores a cancel.
    Deaf(u8),
    /// Answers, and uses that many tokens.
    Cost(u8),
}

/// The script of a builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// Yields that many times, then builds.
    Slow(u8),
    /// Yields that many times, then fails.
    Fail(u8),
    Panic,
}

/// The form of a call that starts a session or a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// Waits for the result.
    Wait,
    /// Keeps the handle.
    Keep,
    /// Drops the handle.
    Detach,
}

/// The timeout of a wait until a session is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Zero: the call does not wait.
    None,
    /// Less than many turns take.
    Short,
    /// Longer than a run takes.
    Long,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Prompt {
    pub(crate) script: Script,
    pub(crate) form: Form,
    pub(crate) host: bool,
    /// True if the turn has an event receiver.
    pub(crate) watched: bool,
}

/// One step of a thread.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Create {
        slot: Option<Slot>,
        build: Build,
        resume: bool,
        prompt: Prompt,
    },
    Open {
        slot: Option<Slot>,
        build: Build,
        resume: bool,
    },
    Turn {
        slot: Slot,
        prompt: Prompt,
        when_busy: WhenBusy,
    },
    /// Tries to start a turn that many times without a pause, until it is admitted. It does not queue.
    Rush {
        slot: Slot,
        times: u8,
    },
    /// Waits for the result of a turn that this thread began. 0 is its latest turn.
    Wait {
        back: u8,
    },
    /// Polls for the result.
    Poll {
        back: u8,
    },
    /// Asks the handle whether its turn is queued.
    AskQueued {
        back: u8,
    },
    InterruptHandle {
        back: u8,
    },
    /// Interrupts a turn that this thread began, by its number, then polls for its result.
    InterruptOwn {
        back: u8,
    },
    Interrupt {
        slot: Slot,
    },
    /// Interrupts the turn with this number, which may have ended, run, or not begun.
    InterruptTurn {
        slot: Slot,
        number: u8,
    },
    WaitIdle {
        slot: Slot,
        patience: Patience,
    },
    Read {
        slot: Slot,
    },
    List {
        after: Option<Slot>,
        limit: Option<u8>,
    },
    Export {
        slot: Slot,
    },
    Take {
        slot: Slot,
    },
    Archive {
        slot: Slot,
        interrupt: bool,
    },
    ArchiveWait {
        slot: Slot,
    },
    Inject {
        slot: Slot,
        script: Script,
    },
    Dismiss {
        slot: Slot,
    },
    Subscribe {
        slot: Slot,
        capacity: u8,
    },
    /// Reads the history and its boundary, and subscribes to the events after it.
    Follow {
        slot: Slot,
    },
    Stats,
    Registrations,
    GiveWay(u8),
    Shutdown {
        interrupt: bool,
    },
}

impl Step {
    /// Whether the contract lets this step wait: for a turn, a build, or the end of a session.
    pub(crate) fn may_wait(&self) -> bool {
        match self {
            Self::Create { prompt, .. } | Self::Turn { prompt, .. } => prompt.form == Form::Wait,
            Self::Open { .. } | Self::Wait { .. } | Self::Export { .. } | Self::Take { .. } => true,
            Self::ArchiveWait { .. } | Self::Shutdown { .. } => true,
            Self::WaitIdle { patience, .. } => *patience != Patience::None,
            _ => false,
        }
    }
}

pub(crate) fn mode(interrupt: bool) -> ArchiveMode {
    if interrupt {
        ArchiveMode::Interrupt
    } else {
        ArchiveMode::Drain
    }
}
