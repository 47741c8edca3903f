//! The unloading of a session that nothing uses: its thread and its capacity become free, and its record stays.
//!
//! Only a service that keeps its sessions unloads them. It asks for it with a command, when the session has been idle
//! for the set time, or when another session needs the capacity. The session thread decides, between two commands.
//!
//! # The decision
//!
//! A session is *unused* if a turn would be admitted now, its inbox is empty, no stream of its own reads its events,
//! and its agent has no endpoints of its own. First the session thread saves what the record lacks. Then it closes the
//! session, if it is still unused, in one step for every other thread:
//!
//! ```text
//! lock the bus
//!   a subscriber? not unused
//!   lock the inbox
//!     an interaction? not unused
//!     gate: idle becomes CLOSED, with one exchange
//!     the inbox is closed
//!   unlock; the bus takes no subscriber
//! unlock
//! ```
//!
//! - A turn is admitted by an exchange at the gate too, so one of the two comes first. If the turn does, the session
//!   stays.
//! - An interaction is put in under the lock of the inbox. If it comes first, the session stays. If it comes later, its
//!   sender gets `Closed`. With the inbox closed in a second step, an interaction could be accepted in between, and
//!   lost.
//! - A subscriber is added under the lock of the bus. If it comes first, the session stays. If it comes later, it is
//!   refused, and its caller resumes the session. With a check before the close alone, it could get a stream that ends
//!   at once.
//!
//! `is_unloading` is set before the gate is closed. So a caller that finds the session closed knows whether it only has
//! to wait for the end, and to resume the session.
//!
//! # A request behind a turn
//!
//! A caller that needs capacity waits for the decision, and must not wait for a turn. It reads the gate again after its
//! request is in the queue:
//!
//! ```text
//! the caller                               another caller
//! reads the gate: idle
//!                                          admits a turn; sends it
//! sends the request
//! reads the gate: busy; takes it back
//! ```
//!
//! If it reads idle, a turn that is admitted later is behind the request in the queue. Then the session thread finds
//! the gate busy, and refuses before it runs the turn.

use std::time::Duration;

use crate::permits::semaphore::Semaphore;
use crate::sync::{Arc, AtomicUsize, Instant, OnceLock, Ordering, Weak};
use crate::time::clock::Clock;
use crate::timers::{Alarms, OnAlarm, TimerGuard};
use crate::wait::latch::Latch;

use super::command::Command;
use super::handle::SessionHandle;

/// When a service unloads its sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnloadPolicy {
    /// The time after which an idle session is unloaded, and the alarms that tell the sessions.
    pub(crate) idle: Option<(Duration, Alarms)>,
    /// The capacity, for a session that becomes idle while a caller waits for capacity.
    pub(crate) demand: Option<Arc<Demand>>,
}

/// The callers that wait for capacity, and the sessions that are being unloaded for them. One session is unloaded for
/// each caller, however many become idle before the first unit has come back.
#[derive(Debug)]
pub(crate) struct Demand {
    capacity: Arc<Semaphore>,
    under_way: AtomicUsize,
}

/// One session that is being unloaded for a caller that waits. Dropped before its unit comes back: then a second
/// session may be unloaded in vain, but no caller is forgotten.
#[must_use = "dropping it lets another session be unloaded"]
#[derive(Debug)]
pub(crate) struct Claim(Arc<Demand>);

impl Demand {
    pub(crate) fn new(capacity: Arc<Semaphore>) -> Arc<Self> {
        Arc::new(Self { capacity, under_way: AtomicUsize::new(0) })
    }

    /// A claim, if more callers wait than sessions are being unloaded for them.
    fn claim(self: &Arc<Self>) -> Option<Claim> {
        if !self.capacity.has_waiters() {
            return None;
        }
        let waiters = self.capacity.waiters();
        let one_more = |under_way: usize| (under_way < waiters).then_some(under_way + 1);
        let claimed = self.under_way.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
        claimed.is_ok().then(|| Claim(Arc::clone(self)))
    }
}

impl Claim {
    /// Ends the claim.
    pub(crate) fn end(self) {
        // The drop ends it, on every other way out too.
        drop(self);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The caller's end of a request to unload a session.
#[derive(Debug)]
pub(crate) struct UnloadReply {
    decision: OnceLock<UnloadDecision>,
    decided: Latch,
}

/// What the session thread has decided about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnloadDecision {
    /// The session is being unloaded.
    Unloaded,
    /// The session is in use.
    InUse,
    /// The record lacks a part of the history, and the store has refused it.
    Unsaved,
}

/// The session thread's end of a request. If it is dropped without an answer, the session stays or has ended.
#[derive(Debug)]
pub(crate) struct UnloadRequest {
    /// `None` for an alarm.
    reply: Option<Arc<UnloadReply>>,
}

/// The unloading of one session, on its thread.
pub(super) struct Unloading {
    policy: UnloadPolicy,
    /// The alarm of a session that was idle for less than the time.
    alarm: Option<TimerGuard>,
}

#[cfg(feature = "store")]
impl UnloadReply {
    /// Set when the request is decided, or never will be.
    pub(crate) fn decided(&self) -> &Latch {
        &self.decided
    }

    /// The decision. Without one the session has ended.
    pub(crate) fn decision(&self) -> Option<UnloadDecision> {
        self.decision.get().copied()
    }
}

impl UnloadRequest {
    #[cfg(feature = "store")]
    fn new() -> (Self, Arc<UnloadReply>) {
        let reply = Arc::new(UnloadReply { decision: OnceLock::new(), decided: Latch::new() });
        (Self { reply: Some(Arc::clone(&reply)) }, reply)
    }

