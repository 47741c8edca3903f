//! Primitives under loom: every interleaving, and every value that a load may see under the orderings that are written down.
//!
//! Few threads and few operations are all that it can take: models here are about one or two of the crate's parts, and wait
//! without deadlines.

#[path = "arms.rs"]
mod arms;
#[path = "channel.rs"]
mod channel;
#[path = "locks.rs"]
mod locks;

pub(crate) use self::arms::select;
pub(crate) use self::channel::{at, bounded, never, unbounded};
pub(crate) use self::channel::{Receiver, Sender};
pub(crate) use self::locks::{Condvar, Mutex, OnceLock, RwLock};
pub(crate) use crossbeam_channel::{RecvTimeoutError, TryRecvError, TrySendError};
pub(crate) use loom::hint::spin_loop;
pub(crate) use loom::sync::atomic::{fence, AtomicBool, AtomicU64, AtomicU8, AtomicUsize, Ordering};
pub(crate) use loom::thread::{current, yield_now, Builder, JoinHandle, ThreadId};
pub(crate) use std::sync::{Arc, Weak};
pub(crate) use std::time::Instant;

/// There always is, in a model.
pub(crate) fn room_for_a_thread() -> std::io::Result<()> {
    Ok(())
}

/// What `channel` and `locks` are made of.
mod raw {
    pub(super) use loom::sync::atomic::AtomicBool;
    pub(super) use loom::sync::{
        Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard as ReadGuard, RwLockWriteGuard as WriteGuard,
    };
    pub(super) use loom::thread::{current, park, Thread};

    /// The first: what loom goes through is schedules, and which arm of a `select!` is ready is up to those.
    pub(super) fn choose(_count: usize) -> usize {
        0
    }
}

/// `std::thread_local!` for a value that is known at compile time: loom's own has no words for that.
macro_rules! thread_local_const {
    ($(#[$doc:meta])* static $name:ident: $kind:ty = const { $value:expr };) => {
        loom::thread_local! {
            $(#[$doc])*
            static $name: $kind = $value;
        }
    };
}
pub(crate) use thread_local_const as thread_local;

/// Whether threads poll a little before they park. Where a scheduler takes its turns anyway that is but a longer way to the
/// same.
pub(crate) const POLLS: bool = false;

/// The limit of wake-ups in flight: the smallest, and always the same, since loom does not model the time by which it moves.
pub(crate) const WAKEUPS_IN_FLIGHT: [isize; 2] = [1, 1];

/// A value that a whole execution shares: the next one begins with a new one.
macro_rules! process_wide {
    ($(#[$doc:meta])* static $name:ident: $kind:ty = $value:expr;) => {
        loom::lazy_static! {
            $(#[$doc])*
            static ref $name: $kind = $value;
        }
    };
}
pub(crate) use process_wide;

/// Time is not modelled: whoever waits with a deadline waits for what comes before it.
struct Patience;

impl Patience {
    fn new() -> Self {
        Self
    }

    fn is_worth_waiting_for(_due: Instant) -> bool {
        false
    }

    fn wait_for(&mut self, _due: Instant) {}
}
