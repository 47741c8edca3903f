//! The persistent service, and its calls beyond [`SessionService`].

use std::fmt;
use std::time::Duration;

use crate::agent::SessionAgentBuilder;
use crate::comms::CommsRuntime;
use crate::ephemeral::{EphemeralSessionService, ServiceConfig, Settings};
use crate::error::{ConfigError, SessionError};
use crate::inbox::injector::SubscribableInjector;
use crate::model::{AgentEvent, InteractionId, RunResult, Session, SessionId, TurnId};
use crate::permits::reservation::Reservation;
use crate::service::{
    forward_session_service, ArchiveMode, CreateSessionRequest, ServiceControl, ServiceStats, SessionQuery,
    SessionService, SessionSpec, SessionSummary, SessionView, ShutdownReport, StartTurnRequest, WeakService,
};
use crate::subscription::stream::EventStream;
use crate::subscription::Subscription;
#[cfg(feature = "redis")]
use crate::sync::WriteOnce;
use crate::sync::{Arc, Weak};
use crate::turn::handle::TurnHandle;
use crate::turn::stream::TurnStream;

use super::agent::SavingBuilder;
use super::config::PersistentConfig;
use super::kept::RecordTable;
use super::room::{Candidates, Resumes};
use super::SessionStore;

/// Hosts sessions and saves them: an [`EphemeralSessionService`] with a [`SessionStore`]. See the [module](super).
///
/// The calls are those of [`SessionService`], with these differences:
///
/// - [`start_turn`](SessionService::start_turn) and similar calls resume a session that is not live. Then they may fail
///   like [`begin_session`](SessionService::begin_session).
/// - The numbers of turns and events continue from life to life, also in another process. An old turn id never reaches
///   a new turn, and no event number is used twice. After a kill the numbers skip the rest of the reserved block;
///   see [`StoredNumbers`](super::StoredNumbers). A block is reserved when a session becomes live, and after every
///   256 turns or million events. The reservation waits for the disk.
/// - [`read`](SessionService::read), [`export_session`](SessionService::export_session) and, as
///   [`SessionError::NotRunning`], [`interrupt`](SessionService::interrupt) also answer for sessions that are not live.
/// - [`list`](SessionService::list) includes them, oldest conversation first, live or not. It reads all of them for
///   every page. It leaves out unreadable records, and logs each.
/// - [`subscribe`](SessionService::subscribe), [`event_injector`](SessionService::event_injector) and
///   [`comms_runtime`](SessionService::comms_runtime) need a live session: see [`resume`](Self::resume). If the service
///   unloads sessions by itself, they resume the session, and wait for that as `resume` does. See [`PersistentConfig`].
/// - [`archive`](SessionService::archive) is final: the session stays readable and runs no more turns. From then on a
///   call that would start, interrupt, resume, take or archive it, or subscribe to it, fails with
///   [`SessionError::Archived`], also while its last turn drains.
/// - [`take_session`](SessionService::take_session) archives too. If only the archiving fails, the session has ended,
///   and its record can be resumed. While another thread resumes, unloads or takes the session, the call fails with
///   [`SessionError::Busy`]. To create a session with the id of a taken one, [delete](Self::delete) that first.
/// - A stored id is in use: a create with it fails with [`SessionError::AlreadyExists`].
/// - If the store fails a call, the error is [`SessionError::Store`]. A turn that succeeded but cannot be saved fails
///   with the [`StoreError`](super::StoreError) as its error. The agent still has it in its history, and the next turn
///   saves both.
/// - If another writer has changed a session's record, the session is out of date: its next save is a
///   [`StoreError::Conflict`](super::StoreError::Conflict). The session ends unsaved. Its turn and its queued turns
///   fail with [`SessionError::Store`] once its place is free, and its next turn loads the record.
/// - With [`PersistentConfig`] the service unloads sessions by itself. Then a call that needs a session may wait for
///   the end of an unload: of this session, or of one that makes room for it.
/// - Calls may wait for the disk, even those that do not block otherwise, and beyond their timeouts: creating and
///   beginning sessions, resuming, archiving, and reading sessions that are not live; beginning a turn and emitting an
///   event, when a block of numbers is used up. If another caller works on the same record, they wait for that call
///   too.
///
/// A session is saved from the build of its agent on. In host mode every interaction is saved before it is answered. A
/// failed turn is saved as far as the agent's history goes. After a panic the end of the turn is saved and nothing of
/// the history. The session can be [restarted](SessionService::restart), or [unloaded](Self::unload) and resumed from
/// the turn before.
///
/// A turn costs what it adds to the history, if the agent keeps one [`Session`] and pushes to it. A change of earlier
/// messages, or another `Session` in every [`session_clone`](crate::SessionAgent::session_clone), saves the whole
/// history.
///
/// A builder must begin with [`SessionSpec::history`], the stored history. After the build the service compares. If the
/// agent's history does not begin with the stored one, a leading system message apart, the agent is refused with
/// [`StoreError::NotResumed`](super::StoreError::NotResumed). Its next save would replace results that callers already
/// have. An agent that rewrites its history on purpose sets [`SessionSpec::rewrites_history`]. The builder gets a
/// resumed session without the [`extension`](SessionSpec::extension) of its creation. Use the labels or the builder for
/// what an agent needs.
///
/// ```
/// use std::time::Duration;
/// use turnwise::store::{FileStore, PersistentSessionService};
/// use turnwise::{agent_fn, CreateSessionRequest, SessionService, SessionState, StartTurnRequest};
///
/// let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
/// let service = PersistentSessionService::new(agent, 1, FileStore::in_memory()?); // one live session at a time
/// let one = service.create_session(CreateSessionRequest::new("one"))?.session_id;
/// service.unload(one, Duration::from_secs(5))?;
/// let two = service.create_session(CreateSessionRequest::new("two"))?.session_id;
/// service.archive_wait(two, Duration::from_secs(5))?;
///
/// assert!(!service.is_live(one));
/// assert_eq!(service.start_turn(one, StartTurnRequest::new("more"))?.text, "more"); // resumed
/// assert_eq!(service.read(two)?.state.state, SessionState::Archived);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PersistentSessionService<B: SessionAgentBuilder> {
    pub(super) inner: Arc<Inner<B>>,
}

