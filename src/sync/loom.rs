//! Primitives under loom: every interleaving, and every value that a load may return under the orderings in the code.
//!
//! Loom can explore only few threads and few operations. So a model here covers one or two parts of the crate, and
//! waits without deadlines.

#[path = "arms.rs"]
mod arms;
#[path = "channel.rs"]
mod channel;
#[path = "locks.rs"]
mod locks;

pub(crate) use self::arms::{select, Select};
pub(crate) use self::channel::{at, bounded, never, unbounded};
pub(crate) use self::channel::{Receiver, Sender};
pub(crate) use self::locks::{Condvar, Mutex, OnceLock, RwLock};
pub(crate) use crossbeam_channel::{RecvTimeoutError, TryRecvError, TrySendError};
pub(crate) use loom::hint::spin_loop;
pub(crate) use loom::sync::atomic::{fence, AtomicBool, AtomicU64, AtomicU8, AtomicUsize, Ordering};
pub(crate) use loom::thread::{current, yield_now, Builder, JoinHandle, ThreadId};
pub(crate) use std::sync::{Arc, Weak};
pub(crate) use std::time::Instant;

/// Always `Ok`: a model has room for every thread.
pub(crate) fn room_for_a_thread() -> std::io::Result<()> {
    Ok(())
}

/// The primitives of `channel` and `locks`.
mod raw {
    pub(super) use loom::sync::atomic::AtomicBool;
    pub(super) use loom::sync::{
        Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard as ReadGuard, RwLockWriteGuard as WriteGuard,
    };
    pub(super) use loom::thread::{current, park, Thread};

    /// The first arm: loom explores schedules, and the schedule decides which arm of a `select!` is ready.
    pub(super) fn choose(_count: usize) -> usize {
        0
    }
}

/// `std::thread_local!` for a value that is known at compile time: loom's own macro has no syntax for that.
macro_rules! thread_local_const {
    ($(#[$doc:meta])* static $name:ident: $kind:ty = const { $value:expr };) => {
        loom::thread_local! {
            $(#[$doc])*
            static $name: $kind = $value;
        }
    };
}
pub(crate) use thread_local_const as thread_local;

/// Whether threads poll before they park. Under a scheduler polling only makes the schedules longer.
pub(crate) const POLLS: bool = false;

/// The limit of wake-ups in flight: the smallest, and always the same, since loom does not model the time by which it moves.
pub(crate) const WAKEUPS_IN_FLIGHT: [isize; 2] = [1, 1];

/// A value that a whole execution shares. The next execution starts with a new one.
macro_rules! process_wide {
    ($(#[$doc:meta])* static $name:ident: $kind:ty = $value:expr;) => {
        loom::lazy_static! {
            $(#[$doc])*
            static ref $name: $kind = $value;
        }
    };
}
pub(crate) use process_wide;

/// Time is not modelled: a wait with a deadline ends only by an event before it.
struct TimedWait;

impl TimedWait {
    fn new() -> Self {
        Self
    }

    fn can_poll_until(_due: Instant) -> bool {
        false
    }

    fn wait_for(&mut self, _due: Instant) {}
}
