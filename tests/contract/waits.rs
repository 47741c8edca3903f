//! C53, C61, C63: what turns and hosts wait for, and for how long.

use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use turnwise::crossbeam_channel::bounded;
use turnwise::testkit::{Gate, ManualClock};
use turnwise::{
    agent_fn, builder_fn, AgentError, ArchiveMode, CancelReason, EphemeralSessionService, EventSource,
    SessionAgentBuilder, SessionError, SessionId, SessionService, SessionSpec, StartTurnRequest,
};

use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn c63_the_deadline_of_a_turn_is_on_the_services_clock() {
    run(|| {
        let clock = ManualClock::new();
        let (of_service, own) = (clock.clone(), clock.clone());
        let jobs = Jobs::with(move |config| config.clock(of_service));
        let (id, begun) = (jobs.open(), clock.system_time());
        jobs.prepare("plain", move |_, turn| {
            assert_eq!((turn.remaining(), turn.deadline(), turn.now()), (None, None, begun));
            Ok("plain".into())
        });
        assert_eq!(jobs.service.start_turn(id, turn("plain")).unwrap().text, "plain");
        jobs.prepare("timed", move |_, turn| {
            assert_eq!((turn.remaining(), turn.deadline()), (Some(5 * SECOND), Some(begun + 5 * SECOND)));
            own.advance(2 * SECOND);
            assert_eq!((turn.remaining(), turn.deadline()), (Some(3 * SECOND), Some(begun + 5 * SECOND)));
            assert_eq!(turn.now(), begun + 2 * SECOND);
            own.advance(4 * SECOND);
            // Zero, not below: the deadline is in the past, and is shown as now.
            assert_eq!((turn.remaining(), turn.deadline()), (Some(Duration::ZERO), Some(turn.now())));
            Err(turn.sleep(LONG).unwrap_err().into())
        });
        let timed = jobs.service.start_turn(id, turn("timed").timeout(5 * SECOND));
        assert_eq!(timed.unwrap_err().cancel_reason(), Some(CancelReason::DeadlineExceeded));
        // The next turn has no deadline of the last one.
        jobs.prepare("after", |_, turn| Ok(format!("{:?} {:?}", turn.remaining(), turn.deadline())));
        assert_eq!(jobs.service.start_turn(id, turn("after")).unwrap().text, "None None");
        // A timeout past the last representable instant never comes.
        jobs.prepare("for ever", |_, turn| Ok(format!("{:?}", turn.remaining())));
        let forever = jobs.service.start_turn(id, turn("for ever").timeout(Duration::MAX));
        assert_eq!(forever.unwrap().text, "None");
    });
}

#[test]
fn c63_the_time_that_remains_never_rises_on_the_systems_clock() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        jobs.prepare("timed", |_, turn| {
            let mut last = turn.remaining().ok_or_else(|| AgentError::Internal("no deadline".into()))?;
            assert!(last <= LONG);
            for _ in 0..1_000 {
                let next = turn.remaining().unwrap();
                assert!(next <= last);
                last = next;
            }
            let ahead = turn.deadline().unwrap().duration_since(turn.now()).unwrap();
            assert!(ahead <= LONG && ahead + LONG / 2 > LONG, "{ahead:?}");
            Ok("done".into())
        });
        let request: StartTurnRequest = turn("timed").timeout(LONG);
        assert_eq!(jobs.service.start_turn(id, request).unwrap().text, "done");
    });
}

/// A thread that waits until session `id` is idle. When this returns, it waits.
fn waits_until_idle<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    service: &'scope impl SessionService,
    clock: &ManualClock,
    id: SessionId,
) -> ScopedJoinHandle<'scope, Result<(), SessionError>> {
    let before = clock.waiters();
    let waiting = scope.spawn(move || service.wait_idle(id, LONG));
    clock.wait_for_waiters(before + 1);
    waiting
}

