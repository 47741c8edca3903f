//! Keeps panics of user code where they happened.
//!
//! Whatever a panic left half-done inside the user's own values is the user's to judge; nothing of this crate is ever
//! half-done while user code runs, which is why asserting unwind safety is right here.

use std::any::Any;
use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::sync::Arc;

/// What a panic said.
pub(crate) type PanicMessage = Arc<str>;

/// Runs user code; a panic becomes its message.
pub(crate) fn contain<T>(user_code: impl FnOnce() -> T) -> Result<T, PanicMessage> {
    catch_unwind(AssertUnwindSafe(user_code)).map_err(message_of)
}

/// Runs user code that has no way to report; a panic is logged, with its message left to the panic hook.
pub(crate) fn contain_and_log(what: &str, user_code: impl FnOnce()) {
    if contain(user_code).is_err() {
        log::error!(target: "turnwise::session", "{what} panicked");
    }
}

fn message_of(payload: Box<dyn Any + Send>) -> PanicMessage {
    let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => Arc::from(*text),
        (_, Some(text)) => Arc::from(text.as_str()),
        _ => Arc::from("a panic without a message"),
    };
    // A payload is a user's value: dropping it may panic again, and what that one carries is let go of for good.
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
