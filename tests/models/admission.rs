//! Admission of sessions and turns: C02, C05, C08 to C12, C15, C16, C54.

use super::support::*;
use super::{explore, join, spawn};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, Ordering};
use crate::{
    builder_fn, CancelReason, EphemeralSessionService, SessionAgentBuilder, SessionError, SessionId, SessionService,
    SessionSpec, TurnContext,
};

#[test]
fn c10_one_of_two_concurrent_starts_is_admitted() {
    explore(|| {
        let (service, id) = with_session();
        let other = service.clone();
        let rival = spawn(move || other.begin_turn(id, turn("wait")));
        let own = service.begin_turn(id, turn("wait"));
        let (admitted, refused) = match (own, join(rival)) {
            (Ok(turn), Err(error)) | (Err(error), Ok(turn)) => (turn, error),
            both => panic!("{both:?}"),
        };
        assert!(matches!(refused, SessionError::Busy { .. }), "{refused}");
        assert_eq!(admitted.turn_id().get(), 1);
        admitted.interrupt();
        assert_eq!(reason(&admitted.wait()), Some(CancelReason::Interrupted));
        finish(&service);
    });
}

#[test]
fn c11_after_a_result_the_session_is_free_and_shows_the_turn() {
    explore(|| {
        let (service, id) = with_session();
        for number in 1..=3 {
            let turn = service.begin_turn(id, turn("x")).expect("the session is free");
            assert_eq!(turn.turn_id().get(), number);
            turn.wait().unwrap();
            assert_eq!(service.read(id).unwrap().state.message_count as u64, number);
        }
        finish(&service);
    });
}

#[test]
fn c12_turns_never_overlap_and_leave_the_session_free() {
    explore(|| {
        let running = Arc::new(AtomicBool::new(false));
        let own = Arc::clone(&running);
        let service = EphemeralSessionService::new(
            actors(move |prompt, turn| {
                assert!(!own.swap(true, Ordering::SeqCst), "two turns at once");
                let result = act(prompt, turn);
                own.store(false, Ordering::SeqCst);
                result
            }),
            1,
        );
        let id = open(&service);
        let callers: Vec<_> = ["x", "fail"]
            .map(|prompt| (service.clone(), prompt))
            .map(|(service, prompt)| {
                spawn(move || match service.begin_turn(id, turn(prompt)) {
                    Err(SessionError::Busy { .. }) => {}
                    Err(other) => panic!("{other}"),
                    // The turn succeeds or fails, by its prompt.
                    Ok(turn) => drop(turn.wait()),
                })
            })
            .into();
        callers.into_iter().for_each(join);
        service.start_turn(id, turn("free")).expect("no turn runs any more");
        finish(&service);
    });
}

#[test]
fn c02_one_of_two_creates_gets_the_last_unit_of_capacity() {
    explore(|| {
        let built = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&built);
        let service = EphemeralSessionService::new(
            builder_fn(move |spec, context| {
                counted.fetch_add(1, Ordering::SeqCst);
                actors(act).build_agent(spec, context)
            }),
            1,
        );
        let other = service.clone();
        let rival = spawn(move || other.begin_session(create("x")));
        let own = service.begin_session(create("x"));
        let (turn, refused) = match (own, join(rival)) {
            (Ok(turn), Err(error)) | (Err(error), Ok(turn)) => (turn, error),
            both => panic!("{both:?}"),
        };
        assert!(matches!(refused, SessionError::CapacityExceeded { active: 1, max: 1 }), "{refused}");
        turn.wait().unwrap();
        assert_eq!(built.load(Ordering::SeqCst), 1);
        finish(&service);
    });
}

#[test]
fn c05_one_of_two_sessions_gets_the_id() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(act), 4);
        let id = SessionId::new();
        let own_id = move || SessionSpec::new().session_id(id);
        let other = service.clone();
        let rival = spawn(move || other.open_session(own_id()));
        let results = [service.open_session(own_id()), join(rival)];
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        assert!(results.iter().any(|result| matches!(result, Err(SessionError::AlreadyExists { .. }))));
        finish(&service);
    });
}

