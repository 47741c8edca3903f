//! Threads, atomics, locks and channels: the one file that names where they come from.
//!
//! Everything else in the crate imports its primitives from here, so that the whole library can be compiled against
//! model-checked ones. `tests/layers.rs` keeps it that way.

pub(crate) use crossbeam_channel::{
    at, bounded, never, select, unbounded, Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError,
};
pub(crate) use parking_lot::{Condvar, Mutex, RwLock};
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, OnceLock, Weak};
pub(crate) use std::thread::{current, Builder, JoinHandle, ThreadId};
pub(crate) use std::thread_local;
pub(crate) use std::time::Instant;

/// A number that no other call in this process returns.
pub(crate) fn unique_number() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    // ORDERING: Relaxed; only the uniqueness of the number matters, nothing is published with it.
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// A channel that becomes ready at `deadline`, or never.
pub(crate) fn at_or_never(deadline: Option<Instant>) -> Receiver<Instant> {
    deadline.map_or_else(never, at)
}
