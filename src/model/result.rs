//! The result of a turn: the answer and the usage.

use std::fmt;
use std::ops::{Add, AddAssign};

use super::{Brief, SessionId, TurnId};

/// The tokens that a model read and wrote.
///
/// ```
/// use turnwise::Usage;
///
/// let mut spent = Usage::default();
/// spent += Usage { input_tokens: 100, output_tokens: 20, ..Usage::default() };
/// spent += Usage { input_tokens: 130, output_tokens: 5, cache_read_tokens: Some(90), ..Usage::default() };
/// assert_eq!(spent.total_tokens(), 255); // the input includes tokens from the cache
/// assert_eq!((spent.cache_read_tokens, spent.cache_creation_tokens), (Some(90), None));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Usage {
    /// The tokens read.
    pub input_tokens: u64,
    /// The tokens written.
    pub output_tokens: u64,
    /// The tokens written to the provider's cache, where the provider reports it.
    #[cfg_attr(feature = "serde", serde(default))]
    pub cache_creation_tokens: Option<u64>,
    /// The tokens read from the provider's cache, where the provider reports it.
    #[cfg_attr(feature = "serde", serde(default))]
    pub cache_read_tokens: Option<u64>,
}

impl Usage {
    /// Returns the tokens read and written together, at most `u64::MAX`. The input includes cached tokens.
    pub const fn total_tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// Adds up, saturating at `u64::MAX`. A cache figure stays `None` while both sides are `None`.
impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.cache_creation_tokens = add_known(self.cache_creation_tokens, other.cache_creation_tokens);
        self.cache_read_tokens = add_known(self.cache_read_tokens, other.cache_read_tokens);
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

fn add_known(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (known, None) | (None, known) => known,
    }
}

/// The reason why a model stopped.
///
/// ```
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, StopReason};
///
/// let agent = agent_fn(|_, turn| Ok(turn.finish("Once upon a").with_stop_reason(StopReason::MaxTokens)));
/// let service = EphemeralSessionService::new(agent, 1);
/// let result = service.create_session(CreateSessionRequest::new("Tell me a story."))?;
/// assert_eq!(result.stop_reason, StopReason::MaxTokens); // a host may request the rest
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum StopReason {
    /// The answer is complete.
    #[default]
    EndTurn,
    /// The model requested a tool.
    ToolUse,
    /// The model reached its token limit.
    MaxTokens,
    /// The model wrote a stop sequence.
    StopSequence,
    /// A content filter stopped the model.
    ContentFilter,
    /// The turn was cancelled. The library sets this reason where the turn was cancelled before its agent returned an
    /// answer, unless the agent gave another reason than [`EndTurn`](Self::EndTurn).
    Cancelled,
}

/// The result of a turn.
///
/// An agent makes one with [`TurnContext::finish`](crate::TurnContext::finish); [`RunResult::new`] serves tests. The
/// library replaces the ids with those of the session and turn that ran.
///
/// ```
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, TurnId};
///
/// let agent = agent_fn(|_, turn| {
///     Ok(turn.finish("It is 42.").with_turns(2).with_tool_calls(1).with_structured_output(r#"{"answer":42}"#))
/// });
/// let service = EphemeralSessionService::new(agent, 1);
/// let result = service.create_session(CreateSessionRequest::new("What is it?"))?;
/// assert_eq!((result.turn_id, result.text.as_str()), (TurnId::new(1), "It is 42."));
/// assert_eq!(result.structured_output.as_deref(), Some(r#"{"answer":42}"#));
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct RunResult {
    /// The session that ran.
    pub session_id: SessionId,
    /// The turn that ran.
    pub turn_id: TurnId,
    /// The answer.
    pub text: String,
    /// The tokens that this turn used.
    pub usage: Usage,
    /// The number of model calls in this turn. It does not count turns of the session.
    pub turns: u32,
    /// The number of tool calls.
    pub tool_calls: u32,
    /// The answer as JSON text, where the agent produces structured output.
    pub structured_output: Option<String>,
    /// The reason why the model stopped.
    pub stop_reason: StopReason,
}

impl RunResult {
    /// Makes a result of one model call, without tools, tokens or structured output.
    pub fn new(session_id: SessionId, turn_id: TurnId, text: impl Into<String>) -> Self {
        Self {
            session_id,
            turn_id,
            text: text.into(),
            usage: Usage::default(),
            turns: 1,
            tool_calls: 0,
            structured_output: None,
            stop_reason: StopReason::default(),
        }
    }

    /// Sets the tokens used.
    #[must_use]
    pub fn with_usage(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }

    /// Sets the number of model calls.
    #[must_use]
    pub fn with_turns(mut self, turns: u32) -> Self {
        self.turns = turns;
        self
    }

    /// Sets the number of tool calls.
    #[must_use]
    pub fn with_tool_calls(mut self, tool_calls: u32) -> Self {
        self.tool_calls = tool_calls;
        self
    }

    /// Sets the structured output, as JSON text.
    #[must_use]
    pub fn with_structured_output(mut self, json: impl Into<String>) -> Self {
        self.structured_output = Some(json.into());
        self
    }

    /// Sets the reason why the model stopped.
    #[must_use]
    pub fn with_stop_reason(mut self, stop_reason: StopReason) -> Self {
        self.stop_reason = stop_reason;
        self
    }
}

impl fmt::Debug for RunResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunResult")
            .field("session_id", &self.session_id)
            .field("turn_id", &self.turn_id)
            .field("text", &Brief(&self.text))
            .field("usage", &self.usage)
            .field("turns", &self.turns)
            .field("tool_calls", &self.tool_calls)
            .field("structured_output", &self.structured_output.as_deref().map(Brief))
            .field("stop_reason", &self.stop_reason)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_adds_up_without_overflow() {
        let mut usage = Usage { input_tokens: u64::MAX - 1, output_tokens: 1, ..Usage::default() };
        usage += Usage { input_tokens: 5, output_tokens: 2, cache_read_tokens: Some(7), ..Usage::default() };
        assert_eq!(usage.input_tokens, u64::MAX);
        assert_eq!(usage.output_tokens, 3);
        assert_eq!(usage.cache_read_tokens, Some(7));
        assert_eq!(usage.cache_creation_tokens, None);
        assert_eq!(usage.total_tokens(), u64::MAX);
    }
}
