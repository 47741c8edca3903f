//! Messages for the running turn against the end of that turn: C52.

use super::support::*;
use super::{explore, join, spawn};
use crate::cancel::CancelToken;
use crate::ids::Ids;
use crate::inbox::injector::EventInjector;
use crate::inbox::queue::{Found, Inbox};
use crate::sync::Arc;
use crate::time::clock::Deadline;
use crate::{
    AgentError, AgentEvent, ArchiveMode, CancelReason, EphemeralSessionService, EventSource, InteractionContent,
    InteractionSubscription, SessionError, SessionService, TurnContext, TurnId,
};

fn message() -> InteractionContent {
    InteractionContent::message("x")
}

/// The answer of a turn that has taken `count` messages.
fn answer(turn: TurnId, count: usize) -> String {
    format!("turn {turn} took {count}")
}

/// Drains the inbox once, or takes one message with a wait, by its prompt.
fn take(prompt: &str, turn: &TurnContext) -> Result<String, AgentError> {
    let count = match prompt {
        "drain" => turn.drain_inbox().len(),
        "wait" => usize::from(turn.wait_inbox(SOON)?.is_some()),
        _ => 0,
    };
    Ok(answer(turn.turn_id(), count))
}

/// Checks that the message has ended once: as its turn did, or as not taken. Returns whether it was taken.
fn check_end(note: InteractionSubscription, turn: TurnId) -> bool {
    let events: Vec<_> = note.collect();
    match &events[..] {
        [AgentEvent::InteractionFailed { .. }] => false,
        [AgentEvent::InteractionComplete { result, .. }] => {
            assert!(result.starts_with(&format!("turn {turn} ")), "steered turn {turn}, ended by {result}");
            true
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn c52_a_message_is_taken_by_its_turn_or_fails_once() {
    for prompt in ["drain", "wait", "other"] {
        explore(move || {
            let service = EphemeralSessionService::new(actors(take), 4);
            let id = open(&service);
            let first = service.begin_turn(id, turn(prompt)).unwrap();
            let number = first.turn_id();
            let [exact, any] = [Some(number), None].map(|only| {
                let service = service.clone();
                spawn(move || service.steer(id, only, message()))
            });
            let text = first.wait().unwrap().text;
            // The next turn finds none of them: one that came in time for it is its own.
            let next = service.begin_turn(id, turn("drain")).unwrap();
            let next_number = next.turn_id();
            let next_text = next.wait().unwrap().text;
            let mut taken = [0, 0];
            match join(exact) {
                Ok(note) => taken[0] += usize::from(check_end(note, number)),
                Err(error) => assert!(matches!(error, SessionError::NotRunning { .. }), "{error:?}"),
            }
            match join(any) {
                Ok(note) => {
                    let events: Vec<_> = note.collect();
                    match &events[..] {
                        [AgentEvent::InteractionFailed { .. }] => {}
                        [AgentEvent::InteractionComplete { result, .. }] if *result == text => taken[0] += 1,
                        [AgentEvent::InteractionComplete { result, .. }] if *result == next_text => taken[1] += 1,
                        other => panic!("{other:?}"),
                    }
                }
                Err(error) => assert!(matches!(error, SessionError::NotRunning { .. }), "{error:?}"),
            }
            assert_eq!([text, next_text], [answer(number, taken[0]), answer(next_number, taken[1])]);
            finish(&service);
        });
    }
}

/// The turn itself cannot be shared with threads under the model checkers, so these two wait at the inbox.
#[test]
fn c52_two_waiting_threads_lose_no_message() {
    explore(|| {
        let inbox = Arc::new(Inbox::new(4, Ids::System));
        let cancel = CancelToken::new();
        let waiting = [true, false].map(|can_be_cancelled| {
            let inbox = Arc::clone(&inbox);
            let cancel = if can_be_cancelled { cancel.clone() } else { CancelToken::new() };
            spawn(move || match inbox.find() {
                Found::Message(_) => true,
                Found::Nothing(wait) => matches!(wait.wait(&cancel, &Deadline::never()), Ok(Some(_))),
                Found::Closed => false,
            })
        });
        let sender = Arc::clone(&inbox);
        let sender = spawn(move || sender.inject("x".into(), EventSource::Rpc).unwrap());
        cancel.cancel_and_run_hooks(CancelReason::Interrupted);
        // The cancelled thread may have left with nothing: then the other one gets the message.
        join(sender);
        let [one, other] = waiting;
        if join(one) {
            inbox.close();
            assert!(!join(other));
        } else {
            assert!(join(other));
        }
    });
}

#[test]
fn c52_a_waiting_turn_misses_no_message_and_no_close() {
    explore(|| {
        let play = |_: &str, turn: &TurnContext| {
            let taken = turn.wait_inbox(FAR)?;
            Ok(answer(turn.turn_id(), usize::from(taken.is_some())))
        };
        let service = Arc::new(EphemeralSessionService::new(actors(play), 4));
        let id = open(&*service);
        let running = service.begin_turn(id, turn("x")).unwrap();
        let number = running.turn_id();
        let (sender, archivist) = (Arc::clone(&service), Arc::clone(&service));
        let sender = spawn(move || sender.steer(id, None, message()));
        let archivist = spawn(move || archivist.archive_with(id, ArchiveMode::Drain));
        let text = running.wait().unwrap().text;
        join(archivist).unwrap();
        let taken = match join(sender) {
            Ok(note) => check_end(note, number),
            Err(error) => {
                assert!(matches!(error, SessionError::NotFound { .. } | SessionError::NotRunning { .. }), "{error:?}");
                false
            }
        };
        assert_eq!(text, answer(number, usize::from(taken)));
        finish(&service);
    });
}
