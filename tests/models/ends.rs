//! The ways in which a session ends: C27 to C30. Its history at the end: C42.

use std::time::Duration;

use super::support::*;
use super::{explore, explore_from, join, spawn};
use crate::sync::{Arc, AtomicUsize, Ordering};
use crate::{
    builder_fn, ArchiveMode, CancelReason, EphemeralSessionService, SessionAgentBuilder, SessionError, SessionQuery,
    SessionService, SessionSpec,
};

#[test]
fn c28_a_turn_is_answered_with_its_real_result_or_refused() {
    explore(|| {
        let (service, id) = with_session();
        let other = service.clone();
        let archivist = spawn(move || other.archive(id));
        match service.begin_turn(id, turn("x")) {
            Ok(turn) => assert_eq!(turn.wait().expect("the turn was admitted before the close").text, "x"),
            Err(SessionError::NotFound { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        join(archivist).unwrap();
        assert!(service.list(Default::default()).unwrap().is_empty());
        assert!(matches!(service.read(id), Err(SessionError::NotFound { .. })));
        finish(&service);
    });
}

#[test]
fn c25_a_page_stays_full_when_one_of_its_sessions_is_archived() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(act), 3);
        let [first, second, third] = [(); 3].map(|()| open(&service));
        let other = service.clone();
        let at_work = spawn(move || {
            // The state of the session changes while the list reads it. Then the session leaves the list.
            let turn = other.begin_turn(first, turn("x")).expect("the session is idle");
            other.archive(first).expect("the session is live");
            turn.wait().expect("the turn was admitted before the close");
        });
        let query = SessionQuery::new().limit(2);
        let page: Vec<_> = service.list(query).unwrap().into_iter().map(|summary| summary.session_id).collect();
        assert!(page == [first, second] || page == [second, third], "{page:?} of {:?}", [first, second, third]);
        join(at_work);
        finish(&service);
    });
}

