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

    /// What is taken of it: a copy of some of it, nothing that waits.
    pub(crate) fn take<T>(&self, take: impl FnOnce(&SessionSnapshot) -> T) -> T {
        take(&self.snapshot.read())
    }
}
