//! The answers that the runs have covered. A run with the default number of plans has to see each kind of them.

use std::collections::{BTreeMap, HashMap, HashSet};

use turnwise::{CancelReason, WhenBusy};

use crate::answers::{Begun, Ending, Refused};
use crate::history::{Followed, History, Uid, What};

/// Every kind of answer about queues and waits for idleness.
const KINDS: [&str; 17] = [
    "accepted with Interrupt",
    "accepted with Queue",
    "client with messages from a history and from events",
    "client with the whole history",
    "client without all events",
    "no result yet",
    "queue full",
    "queued in a list",
    "queued in a read",
    "queued turn answered as cancelled",
    "queued turn answered as faulted",
    "queued turn answered as not built",
    "superseded",
    "wait_idle: closed",
    "wait_idle: faulted",
    "wait_idle: idle",
    "wait_idle: timed out",
];

/// How often each kind of answer was given.
#[derive(Debug, Default)]
pub(crate) struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    pub(crate) fn add(&mut self, history: &History) {
        let ran: HashSet<Uid> = history.events.iter().filter_map(|(_, event)| entered(&event.what)).collect();
        let results: HashMap<Uid, Ending> = history.results.iter().copied().collect();
        let whats = || history.events.iter().map(|(_, event)| &event.what);
        let listed = history.listings.iter().filter_map(|listing| listing.answer.as_ref().ok()).flatten();
        let listed = listed.filter(|(_, view)| view.queued > 0).map(|_| "queued in a list");
        let superseded = |ending: &&Ending| **ending == Ending::Cancelled(CancelReason::Superseded);
        let superseded = results.values().filter(superseded).map(|_| "superseded");
        let not_run = whats().filter_map(|what| not_run(what, &ran, &results));
        let clients = history.followed.iter().filter_map(client);
        for kind in whats().filter_map(kind).chain(clients).chain(listed).chain(superseded).chain(not_run) {
            *self.0.entry(kind).or_default() += 1;
        }
    }

    /// The kinds of answers that no run has given.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        KINDS.into_iter().filter(|kind| !self.0.contains_key(kind)).collect()
    }
}

/// The answer of a turn that may queue, if no agent has run it.
fn not_run(what: &What, ran: &HashSet<Uid>, results: &HashMap<Uid, Ending>) -> Option<&'static str> {
    // Of a call that waits, a refusal by a faulted session looks like the answer of a queued turn.
    let What::Turn { uid, when_busy, answer: Ok(Begun { ended: false, .. }), .. } = what else { return None };
    if *when_busy == WhenBusy::Refuse || ran.contains(uid) {
        return None;
    }
    Some(match results.get(uid)? {
        Ending::Panicked => "queued turn answered as faulted",
        Ending::NotBuilt => "queued turn answered as not built",
        _ => "queued turn answered as cancelled",
    })
}

fn client(client: &Followed) -> Option<&'static str> {
    let has_messages = client.events.iter().any(|(_, said)| said.is_some());
    match (client.shown.is_empty(), has_messages) {
        _ if client.dropped > 0 => Some("client without all events"),
        (false, true) => Some("client with messages from a history and from events"),
        (false, false) => Some("client with the whole history"),
        (true, _) => None,
    }
}

fn entered(what: &What) -> Option<Uid> {
    match what {
        What::Enter { uid, .. } => Some(*uid),
        _ => None,
    }
}

fn kind(what: &What) -> Option<&'static str> {
    Some(match what {
        What::Turn { answer: Ok(_), when_busy: WhenBusy::Queue, .. } => "accepted with Queue",
        What::Turn { answer: Ok(_), when_busy: WhenBusy::Interrupt, .. } => "accepted with Interrupt",
        What::Turn { answer: Err(Refused::QueueFull(_)), .. } => "queue full",
        What::NoResult { .. } => "no result yet",
        What::Read(Ok(view)) if view.queued > 0 => "queued in a read",
        What::WaitIdle(Ok(())) => "wait_idle: idle",
        What::WaitIdle(Err(Refused::NotFound)) => "wait_idle: closed",
        What::WaitIdle(Err(Refused::Faulted)) => "wait_idle: faulted",
        What::WaitIdle(Err(Refused::TimedOut)) => "wait_idle: timed out",
        _ => return None,
    })
}
