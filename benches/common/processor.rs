//! The processor time of threads, on Linux.

use std::fs;
use std::time::Duration;

/// The time for which the threads of this process have run so far, except the calling one. `None` without a `/proc` that
/// has the figures.
///
/// The calling thread does not count: the reading of these figures takes longer than the threads that wait.
pub(crate) fn of_other_threads() -> Option<Duration> {
    let own = fs::read_link("/proc/thread-self").ok()?;
    let own = own.file_name()?;
    let mut all = Duration::ZERO;
    for thread in fs::read_dir("/proc/self/task").ok()?.flatten() {
        if thread.file_name() != own {
            // A thread that ends meanwhile has no figures any more.
            let Ok(figures) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            // The fields are the nanoseconds of running, the nanoseconds of waiting, and a count.
            all += Duration::from_nanos(figures.split_whitespace().next()?.parse().ok()?);
        }
    }
    Some(all)
}
