//! The state and figures of all sessions of a service, side by side in memory, in the order of creation.
//!
//! A list of ten thousand sessions reads the state and figures of each. In the sessions' own allocations they would be
//! in ten thousand places, and the processor would wait for memory most of the time. In a slab each is where the
//! processor prefetches.

use std::ops::Deref;

use crate::model::{SessionSnapshot, TurnId};
use crate::sync::{Arc, Mutex, OnceLock};

use super::gate::{Gate, GateState};
use super::published::{Figures, FiguresCell};
use super::queue_length::QueueLength;

/// The data of a session that a list reads, at any time and without a lock.
#[derive(Debug)]
pub(crate) struct StatusCell {
    pub(crate) gate: Gate,
    pub(crate) queue_length: QueueLength,
    pub(crate) figures: FiguresCell,
}

/// A share of one session's [`StatusCell`].
#[derive(Clone, Debug)]
pub(crate) struct Status {
    chunk: Arc<Chunk>,
    slot: usize,
}

/// The slab of a service's status cells.
///
/// A slot is used once. A chunk is freed with the last session in it, and until then keeps the slots of sessions that
/// have ended. That is at most two kilobytes for a live session, which itself takes ten times as much. So nothing
/// larger, such as labels, is stored here.
#[derive(Debug, Default)]
pub(crate) struct StatusSlab {
    last: Mutex<Option<(Arc<Chunk>, usize)>>,
}

const SLOTS: usize = 16;

#[derive(Debug)]
struct Chunk([Slot; SLOTS]);

/// A cell with cache lines of its own, so that sessions that run at the same time do not slow each other down. Two
/// lines, since processors fetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Slot(OnceLock<StatusCell>);

impl StatusCell {
    /// The cell of a session that is being built; see [`Gate::building`].
    fn building(turns: u64, first: Option<TurnId>, snapshot: &SessionSnapshot) -> Self {
        let figures = FiguresCell::new(Figures::of(snapshot));
        Self { gate: Gate::building(turns, first), queue_length: QueueLength::default(), figures }
    }

    /// The state, the number of queued turns and the figures of one instant, without a lock; `None` if they change
    /// during the read.
    #[inline]
    pub(crate) fn try_read(&self) -> Option<(GateState, usize, Figures)> {
        let queue = self.queue_length.state();
        let queued = queue.stable()?;
        let gate = self.gate.state();
        let figures = self.figures.get()?;
        let is_one_instant = self.gate.state() == gate && self.queue_length.state() == queue;
        is_one_instant.then_some((gate, queued, figures))
    }
}

impl StatusSlab {
    /// Makes the status of a session that is being built; see [`Gate::building`].
    pub(crate) fn building(&self, turns: u64, first: Option<TurnId>, snapshot: &SessionSnapshot) -> Status {
        let status = {
            let mut last = self.last.lock();
            let (chunk, slot) = match last.take() {
                Some((chunk, slot)) if slot + 1 < SLOTS => (chunk, slot + 1),
                _ => (Arc::new(Chunk(std::array::from_fn(|_| Slot(OnceLock::new())))), 0),
            };
            *last = Some((Arc::clone(&chunk), slot));
            Status { chunk, slot }
        };
        status.chunk.0[status.slot].0.get_or_init(|| StatusCell::building(turns, first, snapshot));
        status
    }
}

impl Deref for Status {
    type Target = StatusCell;

    #[inline]
    #[allow(clippy::expect_used)] // The slot is filled before its status is returned.
    fn deref(&self) -> &StatusCell {
        self.chunk.0[self.slot].0.get().expect("a filled slot")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Session;

    #[test]
    fn each_session_has_a_slot_and_a_chunk_is_freed_with_its_last_session() {
        let (slab, snapshot) = (StatusSlab::default(), SessionSnapshot::from(&Session::new()));
        let status = |turns| slab.building(0, Some(TurnId::new(turns)), &snapshot);
        let all: Vec<_> = (0..5 * SLOTS as u64).map(status).collect();
        for (number, status) in (0..).zip(&all) {
            status.gate.end_build();
            assert_eq!(status.gate.state().turns(), number);
        }
        let chunks: Vec<_> = all.iter().map(|status| Arc::downgrade(&status.chunk)).collect();
        let kept = all[SLOTS + 3].clone();
        drop(all);
        let is_there: Vec<_> = chunks.iter().map(|chunk| chunk.upgrade().is_some()).collect();
        // The chunk of the status that is kept, and the last chunk, which has the next free slot.
        let expected = [false, true, false, false, true];
        assert_eq!(is_there, expected.map(|is_there| [is_there; SLOTS]).concat());
        assert_eq!(kept.gate.state().turns(), SLOTS as u64 + 3);
    }
}
