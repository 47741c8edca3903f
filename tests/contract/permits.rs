//! C60: a turn lends its running permit while any of its threads waits.

use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::{bounded, RecvTimeoutError, TryRecvError};
use turnwise::testkit::{Gate, ManualClock};
use turnwise::{CancelReason, Cancelled, EventStream, Overflow, SessionService, Subscription};

use crate::support::*;

/// More events than any channel here holds.
const MANY: usize = 2_000;

#[test]
fn c60_a_scoped_thread_that_waits_for_room_lends_its_turns_permit() {
    run(|| {
        let jobs = Jobs::new(1);
        let (parent, child) = (jobs.open(), jobs.open());
        jobs.prepare("child", |_, turn| {
            thread::scope(|scope| {
                let tool = || (0..MANY).try_for_each(|number| turn.emit(delta(number)));
                let tools = [scope.spawn(tool), scope.spawn(tool)];
                tools.into_iter().try_for_each(|tool| tool.join().expect("tools do not panic"))
            })?;
            Ok("done".into())
        });
        let reading = jobs.begin(parent, "parent", move |service, _| {
            let mut seen = 0;
            service.start_turn_with(child, turn("child"), &mut |_| seen += 1)?;
            Ok(seen.to_string())
        });
        assert_eq!(reading.wait().unwrap().text, (2 * MANY + 2).to_string());
        assert_eq!(jobs.service.stats().running_turns, 0);
    });
}

#[test]
fn c60_a_scoped_thread_that_waits_for_a_subscriber_lends_its_turns_permit() {
    run(|| {
        let jobs = Jobs::new(1);
        let (parent, child) = (jobs.open(), jobs.open());
        let events = jobs.service.subscribe(child, Subscription::new().capacity(4).overflow(Overflow::Block)).unwrap();
        jobs.prepare("child", |_, turn| {
            thread::scope(|scope| {
                let tool = scope.spawn(|| (0..MANY).try_for_each(|number| turn.emit(delta(number))));
                tool.join().expect("tools do not panic")
            })?;
            Ok("done".into())
        });
        let reading = jobs.begin(parent, "parent", move |service, _| {
            let child = service.begin_turn(child, turn("child"))?;
            // The parent waits for each event, and takes the permit again, while the child's tool waits for room.
            let seen = events.take(MANY + 1).count();
            Ok(format!("{seen} {}", child.wait()?.text))
        });
        assert_eq!(reading.wait().unwrap().text, format!("{} done", MANY + 1));
        assert_eq!(jobs.service.stats().running_turns, 0);
    });
}

#[test]
fn c60_a_turn_that_sleeps_on_any_of_its_threads_lends_its_permit() {
    run(|| {
        for is_scoped in [false, true] {
            let jobs = Jobs::new(1);
            let (sleeper, other) = (jobs.open(), jobs.open());
            let sleeping = jobs.begin(sleeper, "sleeps", move |_, turn| {
                if is_scoped {
                    thread::scope(|scope| {
                        scope.spawn(|| turn.sleep(Duration::MAX)).join().expect("the tool does not panic")
                    })?;
                } else {
                    turn.sleep(Duration::MAX)?;
                }
                Ok("never".into())
            });
            // This turn gets the only permit.
            assert_eq!(jobs.service.start_turn(other, turn("x")).unwrap().text, "x");
            sleeping.interrupt();
            assert_cancelled(sleeping.wait(), CancelReason::Interrupted);
            assert_eq!(jobs.service.stats().running_turns, 0);
        }
    });
}

#[test]
fn c60_the_end_of_a_sleep_does_not_exceed_the_limit() {
    run(|| {
        let clock = ManualClock::new();
        let own = clock.clone();
        let jobs = Jobs::with(move |config| config.max_running_turns(1).clock(own));
        let (sleeper, other) = (jobs.open(), jobs.open());
        let (slept, gate) = (bounded(1), Gate::new());
        let sleeping = jobs.begin(sleeper, "sleeps", move |_, turn| {
            turn.sleep(Duration::from_secs(1))?;
            slept.0.send(()).expect("the test listens");
            Ok("slept".into())
        });
        clock.wait_for_waiters(1);
        let working = jobs.hold(other, &gate, "worked");
        clock.advance(Duration::from_secs(1));
        clock.settle();
        assert_eq!(jobs.service.stats().running_turns, 1);
        assert!(slept.1.is_empty(), "the sleeper waits for the permit");
        gate.open();
        assert_eq!(working.wait().unwrap().text, "worked");
        assert_eq!(sleeping.wait().unwrap().text, "slept");
    });
}

