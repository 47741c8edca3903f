//! The thread that cancels turns at their deadlines, and tells sessions that an instant has come.
//!
//! It starts with the first deadline and ends when the timers are stopped. Hooks are user code. Before the timer thread
//! runs the hooks of one turn it hands the timers over to a new thread, together with the due hooks of other turns. So
//! a hook that blocks delays no other turn's hooks.
//!
//! **Invariant.** At most one thread serves the timers: the one in [`State::timer_thread`]. A thread that has handed
//! over only finishes its hooks.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::time::Duration;

use crate::cancel::{CancelToken, DueHooks};
use crate::error::CancelReason;
use crate::exiting_threads::{set_on_exit, ExitingThreads, TrackedThread};
use crate::sync::{current, room_for_a_thread, select, Arc, Builder, Instant, Mutex, Weak};
use crate::time::clock::{Alarm, Clock, Deadline, Entry};
use crate::wait::latch::Latch;
use crate::wait::signal::Signal;

/// The deadlines of turns and the alarms of sessions, and the thread that serves them. Dropping it stops that thread, and
/// waits for no thread.
pub(crate) struct TurnTimers {
    shared: Arc<Shared>,
}

/// Sets alarms. It does not keep the timers from being stopped: an alarm that is set afterwards never comes.
#[derive(Clone)]
pub(crate) struct Alarms {
    shared: Arc<Shared>,
}

/// The target of an alarm. Called on the timer thread, so it must be quick and run no user code.
pub(crate) trait OnAlarm: Send + Sync {
    fn on_alarm(&self);
}

struct Shared {
    clock: Clock,
    thread_name: String,
    state: Mutex<State>,
    /// Sent when a new deadline is the earliest, and when the timers are stopped.
    changed: Signal,
}

#[derive(Default)]
struct State {
    /// By time. The number distinguishes deadlines of the same instant.
    due: BTreeMap<(Instant, u64), Due>,
    next_number: u64,
    /// Hooks of turns that are already cancelled. Each turn's hooks get a thread of their own.
    hooks: VecDeque<DueHooks>,
    timer_thread: Option<TrackedThread<()>>,
    /// Threads that have handed the timers over.
    retired: ExitingThreads<()>,
    stopped: bool,
}

/// What is due at an instant. Dropped once it is done, or when it is disarmed.
struct Due {
    work: DueWork,
    _entry: Entry,
}

enum DueWork {
    /// Cancels a turn.
    Cancel(CancelToken),
    /// Tells a session.
    Alarm(Weak<dyn OnAlarm>),
}

/// One deadline or alarm, until [`disarm`](Self::disarm) or a drop removes it.
#[must_use = "dropping it disarms the deadline"]
pub(crate) struct TimerGuard {
    shared: Arc<Shared>,
    key: (Instant, u64),
}

impl TurnTimers {
    pub(crate) fn new(thread_name: String, clock: Clock) -> Self {
        let state = Mutex::new(State::default());
        Self { shared: Arc::new(Shared { clock, thread_name, state, changed: Signal::new() }) }
    }

    /// Starts the timer thread unless it runs. This is the only step of setting a deadline that can fail, so a caller
    /// takes it first.
    pub(crate) fn start(&self) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        if state.timer_thread.is_none() && !state.stopped {
            state.timer_thread = Some(self.shared.spawn_timer_thread()?);
        }
        Ok(())
    }

    /// Cancels `token` after `timeout`. Returns `None`, and never cancels, if the deadline is past the last
    /// representable instant.
    pub(crate) fn arm(&self, timeout: Duration, token: &CancelToken) -> Option<TimerGuard> {
        self.shared.insert(&self.shared.clock.deadline(timeout), DueWork::Cancel(token.clone()))
    }

    pub(crate) fn alarms(&self) -> Alarms {
        Alarms { shared: Arc::clone(&self.shared) }
    }

    /// The number of timer threads that are not joined, also after they have handed over.
    pub(crate) fn threads(&self) -> usize {
        self.shared.join_exited();
        let state = self.shared.state.lock();
        usize::from(state.timer_thread.is_some()) + state.retired.count()
    }

    /// Stops the timers, and waits until `deadline` for their threads to exit, except the calling one.
    ///
    /// Call it only when no turn runs: deadlines that are still pending never fire.
    pub(crate) fn stop(&self, deadline: &Deadline) {
        self.shared.stop();
        let own = current().id();
        let exiting: Vec<Arc<Latch>> = {
            let state = self.shared.state.lock();
            let others = state.retired.iter().chain(&state.timer_thread).filter(|other| other.id() != own);
            others.map(|other| Arc::clone(&other.exited)).collect()
        };
        for exited in exiting {
            // The result does not matter: the latch says whether the thread has exited.
            let _ = deadline.receive(exited.receiver());
        }
        self.shared.join_exited();
        let joining = self.shared.state.lock().retired.joining();
        joining.wait(deadline);
    }
}