#[test]
fn c53_a_wait_for_an_idle_session_ends_with_its_turn() {
    run(|| {
        let clock = ManualClock::new();
        let (service, stage) = scripted_with(|config| config.clock(clock.clone()));
        let id = service.open_session(SessionSpec::new()).unwrap();
        service.wait_idle(id, Duration::ZERO).unwrap();
        let held = service.begin_turn(id, turn("hold")).unwrap();
        stage.wait_entered();
        assert_matches!(service.wait_idle(id, Duration::ZERO), Err(SessionError::Timeout { id: is, .. }) if is == id);
        thread::scope(|scope| {
            let late = scope.spawn(|| service.wait_idle(id, SECOND));
            clock.wait_for_waiters(1);
            clock.advance(SECOND);
            assert_matches!(late.join().unwrap(), Err(SessionError::Timeout { waited, .. }) if waited == SECOND);
            let waiting = [(); 3].map(|()| waits_until_idle(scope, &service, &clock, id));
            assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
            stage.release();
            waiting.into_iter().for_each(|waiting| waiting.join().unwrap().unwrap());
        });
        assert_eq!(held.wait().unwrap().text, "released");
        // A failed turn ends too.
        assert!(service.start_turn(id, turn("fail")).is_err());
        service.wait_idle(id, Duration::ZERO).unwrap();
        let unknown = SessionId::new();
        assert_matches!(service.wait_idle(unknown, LONG), Err(SessionError::NotFound { id }) if id == unknown);
    });
}

#[test]
fn c53_a_session_is_not_idle_while_it_is_built() {
    run(|| {
        let clock = ManualClock::new();
        let gate = Gate::new();
        let at = gate.clone();
        let builder = builder_fn(move |spec: &SessionSpec, session| {
            at.pass_regardless();
            if spec.model == "none" {
                return Err(AgentError::Config("no such model".into()));
            }
            agent_fn(|prompt, turn| Ok(turn.finish(prompt))).build_agent(spec, session)
        });
        let service = EphemeralSessionService::configure(builder).clock(clock.clone()).build().unwrap();
        let [opened, begun, failed] = [(); 3].map(|()| SessionId::new());
        thread::scope(|scope| {
            let opening = scope.spawn(|| service.open_session(SessionSpec::new().session_id(opened)));
            gate.wait_arrived(1);
            let first = service.begin_session(create("x").session(SessionSpec::new().session_id(begun))).unwrap();
            let refused = SessionSpec::new().session_id(failed).model("none");
            let refused = service.begin_session(create("x").session(refused)).unwrap();
            gate.wait_arrived(3);
            let [opened, begun, failed] = [opened, begun, failed].map(|id| {
                assert_matches!(service.wait_idle(id, Duration::ZERO), Err(SessionError::Timeout { .. }));
                waits_until_idle(scope, &service, &clock, id)
            });
            gate.open();
            opened.join().unwrap().unwrap();
            begun.join().unwrap().unwrap();
            assert_matches!(failed.join().unwrap(), Err(SessionError::NotFound { .. }));
            assert!(opening.join().unwrap().is_ok() && first.wait().is_ok() && refused.wait().is_err());
        });
    });
}

#[test]
fn c53_a_session_in_host_mode_is_not_idle() {
    run(|| {
        let clock = ManualClock::new();
        let (service, _stage) = scripted_with(|config| config.clock(clock.clone()));
        let id = service.open_session(SessionSpec::new()).unwrap();
        let hosting = service.begin_turn(id, turn("x").host_mode(true)).unwrap();
        let injector = service.event_injector(id).unwrap();
        thread::scope(|scope| {
            let waiting = waits_until_idle(scope, &service, &clock, id);
            assert_eq!(injector.inject_with_subscription("y".into(), EventSource::Tcp).unwrap().count(), 1);
            assert!(!waiting.is_finished());
            injector.dismiss(EventSource::Tcp).unwrap();
            waiting.join().unwrap().unwrap();
        });
        hosting.wait().unwrap();
    });
}

