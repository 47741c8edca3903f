//! A reply as it arrives: chunks, each with a piece of it.
//!
//! Servers differ in the fields that they omit, set to null or to an empty text, or repeat. The reader uses the fields
//! that it understands. A field that it does not need may hold any value.

use std::io::BufRead;

use serde_json::Value;
use turnwise::{AssistantBlock, StopReason, Usage};

use crate::calls::{Calls, ToolCall};
use crate::events::{Broken, Event, Events};
use crate::json::{self, Joiner};
use crate::refusal::{failed, failed_with_text, message_of, message_of_text};

/// The part of a reply that has arrived so far.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    pub(crate) stop: Option<StopReason>,
    pub(crate) usage: Usage,
    text_joiner: Joiner,
    reasoning_joiner: Joiner,
    pending: Calls,
    /// The tool calls. Empty until the reply is complete.
    calls: Vec<ToolCall>,
    /// The number of the choice that is read: the first to arrive, since the request asks for one choice.
    choice: Option<i64>,
    /// The server has sent more of the reply after a reason to stop. So that reason does not mark the end.
    is_premature: bool,
    /// The message about data that was no part of a reply. It is reported if the reply is empty.
    odd: Option<String>,
    /// A failure that ends the reply after the pieces before it have been shown.
    broken: Option<Broken>,
}

/// A new piece of a reply.
#[derive(Debug)]
pub(crate) enum Piece {
    Text(String),
    Reasoning(String),
}

/// The effect of one event.
#[derive(Debug)]
pub(crate) enum Step {
    /// More of the reply. Without pieces it is more of a tool call, or the reason to stop.
    Progress(Vec<Piece>),
    /// No part of the reply: a heartbeat, or the usage.
    Nothing,
    /// The reply is complete. These are its last pieces.
    End(Vec<Piece>),
}

impl Reply {
    /// Reads one event.
    pub(crate) fn read(&mut self, events: &mut Events<impl BufRead>) -> Result<Step, Broken> {
        let read = match self.broken.take() {
            Some(broken) => Err(broken),
            None => events.next(),
        };
        let step = match read {
            Ok(Some(event)) => self.take(&event),
            // Some servers end the stream with the reason to stop, and without `[DONE]`.
            Ok(None) if self.stop.is_some() => self.end(Vec::new()),
            Ok(None) if self.is_empty() => Err(self.odd.take().map_or(Broken::Cut, Broken::Malformed)),
            Ok(None) => Err(Broken::Cut),
            Err(broken) => Err(broken),
        };
        match step {
            // The model has stopped, so a fault after that does not concern its reply.
            Err(broken) if self.is_finished() && (matches!(broken, Broken::Cut) || !self.is_empty()) => {
                self.end(Vec::new())
            }
            step => step,
        }
    }

    /// Whether the model has stopped. Only the usage may follow.
    pub(crate) fn is_finished(&self) -> bool {
        self.stop.is_some() && !self.is_premature
    }

    fn take(&mut self, event: &Event) -> Result<Step, Broken> {
        let marked = json::marked(&event.data);
        let (text, is_last) = without_done(marked.trim());
        if event.is_error && !text.is_empty() {
            return Err(failed_with_text(text));
        }
        let values = match json::values(text) {
            Ok(values) => values,
            Err(_) if event.is_cut => return Err(Broken::Cut),
            Err(error) if text.starts_with(['{', '[']) => return Err(Broken::Malformed(error.to_string())),
            Err(_) => {
                self.odd = Some(format!("it says '{}'", message_of_text(text)));
                Vec::new()
            }
        };
        let (mut pieces, mut is_progress, mut is_whole) = (Vec::new(), false, is_last);
        for chunk in values.iter().flat_map(one_or_many) {
            is_progress |= self.take_chunk(chunk, &mut pieces);
            is_whole |= event.is_document && one_or_many(&chunk["choices"]).any(|choice| choice["message"].is_object());
        }
        if event.is_document && !is_progress {
            self.odd.get_or_insert_with(|| "it holds no completion".into());
        }
        match (is_whole && self.broken.is_none(), is_progress) {
            (true, _) => self.end(pieces),
            (false, true) => Ok(Step::Progress(pieces)),
            (false, false) => Ok(Step::Nothing),
        }
    }

