//! The inbox, and host mode with all of its ends: C39, C40.

use super::support::*;
use super::{explore, join, spawn};
use crate::sync::Receiver;
use crate::{
    AgentEvent, ArchiveMode, CancelReason, EphemeralSessionService, EventSource, InjectError, InputRequest,
    InputResponse, InteractionContent, SessionAgentBuilder, SessionError, SessionId, SessionService, StartTurnRequest,
    TurnHandle, Usage, WhenBusy,
};

/// A service with one session whose first turn starts host mode. Host mode may not have begun yet.
fn hosting() -> (EphemeralSessionService<impl SessionAgentBuilder>, TurnHandle, SessionId) {
    let service = EphemeralSessionService::new(actors(act), 2);
    let turn = service.begin_session(create("begun").host_mode(true)).unwrap();
    let id = turn.session_id();
    (service, turn, id)
}

/// Injects one interaction and waits for its end. Returns the outcome, or `None` if the inbox was closed.
fn interact(service: &dyn SessionService, id: SessionId, body: &str) -> Option<Result<String, String>> {
    let injector = service.event_injector(id)?;
    match injector.inject_with_subscription(body.to_owned(), EventSource::Rpc) {
        Ok(subscription) => Some(outcome(&subscription.events)),
        Err(InjectError::Closed(back)) => {
            assert_eq!(back, body);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The terminal event of an interaction. Panics unless there is exactly one, and no event after it.
fn outcome(events: &Receiver<AgentEvent>) -> Result<String, String> {
    let mut outcome = None;
    while let Ok(event) = events.recv() {
        assert!(outcome.is_none(), "an event after the terminal one: {event:?}");
        match event {
            AgentEvent::InteractionComplete { result, .. } => outcome = Some(Ok(result)),
            AgentEvent::InteractionFailed { error, .. } => outcome = Some(Err(error)),
            _ => {}
        }
    }
    outcome.expect("an interaction has a terminal event")
}

#[test]
fn c40_interactions_are_run_and_a_dismissal_ends_host_mode() {
    explore(|| {
        let (service, turn, id) = hosting();
        let other = service.clone();
        let peer = spawn(move || interact(&other, id, "one"));
        assert_eq!(interact(&service, id, "two"), Some(Ok("two".into())));
        assert_eq!(join(peer), Some(Ok("one".into())));
        service.event_injector(id).unwrap().dismiss(EventSource::Stdin).unwrap();
        let result = turn.wait().unwrap();
        assert!(result.text == "one" || result.text == "two");
        assert_eq!(service.read(id).unwrap().state.message_count, 3);
        finish(&service);
    });
}

#[test]
fn c39_an_interaction_has_one_terminal_event_whatever_ends_host_mode() {
    let ways: [fn(&dyn SessionService, SessionId); 4] = [
        |service, id| service.archive(id).unwrap(),
        |service, id| service.archive_with(id, ArchiveMode::Interrupt).unwrap(),
        |service, id| service.interrupt(id).unwrap(),
        |service, id| drop(service.event_injector(id).unwrap().dismiss(EventSource::Tcp)),
    ];
    for way in ways {
        explore(move || {
            let (service, turn, id) = hosting();
            let other = service.clone();
            let peer = spawn(move || interact(&other, id, "x"));
            way(&service, id);
            let result = turn.wait();
            if result.is_err() {
                let reason = reason(&result);
                assert!(matches!(reason, Some(CancelReason::Archived | CancelReason::Interrupted)), "{result:?}");
            }
            // After an end that leaves the session open, the interaction may wait in the inbox for the next turn.
            finish(&service);
            if let Some(Ok(text)) = join(peer) {
                assert_eq!(text, "x");
            }
        });
    }
}

#[test]
fn c40_one_interaction_is_interrupted_alone_queued_or_running() {
    explore(|| {
        let (service, turn, id) = hosting();
        let injector = service.event_injector(id).unwrap();
        let stuck = injector.inject_with_subscription("wait".into(), EventSource::Rpc).unwrap();
        let other = service.clone();
        let peer = spawn(move || interact(&other, id, "x"));
        service.interrupt_interaction(id, stuck.id).expect("the interaction is queued, or it runs");
        assert!(outcome(&stuck.events).is_err());
        assert_eq!(join(peer), Some(Ok("x".into())));
        assert!(service.interrupt_interaction(id, stuck.id).is_err());
        turn.interrupt();
        assert_eq!(reason(&turn.wait()), Some(CancelReason::Interrupted));
        finish(&service);
    });
}

#[test]
fn c40_the_end_of_host_mode_answers_an_interaction_with_a_subscription() {
    explore(|| {
        let (service, turn, id) = hosting();
        let injector = service.event_injector(id).unwrap();
        let followed = injector.inject_with_subscription("x".into(), EventSource::Rpc).unwrap();
        let other = service.clone();
        let interrupter = spawn(move || drop(other.interrupt(id)));
        // The interaction was injected during the turn. It runs or fails, and needs no other turn in host mode for
        // that.
        drop(outcome(&followed.events));
        join(interrupter);
        drop(turn.wait());
        finish(&service);
    });
}

#[test]
fn c39_a_fault_answers_the_queued_interactions() {
    explore(|| {
        let (service, turn, id) = hosting();
        let other = service.clone();
        let peer = spawn(move || interact(&other, id, "x"));
        let own = interact(&service, id, "panic").expect("the inbox is open");
        assert!(own.is_err());
        assert!(matches!(turn.wait(), Err(SessionError::Faulted { .. })));
        match join(peer) {
            None | Some(Err(_)) => {}
            Some(Ok(text)) => assert_eq!(text, "x"),
        }
        assert!(interact(&service, id, "late").is_none());
        finish(&service);
    });
}

#[test]
fn c40_a_failed_interaction_is_reported_and_the_next_is_run() {
    explore(|| {
        let (service, turn, id) = hosting();
        assert!(interact(&service, id, "fail").expect("the inbox is open").is_err());
        assert_eq!(interact(&service, id, "x"), Some(Ok("x".into())));
        service.archive(id).unwrap();
        let result = turn.wait().expect("a draining archive ends host mode with `Ok`");
        assert_eq!((result.text.as_str(), result.usage), ("x", Usage::default()));
        finish(&service);
    });
}

#[test]
fn c40_exports_are_answered_between_interactions() {
    explore(|| {
        let (service, turn, id) = hosting();
        let other = service.clone();
        let peer = spawn(move || interact(&other, id, "x"));
        let exported = service.export_session(id).expect("an export is answered in host mode");
        assert!((1..=2).contains(&exported.messages().len()));
        let taken = service.take_session(id, FAR).expect("a take is answered in host mode");
        turn.wait().expect("a take ends host mode with `Ok`");
        match join(peer) {
            Some(Ok(_)) => assert_eq!(taken.messages().len(), 2),
            Some(Err(_)) | None => assert_eq!(taken.messages().len(), 1),
        }
        finish(&service);
    });
}

#[test]
fn c40_a_deadline_ends_host_mode() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(act), 1);
        let turn = service.begin_session(create("begun").host_mode(true).timeout(SOON)).unwrap();
        let id = turn.session_id();
        assert_eq!(reason(&turn.wait()), Some(CancelReason::DeadlineExceeded));
        service.start_turn(id, super::support::turn("x")).expect("the session stays");
        finish(&service);
    });
}

