//! C54: reservations of capacity.

use std::fmt;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::unbounded;
use turnwise::testkit::{self, Gate, ManualClock};
use turnwise::{
    agent_fn, builder_fn, AgentError, ArchiveMode, CancelReason, EphemeralSessionService, Reservation,
    SessionAgentBuilder, SessionError, SessionService, SessionSpec,
};

use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);

/// A service of scripted agents on a clock of the test's own, by which the test knows how many threads wait.
fn timed(max_sessions: usize) -> (Service, Stage, ManualClock) {
    let clock = ManualClock::new();
    let on_it = clock.clone();
    let (service, stage) = scripted_with(move |config| config.max_sessions(max_sessions).clock(on_it));
    (service, stage, clock)
}

fn now(service: &EphemeralSessionService<impl SessionAgentBuilder>) -> Reservation {
    service.reserve(Duration::ZERO).expect("a unit is free")
}

#[track_caller]
fn assert_full<T: fmt::Debug>(result: Result<T, SessionError>, limit: usize) {
    match result {
        Err(SessionError::CapacityExceeded { active, max }) => assert_eq!((active, max), (limit, limit)),
        other => panic!("expected CapacityExceeded, got {other:?}"),
    }
}

fn spec() -> SessionSpec {
    SessionSpec::new()
}

#[test]
fn c54_a_reservation_holds_one_unit_until_it_is_dropped() {
    fn shared<T: Send + Sync + fmt::Debug>(_: &T) {}
    run(|| {
        let (service, _stage) = scripted(2);
        let first = now(&service);
        shared(&first);
        let id = service.open_session(spec()).unwrap();
        assert_eq!((service.stats().sessions, service.stats().max_sessions), (1, 2));
        assert_full(service.open_session(spec()), 2);
        assert_full(service.create_session(create("x")), 2);
        assert_full(service.begin_session(create("x")), 2);
        assert_full(service.reserve(Duration::ZERO), 2);
        drop(first);
        let second = now(&service);
        assert_full(service.open_session(spec()), 2);
        service.archive_wait(id, LONG).unwrap();
        assert_eq!(service.stats().sessions, 0);
        drop((second, now(&service)));
        let both = [now(&service), now(&service)];
        assert_full(service.reserve(Duration::ZERO), 2);
        drop(both);
    });
}

#[test]
fn c54_a_reservation_is_spent_by_each_kind_of_create() {
    run(|| {
        let (service, _stage) = scripted(3);
        let [one, two, three] = [(); 3].map(|()| spec().reservation(now(&service)));
        assert_full(service.open_session(spec()), 3);
        service.open_session(one).unwrap();
        assert_eq!(service.create_session(create("x").session(two)).unwrap().text, "x");
        assert_eq!(service.begin_session(create("y").session(three)).unwrap().wait().unwrap().text, "y");
        assert_eq!(service.stats().sessions, 3);
        assert_full(service.reserve(Duration::ZERO), 3);
    });
}

#[test]
fn c54_zero_does_not_wait_and_a_timeout_is_measured_by_the_services_clock() {
    run(|| {
        let (service, _stage, clock) = timed(1);
        let held = now(&service);
        assert_full(service.reserve(Duration::ZERO), 1);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| service.reserve(10 * SECOND));
            clock.wait_for_waiters(1);
            clock.advance(10 * SECOND - Duration::from_nanos(1));
            assert!(!waiting.is_finished());
            clock.advance(Duration::from_nanos(1));
            assert_full(waiting.join().unwrap(), 1);
        });
        assert_eq!(clock.waiters(), 0);
        drop(held);
        drop(service.reserve(Duration::MAX).unwrap());
        let (none, _stage) = scripted(0);
        assert_full(none.reserve(Duration::ZERO), 0);
        assert_full(none.reserve(Duration::MAX), 0);
    });
}