    /// Takes a chunk. Returns whether it has more of the reply.
    fn take_chunk(&mut self, chunk: &Value, pieces: &mut Vec<Piece>) -> bool {
        let (mut is_progress, mut error) = (false, &chunk["error"]);
        for choice in one_or_many(&chunk["choices"]) {
            if let Some(index) = json::whole_number(&choice["index"]) {
                if *self.choice.get_or_insert(index) != index {
                    continue;
                }
            }
            is_progress |= self.take_choice(choice, pieces);
            self.take_usage(&choice["usage"]);
            if json::says_something(&choice["error"]) {
                error = &choice["error"];
            }
        }
        self.take_usage(&chunk["usage"]);
        if chunk["object"] == "error" {
            error = chunk;
        }
        if json::says_something(error) {
            self.broken = Some(failed(error));
        } else if chunk.get("choices").is_none() && ["message", "detail"].iter().any(|said| chunk.get(said).is_some()) {
            self.odd = Some(format!("it says '{}'", message_of(chunk)));
        }
        is_progress
    }

    fn take_choice(&mut self, choice: &Value, pieces: &mut Vec<Piece>) -> bool {
        let (delta, message) = (&choice["delta"], &choice["message"]);
        let stop = choice["finish_reason"].as_str().and_then(|_| json::named(&choice["finish_reason"]));
        let was_stopped = self.stop.is_some();
        let is_new = if json::says_something(delta) || !message.is_object() {
            self.take_delta(delta, false, pieces)
        } else {
            // At the end a message may repeat the whole reply.
            self.take_delta(message, was_stopped || stop.is_some(), pieces)
        };
        if was_stopped && is_new {
            self.is_premature = true;
            self.stop = None;
        }
        match stop.map(|name| stop_reason(&name)) {
            Some(Ok(stop)) => self.stop = Some(stop),
            // The pieces before the failure are shown first.
            Some(Err(failed)) => self.broken = Some(failed),
            None => {}
        }
        is_new || (self.stop.is_some() && !was_stopped)
    }

    /// Takes a delta. If it `may_repeat` the reply, the same text and further calls are not new.
    fn take_delta(&mut self, delta: &Value, may_repeat: bool, pieces: &mut Vec<Piece>) -> bool {
        let mut said = Said::default();
        [&delta["content"], &delta["refusal"]].into_iter().for_each(|content| said.take(content, false));
        if said.text == self.text && may_repeat {
            said.text.clear();
        }
        // Some servers send both names.
        for name in ["reasoning_content", "reasoning"] {
            if said.thought.is_empty() {
                said.take(&delta[name], true);
            }
        }
        if said.thought == self.reasoning && may_repeat {
            said.thought.clear();
        }
        let mut is_new = !said.text.is_empty() || !said.thought.is_empty();
        let (text, thought) = (self.text_joiner.push(&said.text), self.reasoning_joiner.push(&said.thought));
        self.show(text, thought, pieces);
        if !may_repeat || self.pending.is_empty() {
            is_new |= self.pending.take(one_or_many(&delta["tool_calls"]));
            is_new |= self.pending.take(one_or_many(&delta["function_call"]));
        }
        is_new
    }

    fn take_usage(&mut self, figures: &Value) {
        // Usage only grows. A value that is not a number of tokens is ignored.
        let tokens = |value: &Value| json::whole_number(value).and_then(|tokens| u64::try_from(tokens).ok());
        let usage = &mut self.usage;
        usage.input_tokens = usage.input_tokens.max(tokens(&figures["prompt_tokens"]).unwrap_or(0));
        usage.output_tokens = usage.output_tokens.max(tokens(&figures["completion_tokens"]).unwrap_or(0));
        usage.cache_read_tokens =
            usage.cache_read_tokens.max(tokens(&figures["prompt_tokens_details"]["cached_tokens"]));
    }

    /// Ends the complete reply.
    fn end(&mut self, mut pieces: Vec<Piece>) -> Result<Step, Broken> {
        let (text, thought) = (self.text_joiner.finish(), self.reasoning_joiner.finish());
        self.show(text, thought, &mut pieces);
        if matches!(self.stop, Some(StopReason::MaxTokens | StopReason::ContentFilter)) {
            // The last call may be cut off.
            self.pending.clear();
        }
        self.calls = self.pending.finish()?;
        let stop = if self.calls.is_empty() { StopReason::EndTurn } else { StopReason::ToolUse };
        self.stop.get_or_insert(stop);
        Ok(Step::End(pieces))
    }

