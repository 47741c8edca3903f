//! C01–C09: creating sessions, capacity, ids.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::{bounded, unbounded, Receiver, Sender};
use turnwise::testkit::{self, Gate, Recorder, Scripted};
use turnwise::{
    agent_fn, builder_fn, AgentError, ArchiveMode, BuildError, CancelReason, EphemeralSessionService, RunResult,
    Session, SessionAgent, SessionAgentBuilder, SessionError, SessionId, SessionQuery, SessionService, SessionSpec,
    SessionState, TurnContext, WeakService,
};

use crate::support::*;

/// An agent whose drop waits at a gate.
struct GatedDrop {
    session: Session,
    gate: Receiver<()>,
}

impl SessionAgent for GatedDrop {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        Ok(turn.finish(prompt))
    }

    fn session_clone(&self) -> Session {
        self.session.clone()
    }
}

impl Drop for GatedDrop {
    fn drop(&mut self) {
        let _ = self.gate.recv();
    }
}

/// Agents that echo their prompts. Their builds wait at the gate, and ignore a cancel.
fn slow_builds(gate: &Gate) -> Scripted {
    testkit::scripted().build_waits_at_ignoring_cancel(gate)
}

#[test]
fn c01_create_builds_and_runs_the_first_turn_on_the_sessions_own_thread() {
    run(|| {
        let (threads, seen) = unbounded();
        let echo = agent_fn({
            let threads = threads.clone();
            move |prompt, turn| {
                threads.send(thread::current().id()).unwrap();
                Ok(turn.finish(prompt))
            }
        });
        let builder = builder_fn(move |spec, context| {
            threads.send(thread::current().id()).unwrap();
            assert_eq!(spec.session_id, Some(context.session_id()));
            echo.build_agent(spec, context)
        });
        let service = EphemeralSessionService::new(builder, 2);
        let first = service.create_session(create("one")).unwrap();
        let second = service.create_session(create("two")).unwrap();
        assert_eq!((first.text.as_str(), first.turn_id.get()), ("one", 1));
        let built_and_run: Vec<_> = seen.try_iter().collect();
        assert_eq!(built_and_run[0], built_and_run[1]);
        assert_eq!(built_and_run[2], built_and_run[3]);
        assert_ne!(built_and_run[0], built_and_run[2]);
        assert!(!built_and_run.contains(&thread::current().id()));
        let listed = service.list(SessionQuery::new()).unwrap();
        let ids: Vec<_> = listed.iter().map(|session| session.session_id).collect();
        assert_eq!(ids, [first.session_id, second.session_id]);
    });
}

#[test]
fn c01_the_id_is_that_of_the_spec_or_of_the_history_and_not_the_agents() {
    run(|| {
        // An agent that reports an id of its own.
        struct OwnId(Session);
        impl SessionAgent for OwnId {
            fn run_turn(&mut self, _: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
                Ok(RunResult::new(SessionId::new(), turn.turn_id(), "who am I?"))
            }
            fn session_clone(&self) -> Session {
                self.0.clone()
            }
        }
        let service = EphemeralSessionService::new(builder_fn(|_, _| Ok(OwnId(Session::new()))), 8);
        let id = SessionId::new();
        let wanted = create("x").session(SessionSpec::new().session_id(id));
        assert_eq!(service.create_session(wanted).unwrap().session_id, id);
        assert_eq!(service.export_session(id).unwrap().id(), id);
        let history = Session::new();
        let resumed = create("x").session(SessionSpec::new().resume(history.clone()));
        assert_eq!(service.create_session(resumed).unwrap().session_id, history.id());
        let both = SessionId::new();
        let spec = SessionSpec::new().resume(history).session_id(both);
        assert_eq!(service.open_session(spec).unwrap(), both);
    });
}

