//! What can go wrong: [`SessionError`] for callers, [`AgentError`] for agents, [`ConfigError`] for configurations.

use std::error::Error;
use std::fmt;
use std::io;
use std::iter::successors;
use std::time::Duration;

use crate::model::{Brief, SessionId, TurnId};
use crate::sync::Arc;

/// How deep errors of sessions are nested in each other; see [`AgentError::other`].
const MOST_NESTED: usize = 8;

/// The body of one arm of a `Debug`: every field by its own `Debug`.
macro_rules! show {
    ($f:ident, $name:literal, $($field:ident)*) => {{
        let mut out = $f.debug_struct($name);
        $(out.field(stringify!($field), $field);)*
        out.finish()
    }};
}

/// Why a turn was told to stop.
///
/// ```
/// use std::time::Duration;
/// use turnwise::{agent_fn, CancelReason, CreateSessionRequest, EphemeralSessionService, SessionService};
///
/// let agent = agent_fn(|prompt, turn| {
///     turn.sleep(Duration::MAX)?; // only a cancel ends it
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
    /// The request's timeout ran out.
    DeadlineExceeded,
    /// The session was archived with [`ArchiveMode::Interrupt`](crate::ArchiveMode::Interrupt).
    Archived,
    /// The service was shut down, or its last handle was dropped.
    Shutdown,
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupted => "interrupted",
            Self::DeadlineExceeded => "deadline exceeded",
            Self::Archived => "session archived",
            Self::Shutdown => "service shut down",
        })
    }
}

/// The turn has been told to stop. An agent passes it on with `?`.
///
/// ```
/// use turnwise::{AgentError, CancelReason, Cancelled};
///
/// /// A part of an agent that is handed what to ask, and not the turn.
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
    /// Why.
    pub reason: CancelReason,
}

