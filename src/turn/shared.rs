//! The parts of a session that all of its turns share, and the counters of a service.

use std::time::Duration;

use crate::cancel::CancelToken;
use crate::error::Cancelled;
use crate::ids::numbers::Numbers;
use crate::inbox::queue::Inbox;
use crate::model::{CallbackPending, SessionId, TurnTimings};
use crate::permits::turn_permit::TurnPermit;
use crate::reentrancy::{self, WaitKey};
use crate::status::history::CommittedHistory;
use crate::status::published::Published;
use crate::subscription::bus::Bus;
use crate::subscription::queue::LostEvents;
use crate::sync::{Arc, AtomicU64, AtomicUsize, Instant, Mutex, Ordering};
use crate::time::clock::Clock;
use crate::turn::input::PendingInputs;

/// The parts that every turn of a session, its build and its emitters share. One allocation, so that a turn takes one
/// share.
#[derive(Debug)]
pub(crate) struct SessionShared {
    /// The key of the session in the wait-for graph.
    pub(crate) key: WaitKey,
    pub(crate) bus: Bus,
    pub(crate) published: Published,
    pub(crate) history: CommittedHistory,
    /// The tool that the host must run, after a turn that ended with a pending callback. The session thread writes it.
    pub(crate) callback: Mutex<Option<Arc<CallbackPending>>>,
    /// What the turn asks of its host.
    pub(crate) inputs: PendingInputs,
    /// An allocation of its own, since the session hands it out as an injector.
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Clock,
    pub(crate) numbers: Arc<Numbers>,
    /// The running permit, lent by each thread of the turn that waits.
    pub(crate) permit: Arc<TurnPermit>,
    /// The end of the last use: of the build, or of the agent's last call. `None` if the service never unloads the
    /// session.
    pub(crate) last_use: Option<Mutex<Instant>>,
}

/// The counters of a service, over all its sessions.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sessions_created: Counter,
    pub(crate) turns_started: Counter,
    pub(crate) turns_withdrawn: Counter,
    pub(crate) turns_completed: Counter,
    pub(crate) turns_failed: Counter,
    pub(crate) turns_cancelled: Counter,
    pub(crate) faults: Counter,
    pub(crate) restarts: Counter,
    pub(crate) unloads: Counter,
    pub(crate) events_dropped: Counter,
    pub(crate) times: TimeTotals,
    /// An allocation of its own, since streams count into it.
    pub(crate) subscriber_events_dropped: Arc<LostEvents>,
    /// The turns that wait for input now.
    pub(crate) waiting_turns: Gauge,
}

/// A counter that only rises.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

/// The sums of the times of turns.
#[derive(Debug, Default)]
pub(crate) struct TimeTotals {
    queued: TimeTotal,
    permit: TimeTotal,
    input: TimeTotal,
    running: TimeTotal,
}

/// A sum of durations, in nanoseconds.
#[derive(Debug, Default)]
struct TimeTotal(AtomicU64);

/// A number that rises and falls.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicUsize);

impl SessionShared {
    /// The tool that the host must run, if the most recent turn ended with a pending callback.
    pub(crate) fn callback(&self) -> Option<Arc<CallbackPending>> {
        self.callback.lock().clone()
    }

    pub(crate) fn set_callback(&self, callback: Option<CallbackPending>) {
        let last = std::mem::replace(&mut *self.callback.lock(), callback.map(Arc::new));
        drop(last);
    }

    /// Records the end of a use of the session.
    pub(crate) fn set_last_use(&self, at: Instant) {
        if let Some(last_use) = &self.last_use {
            *last_use.lock() = at;
        }
    }

    pub(crate) fn session_id(&self) -> SessionId {
        self.bus.session_id()
    }

    /// Sleeps on the service's clock, or until `cancel` fires. The session's turn lends its running permit during the
    /// sleep.
    pub(crate) fn sleep(&self, duration: Duration, cancel: &CancelToken) -> Result<(), Cancelled> {
        cancel.check()?;
        if duration.is_zero() {
            return Ok(());
        }
        let deadline = self.clock.deadline(duration);
        let permit = reentrancy::lend_permit_of(&self.permit);
        // The result does not matter: the token also knows a cancel that arrives during the wait for the permit.
        let _ = deadline.receive(cancel.cancelled());
        if let Some(permit) = permit {
            permit.end_wait();
        }
        cancel.check()
    }
}

impl TimeTotals {
    /// Adds the wait of a turn that has left the queue.
    pub(crate) fn add_queued(&self, queued: Duration) {
        self.queued.add(queued);
    }

    /// Adds the times of the agent's calls in a turn.
    pub(crate) fn add_calls(&self, timings: &TurnTimings) {
        self.permit.add(timings.permit);
        self.input.add(timings.input);
        self.running.add(timings.running);
    }

    pub(crate) fn get(&self) -> TurnTimings {
        TurnTimings {
            queued: self.queued.get(),
            permit: self.permit.get(),
            input: self.input.get(),
            running: self.running.get(),
        }
    }
}

impl TimeTotal {
    fn add(&self, time: Duration) {
        // Most turns wait for nothing.
        if time.is_zero() {
            return;
        }
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // ORDERING: Relaxed, here and below: a figure on which no code depends. The count of the turn, which follows,
        // releases it. It always stores: the closure returns no `None`.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sum| Some(sum.saturating_add(nanos)));
    }

    fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

impl Gauge {
    pub(crate) fn add_one(&self) {
        // ORDERING: Relaxed, here and below: a figure on which no code depends.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn subtract_one(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counter {
    pub(crate) fn add_one(&self) {
        // ORDERING: Release, pairs with the acquire in `get`: a reader that sees a turn ended sees that it was started.
        self.0.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn get(&self) -> u64 {
        // ORDERING: Acquire, see `add_one`.
        self.0.load(Ordering::Acquire)
    }
}
