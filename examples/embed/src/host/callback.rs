//! Which threads run a callback of the host: the code of an agent, or a hook that a cancellation runs.
//!
//! A wait of such a thread goes through the library, which ends it when the thread's own turn is cancelled and refuses a
//! cycle of waits. A shutdown or a join is refused there, because it would wait for its own thread.

use std::cell::Cell;

use crate::codes::{Failure, TURNWISE_REENTRANT};

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// How many of them are hooks.
    static HOOKS: Cell<u32> = const { Cell::new(0) };
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

/// Marks the thread as one inside of a cancel hook, until the drop. A hook is a callback that must not wait.
#[must_use]
#[derive(Debug)]
pub struct InHook(InCallback);

/// Marks the thread as one inside of a cancel hook.
pub fn enter_hook() -> InHook {
    HOOKS.with(|hooks| hooks.set(hooks.get() + 1));
    InHook(enter())
}

impl Drop for InHook {
    fn drop(&mut self) {
        HOOKS.with(|hooks| hooks.set(hooks.get() - 1));
    }
}

/// Refuses a wait in a cancel hook: the turn waits for the end of its hook, so the hook may wait for itself.
pub fn refuse_in_hook() -> Result<(), Failure> {
    // During the thread's exit no hook runs.
    if HOOKS.try_with(|hooks| hooks.get() > 0).unwrap_or(false) {
        Err(Failure::new(TURNWISE_REENTRANT, "a cancel hook must not wait: its turn waits for the hook"))
    } else {
        Ok(())
    }
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