impl Drop for TurnTimers {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Alarms {
    /// Tells `target` at `deadline`, if it still exists. The timer thread must run already. Returns `None`, and never
    /// tells it, if the deadline is never.
    pub(crate) fn set(&self, deadline: &Deadline, target: Weak<dyn OnAlarm>) -> Option<TimerGuard> {
        self.shared.insert(deadline, DueWork::Alarm(target))
    }
}

impl Shared {
    fn insert(self: &Arc<Self>, deadline: &Deadline, work: DueWork) -> Option<TimerGuard> {
        let at = deadline.at()?;
        let due = Due { work, _entry: deadline.work_entry() };
        let (key, is_first) = {
            let mut state = self.state.lock();
            let key = (at, state.next_number);
            state.next_number += 1;
            state.due.insert(key, due);
            (key, state.due.keys().next() == Some(&key))
        };
        if is_first {
            self.changed.notify();
        }
        Some(TimerGuard { shared: Arc::clone(self), key })
    }

    fn spawn_timer_thread(self: &Arc<Self>) -> io::Result<TrackedThread<()>> {
        room_for_a_thread()?;
        let (shared, exited) = (Arc::clone(self), Arc::new(Latch::new()));
        let own_exited = Arc::clone(&exited);
        let handle = Builder::new().name(self.thread_name.clone()).spawn(move || {
            set_on_exit(own_exited);
            shared.run();
        })?;
        Ok(TrackedThread { owner: (), handle, exited })
    }

    /// The main loop of a timer thread.
    fn run(self: &Arc<Self>) {
        let mut last_alarm: Option<Alarm> = None;
        while let Some(step) = self.next_step() {
            // The work of the last alarm is done only now.
            drop(last_alarm.take());
            match step {
                Step::Run(hooks) => {
                    let handed_over = self.hand_over();
                    hooks.run();
                    if handed_over {
                        return;
                    }
                }
                Step::Wait(until) => {
                    let alarm = until.work_alarm();
                    select! {
                        recv(self.changed.receiver()) -> _ => {}
                        recv(alarm.receiver()) -> _ => {}
                    }
                    last_alarm = Some(alarm);
                }
            }
        }
    }

    /// The next step; `None` once the timers are stopped.
    fn next_step(&self) -> Option<Step> {
        loop {
            // A deadline that passes after this read fires the alarm. A deadline inserted after it sends the signal.
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
            let hooks = do_all(&overdue);
            if hooks.is_empty() {
                return Some(Step::Wait(self.clock.deadline_at(next)));
            }
            self.state.lock().hooks.extend(hooks);
        }
    }

    /// Hands the timers over to a new thread. Returns `false` where the system refuses a thread; this thread then keeps
    /// them.
    fn hand_over(self: &Arc<Self>) -> bool {
        {
            let mut state = self.state.lock();
            if state.stopped {
                return true;
            }
            let Ok(successor) = self.spawn_timer_thread() else { return false };
            let retired = state.timer_thread.replace(successor);
            state.retired.add(retired);
        }
        self.join_exited();
        true
    }

    /// Joins the threads that have exited, without waiting. The next call joins later ones.
    fn join_exited(&self) {
        let exited = {
            let mut state = self.state.lock();
            if state.stopped {
                let timer_thread = state.timer_thread.take();
                state.retired.add(timer_thread);
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

/// Cancels the turns and tells the sessions that are due. Returns the hooks of each turn that has some.
fn do_all(overdue: &[Due]) -> Vec<DueHooks> {
    let due = overdue.iter().filter_map(|due| match &due.work {
        DueWork::Cancel(token) => token.cancel(CancelReason::DeadlineExceeded),
        DueWork::Alarm(target) => {
            if let Some(target) = target.upgrade() {
                target.on_alarm();
            }
            None
        }
    });
    due.filter(|hooks| !hooks.is_empty()).collect()
}

impl TimerGuard {
    /// The instant of the deadline.
    pub(crate) fn at(&self) -> Instant {
        self.key.0
    }

    /// Removes the deadline: the token is not cancelled by it any more.
    pub(crate) fn disarm(self) {
        // The drop removes it, on every other way out too.
        drop(self);
    }
}

impl Drop for TimerGuard {
    fn drop(&mut self) {
        let disarmed = self.shared.state.lock().due.remove(&self.key);
        drop(disarmed);
    }
}

impl fmt::Debug for TurnTimers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnTimers").field("due", &self.shared.state.lock().due.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Alarms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarms").finish_non_exhaustive()
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
    fn a_clock_has_not_settled_while_a_due_turn_is_not_cancelled() {
        let clock = ManualClock::new();
        let deadlines = TurnTimers::new("deadlines".to_owned(), Clock::Manual(clock.clone()));
        let (due, disarmed) = (CancelToken::new(), CancelToken::new());
        let _guard = deadlines.arm(Duration::from_secs(1), &due);
        deadlines.arm(Duration::from_secs(1), &disarmed).unwrap().disarm();
        clock.advance(Duration::from_secs(1));
        // No timer thread runs yet.
        let settle = || clock.settle_within(Duration::from_millis(5));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(settle)).is_err());
        deadlines.start().unwrap();
        clock.settle();
        assert_eq!(due.reason(), Some(CancelReason::DeadlineExceeded));
        assert!(!disarmed.is_cancelled());
        deadlines.stop(&Clock::System.deadline(Duration::from_secs(60)));
    }
}
