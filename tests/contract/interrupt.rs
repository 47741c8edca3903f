//! C17–C23: interrupts, cancel tokens, hooks, deadlines.

use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::{bounded, unbounded};
use turnwise::testkit::{Gate, ManualClock};
use turnwise::{
    agent_fn, AgentError, ArchiveMode, CancelReason, CancelToken, EphemeralSessionService, SessionAgentBuilder,
    SessionError, SessionId, SessionService, SessionSpec, TurnId,
};

use crate::support::*;

#[test]
fn c17_interrupt_does_not_wait_for_the_turn() {
    run(|| {
        let (service, stage) = scripted(1);
        let running = service.begin_session(create("deaf")).unwrap();
        let (id, _) = stage.wait_entered();
        // The turn cannot end before it is released. An interrupt that waited for it would hang the test.
        service.interrupt(id).unwrap();
        service.interrupt(id).unwrap();
        running.interrupt();
        assert!(!running.is_finished());
        stage.release();
        assert_eq!(running.wait().unwrap().text, "released");
    });
}

#[test]
fn c17_a_cooperative_turn_ends_and_the_session_stays_usable() {
    run(|| {
        let (service, stage) = scripted(1);
        let running = service.begin_session(create("hold")).unwrap();
        let (id, _) = stage.wait_entered();
        service.interrupt(id).unwrap();
        assert_cancelled(running.wait(), CancelReason::Interrupted);
        assert_eq!(service.start_turn(id, turn("next")).unwrap().text, "next");
        let stats = service.stats();
        assert_eq!((stats.turns_started, stats.turns_cancelled, stats.turns_completed), (2, 1, 1));
    });
}

#[test]
fn c18_an_idle_session_is_not_running_and_an_unknown_one_not_found() {
    run(|| {
        let (service, _stage) = scripted(1);
        let id = service.create_session(create("x")).unwrap().session_id;
        assert_matches!(service.interrupt(id), Err(SessionError::NotRunning { .. }));
        assert_matches!(service.interrupt_turn(id, TurnId::new(1)), Err(SessionError::NotRunning { .. }));
        let unknown = SessionId::new();
        assert_matches!(service.interrupt(unknown), Err(SessionError::NotFound { .. }));
        assert_matches!(service.interrupt_turn(unknown, TurnId::new(1)), Err(SessionError::NotFound { .. }));
    });
}

#[test]
fn c19_a_late_interrupt_never_touches_the_next_turn() {
    run(|| {
        let (service, stage) = scripted(1);
        let mut first = service.begin_session(create("x")).unwrap();
        first.wait_timeout(LONG).unwrap().unwrap();
        let id = first.session_id();
        let next = service.begin_turn(id, turn("hold")).unwrap();
        stage.wait_entered();
        first.interrupt();
        assert_matches!(service.interrupt_turn(id, first.turn_id()), Err(SessionError::NotRunning { .. }));
        assert_matches!(service.interrupt_turn(id, TurnId::new(3)), Err(SessionError::NotRunning { .. }));
        stage.release();
        assert_eq!(next.wait().unwrap().text, "released");
    });
}

#[test]
fn c19_a_token_that_was_kept_never_fires_after_its_turn() {
    run(|| {
        let (keep, kept) = unbounded();
        let service = EphemeralSessionService::new(
            agent_fn(move |prompt, turn| {
                keep.send(turn.cancel_token().clone()).unwrap();
                Ok(turn.finish(prompt))
            }),
            1,
        );
        let mut over = service.begin_session(create("x")).unwrap();
        over.wait_timeout(LONG).unwrap().unwrap();
        over.interrupt();
        let token = kept.recv().unwrap();
        assert_eq!(token.reason(), None);
        let hook = token.on_cancel(|| panic!("a hook ran after its turn"));
        over.interrupt();
        assert!(!token.is_cancelled() && token.cancelled().try_recv().unwrap_err().is_empty());
        drop(hook);
    });
}