/// Sets its flag when it is dropped.
struct Witness(Arc<AtomicBool>);

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn c09_capacity_comes_back_when_the_agent_is_dropped_and_not_before() {
    explore(|| {
        let dropped = Arc::new(AtomicBool::new(false));
        let witness = Mutex::new(Some(Witness(Arc::clone(&dropped))));
        let service = EphemeralSessionService::new(
            builder_fn(move |spec, context| {
                // The first agent owns the witness.
                let witness = witness.lock().take();
                let play = move |prompt: &str, turn: &TurnContext| {
                    let _ = &witness;
                    act(prompt, turn)
                };
                actors(play).build_agent(spec, context)
            }),
            1,
        );
        let id = open(&service);
        let other = service.clone();
        let archivist = spawn(move || {
            other.archive_wait(id, FAR).expect("the session ends");
            // The other thread may have taken the capacity first. The ended session holds none.
            match other.open_session(SessionSpec::new()) {
                Ok(_) | Err(SessionError::CapacityExceeded { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        });
        match service.open_session(SessionSpec::new()) {
            Ok(_) => assert!(dropped.load(Ordering::SeqCst), "the capacity was free before the agent was dropped"),
            Err(SessionError::CapacityExceeded { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        join(archivist);
        finish(&service);
    });
}

#[test]
fn c09_after_archive_wait_the_id_and_the_capacity_are_free() {
    explore(|| {
        let service = EphemeralSessionService::configure(actors(act)).max_sessions(1).idle_threads(1).build().unwrap();
        let id = open(&service);
        for _ in 0..2 {
            service.archive_wait(id, FAR).unwrap();
            service.open_session(SessionSpec::new().session_id(id)).expect("the id and the capacity are free");
        }
        finish(&service);
    });
}

#[test]
fn c08_no_registration_is_missed() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(act), 4);
        let other = service.clone();
        let creator = spawn(move || [(); 2].map(|()| open(&other)));
        let mut seen = 0;
        while seen < 2 {
            let count = service.wait_session_registered(seen, FAR).expect("two sessions are registered");
            assert!(count > seen && count <= 2);
            seen = count;
        }
        join(creator);
        let other = service.clone();
        let waiting = spawn(move || other.wait_session_registered(2, FAR));
        finish(&service);
        assert_eq!(join(waiting), None);
    });
}

#[test]
fn c16_the_limit_of_running_turns_holds_and_a_waiting_turn_can_be_interrupted() {
    explore(|| {
        let running = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&running);
        let builder = actors(move |prompt, turn| {
            assert_eq!(counted.fetch_add(1, Ordering::SeqCst), 0, "one turn above the limit");
            let result = act(prompt, turn);
            counted.fetch_sub(1, Ordering::SeqCst);
            result
        });
        let service = EphemeralSessionService::configure(builder).max_running_turns(1).build().unwrap();
        let turns: Vec<_> = (0..2).map(|_| service.begin_session(create("wait")).unwrap()).collect();
        let quick = service.begin_session(create("x")).unwrap();
        let other = service.clone();
        let id = turns[0].session_id();
        let interrupter = spawn(move || other.interrupt(id));
        turns[1].interrupt();
        join(interrupter).expect("the turn is admitted, with a permit or without");
        for turn in turns {
            assert_eq!(reason(&turn.wait()), Some(CancelReason::Interrupted));
        }
        quick.wait().expect("the turn gets a permit");
        assert_eq!(service.stats().running_turns, 0);
        finish(&service);
    });
}

#[test]
fn c54_no_unit_is_lost_and_no_create_overtakes_a_waiting_reserve() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(act), 1);
        let held = service.reserve(SOON).expect("it is free");
        let served = Arc::new(AtomicUsize::new(0));
        let waiting = [(); 2].map(|()| (service.clone(), Arc::clone(&served)));
        let waiting = waiting.map(|(service, served)| {
            spawn(move || {
                let reservation = service.reserve(FAR).expect("its turn comes");
                served.fetch_add(1, Ordering::SeqCst);
                drop(reservation);
            })
        });
        let impatient = service.clone();
        // Its time may be over in the instant in which it is served.
        let impatient = spawn(move || match impatient.reserve(SOON) {
            Ok(reservation) => {
                let id = impatient.open_session(SessionSpec::new().reservation(reservation)).expect("it has a unit");
                impatient.archive_wait(id, FAR).unwrap();
            }
            Err(error) => assert!(matches!(error, SessionError::CapacityExceeded { active: 1, max: 1 }), "{error}"),
        });
        let (creator, seen) = (service.clone(), Arc::clone(&served));
        let creator = spawn(move || {
            let all_wait = creator.capacity_waiters() == 3;
            match creator.open_session(SessionSpec::new()) {
                Ok(id) => {
                    assert!(!all_wait || seen.load(Ordering::SeqCst) == 2, "it has overtaken a waiting reserve");
                    creator.archive_wait(id, FAR).unwrap();
                }
                Err(error) => assert!(matches!(error, SessionError::CapacityExceeded { active: 1, max: 1 }), "{error}"),
            }
        });
        drop(held);
        waiting.into_iter().for_each(join);
        join(impatient);
        join(creator);
        assert_eq!(service.capacity_waiters(), 0);
        drop(service.reserve(SOON).expect("every unit is back"));
        finish(&service);
    });
}

#[test]
fn c54_a_shutdown_ends_every_wait_for_capacity() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(act), 1);
        let held = service.reserve(SOON).expect("it is free");
        let [one, other] = [(); 2].map(|()| service.clone()).map(|service| spawn(move || service.reserve(FAR)));
        finish(&service);
        // The shutdown alone ends a wait: the only unit is still held.
        let ended = join(one);
        // A reserve that has begun before the shutdown may find this unit now, and does not get it.
        drop(held);
        for result in [ended, join(other), service.reserve(FAR)] {
            assert!(matches!(result, Err(SessionError::ShuttingDown)), "{result:?}");
        }
    });
}
