//! The error types: [`SessionError`] for callers, [`AgentError`] for agents, [`ConfigError`] for configurations.
//!
//! **Invariants.**
//! - A `code()` never changes between releases.
//! - `Display` of a [`SessionError`] contains its source's text, and [`source`](std::error::Error::source) begins behind it.
//! - `Debug` shows panic messages and tool arguments by their length only.

use std::error::Error;
use std::fmt;
use std::io;
use std::iter::successors;
use std::time::Duration;

#[cfg(feature = "redis")]
use crate::model::RequestId;
use crate::model::{Brief, CallbackPending, InputId, InvalidId, SessionId, TurnId};
use crate::sync::Arc;

/// The maximum depth of session errors nested in each other; see [`AgentError::other`].
const MAX_NESTED: usize = 8;

/// The body of one `Debug` arm: shows every field by its own `Debug`.
macro_rules! show {
    ($f:ident, $name:literal, $($field:ident)*) => {{
        let mut out = $f.debug_struct($name);
        $(out.field(stringify!($field), $field);)*
        out.finish()
    }};
}

/// The reason of a cancellation.
///
/// ```
/// use std::time::Duration;
/// use turnwise::{agent_fn, CancelReason, CreateSessionRequest, EphemeralSessionService, SessionService};
///
/// let agent = agent_fn(|prompt, turn| {
///     turn.sleep(Duration::MAX)?; // only a cancel ends the sleep
///     Ok(turn.finish(prompt))
/// });
/// let service = EphemeralSessionService::new(agent, 1);
/// let request = CreateSessionRequest::new("hello").timeout(Duration::from_millis(1));
/// let error = service.create_session(request).unwrap_err();
/// assert_eq!(error.cancel_reason(), Some(CancelReason::DeadlineExceeded));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum CancelReason {
    /// The host called `interrupt`.
    Interrupted,
    /// The request's timeout passed.
    DeadlineExceeded,
    /// The session was archived with [`ArchiveMode::Interrupt`](crate::ArchiveMode::Interrupt).
    Archived,
    /// The service was shut down, or its last handle was dropped.
    Shutdown,
    /// A later turn took this one's place, with [`WhenBusy::Interrupt`](crate::WhenBusy::Interrupt).
    Superseded,
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupted => "interrupted",
            Self::DeadlineExceeded => "deadline exceeded",
            Self::Archived => "session archived",
            Self::Shutdown => "service shut down",
            Self::Superseded => "superseded by another turn",
        })
    }
}

/// The turn has been cancelled. An agent returns this with `?`.
///
/// ```
/// use turnwise::{AgentError, CancelReason, Cancelled};
///
/// /// A part of an agent that takes a check function instead of the turn.
/// fn work(check: impl Fn() -> Result<(), Cancelled>) -> Result<u32, AgentError> {
///     check()?; // becomes an `AgentError::Cancelled`
///     Ok(42)
/// }
///
/// assert_eq!(work(|| Ok(())).unwrap(), 42);
/// let error = work(|| Err(Cancelled { reason: CancelReason::Shutdown })).unwrap_err();
/// assert!(matches!(error, AgentError::Cancelled { reason: CancelReason::Shutdown }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the turn was cancelled: {reason}")]
pub struct Cancelled {
    /// The reason of the cancellation.
    pub reason: CancelReason,
}

/// Why an input request has no answer. `?` converts it into an [`AgentError`]: a cancellation into
/// [`AgentError::Cancelled`], the others into [`AgentError::Other`].
///
/// ```
/// use turnwise::{AgentError, InputError, InputRequest, TurnContext};
///
/// /// Asks, and takes a missing answer for a no.
/// fn is_permitted(turn: &TurnContext, what: &str) -> Result<bool, AgentError> {
///     match turn.request_input(InputRequest::new("permission", what).option("yes", "Yes").option("no", "No")) {
///         Ok(answer) => Ok(answer == "yes"),
///         Err(InputError::Declined { .. } | InputError::TimedOut { .. }) => Ok(false),
///         Err(error) => Err(error.into()),
///     }
/// }
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The turn, or its interaction, was told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The host declined.
    #[error("the host declined{}", .reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    Declined {
        /// The host's reason.
        reason: Option<String>,
    },
    /// The request's timeout passed.
    #[error("no answer within {waited:?}")]
    TimedOut {
        /// How long the request was pending.
        waited: Duration,
    },
}

