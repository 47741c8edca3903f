//! Checks of the events that subscribers and receivers got, after the run.

use std::collections::{HashMap, HashSet};

use turnwise::crossbeam_channel::{Receiver, TryRecvError};
use turnwise::{AgentEvent, EventStream, InteractionSubscription, SessionEvent, SessionId, TurnId};

use crate::answers::Ending;
use crate::history::{Followed, History, Uid, What};

/// Checks the receiver of a turn: `RunStarted`, the agent's events, one terminal event that fits the result, then the
/// disconnection.
pub(crate) fn turn(
    uid: Uid,
    events: &Receiver<AgentEvent>,
    results: &HashMap<Uid, Ending>,
    history: &History,
) -> Result<(), String> {
    let heard: Vec<AgentEvent> = events.try_iter().collect();
    let wrong = |what: &str| Err(format!("C35: turn {uid}: {what}: {heard:?}, result {:?}", results.get(&uid)));
    if events.try_recv() != Err(TryRecvError::Disconnected) {
        return wrong("the receiver is still connected");
    }
    if !history.has_accepted(uid) {
        return if heard.is_empty() { Ok(()) } else { wrong("a refused turn has events") };
    }
    if heard.is_empty() && history.may_be_withdrawn(uid) {
        // The model decides whether it was withdrawn.
        return Ok(());
    }
    let [AgentEvent::RunStarted { .. }, between @ .., last] = &heard[..] else {
        return wrong("the first event is not RunStarted");
    };
    let completed = match last {
        AgentEvent::RunCompleted { .. } => true,
        AgentEvent::RunFailed { .. } => false,
        _ => return wrong("the last event is not a terminal event"),
    };
    if results.get(&uid).is_some_and(|ending| matches!(ending, Ending::Well { .. }) != completed) {
        return wrong("the terminal event does not fit the result");
    }
    if between.iter().any(|event| is_of_library(event) || is_of_other_turn(event, uid)) {
        return wrong("an event of the library or of another turn is between the first and the last");
    }
    Ok(())
}

fn is_of_library(event: &AgentEvent) -> bool {
    matches!(event, AgentEvent::RunStarted { .. } | AgentEvent::RunCompleted { .. } | AgentEvent::RunFailed { .. })
}

fn is_of_other_turn(event: &AgentEvent, uid: Uid) -> bool {
    matches!(event, AgentEvent::TextDelta { delta } if *delta != uid.to_string())
}

/// Checks the subscription of an interaction: exactly one terminal event, which fits the agent's ending, then the
/// disconnection.
pub(crate) fn interaction(uid: Uid, followed: InteractionSubscription, history: &History) -> Result<(), String> {
    let heard: Vec<AgentEvent> = followed.events.try_iter().collect();
    let wrong = |what: &str| Err(format!("C39: interaction {uid}: {what}: {heard:?}"));
    if followed.events.try_recv() != Err(TryRecvError::Disconnected) {
        return wrong("the stream is still connected");
    }
    let ends = |event: &AgentEvent| {
        matches!(event, AgentEvent::InteractionComplete { .. } | AgentEvent::InteractionFailed { .. })
    };
    if heard.iter().filter(|event| ends(event)).count() != 1 || !heard.last().is_some_and(ends) {
        return wrong("there is not exactly one terminal event, or it is not the last");
    }
    let well = history
        .events
        .iter()
        .any(|(_, event)| matches!(event.what, What::Leave { ending: Ending::Well { last, .. }, .. } if last == uid));
    if well != matches!(heard.last(), Some(AgentEvent::InteractionComplete { .. })) {
        return wrong("the terminal event does not fit the agent's ending");
    }
    Ok(())
}

/// Checks what a client has shown: every message of the session, and each of them once. `keeps_events`: the session has
/// had all of its events for it.
pub(crate) fn followed(client: &Followed, keeps_events: bool) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("C57: {what}: {client:?}"));
    if client.dropped > 0 {
        return if keeps_events { wrong("events are missing after the boundary") } else { Ok(()) };
    }
    if !client.events.iter().zip(client.seq + 1..).all(|((is, _), seq)| *is == seq) {
        return wrong("the events have a gap, and the client is not told");
    }
    let said = client.events.iter().filter_map(|(_, said)| said.as_ref());
    match &client.whole {
        Some(whole) if !client.shown.iter().chain(said).eq(whole) => {
            wrong("the history and the events after it are not the messages of the session")
        }
        _ => Ok(()),
    }
}

/// All events of a subscription, after the shutdown. `all`: it is a subscription to all sessions, which has room for all
/// events.
pub(crate) fn events_of(stream: &EventStream, all: bool) -> Result<Vec<SessionEvent>, String> {
    let mut events = Vec::new();
    loop {
        match stream.try_recv() {
            Ok(event) => events.push(event),
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => return Err("C37: a stream is still connected after the shutdown".to_owned()),
        }
    }
    if all && stream.dropped() > 0 {
        return Err("C37: a stream with room for all events has dropped some".to_owned());
    }
    Ok(events)
}

/// Checks the events of a subscription: their numbers have no gaps after the first event, and turns do not overlap.
/// `all`: it is a subscription to all sessions, which gets each session from the first event on.
pub(crate) fn sessions(events: &[SessionEvent], all: bool) -> Result<(), String> {
    let mut at: HashMap<SessionId, At> = HashMap::new();
    for event in events {
        let wrong = |what: &str| Err(format!("C37: {what}: {event:?}"));
        // A new session may have the id of an ended one.
        let last = at.remove(&event.session_id).filter(|_| event.seq > 1);
        let Some(mut last) = last else {
            if all && event.seq > 1 {
                return wrong("the first events of a session are missing");
            }
            let started = event.turn_id.into_iter().collect();
            let runs = !ends_turn(&event.event);
            at.insert(event.session_id, At { seq: event.seq, turn: event.turn_id, runs, started });
            continue;
        };
        if event.seq != last.seq + 1 {
            return wrong("an event number is missing");
        }
        if event.turn_id.is_none() {
            at.insert(event.session_id, At { seq: event.seq, ..last });
            continue;
        }
        let starts = matches!(event.event, AgentEvent::RunStarted { .. });
        // The numbers do not rise where turns were withdrawn or superseded others. The model knows their order.
        let is_new = event.turn_id.is_some_and(|turn| last.started.insert(turn));
        let fits = if starts { !last.runs && is_new } else { last.runs && event.turn_id == last.turn };
        // The first event of a subscription may belong to a turn whose other events it missed.
        if last.turn.is_some() && event.turn_id.is_some() && !fits {
            return wrong("two turns overlap");
        }
        let runs = !ends_turn(&event.event);
        at.insert(event.session_id, At { seq: event.seq, turn: event.turn_id, runs, started: last.started });
    }
    Ok(())
}

/// The last event of one session, the turn to which it belongs, and all turns that have started by then.
struct At {
    seq: u64,
    turn: Option<TurnId>,
    runs: bool,
    started: HashSet<TurnId>,
}

fn ends_turn(event: &AgentEvent) -> bool {
    matches!(event, AgentEvent::RunCompleted { .. } | AgentEvent::RunFailed { .. })
}
