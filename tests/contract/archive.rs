//! C27–C30: archive, shutdown, drop.

use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::{bounded, unbounded, Sender};
use turnwise::{
    builder_fn, AgentError, ArchiveMode, CancelReason, EphemeralSessionService, RunResult, Session, SessionAgent,
    SessionError, SessionId, SessionQuery, SessionService, SessionSpec, ShutdownReport, TurnContext, WeakService,
};

use crate::support::*;

#[test]
fn c27_an_archived_session_is_not_found_and_drain_lets_its_turn_finish() {
    run(|| {
        let (service, stage) = scripted(2);
        let running = service.begin_session(create("hold")).unwrap();
        let (id, _) = stage.wait_entered();
        service.archive(id).unwrap();
        assert_matches!(service.read(id), Err(SessionError::NotFound { .. }));
        assert_matches!(service.begin_turn(id, turn("x")), Err(SessionError::NotFound { .. }));
        assert_matches!(service.start_turn(id, turn("x")), Err(SessionError::NotFound { .. }));
        assert_matches!(service.export_session(id), Err(SessionError::NotFound { .. }));
        assert_matches!(service.interrupt(id), Err(SessionError::NotFound { .. }));
        assert_matches!(service.archive(id), Err(SessionError::NotFound { .. }));
        assert_eq!(service.list(SessionQuery::new()).unwrap(), []);
        stage.release();
        assert_eq!(running.wait().unwrap().text, "released");
        assert_matches!(service.archive(SessionId::new()), Err(SessionError::NotFound { .. }));
    });
}

#[test]
fn c27_interrupt_cancels_the_turn_and_escalates_a_draining_archive() {
    run(|| {
        let (service, stage) = scripted(2);
        let running = service.begin_session(create("hold")).unwrap();
        let (id, _) = stage.wait_entered();
        service.archive_with(id, ArchiveMode::Interrupt).unwrap();
        assert_cancelled(running.wait(), CancelReason::Archived);
        service.archive_wait(id, LONG).unwrap();
        assert_matches!(service.archive_with(id, ArchiveMode::Interrupt), Err(SessionError::NotFound { .. }));

        let running = service.begin_session(create("hold")).unwrap();
        let (id, _) = stage.wait_entered();
        service.archive(id).unwrap();
        assert!(!running.is_finished());
        service.archive_with(id, ArchiveMode::Interrupt).unwrap();
        assert_cancelled(running.wait(), CancelReason::Archived);
    });
}

#[test]
fn c27_archive_never_waits_for_the_turn() {
    run(|| {
        for mode in [ArchiveMode::Drain, ArchiveMode::Interrupt] {
            let (service, stage) = scripted(1);
            let running = service.begin_session(create("deaf")).unwrap();
            let (id, _) = stage.wait_entered();
            // The turn is released only after `archive_with` has returned.
            service.archive_with(id, mode).unwrap();
            stage.release();
            assert_eq!(running.wait().unwrap().text, "released");
        }
    });
}

#[test]
fn c28_a_turn_is_admitted_before_the_close_and_answered_or_refused() {
    run(|| {
        let (service, _stage) = scripted(1);
        let mut answered = 0;
        for _ in 0..1_000 {
            let id = service.open_session(SessionSpec::new()).unwrap();
            let start = Barrier::new(2);
            thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    service.archive(id).unwrap();
                });
                start.wait();
                match service.begin_turn(id, turn("real")) {
                    Ok(admitted) => {
                        assert_eq!(admitted.wait().unwrap().text, "real");
                        answered += 1;
                    }
                    Err(SessionError::NotFound { .. }) => {}
                    Err(other) => panic!("{other:?}"),
                }
            });
            assert_matches!(service.begin_turn(id, turn("late")), Err(SessionError::NotFound { .. }));
            service.archive_wait(id, LONG).unwrap();
        }
        assert_eq!(service.stats().turns_completed, answered);
    });
}

#[test]
fn c28_a_turn_that_races_with_an_interrupting_close_is_cancelled_or_refused() {
    run(|| {
        let (service, _stage) = scripted(2);
        for round in 0..1_000 {
            let (shut, _stage) = scripted(1);
            let service = if round % 2 == 0 { &service } else { &shut };
            let id = service.open_session(SessionSpec::new()).unwrap();
            let start = Barrier::new(2);
            thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    match round % 2 {
                        0 => service.archive_with(id, ArchiveMode::Interrupt).unwrap(),
                        _ => assert_eq!(service.shutdown(LONG).stuck, []),
                    }
                });
                start.wait();
                // Only a cancel ends this turn. An admitted turn that is not cancelled hangs the test.
                match service.begin_turn(id, turn("hold")) {
                    Ok(admitted) => {
                        let ended = admitted.wait().unwrap_err();
                        assert!(ended.cancel_reason().is_some(), "{ended:?}");
                    }
                    Err(SessionError::NotFound { .. } | SessionError::ShuttingDown) => {}
                    Err(other) => panic!("{other:?}"),
                }
            });
            service.archive_wait(id, LONG).unwrap();
        }
    });
}

