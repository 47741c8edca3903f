//! The events of turns and sessions.

use std::fmt;

use super::{Brief, InputId, InputOutcome, InputRequest, InteractionId, SessionId, SkillId, StopReason, TurnId, Usage};

/// An event of a session.
///
/// The library emits [`RunStarted`](AgentEvent::RunStarted) and exactly one of
/// [`RunCompleted`](AgentEvent::RunCompleted) and [`RunFailed`](AgentEvent::RunFailed) around every turn. The agent
/// emits any events in between. `Debug` shows texts by their length only.
///
/// ```
/// use turnwise::AgentEvent;
///
/// /// The text that a terminal shows for an event.
/// fn shown(event: &AgentEvent) -> Option<String> {
///     match event {
///         AgentEvent::TextDelta { delta } => Some(delta.clone()),
///         AgentEvent::ToolExecutionStarted { name, .. } => Some(format!("[{name}]")),
///         _ => None,
///     }
/// }
///
/// assert_eq!(shown(&AgentEvent::TextDelta { delta: "hm".into() }).as_deref(), Some("hm"));
/// assert_eq!(shown(&AgentEvent::TurnStarted { turn_number: 1 }), None);
/// ```
#[derive(Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(tag = "type", rename_all = "snake_case")
)]
#[non_exhaustive]
#[allow(missing_docs)] // The fields of most variants are their own description.
pub enum AgentEvent {
    /// A turn begins. For the first turn of a session this comes before the agent is built.
    RunStarted { session_id: SessionId, turn_id: TurnId, prompt: String },
    /// A turn has succeeded.
    RunCompleted { session_id: SessionId, turn_id: TurnId, result: String, usage: Usage },
    /// A turn has failed, was cancelled, or panicked.
    RunFailed { session_id: SessionId, turn_id: TurnId, error: String },

    /// A model call begins: the `turn_number`th of this turn. Not the beginning of the turn, which is
    /// [`RunStarted`](Self::RunStarted).
    TurnStarted { turn_number: u32 },
    /// A piece of the answer.
    TextDelta { delta: String },
    /// The whole answer.
    TextComplete { content: String },
    /// A piece of the model's reasoning.
    ReasoningDelta { delta: String },
    /// The whole reasoning.
    ReasoningComplete { content: String },
    /// The model requests a tool call; `args` is JSON text.
    ToolCallRequested { id: String, name: String, args: String },
    /// The model receives the result of a tool.
    ToolResultReceived { id: String, name: String, is_error: bool },
    /// A model call has ended.
    TurnCompleted { stop_reason: StopReason, usage: Usage },

    /// A tool starts.
    ToolExecutionStarted { id: String, name: String },
    /// A tool has ended; `duration_ms` is in milliseconds.
    ToolExecutionCompleted { id: String, name: String, result: String, is_error: bool, duration_ms: u64 },
    /// A tool exceeded its time limit.
    ToolExecutionTimedOut { id: String, name: String, timeout_ms: u64 },

    /// A model call failed and will be retried after `delay_ms` milliseconds; `attempt` counts from 1.
    Retrying { attempt: u32, max_attempts: u32, error: String, delay_ms: u64 },
    /// A budget is nearly used up; `percent` is 0 to 100.
    BudgetWarning { budget_type: BudgetType, used: u64, limit: u64, percent: f32 },

    /// Compaction of the history begins.
    CompactionStarted { input_tokens: u64, estimated_history_tokens: u64, message_count: usize },
    /// Compaction of the history has succeeded.
    CompactionCompleted { summary_tokens: u64, messages_before: usize, messages_after: usize },
    /// Compaction of the history has failed.
    CompactionFailed { error: String },

    /// The skills that a turn requested are in its context.
    SkillsResolved { skills: Vec<SkillId>, injection_bytes: usize },
    /// A skill that a turn requested is not available.
    SkillResolutionFailed { reference: String, error: String },

    /// The turn asks its host for input. The request is pending already, so a reader of this event may
    /// [`respond`](crate::SessionService::respond) at once.
    InputRequested { input_id: InputId, request: Box<InputRequest> },
    /// An input request has ended.
    InputResolved { input_id: InputId, outcome: InputOutcome },

    /// An interaction has succeeded.
    InteractionComplete { interaction_id: InteractionId, result: String },
    /// An interaction has failed.
    InteractionFailed { interaction_id: InteractionId, error: String },
    /// Events after this one are missing.
    StreamTruncated { reason: String },

    /// Any other event of an agent; `payload` is JSON text.
    Custom { name: String, payload: String },
}

/// The kind of a budget.
///
/// ```
/// use turnwise::{AgentEvent, BudgetType};
///
/// /// Warns at four fifths of the budget.
/// fn warning(budget_type: BudgetType, used: u64, limit: u64) -> Option<AgentEvent> {
///     let percent = used as f32 / limit as f32 * 100.0;
///     (percent >= 80.0).then_some(AgentEvent::BudgetWarning { budget_type, used, limit, percent })
/// }
///
/// assert!(warning(BudgetType::Tokens, 900, 1_000).is_some());
/// assert!(warning(BudgetType::ToolCalls, 1, 10).is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum BudgetType {
    /// Tokens.
    Tokens,
    /// Time.
    Time,
    /// Tool calls.
    ToolCalls,
}

