//! Requests and settings in JSON. A field that is not known is an error, so that a misspelt one is noticed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use library::{
    AgentError, AgentEvent, CreateSessionRequest, InputOption, InputRequest, LlmFailure, Overflow, RunResult, Session,
    SessionId, SessionSnapshot, SessionSpec, SkillId, StartTurnRequest, StopReason, ToolResult, TurnContext, Usage,
    WhenBusy,
};
use serde::de::DeserializeOwned;
use serde::Deserialize;

use crate::codes::{Failure, TURNWISE_INVALID_CONFIG, TURNWISE_INVALID_JSON};

/// Parses JSON. An empty text is an empty object.
pub fn parse<T: DeserializeOwned>(json: &str) -> Result<T, Failure> {
    Ok(serde_json::from_str(if json.trim().is_empty() { "{}" } else { json })?)
}

/// The settings of a service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceSettings {
    /// The maximum number of sessions at a time. Default: 64.
    pub max_sessions: Option<usize>,
    /// The maximum number of turns that run at a time. Default: no limit.
    pub max_running_turns: Option<usize>,
    /// The stack of a session thread, in bytes.
    pub stack_size: Option<usize>,
    /// The beginning of the names of session threads.
    pub thread_name_prefix: Option<String>,
    /// The threads that are kept for later sessions.
    pub idle_threads: Option<usize>,
    /// The room of a session's inbox, in messages.
    pub inbox_capacity: Option<usize>,
    /// The events that a session keeps for later subscribers.
    pub event_history: Option<usize>,
    /// The room of a session's queue, in turns.
    pub turn_queue: Option<usize>,
    /// How often a session whose agent panicked restarts by itself.
    pub restart_faulted: Option<Restarts>,
    /// The queue of the service, with the events of all sessions. Without it there are only the ends of turns.
    pub events: Option<SubscriptionSettings>,
    /// In a service with a store: the idle time after which a session is unloaded, in milliseconds.
    pub unload_idle_after_ms: Option<u64>,
    /// In a service with a store: whether an idle session is unloaded to make room.
    pub unload_when_full: bool,
}

/// At most `max` restarts within `within_ms` milliseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restarts {
    /// The number of restarts.
    pub max: u32,
    /// The time in which they are counted, in milliseconds.
    pub within_ms: u64,
}

/// The settings of a subscription.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubscriptionSettings {
    /// The room for unread events. Default: 1,024.
    pub capacity: Option<usize>,
    /// What happens to an event without room: `block`, `drop_newest`, `drop_oldest` (the default), `disconnect`.
    pub overflow: Option<String>,
    /// The number of the first event, if the session still has it.
    pub from_seq: Option<u64>,
}

impl SubscriptionSettings {
    /// Checks the settings.
    pub fn into_subscription(self) -> Result<library::Subscription, Failure> {
        let mut options = library::Subscription::new();
        if let Some(capacity) = self.capacity {
            options = options.capacity(capacity);
        }
        if let Some(seq) = self.from_seq {
            options = options.from_seq(seq);
        }
        let overflow = match self.overflow.as_deref() {
            None | Some("drop_oldest") => Overflow::DropOldest,
            Some("drop_newest") => Overflow::DropNewest,
            Some("block") => Overflow::Block,
            Some("disconnect") => Overflow::Disconnect,
            Some(other) => {
                return Err(Failure::new(TURNWISE_INVALID_CONFIG, format!("overflow '{other}' is not known")));
            }
        };
        Ok(options.overflow(overflow))
    }
}

/// The options of a turn, apart from its prompt.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TurnOptions {
    /// The time after which the turn is cancelled, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Whether the turn continues after its prompt and runs interactions.
    pub host_mode: bool,
    /// The skills of this turn.
    pub skill_references: Option<Vec<SkillId>>,
    /// The results of tools that the host has run.
    pub tool_results: Vec<ToolResult>,
    /// What happens if the session is busy: `refuse` (the default), `queue`, `interrupt`.
    pub when_busy: WhenBusy,
}

impl TurnOptions {
    /// The request of a turn.
    pub fn into_request(self, prompt: String) -> StartTurnRequest {
        let mut request = StartTurnRequest::new(prompt)
            .host_mode(self.host_mode)
            .when_busy(self.when_busy)
            .tool_results(self.tool_results);
        if let Some(skills) = self.skill_references {
            request = request.skill_references(skills);
        }
        if let Some(timeout) = self.timeout_ms {
            request = request.timeout(Duration::from_millis(timeout));
        }
        request
    }
}

/// The specification of a session.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpecOptions {
    /// The session's id.
    pub session_id: Option<SessionId>,
    /// The model, in the agent's own terms.
    pub model: String,
    /// The system prompt.
    pub system_prompt: Option<String>,
    /// The maximum output of a model call, in tokens.
    pub max_tokens: Option<u32>,
    /// The history to resume, as an export has it.
    pub resume: Option<Session>,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// Whether the agent may begin with another history than the resumed one.
    pub rewrites_history: bool,
}

impl SpecOptions {
    /// The specification.
    pub fn into_spec(self) -> SessionSpec {
        let mut spec = SessionSpec::new().model(self.model).labels(self.labels).rewrites_history(self.rewrites_history);
        spec.session_id = self.session_id;
        spec.system_prompt = self.system_prompt;
        spec.max_tokens = self.max_tokens;
        spec.resume = self.resume;
        spec
    }
}

/// The request of a new session with its first turn: `{"session": {..}, "turn": {..}}`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreateOptions {
    /// The specification.
    pub session: SpecOptions,
    /// The options of the first turn.
    pub turn: TurnOptions,
}

