//! The ephemeral service, and its calls beyond [`SessionService`].

use std::fmt;
use std::time::Duration;

use crate::agent::SessionAgentBuilder;
use crate::comms::CommsRuntime;
use crate::error::SessionError;
use crate::inbox::injector::SubscribableInjector;
use crate::model::{AgentEvent, InteractionId, RunResult, Session, SessionId, TurnId};
use crate::panics::Contained;
use crate::permits::reservation::Reservation;
use crate::reentrancy;
use crate::service::{
    forward_session_service, ArchiveMode, CreateSessionRequest, ServiceControl, ServiceStats, SessionQuery,
    SessionService, SessionSpec, SessionSummary, SessionView, ShutdownReport, StartTurnRequest, WeakService,
};
#[cfg(feature = "testkit")]
use crate::session::handle::SessionHandle;
use crate::subscription::queue::Scope;
use crate::subscription::stream::EventStream;
use crate::subscription::Subscription;
use crate::sync::{Arc, Weak};
use crate::turn::handle::TurnHandle;
use crate::turn::stream::TurnStream;

use super::core::Core;
use super::settings::Settings;
use super::shutdown;

/// Hosts sessions in memory, each on its own thread. To keep a history, the host
/// [exports](SessionService::export_session) it.
///
/// A service is a cheap handle: clones are the same service, and any thread may use them. The drop of the last handle
/// closes every session and cancels every turn without waiting; [`shutdown`](Self::shutdown) does the same and waits.
///
/// ```
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, StartTurnRequest};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt.to_uppercase()))), 8);
/// let first = service.create_session(CreateSessionRequest::new("hello"))?;
/// let second = service.start_turn(first.session_id, StartTurnRequest::new("again"))?;
/// assert_eq!(second.text, "AGAIN");
/// assert_eq!(service.read(first.session_id)?.state.message_count, 4);
/// # Ok::<(), turnwise::SessionError>(())
/// ```
pub struct EphemeralSessionService<B: SessionAgentBuilder> {
    pub(super) inner: Arc<Inner<B>>,
}

/// The shared state of a service's handles. It is dropped with the last handle.
pub(super) struct Inner<B: SessionAgentBuilder> {
    pub(super) core: Arc<Core>,
    pub(super) builder: Contained<Arc<B>>,
    pub(super) weak: Weak<Inner<B>>,
    /// The service that agents get: this one, or the one around it.
    pub(super) of_agents: WeakService,
}

impl<B: SessionAgentBuilder> EphemeralSessionService<B> {
    /// Creates a service that hosts at most `max_sessions` at a time; 0 admits none. Starts no thread.
    pub fn new(builder: B, max_sessions: usize) -> Self {
        Self::with_settings(builder, Settings { max_sessions, ..Settings::default() })
    }

    pub(crate) fn with_settings(builder: B, settings: Settings) -> Self {
        Self::make(builder, settings, |own| WeakService::new(own.clone()))
    }

    /// Creates the service inside of another one, which agents get instead.
    #[cfg(feature = "store")]
    pub(crate) fn inside_of(outer: WeakService, builder: B, settings: Settings) -> Self {
        Self::make(builder, settings, |_| outer)
    }

    fn make(builder: B, settings: Settings, of_agents: impl FnOnce(&Weak<Inner<B>>) -> WeakService) -> Self {
        let core = Arc::new(Core::new(settings));
        let builder = Contained::new("the drop of a builder", Arc::new(builder));
        let inner = |weak: &Weak<Inner<B>>| Inner { core, builder, weak: weak.clone(), of_agents: of_agents(weak) };
        Self { inner: Arc::new_cyclic(inner) }
    }

    /// Reserves one unit of the capacity for a later create. Waits for it in arrival order, at most for `timeout`.
    /// [`Duration::ZERO`] does not wait.
    ///
    /// [`SessionSpec::reservation`] passes the reservation to the create or open that spends it. A drop gives it back.
    /// While a `reserve` waits, a create without a reservation gets no unit that is due to the wait: it fails with
    /// [`SessionError::CapacityExceeded`]. The same goes for the resume of a stored session.
    ///
    /// ```
    /// use std::thread;
    /// use std::time::Duration;
    /// use turnwise::{agent_fn, EphemeralSessionService, SessionError, SessionService, SessionSpec};
    ///
    /// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
    /// let first = service.open_session(SessionSpec::new())?;
    /// let elsewhere = service.clone();
    /// let waiting = thread::spawn(move || {
    ///     let reservation = elsewhere.reserve(Duration::from_secs(60))?; // until the first session has ended
    ///     elsewhere.open_session(SessionSpec::new().reservation(reservation))
    /// });
    /// service.archive(first)?;
    /// let second = waiting.join().expect("it does not panic")?;
    /// assert_ne!(first, second);
    /// # Ok::<(), SessionError>(())
    /// ```
    ///
    /// # Errors
    /// - [`SessionError::CapacityExceeded`] if `timeout` passes first. With a maximum of 0 sessions, at once.
    /// - [`SessionError::ShuttingDown`] after a shutdown, and as soon as one begins during the wait.
    /// - [`SessionError::Interrupted`] on a session thread whose own turn is cancelled during the wait.
    ///
    /// # Blocking
    /// Until a unit is free and every earlier `reserve` has one, at most for `timeout`. A session thread lends its
    /// running permit meanwhile. Its own session holds a unit too, and no check finds sessions that wait for each
    /// other's capacity. So a turn should reserve with a short timeout.
    pub fn reserve(&self, timeout: Duration) -> Result<Reservation, SessionError> {
        self.inner.core.reserve(timeout, || {})
    }