#[test]
fn c02_of_many_concurrent_creates_exactly_max_are_admitted_and_built() {
    run(|| {
        const MAX: usize = 3;
        const CALLERS: usize = 12;
        for _ in 0..20 {
            let builds = Arc::new(AtomicUsize::new(0));
            let echo = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
            let counted = Arc::clone(&builds);
            let builder = builder_fn(move |spec, context| {
                counted.fetch_add(1, Ordering::SeqCst);
                echo.build_agent(spec, context)
            });
            let service = EphemeralSessionService::new(builder, MAX);
            let start = Barrier::new(CALLERS);
            let results: Vec<_> = thread::scope(|scope| {
                let callers: Vec<_> = (0..CALLERS)
                    .map(|_| {
                        scope.spawn(|| {
                            start.wait();
                            service.create_session(create("x"))
                        })
                    })
                    .collect();
                callers.into_iter().map(|caller| caller.join().unwrap()).collect()
            });
            let (admitted, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
            assert_eq!(admitted.len(), MAX);
            for result in refused {
                assert_matches!(result, Err(SessionError::CapacityExceeded { active: MAX, max: MAX }));
            }
            assert_eq!(builds.load(Ordering::SeqCst), MAX);
        }
    });
}

#[test]
fn c02_a_limit_of_zero_admits_no_session() {
    run(|| {
        let (service, _stage) = scripted(0);
        let refused = service.create_session(create("x"));
        assert_matches!(refused, Err(SessionError::CapacityExceeded { active: 0, max: 0 }));
    });
}

#[test]
fn c03_a_build_that_fails_is_answered_after_its_capacity_is_back() {
    run(|| {
        let no_key = || AgentError::Config("no key".into());
        let builder = testkit::scripted()
            .build_calls(move |spec, _| if spec.model == "without key" { Err(no_key()) } else { Ok(()) });
        let service = EphemeralSessionService::new(builder, 1);
        let failing = SessionSpec::new().model("without key");
        for _ in 0..200 {
            let (event_tx, mut events) = Recorder::of_turn();
            let failed = service.create_session(create("x").session(failing.clone()).event_tx(event_tx)).unwrap_err();
            let SessionError::Build { id, source: BuildError::Agent(AgentError::Config(_)) } = &failed else {
                panic!("{failed:?}");
            };
            // With a limit of one, the next create fails if the capacity was not free before the answer.
            let next = service.create_session(create("y").session(SessionSpec::new().session_id(*id))).unwrap();
            let error = "RunFailed(the session could not be built: configuration: no key)";
            events.assert_events(&["RunStarted(x)", error]);
            service.archive_wait(next.session_id, LONG).unwrap();
        }
        assert_eq!(service.list(SessionQuery::new()).unwrap(), []);
        assert_eq!(service.stats().sessions, 0);
        assert_matches!(service.open_session(failing), Err(SessionError::Build { .. }));
        assert_eq!(service.stats().sessions, 0);
    });
}

#[test]
fn c03_a_failed_build_whose_last_event_waits_for_room_can_be_interrupted() {
    run(|| {
        let gate = Gate::new();
        let failing = slow_builds(&gate).build_fails(AgentError::Config("no key".into()));
        let service = EphemeralSessionService::new(failing, 1);
        let (event_tx, _events) = bounded(1); // `RunStarted` fills it
        let begun = service.begin_session(create("x").event_tx(event_tx)).unwrap();
        gate.wait_arrived(1);
        gate.open();
        assert_eq!(service.read(begun.session_id()).unwrap().state.state, SessionState::Building);
        service.interrupt(begun.session_id()).unwrap();
        assert_matches!(begun.wait(), Err(SessionError::Build { .. }));
        assert_eq!(service.stats().sessions, 0);
    });
}

#[test]
fn c04_a_build_that_panics_returns_its_message_and_leaves_no_session() {
    run(|| {
        let service = EphemeralSessionService::new(testkit::scripted().build_panics("no engine"), 1);
        for _ in 0..50 {
            let failed = service.create_session(create("x")).unwrap_err();
            let SessionError::Build { id, source: BuildError::Panicked(message) } = failed else {
                panic!("{failed:?}");
            };
            assert_eq!(&*message, "no engine");
            assert_matches!(service.read(id), Err(SessionError::NotFound { .. }));
            assert_eq!(service.stats().sessions, 0);
        }
    });
}

#[test]
fn c05_an_id_that_is_live_is_refused_before_anything_is_built() {
    run(|| {
        let (service, stage) = scripted(4);
        let history = Session::new();
        let id = history.id();
        let spec = SessionSpec::new().resume(history);
        service.open_session(spec.clone()).unwrap();
        let again = service.create_session(create("other").session(spec.clone()));
        assert_matches!(again, Err(SessionError::AlreadyExists { id: is }) if is == id);
        assert_eq!(service.read(id).unwrap().state.message_count, 0);
        assert_eq!(service.start_turn(id, turn("mine")).unwrap().turn_id.get(), 1);
        // An archived session is live until its turn has ended.
        let running = service.begin_turn(id, turn("deaf")).unwrap();
        stage.wait_entered();
        service.archive(id).unwrap();
        assert_matches!(service.open_session(spec.clone()), Err(SessionError::AlreadyExists { .. }));
        stage.release();
        assert_eq!(running.wait().unwrap().text, "released");
        service.archive_wait(id, LONG).unwrap();
        assert_eq!(service.open_session(spec).unwrap(), id);
    });
}

#[test]
fn c06_a_failed_first_turn_leaves_a_session_that_works() {
    run(|| {
        let (service, _stage) = scripted(1);
        let failed = service.create_session(create("fail")).unwrap_err();
        assert_matches!(&failed, SessionError::Agent { source: AgentError::Internal(_), .. });
        let id = failed.session_id().unwrap();
        let next = service.start_turn(id, turn("hello")).unwrap();
        assert_eq!((next.text.as_str(), next.turn_id.get()), ("hello", 2));
    });
}

#[test]
fn c07_begin_session_returns_before_the_build_and_shows_a_building_session() {
    run(|| {
        let gate = Gate::new();
        let service = EphemeralSessionService::new(slow_builds(&gate), 4);
        let begun = service.begin_session(create("hello")).unwrap();
        let id = begun.session_id();
        gate.wait_arrived(1);
        assert!(!begun.is_finished());
        assert_eq!(begun.turn_id().get(), 1);
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Building);
        assert_eq!(service.list(SessionQuery::new()).unwrap()[0].state, SessionState::Building);
        assert_matches!(service.begin_turn(id, turn("x")), Err(SessionError::Busy { .. }));
        gate.let_through(1);
        assert_eq!(begun.wait().unwrap().text, "hello");
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Idle);
    });
}