    /// Whether a caller waits for the decision. Otherwise an alarm has come.
    pub(super) fn is_of_caller(&self) -> bool {
        self.reply.is_some()
    }

    /// Whether this is the request that `reply` belongs to.
    #[cfg(feature = "store")]
    fn is_answered_to(&self, reply: &UnloadReply) -> bool {
        self.reply.as_ref().is_some_and(|own| std::ptr::eq(&**own, reply))
    }

    /// Tells the caller the decision.
    pub(super) fn decide(self, decision: UnloadDecision) {
        if let Some(reply) = &self.reply {
            reply.decision.get_or_init(|| decision);
        }
        // The drop sets the latch.
        drop(self);
    }
}

impl Drop for UnloadRequest {
    fn drop(&mut self) {
        if let Some(reply) = &self.reply {
            reply.decided.set();
        }
    }
}

impl SessionHandle {
    /// Whether the session could be unloaded now, as far as another thread can tell.
    pub(crate) fn is_unused(&self) -> bool {
        self.gate().state().refusal().is_ok()
            && !self.shared().inbox.has_items()
            && !self.bus().has_subscriber()
            && !self.has_own_endpoints()
    }

    /// The end of the last use, if the service may unload the session.
    pub(crate) fn last_use(&self) -> Option<Instant> {
        self.shared().last_use.as_ref().map(|last_use| *last_use.lock())
    }

    /// Whether the session was closed to be unloaded, and can be resumed after its end. Also true for a moment while it
    /// is decided.
    #[cfg(feature = "store")]
    pub(crate) fn is_unloading(&self) -> bool {
        self.is_unloading.load(Ordering::SeqCst) && !self.is_open()
    }

    /// Asks the session thread to unload the session. `None` if a turn is admitted, which would come first.
    #[cfg(feature = "store")]
    pub(crate) fn request_unload(&self) -> Option<Arc<UnloadReply>> {
        let (request, reply) = UnloadRequest::new();
        self.send(Command::Unload(request));
        // After the request is in the queue: see the head of this file.
        if self.gate().state().refusal().is_ok() || self.is_unloading() {
            return Some(reply);
        }
        self.take_back(|command| matches!(command, Command::Unload(request) if request.is_answered_to(&reply)));
        // Decided in this moment.
        reply.decision().is_some().then_some(reply)
    }

    /// For the session thread: the session is about to be closed by a conflict that an unload has found. Its next turn
    /// loads the record, so callers wait for its end.
    pub(super) fn note_lost_by_unload(&self) {
        self.is_unloading.store(true, Ordering::SeqCst);
    }

    /// For the session thread: keeps the claim of an unload until the capacity is about to come back.
    pub(super) fn keep_claim(&self, claim: Claim) {
        let last = self.claim.lock().replace(claim);
        drop(last);
    }

    /// Ends the claim of an unload, if there is one.
    pub(crate) fn end_claim(&self) {
        let claim = self.claim.lock().take();
        if let Some(claim) = claim {
            claim.end();
        }
    }

    /// For the session thread: closes the session to unload it, if nothing uses it. See the head of this file. The agent
    /// has no endpoints of its own: only the session thread sets them, and it has looked.
    pub(super) fn close_if_unused(&self) -> bool {
        self.is_unloading.store(true, Ordering::SeqCst);
        let close_gate = || self.gate().close_if_ready();
        let is_closed = self.bus().close_if_unsubscribed(|| self.shared().inbox.close_if_empty(close_gate));
        if is_closed {
            self.shared().counters.unloads.add_one();
            self.finish_close();
        } else {
            self.is_unloading.store(false, Ordering::SeqCst);
        }
        is_closed
    }
}

/// An alarm of the timer thread.
impl OnAlarm for SessionHandle {
    fn on_alarm(&self) {
        self.send(Command::Unload(UnloadRequest { reply: None }));
    }
}

impl Unloading {
    pub(super) fn new(policy: UnloadPolicy) -> Self {
        Self { policy, alarm: None }
    }

    /// A claim to be unloaded for a caller that waits for capacity. The caller is among the waiters before it looks for
    /// an idle session, and this is read after the session became idle: so one of the two finds the other.
    pub(super) fn claim(&self) -> Option<Claim> {
        self.policy.demand.as_ref()?.claim()
    }

    /// How long the session still has to be idle before it is unloaded because of that. `None` if it never is.
    pub(super) fn left(&self, last_use: Instant, clock: &Clock) -> Option<Duration> {
        let (after, _) = self.policy.idle.as_ref()?;
        Some(after.saturating_sub(clock.now().saturating_duration_since(last_use)))
    }

    /// Sets the next alarm: after `left`, or for a session that is in use after the whole time.
    pub(super) fn set_alarm(&mut self, left: Option<Duration>, handle: &Arc<SessionHandle>) {
        // First: the last alarm has come, or is not needed any more.
        self.alarm = None;
        if let Some((after, alarms)) = &self.policy.idle {
            let left = left.filter(|left| !left.is_zero()).unwrap_or(*after);
            let target: Weak<SessionHandle> = Arc::downgrade(handle);
            self.alarm = alarms.set(&handle.shared().clock.deadline(left), target);
        }
    }
}
