//! A reply as it comes in: server-sent events, each with a piece of it.

use std::collections::BTreeMap;
use std::io::{BufRead, Read as _};

use serde::Deserialize;
use turnwise::{AssistantBlock, StopReason, Usage};

/// A longer line is no piece of a reply.
const LONGEST_LINE: u64 = 1 << 20;

/// What has come in so far.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    /// By the number that the server gives them.
    calls: BTreeMap<usize, Call>,
    pub(crate) stop: Option<StopReason>,
    pub(crate) usage: Usage,
}

/// A tool call; its arguments come in pieces too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Call {
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
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Figures>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
    #[serde(alias = "reasoning")]
    reasoning_content: Option<String>,
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize)]
struct CallDelta {
    #[serde(default)]
    index: usize,
    id: Option<String>,
    #[serde(default)]
    function: FunctionDelta,
}

#[derive(Default, Deserialize)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct Figures {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    prompt_tokens_details: Option<PromptFigures>,
}

#[derive(Deserialize)]
struct PromptFigures {
    cached_tokens: Option<u64>,
}

impl Reply {
    /// Reads on until something is new; `None` at the end of the reply.
    pub(crate) fn read(&mut self, stream: &mut impl BufRead) -> Result<Option<Vec<Piece>>, Broken> {
        match next_data(stream)? {
            Some(data) if data == "[DONE]" => Ok(None),
            Some(data) => self.take(&data).map(Some),
            // Some servers say no more than why the model stopped.
            None if self.stop.is_some() => Ok(None),
            None => Err(Broken::Cut),
        }
    }

    fn take(&mut self, data: &str) -> Result<Vec<Piece>, Broken> {
        let chunk: Chunk = serde_json::from_str(data).map_err(|error| Broken::Malformed(error.to_string()))?;
        if let Some(error) = chunk.error {
            return Err(Broken::Failed(message_of(&error)));
        }
        if let Some(figures) = chunk.usage {
            self.usage = figures.into();
        }
        let mut pieces = Vec::new();
        // One is asked for, so there is one.
        for Choice { delta, finish_reason } in chunk.choices.into_iter().take(1) {
            if let Some(text) = delta.reasoning_content.filter(|text| !text.is_empty()) {
                self.reasoning.push_str(&text);
                pieces.push(Piece::Reasoning(text));
            }
            if let Some(text) = delta.content.filter(|text| !text.is_empty()) {
                self.text.push_str(&text);
                pieces.push(Piece::Text(text));
            }
            delta.tool_calls.into_iter().flatten().for_each(|call| self.take_call(call));
            self.stop = finish_reason.as_deref().map(stop_reason).or(self.stop);
        }
        Ok(pieces)
    }

    fn take_call(&mut self, delta: CallDelta) {
        let call = self.calls.entry(delta.index).or_default();
        if let Some(id) = delta.id.filter(|id| !id.is_empty()) {
            call.id = id;
        }
        call.name.push_str(delta.function.name.as_deref().unwrap_or_default());
        call.args.push_str(delta.function.arguments.as_deref().unwrap_or_default());
    }

    /// Whether nothing has come in: then asking again repeats nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.reasoning.is_empty() && self.calls.is_empty()
    }

    /// The tools that the model wants to be run.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.values().cloned().collect()
    }

    /// As a part of the history; with the tool calls if all of each has come in.
    pub(crate) fn blocks(&self) -> Vec<AssistantBlock> {
        let text = (!self.text.is_empty()).then(|| AssistantBlock::Text { text: self.text.clone() });
        let calls = self.calls().into_iter().map(|Call { id, name, args }| AssistantBlock::ToolUse { id, name, args });
        text.into_iter().chain(calls.filter(|_| self.stop.is_some())).collect()
    }
}

impl From<Figures> for Usage {
    fn from(figures: Figures) -> Self {
        Self {
            input_tokens: figures.prompt_tokens,
            output_tokens: figures.completion_tokens,
            cache_creation_tokens: None,
            cache_read_tokens: figures.prompt_tokens_details.and_then(|details| details.cached_tokens),
        }
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

/// What servers put into the field `error`: an object with a message, or only the message.
pub(crate) fn message_of(error: &serde_json::Value) -> String {
    let message = error.get("message").unwrap_or(error);
    message.as_str().map_or_else(|| message.to_string(), str::to_owned)
}

/// The data of the next event; `None` where the stream ends.
fn next_data(stream: &mut impl BufRead) -> Result<Option<String>, Broken> {
    let mut data: Option<String> = None;
    loop {
        // Not every server ends its last event with an empty line.
        let Some(line) = next_line(stream)? else { return Ok(data) };
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        match field {
            // The empty line that ends an event; nothing of it if there was no data.
            "" if line.is_empty() && data.is_some() => return Ok(data),
            "data" => {
                let value = value.strip_prefix(' ').unwrap_or(value);
                match &mut data {
                    Some(data) => data.extend(["\n", value]),
                    None => data = Some(value.to_owned()),
                }
            }
            // A comment, which keeps the connection alive, or something about the event that says nothing here.
            "" | "event" | "id" | "retry" => {}
            _ => return Err(Broken::Malformed("it is no stream of server-sent events".into())),
        }
    }
}

fn next_line(stream: &mut impl BufRead) -> Result<Option<String>, Broken> {
    let mut line = Vec::new();
    let read = stream.take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(|_| Broken::Cut)?;
    match line.strip_suffix(b"\n") {
        Some(line) => {
            let text = std::str::from_utf8(line).map_err(|_| Broken::Malformed("it is not UTF-8".into()))?;
            Ok(Some(text.strip_suffix('\r').unwrap_or(text).to_owned()))
        }
        None if read == 0 => Ok(None),
        None if read as u64 == LONGEST_LINE => Err(Broken::Malformed("a line of it has no end".into())),
        None => Err(Broken::Cut),
    }
}