    /// How many sessions were ever registered, including those that failed to build or got no thread. Pass this number
    /// to [`wait_session_registered`](Self::wait_session_registered).
    pub fn registered_sessions(&self) -> u64 {
        self.inner.core.registry.registrations()
    }

    /// Waits until more than `seen` sessions have been registered, and returns how many. Returns `None` on a timeout,
    /// and after a shutdown. A registration between two calls is never missed.
    ///
    /// ```
    /// use std::thread;
    /// use std::time::Duration;
    /// use turnwise::{agent_fn, EphemeralSessionService, SessionService, SessionSpec};
    ///
    /// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
    /// let seen = service.registered_sessions();
    /// let elsewhere = service.clone();
    /// let opening = thread::spawn(move || elsewhere.open_session(SessionSpec::new()));
    /// assert_eq!(service.wait_session_registered(seen, Duration::from_secs(60)), Some(seen + 1));
    /// # opening.join().expect("it does not panic")?;
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Blocking
    /// Until the next registration, at most for `timeout`; on a session thread also until its turn is cancelled.
    pub fn wait_session_registered(&self, seen: u64, timeout: Duration) -> Option<u64> {
        let deadline = self.inner.core.clock().deadline(timeout);
        loop {
            match self.inner.core.registry.registrations_after(seen) {
                Ok(count) => return Some(count),
                Err(next) => drop(reentrancy::receive(next?.receiver(), &deadline).ok()?),
            }
        }
    }

    /// Subscribes to every session: to existing sessions from now on, to new ones from their first event. The events of
    /// one session are in order; events of different sessions have no order. The stream ends when the service is shut
    /// down, or its last handle dropped, and the last session has ended.
    ///
    /// A session is in [`list`](crate::SessionService::list) before its first event. So a subscriber that reads all
    /// available events and then lists may forget each session that is not in the list: it has been archived.
    ///
    /// All sessions share one queue. With [`Overflow::Block`](crate::Overflow::Block) all of them wait for its reader.
    ///
    /// ```
    /// use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService};
    /// use turnwise::{SessionService, Subscription};
    ///
    /// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
    /// let events = service.subscribe_all(Subscription::new());
    /// for prompt in ["one", "two"] {
    ///     service.create_session(CreateSessionRequest::new(prompt))?;
    /// }
    /// drop(service); // the stream ends with the last session
    /// let started = events.filter(|event| matches!(event.event, AgentEvent::RunStarted { .. }));
    /// assert_eq!(started.count(), 2);
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Blocking
    /// Does not block; reading the stream does.
    pub fn subscribe_all(&self, options: Subscription) -> EventStream {
        let core = &self.inner.core;
        let (queue, stream) = core.new_stream(options, Scope::AllSessions);
        core.global_subscribers.add(&queue);
        for session in core.registry.all() {
            session.bus().attach(&queue);
        }
        stream
    }

    /// Figures of the service.
    pub fn stats(&self) -> ServiceStats {
        let core = &*self.inner.core;
        let counters = &core.counters;
        // Ended turns are read before started ones, so that every turn that counts as ended also counts as started.
        let ended = [&counters.turns_completed, &counters.turns_failed, &counters.turns_cancelled, &counters.faults];
        let [turns_completed, turns_failed, turns_cancelled, faults] = ended.map(|count| count.get());
        ServiceStats {
            sessions: core.sessions(),
            max_sessions: core.capacity.limit(),
            threads: core.threads.count() + core.deadlines.threads(),
            running_turns: core.running.held(),
            permit_waiting_turns: core.running.waiters(),
            waiting_turns: counters.waiting_turns.get(),
            sessions_created: counters.sessions_created.get(),
            turns_started: counters.turns_started.get(),
            turns_completed,
            turns_failed,
            turns_cancelled,
            faults,
            restarts: counters.restarts.get(),
            unloads: counters.unloads.get(),
            turns_withdrawn: counters.turns_withdrawn.get(),
            events_dropped: counters.events_dropped.get(),
            subscriber_events_dropped: counters.subscriber_events_dropped.get(),
            timings: counters.times.get(),
        }
    }