#[test]
fn c28_exports_that_race_with_the_close_are_answered() {
    run(|| {
        let (service, stage) = scripted(1);
        for _ in 0..300 {
            let running = service.begin_session(create("deaf")).unwrap();
            let (id, _) = stage.wait_entered();
            thread::scope(|scope| {
                let exports: Vec<_> = (0..2).map(|_| scope.spawn(|| service.export_session(id))).collect();
                service.archive(id).unwrap();
                stage.release();
                for export in exports {
                    match export.join().unwrap() {
                        // The export was requested before the close, and is answered after the turn.
                        Ok(history) => assert_eq!(history.messages().len(), 2),
                        Err(SessionError::NotFound { .. }) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
            });
            running.wait().unwrap();
            service.archive_wait(id, LONG).unwrap();
        }
    });
}

#[test]
fn c29_shutdown_cancels_joins_reports_and_refuses_new_work() {
    run(|| {
        let (service, stage) = scripted_with(|config| config.thread_name_prefix("c29-join"));
        let idle = service.open_session(SessionSpec::new()).unwrap();
        let held = service.begin_session(create("hold").timeout(LONG)).unwrap();
        stage.wait_entered();
        let deaf = service.begin_session(create("deaf")).unwrap();
        stage.wait_entered();
        let report = service.shutdown(Duration::from_millis(50));
        assert!(report.stuck.contains(&deaf.session_id()));
        assert_eq!(report.joined + report.stuck.len(), 3);
        assert_cancelled(held.wait(), CancelReason::Shutdown);
        assert_matches!(service.create_session(create("x")), Err(SessionError::ShuttingDown));
        assert_matches!(service.open_session(SessionSpec::new()), Err(SessionError::ShuttingDown));
        assert_matches!(service.start_turn(idle, turn("x")), Err(SessionError::ShuttingDown));
        assert_matches!(service.read(idle), Err(SessionError::NotFound { .. }));
        assert_eq!(service.list(SessionQuery::new()).unwrap(), []);
        stage.release();
        let report = service.shutdown(LONG);
        // The released session may have ended between the two calls.
        assert!(report.joined <= 3 && report.stuck.is_empty(), "{report:?}");
        assert_eq!(deaf.wait().unwrap().text, "released");
        let report = service.shutdown(LONG);
        assert_eq!((report.joined, report.stuck), (0, vec![]));
        assert_eq!(service.stats().sessions, 0);
        #[cfg(target_os = "linux")]
        assert_no_threads("c29-join");
    });
}

#[test]
fn c29_a_draining_shutdown_lets_turns_finish() {
    run(|| {
        let (service, stage) = scripted(4);
        let held = service.begin_session(create("hold")).unwrap();
        stage.wait_entered();
        assert_eq!(service.shutdown_with(ArchiveMode::Drain, SHORT).stuck, [held.session_id()]);
        assert!(!held.is_finished());
        stage.release();
        assert_eq!(service.shutdown_with(ArchiveMode::Drain, LONG).stuck, []);
        assert_eq!(held.wait().unwrap().text, "released");
    });
}

#[test]
fn c29_races_with_create_leave_no_session_behind() {
    run(|| {
        for round in 0..100 {
            let name = format!("c29-race{round}");
            let (service, _stage) = scripted_with(|config| config.max_sessions(1_000).thread_name_prefix(&name));
            let start = Barrier::new(3);
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        start.wait();
                        loop {
                            match service.begin_session(create("hold")) {
                                Ok(held) => drop(held),
                                Err(SessionError::ShuttingDown) => break,
                                Err(other) => panic!("{other:?}"),
                            }
                        }
                    });
                }
                start.wait();
                assert_eq!(service.shutdown(LONG).stuck, []);
            });
            // The shutdown has found every session that was reserved before it. Later creates were refused.
            assert_eq!(service.stats().sessions, 0);
            #[cfg(target_os = "linux")]
            assert_no_threads(&format!("{name}-"));
        }
    });
}

/// A closure by which an agent shuts its own service down.
type Switch = Arc<Mutex<Option<Box<dyn Fn() -> ShutdownReport + Send>>>>;

struct ShutsDown {
    switch: Switch,
}

impl SessionAgent for ShutsDown {
    fn run_turn(&mut self, _: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let report = self.switch.lock().unwrap().as_ref().expect("the test has set the switch")();
        assert_eq!(report.stuck, [turn.session_id()]);
        assert_eq!(report.joined, 1);
        assert!(turn.is_cancelled());
        Ok(turn.finish("the end"))
    }

    fn session_clone(&self) -> Session {
        Session::new()
    }
}

