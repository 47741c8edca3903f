//! C54 in a service that keeps sessions.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use turnwise::store::PersistentSessionService;
use turnwise::testkit::ManualClock;
use turnwise::{EphemeralSessionService, SessionError, SessionService, SessionSpec};

use crate::support::*;

#[test]
fn c54_a_reservation_is_capacity_of_live_sessions_and_waits_for_an_unload() {
    run(|| {
        let (folder, clock) = (Folder::new(), ManualClock::new());
        let config = EphemeralSessionService::configure(echo()).max_sessions(1).clock(clock.clone());
        let service = PersistentSessionService::with_config(config, folder.store()).unwrap();
        let one = service.create_session(create("one")).unwrap().session_id;
        assert_eq!(service.reserve(Duration::ZERO).unwrap_err().code(), "CAPACITY_EXCEEDED");
        let reservation = thread::scope(|scope| {
            let waiting = scope.spawn(|| service.reserve(Duration::MAX).unwrap());
            clock.wait_for_waiters(1);
            service.unload(one, LONG).unwrap();
            waiting.join().unwrap()
        });
        // A resume takes no reserved capacity.
        assert_eq!(service.start_turn(one, turn("more")).unwrap_err().code(), "CAPACITY_EXCEEDED");
        assert_eq!(service.resume(one).unwrap_err().code(), "CAPACITY_EXCEEDED");
        assert_eq!(service.open_session(SessionSpec::new()).unwrap_err().code(), "CAPACITY_EXCEEDED");
        assert_eq!(service.stats().sessions, 0);
        let request = create("two").session(SessionSpec::new().reservation(reservation));
        let two = service.create_session(request).unwrap().session_id;
        service.unload(two, LONG).unwrap();
        assert_eq!(service.start_turn(one, turn("more")).unwrap().text, "more");
        assert_eq!(service.shutdown(LONG).stuck, []);
        assert!(matches!(service.reserve(Duration::MAX), Err(SessionError::ShuttingDown)));
    });
}

#[test]
fn c54_a_create_that_the_record_refuses_gives_the_unit_back_although_a_clone_is_kept() {
    run(|| {
        let store = Arc::new(Watched::default());
        let service = PersistentSessionService::new(echo(), 1, Arc::clone(&store));
        let now = || service.reserve(Duration::ZERO).expect("a unit is free");
        let stored = service.open_session(SessionSpec::new()).unwrap();
        service.unload(stored, LONG).unwrap();
        for number in 0..6 {
            // The id of a stored session, then a store that fails.
            let mut spec = SessionSpec::new().reservation(now());
            spec.session_id = (number < 3).then_some(stored);
            store.fails.store(number >= 3, Ordering::SeqCst);
            let kept = spec.clone();
            let failed = match number % 3 {
                0 => service.open_session(spec).map(drop),
                1 => service.create_session(create("x").session(spec)).map(drop),
                _ => service.begin_session(create("x").session(spec)).and_then(|turn| turn.wait()).map(drop),
            };
            let error = failed.unwrap_err();
            assert_eq!(matches!(error, SessionError::AlreadyExists { .. }), number < 3, "{error}");
            let back = now();
            assert!(matches!(service.open_session(kept), Err(SessionError::InvalidReservation)));
            drop(back);
        }
        store.fails.store(false, Ordering::SeqCst);
        assert_eq!(service.start_turn(stored, turn("on")).unwrap().text, "on");
    });
}