#[test]
fn c19_interrupts_that_race_with_the_end_of_a_turn_hit_that_turn_or_none() {
    run(|| {
        let (service, _stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        for _ in 0..1_000 {
            let quick = service.begin_turn(id, turn("quick")).unwrap();
            let (turn_id, finished) = (quick.turn_id(), quick.finished().clone());
            thread::scope(|scope| {
                scope.spawn(|| quick.interrupt());
                scope.spawn(|| drop(service.interrupt_turn(id, turn_id)));
                let _ = finished.recv();
                // The two interrupts may come later than the end of the turn.
                assert_eq!(service.start_turn(id, turn("untouched")).unwrap().text, "untouched");
            });
        }
    });
}

#[test]
fn c20_an_interrupt_after_begin_turn_is_never_lost() {
    run(|| {
        let (service, _stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        for _ in 0..1_000 {
            // Only an interrupt ends these turns. A lost interrupt hangs the test.
            let held = service.begin_turn(id, turn("hold")).unwrap();
            service.interrupt(id).unwrap();
            assert_cancelled(held.wait(), CancelReason::Interrupted);
            let held = service.begin_turn(id, turn("hold")).unwrap();
            service.interrupt_turn(id, held.turn_id()).unwrap();
            assert_cancelled(held.wait(), CancelReason::Interrupted);
        }
    });
}

#[test]
fn c20_the_end_of_a_turn_does_not_remove_the_next_turns_token() {
    run(|| {
        let (service, _stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        for _ in 0..2_000 {
            let ending = service.begin_turn(id, turn("quick")).unwrap();
            // The next turn is admitted as early as possible, not only after the result of the previous one.
            let next = loop {
                match service.begin_turn(id, turn("hold")) {
                    Ok(next) => break next,
                    Err(error) => assert_matches!(error, SessionError::Busy { .. }),
                }
            };
            service.interrupt_turn(id, next.turn_id()).expect("the turn is admitted and does not end by itself");
            assert_cancelled(next.wait(), CancelReason::Interrupted);
            ending.wait().unwrap();
        }
    });
}

#[test]
fn c21_an_interrupt_reaches_a_turn_blocked_on_a_full_event_channel() {
    run(|| {
        for capacity in [0, 1, 16] {
            let (service, stage) = scripted(1);
            let (event_tx, events) = bounded(capacity);
            let flooding = service.begin_session(create("flood").event_tx(event_tx)).unwrap();
            if capacity == 0 {
                events.recv().unwrap(); // takes `RunStarted`, so that the turn reaches its script
            }
            stage.wait_entered();
            flooding.interrupt();
            assert_cancelled(flooding.wait(), CancelReason::Interrupted);
            drop(events);
        }
        // The same holds where the first event of the turn finds no room.
        let (service, _stage) = scripted(1);
        let (event_tx, _events) = bounded(0);
        let blocked = service.begin_session(create("x").event_tx(event_tx)).unwrap();
        blocked.interrupt();
        assert_cancelled(blocked.wait(), CancelReason::Interrupted);
    });
}

#[test]
fn c21_an_interrupt_reaches_a_turn_that_sleeps_or_waits_for_a_permit() {
    run(|| {
        let (enter, entered) = unbounded();
        let agent = agent_fn(move |prompt, turn| {
            enter.send(()).unwrap();
            match prompt.as_str() {
                "sleep" => turn.sleep(Duration::MAX)?,
                // A wait that the library does not know keeps the permit.
                _ => assert!(turn.cancel_token().cancelled().recv().is_err()),
            }
            Err(turn.check().unwrap_err().into())
        });
        let config = EphemeralSessionService::configure(agent).max_running_turns(1);
        let service = config.build().unwrap();
        let holding = service.begin_session(create("hold")).unwrap();
        entered.recv().unwrap();
        let waiting = service.begin_session(create("never run")).unwrap();
        waiting.interrupt();
        assert_cancelled(waiting.wait(), CancelReason::Interrupted);
        assert!(entered.is_empty());
        holding.interrupt();
        assert_cancelled(holding.wait(), CancelReason::Interrupted);
        let sleeping = service.begin_session(create("sleep")).unwrap();
        entered.recv().unwrap();
        sleeping.interrupt();
        assert_cancelled(sleeping.wait(), CancelReason::Interrupted);
    });
}

#[test]
fn c21_a_sleep_without_an_interrupt_takes_its_full_time() {
    run(|| {
        let service = EphemeralSessionService::new(
            agent_fn(|_, turn| {
                turn.sleep(SHORT)?;
                Ok(turn.finish("slept"))
            }),
            1,
        );
        let before = std::time::Instant::now();
        assert_eq!(service.create_session(create("x")).unwrap().text, "slept");
        assert!(before.elapsed() >= SHORT);
    });
}

#[test]
fn c22_a_hook_aborts_a_blocking_socket_read() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let service = EphemeralSessionService::new(
            agent_fn(move |_, turn| {
                let mut socket = TcpStream::connect(address)?;
                let aborted = socket.try_clone()?;
                let _hook = turn.cancel_token().on_cancel(move || drop(aborted.shutdown(Shutdown::Both)));
                let read = socket.read(&mut [0; 16]);
                turn.check()?;
                Ok(turn.finish(format!("read {}", read?)))
            }),
            1,
        );
        for _ in 0..20 {
            let reading = service.begin_session(create("x")).unwrap();
            let (peer, _) = listener.accept().unwrap();
            reading.interrupt();
            let id = reading.session_id();
            // The peer neither writes nor closes the connection. Only the hook can end the read.
            assert_cancelled(reading.wait(), CancelReason::Interrupted);
            drop(peer);
            service.archive_wait(id, LONG).unwrap();
        }
    });
}