#[test]
fn c53_a_close_or_a_fault_ends_the_wait() {
    run(|| {
        let clock = ManualClock::new();
        let (service, stage) = scripted_with(|config| config.clock(clock.clone()));
        for mode in [ArchiveMode::Drain, ArchiveMode::Interrupt] {
            let id = service.open_session(SessionSpec::new()).unwrap();
            let held = service.begin_turn(id, turn("deaf")).unwrap();
            stage.wait_entered();
            thread::scope(|scope| {
                let waiting = waits_until_idle(scope, &service, &clock, id);
                service.archive_with(id, mode).unwrap();
                // Closed, though its turn still runs.
                assert_matches!(waiting.join().unwrap(), Err(SessionError::NotFound { id: is }) if is == id);
                assert!(!held.is_finished());
            });
            assert_matches!(service.wait_idle(id, LONG), Err(SessionError::NotFound { .. }));
            stage.release();
            held.wait().unwrap();
        }
        let gate = Gate::new();
        let at = gate.clone();
        let jobs = Jobs::with(|config| config.clock(clock.clone()));
        let id = jobs.open();
        let panicking = jobs.begin(id, "panics", move |_, _| {
            at.pass_regardless();
            std::panic::resume_unwind(Box::new("out of ideas"))
        });
        gate.wait_arrived(1);
        thread::scope(|scope| {
            let waiting = waits_until_idle(scope, &jobs.service, &clock, id);
            gate.open();
            let faulted = waiting.join().unwrap();
            assert_matches!(faulted, Err(SessionError::Faulted { ref message, .. }) if &**message == "out of ideas");
        });
        assert!(panicking.wait().is_err());
        assert_matches!(jobs.service.wait_idle(id, LONG), Err(SessionError::Faulted { .. }));
        jobs.service.archive(id).unwrap();
        assert_matches!(jobs.service.wait_idle(id, LONG), Err(SessionError::NotFound { .. }));
    });
}

#[test]
fn c53_a_session_thread_that_waits_lends_its_permit_and_can_be_interrupted() {
    run(|| {
        let jobs = Jobs::new(1);
        let [parent, child] = [jobs.open(), jobs.open()];
        let begun = bounded(1);
        jobs.prepare("parent", move |service, _| {
            assert_matches!(service.wait_idle(parent, LONG), Err(SessionError::Reentrant { id }) if id == parent);
            drop(service.begin_turn(child, turn("child"))?);
            service.wait_idle(child, LONG)?;
            drop(service.begin_turn(child, turn("sleeps"))?);
            begun.0.send(()).expect("the test listens");
            assert_matches!(service.wait_idle(child, LONG), Err(SessionError::Interrupted { id, .. }) if id == parent);
            Ok("interrupted".into())
        });
        jobs.prepare("child", move |service, _| {
            // The parent waits for this session.
            assert_matches!(service.wait_idle(parent, LONG), Err(SessionError::Reentrant { id }) if id == child);
            Ok("done".into())
        });
        jobs.prepare("sleeps", |_, turn| Err(turn.sleep(LONG).unwrap_err().into()));
        let running = jobs.service.begin_turn(parent, turn("parent")).unwrap();
        begun.1.recv_timeout(LONG).unwrap();
        running.interrupt();
        assert_eq!(running.wait().unwrap().text, "interrupted");
        // The child goes on.
        assert!(jobs.service.read(child).unwrap().state.is_active);
    });
}

#[test]
fn c53_a_session_that_is_idle_for_an_instant_only_is_seen_idle() {
    run(|| {
        let (service, _stage) = scripted(2);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let (stop, stopped) = bounded::<()>(0);
        thread::scope(|scope| {
            let busy = scope.spawn(|| {
                while stopped.try_recv().is_err_and(|error| error.is_empty()) {
                    service.start_turn(id, turn("x")).unwrap();
                }
            });
            for _ in 0..1_000 {
                service.wait_idle(id, LONG).unwrap();
            }
            drop(stop);
            busy.join().unwrap();
        });
    });
}