impl fmt::Debug for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled(cancelled) => f.debug_tuple("Cancelled").field(cancelled).finish(),
            Self::Declined { reason } => {
                f.debug_struct("Declined").field("reason", &reason.as_deref().map(Brief)).finish()
            }
            Self::TimedOut { waited } => show!(f, "TimedOut", waited),
        }
    }
}

/// Why a call to a service failed.
///
/// Cloning is cheap: sources are shared. [`code`](SessionError::code) is stable, for programs and logs;
/// [`session_id`](SessionError::session_id) names the session where there is one.
///
/// `Display` contains the text of the variant's source, so a program can print the error alone.
/// [`source`](std::error::Error::source) therefore begins behind that source, and a printer of the whole chain repeats
/// nothing. For the typed error of an agent or a store see [`agent_error`](Self::agent_error),
/// [`AgentError::downcast_ref`] and `StoreError::of`. `Debug` shows a panic's message by its length only.
///
/// ```
/// use turnwise::{agent_fn, EphemeralSessionService, SessionError, SessionId, SessionService};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
/// let unknown = SessionId::new();
/// let error = service.read(unknown).unwrap_err();
/// assert!(matches!(error, SessionError::NotFound { id } if id == unknown));
/// assert_eq!(error.code(), "SESSION_NOT_FOUND");
/// assert_eq!(error.session_id(), Some(unknown));
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum SessionError {
    /// The session does not exist: it never did, its build failed, or it is archived and not stored.
    NotFound {
        /// The session's id.
        id: SessionId,
    },
    /// The session is archived and stored. It can be read and exported, but runs no more turns. Only services that
    /// store sessions return this.
    Archived {
        /// The session's id.
        id: SessionId,
    },
    /// The session is building or running a turn, and the request does not say that its turn may
    /// [queue](crate::WhenBusy).
    Busy {
        /// The session's id.
        id: SessionId,
        /// The admitted turn. `None` where there is no turn: the session is being opened, resumed, unloaded or taken.
        turn: Option<TurnId>,
    },
    /// The session's queue is full: the request says that its turn may [queue](crate::WhenBusy), and as many turns wait
    /// as [`ServiceConfig::turn_queue`](crate::ServiceConfig::turn_queue) allows. No turn was cancelled.
    QueueFull {
        /// The session's id.
        id: SessionId,
        /// The most turns that may wait.
        capacity: usize,
    },
    /// The session's inbox is full: as many messages wait as
    /// [`ServiceConfig::inbox_capacity`](crate::ServiceConfig::inbox_capacity) allows. The turn was not steered.
    InboxFull {
        /// The session's id.
        id: SessionId,
        /// The most messages that may wait.
        capacity: usize,
    },
    /// There is no such turn or interaction to interrupt or to steer.
    NotRunning {
        /// The session's id.
        id: SessionId,
    },
    /// The session is not faulted, so there is nothing to [restart](crate::SessionService::restart).
    NotFaulted {
        /// The session's id.
        id: SessionId,
    },
    /// The id is in use by a live session, or by a stored one. An archived session is live until it has ended.
    AlreadyExists {
        /// The session's id.
        id: SessionId,
    },
    /// The service has its maximum number of sessions, reservations included.
    CapacityExceeded {
        /// The number of sessions and [reservations](crate::Reservation) that hold capacity, archived sessions that
        /// have not ended included.
        active: usize,
        /// The maximum number of sessions.
        max: usize,
    },
    /// The reservation of the specification is spent, or belongs to another service. Nothing was created.
    InvalidReservation,
    /// The service accepts no new work.
    ShuttingDown,
    /// The session's agent has panicked. The session can be read, exported and archived, but runs no more turns until it
    /// is [restarted](crate::SessionService::restart).
    Faulted {
        /// The session's id.
        id: SessionId,
        /// The panic's message.
        message: Arc<str>,
    },
    /// A wait of a turn ended because the turn was cancelled. The operation that it waited for goes on. The turn is that
    /// of the session thread, or that of the [`TurnService`](crate::TurnService) through which the call was made.
    Interrupted {
        /// The waiting session's id.
        id: SessionId,
        /// The reason why its turn was cancelled.
        reason: CancelReason,
    },
    /// The session would wait for itself, directly or through a chain of sessions that wait for each other.
    Reentrant {
        /// The calling session's id.
        id: SessionId,
    },
    /// The timeout of a wait passed.
    Timeout {
        /// The session's id.
        id: SessionId,
        /// How long the call waited.
        waited: Duration,
    },
    /// The timeout of a wait passed after the call had taken effect: the session is ending, and its thread has not
    /// ended yet.
    Ending {
        /// The session's id.
        id: SessionId,
        /// How long the call waited.
        waited: Duration,
    },
    /// The agent could not be built, and no session remains. Only after a
    /// [restart](crate::SessionService::restart) the session remains, faulted.
    Build {
        /// The id of the session that was not built.
        id: SessionId,
        /// The cause.
        source: BuildError,
    },
    /// The agent failed its turn; the session goes on. A cancelled turn is reported like this too, mostly with
    /// [`AgentError::Cancelled`]: see [`SessionError::cancel_reason`].
    Agent {
        /// The session's id.
        id: SessionId,
        /// The agent's error.
        source: AgentError,
    },
    /// The input request has ended, or never existed: it was answered, its timeout passed, or its turn was told to stop.
    InputNotPending {
        /// The session's id.
        id: SessionId,
        /// The request's id.
        input: InputId,
    },
    /// The answer is none of the options of the input request, which is still pending.
    InvalidAnswer {
        /// The session's id.
        id: SessionId,
        /// The request's id.
        input: InputId,
    },
    /// A text is not a valid id. Returned by no call of a service: `?` on the result of a parse gives it.
    InvalidId {
        /// The error of the parse.
        source: InvalidId,
    },
    /// The system refused another thread.
    Spawn {
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// A service that stores sessions could not read or write a record. With the feature `store` the source is a
    /// `turnwise::store::StoreError`.
    Store {
        /// The session's id, where the error is about one session.
        id: Option<SessionId>,
        /// The store's error.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The worker of a cluster that ran or queued the turn is gone. The turn is not in the history, and never will be.
    /// What its agent did outside of the session may have happened.
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    WorkerLost {
        /// The session's id.
        id: SessionId,
        /// The turn.
        turn: TurnId,
    },
    /// The engine of a cluster was away for so long that the client gave up. What has become of the request is not known.
    /// [`ClusterService::outcome`](crate::cluster::ClusterService::outcome) asks for it later.
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    OutcomeUnknown {
        /// The session's id.
        id: SessionId,
        /// The request.
        request: RequestId,
        /// The turn, if the engine had accepted it.
        turn: Option<TurnId>,
    },
    /// The engine of a cluster has lost turns that were answered, in a fail-over of the server. Nothing was begun. The next
    /// request goes on from what is left.
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    HistoryLost {
        /// The session's id.
        id: SessionId,
        /// How many of the session's turns this client knows to be answered.
        seen: u64,
        /// How many the engine knows.
        found: u64,
    },
}

impl SessionError {
    /// Returns the name of the kind of error. It does not change between releases.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "SESSION_NOT_FOUND",
            Self::Archived { .. } => "SESSION_ARCHIVED",
            Self::Busy { .. } => "SESSION_BUSY",
            Self::QueueFull { .. } => "QUEUE_FULL",
            Self::InboxFull { .. } => "INBOX_FULL",
            Self::NotRunning { .. } => "SESSION_NOT_RUNNING",
            Self::NotFaulted { .. } => "SESSION_NOT_FAULTED",
            Self::AlreadyExists { .. } => "SESSION_ALREADY_EXISTS",
            Self::CapacityExceeded { .. } => "CAPACITY_EXCEEDED",
            Self::InvalidReservation => "INVALID_RESERVATION",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::Faulted { .. } => "SESSION_FAULTED",
            Self::Interrupted { .. } => "SESSION_INTERRUPTED",
            Self::Reentrant { .. } => "SESSION_REENTRANT",
            Self::Timeout { .. } => "SESSION_TIMEOUT",
            Self::Ending { .. } => "SESSION_ENDING",
            Self::Build { .. } => "SESSION_BUILD_FAILED",
            Self::Agent { .. } => "AGENT_ERROR",
            Self::InputNotPending { .. } => "INPUT_NOT_PENDING",
            Self::InvalidAnswer { .. } => "INVALID_ANSWER",
            Self::InvalidId { .. } => "INVALID_ID",
            Self::Spawn { .. } => "THREAD_SPAWN_FAILED",
            Self::Store { .. } => "STORE_FAILED",
            #[cfg(feature = "redis")]
            Self::WorkerLost { .. } => "WORKER_LOST",
            #[cfg(feature = "redis")]
            Self::OutcomeUnknown { .. } => "OUTCOME_UNKNOWN",
            #[cfg(feature = "redis")]
            Self::HistoryLost { .. } => "HISTORY_LOST",
        }
    }

    /// Returns the session that the error is about, if there is one.
    pub const fn session_id(&self) -> Option<SessionId> {
        match self {
            Self::NotFound { id }
            | Self::Archived { id }
            | Self::Busy { id, .. }
            | Self::QueueFull { id, .. }
            | Self::InboxFull { id, .. }
            | Self::NotRunning { id }
            | Self::NotFaulted { id }
            | Self::AlreadyExists { id }
            | Self::Faulted { id, .. }
            | Self::Interrupted { id, .. }
            | Self::Reentrant { id }
            | Self::Timeout { id, .. }
            | Self::Ending { id, .. }
            | Self::InputNotPending { id, .. }
            | Self::InvalidAnswer { id, .. }
            | Self::Build { id, .. }
            | Self::Agent { id, .. } => Some(*id),
            Self::Store { id, .. } => *id,
            #[cfg(feature = "redis")]
            Self::WorkerLost { id, .. } | Self::OutcomeUnknown { id, .. } | Self::HistoryLost { id, .. } => Some(*id),
            Self::CapacityExceeded { .. }
            | Self::InvalidReservation
            | Self::ShuttingDown
            | Self::InvalidId { .. }
            | Self::Spawn { .. } => None,
        }
    }

    /// Returns the error of the agent, in a turn or in its build; [`AgentError::Cancelled`] also where the turn was
    /// cancelled before the agent ran. For messages to users who need not know about sessions.
    ///
    /// ```
    /// use turnwise::{agent_fn, AgentError, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let agent = agent_fn(|_, _| Err(AgentError::Config("no model is set".into())));
    /// let error = EphemeralSessionService::new(agent, 1).create_session(CreateSessionRequest::new("hello")).unwrap_err();
    /// assert_eq!(error.agent_error().unwrap().to_string(), "configuration: no model is set");
    /// ```
    pub const fn agent_error(&self) -> Option<&AgentError> {
        match self {
            Self::Agent { source, .. } | Self::Build { source: BuildError::Agent(source), .. } => Some(source),
            _ => None,
        }
    }

    /// Returns the error of another session, where the agent has passed it on.
    fn nested(&self) -> Option<&Self> {
        match self.agent_error()? {
            AgentError::Other(source) => source.downcast_ref(),
            _ => None,
        }
    }

    /// Returns the error itself. From the maximum depth on, it keeps only the outermost and the innermost error: every
    /// level costs a stack frame when the error is displayed or dropped.
    fn shorten_chain(self) -> Self {
        let last = successors(self.nested(), |error| error.nested()).enumerate().last();
        let Some((_, last)) = last.filter(|(above, _)| above + 1 >= MAX_NESTED) else { return self };
        let source = AgentError::Other(Arc::new(last.clone()));
        match self {
            Self::Agent { id, .. } => Self::Agent { id, source },
            Self::Build { id, .. } => Self::Build { id, source: BuildError::Agent(source) },
            error => error,
        }
    }

    /// Returns the reason of the cancellation, if a cancellation ended the turn.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use turnwise::{agent_fn, CancelReason, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// # let agent = agent_fn(|prompt, turn| {
    /// #     turn.sleep(Duration::MAX)?;
    /// #     Ok(turn.finish(prompt))
    /// # });
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let turn = service.begin_session(CreateSessionRequest::new("hello"))?;
    /// turn.interrupt();
    /// match turn.wait() {
    ///     Err(error) if error.cancel_reason() == Some(CancelReason::Interrupted) => println!("as you wish"),
    ///     other => panic!("{other:?}"),
    /// }
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub const fn cancel_reason(&self) -> Option<CancelReason> {
        match self {
            Self::Interrupted { reason, .. }
            | Self::Agent { source: AgentError::Cancelled { reason }, .. }
            | Self::Build { source: BuildError::Agent(AgentError::Cancelled { reason }), .. } => Some(*reason),
            _ => None,
        }
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { id } => write!(f, "session {id} not found"),
            Self::Archived { id } => write!(f, "session {id} is archived"),
            Self::Busy { id, turn: Some(turn) } => write!(f, "session {id} is busy with turn {turn}"),
            Self::Busy { id, turn: None } => write!(f, "session {id} is busy"),
            Self::QueueFull { id, capacity } => {
                write!(f, "the queue of session {id} is full: {capacity} turns wait")
            }
            Self::InboxFull { id, capacity } => {
                write!(f, "the inbox of session {id} is full: {capacity} messages wait")
            }
            Self::NotRunning { id } => write!(f, "session {id} has no such turn running"),
            Self::NotFaulted { id } => write!(f, "session {id} is not faulted"),
            Self::AlreadyExists { id } => write!(f, "session {id} exists already"),
            Self::CapacityExceeded { active, max } => {
                write!(f, "no capacity for another session: {active} of {max} in use")
            }
            Self::InvalidReservation => f.write_str("the reservation is spent, or belongs to another service"),
            Self::ShuttingDown => f.write_str("the service is shutting down"),
            Self::Faulted { id, message } => write!(f, "session {id} is faulted: its agent panicked: {message}"),
            Self::Interrupted { id, reason } => write!(f, "session {id} stopped waiting: {reason}"),
            Self::Reentrant { id } => write!(f, "session {id} would wait for itself"),
            Self::Timeout { id, waited } => write!(f, "session {id} was not ready after {waited:?}"),
            Self::Ending { id, waited } => write!(f, "session {id} is ending, and had not ended after {waited:?}"),
            Self::Build { id, source } => write!(f, "session {id} could not be built: {source}"),
            Self::Agent { id, source } => write!(f, "the turn of session {id} failed: {source}"),
            Self::InputNotPending { id, input } => write!(f, "session {id} has no pending input request {input}"),
            Self::InvalidAnswer { id, input } => {
                write!(f, "the answer is none of the options of input request {input} of session {id}")
            }
            Self::InvalidId { source } => write!(f, "{source}"),
            Self::Spawn { source } => write!(f, "no thread for another session: {source}"),
            Self::Store { source, .. } => write!(f, "{source}"),
            #[cfg(feature = "redis")]
            Self::WorkerLost { id, turn } => write!(f, "the worker of turn {turn} of session {id} is gone"),
            #[cfg(feature = "redis")]
            Self::OutcomeUnknown { id, request, .. } => {
                write!(f, "the engine was away: the outcome of request {request} of session {id} is not known")
            }
            #[cfg(feature = "redis")]
            Self::HistoryLost { id, seen, found } => {
                write!(f, "the engine has lost turns of session {id}: {seen} were answered, and it knows {found}")
            }
        }
    }
}

