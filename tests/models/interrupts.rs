//! The turns that an interrupt reaches, and the turns that it must not reach: C07, C17 to C23.

use super::support::*;
use super::{explore, join, spawn, yield_now};
use crate::sync::{bounded, Arc, AtomicBool, AtomicUsize, Ordering};
use crate::{CancelReason, EphemeralSessionService, SessionError, SessionService};

#[test]
fn c20_an_interrupt_of_an_admitted_turn_is_never_lost() {
    explore(|| {
        let (service, id) = with_session();
        let other = service.clone();
        let turn = service.begin_turn(id, turn("wait")).unwrap();
        let interrupter = spawn(move || other.interrupt(id));
        // If the interrupt were lost, this would wait for ever.
        assert_eq!(reason(&turn.wait()), Some(CancelReason::Interrupted));
        join(interrupter).expect("the turn was admitted");
        finish(&service);
    });
}

#[test]
fn c07_an_interrupt_reaches_a_session_that_is_being_built() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(act), 4);
        let first = service.begin_session(create("wait")).unwrap();
        let id = first.session_id();
        service.interrupt(id).expect("the turn is admitted");
        assert_eq!(reason(&first.wait()), Some(CancelReason::Interrupted));
        service.start_turn(id, turn("x")).expect("the session is usable");
        finish(&service);
    });
}

#[test]
fn c19_a_late_interrupt_never_reaches_the_next_turn() {
    explore(|| {
        let (service, id) = with_session();
        let first = service.begin_turn(id, turn("first")).unwrap();
        let (first_id, other) = (first.turn_id(), service.clone());
        let by_id = spawn(move || other.interrupt_turn(id, first_id));
        let (hand_over, handed) = bounded(1);
        let by_handle = spawn(move || {
            first.interrupt();
            hand_over.send(first).unwrap();
        });
        // The second turn starts as soon as the first has ended, in whichever way.
        loop {
            match service.begin_turn(id, turn("second")) {
                Ok(second) => {
                    assert_eq!(second.wait().expect("no interrupt reaches the second turn").text, "second");
                    break;
                }
                Err(SessionError::Busy { .. }) => yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        let first = handed.recv().unwrap().wait();
        assert!(first.is_ok() || reason(&first) == Some(CancelReason::Interrupted), "{first:?}");
        join(by_handle);
        match join(by_id) {
            Ok(()) | Err(SessionError::NotRunning { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        finish(&service);
    });
}

#[test]
fn c20_the_end_of_a_turn_keeps_the_token_of_the_next_turn() {
    explore(|| {
        let (service, id) = with_session();
        // The handle of the first turn is dropped, so that the turn ends while the second one is admitted.
        drop(service.begin_turn(id, turn("first")).unwrap());
        let second = loop {
            match service.begin_turn(id, turn("wait")) {
                Ok(second) => break second,
                Err(SessionError::Busy { .. }) => yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        service.interrupt(id).expect("an admitted turn is found");
        assert_eq!(reason(&second.wait()), Some(CancelReason::Interrupted));
        finish(&service);
    });
}

#[test]
fn c18_an_interrupt_of_an_idle_session_has_no_effect_on_the_next_turn() {
    explore(|| {
        let (service, id) = with_session();
        assert!(matches!(service.interrupt(id), Err(SessionError::NotRunning { .. })));
        let other = service.clone();
        let interrupter = spawn(move || other.interrupt(id));
        let result = service.begin_turn(id, turn("x")).unwrap().wait();
        match (join(interrupter), reason(&result)) {
            // The turn may have finished although it was cancelled.
            (Ok(()), None | Some(CancelReason::Interrupted)) => {}
            (Err(SessionError::NotRunning { .. }), None) => {}
            other => panic!("{other:?}"),
        }
        finish(&service);
    });
}

#[test]
fn c22_a_hook_runs_at_most_once_and_never_after_its_guard() {
    explore(|| {
        let (armed, runs) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let late = Arc::new(AtomicBool::new(false));
        let (own_armed, own_runs, own_late) = (Arc::clone(&armed), Arc::clone(&runs), Arc::clone(&late));
        let service = EphemeralSessionService::new(
            actors(move |_, turn| {
                own_armed.store(true, Ordering::SeqCst);
                let (armed, runs, late) = (Arc::clone(&own_armed), Arc::clone(&own_runs), Arc::clone(&own_late));
                // The hook does not assert, because its panic would be contained.
                let hook = turn.cancel_token().on_cancel(move || {
                    let before = armed.load(Ordering::SeqCst);
                    runs.fetch_add(1, Ordering::SeqCst);
                    if !before || !armed.load(Ordering::SeqCst) {
                        late.store(true, Ordering::SeqCst);
                    }
                });
                drop(hook);
                own_armed.store(false, Ordering::SeqCst);
                turn.check()?;
                Ok(String::new())
            }),
            1,
        );
        let id = open(&service);
        let turn = service.begin_turn(id, turn("x")).unwrap();
        let other = service.clone();
        let interrupter = spawn(move || drop(other.interrupt(id)));
        let result = turn.wait();
        join(interrupter);
        assert!(!late.load(Ordering::SeqCst), "a hook ran after its guard was dropped");
        let ran = runs.load(Ordering::SeqCst);
        assert!(ran <= 1);
        if ran == 1 {
            assert_eq!(reason(&result), Some(CancelReason::Interrupted));
        }
        finish(&service);
    });
}

#[test]
fn c23_a_deadline_cancels_its_turn_and_no_other() {
    explore(|| {
        let (service, id) = with_session();
        let timed = service.begin_turn(id, turn("wait").timeout(SOON)).unwrap();
        assert_eq!(reason(&timed.wait()), Some(CancelReason::DeadlineExceeded));
        let maybe = service.start_turn(id, turn("x").timeout(SOON));
        assert!(maybe.is_ok() || reason(&maybe) == Some(CancelReason::DeadlineExceeded), "{maybe:?}");
        service.start_turn(id, turn("untimed")).expect("this turn has no deadline");
        finish(&service);
    });
}

#[test]
fn c21_an_interrupt_reaches_a_turn_that_waits_for_room() {
    explore(|| {
        let service = EphemeralSessionService::new(
            actors(|_, turn| loop {
                turn.emit(crate::AgentEvent::TextDelta { delta: String::new() })?;
            }),
            1,
        );
        let id = open(&service);
        let (event_tx, events) = bounded(1);
        let turn = service.begin_turn(id, turn("x").event_tx(event_tx)).unwrap();
        service.interrupt(id).expect("the turn is admitted");
        assert_eq!(reason(&turn.wait()), Some(CancelReason::Interrupted));
        drop(events);
        finish(&service);
    });
}
