//! The callers that wait until a session is idle.
//!
//! A caller puts an entry into the list and waits for its report. The end of a turn, the end of a build, a close and a
//! fault report to the entries. While no caller waits, the end of a turn costs one load here.
//!
//! # Why no report is lost
//!
//! The caller reads the gate again after its entry is in the list:
//!
//! ```text
//! the caller                                 the end of turn 1
//! reads the gate: turn 1 runs
//!                                            clears RUNNING
//!                                            no entries: reports to none
//! puts its entry into the list
//! reads the gate again: idle
//! ```
//!
//! Without the second read the caller would wait for a report that does not come. All of these accesses are
//! sequentially consistent: either the caller sees the cleared gate, or the end of the turn sees the entry.
//!
//! # Why no report is early
//!
//! The end of a turn reports after it has cleared the gate, so a caller may come in between:
//!
//! ```text
//! the end of turn 1             another caller       the caller
//! clears RUNNING
//!                               admits turn 2
//!                                                    reads the gate: turn 2 runs
//!                                                    puts its entry into the list
//! reports that turn 1 ended
//! ```
//!
//! The session was idle before this call, and not during it. So an entry has the number of the turn that its caller has
//! seen, and the end of an earlier turn does not report to it.
//!
//! **Invariants.** `has_entries` changes under the lock of the list, and says whether the list has entries. Reports are
//! sent with no lock held.

use crate::sync::{bounded, AtomicBool, Mutex, Ordering, Receiver, Sender};

/// The list of the callers that wait.
#[derive(Debug)]
pub(crate) struct IdleWaiters {
    has_entries: AtomicBool,
    entries: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    /// The last turn that was admitted when the caller found the session busy.
    seen: u64,
    report: Sender<IdleReport>,
}

/// The end of a wait for an idle session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdleReport {
    Idle,
    Closed,
    Faulted,
}

/// An entry of the list, removed when this is dropped.
#[must_use = "dropping it ends the wait"]
pub(crate) struct IdleWait<'a> {
    waiters: &'a IdleWaiters,
    own: Sender<IdleReport>,
    report: Receiver<IdleReport>,
}

impl IdleWaiters {
    pub(crate) fn new() -> Self {
        Self { has_entries: AtomicBool::new(false), entries: Mutex::new(Vec::new()) }
    }

    /// Enters the list. `seen` is the number of the last turn that was admitted, read before. The caller reads the gate
    /// again afterwards.
    pub(crate) fn enter(&self, seen: u64) -> IdleWait<'_> {
        let (own, report) = bounded(1);
        {
            let mut entries = self.entries.lock();
            entries.push(Entry { seen, report: own.clone() });
            self.has_entries.store(true, Ordering::SeqCst);
        }
        IdleWait { waiters: self, own, report }
    }

    /// Reports that the session is idle after the end of turn `ended`, or of a build. The gate shows it already.
    pub(crate) fn report_idle(&self, ended: u64) {
        if self.has_entries.load(Ordering::SeqCst) {
            self.report(IdleReport::Idle, |entry| entry.seen <= ended);
        }
    }

    /// Reports that the session is closed or faulted. The gate shows it already.
    pub(crate) fn report_end(&self, end: IdleReport) {
        if self.has_entries.load(Ordering::SeqCst) {
            self.report(end, |_| true);
        }
    }

    fn report(&self, report: IdleReport, is_concerned: impl Fn(&Entry) -> bool) {
        let concerned: Vec<Entry> = {
            let mut entries = self.entries.lock();
            let concerned = entries.extract_if(.., |entry| is_concerned(entry)).collect();
            self.has_entries.store(!entries.is_empty(), Ordering::SeqCst);
            concerned
        };
        for entry in concerned {
            // Each entry gets one report, and its channel has room for it. Disconnected: the caller waits no more.
            let _ = entry.report.try_send(report);
        }
    }
}

impl IdleWait<'_> {
    /// The channel that carries the report.
    pub(crate) fn report(&self) -> &Receiver<IdleReport> {
        &self.report
    }
}

impl Drop for IdleWait<'_> {
    fn drop(&mut self) {
        let own = {
            let mut entries = self.waiters.entries.lock();
            let position = entries.iter().position(|entry| entry.report.same_channel(&self.own));
            let own = position.map(|position| entries.remove(position));
            self.waiters.has_entries.store(!entries.is_empty(), Ordering::SeqCst);
            own
        };
        drop(own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c53_the_end_of_an_earlier_turn_reports_to_no_later_caller() {
        let waiters = IdleWaiters::new();
        let (first, second, gone) = (waiters.enter(1), waiters.enter(2), waiters.enter(1));
        drop(gone);
        waiters.report_idle(1);
        assert_eq!(first.report().try_recv(), Ok(IdleReport::Idle));
        assert!(second.report().try_recv().is_err());
        waiters.report_end(IdleReport::Closed);
        assert_eq!(second.report().try_recv(), Ok(IdleReport::Closed));
        assert!(waiters.entries.lock().is_empty() && !waiters.has_entries.load(Ordering::SeqCst));
    }
}
