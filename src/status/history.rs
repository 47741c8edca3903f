//! The committed history of a session: that from which a restart builds the agent again.
//!
//! A history is *committed* after the build, and after every turn and interaction that did not fault, failed ones
//! included. The agent's own history may be half-written during a turn, and stays so if the agent panics. The committed
//! one is always from the end of a turn.
//!
//! The session thread replaces the value, and any thread reads it without waiting for a turn. The value shares its
//! messages with the agent's history.

use crate::model::Session;
use crate::sync::Mutex;

/// The history at the last end of a turn or interaction without a fault, or at the end of the build.
#[derive(Debug)]
pub(crate) struct CommittedHistory(Mutex<Session>);

impl CommittedHistory {
    /// Begins with the history that the session resumes, or with an empty one.
    pub(crate) fn new(history: Session) -> Self {
        Self(Mutex::new(history))
    }

    pub(crate) fn commit(&self, history: Session) {
        let last = std::mem::replace(&mut *self.0.lock(), history);
        // It may hold the last share of the messages, so it is freed with no lock held.
        drop(last);
    }

    pub(crate) fn get(&self) -> Session {
        self.0.lock().clone()
    }
}