#[test]
fn c22_hooks_run_at_most_once_and_at_once_if_the_turn_is_cancelled_already() {
    run(|| {
        let (runs, enter) = (Arc::new(AtomicUsize::new(0)), unbounded());
        let service = {
            let (runs, enter) = (Arc::clone(&runs), enter.0);
            EphemeralSessionService::new(
                agent_fn(move |_, turn| {
                    let counted = |by: usize| {
                        let runs = Arc::clone(&runs);
                        move || _ = runs.fetch_add(by, Ordering::SeqCst)
                    };
                    let first = turn.cancel_token().on_cancel(counted(1));
                    let second = turn.cancel_token().on_cancel(counted(1));
                    drop(turn.cancel_token().on_cancel(counted(1_000))); // disarmed
                    enter.send(()).unwrap();
                    let _ = turn.cancel_token().cancelled().recv();
                    let at_once = turn.cancel_token().on_cancel(counted(100));
                    assert!(runs.load(Ordering::SeqCst) >= 100);
                    drop((first, second, at_once));
                    Err(turn.check().unwrap_err().into())
                }),
                1,
            )
        };
        let running = service.begin_session(create("x")).unwrap();
        enter.1.recv().unwrap();
        running.interrupt();
        running.interrupt();
        service.interrupt(running.session_id()).unwrap_or_default();
        assert_cancelled(running.wait(), CancelReason::Interrupted);
        // Each of the two armed hooks runs at most once. The turn may drop a guard before the cancelling thread runs
        // its hook.
        let runs = runs.load(Ordering::SeqCst);
        assert!((100..=102).contains(&runs), "{runs}");
    });
}

