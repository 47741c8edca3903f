//! Primitives under shuttle: threads are coroutines, and at every operation here its scheduler says who goes on.
//!
//! Atomics are sequentially consistent whatever ordering is asked for; see `loom` for the orderings. Time stands still but for
//! timeouts: while a thread waits with a deadline, the scheduler may let the deadline come at any moment, and the clock
//! jumps there. A deadline more than an hour away is one that the model does not want to see come: it never does, so that
//! a wait which nobody ends is found as a deadlock.

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
pub(crate) use shuttle::hint::spin_loop;
pub(crate) use shuttle::sync::atomic::{fence, AtomicBool, AtomicU64, AtomicU8, AtomicUsize, Ordering};
pub(crate) use shuttle::thread::{current, yield_now, Builder, JoinHandle, ThreadId};
pub(crate) use shuttle::thread_local;
pub(crate) use std::sync::{Arc, Weak};

use shuttle::rand::Rng;
use std::time::Duration;

/// There always is, in a model.
pub(crate) fn room_for_a_thread() -> std::io::Result<()> {
    Ok(())
}

/// What `channel` and `locks` are made of.
mod raw {
    pub(super) use shuttle::sync::atomic::AtomicBool;
    pub(super) use shuttle::sync::{
        Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard as ReadGuard, RwLockWriteGuard as WriteGuard,
    };
    pub(super) use shuttle::thread::{current, park, Thread};

    use shuttle::rand::{thread_rng, Rng};

    /// Any number below `count`, as the scheduler likes.
    pub(super) fn choose(count: usize) -> usize {
        thread_rng().gen_range(0..count)
    }
}

/// Whether threads poll a little before they park. Where a scheduler takes its turns anyway that is but a longer way to the
/// same.
pub(crate) const POLLS: bool = false;

/// Between what the limit of wake-ups in flight moves: the smallest limits, since models are small.
pub(crate) const WAKEUPS_IN_FLIGHT: [isize; 2] = [1, 2];

/// A value that a whole execution shares: the next one begins with a new one.
macro_rules! process_wide {
    ($(#[$doc:meta])* static $name:ident: $kind:ty = $value:expr;) => {
        shuttle::lazy_static! {
            $(#[$doc])*
            static ref $name: $kind = $value;
        }
    };
}
pub(crate) use process_wide;

/// A moment of the model's clock: the time since the beginning of the execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Instant(Duration);

shuttle::lazy_static! {
    /// The model's clock. A real lock: no scheduling point, time is not something to race for.
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

/// How often a waiting thread lets others go on before its deadline comes.
struct Patience(u32);

impl Patience {
    fn new() -> Self {
        // From at once to as good as never, so that all of what a deadline can cut short is cut short.
        Self([0, 1, 8, 64, 512][shuttle::rand::thread_rng().gen_range(0..5)])
    }

    /// Whether a thread that waits for this moment can do so by asking again and again.
    fn is_worth_waiting_for(due: Instant) -> bool {
        const HOUR: Duration = Duration::from_secs(3_600);
        due.0.saturating_sub(Instant::now().0) < HOUR
    }

    /// Lets others go on, or has `due` come.
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