/// Why a call to a service failed.
///
/// Cheap to clone: sources are shared. [`code`](SessionError::code) is stable, for programs and logs;
/// [`session_id`](SessionError::session_id) names the session where there is one.
///
/// `Display` contains the text of the variant's source, so a program can print the error alone.
/// [`source`](std::error::Error::source) therefore begins behind it: a printer of the whole chain repeats nothing. For the typed
/// error of an agent or of a store see [`agent_error`](Self::agent_error), [`AgentError::downcast_ref`] and `StoreError::of`.
/// `Debug` shows the text of a panic by its length only.
///
/// ```
/// use turnwise::{agent_fn, EphemeralSessionService, SessionError, SessionId, SessionService};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
/// let nobody = SessionId::new();
/// let error = service.read(nobody).unwrap_err();
/// assert!(matches!(error, SessionError::NotFound { id } if id == nobody));
/// assert_eq!(error.code(), "SESSION_NOT_FOUND");
/// assert_eq!(error.session_id(), Some(nobody));
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum SessionError {
    /// There is no such session: there never was, its build failed, or it is archived and was not kept.
    NotFound {
        /// The session.
        id: SessionId,
    },
    /// A kept session is archived: it can be read and exported, but runs no more turns. Only services that keep sessions answer
    /// with this.
    Archived {
        /// The session.
        id: SessionId,
    },
    /// The session is building or runs a turn; turns do not queue.
    Busy {
        /// The session.
        id: SessionId,
        /// The turn that is admitted. `None` where there is no turn: the session is being opened, resumed, unloaded or taken.
        turn: Option<TurnId>,
    },
    /// There is no turn to interrupt.
    NotRunning {
        /// The session.
        id: SessionId,
    },
    /// The id is taken by a live session. An archived session that still finishes its turn is live.
    AlreadyExists {
        /// The session.
        id: SessionId,
    },
    /// The service has as many sessions as it may.
    CapacityExceeded {
        /// Sessions that hold capacity, archived ones that have not ended yet included.
        active: usize,
        /// The limit.
        max: usize,
    },
    /// The service takes no new work.
    ShuttingDown,
    /// The session's agent has panicked. The session can be read, exported and archived, but runs no more turns.
    Faulted {
        /// The session.
        id: SessionId,
        /// What the panic said.
        message: Arc<str>,
    },
    /// A wait on a session's own thread ended because the session's own turn was cancelled. What was waited for goes on.
    Interrupted {
        /// The session that was waiting.
        id: SessionId,
        /// Why its turn was cancelled.
        reason: CancelReason,
    },
    /// The session would wait for itself, at once or through a chain of sessions that wait for each other.
    Reentrant {
        /// The session that asked.
        id: SessionId,
    },
    /// A bounded wait ran out.
    Timeout {
        /// The session.
        id: SessionId,
        /// How long the call waited.
        waited: Duration,
    },
    /// A bounded wait ran out after the call had taken effect: the session ends, and its thread has not ended yet.
    Ending {
        /// The session.
        id: SessionId,
        /// How long the call waited.
        waited: Duration,
    },
    /// The agent could not be built; there is no session.
    Build {
        /// The session that would have been.
        id: SessionId,
        /// Why not.
        source: BuildError,
    },
    /// The agent failed its turn; the session goes on. A cancelled turn ends like this too, mostly with
    /// [`AgentError::Cancelled`]: see [`SessionError::cancel_reason`].
    Agent {
        /// The session.
        id: SessionId,
        /// What the agent said.
        source: AgentError,
    },
    /// The system refuses another thread.
    Spawn {
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A session's record could not be read or written, of services that keep sessions: with the feature `store` the source is
    /// a `turnwise::store::StoreError`.
    Store {
        /// The session, where it is about one.
        id: Option<SessionId>,
        /// What the store said.
        source: Arc<dyn Error + Send + Sync>,
    },
}

impl SessionError {
    /// A name for the kind of error that does not change between releases.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "SESSION_NOT_FOUND",
            Self::Archived { .. } => "SESSION_ARCHIVED",
            Self::Busy { .. } => "SESSION_BUSY",
            Self::NotRunning { .. } => "SESSION_NOT_RUNNING",
            Self::AlreadyExists { .. } => "SESSION_ALREADY_EXISTS",
            Self::CapacityExceeded { .. } => "CAPACITY_EXCEEDED",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::Faulted { .. } => "SESSION_FAULTED",
            Self::Interrupted { .. } => "SESSION_INTERRUPTED",
            Self::Reentrant { .. } => "SESSION_REENTRANT",
            Self::Timeout { .. } => "SESSION_TIMEOUT",
            Self::Ending { .. } => "SESSION_ENDING",
            Self::Build { .. } => "SESSION_BUILD_FAILED",
            Self::Agent { .. } => "AGENT_ERROR",
            Self::Spawn { .. } => "THREAD_SPAWN_FAILED",
            Self::Store { .. } => "STORE_FAILED",
        }
    }

    /// The session concerned, if it is about one.
    pub const fn session_id(&self) -> Option<SessionId> {
        match self {
            Self::NotFound { id }
            | Self::Archived { id }
            | Self::Busy { id, .. }
            | Self::NotRunning { id }
            | Self::AlreadyExists { id }
            | Self::Faulted { id, .. }
            | Self::Interrupted { id, .. }
            | Self::Reentrant { id }
            | Self::Timeout { id, .. }
            | Self::Ending { id, .. }
            | Self::Build { id, .. }
            | Self::Agent { id, .. } => Some(*id),
            Self::Store { id, .. } => *id,
            Self::CapacityExceeded { .. } | Self::ShuttingDown | Self::Spawn { .. } => None,
        }
    }

    /// What the agent said in a turn or while it was built, or what was said for it ([`AgentError::Cancelled`], where it was not even
    /// asked): for messages to people who need not know about sessions.
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

    /// What another session has failed with, where the agent has passed that on.
    fn nested(&self) -> Option<&Self> {
        match self.agent_error()? {
            AgentError::Other(source) => source.downcast_ref(),
            _ => None,
        }
    }

    /// Itself, but for those between the first and the last where there are more than a stack has room for: every level is one more
    /// call when it is put into words, and when it is dropped.
    fn without_the_middle(self) -> Self {
        let last = successors(self.nested(), |error| error.nested()).enumerate().last();
        let Some((_, last)) = last.filter(|(above, _)| above + 1 >= MOST_NESTED) else { return self };
        let source = AgentError::Other(Arc::new(last.clone()));
        match self {
            Self::Agent { id, .. } => Self::Agent { id, source },
            Self::Build { id, .. } => Self::Build { id, source: BuildError::Agent(source) },
            error => error,
        }
    }

    /// Why the turn was cancelled, if that is how it ended.
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
            Self::NotRunning { id } => write!(f, "session {id} has no such turn running"),
            Self::AlreadyExists { id } => write!(f, "session {id} exists already"),
            Self::CapacityExceeded { active, max } => {
                write!(f, "no capacity for another session: {active} of {max} in use")
            }
            Self::ShuttingDown => f.write_str("the service is shutting down"),
            Self::Faulted { id, message } => write!(f, "session {id} is faulted: its agent panicked: {message}"),
            Self::Interrupted { id, reason } => write!(f, "session {id} stopped waiting: {reason}"),
            Self::Reentrant { id } => write!(f, "session {id} would wait for itself"),
            Self::Timeout { id, waited } => write!(f, "session {id} was not ready after {waited:?}"),
            Self::Ending { id, waited } => write!(f, "session {id} is ending, and had not ended after {waited:?}"),
            Self::Build { id, source } => write!(f, "session {id} could not be built: {source}"),
            Self::Agent { id, source } => write!(f, "the turn of session {id} failed: {source}"),
            Self::Spawn { source } => write!(f, "no thread for another session: {source}"),
            Self::Store { source, .. } => write!(f, "{source}"),
        }
    }
}

