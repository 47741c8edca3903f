//! Contains panics of foreign code: of agents, hooks, stores, and the host's logger. Owns the macro through which the
//! library logs.
//!
//! A panic may leave the user's own values inconsistent; that is for the user to judge. No value of this crate is
//! inconsistent while foreign code runs, so the assertion of unwind safety holds.
//!
//! **Invariants.** The library logs through [`record!`] only, and never while it holds a lock. No record contains text
//! of a user: no prompt, no answer, no panic message, no `Display` of a foreign error.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::sync::Arc;

/// The message of a panic.
pub(crate) type PanicMessage = Arc<str>;

/// Runs user code. Returns the message of a panic as the error.
pub(crate) fn contain<T>(user_code: impl FnOnce() -> T) -> Result<T, PanicMessage> {
    catch_unwind(AssertUnwindSafe(user_code)).map_err(message_of)
}

/// Runs user code that cannot report an error. Logs that it panicked; the panic hook has its message.
pub(crate) fn contain_and_log(what: &str, user_code: impl FnOnce()) {
    if contain(user_code).is_err() {
        record!(Error, "turnwise::session", "{what} panicked");
    }
}

/// Logs a record: `record!(Debug, "turnwise::session", "session {id}: built")`. A panic of the logger costs this record
/// only.
macro_rules! record {
    ($level:ident, $target:literal, $($message:tt)+) => {
        if log::Level::$level <= log::STATIC_MAX_LEVEL && log::Level::$level <= log::max_level() {
            let _ = $crate::panics::contain(|| log::log!(target: $target, log::Level::$level, $($message)+));
        }
    };
}
pub(crate) use record;

/// A user's value whose drop may panic. The panic is contained, and logged as that of `what`.
pub(crate) struct Contained<T> {
    what: &'static str,
    /// `Some` until the drop.
    value: Option<T>,
}

impl<T> Contained<T> {
    pub(crate) fn new(what: &'static str, value: T) -> Self {
        Self { what, value: Some(value) }
    }

    /// The value, for a caller that contains its drop itself.
    pub(crate) fn into_inner(mut self) -> T {
        match self.value.take() {
            Some(value) => value,
            #[allow(clippy::unreachable)] // Only this and the drop take the value, and each consumes `self`.
            None => unreachable!("the value is taken once"),
        }
    }
}

impl<T> Deref for Contained<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.value {
            Some(value) => value,
            #[allow(clippy::unreachable)] // Taking the value consumes `self`, so no dereference follows.
            None => unreachable!("the value is taken at the end only"),
        }
    }
}

impl<T> Drop for Contained<T> {
    fn drop(&mut self) {
        let value = self.value.take();
        contain_and_log(self.what, move || drop(value));
    }
}

impl<T> fmt::Debug for Contained<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contained").field("what", &self.what).finish_non_exhaustive()
    }
}

fn message_of(payload: Box<dyn Any + Send>) -> PanicMessage {
    let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => Arc::from(*text),
        (_, Some(text)) => Arc::from(text.as_str()),
        _ => Arc::from("a panic without a message"),
    };
    // A payload is a user's value, and its drop may panic again. The payload of that second panic is leaked.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            std::panic::panic_any(PanicsOnDrop);
        }
    }

    #[test]
    fn every_kind_of_payload_is_contained() {
        assert_eq!(contain(|| 7), Ok(7));
        assert_eq!(contain(|| panic!("static")), Err::<(), _>("static".into()));
        assert_eq!(contain(|| panic!("made {}", 1)), Err::<(), _>("made 1".into()));
        let odd = contain(|| std::panic::panic_any(PanicsOnDrop));
        assert_eq!(odd, Err::<(), _>("a panic without a message".into()));
    }
}
