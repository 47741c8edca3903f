//! Durations on a manual clock (in C08, C09, C11, C21, C23, C29, C34, C37, C42 and C43), and seeded ids. No test waits
//! for a second of real time.

use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::{unbounded, Receiver, RecvTimeoutError};
use turnwise::testkit::{ManualClock, SeededIds};
use turnwise::{
    agent_fn, CancelReason, CancelToken, EphemeralSessionService, EventSource, SessionError, SessionId, SessionService,
    SessionSpec, Subscription,
};

use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// A service of scripted agents on a manual clock.
fn timed(max_sessions: usize) -> (Service, Stage, ManualClock) {
    let clock = ManualClock::new();
    let on_it = clock.clone();
    let (service, stage) = scripted_with(move |config| config.max_sessions(max_sessions).clock(on_it));
    (service, stage, clock)
}

/// Runs `wait` on a thread of its own. Advances the clock by `by` once that thread waits.
fn advancing<T: Send>(clock: &ManualClock, by: Duration, wait: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let waiting = scope.spawn(wait);
        clock.wait_for_waiters(1);
        clock.advance(by);
        waiting.join().unwrap()
    })
}

#[test]
fn c23_a_timeout_passes_by_the_clock_also_where_no_caller_waits() {
    run(|| {
        let (service, stage, clock) = timed(1);
        let timed = service.begin_session(create("hold").timeout(10 * SECOND)).unwrap();
        let (id, finished) = (timed.session_id(), timed.finished().clone());
        drop(timed);
        stage.wait_entered();
        clock.advance(10 * SECOND - Duration::from_nanos(1));
        clock.settle();
        assert_eq!(service.stats().turns_cancelled, 0);
        assert!(finished.try_recv().unwrap_err().is_empty());
        clock.advance(Duration::from_nanos(1));
        assert!(finished.recv().is_err());
        assert_eq!(service.stats().turns_cancelled, 1);
        // A timeout counts from the admission. Time before the admission does not count.
        let next = service.begin_turn(id, turn("hold").timeout(10 * SECOND)).unwrap();
        stage.wait_entered();
        clock.advance(9 * SECOND);
        stage.release();
        assert_eq!(next.wait().unwrap().text, "released");
    });
}

#[test]
fn c23_after_the_clock_has_settled_the_due_turns_are_cancelled() {
    run(|| {
        let (give, tokens) = unbounded::<CancelToken>();
        let agent = agent_fn(move |_, turn| {
            give.send(turn.cancel_token().clone()).unwrap();
            turn.sleep(Duration::MAX)?;
            unreachable!()
        });
        let clock = ManualClock::new();
        let service = EphemeralSessionService::configure(agent).clock(clock.clone()).build().unwrap();
        for round in 1..200_u32 {
            let turns: Vec<_> =
                (1..4).map(|n| service.begin_session(create("x").timeout(n * SECOND)).unwrap()).collect();
            let given: Vec<CancelToken> = turns.iter().map(|_| tokens.recv().unwrap()).collect();
            clock.advance(2 * SECOND);
            clock.settle();
            assert_eq!(given.iter().filter(|token| token.is_cancelled()).count(), 2, "round {round}");
            clock.advance(SECOND);
            clock.settle();
            for turn in turns {
                let id = turn.session_id();
                assert_cancelled(turn.wait(), CancelReason::DeadlineExceeded);
                service.archive_wait(id, SECOND).unwrap();
            }
        }
        assert_eq!(clock.waiters(), 0);
    });
}

