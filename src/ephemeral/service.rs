//! The service: where calls come in.

use std::fmt;
use std::time::Duration;

use crate::agent::SessionAgentBuilder;
use crate::comms::CommsRuntime;
use crate::error::SessionError;
use crate::inbox::injector::SubscribableInjector;
use crate::model::{AgentEvent, InteractionId, RunResult, Session, SessionId, TurnId};
use crate::panics::Contained;
use crate::reentrancy;
use crate::service::{
    forward_session_service, ArchiveMode, CreateSessionRequest, ServiceControl, ServiceStats, SessionQuery,
    SessionService, SessionSpec, SessionSummary, SessionView, ShutdownReport, StartTurnRequest, WeakService,
};
#[cfg(feature = "testkit")]
use crate::session::handle::SessionHandle;
use crate::subscription::stream::EventStream;
use crate::subscription::Subscription;
use crate::sync::{Arc, Weak};
use crate::turn::handle::TurnHandle;
use crate::turn::stream::TurnStream;

use super::core::Core;
use super::settings::Settings;
use super::shutdown;

/// Hosts sessions in memory, each on a thread of its own. What is worth keeping is kept by whoever
/// [exports](SessionService::export_session) it.
///
/// A cheap handle: clones are the same service, usable from any thread. Dropping the last one closes every session and
/// cancels every turn without waiting for them; [`shutdown`](Self::shutdown) does the same and waits.
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

/// What the handles of a service have in common. Its drop is the drop of the last handle.
pub(super) struct Inner<B: SessionAgentBuilder> {
    pub(super) core: Arc<Core>,
    pub(super) builder: Contained<Arc<B>>,
    pub(super) weak: Weak<Inner<B>>,
}

impl<B: SessionAgentBuilder> EphemeralSessionService<B> {
    /// A service that hosts at most `max_sessions` at a time; 0 admits nobody. Starts no thread.
    pub fn new(builder: B, max_sessions: usize) -> Self {
        Self::with_settings(builder, Settings { max_sessions, ..Settings::default() })
    }

    pub(crate) fn with_settings(builder: B, settings: Settings) -> Self {
        let core = Arc::new(Core::new(settings));
        let builder = Contained::new("the drop of a builder", Arc::new(builder));
        Self { inner: Arc::new_cyclic(|weak| Inner { core, builder, weak: weak.clone() }) }
    }

    /// How many sessions were ever registered, those included that could not be built then or got no thread: a number to
    /// give to [`wait_session_registered`](Self::wait_session_registered).
    pub fn registered_sessions(&self) -> u64 {
        self.inner.core.registry.registrations()
    }

    /// Waits until more than `seen` sessions have been registered, and returns how many; `None` where that does not happen
    /// in time, or never will after a shutdown. A registration between two calls is never missed.
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
    /// Until the next registration, at most for `timeout`; on a session's own thread also until its turn is cancelled.
    pub fn wait_session_registered(&self, seen: u64, timeout: Duration) -> Option<u64> {
        let deadline = self.inner.core.clock().deadline(timeout);
        loop {
            match self.inner.core.registry.registrations_after(seen) {
                Ok(count) => return Some(count),
                Err(next) => drop(reentrancy::receive(next?.receiver(), &deadline).ok()?),
            }
        }
    }

    /// Listens to every session: those that there are from now on, and those to come from their first event. Of each
    /// session the order is that of its events; among sessions there is none. The stream ends when the service is shut down,
    /// or its last handle dropped, and the last session has ended.
    ///
    /// A session is in [`list`](crate::SessionService::list) before its first event. So whoever reads all events that there
    /// are and lists afterwards may forget each session that is not in the list: it has been archived.
    ///
    /// All sessions share the one queue, and with [`Overflow::Block`](crate::Overflow::Block) all of them wait for its reader.
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
        let (queue, stream) = EventStream::new(options, self.inner.core.clock().clone());
        let core = &self.inner.core;
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
        // Those that have ended first: a turn that is counted among them is among those that were started.
        let ended = [&counters.turns_completed, &counters.turns_failed, &counters.turns_cancelled, &counters.faults];
        let [turns_completed, turns_failed, turns_cancelled, faults] = ended.map(|count| count.get());
        ServiceStats {
            sessions: core.capacity.held(),
            max_sessions: core.capacity.limit(),
            threads: core.threads.count() + core.deadlines.threads(),
            running_turns: core.running.held(),
            sessions_created: counters.sessions_created.get(),
            turns_started: counters.turns_started.get(),
            turns_completed,
            turns_failed,
            turns_cancelled,
            faults,
            events_dropped: counters.events_dropped.get(),
        }
    }

    /// Refuses new sessions and turns from now on, cancels every turn, and waits for every thread to end.
    ///
    /// When no session is stuck, no code of an agent's runs any more in a session's thread, thread-local destructors included.
    /// What may be left is the thread that keeps deadlines, where a cancel hook on it blocks although its turn has ended, which
    /// takes a guard that was forgotten, or where a hook has left a thread-local value behind that blocks as it is dropped: with
    /// [`ServiceStats::threads`] at 0 it has gone too. Who unmaps the agents' code drops first what may hold values of theirs:
    /// handles of turns (errors), injectors and comms runtimes, and the service itself.
    ///
    /// Can be called again, to wait longer for sessions that were stuck, and from several threads. From a session's own
    /// thread it works too, but cannot wait for that session, nor for one that waits for it: those are reported as stuck. A
    /// wait for *another* service's sessions ends there when the waiting turn is cancelled. In a thread-local destructor nobody
    /// can tell any more whose thread it is: two that wait for each other there wait for the whole `timeout`.
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
    /// Until all sessions have ended, at most for `timeout`. The agents' cancel hooks run on this thread, before the waiting
    /// begins; what time they take comes on top, which is why they should take none.
    pub fn shutdown(&self, timeout: Duration) -> ShutdownReport {
        self.shutdown_with(ArchiveMode::Interrupt, timeout)
    }

    /// As [`shutdown`](Self::shutdown); with [`ArchiveMode::Drain`] running turns may finish. What has not finished in
    /// time goes on: call [`shutdown`](Self::shutdown) to cancel it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::{agent_fn, ArchiveMode, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
    /// let turn = service.begin_session(CreateSessionRequest::new("hello"))?;
    /// let mut report = service.shutdown_with(ArchiveMode::Drain, Duration::from_secs(60));
    /// if !report.stuck.is_empty() {
    ///     report = service.shutdown(Duration::from_secs(60)); // they have had their time
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

    /// A handle that does not keep the service alive.
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
