//! What workers and clients tell each other through the engine, as JSON, and the costs of events.
//!
//! A result that a client gets is the one that the worker's session thread has computed. Two things do not cross: the type
//! of an [`AgentError::Other`], of which the text remains, and the source of a [`SessionError::Store`], likewise.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{AgentError, BuildError, CancelReason, LlmFailure, SessionError};
use crate::model::{InputId, RunResult, Session, SessionId, SkillId, ToolResult, TurnId};
use crate::service::{SessionSpec, StartTurnRequest};
use crate::sync::Arc;

/// How much a client lets a worker send of a feed before it has read anything: 256 small events, or 1 MiB.
pub(super) const WINDOW: u64 = 1 << 20;
/// The cost of a small event.
const MIN_COST: u64 = WINDOW / 256;

/// What an event takes of the window, by the length of its JSON.
pub(super) fn cost(json: usize) -> u64 {
    MIN_COST.max(json as u64)
}

/// The order of a client to a worker: a build, a turn, or both.
#[derive(Serialize, Deserialize)]
pub(super) struct Order {
    /// For a new session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) spec: Option<Spec>,
    /// `None` for a build without a turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) turn: Option<TurnOrder>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Spec {
    model: String,
    system_prompt: Option<String>,
    max_tokens: Option<u32>,
    resume: Option<Session>,
    labels: BTreeMap<String, String>,
    rewrites_history: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct TurnOrder {
    prompt: String,
    #[serde(default)]
    host_mode: bool,
    #[serde(default)]
    skills: Option<Vec<SkillId>>,
    #[serde(default)]
    timeout: Option<Duration>,
    #[serde(default)]
    tool_results: Vec<ToolResult>,
    /// Whether the client wants the events. The feed has the name of the request.
    #[serde(default)]
    pub(super) has_feed: bool,
}

impl Order {
    pub(super) fn turn(request: &StartTurnRequest) -> Self {
        Self { spec: None, turn: Some(TurnOrder::new(request)) }
    }

    pub(super) fn session(spec: &SessionSpec, turn: Option<&StartTurnRequest>) -> Self {
        Self { spec: Some(Spec::new(spec)), turn: turn.map(TurnOrder::new) }
    }
}

impl Spec {
    fn new(spec: &SessionSpec) -> Self {
        Self {
            model: spec.model.clone(),
            system_prompt: spec.system_prompt.clone(),
            max_tokens: spec.max_tokens,
            resume: spec.resume.clone(),
            labels: spec.labels.clone(),
            rewrites_history: spec.rewrites_history,
        }
    }

    pub(super) fn into_spec(self, id: SessionId) -> SessionSpec {
        SessionSpec {
            session_id: Some(id),
            model: self.model,
            system_prompt: self.system_prompt,
            max_tokens: self.max_tokens,
            resume: self.resume.map(|history| history.owned_by(id)),
            labels: self.labels,
            rewrites_history: self.rewrites_history,
            ..SessionSpec::new()
        }
    }
}

impl TurnOrder {
    fn new(request: &StartTurnRequest) -> Self {
        Self {
            prompt: request.prompt.clone(),
            host_mode: request.host_mode,
            skills: request.skill_references.clone(),
            timeout: request.timeout,
            tool_results: request.tool_results.clone(),
            has_feed: request.event_tx.is_some(),
        }
    }

    pub(super) fn into_request(self) -> StartTurnRequest {
        StartTurnRequest {
            prompt: self.prompt,
            host_mode: self.host_mode,
            skill_references: self.skills,
            timeout: self.timeout,
            tool_results: self.tool_results,
            ..StartTurnRequest::default()
        }
    }
}

/// The options of a subscription that the worker has to know. What happens to an event without room is the client's
/// matter.
#[derive(Serialize, Deserialize)]
pub(super) struct FeedOptions {
    pub(super) from_seq: Option<u64>,
}

/// The result of a turn.
pub(super) type Verdict = Result<RunResult, Failure>;

/// A [`SessionError`] of the session that the verdict is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Failure {
    NotFound,
    Archived,
    Busy {
        turn: Option<TurnId>,
    },
    QueueFull {
        capacity: usize,
    },
    InboxFull {
        capacity: usize,
    },
    NotRunning,
    NotFaulted,
    AlreadyExists,
    Capacity {
        active: usize,
        max: usize,
    },
    ShuttingDown,
    Faulted {
        message: String,
    },
    Interrupted {
        reason: CancelReason,
    },
    Timeout {
        waited: Duration,
    },
    Ending {
        waited: Duration,
    },
    Build(AgentFailure),
    BuildPanicked {
        message: String,
    },
    Agent(AgentFailure),
    InputNotPending {
        input: InputId,
    },
    InvalidAnswer {
        input: InputId,
    },
    Store {
        text: String,
    },
    /// An error of another session, or one that has no counterpart here.
    Other {
        text: String,
    },
}

