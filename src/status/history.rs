//! The committed history of a session, and its boundary in the events.
//!
//! A history is *committed* after the build, and at the end of every turn and interaction that did not fault, failed
//! ones included. The agent's own history may be half-written during a turn, and stays so if the agent panics. The
//! committed one is always from the end of a turn or interaction.
//!
//! The *boundary* is the number of an event. Every event of a turn or interaction that the history holds has that number
//! or a lower one. Every event of a later turn or interaction has a higher one. So a reader that shows the history, and
//! then the events after the boundary, shows nothing twice and misses nothing.
//!
//! # One value, in one step
//!
//! History and boundary change together, under one lock. The terminal event of the turn is numbered in the same step:
//! the session thread commits under the lock of the [bus](crate::subscription::bus), after the event has its number and
//! before a subscriber or a receiver gets it. Each other order shows a pair that is wrong:
//!
//! ```text
//! the session thread                         a reader
//! commits turn 2, with the last number: 7
//!                                            history with turn 2, boundary 7
//! numbers RunCompleted of turn 2: 8
//!                                            shows turn 2, then the result of turn 2 again  ✗
//!
//! numbers RunCompleted of turn 2: 8; pushes it
//!                                            gets event 8: turn 2 has ended
//!                                            history without turn 2                         ✗
//! commits turn 2, with number 8
//! ```
//!
//! The agent exports its history earlier, right after its call. Until the commit it is *staged* here, since a value on the
//! stack of a session thread would cost memory in every session.
//!
//! An event that belongs to no turn may get a number at any time. It is on one side of each boundary.
//!
//! Any thread reads the pair without waiting for a turn. The history shares its messages with the agent's.

use crate::model::Session;
use crate::sync::Mutex;

/// The history at the last end of a turn or interaction without a fault, or at the end of the build; and its boundary.
#[derive(Debug)]
pub(crate) struct CommittedHistory(Mutex<Committed>);

#[derive(Debug)]
struct Committed {
    history: Session,
    boundary: u64,
    /// The agent's history after its call, which the next commit takes.
    staged: Option<Session>,
    /// The history lacks a turn, because the agent could not export its history after it.
    is_behind: bool,
}

/// What the end of a turn or interaction does to the committed history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    /// The staged history is committed, if there is one, and the boundary advances. Without one the agent was not called,
    /// or could not export its history. In that case history and boundary stay, until a later export succeeds.
    Advance,
    /// History and boundary stay: the agent has panicked.
    Stay,
}

/// A history that a commit has replaced. It may hold the last share of the messages, so it is dropped with no lock held.
#[must_use = "dropped after the locks that are held"]
#[derive(Debug)]
pub(crate) struct Replaced(#[allow(dead_code)] Option<Session>);

impl CommittedHistory {
    /// Begins with the history that the session resumes, or with an empty one, and the number of the last event of the
    /// session's earlier lives.
    pub(crate) fn new(history: Session, boundary: u64) -> Self {
        Self(Mutex::new(Committed { history, boundary, staged: None, is_behind: false }))
    }

    /// Replaces the history after a build. The boundary stays: no turn has ended, and events of the first turn may have
    /// been emitted already.
    pub(crate) fn replace(&self, history: Session) {
        let last = {
            let mut committed = self.0.lock();
            committed.is_behind = false;
            std::mem::replace(&mut committed.history, history)
        };
        drop(last);
    }

    /// Stages the agent's history after its call, for the next commit.
    pub(crate) fn stage(&self, history: Session) {
        let last = {
            let mut committed = self.0.lock();
            committed.is_behind = false;
            committed.staged.replace(history)
        };
        drop(last);
    }

    /// Records that the agent could not export its history after its call.
    pub(crate) fn note_behind(&self) {
        self.0.lock().is_behind = true;
    }

    /// Commits the end of a turn or interaction, whose last event has the number `boundary`.
    pub(crate) fn commit(&self, commit: Commit, boundary: u64) -> Replaced {
        if commit == Commit::Stay {
            return Replaced(None);
        }
        let mut committed = self.0.lock();
        if committed.is_behind {
            return Replaced(None);
        }
        committed.boundary = boundary;
        let staged = committed.staged.take();
        Replaced(staged.map(|staged| std::mem::replace(&mut committed.history, staged)))
    }

    pub(crate) fn get(&self) -> Session {
        self.0.lock().history.clone()
    }

    /// The history and its boundary, of one instant.
    pub(crate) fn get_with_boundary(&self) -> (Session, u64) {
        let committed = self.0.lock();
        (committed.history.clone(), committed.boundary)
    }
}