#[test]
fn c29_on_a_sessions_thread_shutdown_does_not_wait_for_that_session() {
    run(|| {
        let slot = Switch::default();
        let agents = Arc::clone(&slot);
        let builder = builder_fn(move |_, _| Ok(ShutsDown { switch: Arc::clone(&agents) }));
        let service = EphemeralSessionService::configure(builder).max_sessions(2).max_running_turns(1).build().unwrap();
        service.open_session(SessionSpec::new()).unwrap();
        let handle = service.clone();
        *slot.lock().unwrap() = Some(Box::new(move || handle.shutdown(LONG)));
        assert_eq!(service.create_session(create("x")).unwrap().text, "the end");
        assert_eq!(service.shutdown(LONG).stuck, []);
        slot.lock().unwrap().take();
    });
}

/// An agent that reports whether it is dropped on the thread that built it.
struct ReportsDrop {
    born: thread::ThreadId,
    gone: Sender<bool>,
}

impl SessionAgent for ReportsDrop {
    fn run_turn(&mut self, _: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let _ = turn.cancel_token().cancelled().recv();
        Err(turn.check().unwrap_err().into())
    }

    fn session_clone(&self) -> Session {
        Session::new()
    }
}

impl Drop for ReportsDrop {
    fn drop(&mut self) {
        let _ = self.gone.send(self.born == thread::current().id());
    }
}

#[test]
fn c30_dropping_the_last_handle_drops_every_agent_on_its_session_thread() {
    run(|| {
        let (gone, drops) = unbounded();
        let builder = builder_fn(move |_, _| Ok(ReportsDrop { born: thread::current().id(), gone: gone.clone() }));
        let service = EphemeralSessionService::new(builder, 8);
        for _ in 0..4 {
            service.open_session(SessionSpec::new()).unwrap();
        }
        let running = service.begin_session(create("x")).unwrap();
        let weak: WeakService = service.downgrade();
        let clone = service.clone();
        drop(service);
        assert_eq!(clone.stats().sessions, 5);
        assert!(weak.upgrade().is_some());
        drop(clone);
        assert!(weak.upgrade().is_none());
        assert_cancelled(running.wait(), CancelReason::Shutdown);
        let own_threads: Vec<bool> = drops.iter().collect();
        assert_eq!(own_threads, [true; 5]);
    });
}

#[test]
fn c30_dropping_the_last_handle_does_not_wait() {
    run(|| {
        let (service, stage) = scripted(1);
        let deaf = service.begin_session(create("deaf")).unwrap();
        stage.wait_entered();
        drop(service);
        assert!(!deaf.is_finished());
        stage.release();
        assert_eq!(deaf.wait().unwrap().text, "released");
    });
}

#[test]
fn c30_the_last_handle_may_be_dropped_on_a_sessions_own_thread() {
    run(|| {
        let (give, handles) = unbounded::<Box<dyn Send>>();
        let agent = turnwise::agent_fn(move |_, turn| {
            let handle = handles.recv().expect("the last handle");
            drop(handle);
            assert!(turn.is_cancelled());
            Ok(turn.finish("still here"))
        });
        let service = EphemeralSessionService::new(agent, 2);
        let other = service.open_session(SessionSpec::new()).unwrap();
        let running = service.begin_session(create("x")).unwrap();
        let weak = service.downgrade();
        assert!(service.read(other).is_ok());
        give.send(Box::new(service)).unwrap();
        assert_eq!(running.wait().unwrap().text, "still here");
        assert!(weak.upgrade().is_none());
    });
}

#[test]
fn c30_agents_with_a_weak_service_do_not_keep_the_service_alive() {
    run(|| {
        let (leave, left) = unbounded::<()>();
        let builder = builder_fn(move |spec, context| {
            let (service, leave) = (context.service(), leave.clone());
            let agent = turnwise::agent_fn(move |_, turn| {
                let _keep = &leave;
                Ok(turn.finish(service.upgrade().is_some().to_string()))
            });
            turnwise::SessionAgentBuilder::build_agent(&agent, spec, context)
        });
        let service = EphemeralSessionService::new(builder, 1);
        assert_eq!(service.create_session(create("x")).unwrap().text, "true");
        drop(service);
        // The channel disconnects when the builder and its agents are dropped.
        assert!(left.recv_timeout(LONG).unwrap_err().is_disconnected());
    });
}

#[test]
fn c29_a_draining_shutdown_from_an_interrupted_turn_still_waits_for_the_others() {
    run(|| {
        let jobs = Jobs::new(4);
        let (one, other) = (jobs.open(), jobs.open());
        let (go, gate) = bounded::<()>(0);
        let slow = jobs.begin(other, "slow", move |_, _| {
            let _ = gate.recv();
            Ok("slow".into())
        });
        let service = jobs.service.clone();
        let interrupted = jobs.begin(one, "interrupted", move |_, own_turn| {
            let _ = own_turn.cancel_token().cancelled().recv();
            drop(go);
            let report = service.shutdown_with(ArchiveMode::Drain, LONG);
            assert_eq!((report.joined, report.stuck), (1, vec![one]));
            Ok("done".into())
        });
        while jobs.service.stats().running_turns < 2 {
            thread::yield_now();
        }
        interrupted.interrupt();
        assert_eq!(interrupted.wait().unwrap().text, "done");
        assert_eq!(slow.wait().unwrap().text, "slow");
    });
}
