//! What the host can know of a plugin from outside: how much of it has been made and not yet dropped, and which of the
//! program's threads are its own.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// Counts what has been made, and what is left of it.
#[derive(Default)]
pub(crate) struct Tally {
    made: AtomicUsize,
    left: AtomicUsize,
}

/// Something that is counted for as long as it lives.
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

/// As `1 of 3`.
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

/// Everything of a plugin whose drop is the plugin's own code.
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

/// How many threads run code whose names begin like this. `None` where the system does not tell.
///
/// A thread that has been joined may be in the system's list for another moment, but runs no code any more. Linux marks it
/// in its flags before it wakes who joins it, so that there is nothing to wait for here.
pub(crate) fn threads(prefix: &str) -> Option<usize> {
    const EXITING: u64 = 0x4; // PF_EXITING
    if !cfg!(target_os = "linux") {
        return None;
    }
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    // One that is gone between the two looks is gone.
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
