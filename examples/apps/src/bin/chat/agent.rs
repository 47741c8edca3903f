//! The agent: a conversation with a model, which may call the tools of the agent's toolbox. `acp_agent` has the same
//! agent with another toolbox.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use turnwise::{
    AgentError, AgentEvent, Cancelled, InboxInteraction, Message, RunResult, Session, SessionAgent, SessionSpec,
    StopReason, ToolResult, TurnContext, Usage,
};

use crate::calls::ToolCall;
use crate::endpoint::Endpoint;
use crate::options::Options;
use crate::refusal::{Failed, LONGEST_DELAY};
use crate::reply::{Piece, Reply};
use crate::request::Dialect;
use crate::toolbox::Toolbox;

/// How often the model is asked in one turn. It may answer the result of a tool with another call.
const MOST_ROUNDS: u32 = 10;

/// A conversation.
///
/// After each turn, however it ended, the next turn can continue from the history:
///
/// - A stopped reply is in the history, with the text that has arrived.
/// - Every tool call has a result.
/// - A message of the user without any part of a reply is removed, so that it can be sent again.
pub(crate) struct Chat {
    history: Session,
    endpoint: Endpoint,
    toolbox: Toolbox,
    options: Arc<Options>,
}

impl SessionAgent for Chat {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.history.push(Message::user(prompt));
        let answered = self.answer(turn);
        if answered.is_err() && matches!(self.history.messages().last(), Some(Message::User { .. })) {
            self.history.messages_mut().pop();
        }
        answered
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }
}

impl Chat {
    /// The agent of a session that a builder has got this specification for.
    pub(crate) fn new(spec: &SessionSpec, options: &Arc<Options>, dialect: &Arc<Dialect>, toolbox: Toolbox) -> Self {
        let mut history = spec.history();
        if let Some(prompt) = &spec.system_prompt {
            history.set_system_prompt(prompt);
        }
        let endpoint = Endpoint::new(Arc::clone(options), Arc::clone(dialect));
        Self { history, endpoint, toolbox, options: Arc::clone(options) }
    }

    fn answer(&mut self, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let (mut usage, mut tool_calls) = (Usage::default(), 0);
        for round in 1..=MOST_ROUNDS {
            turn.emit(AgentEvent::TurnStarted { turn_number: round })?;
            let reply = self.ask(turn)?;
            usage += reply.usage;
            let stop_reason = reply.stop.unwrap_or_default();
            turn.emit(AgentEvent::TurnCompleted { stop_reason, usage: reply.usage })?;
            tool_calls += reply.calls().len() as u32;
            let is_answer = reply.calls().is_empty();
            if !is_answer {
                self.run_tools(reply.calls(), turn)?;
            }
            // What arrives during the last round is not taken, because the model would not see it.
            let goes_on = round < MOST_ROUNDS && self.take_in(turn);
            if is_answer && !goes_on {
                let result = turn.finish(reply.text).with_usage(usage).with_stop_reason(stop_reason);
                return Ok(result.with_turns(round).with_tool_calls(tool_calls));
            }
            // Reads of the session show each round after its end.
            turn.publish(self.snapshot());
        }
        Err(AgentError::MaxTurnsReached { turns: MOST_ROUNDS })
    }

    /// Takes in what the user has sent meanwhile, as one message. Returns whether there is anything.
    fn take_in(&mut self, turn: &TurnContext) -> bool {
        let lines: Vec<String> = turn.drain_inbox().iter().map(InboxInteraction::text).collect();
        if !lines.is_empty() {
            self.history.push(Message::user(lines.join("\n")));
        }
        !lines.is_empty()
    }

    /// Gets one reply of the model. Afterwards the reply is in the history, whole or as far as it has arrived.
    fn ask(&mut self, turn: &TurnContext) -> Result<Reply, AgentError> {
        let mut reply = Reply::default();
        let asked = self.ask_patiently(&mut reply, turn);
        self.history.record_usage(reply.usage);
        let blocks = reply.blocks();
        if blocks.is_empty() {
            asked?;
            return Err(AgentError::other(format!("the model said nothing{}", why(reply.stop))));
        }
        let stop_reason = if asked.is_ok() { reply.stop.unwrap_or_default() } else { StopReason::Cancelled };
        self.history.push(Message::Assistant { blocks, stop_reason });
        if let Err(error) = asked {
            // The turn was cancelled after the whole reply had arrived. Its calls do not run any more.
            if !reply.calls().is_empty() {
                self.history.push(Message::ToolResults { results: reply.calls().iter().map(not_run).collect() });
            }
            return Err(error);
        }
        Ok(reply)
    }

