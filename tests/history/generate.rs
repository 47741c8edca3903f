//! Random plans, which `proptest` generates and shrinks.

use proptest::collection::vec;
use proptest::prelude::*;

use turnwise::WhenBusy;

use crate::plan::{Build, Form, Patience, Plan, Prompt, Script, Settings, Slot, Step, NAMED};

/// The emphasis of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// Turns of few sessions that stay open.
    Turns,
    /// Turns that queue in one session.
    Queue,
    /// Sessions that are created and ended.
    Sessions,
}

pub(crate) fn plans() -> impl Strategy<Value = Plan> {
    prop_oneof![plans_about(About::Turns), plans_about(About::Queue), plans_about(About::Sessions)]
}

fn plans_about(about: About) -> impl Strategy<Value = Plan> {
    let steps = vec(vec(step(about), 0..=14), 2..=5);
    // A shutdown comes near the end of one thread, or after all threads.
    let shutdown = proptest::option::weighted(0.3, (any::<bool>(), any::<bool>(), 0..3_usize));
    // Turns queue behind a build only if a thread begins with it.
    let built = proptest::option::weighted(0.3, slow_create());
    (settings(about), steps, built, shutdown).prop_map(move |(mut settings, mut threads, built, shutdown)| {
        if let Some(create) = built.filter(|_| about == About::Queue) {
            settings.opened = 0;
            threads[0].insert(0, create);
        }
        if let Some((interrupt, first, from_end)) = shutdown {
            let thread = &mut threads[usize::from(first)];
            let at = thread.len().saturating_sub(from_end);
            thread.insert(at, Step::Shutdown { interrupt });
        }
        Plan { settings, threads }
    })
}

