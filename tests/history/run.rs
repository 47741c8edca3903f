//! Runs a plan on real threads.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::{bounded, RecvTimeoutError};
use turnwise::{EphemeralSessionService, ServiceStats, SessionEvent, SessionId, Subscription};

use crate::agent::{Director, Stage};
use crate::answers::Ending;
use crate::assemble::put_together;
use crate::heard;
use crate::history::{History, Uid};
use crate::plan::{Plan, NAMED};
use crate::player::{Notes, Player, Scene, LONG};

/// Longer than any run takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// If no stamp is taken for this long and every thread waits, the threads wait for a turn that waits for a cancel.
const A_MOMENT: Duration = Duration::from_micros(300);

/// The outcome of a run.
pub(crate) enum Ran {
    /// The run ended: its history, and the failures that do not depend on it.
    ToItsEnd(Box<History>, Vec<String>),
    /// The run hangs. The text has the step of each thread.
    Hangs(String),
    /// A thread of the run panicked inside of the library.
    Panicked(String),
}

/// Runs a plan, under a watchdog.
pub(crate) fn run(plan: &Plan) -> Ran {
    let places: Arc<Vec<AtomicUsize>> = Arc::new((0..=plan.threads.len()).map(|_| AtomicUsize::new(0)).collect());
    let (finish, finished) = bounded(1);
    let (own_plan, own_places) = (plan.clone(), Arc::clone(&places));
    let runner = thread::Builder::new().name("runner".to_owned());
    let runner = runner.spawn(move || drop(finish.send(play(&own_plan, &own_places)))).expect("a thread for the run");
    match finished.recv_timeout(PATIENCE) {
        Ok((history, wrongs)) => Ran::ToItsEnd(Box::new(history), wrongs),
        Err(RecvTimeoutError::Disconnected) => {
            let payload = runner.join().expect_err("the runner has sent nothing, so it panicked");
            Ran::Panicked(payload.downcast_ref::<String>().cloned().unwrap_or_default())
        }
        Err(RecvTimeoutError::Timeout) => Ran::Hangs(where_it_is(plan, &places)),
    }
}

pub(crate) fn where_it_is(plan: &Plan, places: &[AtomicUsize]) -> String {
    let mut text = String::new();
    for (number, (steps, place)) in plan.threads.iter().zip(places).enumerate() {
        let place = place.load(Ordering::SeqCst);
        text += &match steps.get(place) {
            Some(step) if step.may_wait() => format!("thread {number} is in step {place}: {step:?}\n"),
            Some(step) => format!("thread {number} is in step {place}: {step:?}, which must never wait\n"),
            None => format!("thread {number} is through\n"),
        };
    }
    if places[plan.threads.len()].load(Ordering::SeqCst) > 0 {
        text += "the threads have ended; the run waits in its shutdown, or for a result\n";
    }
    text
}

fn play(plan: &Plan, places: &[AtomicUsize]) -> (History, Vec<String>) {
    let settings = plan.settings;
    let stage = Stage::new(plan.threads.len(), settings.max_running_turns);
    let mut config = EphemeralSessionService::configure(Director(Arc::clone(&stage)))
        .max_sessions(settings.max_sessions)
        .turn_queue(settings.turn_queue)
        .event_history(if settings.keeps_events { 1 << 12 } else { 0 })
        .idle_threads(settings.idle_threads);
    if let Some(limit) = settings.max_running_turns {
        config = config.max_running_turns(limit);
    }
    let service = config.build().expect("the settings are valid");
    let everything = settings.subscribe_all.then(|| service.subscribe_all(Subscription::new().capacity(1 << 20)));
    let scene =
        Scene { stage, service, named: (0..NAMED).map(|_| SessionId::new()).collect(), next_uid: AtomicU32::new(1) };
    let mut prompter = Player::new(&scene, plan.threads.len());
    prompter.open_first(settings.opened);
    let mut all = play_threads(plan, &scene, places, &mut prompter);
    places[plan.threads.len()].store(1, Ordering::SeqCst);
    let (last, stats) = end(&scene, &mut all, prompter, settings.drained);
    all.push(last);
    let everything = everything.map(|stream| heard::events_of(&stream, true));
    let heard = everything.iter().flatten().flatten().cloned().collect::<Vec<_>>();
    let history = put_together(plan, &scene, &mut all, &heard);
    check_stats(&scene, &history, &stats);
    check_the_rest(&scene, &history, all, everything);
    let wrongs = std::mem::take(&mut *scene.stage.wrongs.lock().unwrap());
    (history, wrongs)
}