/// An event with its turn and its sequence number.
///
/// ```
/// use turnwise::{agent_fn, EphemeralSessionService, SessionService, SessionSpec, StartTurnRequest};
/// use turnwise::{Subscription, TurnId};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
/// let id = service.open_session(SessionSpec::new())?;
/// let mut events = service.subscribe(id, Subscription::new())?;
/// service.start_turn(id, StartTurnRequest::new("hello"))?;
/// let (first, second) = (events.next().unwrap(), events.next().unwrap());
/// assert_eq!((first.session_id, first.turn_id), (id, Some(TurnId::new(1))));
/// assert_eq!(second.seq, first.seq + 1); // no event was missed in between
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SessionEvent {
    /// The session's id.
    pub session_id: SessionId,
    /// The turn of the event, if it belongs to one.
    pub turn_id: Option<TurnId>,
    /// The event's sequence number in the session: 1 for the first event, rising by one. A stored session continues
    /// counting across unloads and restarts. After the process was killed it skips some numbers, and never repeats
    /// one.
    pub seq: u64,
    /// The event.
    pub event: AgentEvent,
}

impl fmt::Debug for AgentEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The body of one arm: shows each field after the `;` by its `Debug`, and each text before it by its length.
        macro_rules! show {
            ($name:literal, $($text:ident)*; $($field:ident)*) => {{
                let mut out = f.debug_struct($name);
                $(out.field(stringify!($field), $field);)*
                $(out.field(stringify!($text), &Brief($text));)*
                out.finish()
            }};
        }
        match self {
            Self::RunStarted { session_id, turn_id, prompt } => show!("RunStarted", prompt; session_id turn_id),
            Self::RunCompleted { session_id, turn_id, result, usage } => {
                show!("RunCompleted", result; session_id turn_id usage)
            }
            Self::RunFailed { session_id, turn_id, error } => show!("RunFailed", error; session_id turn_id),
            Self::TurnStarted { turn_number } => show!("TurnStarted", ; turn_number),
            Self::TextDelta { delta } => show!("TextDelta", delta;),
            Self::TextComplete { content } => show!("TextComplete", content;),
            Self::ReasoningDelta { delta } => show!("ReasoningDelta", delta;),
            Self::ReasoningComplete { content } => show!("ReasoningComplete", content;),
            Self::ToolCallRequested { id, name, args } => show!("ToolCallRequested", args; id name),
            Self::ToolResultReceived { id, name, is_error } => show!("ToolResultReceived", ; id name is_error),
            Self::TurnCompleted { stop_reason, usage } => show!("TurnCompleted", ; stop_reason usage),
            Self::ToolExecutionStarted { id, name } => show!("ToolExecutionStarted", ; id name),
            Self::ToolExecutionCompleted { id, name, result, is_error, duration_ms } => {
                show!("ToolExecutionCompleted", result; id name is_error duration_ms)
            }
            Self::ToolExecutionTimedOut { id, name, timeout_ms } => {
                show!("ToolExecutionTimedOut", ; id name timeout_ms)
            }
            Self::Retrying { attempt, max_attempts, error, delay_ms } => {
                show!("Retrying", error; attempt max_attempts delay_ms)
            }
            Self::BudgetWarning { budget_type, used, limit, percent } => {
                show!("BudgetWarning", ; budget_type used limit percent)
            }
            Self::CompactionStarted { input_tokens, estimated_history_tokens, message_count } => {
                show!("CompactionStarted", ; input_tokens estimated_history_tokens message_count)
            }
            Self::CompactionCompleted { summary_tokens, messages_before, messages_after } => {
                show!("CompactionCompleted", ; summary_tokens messages_before messages_after)
            }
            Self::CompactionFailed { error } => show!("CompactionFailed", error;),
            Self::InputRequested { input_id, request } => show!("InputRequested", ; input_id request),
            Self::InputResolved { input_id, outcome } => show!("InputResolved", ; input_id outcome),
            Self::SkillsResolved { skills, injection_bytes } => show!("SkillsResolved", ; skills injection_bytes),
            Self::SkillResolutionFailed { reference, error } => {
                show!("SkillResolutionFailed", error; reference)
            }
            Self::InteractionComplete { interaction_id, result } => {
                show!("InteractionComplete", result; interaction_id)
            }
            Self::InteractionFailed { interaction_id, error } => {
                show!("InteractionFailed", error; interaction_id)
            }
            Self::StreamTruncated { reason } => show!("StreamTruncated", ; reason),
            Self::Custom { name, payload } => show!("Custom", payload; name),
        }
    }
}
