//! The service that keeps its sessions: what it has beyond the calls of every service.

use std::fmt;
use std::time::Duration;

use crate::agent::SessionAgentBuilder;
use crate::comms::CommsRuntime;
use crate::ephemeral::{EphemeralSessionService, ServiceConfig, Settings};
use crate::error::{ConfigError, SessionError};
use crate::inbox::injector::SubscribableInjector;
use crate::model::{AgentEvent, InteractionId, RunResult, Session, SessionId, TurnId};
use crate::panics::contain_and_log;
use crate::service::{
    forward_session_service, ArchiveMode, CreateSessionRequest, ServiceControl, ServiceStats, SessionQuery,
    SessionService, SessionSpec, SessionSummary, SessionView, ShutdownReport, StartTurnRequest, WeakService,
};
use crate::subscription::stream::EventStream;
use crate::subscription::Subscription;
use crate::sync::{Arc, Weak};
use crate::turn::handle::TurnHandle;
use crate::turn::stream::TurnStream;

use super::agent::KeepingBuilder;
use super::kept::RecordTable;
use super::SessionStore;

/// What a commit of redb takes of a session's stack, and a session itself: 96 KiB in debug builds, with thousands of sessions in the
/// file.
const MIN_STACK: usize = 128 << 10;

/// Hosts sessions and keeps them: an [`EphemeralSessionService`], and a [`SessionStore`] beside it. See the [module](super).
///
/// The calls are those of [`SessionService`]. What is different:
///
/// - [`start_turn`](SessionService::start_turn) and its like resume a session that is not live. Then they may fail as
///   [`begin_session`](SessionService::begin_session) does.
/// - The numbers of turns and events go on from life to life, also in another process. An old turn id never reaches a new turn, and
///   no event number comes twice. After a kill the numbers skip what was reserved; [`StoredNumbers`](super::StoredNumbers) says how
///   much. A block is reserved, and waited for on the disk, when a session becomes live, and after every 256 turns or million events.
/// - [`read`](SessionService::read), [`export_session`](SessionService::export_session) and, as
///   [`SessionError::NotRunning`], [`interrupt`](SessionService::interrupt) know sessions that are not live.
///   [`list`](SessionService::list) has them too, oldest conversation first, live or not; it looks at all of them for every page,
///   and leaves out, with a record in the log, those whose records cannot be read.
///   [`subscribe`](SessionService::subscribe), [`event_injector`](SessionService::event_injector) and
///   [`comms_runtime`](SessionService::comms_runtime) are for live ones: see [`resume`](Self::resume).
/// - [`archive`](SessionService::archive) is for good: the session stays readable and runs no more turns. A call that would start,
///   interrupt, resume, take or archive it, or subscribe to it, is [`SessionError::Archived`] from then on, also while its last turn
///   drains.
/// - [`take_session`](SessionService::take_session) archives too; where only that fails, the session has ended, and is kept as
///   one that can be resumed. While another thread resumes, unloads or takes the session it is [`SessionError::Busy`]. To create a
///   session with the id of what was taken, [delete](Self::delete) it first.
/// - An id that is kept is taken: to create a session with it is [`SessionError::AlreadyExists`].
/// - A call that the store fails is [`SessionError::Store`]. A turn that went well and cannot be kept fails, with the
///   [`StoreError`](super::StoreError) as its error. The agent remembers it all the same, and it is kept with the next.
/// - Calls may wait for the disk, also those that do not block otherwise, and beyond their timeouts: creating and beginning
///   sessions, resuming, archiving, and looking at sessions that are not live; beginning a turn, and emitting an event, where a block
///   of numbers is used up. Where another caller works on the same record, they wait for that call too.
///
/// A session is kept from the moment when its agent is built. In host mode every interaction is kept before it is answered.
/// A turn that fails is kept as far as the agent's history goes; after a panic nothing more is kept, and the session can be
/// [unloaded](Self::unload) and resumed from the turn before.
///
/// A builder begins with [`SessionSpec::history`], which is what was kept. Once the agent is built, the service compares: an agent whose
/// history does not begin with what was kept, a leading system message apart, is refused with
/// [`StoreError::NotResumed`](super::StoreError::NotResumed), because its next save would replace what callers already have. An agent
/// that rewrites its history on purpose says so with [`SessionSpec::rewrites_history`]. The builder meets a resumed session without
/// the [`extension`](SessionSpec::extension) that it was created with: what an agent needs is in the labels, or comes from the builder.
///
/// ```
/// use std::time::Duration;
/// use turnwise::store::{FileStore, PersistentSessionService};
/// use turnwise::{agent_fn, CreateSessionRequest, SessionService, SessionState, StartTurnRequest};
///
/// let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
/// let service = PersistentSessionService::new(agent, 1, FileStore::in_memory()?); // one live at a time
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