#[test]
fn c60_a_turn_that_waits_for_its_permit_after_a_sleep_is_cancelled_at_once() {
    run(|| {
        let clock = ManualClock::new();
        let own = clock.clone();
        let jobs = Jobs::with(move |config| config.max_running_turns(1).clock(own));
        let (sleeper, other) = (jobs.open(), jobs.open());
        let gate = Gate::new();
        let sleeping = jobs.begin(sleeper, "sleeps", move |_, turn| {
            turn.sleep(Duration::from_secs(1))?;
            Ok("slept".into())
        });
        clock.wait_for_waiters(1);
        let at = gate.clone();
        let working = jobs.begin(other, "works", move |_, _| {
            at.pass_regardless();
            Ok("worked".into())
        });
        gate.wait_arrived(1);
        // The sleep is over, and the only permit belongs to the other turn.
        clock.advance(Duration::from_secs(1));
        clock.settle();
        sleeping.interrupt();
        assert_cancelled(sleeping.wait(), CancelReason::Interrupted);
        assert!(!working.is_finished());
        gate.open();
        working.wait().unwrap();
    });
}

/// Waits until at least `count` events are unread.
fn wait_filled(events: &EventStream, count: usize) {
    while events.events().len() < count {
        thread::yield_now();
    }
}

#[test]
fn c60_a_turn_that_emits_through_another_sessions_sender_lends_its_own_permit() {
    run(|| {
        let jobs = Jobs::new(1);
        let [idle, emitter, reader] = [jobs.open(), jobs.open(), jobs.open()];
        let stream = jobs.service.subscribe(idle, Subscription::new().capacity(1).overflow(Overflow::Block)).unwrap();
        let sender = jobs.senders.lock().unwrap()[0].clone();
        let emitting = jobs.begin(emitter, "emits", move |_, _| {
            (0..4).try_for_each(|number| sender.emit(delta(number)))?;
            Ok("emitted".into())
        });
        wait_filled(&stream, 2);
        let reading = jobs.begin(reader, "reads", move |_, _| Ok(stream.take(4).count().to_string()));
        assert_eq!(reading.wait().unwrap().text, "4");
        assert_eq!(emitting.wait().unwrap().text, "emitted");
    });
}

#[test]
fn c60_a_sub_agents_wait_in_its_parents_sender_does_not_use_the_parents_permit() {
    run(|| {
        let jobs = Jobs::new(1);
        let [parent, child] = [jobs.open(), jobs.open()];
        let stream = jobs.service.subscribe(parent, Subscription::new().capacity(1).overflow(Overflow::Block)).unwrap();
        let sender = jobs.senders.lock().unwrap()[0].clone();
        jobs.prepare("child", move |_, _| {
            (0..3).try_for_each(|number| sender.emit(delta(number)))?;
            Ok("relayed".into())
        });
        let (slept, go) = (bounded::<()>(1), bounded::<()>(1));
        let running = jobs.begin(parent, "parent", move |service, turn| {
            let mut child = service.begin_turn(child, self::turn("child"))?;
            // The child gets the permit, and waits for room.
            assert!(child.wait_timeout(SHORT).is_none());
            turn.sleep(SHORT)?;
            drop(slept.0);
            go.1.recv().unwrap_err(); // a wait that the library does not know
            Ok(child.wait()?.text)
        });
        slept.1.recv().unwrap_err();
        wait_filled(&stream, 2);
        let reader = thread::spawn(move || stream.count());
        drop(go.0);
        assert_eq!(running.wait().unwrap().text, "relayed");
        jobs.service.shutdown(LONG);
        // Three events are the child's. The other two are `RunStarted` and `RunCompleted` of the parent's turn.
        assert_eq!(reader.join().unwrap(), 5);
    });
}