/// The source behind the one whose text `Display` contains.
impl Error for SessionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Build { source, .. } => source.source(),
            Self::Agent { source, .. } => source.source(),
            Self::InvalidId { source } => source.source(),
            Self::Spawn { source } => source.source(),
            Self::Store { source, .. } => source.source(),
            _ => None,
        }
    }
}

impl fmt::Debug for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { id } => show!(f, "NotFound", id),
            Self::Archived { id } => show!(f, "Archived", id),
            Self::Busy { id, turn } => show!(f, "Busy", id turn),
            Self::QueueFull { id, capacity } => show!(f, "QueueFull", id capacity),
            Self::InboxFull { id, capacity } => show!(f, "InboxFull", id capacity),
            Self::NotRunning { id } => show!(f, "NotRunning", id),
            Self::NotFaulted { id } => show!(f, "NotFaulted", id),
            Self::AlreadyExists { id } => show!(f, "AlreadyExists", id),
            Self::CapacityExceeded { active, max } => show!(f, "CapacityExceeded", active max),
            Self::InvalidReservation => f.write_str("InvalidReservation"),
            Self::ShuttingDown => f.write_str("ShuttingDown"),
            Self::Faulted { id, message } => {
                // A panic's message may contain text of the conversation.
                f.debug_struct("Faulted").field("id", id).field("message", &Brief(message)).finish()
            }
            Self::Interrupted { id, reason } => show!(f, "Interrupted", id reason),
            Self::Reentrant { id } => show!(f, "Reentrant", id),
            Self::Timeout { id, waited } => show!(f, "Timeout", id waited),
            Self::Ending { id, waited } => show!(f, "Ending", id waited),
            Self::Build { id, source } => show!(f, "Build", id source),
            Self::Agent { id, source } => show!(f, "Agent", id source),
            Self::InputNotPending { id, input } => show!(f, "InputNotPending", id input),
            Self::InvalidAnswer { id, input } => show!(f, "InvalidAnswer", id input),
            Self::InvalidId { source } => show!(f, "InvalidId", source),
            Self::Spawn { source } => show!(f, "Spawn", source),
            Self::Store { id, source } => show!(f, "Store", id source),
            #[cfg(feature = "redis")]
            Self::WorkerLost { id, turn } => show!(f, "WorkerLost", id turn),
            #[cfg(feature = "redis")]
            Self::OutcomeUnknown { id, request, turn } => show!(f, "OutcomeUnknown", id request turn),
            #[cfg(feature = "redis")]
            Self::HistoryLost { id, seen, found } => show!(f, "HistoryLost", id seen found),
        }
    }
}