/// An [`AgentError`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AgentFailure {
    Cancelled {
        reason: CancelReason,
    },
    Llm {
        provider: String,
        reason: Llm,
        message: String,
    },
    Tool {
        name: String,
        message: String,
    },
    Config(String),
    TokenBudget {
        used: u64,
        limit: u64,
    },
    TimeBudget {
        elapsed: Duration,
        limit: Duration,
    },
    ToolCallBudget {
        count: u32,
        limit: u32,
    },
    MaxTurns {
        turns: u32,
    },
    CallbackPending {
        tool_name: String,
        args: String,
    },
    Internal(String),
    /// A failure of a sub-agent.
    Session {
        id: SessionId,
        failure: Box<Failure>,
    },
    Store {
        text: String,
    },
    Other {
        text: String,
    },
}

/// An [`LlmFailure`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Llm {
    RateLimited { retry_after: Option<Duration> },
    ContextExceeded { max: u64, requested: u64 },
    Auth,
    InvalidModel(String),
    InvalidRequest,
    Network,
    Timeout,
    Provider,
}

/// The text of an error whose type has stayed with the worker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
struct RemoteError(String);

impl Failure {
    pub(super) fn new(error: &SessionError) -> Self {
        match error {
            SessionError::NotFound { .. } => Self::NotFound,
            SessionError::Archived { .. } => Self::Archived,
            SessionError::Busy { turn, .. } => Self::Busy { turn: *turn },
            SessionError::QueueFull { capacity, .. } => Self::QueueFull { capacity: *capacity },
            SessionError::InboxFull { capacity, .. } => Self::InboxFull { capacity: *capacity },
            SessionError::NotRunning { .. } => Self::NotRunning,
            SessionError::NotFaulted { .. } => Self::NotFaulted,
            SessionError::AlreadyExists { .. } => Self::AlreadyExists,
            SessionError::CapacityExceeded { active, max } => Self::Capacity { active: *active, max: *max },
            SessionError::ShuttingDown => Self::ShuttingDown,
            SessionError::Faulted { message, .. } => Self::Faulted { message: message.to_string() },
            SessionError::Interrupted { reason, .. } => Self::Interrupted { reason: *reason },
            SessionError::Timeout { waited, .. } => Self::Timeout { waited: *waited },
            SessionError::Ending { waited, .. } => Self::Ending { waited: *waited },
            SessionError::Build { source: BuildError::Agent(source), .. } => Self::Build(AgentFailure::new(source)),
            SessionError::Build { source: BuildError::Panicked(message), .. } => {
                Self::BuildPanicked { message: message.to_string() }
            }
            SessionError::Agent { source, .. } => Self::Agent(AgentFailure::new(source)),
            SessionError::InputNotPending { input, .. } => Self::InputNotPending { input: *input },
            SessionError::InvalidAnswer { input, .. } => Self::InvalidAnswer { input: *input },
            SessionError::Store { source, .. } => Self::Store { text: text_of(source) },
            other => Self::Other { text: text_of(other) },
        }
    }

    pub(super) fn into_error(self, id: SessionId) -> SessionError {
        match self {
            Self::NotFound => SessionError::NotFound { id },
            Self::Archived => SessionError::Archived { id },
            Self::Busy { turn } => SessionError::Busy { id, turn },
            Self::QueueFull { capacity } => SessionError::QueueFull { id, capacity },
            Self::InboxFull { capacity } => SessionError::InboxFull { id, capacity },
            Self::NotRunning => SessionError::NotRunning { id },
            Self::NotFaulted => SessionError::NotFaulted { id },
            Self::AlreadyExists => SessionError::AlreadyExists { id },
            Self::Capacity { active, max } => SessionError::CapacityExceeded { active, max },
            Self::ShuttingDown => SessionError::ShuttingDown,
            Self::Faulted { message } => SessionError::Faulted { id, message: message.into() },
            Self::Interrupted { reason } => SessionError::Interrupted { id, reason },
            Self::Timeout { waited } => SessionError::Timeout { id, waited },
            Self::Ending { waited } => SessionError::Ending { id, waited },
            Self::Build(source) => SessionError::Build { id, source: BuildError::Agent(source.into_error()) },
            Self::BuildPanicked { message } => SessionError::Build { id, source: BuildError::Panicked(message.into()) },
            Self::Agent(source) => SessionError::Agent { id, source: source.into_error() },
            Self::InputNotPending { input } => SessionError::InputNotPending { id, input },
            Self::InvalidAnswer { input } => SessionError::InvalidAnswer { id, input },
            Self::Store { text } => SessionError::Store { id: Some(id), source: Arc::new(RemoteError(text)) },
            Self::Other { text } => SessionError::Agent { id, source: AgentError::Other(Arc::new(RemoteError(text))) },
        }
    }
}