#[test]
fn c60_a_helper_thread_waits_for_no_permit_after_the_end_of_its_session() {
    run(|| {
        let jobs = Jobs::new(1);
        let [one, other] = [jobs.open(), jobs.open()];
        let stream = jobs.service.subscribe(one, Subscription::new().capacity(1).overflow(Overflow::Block)).unwrap();
        let sender = jobs.senders.lock().unwrap()[0].clone();
        let (done, finish) = (bounded::<()>(1), bounded::<()>(1));
        let spawning = jobs.begin(one, "spawns", move |_, _| {
            thread::spawn(move || {
                (0..2).for_each(|number| sender.emit(delta(number)).unwrap_or_default());
                drop(done.0);
            });
            finish.1.recv().unwrap_err();
            Ok("spawned".into())
        });
        wait_filled(&stream, 2);
        let gate = Gate::new();
        let at = gate.clone();
        let working = jobs.begin(other, "works", move |_, _| {
            at.pass_regardless();
            Ok("worked".into())
        });
        // The other turn has the permit that the helper's wait has lent, and keeps it.
        gate.wait_arrived(1);
        let reader = thread::spawn(move || stream.count());
        drop(finish.0);
        assert_eq!(spawning.wait().unwrap().text, "spawned");
        jobs.service.archive_wait(one, LONG).unwrap();
        done.1.recv().unwrap_err();
        assert!(!working.is_finished());
        gate.open();
        working.wait().unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn c60_a_turn_that_receives_on_any_of_its_threads_lends_its_permit() {
    run(|| {
        for is_scoped in [false, true] {
            let jobs = Jobs::new(1);
            let (receiver, other) = (jobs.open(), jobs.open());
            let (send, messages) = bounded::<u32>(1);
            let receiving = jobs.begin(receiver, "receives", move |_, turn| {
                let sum = || -> Result<u32, Cancelled> {
                    let mut sum = 0;
                    while let Some(number) = turn.recv(&messages)? {
                        sum += number;
                    }
                    Ok(sum)
                };
                let sum = match is_scoped {
                    true => thread::scope(|scope| scope.spawn(sum).join().expect("it does not panic")),
                    false => sum(),
                };
                Ok(sum?.to_string())
            });
            for number in 1..=3 {
                // It gets the one permit there is.
                assert_eq!(jobs.service.start_turn(other, turn("x")).unwrap().text, "x");
                send.send(number).unwrap();
            }
            drop(send);
            assert_eq!(receiving.wait().unwrap().text, "6");
            assert_eq!(jobs.service.stats().running_turns, 0);
        }
    });
}

#[test]
fn c60_a_cancelled_turn_receives_nothing_and_loses_no_message() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let ((send, messages), begun) = (bounded::<u32>(1), bounded::<()>(1));
        let kept = messages.clone();
        let receiving = jobs.begin(id, "receives", move |_, turn| {
            drop(begun.0);
            assert_matches!(turn.recv(&messages), Err(Cancelled { reason: CancelReason::Interrupted, .. }));
            send.send(7).expect("there is room");
            // A message is there, but the turn is to stop.
            assert_matches!(turn.recv(&messages), Err(Cancelled { .. }));
            assert_matches!(turn.recv_timeout(&messages, LONG), Err(Cancelled { .. }));
            turn.check()?;
            Ok("not reached".into())
        });
        begun.1.recv().unwrap_err();
        receiving.interrupt();
        assert_cancelled(receiving.wait(), CancelReason::Interrupted);
        assert_eq!(kept.try_recv(), Ok(7));
    });
}

#[test]
fn c60_a_timed_receive_ends_by_the_services_clock_and_takes_its_permit_in_turn() {
    run(|| {
        let clock = ManualClock::new();
        let own = clock.clone();
        let jobs = Jobs::with(move |config| config.max_running_turns(1).clock(own));
        let (receiver, other) = (jobs.open(), jobs.open());
        let (gate, over) = (Gate::new(), bounded::<()>(1));
        let receiving = jobs.begin(receiver, "receives", move |_, turn| {
            let (send, messages) = bounded(1);
            assert_matches!(turn.recv_timeout(&messages, Duration::ZERO)?, Err(RecvTimeoutError::Timeout));
            assert_matches!(turn.recv_timeout(&messages, Duration::from_secs(1))?, Err(RecvTimeoutError::Timeout));
            drop(over.0);
            send.send(1).expect("there is room");
            assert_matches!(turn.recv_timeout(&messages, Duration::ZERO)?, Ok(1));
            drop(send);
            assert_matches!(turn.recv_timeout(&messages, LONG)?, Err(RecvTimeoutError::Disconnected));
            assert_matches!(turn.recv(&messages)?, None);
            Ok("done".into())
        });
        clock.wait_for_waiters(1);
        let working = jobs.hold(other, &gate, "worked");
        clock.advance(Duration::from_secs(1));
        clock.settle();
        // The end of a timed receive is no reason to exceed the limit.
        assert_eq!(jobs.service.stats().running_turns, 1);
        assert_eq!(over.1.try_recv().unwrap_err(), TryRecvError::Empty);
        gate.open();
        assert_eq!(working.wait().unwrap().text, "worked");
        assert_eq!(receiving.wait().unwrap().text, "done");
    });
}

#[test]
fn c60_an_unknown_wait_without_the_permit_nests_and_ends_also_by_a_panic() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let stats = jobs.service.clone();
        let waiting = jobs.begin(id, "waits", move |_, turn| {
            let held = || stats.stats().running_turns;
            assert_eq!(held(), 1);
            turn.without_permit(|| {
                assert_eq!(held(), 0);
                turn.without_permit(|| assert_eq!(held(), 0));
                assert_eq!(held(), 0);
            });
            assert_eq!(held(), 1);
            let panics = || turn.without_permit(|| std::panic::resume_unwind(Box::new("in the wait")));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
            assert_eq!(held(), 1);
            thread::scope(|scope| {
                let tools: Vec<_> = (0..3).map(|_| scope.spawn(|| turn.without_permit(|| ()))).collect();
                // The thread that joins them waits too.
                turn.without_permit(|| tools.into_iter().for_each(|tool| tool.join().expect("tools do not panic")));
            });
            assert_eq!(held(), 1);
            Ok("waited".into())
        });
        assert_eq!(waiting.wait().unwrap().text, "waited");
        assert_eq!(jobs.service.stats().running_turns, 0);
    });
}