#[test]
fn c54_waits_are_served_in_arrival_order() {
    run(|| {
        const WAITERS: usize = 5;
        let (service, _stage, clock) = timed(1);
        let id = service.open_session(spec()).unwrap();
        let (order, served) = unbounded();
        thread::scope(|scope| {
            for waiter in 0..WAITERS {
                let (service, order) = (service.clone(), order.clone());
                scope.spawn(move || {
                    // One of them gives up, and so does not hold up those behind it.
                    let timeout = if waiter == 2 { SECOND } else { Duration::MAX };
                    order.send((waiter, service.reserve(timeout))).unwrap();
                });
                clock.wait_for_waiters(waiter + 1);
            }
            clock.advance(SECOND);
            let (late, refused) = served.recv().unwrap();
            assert_eq!(late, 2);
            assert_full(refused, 1);
            service.archive(id).unwrap();
            for next in [0, 1, 3, 4] {
                let (waiter, reservation) = served.recv().unwrap();
                assert_eq!(waiter, next);
                assert_full(service.open_session(spec()), 1);
                let id = service.open_session(spec().reservation(reservation.unwrap())).unwrap();
                service.archive(id).unwrap();
            }
        });
    });
}

#[test]
fn c54_no_create_overtakes_a_waiting_reserve() {
    run(|| {
        for _ in 0..300 {
            let (service, _stage, clock) = timed(1);
            let held = now(&service);
            let start = Barrier::new(4);
            thread::scope(|scope| {
                let waiting = scope.spawn(|| service.reserve(Duration::MAX).unwrap());
                clock.wait_for_waiters(1);
                let rivals = [(); 2].map(|()| {
                    scope.spawn(|| {
                        start.wait();
                        (service.open_session(spec()), service.reserve(Duration::ZERO))
                    })
                });
                let dropper = scope.spawn(|| {
                    start.wait();
                    drop(held);
                });
                start.wait();
                let reservation = waiting.join().unwrap();
                for rival in rivals {
                    let (created, reserved) = rival.join().unwrap();
                    assert_full(created, 1);
                    assert_full(reserved, 1);
                }
                dropper.join().unwrap();
                drop(reservation);
            });
            service.open_session(spec()).unwrap();
        }
    });
}

#[test]
fn c54_a_unit_beyond_those_that_are_waited_for_is_free_for_any_create() {
    run(|| {
        for _ in 0..200 {
            let (service, _stage, clock) = timed(2);
            let held = [now(&service), now(&service)];
            thread::scope(|scope| {
                let waiting = scope.spawn(|| service.reserve(Duration::MAX).unwrap());
                clock.wait_for_waiters(1);
                drop(held);
                service.open_session(spec()).unwrap();
                let reservation = waiting.join().unwrap();
                assert_full(service.open_session(spec()), 2);
                service.open_session(spec().reservation(reservation)).unwrap();
            });
        }
    });
}

#[test]
fn c54_a_create_that_fails_gives_the_unit_back_although_a_clone_is_kept() {
    run(|| {
        let builder = testkit::scripted().build_calls(|spec, _| match spec.model.as_str() {
            "fails" => Err(AgentError::Config("no key".into())),
            "panics" => panic!("no engine"),
            _ => Ok(()),
        });
        let service = EphemeralSessionService::new(builder, 2);
        let live = service.open_session(spec()).unwrap();
        let specs = [("fails", None), ("panics", None), ("", Some(live))];
        for (model, id) in specs {
            for number in 0..4 {
                let mut spec = spec().model(model).reservation(now(&service));
                spec.session_id = id;
                let kept = spec.clone();
                let failed = match number {
                    0 => service.open_session(spec).map(drop),
                    1 => service.create_session(create("x").session(spec)).map(drop),
                    2 => service.create_session_with(create("x").session(spec), &mut |_| {}).map(drop),
                    _ => service.begin_session(create("x").session(spec)).and_then(|turn| turn.wait()).map(drop),
                };
                match id {
                    Some(_) => assert_matches!(failed, Err(SessionError::AlreadyExists { .. })),
                    None => assert_matches!(failed, Err(SessionError::Build { .. })),
                }
                let back = now(&service);
                assert_matches!(service.open_session(kept), Err(SessionError::InvalidReservation));
                drop(back);
            }
        }
        assert_eq!(service.stats().sessions, 1);
    });
}

#[test]
fn c54_a_first_turn_that_fails_has_spent_the_reservation() {
    run(|| {
        let (service, _stage) = scripted(1);
        let failed = service.create_session(create("fail").session(spec().reservation(now(&service)))).unwrap_err();
        assert_full(service.reserve(Duration::ZERO), 1);
        service.archive_wait(failed.session_id().unwrap(), LONG).unwrap();
        drop(now(&service));
    });
}

