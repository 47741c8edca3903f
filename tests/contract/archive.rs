//! C27–C30: archive, shutdown, drop.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use turnwise::crossbeam_channel::{bounded, unbounded, Sender};
use turnwise::{
    agent_fn, builder_fn, AgentError, ArchiveMode, CancelReason, EphemeralSessionService, RunResult, Session,
    SessionAgent, SessionAgentBuilder, SessionError, SessionId, SessionQuery, SessionService, SessionSpec,
    ShutdownReport, TurnContext, WeakService,
};

use crate::support::*;

#[test]
fn c27_an_archived_session_is_gone_at_once_and_drain_lets_its_turn_finish() {
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
            // The turn ends only after this has returned.
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
                // It ends in no other way: admitted but not cancelled, it hangs.
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
                        // Asked for before the close, answered after the turn.
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
        // It may have ended between the calls.
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
            // One that was reserved before the shutdown has been found by it; one after was refused.
            assert_eq!(service.stats().sessions, 0);
            #[cfg(target_os = "linux")]
            assert_no_threads(&format!("{name}-"));
        }
    });
}

#[test]
fn c29_every_thread_is_gone_after_shutdown_however_its_session_ended() {
    run(|| {
        let (service, stage) = scripted_with(|config| config.thread_name_prefix("c29-gone"));
        for _ in 0..50 {
            let archived = service.create_session(create("x")).unwrap().session_id;
            service.archive(archived).unwrap();
            service.create_session(create("panic")).unwrap_err();
            service.create_session(create("fail")).unwrap_err();
            let held = service.begin_session(create("hold").timeout(LONG)).unwrap();
            stage.wait_entered();
            service.archive_with(held.session_id(), ArchiveMode::Interrupt).unwrap();
            held.wait().unwrap_err();
            let listed = service.list(SessionQuery::new()).unwrap();
            listed.iter().for_each(|session| service.archive_wait(session.session_id, LONG).unwrap());
        }
        assert_eq!(service.shutdown(LONG).stuck, []);
        #[cfg(target_os = "linux")]
        assert_no_threads("c29-gone");
    });
}

/// Takes its time to go, after everything of the session has gone.
struct LateToGo(Arc<AtomicUsize>);