/// The sources that `Display` does not contain already.
impl Error for SessionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Build { source, .. } => source.source(),
            Self::Agent { source, .. } => source.source(),
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
            Self::NotRunning { id } => show!(f, "NotRunning", id),
            Self::AlreadyExists { id } => show!(f, "AlreadyExists", id),
            Self::CapacityExceeded { active, max } => show!(f, "CapacityExceeded", active max),
            Self::ShuttingDown => f.write_str("ShuttingDown"),
            Self::Faulted { id, message } => {
                // The text of a panic may be part of the conversation.
                f.debug_struct("Faulted").field("id", id).field("message", &Brief(message)).finish()
            }
            Self::Interrupted { id, reason } => show!(f, "Interrupted", id reason),
            Self::Reentrant { id } => show!(f, "Reentrant", id),
            Self::Timeout { id, waited } => show!(f, "Timeout", id waited),
            Self::Ending { id, waited } => show!(f, "Ending", id waited),
            Self::Build { id, source } => show!(f, "Build", id source),
            Self::Agent { id, source } => show!(f, "Agent", id source),
            Self::Spawn { source } => show!(f, "Spawn", source),
            Self::Store { id, source } => show!(f, "Store", id source),
        }
    }
}

/// Why there is no agent.
///
/// ```
/// use turnwise::{builder_fn, AgentError, BuildError, EphemeralSessionService, SessionAgent, SessionError};
/// use turnwise::{SessionService, SessionSpec};
///
/// let builder = builder_fn(|_, _| Err::<Box<dyn SessionAgent>, _>(AgentError::Config("no key is set".into())));
/// let service = EphemeralSessionService::new(builder, 1);
/// let error = service.open_session(SessionSpec::new()).unwrap_err();
/// assert!(matches!(&error, SessionError::Build { source: BuildError::Agent(AgentError::Config(_)), .. }));
/// assert_eq!(service.stats().sessions, 0); // nothing is left of it
/// ```
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The builder returned this.
    #[error(transparent)]
    Agent(AgentError),
    /// The builder panicked with this message.
    #[error("the builder panicked: {0}")]
    Panicked(Arc<str>),
}

impl BuildError {
    /// The error of the call that wanted to build session `id`.
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
            // The text of a panic may be part of the conversation.
            Self::Panicked(message) => f.debug_tuple("Panicked").field(&Brief(message)).finish(),
        }
    }
}

/// A layer around the host's builder refuses the agent for a reason of its own: the caller gets this error, and not a
/// [`SessionError::Build`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotBuilt(pub(crate) SessionError);

/// Why an agent's turn, or its building, failed.
///
/// ```
/// use turnwise::{agent_fn, AgentError, CreateSessionRequest, EphemeralSessionService, SessionService};
///
/// let agent = agent_fn(|prompt, turn| match prompt.parse::<u32>() {
///     Ok(0) => Err(AgentError::Tool { name: "divide".into(), message: "by zero".into() }),
///     Ok(number) => Ok(turn.finish((100 / number).to_string())),
///     Err(error) => Err(AgentError::other(error)), // any error will do
/// });
/// let service = EphemeralSessionService::new(agent, 2);
/// let ask = |prompt| service.create_session(CreateSessionRequest::new(prompt)).map_err(|error| error.to_string());
/// assert!(ask("0").unwrap_err().ends_with("failed: tool 'divide': by zero"));
/// assert!(ask("two").unwrap_err().ends_with("failed: invalid digit found in string"));
/// ```
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The turn was told to stop, and stopped.
    #[error("cancelled: {reason}")]
    Cancelled {
        /// Why.
        reason: CancelReason,
    },
    /// A model call failed.
    #[error("{provider}: {reason}: {message}")]
    Llm {
        /// Whose model.
        provider: String,
        /// What kind of failure.
        reason: LlmFailure,
        /// What the provider said.
        message: String,
    },
    /// A tool failed in a way that ends the turn.
    #[error("tool '{name}': {message}")]
    Tool {
        /// Which tool.
        name: String,
        /// What it said.
        message: String,
    },
    /// The agent was set up wrongly.
    #[error("configuration: {0}")]
    Config(String),
    /// The turn used more tokens than it may.
    #[error("token budget exceeded: {used} used of {limit}")]
    TokenBudgetExceeded {
        /// Tokens used.
        used: u64,
        /// Tokens allowed.
        limit: u64,
    },
    /// The turn took longer than its agent allows.
    #[error("time budget exceeded: {elapsed:?} of {limit:?}")]
    TimeBudgetExceeded {
        /// Time taken.
        elapsed: Duration,
        /// Time allowed.
        limit: Duration,
    },
    /// The turn made more tool calls than it may.
    #[error("tool call budget exceeded: {count} calls of {limit}")]
    ToolCallBudgetExceeded {
        /// Calls made.
        count: u32,
        /// Calls allowed.
        limit: u32,
    },
    /// The turn called its model more often than it may.
    #[error("still not done after {turns} model calls")]
    MaxTurnsReached {
        /// Model calls made.
        turns: u32,
    },
    /// The host has to run this tool and start another turn with its result.
    #[error("waiting for the host to run tool '{tool_name}'")]
    CallbackPending {
        /// Which tool.
        tool_name: String,
        /// Its arguments as JSON text.
        args: String,
    },
    /// Something in the agent is broken.
    #[error("internal error: {0}")]
    Internal(String),
    /// Anything else.
    #[error(transparent)]
    Other(Arc<dyn Error + Send + Sync>),
}

