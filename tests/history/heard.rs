//! What subscribers and event receivers have heard, once everything is over.

use std::collections::HashMap;

use turnwise::crossbeam_channel::{Receiver, TryRecvError};
use turnwise::{AgentEvent, EventStream, InteractionSubscription, SessionId, TurnId};

use crate::history::{Ending, History, Uid, What};

/// A turn's own receiver: `RunStarted`, what the agent emitted, one terminal event that fits the result, the end.
pub(crate) fn turn(
    uid: Uid,
    events: &Receiver<AgentEvent>,
    results: &HashMap<Uid, Ending>,
    history: &History,
) -> Result<(), String> {
    let heard: Vec<AgentEvent> = events.try_iter().collect();
    let wrong = |what: &str| Err(format!("C35: turn {uid}: {what}: {heard:?}, result {:?}", results.get(&uid)));
    if events.try_recv() != Err(TryRecvError::Disconnected) {
        return wrong("the receiver has not ended");
    }
    if !history.has_admitted(uid) {
        return if heard.is_empty() { Ok(()) } else { wrong("was refused") };
    }
    let [AgentEvent::RunStarted { .. }, between @ .., last] = &heard[..] else {
        return wrong("does not begin with RunStarted");
    };
    let completed = match last {
        AgentEvent::RunCompleted { .. } => true,
        AgentEvent::RunFailed { .. } => false,
        _ => return wrong("does not end with a terminal event"),
    };
    if results.get(&uid).is_some_and(|ending| matches!(ending, Ending::Well { .. }) != completed) {
        return wrong("the terminal event does not fit the result");
    }
    if between.iter().any(|event| is_of_library(event) || is_of_other_turn(event, uid)) {
        return wrong("something is between that does not belong there");
    }
    Ok(())
}

fn is_of_library(event: &AgentEvent) -> bool {
    matches!(event, AgentEvent::RunStarted { .. } | AgentEvent::RunCompleted { .. } | AgentEvent::RunFailed { .. })
}

fn is_of_other_turn(event: &AgentEvent, uid: Uid) -> bool {
    matches!(event, AgentEvent::TextDelta { delta } if *delta != uid.to_string())
}

/// Who follows an interaction hears of exactly one end, and it is the one that the agent gave it.
pub(crate) fn interaction(uid: Uid, followed: InteractionSubscription, history: &History) -> Result<(), String> {
    let heard: Vec<AgentEvent> = followed.events.try_iter().collect();
    let wrong = |what: &str| Err(format!("C39: interaction {uid}: {what}: {heard:?}"));
    if followed.events.try_recv() != Err(TryRecvError::Disconnected) {
        return wrong("has not ended");
    }
    let ends = |event: &AgentEvent| {
        matches!(event, AgentEvent::InteractionComplete { .. } | AgentEvent::InteractionFailed { .. })
    };
    if heard.iter().filter(|event| ends(event)).count() != 1 || !heard.last().is_some_and(ends) {
        return wrong("has not exactly one end");
    }
    let well = history
        .events
        .iter()
        .any(|(_, event)| matches!(event.what, What::Leave { ending: Ending::Well { last, .. }, .. } if last == uid));
    if well != matches!(heard.last(), Some(AgentEvent::InteractionComplete { .. })) {
        return wrong("the end does not fit what the agent did");
    }
    Ok(())
}

/// A subscription's events have no gaps but in front, and turns come one after the other. `all`: of every session, from its
/// first event on, so that there is nothing in front.
pub(crate) fn session(stream: &EventStream, all: bool) -> Result<(), String> {
    let mut at: HashMap<SessionId, At> = HashMap::new();
    loop {
        let event = match stream.try_recv() {
            Ok(event) => event,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => return Err("C37: a stream goes on after the shutdown".to_owned()),
        };
        let wrong = |what: &str| Err(format!("C37: {what}: {event:?}"));
        // An id may come again, with a new session.
        let last = at.remove(&event.session_id).filter(|_| event.seq > 1);
        let Some(last) = last else {
            if all && event.seq > 1 {
                return wrong("a stream of everything begins in the middle");
            }
            at.insert(event.session_id, At { seq: event.seq, turn: event.turn_id, runs: !ends_turn(&event.event) });
            continue;
        };
        if event.seq != last.seq + 1 {
            return wrong("a number is missing");
        }
        let starts = matches!(event.event, AgentEvent::RunStarted { .. });
        let next = last.turn.map(|turn| TurnId::new(turn.get() + 1));
        let fits = if starts { !last.runs && event.turn_id == next } else { last.runs && event.turn_id == last.turn };
        // A session's first event may be that of a turn of which nothing else has been heard.
        if last.turn.is_some() && event.turn_id.is_some() && !fits {
            return wrong("turns run into each other");
        }
        at.insert(event.session_id, At { seq: event.seq, turn: event.turn_id, runs: !ends_turn(&event.event) });
    }
    if all && stream.dropped() > 0 {
        return Err("C37: a stream with room for everything has dropped something".to_owned());
    }
    Ok(())
}

/// How far one session's events are.
struct At {
    seq: u64,
    turn: Option<TurnId>,
    runs: bool,
}

fn ends_turn(event: &AgentEvent) -> bool {
    matches!(event, AgentEvent::RunCompleted { .. } | AgentEvent::RunFailed { .. })
}