#[test]
fn c07_an_interrupt_during_the_build_cancels_the_first_turn_before_its_run() {
    run(|| {
        let gate = Gate::new();
        let service = EphemeralSessionService::new(slow_builds(&gate), 4);
        let (event_tx, mut events) = Recorder::of_turn();
        let begun = service.begin_session(create("hello").event_tx(event_tx)).unwrap();
        let id = begun.session_id();
        gate.wait_arrived(1);
        service.interrupt(id).unwrap();
        gate.let_through(1);
        assert_cancelled(begun.wait(), CancelReason::Interrupted);
        events.assert_events(&["RunStarted(hello)", "RunFailed"]);
        assert_eq!(service.read(id).unwrap().state.message_count, 0);
        assert_eq!(service.start_turn(id, turn("next")).unwrap().text, "next");
    });
}

#[test]
fn c07_archive_and_shutdown_during_the_build_end_the_session_after_it() {
    run(|| {
        for mode in [ArchiveMode::Drain, ArchiveMode::Interrupt] {
            let gate = Gate::new();
            let service = EphemeralSessionService::new(slow_builds(&gate), 4);
            let begun = service.begin_session(create("hello")).unwrap();
            let id = begun.session_id();
            gate.wait_arrived(1);
            service.archive_with(id, mode).unwrap();
            assert_matches!(service.read(id), Err(SessionError::NotFound { .. }));
            assert_matches!(service.archive_wait(id, SHORT), Err(SessionError::Timeout { .. }));
            gate.let_through(1);
            match mode {
                ArchiveMode::Drain => assert_eq!(begun.wait().unwrap().text, "hello"),
                ArchiveMode::Interrupt => assert_cancelled(begun.wait(), CancelReason::Archived),
            }
            service.archive_wait(id, LONG).unwrap();

            let begun = service.begin_session(create("hello")).unwrap();
            gate.wait_arrived(2);
            assert_eq!(service.shutdown_with(mode, SHORT).stuck, [begun.session_id()]);
            gate.let_through(1);
            match mode {
                ArchiveMode::Drain => assert_eq!(begun.wait().unwrap().text, "hello"),
                ArchiveMode::Interrupt => assert_cancelled(begun.wait(), CancelReason::Shutdown),
            }
            assert_eq!(service.shutdown_with(mode, LONG).stuck, []);
        }
    });
}