/// The cause of a failed build.
///
/// ```
/// use turnwise::{builder_fn, AgentError, BuildError, EphemeralSessionService, SessionAgent, SessionError};
/// use turnwise::{SessionService, SessionSpec};
///
/// let builder = builder_fn(|_, _| Err::<Box<dyn SessionAgent>, _>(AgentError::Config("no key is set".into())));
/// let service = EphemeralSessionService::new(builder, 1);
/// let error = service.open_session(SessionSpec::new()).unwrap_err();
/// assert!(matches!(&error, SessionError::Build { source: BuildError::Agent(AgentError::Config(_)), .. }));
/// assert_eq!(service.stats().sessions, 0); // no session remains
/// ```
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The builder returned this error.
    #[error(transparent)]
    Agent(AgentError),
    /// The builder panicked with this message.
    #[error("the builder panicked: {0}")]
    Panicked(Arc<str>),
}

impl BuildError {
    /// Converts to the error of the call that was to build session `id`.
    pub(crate) fn into_session_error(self, id: SessionId) -> SessionError {
        if let Self::Agent(AgentError::Other(source)) = &self {
            if let Some(NotBuilt(error)) = source.downcast_ref() {
                return error.clone();
            }
        }
        SessionError::Build { id, source: self }
    }
}

impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(error) => f.debug_tuple("Agent").field(error).finish(),
            // A panic's message may contain text of the conversation.
            Self::Panicked(message) => f.debug_tuple("Panicked").field(&Brief(message)).finish(),
        }
    }
}

