//! C60: a turn lends its running permit while one of its threads waits, whichever thread that is.

use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::bounded;
use turnwise::testkit::{Gate, ManualClock};
use turnwise::{CancelReason, Overflow, SessionService, Subscription};

use crate::support::*;

/// Far more events than any channel here holds.
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
            // Each event is waited for, and the permit taken again, while the child's tool waits for room.
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
                        scope.spawn(|| turn.sleep(Duration::MAX)).join().expect("it does not panic")
                    })?;
                } else {
                    turn.sleep(Duration::MAX)?;
                }
                Ok("never".into())
            });
            // It gets the one permit there is.
            assert_eq!(jobs.service.start_turn(other, turn("x")).unwrap().text, "x");
            sleeping.interrupt();
            assert_cancelled(sleeping.wait(), CancelReason::Interrupted);
            assert_eq!(jobs.service.stats().running_turns, 0);
        }
    });
}

#[test]
fn c60_the_end_of_a_sleep_is_no_reason_to_exceed_the_limit() {
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
        let at = gate.clone();
        let working = jobs.begin(other, "works", move |_, turn| {
            at.pass(turn.cancel_token())?;
            Ok("worked".into())
        });
        gate.wait_arrived(1);
        clock.advance(Duration::from_secs(1));
        clock.settle();
        assert_eq!(jobs.service.stats().running_turns, 1);
        assert!(slept.1.is_empty(), "it waits for the permit");
        gate.open();
        assert_eq!(working.wait().unwrap().text, "worked");
        assert_eq!(sleeping.wait().unwrap().text, "slept");
    });
}

#[test]
fn c60_a_turn_that_waits_for_its_permit_after_a_sleep_is_cancelled_at_once() {
    run(|| {
        let jobs = Jobs::new(1);
        let (sleeper, other) = (jobs.open(), jobs.open());
        let (gate, begun) = (Gate::new(), bounded(1));
        let sleeping = jobs.begin(sleeper, "sleeps", move |_, turn| {
            begun.0.send(()).expect("the test listens");
            turn.sleep(SHORT)?;
            Ok("slept".into())
        });
        begun.1.recv().unwrap();
        let at = gate.clone();
        let working = jobs.begin(other, "works", move |_, _| {
            at.pass_regardless();
            Ok("worked".into())
        });
        gate.wait_arrived(1);
        sleeping.interrupt();
        // It had slept before, or it is cancelled; it does not wait for the other turn.
        drop(sleeping.wait());
        assert!(!working.is_finished());
        gate.open();
        working.wait().unwrap();
    });
}
