//! C29: shutdown joins the threads of a service, after the last code that runs on them.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use turnwise::crossbeam_channel::{bounded, unbounded};
use turnwise::{
    agent_fn, builder_fn, ArchiveMode, EphemeralSessionService, ServiceControl, SessionAgent, SessionAgentBuilder,
    SessionQuery, SessionService, SessionSpec,
};

use crate::support::*;

#[test]
fn c29_shutdown_joins_every_thread_however_its_session_ended() {
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

/// A thread-local value whose drop takes a while. It is dropped after all values of the session.
struct SlowDrop(Arc<AtomicUsize>);

impl Drop for SlowDrop {
    fn drop(&mut self) {
        for _ in 0..100 {
            thread::yield_now();
        }
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

thread_local! {
    static SLOW_DROP: RefCell<Option<SlowDrop>> = const { RefCell::new(None) };
}

#[test]
fn c29_stats_count_every_thread_until_it_is_joined() {
    run(|| {
        let echo = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
        // The concrete types of the builder and of its agents are erased.
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
        assert_eq!(threads(), 4, "three session threads and the timer thread");
        // One thread is idle, and serves the next session.
        service.archive_wait(ids[0], LONG).unwrap();
        service.open_session(SessionSpec::new()).unwrap();
        assert!(threads() <= 5);
        assert_eq!(service.shutdown(LONG).stuck, []);
        assert_eq!(threads(), 0);
    });
}

#[test]
fn c29_a_thread_whose_session_ends_after_a_shutdown_does_not_stay_idle() {
    run(|| {
        let (service, stage) = scripted_with(|config| config.idle_threads(1));
        let running = service.begin_session(create("deaf")).unwrap();
        let (id, _) = stage.wait_entered();
        assert_eq!(service.shutdown(SHORT).stuck, [id]);
        stage.release();
        running.wait().unwrap();
        // An idle thread would wait ten seconds for a session, and this shutdown would wait for it.
        let started = Instant::now();
        assert_eq!(service.shutdown(LONG).stuck, []);
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    });
}

#[test]
fn c29_shutdown_waits_for_the_drops_of_thread_locals() {
    run(|| {
        let gone = Arc::new(AtomicUsize::new(0));
        let service = {
            let gone = Arc::clone(&gone);
            let agent = turnwise::agent_fn(move |_, turn| {
                SLOW_DROP.with(|late| *late.borrow_mut() = Some(SlowDrop(Arc::clone(&gone))));
                Ok(turn.finish(""))
            });
            EphemeralSessionService::new(agent, 8)
        };
        for _ in 0..30 {
            // Archives end these sessions. The shutdown ends the last eight.
            let ids: Vec<_> = (0..4).map(|_| service.create_session(create("x")).unwrap().session_id).collect();
            ids.iter().for_each(|id| service.archive_wait(*id, LONG).unwrap());
        }
        (0..8).for_each(|_| drop(service.create_session(create("x")).unwrap()));
        assert_eq!(service.shutdown(LONG).stuck, []);
        assert_eq!(gone.load(Ordering::SeqCst), 4 * 30 + 8);
    });
}

/// A thread-local value that runs a closure in its drop.
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
fn c29_shutdown_may_be_called_by_a_thread_that_exits() {
    run(|| {
        // On an exiting thread of the host.
        let (service, _stage) = scripted(1);
        service.open_session(SessionSpec::new()).unwrap();
        let last = service.clone();
        let host = thread::spawn(move || at_thread_end(move || assert_eq!(last.shutdown(LONG).stuck, [])));
        host.join().unwrap();
        assert_eq!(service.stats().sessions, 0);
        // On an exiting session thread.
        let (give, handles) = unbounded::<Service>();
        let (report, reports) = unbounded();
        let agent = turnwise::agent_fn(move |_, turn| {
            let (service, report) = (handles.recv().unwrap(), report.clone());
            at_thread_end(move || report.send(service.shutdown(LONG)).unwrap());
            Ok(turn.finish(""))
        });
        // Without idle threads the session thread exits after its session.
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
fn c29_a_thread_that_blocks_at_its_exit_is_stuck_and_delays_no_other() {
    run(|| {
        let (go, gate) = unbounded::<()>();
        let agent = turnwise::agent_fn(move |prompt, turn| {
            if prompt == "block" {
                let gate = gate.clone();
                at_thread_end(move || _ = gate.recv());
            }
            Ok(turn.finish(prompt))
        });
        // Each session has a thread of its own, which exits after the session.
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
        // The session has ended, but its thread has not.
        assert_eq!(service.shutdown(SHORT).stuck, [blocked]);
        thread::scope(|scope| {
            // Several callers of shutdown all wait for the thread.
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

/// Repeats a short shutdown until it lists no session as stuck. From then on only timer threads are left. On a slow
/// machine one short shutdown may not join all session threads.
fn shut_down_all_but_the_timer_threads(service: &impl ServiceControl) {
    while !service.shutdown(SHORT).stuck.is_empty() {}
}

#[test]
fn c29_a_shutdown_that_is_called_again_still_joins_the_timer_thread() {
    run(|| {
        let (go, gate) = bounded::<()>(0);
        let (start, started) = bounded(1);
        let agent = turnwise::agent_fn(move |_, turn| {
            let (gate, start) = (gate.clone(), start.clone());
            // The guard is leaked, so that its drop does not wait for the hook.
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
        shut_down_all_but_the_timer_threads(&service);
        drop(go);
        assert_eq!(service.shutdown(LONG).stuck, []);
        #[cfg(target_os = "linux")]
        assert_no_threads("c29-dead");
    });
}

#[test]
fn c29_a_timer_thread_that_blocks_at_its_exit_is_counted_but_not_stuck() {
    run(|| {
        let (go, gate) = unbounded::<()>();
        let (report, was_watching) = unbounded();
        let agent = agent_fn(move |prompt, turn| {
            let (gate, report) = (gate.clone(), report.clone());
            let (ran, has_run) = bounded(1);
            let _hook = turn.cancel_token().on_cancel(move || {
                let is_watching = thread::current().name().is_some_and(|name| name.ends_with("-deadlines"));
                if is_watching && prompt == "block" {
                    at_thread_end(move || _ = gate.recv());
                }
                report.send(is_watching).unwrap();
                ran.send(()).unwrap();
            });
            // The guard is held until the hook has run. A turn that ended earlier would disarm the hook.
            has_run.recv().unwrap();
            turn.check()?;
            Ok(turn.finish("not told to stop"))
        });
        let service = EphemeralSessionService::configure(agent).thread_name_prefix("c29-watch").build().unwrap();
        // Each hook runs on the timer thread, which hands the timers over to a new one. The first timer thread blocks
        // at its exit.
        let id = service.open_session(SessionSpec::new()).unwrap();
        for prompt in ["block", "x", "x"] {
            let mut soon = SHORT;
            // On a slow machine the timeout passes before the hook is armed. Then the hook runs on the session thread.
            loop {
                service.start_turn(id, turn(prompt).timeout(soon)).unwrap_err();
                if was_watching.recv() == Ok(true) {
                    break;
                }
                soon *= 2;
            }
        }
        shut_down_all_but_the_timer_threads(&service);
        thread::scope(|scope| {
            // Callers of shutdown that wait for the thread do not change the count.
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
fn c29_no_shutdown_returns_while_another_caller_joins() {
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
                // `stats` joins ended threads too.
                while done.load(Ordering::SeqCst) < 2 {
                    service.stats();
                }
            });
        }
    });
}
