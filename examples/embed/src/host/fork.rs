//! The refusal of calls in a forked child.
//!
//! A child has the memory of its parent and only one of its threads. Locks may be held for ever, session threads are
//! missing, and the store's file would have two writers. So a child that is forked after the first call of the library
//! gets `FORKED` from every call. Before its first call a child is a process like any other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Once;

use crate::codes::{Failure, TURNWISE_FORKED};

static IS_CHILD: AtomicBool = AtomicBool::new(false);
static REGISTERED: Once = Once::new();

extern "C" fn mark_child() {
    // ORDERING: Relaxed; the child has one thread.
    IS_CHILD.store(true, Ordering::Relaxed);
}

/// Whether this process is a child that was forked after the first call.
pub fn is_child() -> bool {
    // ORDERING: Relaxed; only the fork sets it, in a process with one thread.
    IS_CHILD.load(Ordering::Relaxed)
}

/// Fails in a forked child.
pub fn check() -> Result<(), Failure> {
    if is_child() {
        return Err(Failure::new(TURNWISE_FORKED, "the library cannot be used in a forked child"));
    }
    REGISTERED.call_once(|| {
        // SAFETY: the handler is a function without arguments that writes one atomic, which is allowed in a forked child.
        // The shared library is linked with `-z nodelete`, so the function stays mapped.
        unsafe { libc::pthread_atfork(None, None, Some(mark_child)) };
    });
    Ok(())
}