#[test]
fn c07_open_session_waits_for_the_build_and_runs_no_turn() {
    run(|| {
        let gate = Gate::new();
        let service = EphemeralSessionService::new(slow_builds(&gate), 4);
        let id = SessionId::new();
        thread::scope(|scope| {
            let opening = scope.spawn(|| service.open_session(SessionSpec::new().session_id(id)));
            gate.wait_arrived(1);
            assert_eq!(service.read(id).unwrap().state.state, SessionState::Building);
            assert_matches!(service.begin_turn(id, turn("x")), Err(SessionError::Busy { .. }));
            // No turn is admitted that could be interrupted.
            assert_matches!(service.interrupt(id), Err(SessionError::NotRunning { .. }));
            assert!(!opening.is_finished());
            gate.let_through(1);
            assert_eq!(opening.join().unwrap().unwrap(), id);
        });
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Idle);
        assert_eq!(service.stats().turns_started, 0);
        assert_eq!(service.start_turn(id, turn("first")).unwrap().turn_id.get(), 1);
    });
}

/// Reports the state of its session when it is dropped.
struct ReportsState {
    service: WeakService,
    id: SessionId,
    told: Sender<SessionState>,
}

impl Drop for ReportsState {
    fn drop(&mut self) {
        let service = self.service.upgrade().expect("the test has a handle");
        self.told
            .send(service.read(self.id).expect("the session is registered").state.state)
            .expect("the test listens");
    }
}

#[test]
fn c07_open_session_never_shows_a_running_turn() {
    run(|| {
        let (told, states) = unbounded();
        let echo = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
        let builder = builder_fn(move |spec, context| {
            let shown = ReportsState { service: context.service(), id: context.session_id(), told: told.clone() };
            // The hook is armed until the token is sealed, which is after the build and before the session is idle.
            std::mem::forget(context.cancel_token().on_cancel(move || drop(shown)));
            echo.build_agent(spec, context)
        });
        let service = EphemeralSessionService::new(builder, 1);
        service.open_session(SessionSpec::new()).unwrap();
        assert_eq!(states.recv().unwrap(), SessionState::Building);
    });
}

#[test]
fn c07_an_interrupt_and_an_archive_cancel_the_token_of_the_build() {
    run(|| {
        let gate = Gate::new();
        let service = EphemeralSessionService::new(testkit::scripted().build_waits_at(&gate), 4);
        let begun = service.begin_session(create("x")).unwrap();
        gate.wait_arrived(1);
        begun.interrupt();
        let failed = begun.wait().unwrap_err();
        assert_eq!(failed.cancel_reason(), Some(CancelReason::Interrupted), "{failed:?}");

        let id = SessionId::new();
        thread::scope(|scope| {
            let opening = scope.spawn(|| service.open_session(SessionSpec::new().session_id(id)));
            gate.wait_arrived(2);
            service.archive_with(id, ArchiveMode::Interrupt).unwrap();
            let failed = opening.join().unwrap().unwrap_err();
            assert_eq!(failed.cancel_reason(), Some(CancelReason::Archived), "{failed:?}");
        });
        assert_eq!(service.stats().sessions, 0);
    });
}