#[test]
fn c22_a_hook_never_runs_after_its_guard_is_dropped() {
    run(|| {
        // The drop of the guard and the cancel race. When the drop returns, the hook must have ended.
        let service = EphemeralSessionService::new(
            agent_fn(|_, turn| {
                let alive = Arc::new(AtomicUsize::new(1));
                let late = Arc::new(AtomicUsize::new(0));
                let hook = {
                    let (alive, late) = (Arc::clone(&alive), Arc::clone(&late));
                    turn.cancel_token().on_cancel(move || {
                        for _ in 0..50 {
                            late.fetch_add(1 - alive.load(Ordering::SeqCst), Ordering::SeqCst);
                            thread::yield_now();
                        }
                    })
                };
                for _ in 0..100 {
                    thread::yield_now();
                }
                drop(hook);
                alive.store(0, Ordering::SeqCst);
                for _ in 0..50 {
                    thread::yield_now();
                }
                assert_eq!(late.load(Ordering::SeqCst), 0, "the hook outlived its guard");
                Ok(turn.finish(""))
            }),
            1,
        );
        let id = service.open_session(SessionSpec::new()).unwrap();
        for _ in 0..300 {
            let running = service.begin_turn(id, turn("x")).unwrap();
            running.interrupt();
            match running.wait() {
                Ok(_) | Err(SessionError::Agent { source: AgentError::Cancelled { .. }, .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn c22_a_hook_that_drops_its_own_guard_does_not_wait_for_itself() {
    run(|| {
        let (enter, entered) = unbounded();
        let service = EphemeralSessionService::new(
            agent_fn(move |_, turn| {
                let (give, guard) = bounded::<turnwise::CancelHook>(1);
                let hook = turn.cancel_token().on_cancel(move || drop(guard.recv()));
                give.send(hook).unwrap();
                enter.send(()).unwrap();
                let _ = turn.cancel_token().cancelled().recv();
                Err(turn.check().unwrap_err().into())
            }),
            1,
        );
        let running = service.begin_session(create("x")).unwrap();
        entered.recv().unwrap();
        running.interrupt();
        assert_cancelled(running.wait(), CancelReason::Interrupted);
    });
}

#[test]
fn c22_a_token_does_not_fire_and_runs_no_hook_after_its_turn() {
    run(|| {
        let (give, tokens) = unbounded::<(CancelToken, Option<turnwise::CancelHook>)>();
        let ran = Arc::new(AtomicUsize::new(0));
        let service = {
            let ran = Arc::clone(&ran);
            EphemeralSessionService::new(
                agent_fn(move |_, turn| {
                    let ran = Arc::clone(&ran);
                    let hook = turn.cancel_token().on_cancel(move || _ = ran.fetch_add(1, Ordering::SeqCst));
                    give.send((turn.cancel_token().clone(), Some(hook))).unwrap();
                    Ok(turn.finish(""))
                }),
                1,
            )
        };
        let mut over = service.begin_session(create("x")).unwrap();
        over.wait_timeout(LONG).unwrap().unwrap();
        let (token, hook) = tokens.recv().unwrap();
        over.interrupt();
        service.archive_with(over.session_id(), ArchiveMode::Interrupt).unwrap();
        service.archive_wait(over.session_id(), LONG).unwrap();
        assert!(!token.is_cancelled());
        assert_eq!(token.reason(), None);
        let none = token.on_cancel(|| panic!("a hook of a turn that was never cancelled"));
        drop((hook, none));
        assert_eq!(ran.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn c23_a_timeout_cancels_also_where_no_caller_waits() {
    run(|| {
        let (service, stage) = scripted(2);
        let timed = service.begin_session(create("hold").timeout(Duration::from_millis(10))).unwrap();
        let finished = timed.finished().clone();
        let id = timed.session_id();
        drop(timed);
        assert!(finished.recv_timeout(LONG).unwrap_err().is_disconnected());
        assert_eq!(service.stats().turns_cancelled, 1);
        // A timeout counts from the admission. It may cancel a turn before its run.
        let at_once = service.begin_turn(id, turn("hold").timeout(Duration::ZERO)).unwrap();
        assert_cancelled(at_once.wait(), CancelReason::DeadlineExceeded);
        // A timeout of `Duration::MAX` never passes.
        while stage.entered.try_recv().is_ok() {}
        let never = service.begin_turn(id, turn("hold").timeout(Duration::MAX)).unwrap();
        stage.wait_entered();
        stage.release();
        assert_eq!(never.wait().unwrap().text, "released");
    });
}

#[test]
fn c23_deadlines_fire_in_the_order_of_their_times_not_of_their_requests() {
    run(|| {
        let (service, _stage) = scripted(8);
        let hour = Duration::from_secs(3_600);
        let late: Vec<_> = (0..3).map(|_| service.begin_session(create("hold").timeout(hour)).unwrap()).collect();
        let soon = service.begin_session(create("hold").timeout(Duration::from_millis(5))).unwrap();
        assert_cancelled(soon.wait(), CancelReason::DeadlineExceeded);
        assert!(late.iter().all(|turn| !turn.is_finished()));
        assert_eq!(service.shutdown(LONG).joined, 4);
    });
}

/// Agents that wait for their cancellation. With the prompt `block` their hooks wait at `gate`. A turn passes `armed`
/// once its hook is armed.
fn with_hooks_that_wait(gate: &Gate, armed: &Gate) -> impl SessionAgentBuilder + use<> {
    let (gate, armed) = (gate.clone(), armed.clone());
    agent_fn(move |prompt, turn| {
        let (start, started) = bounded(1);
        let gate = gate.clone();
        let hook = turn.cancel_token().on_cancel(move || {
            start.send(()).unwrap();
            if prompt == "block" {
                gate.pass_regardless();
            }
        });
        armed.pass_regardless();
        started.recv().unwrap();
        drop(hook); // waits for the hook
        Err(turn.check().unwrap_err().into())
    })
}

#[test]
fn c23_a_hook_that_blocks_delays_no_other_deadline() {
    run(|| {
        let (gate, armed, clock) = (Gate::new(), Gate::new(), ManualClock::new());
        armed.open();
        let config = EphemeralSessionService::configure(with_hooks_that_wait(&gate, &armed));
        let service = config.clock(clock.clone()).build().unwrap();
        let blocked = service.begin_session(create("block").timeout(LONG)).unwrap();
        armed.wait_arrived(1);
        clock.advance(LONG);
        gate.wait_arrived(1);
        for _ in 0..3 {
            let other = service.begin_session(create("x").timeout(LONG)).unwrap();
            clock.advance(LONG);
            assert_cancelled(other.wait(), CancelReason::DeadlineExceeded);
        }
        assert!(!blocked.is_finished());
        gate.open();
        assert_cancelled(blocked.wait(), CancelReason::DeadlineExceeded);
        assert_eq!(service.shutdown(LONG).stuck, []);
    });
}

#[test]
fn c23_the_hooks_of_all_due_turns_start_although_each_of_them_blocks() {
    run(|| {
        let (gate, armed, clock) = (Gate::new(), Gate::new(), ManualClock::new());
        armed.open();
        let config = EphemeralSessionService::configure(with_hooks_that_wait(&gate, &armed));
        let service = config.clock(clock.clone()).build().unwrap();
        let turns: Vec<_> = (0..4).map(|_| service.begin_session(create("block").timeout(LONG)).unwrap()).collect();
        armed.wait_arrived(4);
        clock.advance(LONG);
        // Every hook has started, although none has returned.
        gate.wait_arrived(4);
        gate.open();
        turns.into_iter().for_each(|turn| assert_cancelled(turn.wait(), CancelReason::DeadlineExceeded));
    });
}