impl CreateOptions {
    /// The request.
    pub fn into_request(self, prompt: String) -> CreateSessionRequest {
        CreateSessionRequest::new("").session(self.session.into_spec()).turn(self.turn.into_request(prompt))
    }
}

/// The specification as an agent sees it.
pub fn spec_json(spec: &SessionSpec, session_id: SessionId) -> String {
    serde_json::json!({
        "session_id": session_id,
        "model": spec.model,
        "system_prompt": spec.system_prompt,
        "max_tokens": spec.max_tokens,
        "labels": spec.labels,
        "is_resumed": spec.resume.is_some(),
    })
    .to_string()
}

/// A request for input, with its timeout in milliseconds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskOptions {
    /// The kind, as host and agent agree.
    pub kind: String,
    /// The text for the person who answers.
    pub message: String,
    /// The valid answers; none if any text is valid.
    #[serde(default)]
    pub options: Vec<InputOption>,
    /// Any other data, as JSON text.
    #[serde(default)]
    pub payload: Option<String>,
    /// The time after which the request has no answer, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

impl AskOptions {
    /// The request.
    pub fn into_request(self) -> InputRequest {
        let mut request = InputRequest::new(self.kind, self.message).options(self.options);
        if let Some(payload) = self.payload {
            request = request.payload(payload);
        }
        if let Some(timeout) = self.timeout_ms {
            request = request.timeout(Duration::from_millis(timeout));
        }
        request
    }
}

/// What an agent publishes during a turn. Absent fields are those of its history.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublishOptions {
    /// The number of messages.
    pub message_count: Option<usize>,
    /// The tokens used so far, by kind.
    pub usage: Option<Usage>,
    /// The last assistant text.
    pub last_assistant_text: Option<String>,
}

impl PublishOptions {
    /// The snapshot.
    pub fn into_snapshot(self, history: &Session) -> SessionSnapshot {
        let mut snapshot = SessionSnapshot::from(history);
        if let Some(count) = self.message_count {
            snapshot.message_count = count;
        }
        if let Some(usage) = self.usage {
            snapshot.usage = usage;
            snapshot.total_tokens = usage.total_tokens();
        }
        if let Some(text) = self.last_assistant_text {
            snapshot.last_assistant_text = Some(Arc::from(text));
        }
        snapshot
    }
}

/// The kind of an agent's failure, as JSON with the field `kind`. The message comes apart.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum FailureKind {
    /// Any failure.
    Other,
    /// A tool failed.
    Tool {
        /// The tool's name.
        name: String,
    },
    /// The agent or the session is misconfigured.
    Config,
    /// A call of a model failed.
    Llm {
        /// The provider's name.
        provider: String,
        /// `rate_limited`, `auth`, `invalid_request`, `network`, `timeout` or `provider`.
        reason: String,
        /// For `rate_limited`: the time after which a retry may succeed, in milliseconds.
        #[serde(default)]
        retry_after_ms: Option<u64>,
    },
    /// The host must run a tool and start the next turn with its result.
    CallbackPending {
        /// The tool's name.
        tool_name: String,
        /// The arguments, as JSON text.
        args: String,
    },
}

impl FailureKind {
    /// The error, with its message.
    pub fn into_error(self, message: String) -> Result<AgentError, Failure> {
        Ok(match self {
            Self::Other => AgentError::other(message),
            Self::Tool { name } => AgentError::Tool { name, message },
            Self::Config => AgentError::Config(message),
            Self::CallbackPending { tool_name, args } => AgentError::CallbackPending { tool_name, args },
            Self::Llm { provider, reason, retry_after_ms } => {
                let reason = match reason.as_str() {
                    "rate_limited" => {
                        LlmFailure::RateLimited { retry_after: retry_after_ms.map(Duration::from_millis) }
                    }
                    "auth" => LlmFailure::Auth,
                    "invalid_request" => LlmFailure::InvalidRequest,
                    "network" => LlmFailure::Network,
                    "timeout" => LlmFailure::Timeout,
                    "provider" => LlmFailure::Provider,
                    other => return Err(Failure::new(TURNWISE_INVALID_JSON, format!("reason '{other}' is not known"))),
                };
                AgentError::Llm { provider, reason, message }
            }
        })
    }
}

/// The answer of a turn.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// The figures.
    pub details: AnswerDetails,
}

/// What an agent says about its answer, apart from the text.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnswerDetails {
    /// The tokens of this turn.
    pub usage: Option<Usage>,
    /// The number of model calls.
    pub model_calls: u32,
    /// The number of tool calls.
    pub tool_calls: u32,
    /// The structured output, as JSON text.
    pub structured_output: Option<String>,
    /// Why the model stopped.
    pub stop_reason: Option<StopReason>,
}

impl Answer {
    /// The result of the turn, when its agent has returned.
    pub fn into_result(self, turn: &TurnContext) -> RunResult {
        let AnswerDetails { usage, model_calls, tool_calls, structured_output, stop_reason } = self.details;
        let mut result = turn.finish(self.text).with_turns(model_calls).with_tool_calls(tool_calls);
        if let Some(usage) = usage {
            result = result.with_usage(usage);
        }
        if let Some(output) = structured_output {
            result = result.with_structured_output(output);
        }
        match stop_reason {
            Some(reason) => result.with_stop_reason(reason),
            None => result,
        }
    }
}

/// An event as JSON.
pub fn event_json(event: &AgentEvent) -> Result<String, Failure> {
    Ok(serde_json::to_string(event)?)
}