#[test]
fn c08_wait_session_registered_misses_no_registration_and_times_out() {
    run(|| {
        let (service, _stage) = scripted(200);
        assert_eq!(service.registered_sessions(), 0);
        assert_eq!(service.wait_session_registered(0, SHORT), None);
        thread::scope(|scope| {
            // The watcher waits again after every wake-up. A missed wake-up lets its wait time out.
            let watcher = scope.spawn(|| {
                let mut seen = 0;
                while seen < 100 {
                    seen = service.wait_session_registered(seen, LONG).expect("a registration");
                }
                seen
            });
            for _ in 0..100 {
                service.open_session(SessionSpec::new()).unwrap();
            }
            assert_eq!(watcher.join().unwrap(), 100);
        });
        // The call does not wait for a registration in the past.
        assert_eq!(service.wait_session_registered(99, LONG), Some(100));
        assert_eq!(service.registered_sessions(), 100);
        // A shutdown ends the wait, since no registration can follow.
        thread::scope(|scope| {
            let watcher = scope.spawn(|| service.wait_session_registered(100, Duration::MAX));
            service.shutdown(LONG);
            assert_eq!(watcher.join().unwrap(), None);
        });
    });
}

#[test]
fn c08_no_registration_follows_a_wait_that_has_seen_the_shutdown() {
    run(|| {
        for _ in 0..500 {
            let (service, _stage) = scripted(4);
            let start = Barrier::new(2);
            thread::scope(|scope| {
                let created = scope.spawn(|| {
                    start.wait();
                    service.begin_session(create("x")).is_ok()
                });
                start.wait();
                service.shutdown(Duration::ZERO);
                let seen = service.wait_session_registered(0, LONG);
                assert_eq!(created.join().unwrap(), seen.is_some());
            });
        }
    });
}

#[test]
fn c09_capacity_comes_back_when_the_agent_is_dropped_and_not_before() {
    run(|| {
        let (go, gate) = unbounded::<()>();
        let builder = builder_fn(move |_, context| {
            Ok(GatedDrop { session: Session::with_id(context.session_id()), gate: gate.clone() })
        });
        let service = EphemeralSessionService::new(builder, 1);
        let id = service.create_session(create("x")).unwrap().session_id;
        service.archive(id).unwrap();
        // The drop of the agent still waits at the gate.
        assert_matches!(service.archive_wait(id, SHORT), Err(SessionError::Timeout { .. }));
        let refused = service.create_session(create("y"));
        assert_matches!(refused, Err(SessionError::CapacityExceeded { active: 1, max: 1 }));
        go.send(()).unwrap();
        service.archive_wait(id, LONG).unwrap();
        // The capacity is free once `archive_wait` has returned, so one attempt is enough.
        let next = service.create_session(create("y")).unwrap();
        // `archive_wait` remembers a session that has ended. So a call after the archive does not miss the end.
        service.archive_wait(id, LONG).unwrap();
        assert_matches!(service.archive_wait(SessionId::new(), LONG), Err(SessionError::NotFound { .. }));
        drop(go);
        service.archive_wait(next.session_id, LONG).unwrap();
    });
}

#[test]
fn c09_an_archived_running_session_holds_its_capacity() {
    run(|| {
        let (service, stage) = scripted(1);
        let running = service.begin_session(create("deaf")).unwrap();
        stage.wait_entered();
        service.archive_with(running.session_id(), ArchiveMode::Interrupt).unwrap();
        let refused = service.create_session(create("y"));
        assert_matches!(refused, Err(SessionError::CapacityExceeded { active: 1, max: 1 }));
        stage.release();
        let id = running.session_id();
        // The turn has ignored its cancel and succeeded, so its result is delivered.
        assert_eq!(running.wait().unwrap().text, "released");
        service.archive_wait(id, LONG).unwrap();
        service.create_session(create("y")).unwrap();
    });
}
