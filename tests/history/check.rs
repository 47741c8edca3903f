//! Runs all checks of a history.

use std::collections::HashMap;

use crate::global::{check_counts, check_order, check_results};
use crate::heard;
use crate::history::{Event, History, Uid};
use crate::model::Facts;
use crate::search::{explain, Verdict};

/// The result of the checks.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) wrongs: Vec<String>,
    /// The number of sessions for which the search gave up.
    pub(crate) undecided: usize,
}

/// Checks a history: each id against the model, then the rules about several sessions.
pub(crate) fn check(history: &History) -> Checked {
    let mut checked = Checked::default();
    let results: HashMap<_, _> = history.results.iter().copied().collect();
    let received: HashMap<_, _> = history.received.iter().copied().collect();
    let listed = history.listed();
    for (key, name) in history.names.iter().enumerate() {
        let own = |(other, event): &(usize, Event)| (*other == key).then_some(*event);
        let events: Vec<Event> = history.events.iter().chain(&listed).filter_map(own).collect();
        let own = |(other, uid): &(usize, Uid)| (*other == key).then_some(*uid);
        let started = history.settings.subscribe_all.then(|| history.started.iter().filter_map(own).collect());
        let (results, received) = (results.clone(), received.clone());
        let turn_queue = history.settings.turn_queue;
        let facts = Facts { results, received, started, turn_queue, ..Facts::default() };
        match explain(events, facts) {
            Verdict::Explained => {}
            Verdict::Impossible(why) => checked.wrongs.push(format!("{name} cannot be explained:\n{why}")),
            Verdict::Undecided => checked.undecided += 1,
        }
    }
    checked.wrongs.extend(check_counts(history));
    checked.wrongs.extend(check_order(history));
    checked.wrongs.extend(check_results(history));
    let keeps_events = history.settings.keeps_events;
    checked.wrongs.extend(history.followed.iter().filter_map(|client| heard::followed(client, keeps_events).err()));
    checked
}
