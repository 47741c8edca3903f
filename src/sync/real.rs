//! The primitives of programs.

#![allow(unreachable_pub)] // What `testkit::sync` hands on is public, and without that feature unreachable.

#[path = "room.rs"]
mod room;

pub(crate) use self::room::room_for_a_thread;

pub(crate) use crossbeam_channel::{
    at, bounded, never, select, unbounded, Receiver, RecvTimeoutError, Select, Sender, TryRecvError, TrySendError,
};
pub use parking_lot::Mutex;
pub(crate) use parking_lot::{Condvar, RwLock};
pub(crate) use std::sync::atomic::{fence, AtomicU8};
pub use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, OnceLock, Weak};
pub use std::thread::JoinHandle;
pub(crate) use std::thread::{current, Builder, ThreadId};
pub(crate) use std::thread_local;
pub(crate) use std::time::Instant;

pub(crate) use std::hint::spin_loop;
pub use std::thread::yield_now;

/// Whether threads poll before they park.
pub(crate) const POLLS: bool = true;

/// Between what the limit of wake-ups in flight moves; see `wait::wakeups`.
pub(crate) const WAKEUPS_IN_FLIGHT: [isize; 2] = [8, 64];

/// A value that the whole process shares.
macro_rules! process_wide {
    ($(#[$doc:meta])* static $name:ident: $kind:ty = $value:expr;) => {
        $(#[$doc])*
        static $name: $kind = $value;
    };
}
pub(crate) use process_wide;