    /// Sends the request, and retries it if a retry may succeed.
    fn ask_patiently(&mut self, reply: &mut Reply, turn: &TurnContext) -> Result<(), AgentError> {
        let max_attempts = self.options.attempts;
        for attempt in 1.. {
            let emit = |piece| match piece {
                Piece::Text(delta) => turn.emit(AgentEvent::TextDelta { delta }),
                Piece::Reasoning(delta) => turn.emit(AgentEvent::ReasoningDelta { delta }),
            };
            match self.endpoint.ask(self.history.messages(), reply, turn, emit) {
                // A reply that is shown in part is not retried, because shown text cannot be removed.
                Err(failed) if failed.is_retryable() && reply.is_empty() && attempt < max_attempts => {
                    let delay = self.delay(attempt, &failed);
                    let (error, delay_ms) = (failed.error.to_string(), delay.as_millis() as u64);
                    turn.emit(AgentEvent::Retrying { attempt, max_attempts, error, delay_ms })?;
                    // An interrupt ends this sleep.
                    turn.sleep(delay)?;
                    // The usage of the failed attempt counts. The reply starts again from nothing.
                    self.history.record_usage(reply.usage);
                    *reply = Reply::default();
                }
                Err(failed) => return Err(failed.error),
                Ok(()) => break,
            }
        }
        if !reply.reasoning.is_empty() {
            turn.emit(AgentEvent::ReasoningComplete { content: reply.reasoning.clone() })?;
        }
        if !reply.text.is_empty() {
            turn.emit(AgentEvent::TextComplete { content: reply.text.clone() })?;
        }
        Ok(())
    }

    /// The pause before the next attempt: that of the server, or else one that doubles with each attempt. A random part
    /// separates clients that were refused at the same time.
    fn delay(&self, attempt: u32, failed: &Failed) -> Duration {
        if let Some(delay) = failed.retry_after {
            return delay;
        }
        let random = RandomState::new().hash_one(attempt) as f64 / u64::MAX as f64;
        let doubled = self.options.backoff.saturating_mul(1 << (attempt - 1).min(16));
        doubled.min(LONGEST_DELAY).mul_f64(0.75 + random / 2.0)
    }

    /// Runs the calls of the model. Every call gets a result in the history, also if the turn is cancelled.
    fn run_tools(&mut self, calls: &[ToolCall], turn: &TurnContext) -> Result<(), AgentError> {
        let mut results = Vec::with_capacity(calls.len());
        let mut stopped = None;
        for call in calls {
            let run = if stopped.is_none() { self.run_tool(call, turn) } else { Ok(not_run(call)) };
            match run {
                Ok(result) => results.push(result),
                Err(cancelled) => {
                    results.push(not_run(call));
                    stopped = Some(cancelled);
                }
            }
        }
        self.history.push(Message::ToolResults { results });
        stopped.map_or(Ok(()), |cancelled| Err(cancelled.into()))
    }

    /// Runs a call, if the user allows it. Calls are asked for one after the other, in their order.
    fn run_tool(&mut self, call: &ToolCall, turn: &TurnContext) -> Result<ToolResult, Cancelled> {
        let ToolCall { id, name, args, .. } = call.clone();
        turn.emit(AgentEvent::ToolCallRequested { id: id.clone(), name: name.clone(), args })?;
        let (answer, time) = self.toolbox.answer(call, turn)?;
        let is_error = answer.is_err();
        let (Ok(content) | Err(content)) = answer;
        turn.emit(AgentEvent::ToolExecutionCompleted {
            id: id.clone(),
            name: name.clone(),
            result: content.clone(),
            is_error,
            duration_ms: time.as_millis() as u64,
        })?;
        turn.emit(AgentEvent::ToolResultReceived { id: id.clone(), name, is_error })?;
        Ok(ToolResult { tool_use_id: id, content, is_error })
    }
}

/// The end of a message about a reply: the reason for an unusual stop, or nothing.
pub(crate) fn why(stop: Option<StopReason>) -> &'static str {
    match stop {
        Some(StopReason::MaxTokens) => ": its token limit was used up",
        Some(StopReason::ContentFilter) => ": a content filter stopped it",
        _ => "",
    }
}

fn not_run(call: &ToolCall) -> ToolResult {
    ToolResult { tool_use_id: call.id.clone(), content: "not run: interrupted".into(), is_error: true }
}