/// A wrapper around the host's builder refused the agent for its own reason. The caller gets the inner error instead
/// of a [`SessionError::Build`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotBuilt(pub(crate) SessionError);

/// The error of an agent, in a turn or in its build.
///
/// ```
/// use turnwise::{agent_fn, AgentError, CreateSessionRequest, EphemeralSessionService, SessionService};
///
/// let agent = agent_fn(|prompt, turn| match prompt.parse::<u32>() {
///     Ok(0) => Err(AgentError::Tool { name: "divide".into(), message: "by zero".into() }),
///     Ok(number) => Ok(turn.finish((100 / number).to_string())),
///     Err(error) => Err(AgentError::other(error)), // any error converts
/// });
/// let service = EphemeralSessionService::new(agent, 2);
/// let ask = |prompt| service.create_session(CreateSessionRequest::new(prompt)).map_err(|error| error.to_string());
/// assert!(ask("0").unwrap_err().ends_with("failed: tool 'divide': by zero"));
/// assert!(ask("two").unwrap_err().ends_with("failed: invalid digit found in string"));
/// ```
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The turn was cancelled, and stopped.
    #[error("cancelled: {reason}")]
    Cancelled {
        /// The reason of the cancellation.
        reason: CancelReason,
    },
    /// A model call failed.
    #[error("{provider}: {reason}: {message}")]
    Llm {
        /// The model's provider.
        provider: String,
        /// The kind of failure.
        reason: LlmFailure,
        /// The provider's message.
        message: String,
    },
    /// A tool failed in a way that ends the turn.
    #[error("tool '{name}': {message}")]
    Tool {
        /// The tool's name.
        name: String,
        /// The tool's message.
        message: String,
    },
    /// The agent's configuration is wrong.
    #[error("configuration: {0}")]
    Config(String),
    /// The turn exceeded its token budget.
    #[error("token budget exceeded: {used} used of {limit}")]
    TokenBudgetExceeded {
        /// The tokens used.
        used: u64,
        /// The budget in tokens.
        limit: u64,
    },
    /// The turn exceeded its time budget.
    #[error("time budget exceeded: {elapsed:?} of {limit:?}")]
    TimeBudgetExceeded {
        /// The time taken.
        elapsed: Duration,
        /// The time budget.
        limit: Duration,
    },
    /// The turn exceeded its tool call budget.
    #[error("tool call budget exceeded: {count} calls of {limit}")]
    ToolCallBudgetExceeded {
        /// The number of calls made.
        count: u32,
        /// The maximum number of calls.
        limit: u32,
    },
    /// The turn exceeded its number of model calls.
    #[error("still not done after {turns} model calls")]
    MaxTurnsReached {
        /// The number of model calls made.
        turns: u32,
    },
    /// The host must run this tool and start another turn with its result. Until then the session shows it as
    /// [`SessionInfo::callback_pending`](crate::SessionInfo::callback_pending).
    #[error("waiting for the host to run tool '{tool_name}'")]
    CallbackPending {
        /// The tool's name.
        tool_name: String,
        /// The arguments as JSON text.
        args: String,
    },
    /// The agent has an internal error.
    #[error("internal error: {0}")]
    Internal(String),
    /// Any other error.
    #[error(transparent)]
    Other(Arc<dyn Error + Send + Sync>),
}

