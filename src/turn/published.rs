//! The value that reads are answered from, so that they never wait for a turn.

use crate::model::SessionSnapshot;
use crate::sync::RwLock;

/// The latest snapshot of one session.
#[derive(Debug)]
pub(crate) struct Published {
    snapshot: RwLock<SessionSnapshot>,
}

impl Published {
    pub(crate) fn new(snapshot: SessionSnapshot) -> Self {
        Self { snapshot: RwLock::new(snapshot) }
    }

    pub(crate) fn publish(&self, snapshot: SessionSnapshot) {
        let last = std::mem::replace(&mut *self.snapshot.write(), snapshot);
        // Possibly a long text's last owner: freed with no lock held.
        drop(last);
    }

    /// A copy that shares its text.
    pub(crate) fn get(&self) -> SessionSnapshot {
        self.snapshot.read().clone()
    }
}