#[test]
fn c54_clones_share_one_reservation_and_the_first_create_takes_it() {
    run(|| {
        for _ in 0..100 {
            let (service, _stage) = scripted(3);
            let shared = spec().reservation(now(&service));
            let start = Barrier::new(3);
            let opened: Vec<_> = thread::scope(|scope| {
                let threads = [(); 3].map(|()| {
                    scope.spawn(|| {
                        let spec = shared.clone();
                        start.wait();
                        service.open_session(spec)
                    })
                });
                threads.map(|thread| thread.join().unwrap()).into()
            });
            assert_eq!(opened.iter().filter(|opened| opened.is_ok()).count(), 1);
            for refused in opened.into_iter().filter_map(Result::err) {
                assert_matches!(&refused, SessionError::InvalidReservation);
                assert_eq!((refused.code(), refused.session_id()), ("INVALID_RESERVATION", None));
                assert_eq!(refused.to_string(), "the reservation is spent, or belongs to another service");
            }
            // Two units are left: a refused create has taken none.
            let _left = [now(&service), now(&service)];
            assert_full(service.reserve(Duration::ZERO), 3);
        }
    });
}

#[test]
fn c54_a_reservation_of_another_service_is_refused_and_stays() {
    run(|| {
        let ((service, _stage), (other, _other_stage)) = (scripted(1), scripted(1));
        let foreign = spec().reservation(now(&other));
        let refused = service.open_session(foreign.clone());
        assert_matches!(refused, Err(SessionError::InvalidReservation));
        assert_matches!(
            service.begin_session(create("x").session(foreign.clone())),
            Err(SessionError::InvalidReservation)
        );
        assert_eq!(service.stats().sessions, 0);
        drop(now(&service));
        assert_full(other.reserve(Duration::ZERO), 1);
        other.open_session(foreign).unwrap();
        // The last clone of a specification takes the reservation along.
        let (third, _third_stage) = scripted(1);
        let refused = service.open_session(spec().reservation(now(&third)));
        assert_matches!(refused, Err(SessionError::InvalidReservation));
        drop(now(&third));
        // A reservation replaces the one before.
        let (fourth, _fourth_stage) = scripted(1);
        let twice = spec().reservation(now(&third)).reservation(now(&fourth));
        drop(now(&third));
        fourth.open_session(twice).unwrap();
    });
}

#[test]
fn c54_the_builder_gets_the_specification_without_the_reservation() {
    run(|| {
        let kept: Arc<Mutex<Option<SessionSpec>>> = Arc::default();
        let keep = Arc::clone(&kept);
        let echo = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
        let builder = builder_fn(move |spec: &SessionSpec, context| {
            keep.lock().unwrap().get_or_insert_with(|| spec.clone()).session_id = None;
            echo.build_agent(spec, context)
        });
        let service = EphemeralSessionService::new(builder, 2);
        service.open_session(spec().model("small").reservation(now(&service))).unwrap();
        let template = kept.lock().unwrap().take().unwrap();
        assert_eq!(template.model, "small");
        service.open_session(template).unwrap();
    });
}

#[test]
fn c54_a_shutdown_ends_every_wait_at_once_and_refuses_later_ones() {
    run(|| {
        for mode in [ArchiveMode::Interrupt, ArchiveMode::Drain] {
            let (service, stage, clock) = timed(2);
            let held = now(&service);
            let deaf = service.begin_session(create("deaf")).unwrap();
            stage.wait_entered();
            thread::scope(|scope| {
                let waiting = [(); 3].map(|()| scope.spawn(|| service.reserve(Duration::MAX)));
                clock.wait_for_waiters(3);
                // The session keeps its unit, and the clock does not move.
                assert_eq!(service.shutdown_with(mode, Duration::ZERO).stuck, [deaf.session_id()]);
                for waiting in waiting {
                    assert_matches!(waiting.join().unwrap(), Err(SessionError::ShuttingDown));
                }
            });
            let [one, two] = [SessionSpec::new().reservation(held), SessionSpec::new()];
            let spent = one.clone();
            assert_matches!(service.open_session(one), Err(SessionError::ShuttingDown));
            assert_matches!(service.open_session(spent), Err(SessionError::ShuttingDown));
            assert_matches!(service.open_session(two), Err(SessionError::ShuttingDown));
            assert_matches!(service.reserve(Duration::ZERO), Err(SessionError::ShuttingDown));
            assert_matches!(service.reserve(Duration::MAX), Err(SessionError::ShuttingDown));
            stage.release();
            let _ = deaf.wait();
            assert_eq!(service.shutdown(LONG).stuck, []);
        }
    });
}