    /// Refuses new sessions and turns from now on, cancels every turn, and waits for every thread to end.
    ///
    /// When no session is stuck, no agent code runs on a session thread any more, thread-local destructors included.
    /// The timer thread may be left in two cases. A cancel hook blocks on it although its turn has ended, because the
    /// hook's guard was forgotten. Or a hook has left a thread-local value on it that blocks in its drop. When
    /// [`ServiceStats::threads`] is 0, that thread has exited too. Before a host unmaps the agents' code, it drops all
    /// that may hold their values: handles of turns (errors), injectors and comms runtimes, and the service itself.
    ///
    /// It can be called again, to wait longer for stuck sessions, and from several threads. On a session thread it
    /// cannot wait for that session, nor for one that waits for it, and reports both as stuck. There, a wait for
    /// *another* service's sessions ends when the waiting turn is cancelled. In a thread-local destructor the session
    /// of the thread is unknown: two threads that wait for each other there wait for the whole `timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::{agent_fn, CancelReason, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let agent = agent_fn(|prompt, turn| {
    ///     turn.sleep(Duration::MAX)?;
    ///     Ok(turn.finish(prompt))
    /// });
    /// let service = EphemeralSessionService::new(agent, 8);
    /// let turn = service.begin_session(CreateSessionRequest::new("hello"))?;
    /// assert!(service.shutdown(Duration::from_secs(60)).stuck.is_empty());
    /// assert_eq!(turn.wait().unwrap_err().cancel_reason(), Some(CancelReason::Shutdown));
    /// assert_eq!(service.create_session(CreateSessionRequest::new("me too")).unwrap_err().code(), "SHUTTING_DOWN");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Blocking
    /// Until all sessions have ended, at most for `timeout`. The agents' cancel hooks run on this thread before the
    /// wait. Their time is added, so they should be short.
    pub fn shutdown(&self, timeout: Duration) -> ShutdownReport {
        self.shutdown_with(ArchiveMode::Interrupt, timeout)
    }

    /// As [`shutdown`](Self::shutdown); with [`ArchiveMode::Drain`] running turns may finish. A turn that has not
    /// finished in time continues: call [`shutdown`](Self::shutdown) to cancel it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::{agent_fn, ArchiveMode, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
    /// let turn = service.begin_session(CreateSessionRequest::new("hello"))?;
    /// let mut report = service.shutdown_with(ArchiveMode::Drain, Duration::from_secs(60));
    /// if !report.stuck.is_empty() {
    ///     report = service.shutdown(Duration::from_secs(60)); // cancels the remaining turns
    /// }
    /// assert_eq!(report.stuck, []);
    /// assert_eq!(turn.wait()?.text, "hello");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Blocking
    /// Until all sessions have ended, at most for `timeout`.
    pub fn shutdown_with(&self, mode: ArchiveMode, timeout: Duration) -> ShutdownReport {
        shutdown::shut_down(&self.inner.core, mode, &self.inner.core.clock().deadline(timeout))
    }

    /// Every session that holds capacity, closed or not.
    #[cfg(feature = "testkit")]
    pub(crate) fn sessions_with_capacity(&self) -> Vec<Arc<SessionHandle>> {
        self.inner.core.registry.all()
    }

    /// How many threads wait for a reservation.
    #[cfg(all(test, not(turnwise_loom)))]
    pub(crate) fn capacity_waiters(&self) -> usize {
        self.inner.core.capacity.waiters()
    }

    /// Returns a handle that does not keep the service alive.
    pub fn downgrade(&self) -> WeakService {
        self.inner.weak_service()
    }
}

impl<B: SessionAgentBuilder> ServiceControl for EphemeralSessionService<B> {
    fn stats(&self) -> ServiceStats {
        Self::stats(self)
    }

    fn shutdown_with(&self, mode: ArchiveMode, timeout: Duration) -> ShutdownReport {
        Self::shutdown_with(self, mode, timeout)
    }

    fn downgrade(&self) -> WeakService {
        Self::downgrade(self)
    }

    fn subscribe_all(&self, options: Subscription) -> EventStream {
        Self::subscribe_all(self, options)
    }
}

impl<B: SessionAgentBuilder> Clone for EphemeralSessionService<B> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<B: SessionAgentBuilder> fmt::Debug for EphemeralSessionService<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EphemeralSessionService").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl<B: SessionAgentBuilder> SessionService for EphemeralSessionService<B> {
    forward_session_service!(self => self.inner);
}

impl<B: SessionAgentBuilder> Drop for Inner<B> {
    fn drop(&mut self) {
        shutdown::close_all(&self.core, ArchiveMode::Interrupt);
    }
}