#[test]
fn c23_a_jump_of_the_clock_cancels_the_due_turns_and_no_other() {
    run(|| {
        let (service, stage, clock) = timed(8);
        let turns: Vec<_> = (1..5).map(|n| service.begin_session(create("hold").timeout(n * HOUR)).unwrap()).collect();
        let never = service.begin_session(create("hold").timeout(Duration::MAX)).unwrap();
        let late = service.begin_session(create("hold").timeout(HOUR * 24 * 366 * 301)).unwrap();
        (0..6).for_each(|_| _ = stage.wait_entered());
        clock.advance(HOUR * 24 * 366 * 300);
        turns.into_iter().for_each(|turn| assert_cancelled(turn.wait(), CancelReason::DeadlineExceeded));
        assert!(!never.is_finished() && !late.is_finished());
        stage.release();
        stage.release();
        assert_eq!(never.wait().unwrap().text, "released");
        assert_eq!(late.wait().unwrap().text, "released");
        assert_eq!(service.shutdown(SECOND).stuck, []);
    });
}

#[test]
fn c23_a_disarmed_timeout_leaves_nothing_to_settle() {
    run(|| {
        let (service, _stage, clock) = timed(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        for _ in 0..100 {
            service.start_turn(id, turn("quick").timeout(SECOND)).unwrap();
            clock.advance(HOUR);
            clock.settle();
        }
        assert_eq!(service.stats().turns_cancelled, 0);
    });
}

#[test]
fn c21_a_sleep_ends_with_the_clock_or_with_the_turn() {
    run(|| {
        let agent = agent_fn(|prompt, turn| {
            for _ in 0..3 {
                turn.sleep(SECOND)?;
            }
            Ok(turn.finish(prompt))
        });
        let clock = ManualClock::new();
        let service = EphemeralSessionService::configure(agent).clock(clock.clone()).build().unwrap();
        let sleeping = service.begin_session(create("slept")).unwrap();
        let id = sleeping.session_id();
        for _ in 0..3 {
            assert!(!sleeping.is_finished());
            clock.wait_for_waiters(1);
            clock.advance(SECOND);
        }
        assert_eq!(sleeping.wait().unwrap().text, "slept");
        assert_eq!(clock.elapsed(), 3 * SECOND);
        let sleeping = service.begin_turn(id, turn("x")).unwrap();
        clock.wait_for_waiters(1);
        sleeping.interrupt();
        assert_cancelled(sleeping.wait(), CancelReason::Interrupted);
        assert_eq!(clock.waiters(), 0);
    });
}

#[test]
fn waits_for_a_session_time_out_by_the_clock_and_report_their_length() {
    run(|| {
        let (service, stage, clock) = timed(1);
        let mut running = service.begin_session(create("deaf")).unwrap();
        let id = running.session_id();
        stage.wait_entered();
        let waited = |result: Result<(), SessionError>| match result {
            Err(SessionError::Timeout { waited, .. }) => waited,
            other => panic!("{other:?}"),
        };
        // C11, C42, C43, C09.
        assert!(advancing(&clock, SECOND, || running.wait_timeout(SECOND)).is_none());
        let exported = advancing(&clock, HOUR, || service.export_session_timeout(id, SECOND));
        assert_eq!(waited(exported.map(drop)), HOUR);
        let taken = advancing(&clock, 2 * SECOND, || service.take_session(id, 2 * SECOND));
        assert_eq!(waited(taken.map(drop)), 2 * SECOND);
        let archived = advancing(&clock, SECOND, || service.archive_wait(id, SECOND));
        assert_eq!(waited(archived), SECOND);
        // C29: a shutdown waits once for all sessions, not once for each.
        let report = advancing(&clock, SECOND, || service.shutdown(SECOND));
        assert_eq!(report.stuck, [id]);
        stage.release();
        assert_eq!(running.wait().unwrap().text, "released");
        assert_eq!(service.shutdown(Duration::MAX).stuck, []);
        assert_eq!(clock.waiters(), 0);
    });
}

#[test]
fn waits_for_registrations_and_events_time_out_by_the_clock() {
    run(|| {
        let (service, _stage, clock) = timed(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        // C08, C37.
        assert_eq!(advancing(&clock, SECOND, || service.wait_session_registered(1, SECOND)), None);
        let events = service.subscribe(id, Subscription::new()).unwrap();
        let received = advancing(&clock, SECOND, || events.recv_timeout(SECOND));
        assert_eq!(received, Err(RecvTimeoutError::Timeout));
        // An event that is in the queue is received also with a timeout of zero.
        service.start_turn(id, turn("x")).unwrap();
        events.recv_timeout(Duration::ZERO).unwrap();
        events.recv_timeout(Duration::ZERO).unwrap();
        assert_eq!(events.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
    });
}

#[test]
fn c34_a_timed_wait_of_a_session_thread_ends_by_the_clock() {
    run(|| {
        let clock = ManualClock::new();
        let jobs = Jobs::with(|config| config.max_running_turns(1).clock(clock.clone()));
        let (parent, child) = (jobs.open(), jobs.open());
        jobs.prepare("endless", |_, turn| Err(turn.sleep(Duration::MAX).unwrap_err().into()));
        let waiting = jobs.begin(parent, "waits", move |service, _| {
            let mut endless = service.begin_turn(child, turn("endless"))?;
            assert!(endless.wait_timeout(SECOND).is_none());
            endless.interrupt();
            assert_cancelled(endless.wait(), CancelReason::Interrupted);
            Ok("in time".into())
        });
        // The two waiters are the parent's wait and the child's sleep.
        clock.wait_for_waiters(2);
        clock.advance(SECOND);
        assert_eq!(waiting.wait().unwrap().text, "in time");
    });
}

/// The ids of the sessions and of the interactions of one run with this seed.
fn ids_of_a_run(seed: u64) -> (Vec<SessionId>, Vec<String>) {
    let (service, _stage) = scripted_with(|config| config.ids(SeededIds::new(seed)));
    let sessions: Vec<_> = (0..5).map(|_| service.open_session(SessionSpec::new()).unwrap()).collect();
    let injector = service.event_injector(sessions[0]).unwrap();
    let follow = || injector.inject_with_subscription("x".into(), EventSource::Rpc).unwrap().id.to_string();
    (sessions, (0..5).map(|_| follow()).collect())
}

#[test]
fn the_same_seed_gives_the_same_ids_in_creation_order() {
    run(|| {
        let (sessions, interactions) = ids_of_a_run(1);
        assert_eq!((sessions.clone(), interactions.clone()), ids_of_a_run(1));
        assert!(sessions.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(interactions.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(ids_of_a_run(2).0.iter().all(|id| !sessions.contains(id)));
        // A session with an id in its specification takes no id from the sequence.
        let (service, _stage) = scripted_with(|config| config.ids(SeededIds::new(1)));
        let own = SessionId::new();
        assert_eq!(service.open_session(SessionSpec::new().session_id(own)).unwrap(), own);
        assert_eq!(service.open_session(SessionSpec::new()).unwrap(), sessions[0]);
    });
}

#[test]
fn a_wait_that_is_due_is_not_counted_as_a_waiter() {
    run(|| {
        let clock = ManualClock::new();
        let (enter, entered) = unbounded();
        let agent = agent_fn(move |_, turn| {
            turn.sleep(Duration::ZERO)?;
            enter.send(()).unwrap();
            turn.sleep(SECOND)?;
            Ok(turn.finish("slept"))
        });
        let service = EphemeralSessionService::configure(agent).clock(clock.clone()).build().unwrap();
        let turns: Vec<_> = (0..3).map(|_| service.begin_session(create("x")).unwrap()).collect();
        let all: Receiver<()> = entered;
        (0..3).for_each(|_| all.recv().unwrap());
        clock.wait_for_waiters(3);
        assert!(format!("{clock:?}").contains("waiters: 3"), "{clock:?}");
        clock.advance(SECOND);
        assert_eq!(clock.waiters(), 0);
        clock.settle();
        turns.into_iter().for_each(|turn| assert_eq!(turn.wait().unwrap().text, "slept"));
    });
}