/// The shared state of a service's handles.
pub(super) struct Inner<B: SessionAgentBuilder> {
    pub(super) live: EphemeralSessionService<SavingBuilder<B>>,
    pub(super) table: Arc<RecordTable>,
    pub(super) candidates: Candidates,
    pub(super) resumes: Resumes,
    /// Set in a worker of a cluster.
    #[cfg(feature = "redis")]
    pub(super) given_out: WriteOnce<GivenOut>,
    weak: Weak<Inner<B>>,
}

/// Tells why a turn of a session is refused that has no number, because another process gives the turns of this session out.
#[cfg(feature = "redis")]
pub(crate) type GivenOut = Box<dyn Fn(SessionId) -> Option<SessionError> + Send + Sync>;

impl<B: SessionAgentBuilder> PersistentSessionService<B> {
    /// Creates a service with at most `max_sessions` live at a time, and any number of sessions in `store`.
    pub fn new(builder: B, max_sessions: usize, store: impl SessionStore) -> Self {
        Self::with_settings(builder, Settings { max_sessions, ..Settings::default() }, Box::new(store))
    }

    /// Creates a service with other settings than the defaults.
    ///
    /// ```
    /// use turnwise::store::{FileStore, PersistentSessionService};
    /// use turnwise::{agent_fn, EphemeralSessionService};
    ///
    /// let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
    /// let config = EphemeralSessionService::configure(agent).max_sessions(100).max_running_turns(4);
    /// let service = PersistentSessionService::with_config(config, FileStore::in_memory()?)?;
    /// # drop(service);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`PersistentConfig::build`].
    pub fn with_config(config: ServiceConfig<B>, store: impl SessionStore) -> Result<Self, ConfigError> {
        Self::configure(config, store).build()
    }

    /// Configures a service that unloads idle sessions, or makes room for others.
    pub fn configure(config: ServiceConfig<B>, store: impl SessionStore) -> PersistentConfig<B> {
        PersistentConfig::new(config, Box::new(store))
    }

    pub(super) fn with_settings(builder: B, settings: Settings, store: Box<dyn SessionStore>) -> Self {
        let table = RecordTable::new(store);
        let inner = Arc::new_cyclic(|weak: &Weak<Inner<B>>| {
            let outer = WeakService::new(weak.clone());
            let live = EphemeralSessionService::inside_of(outer, SavingBuilder { builder }, settings);
            Inner {
                live,
                table,
                candidates: Candidates::default(),
                resumes: Resumes::default(),
                #[cfg(feature = "redis")]
                given_out: WriteOnce::new(),
                weak: weak.clone(),
            }
        });
        Self { inner }
    }