/// Runs all threads of the plan. When all of them wait for turns that wait for a cancel, this thread cancels the turns.
fn play_threads(plan: &Plan, scene: &Scene, places: &[AtomicUsize], prompter: &mut Player<'_>) -> Vec<Notes> {
    let start = Barrier::new(plan.threads.len());
    let (through, is_through) = bounded::<()>(0);
    thread::scope(|scope| {
        let players = plan.threads.iter().enumerate().map(|(number, steps)| {
            let (start, through) = (&start, through.clone());
            scope.spawn(move || {
                let _through = through;
                let mut player = Player::new(scene, number);
                start.wait();
                for (place, step) in steps.iter().enumerate() {
                    places[number].store(place, Ordering::SeqCst);
                    player.play(step);
                }
                places[number].store(steps.len(), Ordering::SeqCst);
                // From here on this thread counts as waiting.
                scene.stage.busy_threads.fetch_sub(1, Ordering::SeqCst);
                player.notes
            })
        });
        let players: Vec<_> = players.collect();
        drop(through);
        let mut last = scene.stage.clock.last();
        while is_through.recv_timeout(A_MOMENT) == Err(RecvTimeoutError::Timeout) {
            let now = scene.stage.clock.last();
            if now == last && scene.stage.busy_threads.load(Ordering::SeqCst) == 0 {
                prompter.interrupt_all();
            }
            last = now;
        }
        players.into_iter().map(|player| player.join().unwrap_or_else(|payload| resume_unwind(payload))).collect()
    })
}

/// Shuts the service down, and gets every result that is left.
fn end(scene: &Scene, all: &mut [Notes], mut player: Player<'_>, drained: bool) -> (Notes, ServiceStats) {
    // A draining shutdown does not cancel the turns that wait for a cancel. So they are interrupted until none is left.
    let (interrupt, patience) = if drained { (false, A_MOMENT) } else { (true, LONG) };
    while !player.shutdown(interrupt, patience) {
        player.interrupt_all();
    }
    for notes in all {
        for held in notes.turns.drain(..) {
            player.notes.turns.push(held);
            player.wait(0);
        }
    }
    (player.notes, scene.service.stats())
}

/// Checks the figures of the service after its shutdown.
fn check_stats(scene: &Scene, history: &History, stats: &ServiceStats) {
    if (stats.sessions, stats.running_turns) != (0, 0) {
        scene.stage.wrong(format!("C09: sessions or running turns are counted after the shutdown: {stats:?}"));
    }
    let ended = stats.turns_completed + stats.turns_failed + stats.turns_cancelled + stats.faults;
    if stats.turns_started != ended {
        scene.stage.wrong(format!("the count of started turns differs from that of ended turns: {stats:?}"));
    }
    let (accepted, at_most) = history.accepted_turns();
    if !(accepted..=at_most).contains(&(stats.turns_started + stats.turns_withdrawn)) {
        scene.stage.wrong(format!(
            "C49: {accepted} to {at_most} turns were accepted, but not so many started or were \
             withdrawn: {stats:?}"
        ));
    }
}

/// The checks that do not depend on the order of calls.
fn check_the_rest(
    scene: &Scene,
    history: &History,
    all: Vec<Notes>,
    everything: Option<Result<Vec<SessionEvent>, String>>,
) {
    let stage = &scene.stage;
    let (built, dropped) = (stage.agents_built.load(Ordering::SeqCst), stage.agents_dropped.load(Ordering::SeqCst));
    if built != dropped {
        stage.wrong(format!("C30: {built} agents were built, {dropped} were dropped"));
    }
    let results: HashMap<Uid, Ending> = history.results.iter().copied().collect();
    let mut wrongs = Vec::new();
    for notes in all {
        wrongs.extend(
            notes.watched.iter().filter_map(|(uid, events)| heard::turn(*uid, events, &results, history).err()),
        );
        wrongs.extend(
            notes.interactions.into_iter().filter_map(|(uid, events)| heard::interaction(uid, events, history).err()),
        );
        wrongs.extend(notes.streams.iter().filter_map(|stream| {
            heard::events_of(stream, false).and_then(|events| heard::sessions(&events, false)).err()
        }));
    }
    wrongs.extend(everything.and_then(|events| events.and_then(|events| heard::sessions(&events, true)).err()));
    wrongs.into_iter().for_each(|wrong| stage.wrong(wrong));
}