    fn show(&mut self, text: String, thought: String, pieces: &mut Vec<Piece>) {
        self.text.push_str(&text);
        self.reasoning.push_str(&thought);
        pieces.extend([Piece::Reasoning(thought), Piece::Text(text)].into_iter().filter(|piece| !piece.is_empty()));
    }

    /// Whether nothing of the reply has arrived. Then a second attempt repeats nothing.
    pub(crate) fn is_empty(&self) -> bool {
        let held = [&self.text_joiner, &self.reasoning_joiner];
        let has_calls = !self.pending.is_empty() || !self.calls.is_empty();
        self.text.is_empty() && self.reasoning.is_empty() && !has_calls && held.iter().all(|held| held.is_empty())
    }

    /// The tool calls. Empty until the reply is complete.
    pub(crate) fn calls(&self) -> &[ToolCall] {
        &self.calls
    }

    /// The reply as a part of the history.
    pub(crate) fn blocks(&self) -> Vec<AssistantBlock> {
        let text = (!self.text.is_empty()).then(|| AssistantBlock::Text { text: self.text.clone() });
        let calls = self.calls.iter().cloned();
        text.into_iter()
            .chain(calls.map(|ToolCall { id, name, args, .. }| AssistantBlock::ToolUse { id, name, args }))
            .collect()
    }
}

impl Piece {
    fn is_empty(&self) -> bool {
        let (Self::Text(text) | Self::Reasoning(text)) = self;
        text.is_empty()
    }
}

/// The text and the reasoning in a content, which may be a text or a list of parts. Both may have marks.
#[derive(Default)]
struct Said {
    text: String,
    thought: String,
}

impl Said {
    fn take(&mut self, content: &Value, is_thought: bool) {
        match content {
            Value::String(text) if is_thought => self.thought.push_str(text),
            Value::String(text) => self.text.push_str(text),
            Value::Array(parts) => parts.iter().for_each(|part| self.take(part, is_thought)),
            Value::Object(part) => {
                let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
                let is_thought = is_thought || kind.contains("thinking") || kind.contains("reasoning");
                let names = ["text", "thinking", "reasoning", "refusal", "value"];
                if let Some(inner) = names.iter().find_map(|name| part.get(*name)) {
                    self.take(inner, is_thought);
                }
            }
            _ => {}
        }
    }
}

/// The values of an array, or a single object in its place. Empty for all other values.
fn one_or_many(value: &Value) -> impl Iterator<Item = &Value> {
    let (many, one) = match value {
        Value::Array(values) => (&values[..], None),
        Value::Object(_) => (&[][..], Some(value)),
        _ => (&[][..], None),
    };
    many.iter().chain(one)
}

/// The text of an event without the mark of the last event, and whether it had that mark.
fn without_done(text: &str) -> (&str, bool) {
    for done in ["[DONE]", "\"[DONE]\"", "DONE"] {
        let begin = text.len().saturating_sub(done.len());
        let (Some(rest), Some(end)) = (text.get(..begin), text.get(begin..)) else { continue };
        if end.eq_ignore_ascii_case(done) && (rest.is_empty() || rest.ends_with(['\n', '\r'])) {
            return (rest.trim_end(), true);
        }
    }
    (text, false)
}

/// The reason to stop.
///
/// # Errors
/// Fails if the server has stopped the model, because then the reply is not complete.
fn stop_reason(name: &str) -> Result<StopReason, Broken> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "tool_calls" | "tool_use" | "function_call" => StopReason::ToolUse,
        "length" | "max_tokens" | "max_output_tokens" | "model_length" => StopReason::MaxTokens,
        "content_filter" | "safety" | "sensitive" | "recitation" | "prohibited_content" => StopReason::ContentFilter,
        "error" | "abort" | "aborted" | "cancelled" | "canceled" | "network_error" | "insufficient_system_resource" => {
            let message = format!("the server has stopped the model ({name})");
            return Err(Broken::Failed { message, status: None });
        }
        _ => StopReason::EndTurn,
    })
}
