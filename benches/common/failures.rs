//! Measurements that fail. The others go on, and the process says so with its exit code.

use std::any::Any;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

static FAILURES: AtomicUsize = AtomicUsize::new(0);

/// What a measurement returns. Where it panics: `None`, and a line that says why. What it leaves behind by that, sessions and
/// turns, goes with the process.
pub(crate) fn attempt<T>(what: &str, measure: impl FnOnce() -> T) -> Option<T> {
    let failed = |panic: Box<dyn Any + Send>| {
        FAILURES.fetch_add(1, Ordering::SeqCst);
        println!("failed: {what}: {}", message(&*panic));
    };
    catch_unwind(AssertUnwindSafe(measure)).map_err(failed).ok()
}

/// Whether a measurement has failed so far; says how many have.
pub(crate) fn have_failed() -> bool {
    let count = FAILURES.load(Ordering::SeqCst);
    if count > 0 {
        println!("failed measurements: {count}");
    }
    count > 0
}

pub(crate) fn exit_code() -> ExitCode {
    ExitCode::from(u8::from(have_failed()))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}
