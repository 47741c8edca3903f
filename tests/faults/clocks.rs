//! Clocks that jump, and the durations zero and `Duration::MAX`.

use std::time::Duration;

use turnwise::testkit::{assert_no_leaked_sessions, scripted, within, ManualClock, Script};
use turnwise::{CancelReason, EphemeralSessionService, SessionError, SessionService, SessionSpec, Subscription};

use crate::{create, turn, LONG};

const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

#[test]
fn c23_a_jump_of_centuries_ends_every_wait_once() {
    within(LONG, || {
        const SESSIONS: usize = 50;
        let clock = ManualClock::new();
        let agent = scripted().on("wait", Script::new().until_cancelled()).on("sleep", Script::new().sleep(CENTURY));
        let config = EphemeralSessionService::configure(agent).clock(clock.clone()).max_sessions(2 * SESSIONS);
        let service = config.build().unwrap();
        let begin = |prompt: &str, number: usize| {
            service.begin_session(create(prompt).timeout(Duration::from_secs(1 + number as u64))).unwrap()
        };
        let timed: Vec<_> = (0..SESSIONS).map(|number| begin("wait", number)).collect();
        let asleep: Vec<_> = (0..SESSIONS).map(|_| service.begin_session(create("sleep")).unwrap()).collect();
        clock.wait_for_waiters(SESSIONS);
        clock.advance(CENTURY);
        clock.settle();
        for turn in timed {
            assert_eq!(turn.wait().unwrap_err().cancel_reason(), Some(CancelReason::DeadlineExceeded));
        }
        for turn in asleep {
            assert_eq!(turn.wait().unwrap().text, "sleep");
        }
        let stats = service.stats();
        assert_eq!((stats.turns_cancelled, stats.turns_completed), (SESSIONS as u64, SESSIONS as u64));
        // The timeout of a later turn counts from its own admission.
        clock.advance(CENTURY);
        let id = service.list(Default::default()).unwrap()[0].session_id;
        assert_eq!(service.start_turn(id, turn("x").timeout(Duration::from_nanos(1))).unwrap().text, "x");
    });
}

#[test]
fn zero_and_the_longest_duration_are_valid_timeouts() {
    within(LONG, || {
        let agent =
            scripted().on("wait", Script::new().until_cancelled()).on("doze", Script::new().sleep(Duration::MAX));
        let service = EphemeralSessionService::new(agent, 4);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let stream = service.subscribe(id, Subscription::new()).unwrap();
        assert!(stream.recv_timeout(Duration::ZERO).is_err());
        assert_eq!(service.start_turn(id, turn("x").timeout(Duration::MAX)).unwrap().text, "x");
        assert!(stream.recv_timeout(Duration::MAX).is_ok());

        let mut timed = service.begin_turn(id, turn("wait").timeout(Duration::ZERO)).unwrap();
        let result = timed.wait_timeout(Duration::MAX).expect("the turn ends");
        assert_eq!(result.unwrap_err().cancel_reason(), Some(CancelReason::DeadlineExceeded));

        let mut dozing = service.begin_turn(id, turn("doze")).unwrap();
        assert!(dozing.wait_timeout(Duration::ZERO).is_none());
        let export = service.export_session_timeout(id, Duration::ZERO);
        assert!(matches!(export, Err(SessionError::Timeout { .. })), "{export:?}");
        assert!(matches!(service.take_session(id, Duration::ZERO), Err(SessionError::Timeout { .. })));
        assert!(matches!(service.archive_wait(id, Duration::ZERO), Err(SessionError::Timeout { .. })));
        dozing.interrupt();
        dozing.wait().unwrap_err();
        service.archive_wait(id, Duration::MAX).unwrap();
        assert_eq!(service.wait_session_registered(1, Duration::ZERO), None);
        assert_eq!(service.wait_session_registered(0, Duration::MAX), Some(1));
        // A timeout of zero may pass before the session thread has ended.
        let at_once = service.shutdown(Duration::ZERO).stuck;
        assert!(at_once.is_empty() || at_once == [id], "{at_once:?}");
        assert_eq!(service.shutdown(Duration::MAX).stuck, []);
        assert_no_leaked_sessions(&service);
    });
}
