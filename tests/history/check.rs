//! Runs all checks of a history.

use std::collections::HashMap;

use crate::global::{check_counts, check_order, check_results};
use crate::history::{Event, History};
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
    let listed = history.listed();
    for (key, name) in history.names.iter().enumerate() {
        let own = |(other, event): &(usize, Event)| (*other == key).then_some(*event);
        let events: Vec<Event> = history.events.iter().chain(&listed).filter_map(own).collect();
        let facts = Facts { results: results.clone(), ..Facts::default() };
        match explain(events, facts) {
            Verdict::Explained => {}
            Verdict::Impossible(why) => checked.wrongs.push(format!("{name} cannot be explained:\n{why}")),
            Verdict::Undecided => checked.undecided += 1,
        }
    }
    checked.wrongs.extend(check_counts(history));
    checked.wrongs.extend(check_order(history));
    checked.wrongs.extend(check_results(history));
    checked
}
