//! A reply as it comes in: server-sent events, each with a piece of it.
//!
//! Servers differ in what they leave out, set to null, or repeat. What can be understood is; only what cannot ends a reply.

use std::collections::HashSet;
use std::io::{BufRead, Read as _};

use serde::Deserialize;
use serde_json::Value;
use turnwise::{AssistantBlock, StopReason, Usage};

/// A longer line is no piece of a reply.
const LONGEST_LINE: u64 = 1 << 20;

/// What has come in so far.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    calls: Vec<ToolCall>,
    pub(crate) stop: Option<StopReason>,
    pub(crate) usage: Usage,
    is_whole: bool,
}

/// A tool call; its arguments come in pieces too.
#[derive(Clone, Debug, Default)]
pub(crate) struct ToolCall {
    /// The number that the server gives it, if it does.
    index: Option<usize>,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) args: String,
}

/// What is new in a reply.
#[derive(Debug)]
pub(crate) enum Piece {
    Text(String),
    Reasoning(String),
}

/// Why a stream of events cannot be read on.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The connection ended before the reply did.
    Cut,
    /// This is no piece of a reply.
    Malformed(String),
    /// The server says that it failed.
    Failed(String),
}

#[derive(Deserialize)]
struct Chunk {
    choices: Option<Vec<Choice>>,
    usage: Option<Value>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    index: Option<usize>,
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<Value>,
    refusal: Option<Value>,
    reasoning_content: Option<Value>,
    reasoning: Option<Value>,
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize)]
struct CallDelta {
    index: Option<usize>,
    id: Option<Value>,
    function: Option<FunctionDelta>,
}

#[derive(Default, Deserialize)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<Value>,
}

impl Reply {
    /// Reads on until something is new; `None` at the end of the reply.
    pub(crate) fn read(&mut self, stream: &mut impl BufRead) -> Result<Option<Vec<Piece>>, Broken> {
        let event = match next_event(stream) {
            Ok(event) => event,
            // The model has stopped: what is missing is nothing of its reply.
            Err(Broken::Cut) if self.stop.is_some() => None,
            Err(broken) => return Err(broken),
        };
        match event {
            Some(event) if event.data.trim() == "[DONE]" => self.end(),
            Some(event) => return self.take(&event).map(Some),
            // Some servers say no more than why the model stopped.
            None if self.stop.is_some() => self.end(),
            None => return Err(Broken::Cut),
        }
        Ok(None)
    }

    fn take(&mut self, event: &Event) -> Result<Vec<Piece>, Broken> {
        if event.data.trim().is_empty() {
            return Ok(Vec::new());
        }
        if event.is_error {
            return Err(Broken::Failed(message_of_text(&event.data)));
        }
        let chunk: Chunk = serde_json::from_str(&event.data).map_err(|error| match event.is_cut {
            true => Broken::Cut,
            false => Broken::Malformed(error.to_string()),
        })?;
        if let Some(error) = chunk.error.filter(says_something) {
            return Err(Broken::Failed(message_of(&error)));
        }
        if let Some(figures) = chunk.usage.filter(Value::is_object) {
            self.usage = usage(&figures);
        }
        let mut pieces = Vec::new();
        // One choice is asked for, so that is the first.
        for choice in chunk.choices.into_iter().flatten().filter(|choice| choice.index.unwrap_or(0) == 0) {
            if let Some(delta) = choice.delta {
                self.take_delta(delta, &mut pieces);
            }
            self.stop = choice.finish_reason.as_deref().map(stop_reason).or(self.stop);
        }
        Ok(pieces)
    }

    fn take_delta(&mut self, delta: Delta, pieces: &mut Vec<Piece>) {
        let reasoning = [delta.reasoning_content, delta.reasoning].into_iter().flatten().map(text_of);
        if let Some(text) = reasoning.into_iter().find(|text| !text.is_empty()) {
            self.reasoning.push_str(&text);
            pieces.push(Piece::Reasoning(text));
        }
        for text in [delta.content, delta.refusal].into_iter().flatten().map(text_of).filter(|text| !text.is_empty()) {
            self.text.push_str(&text);
            pieces.push(Piece::Text(text));
        }
        delta.tool_calls.into_iter().flatten().for_each(|call| self.take_call(call));
    }

    fn take_call(&mut self, delta: CallDelta) {
        let id = delta.id.map(plain_text).unwrap_or_default();
        let is_meant = |call: &ToolCall| match (delta.index, call.index) {
            _ if !id.is_empty() && !call.id.is_empty() => call.id == id,
            (Some(index), Some(known)) => index == known,
            _ => id.is_empty(),
        };
        // Without a number and an id it is the last call that goes on.
        let place = self.calls.iter().rposition(is_meant).unwrap_or_else(|| {
            self.calls.push(ToolCall { index: delta.index, ..ToolCall::default() });
            self.calls.len() - 1
        });
        let (call, function) = (&mut self.calls[place], delta.function.unwrap_or_default());
        if !id.is_empty() {
            call.id = id;
        }
        // Some servers repeat it with every piece.
        if let Some(name) = function.name.filter(|name| !name.is_empty()) {
            call.name = name;
        }
        call.args.push_str(&function.arguments.map(plain_text).unwrap_or_default());
    }