/// The kind of failure of a model call.
///
/// ```
/// use std::time::Duration;
/// use turnwise::{AgentError, LlmFailure};
///
/// let reason = LlmFailure::RateLimited { retry_after: Some(Duration::from_secs(2)) };
/// assert!(reason.is_retryable());
/// assert!(!LlmFailure::Auth.is_retryable());
/// let error = AgentError::Llm { provider: "acme".into(), reason, message: "slow down".into() };
/// assert!(error.is_retryable());
/// assert_eq!(error.to_string(), "acme: rate limited: slow down");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LlmFailure {
    /// The caller made too many calls.
    #[error("rate limited")]
    RateLimited {
        /// How long to wait before a retry, if the provider says so.
        retry_after: Option<Duration>,
    },
    /// The conversation is too long for the model.
    #[error("context of {requested} tokens exceeds {max}")]
    ContextExceeded {
        /// The model's maximum, in tokens.
        max: u64,
        /// The size of the request, in tokens.
        requested: u64,
    },
    /// The provider rejected the key.
    #[error("not authorised")]
    Auth,
    /// The model does not exist.
    #[error("unknown model '{0}'")]
    InvalidModel(String),
    /// The provider could not parse the request.
    #[error("bad request")]
    InvalidRequest,
    /// The connection failed or was cut.
    #[error("network failure")]
    Network,
    /// The provider took too long.
    #[error("timed out")]
    Timeout,
    /// The provider failed or is overloaded.
    #[error("provider failure")]
    Provider,
}

