//! Measurements that fail. The other measurements continue, and the exit code of the process reports the failure.

use std::any::Any;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

static FAILURES: AtomicUsize = AtomicUsize::new(0);

/// Runs a measurement and returns its result. If it panics, prints the reason and returns `None`. Sessions and turns of
/// a failed measurement stay until the process ends.
pub(crate) fn attempt<T>(what: &str, measure: impl FnOnce() -> T) -> Option<T> {
    let failed = |panic: Box<dyn Any + Send>| {
        FAILURES.fetch_add(1, Ordering::SeqCst);
        println!("failed: {what}: {}", message(&*panic));
    };
    catch_unwind(AssertUnwindSafe(measure)).map_err(failed).ok()
}

/// Whether a measurement has failed so far. Prints the number of failures.
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