fn settings(about: About) -> impl Strategy<Value = Settings> {
    let opened = if about == About::Sessions { 0..=1_u8 } else { 1..=2 };
    let running = prop_oneof![3 => Just(None), 2 => (1..=2_usize).prop_map(Some)];
    let idle = prop_oneof![Just(0), Just(2_usize)];
    let queue = prop_oneof![1 => Just(0), 3 => Just(1), 4 => Just(2_usize)];
    let events = (proptest::bool::weighted(0.3), proptest::bool::weighted(0.6));
    (1..=4_usize, running, queue, idle, events, opened, any::<bool>()).prop_map(
        |(max_sessions, max_running_turns, turn_queue, idle_threads, events, opened, drained)| Settings {
            max_sessions,
            max_running_turns,
            turn_queue,
            idle_threads,
            subscribe_all: events.0,
            keeps_events: events.1,
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

/// `holds` is the weight of turns that wait for a cancel. They take long, since they wait for all threads of the run.
fn script(holds: u32) -> impl Strategy<Value = Script> {
    prop_oneof![
        16 => (0..4_u8).prop_map(Script::Answer),
        4 => (0..3_u8).prop_map(Script::Cost),
        3 => (0..3_u8).prop_map(Script::Fail),
        holds => Just(Script::Hold),
        3 => (0..20_u8).prop_map(Script::Deaf),
        2 => (0..6_u8).prop_map(Script::Panic),
    ]
}

fn build() -> impl Strategy<Value = Build> {
    prop_oneof![12 => (0..4_u8).prop_map(Build::Slow), 1 => (0..6_u8).prop_map(Build::Fail), 1 => Just(Build::Panic)]
}

fn prompt() -> impl Strategy<Value = Prompt> {
    let form = prop_oneof![3 => Just(Form::Keep), 5 => Just(Form::Wait), 1 => Just(Form::Detach)];
    (script(3), form, proptest::bool::weighted(0.08), proptest::bool::weighted(0.3))
        .prop_map(|(script, form, host, watched)| Prompt { script, form, host, watched })
}

/// A turn. `weights` are those of the three values of `when_busy`, in the order of their declaration.
fn turn(prompt: impl Strategy<Value = Prompt>, weights: [u32; 3]) -> impl Strategy<Value = Step> {
    let [refuse, queue, interrupt] = weights;
    let when_busy = prop_oneof![
        refuse => Just(WhenBusy::Refuse),
        queue => Just(WhenBusy::Queue),
        interrupt => Just(WhenBusy::Interrupt)
    ];
    (slot(), prompt, when_busy).prop_map(|(slot, prompt, when_busy)| Step::Turn { slot, prompt, when_busy })
}

fn patience() -> impl Strategy<Value = Patience> {
    prop_oneof![2 => Just(Patience::None), 2 => Just(Patience::Short), 3 => Just(Patience::Long)]
}

/// The create of the session that most calls are about, with a build that takes some time.
fn slow_create() -> impl Strategy<Value = Step> {
    let build = prop_oneof![2 => (4..16_u8).prop_map(Build::Slow), 1 => (4..16_u8).prop_map(Build::Fail)];
    (build, prompt(), any::<bool>()).prop_map(|(build, prompt, opens)| {
        let (slot, resume) = (Some(Slot(0)), false);
        if opens {
            Step::Open { slot, build, resume }
        } else {
            Step::Create { slot, build, resume, prompt: Prompt { form: Form::Keep, ..prompt } }
        }
    })
}

fn step(about: About) -> impl Strategy<Value = Step> {
    // The weights of steps about turns and queues, and of steps that create or end sessions.
    let (turns, queue, sessions) = match about {
        About::Turns => (12, 0, 1),
        About::Queue => (1, 12, 1),
        About::Sessions => (1, 0, 3),
    };
    prop_oneof![
        turns => step_of_turns(),
        queue => step_of_queue(),
        sessions => step_of_sessions(),
        1 => step_that_looks(),
    ]
}

fn step_of_turns() -> impl Strategy<Value = Step> {
    prop_oneof![
        16 => turn(prompt(), [6, 3, 1]),
        8 => (0..2_u8).prop_map(|back| Step::Wait { back }),
        2 => (0..2_u8).prop_map(|back| Step::Poll { back }),
        1 => (0..2_u8).prop_map(|back| Step::AskQueued { back }),
        3 => (0..3_u8).prop_map(|back| Step::InterruptHandle { back }),
        3 => slot().prop_map(|slot| Step::Interrupt { slot }),
        3 => (slot(), 1..=4_u8).prop_map(|(slot, number)| Step::InterruptTurn { slot, number }),
        3 => slot().prop_map(|slot| Step::Read { slot }),
        2 => (slot(), script(3)).prop_map(|(slot, script)| Step::Inject { slot, script }),
        1 => slot().prop_map(|slot| Step::Dismiss { slot }),
        1 => (slot(), patience()).prop_map(|(slot, patience)| Step::WaitIdle { slot, patience }),
        1 => slot().prop_map(|slot| Step::Export { slot }),
        3 => slot().prop_map(|slot| Step::Follow { slot }),
        4 => (0..12_u8).prop_map(Step::GiveWay),
    ]
}

/// A step for one session, whose queue is mostly not empty.
fn step_of_queue() -> impl Strategy<Value = Step> {
    let busy = || Just(Slot(0));
    let keep = (script(1), proptest::bool::weighted(0.15), proptest::bool::weighted(0.3))
        .prop_map(|(script, host, watched)| Prompt { script, form: Form::Keep, host, watched });
    prop_oneof![
        9 => turn(keep, [1, 7, 2]),
        5 => turn(prompt(), [3, 5, 2]),
        3 => (busy(), 2..10_u8).prop_map(|(slot, times)| Step::Rush { slot, times }),
        5 => (0..4_u8).prop_map(|back| Step::Wait { back }),
        3 => (0..4_u8).prop_map(|back| Step::Poll { back }),
        2 => (0..4_u8).prop_map(|back| Step::AskQueued { back }),
        3 => (0..4_u8).prop_map(|back| Step::InterruptHandle { back }),
        3 => (0..4_u8).prop_map(|back| Step::InterruptOwn { back }),
        2 => busy().prop_map(|slot| Step::Interrupt { slot }),
        2 => (busy(), 1..=9_u8).prop_map(|(slot, number)| Step::InterruptTurn { slot, number }),
        3 => (busy(), patience()).prop_map(|(slot, patience)| Step::WaitIdle { slot, patience }),
        3 => busy().prop_map(|slot| Step::Read { slot }),
        2 => Just(Step::List { after: None, limit: None }),
        1 => busy().prop_map(|slot| Step::Export { slot }),
        1 => busy().prop_map(|slot| Step::Take { slot }),
        2 => busy().prop_map(|slot| Step::Follow { slot }),
        2 => (0..12_u8).prop_map(Step::GiveWay),
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
        2 => slot().prop_map(|slot| Step::Follow { slot }),
        1 => (slot(), 1..40_u8).prop_map(|(slot, capacity)| Step::Subscribe { slot, capacity }),
        1 => Just(Step::Stats),
        1 => Just(Step::Registrations),
    ]
}
