//! The numbers of a session's turns and events: each is given out once, over all lives of the session.
//!
//! A session in memory has one life, and counts from 1. A kept session has many: the process ends, and another resumes it. Its record
//! therefore holds upper bounds, and no number beyond them is given out before the record has new ones:
//!
//! ```text
//! record: 256 reserved     turn 256 runs     record: 512 reserved     turn 257 is admitted
//!                                                          ↑ a process that dies before this has given out no 257
//! ```
//!
//! A life that ends in order writes the exact numbers, so that the next life goes on without a gap. After a kill the next life begins
//! behind the reserved block: numbers jump, and never come again.
//!
//! **Invariant.** A number that a caller or a subscriber sees is at most the bound in the record, if there is a record.

use std::fmt;

use crate::error::SessionError;
use crate::panics::{contain_and_log, record};
#[cfg(feature = "store")]
use crate::sync::Weak;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};

/// The last turn number and the last event number of a session; 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastNumbers {
    pub(crate) turn: u64,
    pub(crate) event: u64,
}

/// The record of a kept session, as far as numbers go. Calls may wait for the disk.
pub(crate) trait NumberRecord: Send + Sync {
    /// Reserves a block of numbers behind each of `used` that has reached its bound. Returns the bounds.
    fn reserve(&self, used: LastNumbers) -> Result<LastNumbers, SessionError>;

    /// The session's life is over, and these are the last numbers that it gave out.
    fn finish(&self, used: LastNumbers);
}

/// Where a life of a session begins to count.
#[derive(Clone, Default)]
pub(crate) struct Numbering {
    /// No number up to these is given out again.
    pub(crate) after: LastNumbers,
    /// How many events the lives before are known to have had. Less than `after` says where the last of them did not end in order.
    pub(crate) known_events: u64,
    /// `None` for a session in memory.
    pub(crate) record: Option<Arc<dyn NumberRecord>>,
}

/// The bounds of one life, for the threads that give out numbers.
pub(crate) struct Numbers {
    last_turn: AtomicU64,
    last_event: AtomicU64,
    /// `None` for a session in memory, and once the life is over.
    record: Mutex<Option<Arc<dyn NumberRecord>>>,
}

impl Numbers {
    pub(crate) fn new(numbering: Numbering) -> Arc<Self> {
        let Numbering { after, record, .. } = numbering;
        // Of a kept session nothing is reserved yet.
        let bounds = if record.is_some() { after } else { LastNumbers { turn: u64::MAX, event: u64::MAX } };
        Arc::new(Self {
            last_turn: AtomicU64::new(bounds.turn),
            last_event: AtomicU64::new(bounds.event),
            record: Mutex::new(record),
        })
    }

    /// The last turn that may be admitted.
    #[inline]
    pub(crate) fn last_turn(&self) -> u64 {
        // ORDERING: Relaxed, here and for events. A thread that sees an old bound reserves once more, which changes nothing.
        self.last_turn.load(Ordering::Relaxed)
    }

    /// The last event that may be numbered.
    #[inline]
    pub(crate) fn last_event(&self) -> u64 {
        self.last_event.load(Ordering::Relaxed)
    }

    /// Reserves the first blocks of this life, before a caller has one of its numbers. May wait for the disk.
    pub(crate) fn open(&self) -> Result<(), SessionError> {
        self.reserve(LastNumbers { turn: self.last_turn(), event: self.last_event() })
    }

    /// Reserves the next block of each kind of number whose bound is reached. May wait for the disk: no lock is held meanwhile.
    pub(crate) fn reserve(&self, used: LastNumbers) -> Result<(), SessionError> {
        let Some(record) = self.record.lock().clone() else {
            // The life is over; the numbers of what still happens are seen by no subscriber.
            self.raise(LastNumbers { turn: u64::MAX, event: u64::MAX });
            return Ok(());
        };
        self.raise(record.reserve(used)?);
        Ok(())
    }

    /// As [`reserve`](Self::reserve), for an emitter, which cannot fail. Where the record cannot be written, the events go on without: the
    /// next life repeats their numbers only if the process dies before any later save succeeds.
    pub(crate) fn reserve_events(&self, used: u64) {
        /// How many events go on before the record is tried again.
        const UNRESERVED: u64 = 4_096;
        if let Err(error) = self.reserve(LastNumbers { turn: 0, event: used }) {
            record!(Warn, "turnwise::store", "event numbers could not be reserved: {}", error.code());
            contain_and_log("the drop of a store's error", move || drop(error));
            self.raise(LastNumbers { turn: 0, event: used.saturating_add(UNRESERVED) });
        }
    }

    /// Whether the numbers are reserved in this record, and the life is not over.
    #[cfg(feature = "store")]
    pub(crate) fn are_in(&self, record: &Weak<dyn NumberRecord>) -> bool {
        let own = self.record.lock();
        own.as_ref().is_some_and(|own| Arc::as_ptr(own).cast::<()>() == record.as_ptr().cast::<()>())
    }

    /// Ends the life. Later calls change nothing.
    pub(crate) fn finish(&self, used: LastNumbers) {
        let record = self.record.lock().take();
        if let Some(record) = record {
            record.finish(used);
        }
    }

    fn raise(&self, bounds: LastNumbers) {
        self.last_turn.fetch_max(bounds.turn, Ordering::Relaxed);
        self.last_event.fetch_max(bounds.event, Ordering::Relaxed);
    }
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (last_turn, last_event) = (self.last_turn(), self.last_event());
        f.debug_struct("Numbers")
            .field("last_turn", &last_turn)
            .field("last_event", &last_event)
            .finish_non_exhaustive()
    }
}