impl LlmFailure {
    /// Returns whether a retry of the same call may succeed.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::RateLimited { .. } | Self::Network | Self::Timeout | Self::Provider)
    }
}

impl AgentError {
    /// The tool that the host must run, if this is [`AgentError::CallbackPending`].
    pub(crate) fn callback(&self) -> Option<CallbackPending> {
        match self {
            Self::CallbackPending { tool_name, args } => Some(CallbackPending::new(tool_name.clone(), args.clone())),
            _ => None,
        }
    }

    /// Wraps any error as [`AgentError::Other`], shared and with its sources.
    ///
    /// ```
    /// use turnwise::AgentError;
    ///
    /// fn read_setting(file: &str) -> Result<String, AgentError> {
    ///     let text = std::fs::read_to_string(file)?; // `?` converts I/O errors
    ///     let first = text.lines().next().ok_or_else(|| AgentError::other("the file is empty"))?;
    ///     Ok(first.to_owned())
    /// }
    ///
    /// assert!(matches!(read_setting("there/is/no/such/file"), Err(AgentError::Other(_))));
    /// ```
    ///
    /// A [`SessionError`] that is passed on (mostly by `?`) is nested, as sub-agents are, to a depth of eight. Beyond
    /// that, errors between the outermost and the innermost are left out. So the length of such an error's text, and
    /// the stack needed to display it, do not grow with the chain.
    pub fn other(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        match error.into().downcast::<SessionError>() {
            Ok(error) => Self::Other(Arc::new(error.shorten_chain())),
            Err(error) => Self::Other(Arc::from(error)),
        }
    }