    fn end(&mut self) {
        self.is_whole = true;
        if self.stop == Some(StopReason::MaxTokens) {
            // The last of them is cut off, and nobody knows what it would have been.
            self.calls.clear();
        }
        let stop = if self.calls.is_empty() { StopReason::EndTurn } else { StopReason::ToolUse };
        self.stop.get_or_insert(stop);
        // Each result has to name its call.
        let mut known = HashSet::new();
        for (number, call) in self.calls.iter_mut().enumerate() {
            if call.name.is_empty() {
                call.name = "unnamed".into();
            }
            while call.id.is_empty() || !known.insert(call.id.clone()) {
                call.id = format!("{}call-{number}", call.id);
            }
        }
    }

    /// Whether nothing has come in: then asking again repeats nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.reasoning.is_empty() && self.calls.is_empty()
    }

    /// The tools that the model wants to be run: none, as long as the reply is not whole.
    pub(crate) fn calls(&self) -> &[ToolCall] {
        if self.is_whole {
            &self.calls
        } else {
            &[]
        }
    }

    /// As a part of the history.
    pub(crate) fn blocks(&self) -> Vec<AssistantBlock> {
        let text = (!self.text.is_empty()).then(|| AssistantBlock::Text { text: self.text.clone() });
        let calls = self.calls().iter().cloned();
        text.into_iter()
            .chain(calls.map(|ToolCall { id, name, args, .. }| AssistantBlock::ToolUse { id, name, args }))
            .collect()
    }
}

fn stop_reason(name: &str) -> StopReason {
    match name {
        "tool_calls" | "function_call" => StopReason::ToolUse,
        "length" => StopReason::MaxTokens,
        "content_filter" => StopReason::ContentFilter,
        _ => StopReason::EndTurn,
    }
}

/// Text, or what else it is as JSON.
fn plain_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Text, or a list of parts that have some.
fn text_of(content: Value) -> String {
    match content {
        Value::String(text) => text,
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

fn usage(figures: &Value) -> Usage {
    let tokens = |value: &Value| value.as_u64().or_else(|| value.as_f64().map(|tokens| tokens as u64));
    Usage {
        input_tokens: tokens(&figures["prompt_tokens"]).unwrap_or(0),
        output_tokens: tokens(&figures["completion_tokens"]).unwrap_or(0),
        cache_creation_tokens: None,
        cache_read_tokens: tokens(&figures["prompt_tokens_details"]["cached_tokens"]),
    }
}

/// Some servers have an `error` in every chunk.
fn says_something(error: &Value) -> bool {
    match error {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    }
}

/// What servers put into the field `error`: an object with a message, or only the message.
fn message_of(error: &Value) -> String {
    let message = error.get("message").unwrap_or(error);
    message.as_str().map_or_else(|| message.to_string(), str::to_owned)
}

/// What a server says about an error: JSON of some kind, or text whose first line says it.
pub(crate) fn message_of_text(text: &str) -> String {
    /// What a person reads.
    const LONGEST: usize = 300;
    let message = match serde_json::from_str::<Value>(text) {
        Ok(json) => message_of(json.get("error").unwrap_or(&json)),
        Err(_) => text.lines().next().unwrap_or_default().trim().to_owned(),
    };
    message.chars().take(LONGEST).collect()
}

/// One server-sent event, as far as it is of interest.
struct Event {
    data: String,
    is_error: bool,
    /// The stream ended in it.
    is_cut: bool,
}

/// The next event; `None` where the stream ends.
fn next_event(stream: &mut impl BufRead) -> Result<Option<Event>, Broken> {
    let (mut data, mut is_error, mut is_known) = (None::<String>, false, true);
    loop {
        let (line, is_cut) = match next_line(stream) {
            Ok(Some(line)) => line,
            Ok(None) | Err(Broken::Cut) if data.is_none() && !is_known => {
                return Err(Broken::Malformed("it is no stream of server-sent events".into()));
            }
            Err(broken) if data.is_none() || !matches!(broken, Broken::Cut) => return Err(broken),
            // Not every server ends its last event with an empty line.
            _ => return Ok(data.map(|data| Event { data, is_error, is_cut: true })),
        };
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => {
                if let Some(data) = data {
                    return Ok(Some(Event { data, is_error, is_cut }));
                }
            }
            "data" => match &mut data {
                Some(data) => data.extend(["\n", value]),
                None => data = Some(value.to_owned()),
            },
            "event" => is_error = value == "error",
            "error" => return Err(Broken::Failed(message_of_text(value))),
            // A comment, which keeps the connection alive, or something that says nothing here.
            "" | "id" | "retry" => {}
            _ => is_known = false,
        }
    }
}

/// The next line, and whether the stream ended in it.
fn next_line(stream: &mut impl BufRead) -> Result<Option<(String, bool)>, Broken> {
    let mut line = Vec::new();
    match stream.take(LONGEST_LINE).read_until(b'\n', &mut line) {
        Ok(0) => return Ok(None),
        // What came before the end of the connection may be all that matters.
        Err(_) if line.is_empty() => return Err(Broken::Cut),
        _ => {}
    }
    let is_cut = line.last() != Some(&b'\n');
    if is_cut && line.len() as u64 == LONGEST_LINE {
        return Err(Broken::Malformed("a line of it has no end".into()));
    }
    match std::str::from_utf8(&line) {
        Ok(text) => Ok(Some((text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']).to_owned(), is_cut))),
        Err(_) if is_cut => Err(Broken::Cut),
        Err(_) => Err(Broken::Malformed("it is not UTF-8".into())),
    }
}
