//! Which threads run a callback of the host: the code of an agent, or a hook that a cancellation runs.
//!
//! A wait of such a thread goes through the library, which ends it when the thread's own turn is cancelled and refuses a
//! cycle of waits. A shutdown or a join is refused there, because it would wait for its own thread.

use std::cell::Cell;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Marks the thread as one inside of a callback, until the drop.
#[must_use]
#[derive(Debug)]
pub struct InCallback(());

/// Marks the thread as one inside of a callback. Callbacks nest.
pub fn enter() -> InCallback {
    DEPTH.with(|depth| depth.set(depth.get() + 1));
    InCallback(())
}

/// Whether the thread runs a callback.
pub fn is_inside() -> bool {
    // During the thread's exit the value is gone: no callback runs then.
    DEPTH.try_with(|depth| depth.get() > 0).unwrap_or(false)
}

impl Drop for InCallback {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get() - 1));
    }
}
