//! Primitives under shuttle: threads are coroutines, and at every operation here the scheduler chooses the next thread.
//!
//! Atomics are sequentially consistent, whatever ordering the code asks for; see `loom` for the orderings. Time stands
//! still except for timeouts. While a thread waits with a deadline, the scheduler may let the deadline come at any
//! moment, and the clock jumps to it. A deadline more than an hour away never comes. So a wait that nothing else ends
//! is found as a deadlock.

#![allow(unreachable_pub)] // What `testkit::sync` hands on is public, and without that feature unreachable.

#[path = "arms.rs"]
mod arms;
#[path = "channel.rs"]
mod channel;
#[path = "locks.rs"]
mod locks;
#[cfg(any(test, feature = "testkit"))]
#[path = "schedules.rs"]
pub(crate) mod schedules;

pub(crate) use self::arms::{select, Select};
pub use self::channel::{at, bounded, never, unbounded};
pub use self::channel::{Receiver, Sender};
pub use self::locks::Mutex;
pub(crate) use self::locks::{Condvar, OnceLock, RwLock};
pub(crate) use crossbeam_channel::{RecvTimeoutError, TryRecvError, TrySendError};
pub(crate) use shuttle::hint::spin_loop;
pub(crate) use shuttle::sync::atomic::{fence, AtomicU8};
pub use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(crate) use shuttle::thread::{current, Builder, ThreadId};
pub use shuttle::thread::{yield_now, JoinHandle};
pub(crate) use shuttle::thread_local;
pub(crate) use std::sync::{Arc, Weak};

/// What a host uses of crossbeam's channels, apart from `select!`.
pub mod channels {
    pub use super::{at, bounded, never, unbounded, Receiver, Sender};
    pub use crossbeam_channel::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
}

use shuttle::rand::Rng;
use std::time::Duration;

/// Always `Ok`: a model has room for every thread.
pub(crate) fn room_for_a_thread() -> std::io::Result<()> {
    Ok(())
}

/// The primitives of `channel` and `locks`.
mod raw {
    pub(super) use shuttle::sync::atomic::AtomicBool;
    pub(super) use shuttle::sync::{
        Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard as ReadGuard, RwLockWriteGuard as WriteGuard,
    };
    pub(super) use shuttle::thread::{current, park, Thread};

    use shuttle::rand::{thread_rng, Rng};

    /// A number below `count`, chosen by the scheduler.
    pub(super) fn choose(count: usize) -> usize {
        thread_rng().gen_range(0..count)
    }
}

/// Whether threads poll before they park. Under a scheduler polling only makes the schedules longer.
pub(crate) const POLLS: bool = false;

/// Between what the limit of wake-ups in flight moves: the smallest limits, since models are small.
pub(crate) const WAKEUPS_IN_FLIGHT: [isize; 2] = [1, 2];

/// A value that a whole execution shares. The next execution starts with a new one.
macro_rules! process_wide {
    ($(#[$doc:meta])* static $name:ident: $kind:ty = $value:expr;) => {
        shuttle::lazy_static! {
            $(#[$doc])*
            static ref $name: $kind = $value;
        }
    };
}
pub(crate) use process_wide;

/// An instant of the model's clock: the time since the start of the execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

shuttle::lazy_static! {
    /// The model's clock. It has a real lock, and so no scheduling point: no thread races for the time.
    static ref NOW: parking_lot::Mutex<Duration> = parking_lot::Mutex::new(Duration::ZERO);
}

impl Instant {
    pub(crate) fn now() -> Self {
        Self(*NOW.lock())
    }

    pub(crate) fn checked_add(self, duration: Duration) -> Option<Self> {
        self.0.checked_add(duration).map(Self)
    }

    pub(crate) fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl std::ops::Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

/// How often a waiting thread yields before its deadline comes.
struct TimedWait(u32);

impl TimedWait {
    fn new() -> Self {
        // From at once to almost never, so that a deadline cuts short every kind of wait.
        Self([0, 1, 8, 64, 512][shuttle::rand::thread_rng().gen_range(0..5)])
    }

    /// Whether a thread can wait for this instant by yielding again and again.
    fn can_poll_until(due: Instant) -> bool {
        const HOUR: Duration = Duration::from_secs(3_600);
        due.0.saturating_sub(Instant::now().0) < HOUR
    }

    /// Yields, or lets `due` come.
    fn wait_for(&mut self, due: Instant) {
        match self.0.checked_sub(1) {
            Some(less) => {
                self.0 = less;
                shuttle::thread::yield_now();
            }
            None => {
                let mut now = NOW.lock();
                *now = due.0.max(*now);
            }
        }
    }
}