#[test]
fn c27_an_interrupting_archive_cancels_the_admitted_turn() {
    explore(|| {
        let (service, id) = with_session();
        let other = service.clone();
        let archivist = spawn(move || other.archive_with(id, ArchiveMode::Interrupt));
        match service.begin_turn(id, turn("wait")) {
            // If the close did not find the token of the turn, the turn would wait for ever.
            Ok(turn) => assert_eq!(reason(&turn.wait()), Some(CancelReason::Archived)),
            Err(SessionError::NotFound { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        join(archivist).unwrap();
        finish(&service);
    });
}

#[test]
fn c27_a_close_is_noticed_although_the_request_before_it_is_taken_back() {
    explore_from(&[7_516_609_217_043_040_984, 15_338_718_128_135_300_273], || {
        let (service, id) = with_session();
        let takers = [(); 2].map(|()| {
            let service = service.clone();
            spawn(move || {
                for _ in 0..2 {
                    match service.take_session(id, Duration::ZERO) {
                        Ok(_) | Err(SessionError::Timeout { .. } | SessionError::NotFound { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        });
        let archived = service.archive(id);
        assert!(matches!(archived, Ok(()) | Err(SessionError::NotFound { .. })), "{archived:?}");
        let [first, second] = takers;
        join(first);
        join(second);
        // If the close did not wake the session thread, the session would never end.
        finish(&service);
    });
}

#[test]
fn c27_a_draining_archive_can_be_escalated() {
    explore(|| {
        let (service, id) = with_session();
        let turn = service.begin_turn(id, turn("wait")).unwrap();
        let other = service.clone();
        let drain = spawn(move || other.archive(id));
        let escalated = service.archive_with(id, ArchiveMode::Interrupt);
        assert_eq!(reason(&turn.wait()), Some(CancelReason::Archived));
        escalated.expect("the interrupting archive succeeds before or after the draining one");
        match join(drain) {
            Ok(()) | Err(SessionError::NotFound { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        finish(&service);
    });
}

#[test]
fn c29_a_shutdown_leaves_no_session_behind() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(act), 4);
        let other = service.clone();
        let creator = spawn(move || other.begin_session(create("wait")));
        let other = service.clone();
        let second = spawn(move || other.shutdown(FAR).stuck);
        finish(&service);
        assert_eq!(join(second), []);
        match join(creator) {
            Ok(turn) => assert_eq!(reason(&turn.wait()), Some(CancelReason::Shutdown)),
            Err(SessionError::ShuttingDown) => {}
            Err(error) => panic!("{error}"),
        }
        assert_eq!(service.stats().sessions, 0);
        assert!(matches!(service.begin_session(create("x")), Err(SessionError::ShuttingDown)));
    });
}

#[test]
fn c29_a_turn_that_races_with_a_shutdown_is_answered_or_refused() {
    explore(|| {
        let (service, id) = with_session();
        let other = service.clone();
        let caller = spawn(move || other.begin_turn(id, turn("wait")).map(|turn| turn.wait()));
        finish(&service);
        match join(caller) {
            Ok(result) => assert_eq!(reason(&result), Some(CancelReason::Shutdown)),
            Err(SessionError::ShuttingDown) => {}
            Err(error) => panic!("{error}"),
        }
    });
}

#[test]
fn c29_a_shutdown_that_times_out_can_be_called_again() {
    explore(|| {
        let (service, id) = with_session();
        let turn = service.begin_turn(id, turn("wait")).unwrap();
        let report = service.shutdown(SOON);
        assert!(report.stuck.is_empty() || report.stuck == [id], "{report:?}");
        finish(&service);
        assert_eq!(reason(&turn.wait()), Some(CancelReason::Shutdown));
    });
}

#[test]
fn c29_a_shutdown_joins_threads_that_served_several_sessions() {
    explore(|| {
        let service = EphemeralSessionService::configure(actors(act)).max_sessions(2).idle_threads(1).build().unwrap();
        let other = service.clone();
        let first = open(&service);
        let archivist = spawn(move || other.archive_wait(first, FAR));
        match service.start_turn(open(&service), turn("x")) {
            Ok(result) => assert_eq!(result.text, "x"),
            Err(error) => panic!("{error}"),
        }
        join(archivist).unwrap();
        finish(&service);
    });
}

/// Counts its live instances.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(alive))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn c30_the_drop_of_the_last_handle_ends_every_session() {
    explore(|| {
        let alive = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&alive);
        let service = EphemeralSessionService::new(
            builder_fn(move |spec, context| {
                let (counted, weak) = (Counted::new(&counted), context.service());
                let play = move |prompt: &str, turn: &crate::TurnContext| {
                    let _ = &counted;
                    // For a moment the session thread may hold the last handle.
                    let handle = weak.upgrade();
                    drop(handle);
                    act(prompt, turn)
                };
                actors(play).build_agent(spec, context)
            }),
            2,
        );
        let turn = service.begin_session(create("wait")).unwrap();
        let other = service.clone();
        let holder = spawn(move || drop(other));
        drop(service);
        join(holder);
        assert_eq!(reason(&turn.wait()), Some(CancelReason::Shutdown));
        // A thread that does not end is a deadlock at the end of the execution.
    });
}

#[test]
fn c42_a_session_is_taken_with_no_turn_in_between() {
    explore(|| {
        let (service, id) = with_session();
        let other = service.clone();
        let caller = spawn(move || other.begin_turn(id, turn("x")).map(|turn| turn.wait()));
        let taken = service.take_session(id, FAR).expect("the session is live");
        assert_eq!(taken.id(), id);
        match join(caller) {
            Ok(result) => {
                result.expect("the turn was admitted before the close");
                assert_eq!(taken.messages().len(), 1);
            }
            Err(SessionError::NotFound { .. }) => assert_eq!(taken.messages().len(), 0),
            Err(error) => panic!("{error}"),
        }
        service.open_session(SessionSpec::new().resume(taken)).expect("the id is free again");
        finish(&service);
    });
}

#[test]
fn c42_an_export_sees_whole_turns_only() {
    explore(|| {
        let (service, id) = with_session();
        let turn = service.begin_turn(id, turn("x")).unwrap();
        let other = service.clone();
        let archivist = spawn(move || other.archive(id));
        match service.export_session(id) {
            Ok(session) => assert_eq!(session.messages().len(), 1),
            Err(SessionError::NotFound { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        let _ = service.export_session_timeout(id, SOON);
        turn.wait().unwrap();
        join(archivist).unwrap();
        finish(&service);
    });
}