    /// As [`EphemeralSessionService::reserve`]: one unit of the capacity of live sessions, for a later create or open.
    /// A turn that resumes a stored session takes capacity too, but cannot spend a reservation.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::store::{FileStore, PersistentSessionService};
    /// use turnwise::{agent_fn, SessionService, SessionSpec};
    ///
    /// let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
    /// let service = PersistentSessionService::new(agent, 1, FileStore::in_memory()?);
    /// let reservation = service.reserve(Duration::from_secs(5))?;
    /// assert!(service.open_session(SessionSpec::new()).is_err()); // the only unit is reserved
    /// service.open_session(SessionSpec::new().reservation(reservation))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`EphemeralSessionService::reserve`].
    ///
    /// # Blocking
    /// Until a unit is free and every earlier `reserve` has one, at most for `timeout`. With
    /// [`PersistentConfig::unload_when_full`] an idle session is unloaded for it, or the next one whose turn ends.
    pub fn reserve(&self, timeout: Duration) -> Result<Reservation, SessionError> {
        self.inner.reserve(timeout)
    }

    /// Whether a session has a thread. A stored session without one is resumed on its next turn.
    pub fn is_live(&self, id: SessionId) -> bool {
        self.inner.live.read(id).is_ok()
    }

    /// Makes a session live without running a turn: to subscribe to it, or to build its agent ahead of time. Does
    /// nothing if it is live.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use turnwise::store::{FileStore, PersistentSessionService};
    /// # use turnwise::{agent_fn, SessionService, SessionSpec, StartTurnRequest, Subscription};
    /// # let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
    /// # let service = PersistentSessionService::new(agent, 1, FileStore::in_memory()?);
    /// # let id = service.open_session(SessionSpec::new())?;
    /// # service.unload(id, Duration::from_secs(5))?;
    /// service.resume(id)?;
    /// let events = service.subscribe(id, Subscription::new())?;
    /// service.start_turn(id, StartTurnRequest::new("hello"))?;
    /// assert_eq!(events.take(2).count(), 2); // the turn's beginning and its end
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`open_session`](SessionService::open_session); [`SessionError::Archived`]; [`SessionError::NotFound`]
    /// if it is not stored; [`SessionError::Store`] with [`StoreError::NotResumed`](super::StoreError::NotResumed) if
    /// its agent did not resume the history; [`SessionError::Busy`] while another thread creates, resumes or unloads
    /// it.
    ///
    /// # Blocking
    /// For the disk, and until the agent is built.
    pub fn resume(&self, id: SessionId) -> Result<(), SessionError> {
        self.inner.resume(id)
    }

    /// Ends a live session and keeps its record. Its thread and its capacity are free, and its next turn resumes it.
    /// Does nothing if it is not live. A session in host mode ends between two interactions.
    ///
    /// # Errors
    /// Those of [`take_session`](SessionService::take_session). [`SessionError::Store`] if a failed save cannot be
    /// repeated, and [`SessionError::Timeout`] if a turn or the disk takes longer: the session stays as it was.
    /// [`SessionError::Ending`] if the session ends, but its thread takes longer. Until then it takes capacity and is
    /// [`SessionError::Busy`], and a second call continues the wait.
    ///
    /// # Blocking
    /// As [`take_session`](SessionService::take_session).
    pub fn unload(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        self.inner.unload(id, timeout)
    }

    /// Deletes a session, live or not, archived or not, readable or not. A running turn is cancelled.
    ///
    /// ```
    /// # use turnwise::store::{FileStore, PersistentSessionService};
    /// # use turnwise::{agent_fn, SessionService, SessionSpec};
    /// # let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
    /// # let service = PersistentSessionService::new(agent, 1, FileStore::in_memory()?);
    /// let id = service.open_session(SessionSpec::new())?;
    /// service.delete(id)?;
    /// assert_eq!(service.read(id).unwrap_err().code(), "SESSION_NOT_FOUND");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::NotFound`] if it is not stored.
    ///
    /// # Blocking
    /// For the disk. Does not wait for the turn: the session takes capacity until the turn has ended.
    pub fn delete(&self, id: SessionId) -> Result<(), SessionError> {
        self.inner.delete(id)
    }

    /// Lists archived sessions, oldest conversation first. [`list`](SessionService::list) has all others.
    ///
    /// ```
    /// # use turnwise::store::{FileStore, PersistentSessionService};
    /// # use turnwise::{agent_fn, SessionQuery, SessionService, SessionSpec};
    /// # let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
    /// # let service = PersistentSessionService::new(agent, 1, FileStore::in_memory()?);
    /// let id = service.open_session(SessionSpec::new().label("user", "ada"))?;
    /// service.archive(id)?;
    /// assert!(service.list(SessionQuery::new())?.is_empty());
    /// assert_eq!(service.list_archived(SessionQuery::new().label("user", "ada"))?[0].session_id, id);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::NotFound`] if [`SessionQuery::after`] names a session that is not stored.
    ///
    /// # Blocking
    /// For the disk.
    pub fn list_archived(&self, query: SessionQuery) -> Result<Vec<SessionSummary>, SessionError> {
        self.inner.list_archived(&query)
    }

    /// As [`EphemeralSessionService::subscribe_all`], for live sessions.
    ///
    /// # Blocking
    /// Does not block; reading the stream does.
    pub fn subscribe_all(&self, options: Subscription) -> EventStream {
        self.inner.live.subscribe_all(options)
    }

    /// As [`EphemeralSessionService::registered_sessions`]; a session counts each time it becomes live.
    pub fn registered_sessions(&self) -> u64 {
        self.inner.live.registered_sessions()
    }

    /// As [`EphemeralSessionService::wait_session_registered`].
    ///
    /// # Blocking
    /// Until the next registration, at most for `timeout`.
    pub fn wait_session_registered(&self, seen: u64, timeout: Duration) -> Option<u64> {
        self.inner.live.wait_session_registered(seen, timeout)
    }

    /// Figures of the live sessions, as [`EphemeralSessionService::stats`].
    pub fn stats(&self) -> ServiceStats {
        self.inner.live.stats()
    }

    /// As [`EphemeralSessionService::shutdown`]. Cancelled turns are saved as far as they went, and the sessions can be
    /// resumed later. Reads from the store still work. The store is closed when the last handle of the service is
    /// dropped, unless a session is stuck.
    ///
    /// # Blocking
    /// Until all sessions have ended, at most for `timeout`.
    pub fn shutdown(&self, timeout: Duration) -> ShutdownReport {
        self.inner.live.shutdown(timeout)
    }

    /// As [`EphemeralSessionService::shutdown_with`].
    ///
    /// # Blocking
    /// Until all sessions have ended, at most for `timeout`.
    pub fn shutdown_with(&self, mode: ArchiveMode, timeout: Duration) -> ShutdownReport {
        self.inner.live.shutdown_with(mode, timeout)
    }

    /// Whether the session has a life here, which may be about to end.
    #[cfg(feature = "redis")]
    pub(crate) fn has_life(&self, id: SessionId) -> bool {
        self.inner.live.life(id).is_some()
    }

    /// Refuses turns without a number, before anything is done for them. Only the first call has an effect.
    #[cfg(feature = "redis")]
    pub(crate) fn set_given_out(&self, given_out: GivenOut) {
        self.inner.given_out.get_or_init(|| given_out);
    }

    /// One unit of the capacity for a session that becomes live, as a call makes it itself. Then the call does not fail for
    /// want of it. `None` if the service makes no room.
    #[cfg(feature = "redis")]
    pub(crate) fn make_room(&self) -> Result<Option<Reservation>, SessionError> {
        self.inner.make_room(|| Ok(()))
    }

    /// As `try_begin_turn`. If the turn begins a life of the session, `registered` is called between its registration and its
    /// start.
    #[cfg(feature = "redis")]
    #[allow(clippy::result_large_err)] // The turn itself is larger.
    pub(crate) fn try_begin_turn_and(
        &self,
        id: SessionId,
        request: StartTurnRequest,
        registered: impl FnOnce(),
    ) -> Result<TurnHandle, crate::service::RefusedTurn> {
        self.inner.begin_and(id, request, registered)
    }

    /// As `subscribe`, for a session that is live. Builds no agent.
    #[cfg(feature = "redis")]
    pub(crate) fn subscribe_live(&self, id: SessionId, options: Subscription) -> Result<EventStream, SessionError> {
        self.inner.live.subscribe(id, options)
    }

    /// Ends the life of a session, if there is one, and waits for its end. Its record is not archived. A running turn is
    /// cancelled.
    #[cfg(feature = "redis")]
    pub(crate) fn end_life(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        let Some(life) = self.inner.live.life(id) else { return Ok(()) };
        // Another caller may have closed it.
        let _ = life.archive(ArchiveMode::Interrupt);
        life.archive_wait(timeout)
    }

    /// Returns a handle that does not keep the service alive.
    pub fn downgrade(&self) -> WeakService {
        WeakService::new(self.inner.weak.clone())
    }
}

impl<B: SessionAgentBuilder> ServiceControl for PersistentSessionService<B> {
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

impl<B: SessionAgentBuilder> Clone for PersistentSessionService<B> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<B: SessionAgentBuilder> fmt::Debug for PersistentSessionService<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PersistentSessionService").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl<B: SessionAgentBuilder> SessionService for PersistentSessionService<B> {
    forward_session_service!(self => self.inner);
}
