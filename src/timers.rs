//! The one thread that cancels turns whose time is up.
//!
//! It starts with the first deadline and ends when the watch is stopped. Hooks are user code: before it runs those of one
//! turn, the thread hands the watch over to a fresh one, with the hooks of other turns that are due as well. So a hook that
//! blocks delays nobody else's.
//!
//! **Invariant.** At most one thread has the watch; it is the one in [`State::watcher`]. A thread that has handed over
//! only finishes its hooks.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::time::Duration;

use crate::cancel::{CancelToken, DueHooks};
use crate::error::CancelReason;
use crate::exiting_threads::{set_on_exit, ExitingThreads, TrackedThread};
use crate::sync::{current, room_for_a_thread, select, Arc, Builder, Instant, Mutex};
use crate::time::clock::{Alarm, Clock, Deadline, Entry};
use crate::wait::latch::Latch;
use crate::wait::signal::Signal;

/// When which token is due. Dropping it stops the watch; it waits for nobody.
pub(crate) struct TurnTimers {
    watch: Arc<Watch>,
}

struct Watch {
    clock: Clock,
    thread_name: String,
    state: Mutex<State>,
    /// Sent when a new deadline is the earliest, and when the watch is to end.
    changed: Signal,
}

#[derive(Default)]
struct State {
    /// By time; the number tells deadlines of the same instant apart.
    due: BTreeMap<(Instant, u64), Due>,
    next_number: u64,
    /// Hooks of turns that are cancelled already, each turn's for a thread of its own.
    hooks: VecDeque<DueHooks>,
    watcher: Option<TrackedThread<()>>,
    /// Threads that have handed over.
    retired: ExitingThreads<()>,
    stopped: bool,
}

/// A turn whose time will be up. Dropped once its token is set, or the deadline is taken back.
struct Due {
    token: CancelToken,
    _entry: Entry,
}

/// One deadline, until [`take_back`](Self::take_back) or a drop takes it back.
#[must_use = "dropping it takes the deadline back"]
pub(crate) struct TimerGuard {
    /// `None` once the deadline is taken back.
    watch: Option<Arc<Watch>>,
    key: (Instant, u64),
}

impl TurnTimers {
    pub(crate) fn new(thread_name: String, clock: Clock) -> Self {
        let state = Mutex::new(State::default());
        Self { watch: Arc::new(Watch { clock, thread_name, state, changed: Signal::new() }) }
    }

    /// Makes sure that somebody watches. The one step of setting a deadline that can fail comes first.
    pub(crate) fn start(&self) -> io::Result<()> {
        let mut state = self.watch.state.lock();
        if state.watcher.is_none() && !state.stopped {
            state.watcher = Some(self.watch.spawn_watcher()?);
        }
        Ok(())
    }

    /// Cancels `token` when `timeout` has passed; never where that is past the end of time.
    pub(crate) fn arm(&self, timeout: Duration, token: &CancelToken) -> Option<TimerGuard> {
        let deadline = self.watch.clock.deadline(timeout);
        let at = deadline.at()?;
        let due = Due { token: token.clone(), _entry: deadline.duty() };
        let (key, is_first) = {
            let mut state = self.watch.state.lock();
            let key = (at, state.next_number);
            state.next_number += 1;
            state.due.insert(key, due);
            (key, state.due.keys().next() == Some(&key))
        };
        if is_first {
            self.watch.changed.notify();
        }
        Some(TimerGuard { watch: Some(Arc::clone(&self.watch)), key })
    }

    /// How many threads watch, or have watched and not ended yet.
    pub(crate) fn threads(&self) -> usize {
        self.watch.join_exited();
        let state = self.watch.state.lock();
        usize::from(state.watcher.is_some()) + state.retired.count()
    }

    /// Ends the watch, and waits until `deadline` for its threads to end, but not for the calling one.
    ///
    /// Only once no turn runs any more: deadlines that are still out never fire.
    pub(crate) fn stop(&self, deadline: &Deadline) {
        self.watch.stop();
        let own = current().id();
        let leaving: Vec<Arc<Latch>> = {
            let state = self.watch.state.lock();
            let others = state.retired.iter().chain(&state.watcher).filter(|other| other.id() != own);
            others.map(|other| Arc::clone(&other.exited)).collect()
        };
        for exited in leaving {
            // Disconnected or not in time: the latch knows.
            let _ = deadline.receive(exited.receiver());
        }
        self.watch.join_exited();
        let joining = self.watch.state.lock().retired.joining();
        joining.wait(deadline);
    }
}

impl Drop for TurnTimers {
    fn drop(&mut self) {
        self.watch.stop();
    }
}

