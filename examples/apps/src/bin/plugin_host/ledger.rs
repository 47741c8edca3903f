//! The host's view of a plugin from outside: the number of its values that are not dropped, and the number of its
//! threads.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// Counts the values that were made, and the values that are left.
#[derive(Default)]
pub(crate) struct Tally {
    made: AtomicUsize,
    left: AtomicUsize,
}

/// A guard that is counted until it is dropped.
pub(crate) struct Counted {
    tally: Arc<Tally>,
}

impl Tally {
    pub(crate) fn count(self: &Arc<Self>) -> Counted {
        self.made.fetch_add(1, Ordering::SeqCst);
        self.left.fetch_add(1, Ordering::SeqCst);
        Counted { tally: Arc::clone(self) }
    }

    pub(crate) fn left(&self) -> usize {
        self.left.load(Ordering::SeqCst)
    }
}

/// The counts in the form `1 of 3`.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.left(), self.made.load(Ordering::SeqCst))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.tally.left.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The counts of the values of a plugin whose drop runs the plugin's code.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    pub(crate) builders: Arc<Tally>,
    pub(crate) agents: Arc<Tally>,
    pub(crate) thread_locals: Arc<Tally>,
}

impl Ledger {
    pub(crate) fn is_settled(&self) -> bool {
        [&self.builders, &self.agents, &self.thread_locals].iter().all(|tally| tally.left() == 0)
    }
}

/// The number of threads with this prefix that run code. `None` if the system has no list of threads.
///
/// A joined thread may stay in the system's list for another moment, but it runs no code any more. Linux sets a flag of
/// the thread before it wakes the joining thread, so this function need not wait.
pub(crate) fn threads(prefix: &str) -> Option<usize> {
    const EXITING: u64 = 0x4; // PF_EXITING
    if !cfg!(target_os = "linux") {
        return None;
    }
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    // A thread may end between the listing and the read of its file. Then it is skipped.
    let tasks = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    let runs_code = |stat: &String| {
        // `tid (name) state ppid pgrp session tty tpgid flags ...`, and a name may contain anything.
        let (before, after) = stat.rsplit_once(") ")?;
        let (_, name) = before.split_once(" (")?;
        let flags: u64 = after.split(' ').nth(6)?.parse().ok()?;
        Some(name.starts_with(prefix) && flags & EXITING == 0)
    };
    Some(tasks.filter(|stat| runs_code(stat).unwrap_or(true)).count())
}
