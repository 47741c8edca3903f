//! The number of queued turns of a session, for readers that take no lock.

use crate::sync::{AtomicU64, Ordering};

/// In the word: one change. An odd number of them means that a change is in progress.
const CHANGE: u64 = 1 << 32;

/// The number of queued turns, with a count of changes above it.
///
/// Queue and gate change together, under the lock of the session's admissions, between
/// [`begin_change`](Self::begin_change) and [`end_change`](Self::end_change). A reader loads this word, then the gate,
/// then this word again. If both loads return the same [`stable`](QueueLengthState::stable) word, queue and gate belong
/// together.
#[derive(Debug, Default)]
pub(crate) struct QueueLength(AtomicU64);

/// The value of a [`QueueLength`] at some instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueLengthState(u64);

impl QueueLength {
    #[inline]
    pub(crate) fn state(&self) -> QueueLengthState {
        QueueLengthState(self.0.load(Ordering::SeqCst))
    }

    /// Marks the queue and the gate as changing.
    pub(crate) fn begin_change(&self) {
        self.0.fetch_add(CHANGE, Ordering::SeqCst);
    }

    /// Ends the change with the new length of the queue.
    pub(crate) fn end_change(&self, length: usize) {
        let changes = (self.0.load(Ordering::SeqCst) / CHANGE).wrapping_add(1);
        // A queue has at most 2^24 turns.
        self.0.store(changes.wrapping_mul(CHANGE) | (length as u64 & (CHANGE - 1)), Ordering::SeqCst);
    }
}

impl QueueLengthState {
    /// The number of queued turns; `None` while it changes.
    #[inline]
    pub(crate) fn stable(self) -> Option<usize> {
        (self.0 & CHANGE == 0).then_some((self.0 & (CHANGE - 1)) as usize)
    }
}
