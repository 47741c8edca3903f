//! C53, C61, C63: what turns and hosts wait for, and for how long.

use std::time::Duration;

use turnwise::testkit::ManualClock;
use turnwise::{AgentError, SessionService, StartTurnRequest};

use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn c63_the_deadline_of_a_turn_is_on_the_services_clock() {
    run(|| {
        let clock = ManualClock::new();
        let (of_service, own) = (clock.clone(), clock.clone());
        let jobs = Jobs::with(move |config| config.clock(of_service));
        let (id, begun) = (jobs.open(), clock.system_time());
        jobs.prepare("plain", move |_, turn| {
            assert_eq!((turn.remaining(), turn.deadline(), turn.now()), (None, None, begun));
            Ok("plain".into())
        });
        assert_eq!(jobs.service.start_turn(id, turn("plain")).unwrap().text, "plain");
        jobs.prepare("timed", move |_, turn| {
            assert_eq!((turn.remaining(), turn.deadline()), (Some(5 * SECOND), Some(begun + 5 * SECOND)));
            own.advance(2 * SECOND);
            assert_eq!((turn.remaining(), turn.deadline()), (Some(3 * SECOND), Some(begun + 5 * SECOND)));
            assert_eq!(turn.now(), begun + 2 * SECOND);
            own.advance(4 * SECOND);
            // Zero, not below: the deadline is in the past, and is shown as now.
            assert_eq!((turn.remaining(), turn.deadline()), (Some(Duration::ZERO), Some(turn.now())));
            Err(turn.sleep(LONG).unwrap_err().into())
        });
        let timed = jobs.service.start_turn(id, turn("timed").timeout(5 * SECOND));
        assert_eq!(timed.unwrap_err().cancel_reason(), Some(turnwise::CancelReason::DeadlineExceeded));
        // The next turn has no deadline of the last one.
        jobs.prepare("after", |_, turn| Ok(format!("{:?} {:?}", turn.remaining(), turn.deadline())));
        assert_eq!(jobs.service.start_turn(id, turn("after")).unwrap().text, "None None");
        // A timeout past the last representable instant never comes.
        jobs.prepare("for ever", |_, turn| Ok(format!("{:?}", turn.remaining())));
        let forever = jobs.service.start_turn(id, turn("for ever").timeout(Duration::MAX));
        assert_eq!(forever.unwrap().text, "None");
    });
}

#[test]
fn c63_the_time_that_remains_never_rises_on_the_systems_clock() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        jobs.prepare("timed", |_, turn| {
            let mut last = turn.remaining().ok_or_else(|| AgentError::Internal("no deadline".into()))?;
            assert!(last <= LONG);
            for _ in 0..1_000 {
                let next = turn.remaining().unwrap();
                assert!(next <= last);
                last = next;
            }
            let ahead = turn.deadline().unwrap().duration_since(turn.now()).unwrap();
            assert!(ahead <= LONG && ahead + LONG / 2 > LONG, "{ahead:?}");
            Ok("done".into())
        });
        let request: StartTurnRequest = turn("timed").timeout(LONG);
        assert_eq!(jobs.service.start_turn(id, request).unwrap().text, "done");
    });
}
