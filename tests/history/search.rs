//! The search for an order of single steps that explains a history: the algorithm of Wing and Gong, with Lowe's memory
//! of visited points.
//!
//! All steps of a call lie between its beginning and its return. So before the first of the open calls returns, only
//! calls that have begun by then may take a step. The search is as wide as there are threads.

use std::collections::HashSet;
use std::fmt::Write;

use crate::history::{Event, What};
use crate::model::{step, Facts, Stage, State};

/// The search gives up after this many points. It keeps them all, at some hundred bytes each.
const PATIENCE: usize = 100_000;

#[derive(Debug)]
pub(crate) enum Verdict {
    Explained,
    /// No order explains it.
    Impossible(String),
    /// The search gave up.
    Undecided,
}

/// A point of the search: the stage of each call, and the state that the steps so far lead to.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Point {
    stages: Vec<Stage>,
    state: State,
    /// All calls before this index are done.
    first: usize,
    done: usize,
}

/// Looks for an order that explains `events`, which are all about one id.
pub(crate) fn explain(mut events: Vec<Event>, mut facts: Facts) -> Verdict {
    events.sort_by_key(|event| (event.call, event.ret));
    facts.ran.extend(events.iter().filter_map(|event| match event.what {
        What::Enter { uid, .. } => Some(uid),
        _ => None,
    }));
    let start = Point { stages: vec![Stage::New; events.len()], state: State::default(), first: 0, done: 0 };
    let mut seen = HashSet::from([start.clone()]);
    let mut furthest = start.clone();
    let mut open = vec![start];
    while let Some(point) = open.pop() {
        if point.done == events.len() {
            return Verdict::Explained;
        }
        if seen.len() > PATIENCE {
            return Verdict::Undecided;
        }
        if point.done > furthest.done {
            furthest = point.clone();
        }
        // The point that is pushed last is tried first: that of the call with the earliest return. The steps of the
        // session thread itself are tried last.
        let mut next: Vec<Point> = point.alone(&facts).into_iter().collect();
        let mut calls = point.under_way(&events);
        calls.sort_by_key(|call| std::cmp::Reverse(events[*call].ret));
        next.extend(calls.into_iter().filter_map(|call| point.with(call, &events, &facts)));
        open.extend(next.into_iter().filter(|point| seen.insert(point.clone())));
    }
    Verdict::Impossible(furthest.report(&events, &facts))
}

impl Point {
    /// The calls that may take a step.
    fn under_way(&self, events: &[Event]) -> Vec<usize> {
        let rest = || (self.first..events.len()).filter(|call| self.stages[*call] != Stage::Done);
        // The calls are sorted by their beginnings. So no call behind the bound returns before it.
        let mut bound = u64::MAX;
        for call in rest() {
            if events[call].call > bound {
                break;
            }
            bound = bound.min(events[call].ret);
        }
        rest().take_while(|call| events[*call].call <= bound).collect()
    }

    fn with(&self, call: usize, events: &[Event], facts: &Facts) -> Option<Self> {
        let (state, stage) = step(&self.state, &events[call].what, self.stages[call], facts)?;
        let mut next = Self { state, ..self.clone() };
        next.stages[call] = stage;
        if stage == Stage::Done {
            next.done += 1;
            while next.stages.get(next.first) == Some(&Stage::Done) {
                next.first += 1;
            }
        }
        Some(next)
    }

    fn alone(&self, facts: &Facts) -> Option<Self> {
        let state = self.state.by_itself(facts)?;
        Some(Self { state, ..self.clone() })
    }

    /// The report of a history that no order explains.
    fn report(&self, events: &[Event], facts: &Facts) -> String {
        let mut text = String::from("  call   ret  who       what\n");
        for (event, stage) in events.iter().zip(&self.stages) {
            let mark = match stage {
                Stage::Done => ' ',
                Stage::New => '?',
                _ => '~',
            };
            let _ = writeln!(text, "{mark}{event}");
        }
        let _ = writeln!(
            text,
            "('?': not explained, '~': begun.) The best explanation gets to this state:\n{:#?}",
            self.state
        );
        for call in self.under_way(events) {
            let _ = writeln!(text, "where this is not allowed: {}", events[call]);
        }
        let told: Vec<_> =
            facts.results.iter().filter(|(uid, _)| self.state.turn.is_some_and(|turn| turn.uid == **uid)).collect();
        let _ = writeln!(text, "callers of the turn in that state were told: {told:?}");
        if let Some(started) = &facts.started {
            let _ = writeln!(text, "a subscriber has seen turns start in this order: {started:?}");
        }
        text
    }
}
