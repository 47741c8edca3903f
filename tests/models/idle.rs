//! Waits until a session is idle, against everything that ends them: C53.

use super::support::*;
use super::{explore, join, spawn, yield_now};
use crate::{ArchiveMode, SessionError, SessionService};

#[test]
fn c53_a_wait_for_an_idle_session_misses_no_end_of_a_turn() {
    explore(|| {
        let (service, id) = with_session();
        let turn = service.begin_turn(id, turn("x")).unwrap();
        let waiters = [(); 2].map(|()| {
            let service = service.clone();
            spawn(move || service.wait_idle(id, FAR))
        });
        turn.wait().unwrap();
        service.wait_idle(id, FAR).unwrap();
        waiters.into_iter().for_each(|waiter| join(waiter).unwrap());
        finish(&service);
    });
}

#[test]
fn c53_a_wait_for_an_idle_session_misses_no_close_and_no_fault() {
    explore(|| {
        let (service, id) = with_session();
        let turn = service.begin_turn(id, turn("panic")).unwrap();
        let [archivist, waiter] = [service.clone(), service.clone()];
        let waiter = spawn(move || waiter.wait_idle(id, FAR));
        let archivist = spawn(move || archivist.archive_with(id, ArchiveMode::Drain));
        let own = service.wait_idle(id, FAR);
        // The turn of a session that is not idle before it has panicked.
        for ended in [own, join(waiter)] {
            assert!(matches!(ended, Err(SessionError::NotFound { .. } | SessionError::Faulted { .. })), "{ended:?}");
        }
        join(archivist).unwrap();
        assert!(turn.wait().is_err());
        finish(&service);
    });
}

#[test]
fn c53_a_wait_for_an_idle_session_is_not_ended_by_a_turn_before_it() {
    explore(|| {
        let (service, id) = with_session();
        let first = service.begin_turn(id, turn("x")).unwrap();
        let other = service.clone();
        let other = spawn(move || {
            for _ in 0..20 {
                if let Ok(second) = other.begin_turn(id, turn("wait")) {
                    let early = other.wait_idle(id, SOON);
                    assert!(matches!(early, Err(SessionError::Timeout { .. })), "{early:?}");
                    second.interrupt();
                    return other.wait_idle(id, FAR).unwrap();
                }
                yield_now();
            }
        });
        first.wait().unwrap();
        join(other);
        finish(&service);
    });
}
