//! The numbers of a session's turns and events. Each is given out once, over all lives of the session.
//!
//! A life of a session lasts from its start in a process to its end there. A session in memory has one life, and counts
//! from 1. A kept session has many: the process ends, and another one resumes the session. So its record holds upper
//! bounds. No number beyond a bound is given out before the record holds a new one:
//!
//! ```text
//! record: 256 reserved     turn 256 runs     record: 512 reserved     turn 257 is admitted
//!                                                          ↑ a process that dies before this has given out no 257
//! ```
//!
//! A life that ends in order writes the exact numbers, so the next life continues without a gap. After a kill the next
//! life begins behind the reserved block: numbers jump, and are never repeated.
//!
//! **Invariant.** A number that a caller or a subscriber sees is at most the bound in the record, if there is a record.
//! [`reserve_events`](Numbers::reserve_events) states the one exception.

use std::fmt;

use crate::error::SessionError;
use crate::model::Session;
use crate::panics::{contain_and_log, record};
#[cfg(feature = "store")]
use crate::sync::Weak;
use crate::sync::{Arc, AtomicU64, Mutex, OnceLock, Ordering};

/// The last turn number and the last event number of a session; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastNumbers {
    pub(crate) turn: u64,
    pub(crate) event: u64,
}

/// The numbers in the record of a kept session. Calls may wait for the disk.
pub(crate) trait NumberRecord: Send + Sync {
    /// Reserves a block of numbers behind each number of `used` that has reached its bound. Returns the bounds.
    fn reserve(&self, used: LastNumbers) -> Result<LastNumbers, SessionError>;

    /// Saves what the record lacks of this history, so that the life may end.
    fn catch_up(&self, history: Session) -> Result<(), SessionError>;

    /// Records the last numbers of a life that has ended.
    fn finish(&self, used: LastNumbers);
}

/// Where a life of a session starts to count.
#[derive(Clone, Default)]
pub(crate) struct Numbering {
    /// Numbers up to these are not given out again.
    pub(crate) after: LastNumbers,
    /// The number of events that earlier lives are known to have had. Less than `after` if the last of them did not end
    /// in order.
    pub(crate) known_events: u64,
    /// `None` for a session in memory.
    pub(crate) record: Option<Arc<dyn NumberRecord>>,
    /// `None` for a session in memory.
    pub(crate) loss: Option<Arc<Loss>>,
}

/// Set once another writer has changed the record of a kept session: the session is out of date, and ends unsaved. The
/// writer that finds out sets it, and the session thread reads it.
pub(crate) struct Loss(OnceLock<SessionError>);

impl Default for Loss {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

/// The bounds of one life, for the threads that give out numbers.
pub(crate) struct Numbers {
    last_turn: AtomicU64,
    last_event: AtomicU64,
    /// `None` for a session in memory, and after the life's end.
    record: Mutex<Option<Arc<dyn NumberRecord>>>,
    loss: Option<Arc<Loss>>,
}

impl Loss {
    pub(crate) fn get(&self) -> Option<&SessionError> {
        self.0.get()
    }

    /// Sets the error of the turns that the loss ends. The first one stays.
    #[cfg(feature = "store")]
    pub(crate) fn set(&self, error: SessionError) {
        self.0.get_or_init(|| error);
    }
}

impl Numbers {
    pub(crate) fn new(numbering: Numbering) -> Arc<Self> {
        let Numbering { after, record, loss, .. } = numbering;
        // A new life of a kept session has reserved nothing yet.
        let bounds = if record.is_some() { after } else { LastNumbers { turn: u64::MAX, event: u64::MAX } };
        Arc::new(Self {
            last_turn: AtomicU64::new(bounds.turn),
            last_event: AtomicU64::new(bounds.event),
            record: Mutex::new(record),
            loss,
        })
    }

    /// The error with which the session ends, if another writer has changed its record.
    #[inline]
    pub(crate) fn loss(&self) -> Option<&SessionError> {
        self.loss.as_ref().and_then(|loss| loss.get())
    }

    /// The last turn number that may be admitted.
    #[inline]
    pub(crate) fn last_turn(&self) -> u64 {
        // ORDERING: Relaxed, here and for events. A thread that reads an old bound reserves once more, which changes
        // nothing.
        self.last_turn.load(Ordering::Relaxed)
    }

    /// The last event number that may be given out.
    #[inline]
    pub(crate) fn last_event(&self) -> u64 {
        self.last_event.load(Ordering::Relaxed)
    }

    /// Reserves the first blocks of this life, before a caller gets one of its numbers. May wait for the disk.
    pub(crate) fn open(&self) -> Result<(), SessionError> {
        self.reserve(LastNumbers { turn: self.last_turn(), event: self.last_event() })
    }

    /// Reserves the next block of each kind of number whose bound is reached. May wait for the disk, with no lock held.
    pub(crate) fn reserve(&self, used: LastNumbers) -> Result<(), SessionError> {
        let Some(record) = self.record.lock().clone() else {
            // The life has ended: no subscriber sees the numbers of later events.
            self.raise(LastNumbers { turn: u64::MAX, event: u64::MAX });
            return Ok(());
        };
        self.raise(record.reserve(used)?);
        Ok(())
    }

    /// As [`reserve`](Self::reserve), for an emitter, which cannot fail. If the record cannot be written, events
    /// continue without a reservation. The next life repeats their numbers only if the process dies before a later save
    /// succeeds.
    pub(crate) fn reserve_events(&self, used: u64) {
        /// The number of events before the next attempt to write the record.
        const UNRESERVED: u64 = 4_096;
        if let Err(error) = self.reserve(LastNumbers { turn: 0, event: used }) {
            record!(Warn, "turnwise::store", "event numbers could not be reserved: {}", error.code());
            contain_and_log("the drop of a store's error", move || drop(error));
            self.raise(LastNumbers { turn: 0, event: used.saturating_add(UNRESERVED) });
        }
    }

    /// Saves what the record lacks of this history, so that the life may end. Does nothing without a record.
    pub(crate) fn catch_up(&self, history: Session) -> Result<(), SessionError> {
        let record = self.record.lock().clone();
        record.map_or(Ok(()), |record| record.catch_up(history))
    }

    /// Whether the numbers are reserved in this record, and the life has not ended.
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
