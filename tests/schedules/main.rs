//! C68: a host's own scenario in many schedules. The scenarios use only what a host can use.
//!
//! `cargo test` runs them on real threads. With `--cfg turnwise_shuttle` the model checker runs them, and has to find the
//! races in these agents.

use std::sync::Arc;
use std::time::Duration;

use turnwise::crossbeam_channel::bounded;
use turnwise::testkit::sync::{spawn, yield_now, AtomicBool, AtomicU64, Mutex, Ordering};
use turnwise::testkit::{explore, scripted, Gate, Script};
use turnwise::{
    agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, InteractionContent, SessionService,
    SessionSpec, StartTurnRequest, Subscription,
};

/// An agent that parks in a channel of its own until it is cancelled. Its hook wakes it only if it says that it waits, and
/// it says so too late: a cancel that comes right before is missed.
fn parks(misses_a_cancel: bool) {
    let agent = agent_fn(move |prompt, turn| {
        let waits = Arc::new(AtomicBool::new(!misses_a_cancel));
        let (stop, stopped) = bounded(1);
        let (seen, _open) = (Arc::clone(&waits), stop.clone());
        let _hook = turn.cancel_token().on_cancel(move || {
            if seen.load(Ordering::SeqCst) {
                let _ = stop.try_send(());
            }
        });
        if prompt == "park" && !turn.is_cancelled() {
            waits.store(true, Ordering::SeqCst);
            let _ = stopped.recv();
        }
        turn.check()?;
        Ok(turn.finish(prompt))
    });
    let service = EphemeralSessionService::new(agent, 1);
    let turn = service.begin_session(CreateSessionRequest::new("park")).unwrap();
    turn.interrupt();
    assert!(turn.wait().unwrap_err().cancel_reason().is_some());
    service.shutdown(Duration::MAX);
}

#[test]
fn c68_a_scenario_of_agents_and_host_threads_runs_in_every_schedule() {
    explore(100, 1, || parks(false));
    explore(100, 2, || {
        let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 2);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let mut events = service.subscribe(id, Subscription::new()).unwrap();
        let started = Arc::new(Mutex::new(0));
        let callers = [(); 2].map(|()| {
            let (service, started) = (service.clone(), Arc::clone(&started));
            spawn(move || loop {
                match service.start_turn(id, StartTurnRequest::new("x")) {
                    Ok(_) => break *started.lock() += 1,
                    Err(error) => assert_eq!(error.code(), "SESSION_BUSY"),
                }
                yield_now();
            })
        });
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        assert_eq!(*started.lock(), 2);
        service.archive(id).unwrap();
        let ends = events.by_ref().filter(|event| matches!(event.event, AgentEvent::RunCompleted { .. })).count();
        assert_eq!(ends, 2);
        service.shutdown(Duration::MAX);
    });
}

#[test]
fn c68_the_tools_of_the_kit_work_in_a_scenario() {
    explore(50, 1, || {
        let gate = Gate::new();
        let agent = scripted().on("hold", Script::new().wait_at(&gate).wait_inbox(Duration::MAX));
        let service = EphemeralSessionService::new(agent, 1);
        let turn = service.begin_session(CreateSessionRequest::new("hold")).unwrap();
        gate.wait_arrived(1);
        let note = service.steer(turn.session_id(), None, InteractionContent::message("go")).unwrap();
        gate.open();
        assert_eq!(turn.wait().unwrap().text, "go");
        assert_eq!(note.count(), 2);
        service.shutdown(Duration::MAX);
    });
}

/// The same body in as many runs as asked.
#[test]
fn c68_the_number_of_runs_is_that_of_the_schedules() {
    let runs = Arc::new(std::sync::atomic::AtomicU64::new(0));
    for (schedules, so_far) in [(10, 10), (0, 10), (1, 11)] {
        let counting = Arc::clone(&runs);
        explore(schedules, 7, move || {
            counting.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let shared = Arc::new(AtomicU64::new(0));
            let other = Arc::clone(&shared);
            spawn(move || other.fetch_add(1, Ordering::SeqCst)).join().unwrap();
            assert_eq!(shared.load(Ordering::SeqCst), 1);
        });
        assert_eq!(runs.load(std::sync::atomic::Ordering::SeqCst), so_far);
    }
}

#[test]
#[should_panic(expected = "as asked")]
fn c68_a_scenario_that_panics_fails() {
    explore(3, 1, || panic!("as asked"));
}

#[cfg(turnwise_shuttle)]
mod with_the_model_checker {
    use std::process::{Command, Output};

    use super::*;

    /// Not a test of its own: the test below runs it in a process, and reads its failure.
    #[test]
    #[ignore = "fails by design"]
    fn a_cancel_that_is_missed() {
        explore(2_000, 1, || parks(true));
    }

    fn run_the_race(schedule: Option<&str>) -> Output {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command.args(["--ignored", "--exact", "with_the_model_checker::a_cancel_that_is_missed", "--nocapture"]);
        command.env("RUST_BACKTRACE", "0").env_remove("TURNWISE_REPLAY");
        if let Some(schedule) = schedule {
            command.env("TURNWISE_REPLAY", schedule);
        }
        command.output().expect("a process")
    }

    #[test]
    fn c68_a_race_in_an_agent_is_found_and_its_schedule_replays() {
        let found = run_the_race(None);
        let printed = String::from_utf8_lossy(&found.stderr);
        assert!(!found.status.success(), "{printed}");
        assert!(printed.contains("deadlock"), "{printed}");
        assert!(printed.contains("TURNWISE_REPLAY"), "{printed}");
        let schedule = printed.rsplit("failing schedule:\n\"\n").next().and_then(|rest| rest.split("\n\"").next());
        let schedule = schedule.unwrap_or_else(|| panic!("no schedule in {printed}"));
        let replayed = run_the_race(Some(schedule));
        let printed = String::from_utf8_lossy(&replayed.stderr);
        assert!(!replayed.status.success() && printed.contains("deadlock"), "{printed}");
    }
}