impl Drop for LateToGo {
    fn drop(&mut self) {
        for _ in 0..100 {
            thread::yield_now();
        }
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

thread_local! {
    static LATE: RefCell<Option<LateToGo>> = const { RefCell::new(None) };
}

#[test]
fn c29_the_figures_count_every_thread_until_the_last_is_gone() {
    run(|| {
        let echo = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
        // A builder and agents of types that the host does not know.
        let builder: Arc<dyn SessionAgentBuilder<Agent = Box<dyn SessionAgent>>> =
            Arc::new(builder_fn(move |spec, context| {
                Ok(Box::new(echo.build_agent(spec, context)?) as Box<dyn SessionAgent>)
            }));
        let service = EphemeralSessionService::configure(builder).idle_threads(1).build().unwrap();
        let threads = || service.stats().threads;
        assert_eq!(threads(), 0);
        let ids: Vec<_> = (0..3).map(|_| service.open_session(SessionSpec::new()).unwrap()).collect();
        assert_eq!(threads(), 3);
        service.start_turn(ids[0], turn("x").timeout(LONG)).unwrap();
        assert_eq!(threads(), 4, "with the one that watches the time");
        // One thread waits for another session, and gets it.
        service.archive_wait(ids[0], LONG).unwrap();
        service.open_session(SessionSpec::new()).unwrap();
        assert!(threads() <= 5);
        assert_eq!(service.shutdown(LONG).stuck, []);
        assert_eq!(threads(), 0);
    });
}

#[test]
fn c29_a_thread_whose_session_ends_after_a_shutdown_waits_for_no_other() {
    run(|| {
        let (service, stage) = scripted_with(|config| config.idle_threads(1));
        let running = service.begin_session(create("deaf")).unwrap();
        let (id, _) = stage.wait_entered();
        assert_eq!(service.shutdown(SHORT).stuck, [id]);
        stage.release();
        running.wait().unwrap();
        // An idle thread would wait for ten seconds, and with it this.
        let started = Instant::now();
        assert_eq!(service.shutdown(LONG).stuck, []);
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    });
}

#[test]
fn c29_shutdown_joins_threads_to_the_last_of_their_thread_locals() {
    run(|| {
        let gone = Arc::new(AtomicUsize::new(0));
        let service = {
            let gone = Arc::clone(&gone);
            let agent = turnwise::agent_fn(move |_, turn| {
                LATE.with(|late| *late.borrow_mut() = Some(LateToGo(Arc::clone(&gone))));
                Ok(turn.finish(""))
            });
            EphemeralSessionService::new(agent, 8)
        };
        for _ in 0..30 {
            // These end by themselves; the last eight by the shutdown.
            let ids: Vec<_> = (0..4).map(|_| service.create_session(create("x")).unwrap().session_id).collect();
            ids.iter().for_each(|id| service.archive_wait(*id, LONG).unwrap());
        }
        (0..8).for_each(|_| drop(service.create_session(create("x")).unwrap()));
        assert_eq!(service.shutdown(LONG).stuck, []);
        assert_eq!(gone.load(Ordering::SeqCst), 4 * 30 + 8);
    });
}

/// A way to shut the service down, for an agent of that service.
type Switch = Arc<Mutex<Option<Box<dyn Fn() -> ShutdownReport + Send>>>>;

struct ShutsDown {
    switch: Switch,
}

impl SessionAgent for ShutsDown {
    fn run_turn(&mut self, _: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let report = self.switch.lock().unwrap().as_ref().expect("a way to shut down")();
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

/// Says on which thread it is dropped.
struct Mortal {
    born: thread::ThreadId,
    gone: Sender<bool>,
}

impl SessionAgent for Mortal {
    fn run_turn(&mut self, _: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let _ = turn.cancel_token().cancelled().recv();
        Err(turn.check().unwrap_err().into())
    }

    fn session_clone(&self) -> Session {
        Session::new()
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        let _ = self.gone.send(self.born == thread::current().id());
    }
}

#[test]
fn c30_dropping_the_last_handle_closes_every_session_and_agents_go_on_their_own_threads() {
    run(|| {
        let (gone, drops) = unbounded();
        let builder = builder_fn(move |_, _| Ok(Mortal { born: thread::current().id(), gone: gone.clone() }));
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
fn c30_agents_that_keep_a_weak_service_do_not_keep_it_alive() {
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
        // Disconnects when builder and agents are gone.
        assert!(left.recv_timeout(LONG).unwrap_err().is_disconnected());
    });
}

/// Calls the service when its thread goes.
struct CallsOnDrop(Box<dyn FnOnce()>);

impl Drop for CallsOnDrop {
    fn drop(&mut self) {
        std::mem::replace(&mut self.0, Box::new(|| {}))();
    }
}

thread_local! {
    static LAST_CALL: RefCell<Option<CallsOnDrop>> = const { RefCell::new(None) };
}

fn at_thread_end(call: impl FnOnce() + 'static) {
    LAST_CALL.with(|slot| *slot.borrow_mut() = Some(CallsOnDrop(Box::new(call))));
}

#[test]
fn c29_shutdown_may_be_called_by_a_thread_on_its_way_out() {
    run(|| {
        // A thread of the host.
        let (service, _stage) = scripted(1);
        service.open_session(SessionSpec::new()).unwrap();
        let last = service.clone();
        let host = thread::spawn(move || at_thread_end(move || assert_eq!(last.shutdown(LONG).stuck, [])));
        host.join().unwrap();
        assert_eq!(service.stats().sessions, 0);
        // A session's own.
        let (give, handles) = unbounded::<Service>();
        let (report, reports) = unbounded();
        let agent = turnwise::agent_fn(move |_, turn| {
            let (service, report) = (handles.recv().unwrap(), report.clone());
            at_thread_end(move || report.send(service.shutdown(SHORT)).unwrap());
            Ok(turn.finish(""))
        });
        // Otherwise its thread would wait for another session before it goes.
        let config = EphemeralSessionService::configure(agent).max_sessions(1).idle_threads(0);
        let service = config.build().unwrap();
        let (other, _stage) = scripted(1);
        other.open_session(SessionSpec::new()).unwrap();
        give.send(other).unwrap();
        let id = service.create_session(create("x")).unwrap().session_id;
        service.archive_wait(id, LONG).unwrap();
        assert_eq!(reports.recv().unwrap().stuck.len() + reports.len(), 0);
        service.shutdown(LONG);
    });
}

#[test]
fn c29_a_thread_that_blocks_on_its_way_out_keeps_no_other_and_no_shutdown() {
    run(|| {
        let (go, gate) = unbounded::<()>();
        let agent = turnwise::agent_fn(move |prompt, turn| {
            if prompt == "block" {
                let gate = gate.clone();
                at_thread_end(move || _ = gate.recv());
            }
            Ok(turn.finish(prompt))
        });
        // A thread for each, that is gone with its session but for what blocks.
        let config = EphemeralSessionService::configure(agent).idle_threads(0).thread_name_prefix("c29-late");
        let service = config.build().unwrap();
        let blocked = service.create_session(create("block")).unwrap().session_id;
        service.archive_wait(blocked, LONG).unwrap();
        for _ in 0..100 {
            let id = service.create_session(create("x")).unwrap().session_id;
            service.archive_wait(id, LONG).unwrap();
        }
        #[cfg(target_os = "linux")]
        assert_at_most_threads(1, "c29-late");
        // Its session has ended, its code has not.
        assert_eq!(service.shutdown(SHORT).stuck, [blocked]);
        thread::scope(|scope| {
            // Several who wait for it all wait.
            let waiting: Vec<_> = (0..3).map(|_| scope.spawn(|| service.shutdown(LONG))).collect();
            assert_eq!(service.shutdown(SHORT).stuck, [blocked]);
            assert!(waiting.iter().all(|call| !call.is_finished()));
            drop(go);
            waiting.into_iter().for_each(|call| assert_eq!(call.join().unwrap().stuck, []));
        });
        #[cfg(target_os = "linux")]
        assert_no_threads("c29-late");
    });
}

#[test]
fn c29_a_shutdown_that_is_called_again_still_sees_the_deadline_thread_off() {
    run(|| {
        let (go, gate) = bounded::<()>(0);
        let (start, started) = bounded(1);
        let agent = turnwise::agent_fn(move |_, turn| {
            let (gate, start) = (gate.clone(), start.clone());
            // Forgotten, so that nobody waits for the hook but the thread that runs it.
            std::mem::forget(turn.cancel_token().on_cancel(move || {
                start.send(()).unwrap();
                let _ = gate.recv();
            }));
            turn.cancel_token().cancelled().recv().unwrap_err();
            started.recv().unwrap();
            Err(turn.check().unwrap_err().into())
        });
        let config = EphemeralSessionService::configure(agent).thread_name_prefix("c29-dead");
        let service = config.build().unwrap();
        let mut soon = SHORT;
        while service.stats().turns_cancelled < 1 || service.stats().turns_started < 1 {
            service.create_session(create("x").timeout(soon)).unwrap_err();
            soon *= 2;
        }
        assert_eq!(service.shutdown(SHORT).stuck, []);
        drop(go);
        assert_eq!(service.shutdown(LONG).stuck, []);
        #[cfg(target_os = "linux")]
        assert_no_threads("c29-dead");
    });
}

#[test]
fn c29_a_deadline_thread_that_blocks_on_its_way_out_is_counted_and_keeps_no_shutdown() {
    run(|| {
        let (go, gate) = unbounded::<()>();
        let (ran, has_run) = unbounded();
        let agent = agent_fn(move |prompt, turn| {
            let (gate, ran) = (gate.clone(), ran.clone());
            let _hook = turn.cancel_token().on_cancel(move || {
                let is_watching = thread::current().name().is_some_and(|name| name.ends_with("-deadlines"));
                if is_watching && prompt == "block" {
                    at_thread_end(move || _ = gate.recv());
                }
                ran.send(is_watching).unwrap();
            });
            turn.sleep(LONG)?;
            Ok(turn.finish("in time"))
        });
        let service = EphemeralSessionService::configure(agent).thread_name_prefix("c29-watch").build().unwrap();
        // Each hook runs on the thread that keeps the deadlines, which hands over to another one; the first blocks at its end.
        let id = service.open_session(SessionSpec::new()).unwrap();
        for prompt in ["block", "x", "x"] {
            let mut soon = SHORT;
            // On a slow machine the time is over before the hook is there, and it runs elsewhere or not at all.
            loop {
                service.start_turn(id, turn(prompt).timeout(soon)).unwrap_err();
                if has_run.try_recv() == Ok(true) {
                    break;
                }
                soon *= 2;
            }
        }
        assert_eq!(service.shutdown(SHORT).stuck, []);
        thread::scope(|scope| {
            // Others who wait for it take nothing out of the count.
            let waiting: Vec<_> = (0..3).map(|_| scope.spawn(|| service.shutdown(LONG))).collect();
            assert_eq!(service.shutdown(SHORT).stuck, []);
            assert_eq!(service.stats().threads, 1);
            drop(go);
            waiting.into_iter().for_each(|call| assert_eq!(call.join().unwrap().stuck, []));
        });
        assert_eq!(service.stats().threads, 0);
        #[cfg(target_os = "linux")]
        assert_no_threads("c29-watch");
    });
}

#[test]
fn c29_no_caller_of_shutdown_is_done_while_another_joins() {
    run(|| {
        for _ in 0..300 {
            let agent = agent_fn(|prompt, turn| {
                at_thread_end(|| ());
                Ok(turn.finish(prompt))
            });
            let service = EphemeralSessionService::configure(agent).idle_threads(2).build().unwrap();
            let ids: Vec<_> = (0..4).map(|_| service.open_session(SessionSpec::new()).unwrap()).collect();
            service.start_turn(ids[0], turn("x").timeout(LONG)).unwrap();
            let done = AtomicUsize::new(0);
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        assert_eq!(service.shutdown(LONG).stuck, []);
                        assert_eq!(service.stats().threads, 0);
                        done.fetch_add(1, Ordering::SeqCst);
                    });
                }
                // Asking joins too.
                while done.load(Ordering::SeqCst) < 2 {
                    service.stats();
                }
            });
        }
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