/// What the handles of a service have in common.
pub(super) struct Inner<B: SessionAgentBuilder> {
    pub(super) live: EphemeralSessionService<KeepingBuilder<B>>,
    pub(super) table: Arc<RecordTable>,
    weak: Weak<Inner<B>>,
}

impl<B: SessionAgentBuilder> PersistentSessionService<B> {
    /// A service with at most `max_sessions` live at a time, that keeps any number of them in `store`.
    pub fn new(builder: B, max_sessions: usize, store: impl SessionStore) -> Self {
        Self::with_settings(builder, Settings { max_sessions, ..Settings::default() }, store)
    }

    /// A service with other settings than the defaults.
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
    /// Those of [`ServiceConfig::build`], and where the `stack_size` is below 128 KiB: sessions are saved on their own threads.
    pub fn with_config(config: ServiceConfig<B>, store: impl SessionStore) -> Result<Self, ConfigError> {
        match config.check(MIN_STACK) {
            Ok((builder, settings)) => Ok(Self::with_settings(builder, settings, store)),
            Err(error) => {
                contain_and_log("the drop of a store", move || drop(store));
                Err(error)
            }
        }
    }

    fn with_settings(builder: B, settings: Settings, store: impl SessionStore) -> Self {
        let table = RecordTable::new(Box::new(store));
        let inner = Arc::new_cyclic(|weak: &Weak<Inner<B>>| {
            let builder = KeepingBuilder { builder, service: WeakService::new(weak.clone()) };
            let live = EphemeralSessionService::with_settings(builder, settings);
            Inner { live, table, weak: weak.clone() }
        });
        Self { inner }
    }

    /// Whether a session has a thread. Others that are kept are resumed on their next turn.
    pub fn is_live(&self, id: SessionId) -> bool {
        self.inner.live.read(id).is_ok()
    }

    /// Makes a session live without running a turn: to subscribe to it, or to have its agent built ahead of time. Nothing
    /// happens where it is live.
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
    /// Those of [`open_session`](SessionService::open_session); [`SessionError::Archived`]; [`SessionError::NotFound`] where nothing is
    /// kept of it; [`SessionError::Store`] with [`StoreError::NotResumed`](super::StoreError::NotResumed) where its agent forgets;
    /// [`SessionError::Busy`] where another thread is creating, resuming or unloading it.
    ///
    /// # Blocking
    /// For the disk, and until the agent is built.
    pub fn resume(&self, id: SessionId) -> Result<(), SessionError> {
        self.inner.resume(id)
    }

    /// Ends a live session and keeps it for later: its thread and its capacity are free, its next turn resumes it. Nothing
    /// happens where it is not live. A session in host mode leaves it between two interactions.
    ///
    /// # Errors
    /// Those of [`take_session`](SessionService::take_session), and [`SessionError::Store`] where something of it is not kept yet and
    /// cannot be: then the session is as it was. [`SessionError::Timeout`] where a turn or the disk took longer: the session is as it was.
    /// [`SessionError::Ending`] where the session ends and its agent takes longer to go: until then its capacity is taken, it is
    /// [`SessionError::Busy`], and a second call goes on waiting.
    ///
    /// # Blocking
    /// As [`take_session`](SessionService::take_session).
    pub fn unload(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        self.inner.unload(id, timeout)
    }

    /// Forgets a session for good, live or not, archived or not, readable or not. A running turn is cancelled.
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
    /// [`SessionError::NotFound`] where nothing is kept of it.
    ///
    /// # Blocking
    /// For the disk. Does not wait for the turn: until that has ended, the session's capacity is taken.
    pub fn delete(&self, id: SessionId) -> Result<(), SessionError> {
        self.inner.delete(id)
    }

    /// Archived sessions, oldest conversation first. [`list`](SessionService::list) has all others.
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
    /// [`SessionError::NotFound`] where [`SessionQuery::after`] names a session of which nothing is kept.
    ///
    /// # Blocking
    /// For the disk.
    pub fn list_archived(&self, query: SessionQuery) -> Result<Vec<SessionSummary>, SessionError> {
        self.inner.list_archived(&query)
    }

    /// As [`EphemeralSessionService::subscribe_all`], of live sessions.
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

    /// As [`EphemeralSessionService::shutdown`]. Cancelled turns are kept as far as they came, and the sessions stay for the next
    /// time. What is kept can still be read. The store is closed when the last handle of the service is dropped, unless a
    /// session is stuck.
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

    /// A handle that does not keep the service alive.
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