    /// Returns the inner error, where this is an [`AgentError::Other`] of type `E`.
    ///
    /// ```
    /// use std::io;
    /// use turnwise::{agent_fn, AgentError, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let agent = agent_fn(|_, _| Err(io::Error::from(io::ErrorKind::NotFound).into()));
    /// let error = EphemeralSessionService::new(agent, 1).create_session(CreateSessionRequest::new("hello")).unwrap_err();
    /// let cause = error.agent_error().and_then(AgentError::downcast_ref::<io::Error>);
    /// assert_eq!(cause.map(io::Error::kind), Some(io::ErrorKind::NotFound));
    /// ```
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        match self {
            Self::Other(source) => source.downcast_ref(),
            _ => None,
        }
    }

    /// Returns whether the agent stopped at one of its limits. The history is consistent, and another turn may
    /// continue from it.
    ///
    /// ```
    /// use turnwise::AgentError;
    ///
    /// assert!(AgentError::MaxTurnsReached { turns: 8 }.is_graceful()); // a host may ask the user whether to go on
    /// assert!(!AgentError::Internal("no such state".into()).is_graceful());
    /// ```
    pub const fn is_graceful(&self) -> bool {
        matches!(
            self,
            Self::TokenBudgetExceeded { .. }
                | Self::TimeBudgetExceeded { .. }
                | Self::ToolCallBudgetExceeded { .. }
                | Self::MaxTurnsReached { .. }
        )
    }

    /// Returns whether a retry of the same turn may succeed.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Llm { reason, .. } if reason.is_retryable())
    }
}

impl fmt::Debug for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled { reason } => show!(f, "Cancelled", reason),
            Self::Llm { provider, reason, message } => show!(f, "Llm", provider reason message),
            Self::Tool { name, message } => show!(f, "Tool", name message),
            Self::Config(message) => f.debug_tuple("Config").field(message).finish(),
            Self::TokenBudgetExceeded { used, limit } => show!(f, "TokenBudgetExceeded", used limit),
            Self::TimeBudgetExceeded { elapsed, limit } => show!(f, "TimeBudgetExceeded", elapsed limit),
            Self::ToolCallBudgetExceeded { count, limit } => show!(f, "ToolCallBudgetExceeded", count limit),
            Self::MaxTurnsReached { turns } => show!(f, "MaxTurnsReached", turns),
            // Tool arguments are text of the conversation.
            Self::CallbackPending { tool_name, args } => {
                f.debug_struct("CallbackPending").field("tool_name", tool_name).field("args", &Brief(args)).finish()
            }
            // The library reports panics with it. Their messages may contain text of the conversation.
            Self::Internal(message) => f.debug_tuple("Internal").field(&Brief(message)).finish(),
            Self::Other(source) => f.debug_tuple("Other").field(source).finish(),
        }
    }
}

impl From<Cancelled> for AgentError {
    fn from(cancelled: Cancelled) -> Self {
        Self::Cancelled { reason: cancelled.reason }
    }
}

impl From<InputError> for AgentError {
    fn from(error: InputError) -> Self {
        match error {
            InputError::Cancelled(Cancelled { reason }) => Self::Cancelled { reason },
            error => Self::other(error),
        }
    }
}

impl From<InvalidId> for SessionError {
    fn from(source: InvalidId) -> Self {
        Self::InvalidId { source }
    }
}

impl From<InvalidId> for AgentError {
    fn from(error: InvalidId) -> Self {
        Self::other(error)
    }
}

impl From<io::Error> for AgentError {
    fn from(error: io::Error) -> Self {
        Self::other(error)
    }
}

/// A wait that ended by the cancellation of the agent's own turn becomes [`AgentError::Cancelled`]. Every other
/// service error keeps its type.
impl From<SessionError> for AgentError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Interrupted { reason, .. } => Self::Cancelled { reason },
            error => Self::other(error),
        }
    }
}

impl From<Box<dyn Error + Send + Sync>> for AgentError {
    fn from(error: Box<dyn Error + Send + Sync>) -> Self {
        Self::other(error)
    }
}

/// The error of a [`ServiceConfig`](crate::ServiceConfig) that cannot make a service.
///
/// ```
/// use turnwise::{agent_fn, ConfigError, EphemeralSessionService};
///
/// let config = EphemeralSessionService::configure(agent_fn(|prompt, turn| Ok(turn.finish(prompt))));
/// let error = config.max_running_turns(0).build().unwrap_err();
/// assert!(matches!(error, ConfigError::OutOfRange { option: "max_running_turns", value: 0, min: 1, .. }));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value is out of range.
    #[error("{option} of {value} is out of range: {min} to {max}")]
    OutOfRange {
        /// The option's name, as its setter is called.
        option: &'static str,
        /// The requested value.
        value: usize,
        /// The minimum.
        min: usize,
        /// The maximum.
        max: usize,
    },
    /// A duration is zero.
    #[error("{option} has a duration of zero")]
    ZeroDuration {
        /// The option's name, as its setter is called.
        option: &'static str,
    },
    /// A thread's name cannot contain a NUL character.
    #[error("thread_name_prefix contains a NUL character")]
    ThreadName,
}
