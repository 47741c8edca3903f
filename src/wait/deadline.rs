//! The one thread that cancels turns whose time is up.
//!
//! It starts with the first deadline and ends when the watch is stopped. Hooks are user code: before it runs any, the
//! thread hands the watch over to a fresh one, so that a hook that blocks delays no other deadline.
//!
//! **Invariant.** At most one thread has the watch; it is the one in [`State::watcher`]. A thread that has handed over
//! only finishes its hooks.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::error::CancelReason;
use crate::sync::{at_or_never, bounded, current, select, Arc, Builder, Instant, JoinHandle, Mutex, Receiver, Sender};
use crate::wait::cancel::{CancelToken, DueHooks};
use crate::wait::latch::Latch;

/// When which token is due. Dropping it stops the watch; it waits for nobody.
pub(crate) struct Deadlines {
    watch: Arc<Watch>,
}

struct Watch {
    thread_name: String,
    state: Mutex<State>,
    /// Rings when an earlier deadline than all others has come, or the watch is to end.
    bell: (Sender<()>, Receiver<()>),
}

#[derive(Default)]
struct State {
    /// By time; the number tells deadlines of the same instant apart.
    due: BTreeMap<(Instant, u64), CancelToken>,
    next_number: u64,
    watcher: Option<Watcher>,
    /// Threads that have handed over.
    retired: Vec<Watcher>,
    stopped: bool,
}

struct Watcher {
    thread: JoinHandle<()>,
    ended: Arc<Latch>,
}

/// One deadline. Dropping it takes the deadline back.
#[must_use = "dropping it takes the deadline back"]
pub(crate) struct DeadlineGuard {
    watch: Arc<Watch>,
    key: (Instant, u64),
}

impl Deadlines {
    pub(crate) fn new(thread_name: String) -> Self {
        let state = Mutex::new(State::default());
        Self { watch: Arc::new(Watch { thread_name, state, bell: bounded(1) }) }
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
    pub(crate) fn arm(&self, timeout: Duration, token: &CancelToken) -> Option<DeadlineGuard> {
        let at = Instant::now().checked_add(timeout)?;
        let (key, is_first) = {
            let mut state = self.watch.state.lock();
            let key = (at, state.next_number);
            state.next_number += 1;
            state.due.insert(key, token.clone());
            (key, state.due.keys().next() == Some(&key))
        };
        if is_first {
            self.watch.ring();
        }
        Some(DeadlineGuard { watch: Arc::clone(&self.watch), key })
    }

    /// Ends the watch, and waits until `deadline` for its threads to end, but not for the calling one.
    ///
    /// Only once no turn runs any more: deadlines that are still out never fire.
    pub(crate) fn stop(&self, deadline: Instant) {
        self.watch.stop();
        let watchers: Vec<Watcher> = {
            let mut state = self.watch.state.lock();
            let watcher = state.watcher.take();
            state.retired.drain(..).chain(watcher).collect()
        };
        for watcher in watchers {
            let is_own = watcher.thread.thread().id() == current().id();
            if !is_own {
                // Disconnected or not in time: the latch knows.
                let _ = watcher.ended.receiver().recv_deadline(deadline);
            }
            if !is_own && watcher.ended.is_set() {
                // The thread has nothing left to do but to end.
                let _ = watcher.thread.join();
            } else {
                // For the next call.
                self.watch.state.lock().retired.push(watcher);
            }
        }
    }
}

impl Drop for Deadlines {
    fn drop(&mut self) {
        self.watch.stop();
    }
}

impl Watch {
    fn spawn_watcher(self: &Arc<Self>) -> io::Result<Watcher> {
        let (watch, ended) = (Arc::clone(self), Arc::new(Latch::new()));
        let end = SetOnDrop(Arc::clone(&ended));
        let thread = Builder::new().name(self.thread_name.clone()).spawn(move || {
            watch.keep();
            drop(end);
        })?;
        Ok(Watcher { thread, ended })
    }

    /// The whole life of a watching thread.
    fn keep(self: &Arc<Self>) {
        while let Some((overdue, next)) = self.take_overdue() {
            let hooks = cancel_all(overdue);
            if !hooks.is_empty() {
                let handed_over = self.hand_over();
                drop(hooks);
                if handed_over {
                    return;
                }
                continue;
            }
            select! {
                recv(self.bell.1) -> _ => {}
                recv(at_or_never(next)) -> _ => {}
            }
        }
    }

    /// The tokens whose time is up, and when the next one is; `None` when the watch is over.
    fn take_overdue(&self) -> Option<(Vec<CancelToken>, Option<Instant>)> {
        let mut state = self.state.lock();
        if state.stopped {
            return None;
        }
        let now = Instant::now();
        let mut overdue = Vec::new();
        while let Some(entry) = state.due.first_entry() {
            if entry.key().0 > now {
                break;
            }
            overdue.push(entry.remove());
        }
        Some((overdue, state.due.keys().next().map(|(at, _)| *at)))
    }

    /// Whether another thread has the watch now. Where the system refuses one, this thread keeps it.
    fn hand_over(self: &Arc<Self>) -> bool {
        let mut state = self.state.lock();
        if state.stopped {
            return true;
        }
        let Ok(successor) = self.spawn_watcher() else { return false };
        state.retired.retain(|watcher| !watcher.ended.is_set());
        let retired = state.watcher.replace(successor);
        state.retired.extend(retired);
        true
    }

    fn stop(&self) {
        self.state.lock().stopped = true;
        self.ring();
    }

    fn ring(&self) {
        // Full means that it rings already.
        let _ = self.bell.0.try_send(());
    }
}

fn cancel_all(overdue: Vec<CancelToken>) -> Vec<DueHooks> {
    let due = overdue.iter().filter_map(|token| token.cancel(CancelReason::DeadlineExceeded));
    due.filter(|hooks| !hooks.are_none()).collect()
}

struct SetOnDrop(Arc<Latch>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

impl Drop for DeadlineGuard {
    fn drop(&mut self) {
        let taken_back = self.watch.state.lock().due.remove(&self.key);
        drop(taken_back);
    }
}

impl fmt::Debug for Deadlines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadlines").field("due", &self.watch.state.lock().due.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for DeadlineGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineGuard").finish_non_exhaustive()
    }
}