#[test]
fn c54_an_interrupt_of_the_waiting_session_ends_its_wait() {
    run(|| {
        let clock = ManualClock::new();
        let jobs = Jobs::with(|config| config.max_sessions(1).clock(clock.clone()));
        let id = jobs.open();
        for _ in 0..20 {
            let service = jobs.service.clone();
            // It waits for the unit that its own session holds.
            let waiting = jobs.begin(id, "reserve", move |_, turn| {
                let error = service.reserve(Duration::MAX).unwrap_err();
                let SessionError::Interrupted { id, reason: CancelReason::Interrupted } = error else {
                    panic!("{error:?}");
                };
                assert_eq!(id, turn.session_id());
                // The turn is cancelled already: a later wait ends too, and a call that does not wait fails as ever.
                assert_matches!(service.reserve(Duration::MAX), Err(SessionError::Interrupted { .. }));
                assert_full(service.reserve(Duration::ZERO), 1);
                Err(error.into())
            });
            clock.wait_for_waiters(1);
            waiting.interrupt();
            assert_cancelled(waiting.wait(), CancelReason::Interrupted);
        }
        assert_eq!(clock.waiters(), 0);
        jobs.service.archive_wait(id, LONG).unwrap();
        drop(now(&jobs.service));
    });
}

#[test]
fn c54_an_interrupt_of_a_build_ends_its_wait_for_another_services_capacity() {
    run(|| {
        let (full, _stage, clock) = timed(1);
        let held = now(&full);
        let waits_for = full.clone();
        let builder = testkit::scripted().build_calls(move |_, context| {
            let error = waits_for.reserve(Duration::MAX).unwrap_err();
            assert_eq!(
                (error.session_id(), error.cancel_reason()),
                (Some(context.session_id()), Some(CancelReason::Interrupted))
            );
            Err(error.into())
        });
        let service = EphemeralSessionService::new(builder, 1);
        let turn = service.begin_session(create("x")).unwrap();
        clock.wait_for_waiters(1);
        turn.interrupt();
        assert_eq!(turn.wait().unwrap_err().cancel_reason(), Some(CancelReason::Interrupted));
        drop((held, now(&service)));
        drop(now(&full));
    });
}

#[test]
fn c54_a_wait_on_a_session_thread_lends_the_running_permit() {
    run(|| {
        let clock = ManualClock::new();
        let jobs = Jobs::with(|config| config.max_sessions(2).max_running_turns(1).clock(clock.clone()));
        let (parent, other) = (jobs.open(), jobs.open());
        let service = jobs.service.clone();
        let waiting = jobs.begin(parent, "reserve", move |_, _| {
            let reservation = service.reserve(Duration::MAX)?;
            assert_eq!(service.stats().running_turns, 1);
            let id = service.open_session(SessionSpec::new().reservation(reservation))?;
            Ok(service.start_turn(id, turn("child"))?.text)
        });
        clock.wait_for_waiters(1);
        assert_eq!(jobs.service.stats().running_turns, 0);
        // It gets the one permit there is.
        assert_eq!(jobs.service.start_turn(other, turn("x")).unwrap().text, "x");
        jobs.service.archive(other).unwrap();
        assert_eq!(waiting.wait().unwrap().text, "child");
    });
}

#[test]
fn c54_a_wait_on_a_session_thread_is_over_in_time_although_no_permit_is_free() {
    run(|| {
        let clock = ManualClock::new();
        let jobs = Jobs::with(|config| config.max_sessions(2).max_running_turns(1).clock(clock.clone()));
        let (waiter, holder) = (jobs.open(), jobs.open());
        let service = jobs.service.clone();
        let waiting = jobs.begin(waiter, "reserve", move |_, _| {
            assert_full(service.reserve(10 * SECOND), 2);
            Ok("in time".into())
        });
        clock.wait_for_waiters(1);
        let (gate, at_gate) = (Gate::new(), Gate::new());
        let (passes, arrives) = (gate.clone(), at_gate.clone());
        let holding = jobs.begin(holder, "hold", move |_, _| {
            arrives.open();
            passes.pass_regardless();
            Ok("held".into())
        });
        at_gate.pass_regardless();
        clock.advance(10 * SECOND);
        assert_eq!(waiting.wait().unwrap().text, "in time");
        gate.open();
        assert_eq!(holding.wait().unwrap().text, "held");
    });
}