/// What kind of failure a model call met.
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
    /// Too many calls.
    #[error("rate limited")]
    RateLimited {
        /// When to try again, if the provider says so.
        retry_after: Option<Duration>,
    },
    /// The conversation is too long for the model.
    #[error("context of {requested} tokens exceeds {max}")]
    ContextExceeded {
        /// What the model takes, in tokens.
        max: u64,
        /// What it was given, in tokens.
        requested: u64,
    },
    /// The provider does not accept the key.
    #[error("not authorised")]
    Auth,
    /// There is no such model.
    #[error("unknown model '{0}'")]
    InvalidModel(String),
    /// The request could not be understood.
    #[error("bad request")]
    InvalidRequest,
    /// The connection failed or was cut.
    #[error("network failure")]
    Network,
    /// The provider took too long.
    #[error("timed out")]
    Timeout,
    /// The provider is at fault or overloaded.
    #[error("provider failure")]
    Provider,
}

impl LlmFailure {
    /// Whether the same call may well succeed later.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::RateLimited { .. } | Self::Network | Self::Timeout | Self::Provider)
    }
}

impl AgentError {
    /// Any error as an [`AgentError::Other`], shared and with its sources.
    ///
    /// ```
    /// use turnwise::AgentError;
    ///
    /// fn read_setting(file: &str) -> Result<String, AgentError> {
    ///     let text = std::fs::read_to_string(file)?; // errors of input and output need no more than this
    ///     let first = text.lines().next().ok_or_else(|| AgentError::other("the file is empty"))?;
    ///     Ok(first.to_owned())
    /// }
    ///
    /// assert!(matches!(read_setting("there/is/no/such/file"), Err(AgentError::Other(_))));
    /// ```
    ///
    /// A [`SessionError`] that is passed on as it is (by `?`, mostly) is nested as sub-agents are, to a depth of eight. Where there would
    /// be more, some of those between the first and the last are left out: what such an error says, and the stack that it takes to
    /// say it, does not grow with the length of the chain.
    pub fn other(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        match error.into().downcast::<SessionError>() {
            Ok(error) => Self::Other(Arc::new(error.without_the_middle())),
            Err(error) => Self::Other(Arc::from(error)),
        }
    }

    /// The error of type `E` that the agent failed with, where it is an [`AgentError::Other`] of that type.
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

    /// Whether the agent stopped at a limit that it was given: the history is sound and another turn may go on from it.
    ///
    /// ```
    /// use turnwise::AgentError;
    ///
    /// assert!(AgentError::MaxTurnsReached { turns: 8 }.is_graceful()); // a host may ask whether to go on
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

    /// Whether the same turn may well succeed later.
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
            // Tool arguments are part of the conversation.
            Self::CallbackPending { tool_name, args } => {
                f.debug_struct("CallbackPending").field("tool_name", tool_name).field("args", &Brief(args)).finish()
            }
            // The library reports panics with it, whose text may be part of the conversation.
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

impl From<io::Error> for AgentError {
    fn from(error: io::Error) -> Self {
        Self::other(error)
    }
}

/// A wait that the agent's own cancellation ended is a cancelled turn; every other error of a service keeps its type.
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

/// Why a [`ServiceConfig`](crate::ServiceConfig) makes no service.
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
    /// A figure that cannot work.
    #[error("{option} of {value} is out of range: {min} to {max}")]
    OutOfRange {
        /// The option, as its setter is called.
        option: &'static str,
        /// What was asked for.
        value: usize,
        /// The least that works.
        min: usize,
        /// The most that works.
        max: usize,
    },
    /// A thread's name cannot contain a NUL character.
    #[error("thread_name_prefix contains a NUL character")]
    ThreadName,
}
