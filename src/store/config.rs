//! The configuration of a persistent service.

use std::fmt;
use std::time::Duration;

use crate::agent::SessionAgentBuilder;
use crate::ephemeral::ServiceConfig;
use crate::error::ConfigError;
use crate::panics::contain_and_log;

use super::service::PersistentSessionService;
use super::SessionStore;

/// The stack that a session and a commit of redb need: 96 KiB in debug builds, with thousands of sessions in the file.
const MIN_STACK: usize = 128 << 10;

/// The settings of a [`PersistentSessionService`]; made by [`PersistentSessionService::configure`].
///
/// # Sessions that come and go
///
/// A live session has a thread, an agent and a unit of the capacity. A stored one costs nothing but its record. With
/// the two settings here the service decides which sessions are live. It unloads a session only while nothing uses it:
///
/// - The session runs no turn, waits for no input, queues no turn and is not in host mode. It has not faulted.
/// - No [stream](crate::EventStream) of its own reads its events. A stream of
///   [all sessions](PersistentSessionService::subscribe_all) does not count, nor does one that was dropped.
/// - Nothing is in its inbox. Its agent has no [`event_injector`](crate::SessionAgent::event_injector) and no
///   [`comms_runtime`](crate::SessionAgent::comms_runtime) of its own, since the service does not know what is in them.
///
/// The next turn of an unloaded session resumes it: same history, labels and numbers. Its agent is built again, without
/// the [`extension`](crate::SessionSpec::extension) of its creation. [`subscribe`](crate::SessionService::subscribe),
/// [`event_injector`](crate::SessionService::event_injector) and
/// [`comms_runtime`](crate::SessionService::comms_runtime) resume it too. They wait for the disk and for the build. The
/// two that return an `Option` return `None` if the session cannot be resumed. An injector from before is
/// [`Closed`](crate::InjectError::Closed).
///
/// A call that needs a session while the service unloads it waits for the end: for a save, and for the drop of the
/// agent. So the drop of an agent should not take long.
///
/// ```
/// use std::time::Duration;
/// use turnwise::store::{FileStore, PersistentSessionService};
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, StartTurnRequest};
///
/// let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
/// let config = EphemeralSessionService::configure(agent).max_sessions(2);
/// let service = PersistentSessionService::configure(config, FileStore::in_memory()?)
///     .unload_idle_after(Duration::from_secs(600))
///     .unload_when_full(true)
///     .build()?;
/// // Any number of conversations, of which two are live at a time.
/// let ids = (0..10)
///     .map(|_| Ok(service.create_session(CreateSessionRequest::new("hello"))?.session_id))
///     .collect::<Result<Vec<_>, turnwise::SessionError>>()?;
/// for id in &ids {
///     service.start_turn(*id, StartTurnRequest::new("again"))?;
/// }
/// assert_eq!(service.stats().sessions, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub struct PersistentConfig<B> {
    config: ServiceConfig<B>,
    store: Box<dyn SessionStore>,
}

impl<B: SessionAgentBuilder> PersistentConfig<B> {
    pub(super) fn new(config: ServiceConfig<B>, store: Box<dyn SessionStore>) -> Self {
        Self { config, store }
    }

    /// Unloads a session that has been idle for this time: since its last turn or interaction, or since it became live.
    /// A session that is in use at the end of this time is looked at again after the same time. So it is unloaded at
    /// most twice this time after its last use, if it is unused from then on. Default: never.
    ///
    /// The service measures with its clock, and starts one thread for it. Choose a time that is long beside a build: a
    /// caller that subscribes, and then begins a turn, should find the session live in between.
    pub fn unload_idle_after(mut self, idle: Duration) -> Self {
        self.config.settings.unload.idle_after = Some(idle);
        self
    }

    /// Makes room for a session when the capacity is used up: the session that has been idle for longest is unloaded. A
    /// create, or a turn of a stored session, waits for the end of that session: for its save, and for the drop of its
    /// agent. If no session can be unloaded, the call fails with
    /// [`SessionError::CapacityExceeded`](crate::SessionError::CapacityExceeded), as without this setting.
    /// [`reserve`](PersistentSessionService::reserve) makes room too, unless its timeout is zero. Default: `false`.
    pub fn unload_when_full(mut self, when_full: bool) -> Self {
        self.config.settings.unload.when_full = when_full;
        self
    }

    /// Limits the wait for the end of a session that is unloaded: for room, and of the session itself. Then the call fails
    /// with `CapacityExceeded` or `Ending`. Default: no limit.
    #[cfg(feature = "redis")]
    pub(crate) fn unload_patience(mut self, patience: Duration) -> Self {
        self.config.settings.unload.patience = Some(patience);
        self
    }

    /// Creates the service. Starts no thread.
    ///
    /// # Errors
    /// Those of [`ServiceConfig::build`]; a `stack_size` below 128 KiB, because session threads save their sessions; an
    /// `unload_idle_after` of zero.
    pub fn build(self) -> Result<PersistentSessionService<B>, ConfigError> {
        let Self { config, store } = self;
        match config.check(MIN_STACK) {
            Ok((builder, settings)) => Ok(PersistentSessionService::with_settings(builder, settings, store)),
            Err(error) => {
                contain_and_log("the drop of a store", move || drop(store));
                Err(error)
            }
        }
    }
}

impl<B> fmt::Debug for PersistentConfig<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PersistentConfig").field("unload", &self.config.settings.unload).finish_non_exhaustive()
    }
}
