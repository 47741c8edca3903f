//! Sessions that make room for others: a caller notices nothing of it, whatever the other threads do.

use super::keeping::{end, messages, Memory};
use super::support::*;
use super::{explore, join, spawn};
use crate::store::PersistentSessionService;
use crate::sync::Arc;
use crate::{
    AgentError, EphemeralSessionService, EventSource, InjectError, SessionAgentBuilder, SessionError, SessionId,
    SessionService, SessionSpec, Subscription, TurnContext, WhenBusy,
};

/// A service with room for `max_sessions`, which are idle.
fn full(max_sessions: usize) -> (PersistentSessionService<impl SessionAgentBuilder>, Arc<Memory>, Vec<SessionId>) {
    let store: Arc<Memory> = Arc::default();
    let config = EphemeralSessionService::configure(actors(drain)).max_sessions(max_sessions).idle_threads(0);
    let config = PersistentSessionService::configure(config, Arc::clone(&store)).unload_when_full(true);
    let service = config.build().expect("the settings are in range");
    let ids = (0..max_sessions).map(|_| open(&service)).collect();
    (service, store, ids)
}

/// As [`act`], but `drain` answers with the number of messages in the inbox.
fn drain(prompt: &str, turn: &TurnContext) -> Result<String, AgentError> {
    match prompt {
        "drain" => Ok(turn.drain_inbox().len().to_string()),
        prompt => act(prompt, turn),
    }
}

/// Opens another session on another thread, which needs the room of an idle one.
macro_rules! in_need_of_room {
    ($service:expr) => {{
        let other = $service.clone();
        spawn(move || {
            other.open_session(SessionSpec::new()).expect("there is room");
        })
    }};
}

#[test]
fn c55_a_turn_that_meets_an_unload_succeeds() {
    explore(|| {
        let (service, store, ids) = full(2);
        let id = ids[0];
        let rival = in_need_of_room!(service);
        // About as long as the other thread takes until it asks for the unload.
        service.start_turn(ids[1], turn("x")).expect("there is room");
        service.start_turn(id, turn("x")).expect("there is room");
        join(rival);
        assert_eq!(messages(&store, id), 1);
        assert_eq!(service.stats().sessions, 2);
        end(&service);
    });
}

#[test]
fn c55_two_turns_that_meet_an_unload_are_queued() {
    explore(|| {
        let (service, store, ids) = full(2);
        let id = ids[0];
        let rival = in_need_of_room!(service);
        let other = service.clone();
        let second = spawn(move || other.start_turn(id, turn("x").when_busy(WhenBusy::Queue)).map(drop));
        service.start_turn(id, turn("x").when_busy(WhenBusy::Queue)).expect("it is queued");
        join(second).expect("it is queued");
        join(rival);
        assert_eq!(messages(&store, id), 2);
        end(&service);
    });
}

#[test]
fn c55_a_message_that_is_accepted_is_not_lost_by_an_unload() {
    explore(|| {
        let (service, _, ids) = full(2);
        let id = ids[0];
        let rival = in_need_of_room!(service);
        let injector = service.event_injector(id).expect("it is resumed");
        // About as long as the other thread takes until it asks for the unload.
        service.start_turn(ids[1], turn("x")).expect("there is room");
        let injected = injector.inject("x".into(), EventSource::Rpc);
        assert!(matches!(injected, Ok(()) | Err(InjectError::Closed(_))));
        join(rival);
        let expected = if injected.is_ok() { "1" } else { "0" };
        assert_eq!(service.start_turn(id, turn("drain")).expect("there is room").text, expected);
        end(&service);
    });
}

#[test]
fn c55_a_subscriber_that_meets_an_unload_sees_the_next_turn() {
    explore(|| {
        let (service, _, ids) = full(2);
        let id = ids[0];
        let rival = in_need_of_room!(service);
        // About as long as the other thread takes until it asks for the unload.
        service.start_turn(ids[1], turn("x")).expect("there is room");
        let events = service.subscribe(id, Subscription::new()).expect("it is resumed");
        service.start_turn(id, turn("x")).expect("there is room");
        join(rival);
        let mut seen = 0;
        while events.try_recv().is_ok() {
            seen += 1;
        }
        assert_eq!(seen, 2, "the beginning of the turn and its end");
        end(&service);
    });
}

#[test]
fn c55_a_take_that_meets_an_unload_gets_the_session() {
    explore(|| {
        let (service, _, ids) = full(2);
        let id = ids[0];
        let rival = in_need_of_room!(service);
        let taken = service.take_session(id, FAR).expect("it is stored");
        assert_eq!(taken.id(), id);
        join(rival);
        assert!(matches!(service.start_turn(id, turn("x")), Err(SessionError::Archived { .. })));
        end(&service);
    });
}

#[test]
fn c55_a_reservation_gets_the_room_of_the_session_that_becomes_idle() {
    explore(|| {
        let (service, _, ids) = full(1);
        let id = ids[0];
        let other = service.clone();
        let rival = spawn(move || drop(other.start_turn(id, turn("x"))));
        drop(service.reserve(FAR).expect("the session gives way"));
        join(rival);
        end(&service);
    });
}

#[test]
fn c55_a_caller_that_needs_room_does_not_wait_for_a_turn() {
    explore(|| {
        let (service, _, ids) = full(1);
        let (other, id) = (service.clone(), ids[0]);
        let rival = spawn(move || other.begin_turn(id, turn("wait")));
        // Whichever comes first has the room.
        let opened = service.open_session(SessionSpec::new());
        let begun = join(rival);
        for error in [opened.err(), begun.as_ref().err().cloned()].into_iter().flatten() {
            assert!(matches!(error, SessionError::CapacityExceeded { .. }), "{error}");
        }
        if let Ok(begun) = begun {
            begun.interrupt();
            drop(begun.wait());
        }
        end(&service);
    });
}

#[test]
fn c55_one_of_two_sessions_that_one_caller_uses_in_turn_gives_way() {
    explore(|| {
        let (service, _, ids) = full(2);
        let other = service.clone();
        let rival = spawn(move || {
            for id in ids {
                other.start_turn(id, turn("x")).expect("there is room");
            }
        });
        service.open_session(SessionSpec::new()).expect("one of the two is idle");
        join(rival);
        end(&service);
    });
}

#[test]
fn c55_two_callers_of_one_stored_session_make_room_once() {
    explore(|| {
        let (service, store, ids) = full(1);
        // The first session is stored now.
        service.open_session(SessionSpec::new()).expect("the first one is unloaded");
        let (other, id) = (service.clone(), ids[0]);
        let second = spawn(move || other.start_turn(id, turn("x").when_busy(WhenBusy::Queue)).map(drop));
        service.start_turn(id, turn("x").when_busy(WhenBusy::Queue)).expect("there is room");
        join(second).expect("there is room");
        assert_eq!(messages(&store, id), 2);
        assert_eq!(service.stats().unloads, 2);
        end(&service);
    });
}

#[test]
fn c55_a_turn_that_does_not_queue_meets_a_subscriber_that_resumes() {
    explore(|| {
        let (service, store, ids) = full(1);
        service.open_session(SessionSpec::new()).expect("the first one is unloaded");
        let (other, id) = (service.clone(), ids[0]);
        let subscriber = spawn(move || drop(other.subscribe(id, Subscription::new()).expect("it is resumed")));
        service.start_turn(id, turn("x")).expect("no other turn runs");
        join(subscriber);
        assert_eq!(messages(&store, id), 1);
        end(&service);
    });
}