#[test]
fn c40_host_mode_fails_though_a_take_loses_against_an_interrupting_archive() {
    explore(|| {
        let (service, turn, id) = hosting();
        let taking = service.clone();
        let taker = spawn(move || taking.take_session(id, FAR).is_ok());
        let archived = service.archive_with(id, ArchiveMode::Interrupt);
        let result = turn.wait();
        if !join(taker) {
            assert!(archived.is_ok());
            assert_eq!(reason(&result), Some(CancelReason::Archived), "{result:?}");
        }
        finish(&service);
    });
}

#[test]
fn c45_after_an_interrupt_an_interaction_takes_no_response() {
    explore(|| {
        let service = EphemeralSessionService::new(
            actors(|prompt, turn| match prompt {
                "ask" => Ok(turn.request_input(InputRequest::new("q", "?"))?),
                other => Ok(other.to_owned()),
            }),
            1,
        );
        let hosting = service.begin_session(create("begun").host_mode(true)).unwrap();
        let id = hosting.session_id();
        let note =
            service.event_injector(id).unwrap().inject_with_subscription("ask".into(), EventSource::Rpc).unwrap();
        let input = loop {
            match service.pending_inputs(id).unwrap().pop() {
                Some(input) => break input.id,
                None => super::yield_now(),
            }
        };
        let other = service.clone();
        let first = spawn(move || other.interrupt(id).is_ok());
        if service.interrupt(id).is_ok() {
            let late = service.respond(id, input, InputResponse::Answer("late".into()));
            assert!(late.is_err(), "accepted after an interrupt has returned");
        }
        join(first);
        drop(hosting.wait());
        drop(note);
        finish(&service);
    });
}

#[test]
fn c49_a_take_in_host_mode_waits_for_queued_and_withdrawn_turns() {
    explore(|| {
        let (service, turn, id) = hosting();
        let taking = service.clone();
        let taker = spawn(move || taking.take_session(id, FAR).is_ok());
        let queuing = service.clone();
        let queuer = spawn(move || {
            let request = || StartTurnRequest::new("x").when_busy(WhenBusy::Queue);
            let turns = [queuing.begin_turn(id, request().timeout(SOON)), queuing.begin_turn(id, request())];
            if let Ok(second) = &turns[1] {
                second.interrupt();
            }
            turns.map(|turn| turn.map(TurnHandle::wait))
        });
        let result = turn.wait();
        assert!(result.is_ok(), "{result:?}");
        assert!(join(taker));
        drop(join(queuer));
        finish(&service);
    });
}

#[test]
fn c52_messages_end_once_while_turns_are_superseded_and_drained() {
    explore(|| {
        let service = EphemeralSessionService::new(
            actors(|_, turn| {
                let taken = turn.drain_inbox().len();
                Ok(format!("{} {taken}", turn.turn_id()))
            }),
            1,
        );
        let id = open(&service);
        let first = service.begin_turn(id, StartTurnRequest::new("x")).unwrap();
        let other = service.clone();
        let superseding = spawn(move || {
            other.begin_turn(id, StartTurnRequest::new("x").when_busy(WhenBusy::Interrupt)).ok().map(TurnHandle::wait)
        });
        let steering = service.clone();
        let steerer = spawn(move || {
            let notes = [(); 2].map(|()| steering.steer(id, None, InteractionContent::message("m")).ok());
            notes.map(|note| note.map(|note| outcome(&note.events)))
        });
        service.archive(id).unwrap();
        let one = first.wait();
        let two = join(superseding);
        let ends = join(steerer);
        let completed: Vec<String> = ends.into_iter().flatten().filter_map(Result::ok).collect();
        let taken: usize = [Some(one), two]
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .map(|result| result.text.split_once(' ').unwrap().1.parse::<usize>().unwrap())
            .sum();
        assert_eq!(completed.len(), taken);
        finish(&service);
    });
}
