//! What a turn comes to.

use std::fmt;
use std::ops::{Add, AddAssign};

use super::{Brief, SessionId, TurnId};

/// Tokens that a model read and wrote.
///
/// ```
/// use turnwise::Usage;
///
/// let mut spent = Usage::default();
/// spent += Usage { input_tokens: 100, output_tokens: 20, ..Usage::default() };
/// spent += Usage { input_tokens: 130, output_tokens: 5, cache_read_tokens: Some(90), ..Usage::default() };
/// assert_eq!(spent.total_tokens(), 255); // what came from the cache is in the input already
/// assert_eq!((spent.cache_read_tokens, spent.cache_creation_tokens), (Some(90), None));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Usage {
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Tokens put into the provider's cache, where it says so.
    #[cfg_attr(feature = "serde", serde(default))]
    pub cache_creation_tokens: Option<u64>,
    /// Tokens read from the provider's cache, where it says so.
    #[cfg_attr(feature = "serde", serde(default))]
    pub cache_read_tokens: Option<u64>,
}

impl Usage {
    /// Tokens read and written together, at most `u64::MAX`. Cached tokens are part of the input already.
    pub const fn total_tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// Adds up, stopping at `u64::MAX`; a cache figure stays `None` while neither side knows it.
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

/// Why a model stopped writing.
///
/// ```
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, StopReason};
///
/// let agent = agent_fn(|_, turn| Ok(turn.finish("Once upon a").with_stop_reason(StopReason::MaxTokens)));
/// let service = EphemeralSessionService::new(agent, 1);
/// let result = service.create_session(CreateSessionRequest::new("Tell me a story."))?;
/// assert_eq!(result.stop_reason, StopReason::MaxTokens); // a host may ask for the rest
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum StopReason {
    /// It was done.
    #[default]
    EndTurn,
    /// It asked for a tool.
    ToolUse,
    /// It ran into its token limit.
    MaxTokens,
    /// It wrote a stop sequence.
    StopSequence,
    /// A filter stopped it.
    ContentFilter,
    /// It was told to stop. The library gives this reason to an answer of a turn that had been told to stop when its agent returned,
    /// unless the agent gave another than [`EndTurn`](Self::EndTurn).
    Cancelled,
}

/// What a turn gave.
///
/// An agent makes one with [`TurnContext::finish`](crate::TurnContext::finish); [`RunResult::new`] serves tests. Whatever
/// ids the agent puts in, the caller gets those of the session and turn that ran.
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
    /// Tokens that this turn used.
    pub usage: Usage,
    /// How often a model was called.
    pub turns: u32,
    /// How many tools were called.
    pub tool_calls: u32,
    /// The answer as JSON text, where the agent was asked for structure.
    pub structured_output: Option<String>,
    /// Why the model stopped.
    pub stop_reason: StopReason,
}

impl RunResult {
    /// A result of one model call without tools, tokens or structure.
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

    /// With these tokens used.
    #[must_use]
    pub fn with_usage(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }

    /// With this number of model calls.
    #[must_use]
    pub fn with_turns(mut self, turns: u32) -> Self {
        self.turns = turns;
        self
    }

    /// With this number of tool calls.
    #[must_use]
    pub fn with_tool_calls(mut self, tool_calls: u32) -> Self {
        self.tool_calls = tool_calls;
        self
    }

    /// With the answer as JSON text as well.
    #[must_use]
    pub fn with_structured_output(mut self, json: impl Into<String>) -> Self {
        self.structured_output = Some(json.into());
        self
    }

    /// With this reason for stopping.
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