impl Watch {
    fn spawn_watcher(self: &Arc<Self>) -> io::Result<TrackedThread<()>> {
        room_for_a_thread()?;
        let (watch, exited) = (Arc::clone(self), Arc::new(Latch::new()));
        let own_exited = Arc::clone(&exited);
        let handle = Builder::new().name(self.thread_name.clone()).spawn(move || {
            set_on_exit(own_exited);
            watch.keep();
        })?;
        Ok(TrackedThread { of: (), handle, exited })
    }

    /// The whole life of a watching thread.
    fn keep(self: &Arc<Self>) {
        let mut rung: Option<Alarm> = None;
        while let Some(step) = self.next_step() {
            // Only now is what it has rung for done.
            drop(rung.take());
            match step {
                Step::Run(hooks) => {
                    let handed_over = self.hand_over();
                    hooks.run();
                    if handed_over {
                        return;
                    }
                }
                Step::Wait(until) => {
                    let alarm = until.duty_alarm();
                    select! {
                        recv(self.changed.receiver()) -> _ => {}
                        recv(alarm.rings()) -> _ => {}
                    }
                    rung = Some(alarm);
                }
            }
        }
    }

    /// What to do next; `None` when the watch is over.
    fn next_step(&self) -> Option<Step> {
        loop {
            // Time that passes after this look is a matter of the alarm. A deadline that is inserted after it sends the signal.
            let now = self.clock.now();
            let (overdue, next) = {
                let mut state = self.state.lock();
                if let Some(hooks) = state.hooks.pop_front() {
                    return Some(Step::Run(hooks));
                }
                if state.stopped {
                    return None;
                }
                (state.take_overdue(now), state.due.keys().next().map(|(at, _)| *at))
            };
            let hooks = cancel_all(&overdue);
            if hooks.is_empty() {
                return Some(Step::Wait(self.clock.deadline_at(next)));
            }
            self.state.lock().hooks.extend(hooks);
        }
    }

    /// Whether another thread has the watch now. Where the system refuses one, this thread keeps it.
    fn hand_over(self: &Arc<Self>) -> bool {
        {
            let mut state = self.state.lock();
            if state.stopped {
                return true;
            }
            let Ok(successor) = self.spawn_watcher() else { return false };
            let retired = state.watcher.replace(successor);
            state.retired.add(retired);
        }
        self.join_exited();
        true
    }

    /// Joins the threads that have exited, without waiting for any. Those that have not stay for the next call.
    fn join_exited(&self) {
        let exited = {
            let mut state = self.state.lock();
            if state.stopped {
                let watcher = state.watcher.take();
                state.retired.add(watcher);
            }
            state.retired.take_exited()
        };
        if let Some(exited) = exited {
            exited.join();
        }
    }

    fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify();
    }
}

enum Step {
    Run(DueHooks),
    Wait(Deadline),
}

impl State {
    fn take_overdue(&mut self, now: Instant) -> Vec<Due> {
        let mut overdue = Vec::new();
        while let Some(entry) = self.due.first_entry() {
            if entry.key().0 > now {
                break;
            }
            overdue.push(entry.remove());
        }
        overdue
    }
}

/// Cancels them all, and returns the hooks of those that have any.
fn cancel_all(overdue: &[Due]) -> Vec<DueHooks> {
    let due = overdue.iter().filter_map(|due| due.token.cancel(CancelReason::DeadlineExceeded));
    due.filter(|hooks| !hooks.are_none()).collect()
}

impl TimerGuard {
    /// Takes the deadline back: the watch does not cancel the token any more.
    pub(crate) fn take_back(mut self) {
        self.take_back_once();
    }

    fn take_back_once(&mut self) {
        let Some(watch) = self.watch.take() else { return };
        let taken_back = watch.state.lock().due.remove(&self.key);
        drop(taken_back);
    }
}

impl Drop for TimerGuard {
    fn drop(&mut self) {
        self.take_back_once();
    }
}

impl fmt::Debug for TurnTimers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnTimers").field("due", &self.watch.state.lock().due.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for TimerGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerGuard").finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "testkit"))]
mod tests {
    use super::*;
    use crate::time::manual::ManualClock;

    #[test]
    fn a_clock_has_not_settled_while_nobody_has_come_to_cancel_what_is_due() {
        let clock = ManualClock::new();
        let deadlines = TurnTimers::new("deadlines".to_owned(), Clock::Manual(clock.clone()));
        let (due, taken_back) = (CancelToken::new(), CancelToken::new());
        let _guard = deadlines.arm(Duration::from_secs(1), &due);
        deadlines.arm(Duration::from_secs(1), &taken_back).unwrap().take_back();
        clock.advance(Duration::from_secs(1));
        // Nobody watches yet.
        let settle = || clock.settle_within(Duration::from_millis(5));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(settle)).is_err());
        deadlines.start().unwrap();
        clock.settle();
        assert_eq!(due.reason(), Some(CancelReason::DeadlineExceeded));
        assert!(!taken_back.is_cancelled());
        deadlines.stop(&Clock::System.deadline(Duration::from_secs(60)));
    }
}
