//! What every exported function does first and last: it refuses forked children, catches panics, and turns a failure
//! into a code and a message.

use std::any::Any;
use std::mem::offset_of;
use std::panic::{catch_unwind, AssertUnwindSafe};

use super::structs::{self, TurnwiseError};
use super::{contexts, text};
use crate::codes::{cancel_reason_number, Failure, TURNWISE_FORKED, TURNWISE_OK, TURNWISE_PANIC};
use crate::host::callback;
use crate::host::fork;
use crate::host::wait::Wait;

/// Runs the body of an exported function. The result is its code.
///
/// # Safety
/// `error` is null, or a struct that the host may read and write.
pub(super) unsafe fn call(error: *mut TurnwiseError, body: impl FnOnce() -> Result<i32, Failure>) -> i32 {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        fork::check()?;
        if !error.is_null() {
            // SAFETY: the caller's promise.
            unsafe { structs::check(error, "the error") }?;
        }
        body()
    }));
    let failure = match outcome {
        Ok(Ok(code)) => return code,
        Ok(Err(failure)) => failure,
        Err(payload) => panicked(payload),
    };
    let code = failure.code;
    // In a forked child another thread may have held the lock of the texts. A struct that is not valid is not written.
    if !error.is_null() && code != TURNWISE_FORKED {
        // SAFETY: the caller's promise.
        let report = catch_unwind(AssertUnwindSafe(|| unsafe { report(error, failure) }));
        if report.is_err() {
            return TURNWISE_PANIC;
        }
    }
    code
}

/// As [`call`], for bodies without a code of their own.
///
/// # Safety
/// As for [`call`].
pub(super) unsafe fn run(error: *mut TurnwiseError, body: impl FnOnce() -> Result<(), Failure>) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { call(error, || body().map(|()| TURNWISE_OK)) }
}

/// # Safety
/// As for [`call`].
unsafe fn report(error: *mut TurnwiseError, failure: Failure) {
    // SAFETY: the caller's promise. `check` comes before `has_room` and `write`.
    unsafe {
        if structs::check(error, "the error").is_err() {
            return;
        }
        let has_message = structs::has_room(error, offset_of!(TurnwiseError, message_len) + size_of::<usize>());
        let message_len = if has_message { failure.message.len() } else { 0 };
        let value = TurnwiseError {
            size: 0,
            code: failure.code,
            cancel_reason: cancel_reason_number(failure.cancel_reason),
            is_retryable: i32::from(failure.is_retryable),
            reserved: 0,
            message: if has_message { text::give(failure.message) } else { std::ptr::null_mut() },
            message_len,
        };
        structs::write(error, &value);
    }
}

fn panicked(payload: Box<dyn Any + Send>) -> Failure {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown".into());
    // The drop of a payload may panic again.
    let _ = catch_unwind(AssertUnwindSafe(move || drop(payload)));
    Failure::new(TURNWISE_PANIC, format!("a defect of the library: {text}"))
}

/// The failure of an argument that the call takes, and that is not there.
pub(super) fn missing(what: &str) -> Failure {
    Failure::new(crate::codes::TURNWISE_INVALID_ARGUMENT, format!("{what} is null"))
}

/// Checks a pointer for a result.
pub(super) fn require<T>(pointer: *mut T, what: &str) -> Result<(), Failure> {
    if pointer.is_null() {
        Err(missing(what))
    } else {
        Ok(())
    }
}

/// Runs a wait of `timeout_ms` milliseconds. In a callback the wait ends with the callback's own turn; in a cancel hook it
/// is refused, unless it does not wait.
pub(super) fn waiting<T>(timeout_ms: i64, body: impl FnOnce(Wait<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
    if timeout_ms != 0 {
        callback::refuse_in_hook()?;
    }
    if !callback::is_inside() {
        return body(Wait::new(timeout_ms));
    }
    let mut check = || Ok(contexts::check_current()?);
    body(Wait::new(timeout_ms).checked(&mut check))
}