impl AgentFailure {
    fn new(error: &AgentError) -> Self {
        match error {
            AgentError::Cancelled { reason } => Self::Cancelled { reason: *reason },
            AgentError::Llm { provider, reason, message } => {
                Self::Llm { provider: provider.clone(), reason: Llm::new(reason), message: message.clone() }
            }
            AgentError::Tool { name, message } => Self::Tool { name: name.clone(), message: message.clone() },
            AgentError::Config(text) => Self::Config(text.clone()),
            AgentError::TokenBudgetExceeded { used, limit } => Self::TokenBudget { used: *used, limit: *limit },
            AgentError::TimeBudgetExceeded { elapsed, limit } => Self::TimeBudget { elapsed: *elapsed, limit: *limit },
            AgentError::ToolCallBudgetExceeded { count, limit } => {
                Self::ToolCallBudget { count: *count, limit: *limit }
            }
            AgentError::MaxTurnsReached { turns } => Self::MaxTurns { turns: *turns },
            AgentError::CallbackPending { tool_name, args } => {
                Self::CallbackPending { tool_name: tool_name.clone(), args: args.clone() }
            }
            AgentError::Internal(text) => Self::Internal(text.clone()),
            AgentError::Other(source) => match source.downcast_ref::<SessionError>() {
                Some(error) => match error.session_id() {
                    Some(id) => Self::Session { id, failure: Box::new(Failure::new(error)) },
                    None => Self::Other { text: text_of(error) },
                },
                None => Self::Other { text: text_of(source) },
            },
        }
    }

    fn into_error(self) -> AgentError {
        match self {
            Self::Cancelled { reason } => AgentError::Cancelled { reason },
            Self::Llm { provider, reason, message } => {
                AgentError::Llm { provider, reason: reason.into_reason(), message }
            }
            Self::Tool { name, message } => AgentError::Tool { name, message },
            Self::Config(text) => AgentError::Config(text),
            Self::TokenBudget { used, limit } => AgentError::TokenBudgetExceeded { used, limit },
            Self::TimeBudget { elapsed, limit } => AgentError::TimeBudgetExceeded { elapsed, limit },
            Self::ToolCallBudget { count, limit } => AgentError::ToolCallBudgetExceeded { count, limit },
            Self::MaxTurns { turns } => AgentError::MaxTurnsReached { turns },
            Self::CallbackPending { tool_name, args } => AgentError::CallbackPending { tool_name, args },
            Self::Internal(text) => AgentError::Internal(text),
            Self::Session { id, failure } => AgentError::other(failure.into_error(id)),
            Self::Store { text } | Self::Other { text } => AgentError::Other(Arc::new(RemoteError(text))),
        }
    }
}

impl Llm {
    fn new(reason: &LlmFailure) -> Self {
        match reason {
            LlmFailure::RateLimited { retry_after } => Self::RateLimited { retry_after: *retry_after },
            LlmFailure::ContextExceeded { max, requested } => {
                Self::ContextExceeded { max: *max, requested: *requested }
            }
            LlmFailure::Auth => Self::Auth,
            LlmFailure::InvalidModel(model) => Self::InvalidModel(model.clone()),
            LlmFailure::InvalidRequest => Self::InvalidRequest,
            LlmFailure::Network => Self::Network,
            LlmFailure::Timeout => Self::Timeout,
            LlmFailure::Provider => Self::Provider,
        }
    }

    fn into_reason(self) -> LlmFailure {
        match self {
            Self::RateLimited { retry_after } => LlmFailure::RateLimited { retry_after },
            Self::ContextExceeded { max, requested } => LlmFailure::ContextExceeded { max, requested },
            Self::Auth => LlmFailure::Auth,
            Self::InvalidModel(model) => LlmFailure::InvalidModel(model),
            Self::InvalidRequest => LlmFailure::InvalidRequest,
            Self::Network => LlmFailure::Network,
            Self::Timeout => LlmFailure::Timeout,
            Self::Provider => LlmFailure::Provider,
        }
    }
}

/// The text of a host's error. Its `Display` may panic.
fn text_of(error: &impl fmt::Display) -> String {
    crate::panics::contain(|| error.to_string()).unwrap_or_else(|_| "an error without a text".into())
}

/// A cancel reason as scripts pass it.
pub(super) fn reason_word(reason: CancelReason) -> &'static str {
    match reason {
        CancelReason::Interrupted => "interrupted",
        CancelReason::DeadlineExceeded => "deadline_exceeded",
        CancelReason::Archived => "archived",
        CancelReason::Shutdown => "shutdown",
        CancelReason::Superseded => "superseded",
    }
}

/// The reason of a word; that of an unknown one is an interrupt.
pub(super) fn reason_of(word: &[u8]) -> CancelReason {
    match word {
        b"deadline_exceeded" => CancelReason::DeadlineExceeded,
        b"archived" => CancelReason::Archived,
        b"shutdown" => CancelReason::Shutdown,
        b"superseded" => CancelReason::Superseded,
        _ => CancelReason::Interrupted,
    }
}
