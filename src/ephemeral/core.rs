//! The state that a service shares with its session threads. It does not depend on the builder or the agent.

use crate::error::SessionError;
use crate::model::SessionId;
use crate::permits::semaphore::{Permit, Semaphore};
use crate::session::handle::SessionHandle;
use crate::session::unload::Demand;
use crate::subscription::global::GlobalSubscribers;
use crate::subscription::queue::{Queue, Scope};
use crate::subscription::stream::EventStream;
use crate::subscription::Subscription;
use crate::sync::Arc;
use crate::time::clock::Clock;
use crate::timers::TurnTimers;
use crate::turn::shared::Counters;

use super::registry::Registry;
use super::settings::{Settings, MAX_THREADS};
use super::threads::Threads;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) settings: Settings,
    pub(crate) registry: Registry,
    pub(crate) global_subscribers: GlobalSubscribers,
    /// One permit for each session that holds capacity, and for each reservation.
    pub(crate) capacity: Arc<Semaphore>,
    /// The callers that wait for it, in a service that makes room for them.
    pub(crate) demand: Arc<Demand>,
    /// One permit for each turn that its agent runs now.
    pub(crate) running: Arc<Semaphore>,
    pub(crate) deadlines: TurnTimers,
    pub(crate) threads: Arc<Threads>,
    pub(crate) counters: Arc<Counters>,
}

impl Core {
    pub(crate) fn new(settings: Settings) -> Self {
        let max_running = settings.max_running_turns.unwrap_or(MAX_THREADS);
        let capacity = Semaphore::new(settings.max_sessions.min(MAX_THREADS));
        Self {
            demand: Demand::new(Arc::clone(&capacity)),
            capacity,
            registry: Registry::new(),
            global_subscribers: GlobalSubscribers::new(),
            running: Semaphore::new(max_running),
            deadlines: TurnTimers::new(format!("{}-deadlines", settings.thread_name_prefix), settings.clock.clone()),
            threads: Threads::new(settings.idle_threads),
            counters: Arc::default(),
            settings,
        }
    }

    /// The clock that measures all durations.
    pub(crate) fn clock(&self) -> &Clock {
        &self.settings.clock
    }

    /// A stream for a subscriber, and its queue.
    pub(crate) fn new_stream(&self, options: Subscription, scope: Scope) -> (Arc<Queue>, EventStream) {
        EventStream::new(options, scope, self.clock().clone(), Arc::clone(&self.counters.subscriber_events_dropped))
    }

    /// How many sessions hold capacity. Reservations hold it too, and are not counted.
    ///
    /// The registry is read first, and still has a session that has just given its capacity back. So the count of
    /// permits limits the result.
    pub(crate) fn sessions(&self) -> usize {
        let registered = self.registry.count();
        registered.min(self.capacity.held())
    }

    /// The open session with this id.
    pub(crate) fn open(&self, id: SessionId) -> Result<Arc<SessionHandle>, SessionError> {
        self.registry.find(id).filter(|handle| handle.is_open()).ok_or(SessionError::NotFound { id })
    }

    /// Converts `NotFound` to `ShuttingDown` after a shutdown. For callers that start work: the shutdown may have
    /// closed their session.
    pub(crate) fn refusal(&self, error: SessionError) -> SessionError {
        match error {
            SessionError::NotFound { .. } if self.registry.is_shut_down() => SessionError::ShuttingDown,
            error => error,
        }
    }
}

/// A session's id and capacity. [`release`](Self::release) or a drop frees both and reports the end of the session.
#[must_use = "dropping it frees the id and the capacity"]
#[derive(Debug)]
pub(crate) struct Registration {
    core: Arc<Core>,
    handle: Arc<SessionHandle>,
    /// Taken by the drop alone.
    capacity: Option<Permit>,
}

impl Registration {
    /// Registers the session, with the unit of capacity that was reserved for it, or with a free one.
    pub(crate) fn of(
        core: &Arc<Core>,
        handle: &Arc<SessionHandle>,
        reserved: Option<Permit>,
    ) -> Result<Self, SessionError> {
        let permit = core.registry.register(handle, &core.capacity, reserved)?;
        Ok(Self { core: Arc::clone(core), handle: Arc::clone(handle), capacity: Some(permit) })
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(super) fn handle(&self) -> &Arc<SessionHandle> {
        &self.handle
    }

    /// Frees the id and the capacity, and reports the end of the session.
    pub(crate) fn release(self) {
        // The drop does it, on every other way out too.
        drop(self);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Also if the session thread panicked: no turn is admitted afterwards, and no caller waits for an answer.
        self.handle.end();
        self.handle.end_claim();
        // Capacity first: a caller that does not find the id may rely on the capacity.
        if let Some(capacity) = self.capacity.take() {
            capacity.release();
        }
        self.core.registry.remove(self.handle.id());
        self.handle.ended().set();
    }
}
