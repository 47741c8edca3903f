//! What a service counts. One set for all its sessions.

use crate::sync::{AtomicU64, Ordering};

/// Counters that only ever rise.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sessions_created: Counter,
    pub(crate) turns_started: Counter,
    pub(crate) turns_completed: Counter,
    pub(crate) turns_failed: Counter,
    pub(crate) turns_cancelled: Counter,
    pub(crate) faults: Counter,
    pub(crate) events_dropped: Counter,
}

/// A number that rises.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add_one(&self) {
        // ORDERING: Release, with the acquire of `get`: who sees that a turn has ended sees that it was started.
        self.0.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn get(&self) -> u64 {
        // ORDERING: Acquire, see `add_one`.
        self.0.load(Ordering::Acquire)
    }
}