#[test]
fn c54_a_reservation_may_be_dropped_anywhere() {
    run(|| {
        let dropped: Arc<Mutex<Option<Reservation>>> = Arc::default();
        let (in_builder, in_hook) = (Arc::clone(&dropped), Arc::clone(&dropped));
        let agent = agent_fn(move |prompt, turn| {
            if prompt == "sleep" {
                let (slot, (ran_tx, ran)) = (Arc::clone(&in_hook), unbounded());
                let hook = turn.cancel_token().on_cancel(move || {
                    drop(slot.lock().unwrap().take());
                    ran_tx.send(()).unwrap();
                });
                let slept = turn.sleep(Duration::MAX);
                // A hook whose guard is dropped before it starts does not run.
                ran.recv().unwrap();
                drop(hook);
                slept?;
            }
            Ok(turn.finish(prompt))
        });
        let builder = builder_fn(move |spec, context| {
            drop(in_builder.lock().unwrap().take());
            agent.build_agent(spec, context)
        });
        let clock = ManualClock::new();
        let service = EphemeralSessionService::configure(builder).max_sessions(2).clock(clock.clone()).build().unwrap();

        // Inside of a builder.
        *dropped.lock().unwrap() = Some(now(&service));
        let id = service.open_session(spec()).unwrap();

        // Inside of a cancel hook, on the thread of the interrupt.
        *dropped.lock().unwrap() = Some(now(&service));
        let sleeping = service.begin_turn(id, turn("sleep")).unwrap();
        clock.wait_for_waiters(1);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| service.reserve(Duration::MAX).unwrap());
            clock.wait_for_waiters(2);
            sleeping.interrupt();
            // Within a specification, on any thread.
            drop(SessionSpec::new().reservation(waiting.join().unwrap()));
        });
        assert_cancelled(sleeping.wait(), CancelReason::Interrupted);

        // After a shutdown, and after the service.
        let (early, late) = (now(&service), service.downgrade());
        assert_eq!(service.shutdown(LONG).stuck, []);
        drop(early);
        drop(service);
        assert!(late.upgrade().is_none());
    });
}

#[test]
fn c54_a_reservation_keeps_no_service_and_no_session_alive() {
    run(|| {
        let (service, stage) = scripted(2);
        let (held, weak) = (now(&service), service.downgrade());
        let turn = service.begin_session(create("hold")).unwrap();
        stage.wait_entered();
        drop(service);
        assert_cancelled(turn.wait(), CancelReason::Shutdown);
        assert!(weak.upgrade().is_none());
        drop(held);
    });
}

#[test]
fn c54_no_unit_is_lost_between_many_threads() {
    run(|| {
        const THREADS: usize = 6;
        const UNITS: usize = 3;
        let (service, _stage) = scripted(UNITS);
        thread::scope(|scope| {
            for number in 0..THREADS {
                let service = &service;
                scope.spawn(move || {
                    for round in 0..60 {
                        match (number + round) % 4 {
                            0 => drop(service.reserve(LONG).expect("one comes")),
                            1 => drop(service.reserve(Duration::from_micros(round as u64))),
                            2 => {
                                let reservation = service.reserve(LONG).expect("one comes");
                                let id = service.open_session(spec().reservation(reservation)).expect("it has a unit");
                                service.archive_wait(id, LONG).unwrap();
                            }
                            _ => match service.open_session(spec()) {
                                Ok(id) => service.archive_wait(id, LONG).unwrap(),
                                Err(error) => assert_full::<()>(Err(error), UNITS),
                            },
                        }
                        assert!(service.stats().sessions <= UNITS);
                    }
                });
            }
        });
        assert_eq!(service.stats().sessions, 0);
        drop([(); UNITS].map(|()| now(&service)));
    });
}
