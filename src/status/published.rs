//! What reads are answered from, so that they never wait for a turn.

use crate::model::SessionSnapshot;
use crate::sync::RwLock;

use super::figures::Figures;
use super::shelf::Place;

/// The latest snapshot of one session; its figures once more on the shelf, for lists.
#[derive(Debug)]
pub(crate) struct Published {
    place: Place,
    snapshot: RwLock<SessionSnapshot>,
}

impl Published {
    /// `place` shows the figures of `snapshot` already.
    pub(crate) fn new(place: Place, snapshot: SessionSnapshot) -> Self {
        Self { place, snapshot: RwLock::new(snapshot) }
    }

    pub(crate) fn publish(&self, snapshot: SessionSnapshot) {
        let last = {
            let mut shown = self.snapshot.write();
            self.place.figures.set(Figures::of(&snapshot));
            std::mem::replace(&mut *shown, snapshot)
        };
        // Possibly a long text's last owner: freed with no lock held.
        drop(last);
    }

    /// What is taken of it: a copy of some of it, nothing that waits.
    pub(crate) fn take<T>(&self, take: impl FnOnce(&SessionSnapshot) -> T) -> T {
        take(&self.snapshot.read())
    }
}
