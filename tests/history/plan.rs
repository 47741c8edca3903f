//! The plan of one run: plain data, which `proptest` generates and shrinks.

use proptest::collection::vec;
use proptest::prelude::*;
use turnwise::ArchiveMode;

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
    pub(crate) idle_threads: usize,
    /// True if a subscriber reads the events of all sessions from their first event on.
    pub(crate) subscribe_all: bool,
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
    Panic,
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
    Fail,
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
    },
    /// Waits for the result of a turn that this thread began. 0 is its latest turn.
    Wait {
        back: u8,
    },
    /// Polls for the result.
    Poll {
        back: u8,
    },
    InterruptHandle {
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

/// The emphasis of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// Turns of few sessions that stay open.
    Turns,
    /// Sessions that are created and ended.
    Sessions,
}

pub(crate) fn plans() -> impl Strategy<Value = Plan> {
    prop_oneof![plans_about(About::Turns), plans_about(About::Sessions)]
}

fn plans_about(about: About) -> impl Strategy<Value = Plan> {
    let steps = vec(vec(step(about), 0..=14), 2..=5);
    // A shutdown comes near the end of one thread, or after all threads.
    let shutdown = proptest::option::weighted(0.3, (any::<bool>(), any::<bool>(), 0..3_usize));
    (settings(about), steps, shutdown).prop_map(|(settings, mut threads, shutdown)| {
        if let Some((interrupt, first, from_end)) = shutdown {
            let thread = &mut threads[usize::from(first)];
            let at = thread.len().saturating_sub(from_end);
            thread.insert(at, Step::Shutdown { interrupt });
        }
        Plan { settings, threads }
    })
}

fn settings(about: About) -> impl Strategy<Value = Settings> {
    let opened = if about == About::Turns { 1..=2_u8 } else { 0..=1 };
    let running = prop_oneof![3 => Just(None), 2 => (1..=2_usize).prop_map(Some)];
    let idle = prop_oneof![Just(0), Just(2_usize)];
    (1..=4_usize, running, idle, proptest::bool::weighted(0.3), opened, any::<bool>()).prop_map(
        |(max_sessions, max_running_turns, idle_threads, subscribe_all, opened, drained)| Settings {
            max_sessions,
            max_running_turns,
            idle_threads,
            subscribe_all,
            opened,
            drained,
        },
    )
}

/// Mostly the same few sessions, because calls for different sessions do not conflict.
fn slot() -> impl Strategy<Value = Slot> {
    prop_oneof![10 => Just(0_u8), 3 => Just(1), 1 => Just(2), 1 => Just(NAMED), 1 => Just(NAMED + 1)].prop_map(Slot)
}

fn new_slot() -> impl Strategy<Value = Option<Slot>> {
    prop_oneof![3 => (0..NAMED).prop_map(|slot| Some(Slot(slot))), 1 => Just(None)]
}

fn script() -> impl Strategy<Value = Script> {
    prop_oneof![
        16 => (0..4_u8).prop_map(Script::Answer),
        4 => (0..3_u8).prop_map(Script::Cost),
        3 => (0..3_u8).prop_map(Script::Fail),
        3 => Just(Script::Hold),
        3 => (0..20_u8).prop_map(Script::Deaf),
        2 => Just(Script::Panic),
    ]
}

fn build() -> impl Strategy<Value = Build> {
    prop_oneof![12 => (0..4_u8).prop_map(Build::Slow), 1 => Just(Build::Fail), 1 => Just(Build::Panic)]
}

fn prompt() -> impl Strategy<Value = Prompt> {
    let form = prop_oneof![3 => Just(Form::Keep), 5 => Just(Form::Wait), 1 => Just(Form::Detach)];
    (script(), form, proptest::bool::weighted(0.08), proptest::bool::weighted(0.3))
        .prop_map(|(script, form, host, watched)| Prompt { script, form, host, watched })
}

fn step(about: About) -> impl Strategy<Value = Step> {
    // The weights of steps about turns, and of steps that create or end sessions.
    let (turns, sessions) = if about == About::Turns { (12, 1) } else { (1, 3) };
    prop_oneof![
        turns => step_of_turns(),
        sessions => step_of_sessions(),
        1 => step_that_looks(),
    ]
}

fn step_of_turns() -> impl Strategy<Value = Step> {
    prop_oneof![
        16 => (slot(), prompt()).prop_map(|(slot, prompt)| Step::Turn { slot, prompt }),
        8 => (0..2_u8).prop_map(|back| Step::Wait { back }),
        2 => (0..2_u8).prop_map(|back| Step::Poll { back }),
        3 => (0..3_u8).prop_map(|back| Step::InterruptHandle { back }),
        3 => slot().prop_map(|slot| Step::Interrupt { slot }),
        3 => (slot(), 1..=4_u8).prop_map(|(slot, number)| Step::InterruptTurn { slot, number }),
        3 => slot().prop_map(|slot| Step::Read { slot }),
        2 => (slot(), script()).prop_map(|(slot, script)| Step::Inject { slot, script }),
        1 => slot().prop_map(|slot| Step::Dismiss { slot }),
        1 => slot().prop_map(|slot| Step::Export { slot }),
        4 => (0..12_u8).prop_map(Step::GiveWay),
    ]
}

fn step_of_sessions() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (new_slot(), build(), any::<bool>(), prompt())
            .prop_map(|(slot, build, resume, prompt)| Step::Create { slot, build, resume, prompt }),
        3 => (new_slot(), build(), any::<bool>()).prop_map(|(slot, build, resume)| Step::Open { slot, build, resume }),
        1 => slot().prop_map(|slot| Step::Take { slot }),
        3 => (slot(), any::<bool>()).prop_map(|(slot, interrupt)| Step::Archive { slot, interrupt }),
        2 => slot().prop_map(|slot| Step::ArchiveWait { slot }),
        2 => slot().prop_map(|slot| Step::Export { slot }),
    ]
}

fn step_that_looks() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => slot().prop_map(|slot| Step::Read { slot }),
        4 => (proptest::option::weighted(0.3, slot()), proptest::option::weighted(0.3, 1..3_u8))
            .prop_map(|(after, limit)| Step::List { after, limit }),
        2 => slot().prop_map(|slot| Step::Export { slot }),
        1 => (slot(), 1..40_u8).prop_map(|(slot, capacity)| Step::Subscribe { slot, capacity }),
        1 => Just(Step::Stats),
        1 => Just(Step::Registrations),
    ]
}
