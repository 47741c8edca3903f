//! Records the states of turns: queued, admitted, ended.

use std::fmt;
use std::time::Duration;

use crate::model::TurnId;
use crate::sync::yield_now;
use crate::testkit::PATIENCE;
use crate::time::clock::Clock;
use crate::turn::handle::TurnHandle;

/// Shows which turns are queued, admitted or ended, and compares that with what a test expects.
///
/// A queued turn emits no event, so a [`Recorder`](super::Recorder) of events does not show it. This recorder keeps the
/// handles of turns. It has one line for each, in the order in which they were added:
///
/// | Line | The turn |
/// |---|---|
/// | `2 queued` | waits for the turns before it |
/// | `1 admitted` | has the right to run: it waits for a running permit, runs, or is in host mode |
/// | `1 completed(hello)` | has ended with this answer |
/// | `3 failed(cancelled: interrupted)` | has ended with this error of the agent or the session; a withdrawn turn is one of these |
///
/// An expectation is such a line, or such a line without the text: `3 failed`.
///
/// ```
/// use turnwise::testkit::{scripted, Gate, Script, TurnRecorder};
/// use turnwise::{EphemeralSessionService, SessionService, SessionSpec, StartTurnRequest, WhenBusy};
///
/// let gate = Gate::new();
/// let service = EphemeralSessionService::new(scripted().on("hold", Script::new().wait_at(&gate)), 1);
/// let id = service.open_session(SessionSpec::new())?;
/// let mut turns = TurnRecorder::new();
/// for prompt in ["hold", "one", "two"] {
///     turns.add(service.begin_turn(id, StartTurnRequest::new(prompt).when_busy(WhenBusy::Queue))?);
/// }
/// gate.wait_arrived(1);
/// turns.assert_states(&["1 admitted", "2 queued", "3 queued"]);
/// service.interrupt_turn(id, turns.handles()[1].turn_id())?; // withdraws it
/// turns.assert_states(&["1 admitted", "2 failed(cancelled: interrupted)", "3 queued"]);
/// gate.open();
/// turns.wait_for_states(&["1 completed(hold)", "2 failed", "3 completed(two)"]);
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Default)]
pub struct TurnRecorder {
    turns: Vec<TurnHandle>,
}

impl TurnRecorder {
    /// Makes a recorder without turns.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a turn, and returns its id.
    pub fn add(&mut self, turn: TurnHandle) -> TurnId {
        let id = turn.turn_id();
        self.turns.push(turn);
        id
    }

    /// The handles of the turns, in the order in which they were added.
    pub fn handles(&self) -> &[TurnHandle] {
        &self.turns
    }

    /// One line for each turn. Each state is read on its own, so the turns that the test does not hold may be a step
    /// further by now.
    pub fn states(&mut self) -> Vec<String> {
        self.turns.iter_mut().map(state).collect()
    }

    /// Asserts that the turns are in these states now.
    ///
    /// # Panics
    /// If they are not, with both lists side by side.
    #[track_caller]
    pub fn assert_states(&mut self, expected: &[&str]) {
        let states = self.states();
        assert!(
            match_states(expected, &states),
            "the turns differ from what was expected:\n{}",
            table(expected, &states)
        );
    }

    /// Waits until the turns are in these states.
    ///
    /// # Panics
    /// If they are not within [`PATIENCE`], with both lists side by side.
    ///
    /// # Blocking
    /// Until the turns are in these states, at most for [`PATIENCE`], in real time.
    #[track_caller]
    pub fn wait_for_states(&mut self, expected: &[&str]) {
        self.wait_within(PATIENCE, expected);
    }

    #[track_caller]
    fn wait_within(&mut self, patience: Duration, expected: &[&str]) {
        let waited = Clock::System.stopwatch();
        loop {
            let states = self.states();
            if match_states(expected, &states) {
                return;
            }
            assert!(
                waited.elapsed() < patience,
                "the turns are not in the expected states in time:\n{}",
                table(expected, &states)
            );
            yield_now();
        }
    }
}

fn state(turn: &mut TurnHandle) -> String {
    let id = turn.turn_id();
    // First the queue: a turn does not come back to it.
    let was_queued = turn.is_queued();
    match turn.try_wait() {
        Some(Ok(result)) => format!("{id} completed({})", result.text),
        Some(Err(error)) => match error.agent_error() {
            Some(of_agent) => format!("{id} failed({of_agent})"),
            None => format!("{id} failed({error})"),
        },
        None if was_queued => format!("{id} queued"),
        None => format!("{id} admitted"),
    }
}

fn match_states(expected: &[&str], states: &[String]) -> bool {
    let matches = |expected: &str, state: &str| state == expected || state.split('(').next() == Some(expected);
    expected.len() == states.len() && expected.iter().zip(states).all(|(expected, state)| matches(expected, state))
}

fn table(expected: &[&str], states: &[String]) -> String {
    let rows = expected.len().max(states.len());
    let width = expected.iter().map(|text| text.chars().count()).max().unwrap_or(0).max("expected".len());
    let row = |left: &str, right: &str| format!("    {left:width$}   {right}\n");
    let rows = (0..rows).map(|at| {
        let left = expected.get(at).copied().unwrap_or("(nothing)");
        row(left, states.get(at).map_or("(nothing)", String::as_str))
    });
    std::iter::once(row("expected", "found")).chain(rows).collect()
}

impl fmt::Debug for TurnRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnRecorder").field("turns", &self.turns.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_matches_with_its_text_or_without() {
        let states = ["1 completed(a)".to_owned(), "2 queued".to_owned()];
        assert!(match_states(&["1 completed", "2 queued"], &states));
        assert!(match_states(&["1 completed(a)", "2 queued"], &states));
        for wrong in [&["1 completed(b)", "2 queued"][..], &["1 comp", "2 queued"], &["1 completed"], &[]] {
            assert!(!match_states(wrong, &states), "{wrong:?}");
        }
        assert_eq!(
            table(&["1 queued"], &states),
            "    expected   found\n    1 queued   1 completed(a)\n    (nothing)   2 queued\n"
        );
    }

    #[test]
    #[should_panic(expected = "not in the expected states in time")]
    fn the_wait_for_states_times_out() {
        TurnRecorder::new().wait_within(Duration::from_millis(1), &["1 queued"]);
    }
}
