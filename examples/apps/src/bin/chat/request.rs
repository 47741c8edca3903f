//! The body of a request.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{json, Value};
use turnwise::{AssistantBlock, Message, ToolResult};

use crate::options::Options;
use crate::tools;

/// The parameters that the endpoint has accepted. All conversations of the program share them.
#[derive(Debug, Default)]
pub(crate) struct Dialect {
    without_stream_options: AtomicBool,
    with_completion_tokens: AtomicBool,
}

/// The spelling of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spelling {
    /// The request has `stream_options`, which asks for the usage.
    stream_options: bool,
    /// The limit is called `max_completion_tokens`, and not `max_tokens`.
    completion_tokens: bool,
}

impl Dialect {
    pub(crate) fn spelling(&self) -> Spelling {
        // ORDERING: Relaxed; each flag is independent, and no other data depends on it.
        let is_known = |fact: &AtomicBool| fact.load(Ordering::Relaxed);
        let stream_options = !is_known(&self.without_stream_options);
        Spelling { stream_options, completion_tokens: is_known(&self.with_completion_tokens) }
    }

    /// Remembers a spelling that the server has accepted.
    pub(crate) fn learn(&self, spelling: Spelling) {
        // ORDERING: Relaxed, as in `spelling`.
        self.without_stream_options.fetch_or(!spelling.stream_options, Ordering::Relaxed);
        self.with_completion_tokens.fetch_or(spelling.completion_tokens, Ordering::Relaxed);
    }
}

impl Spelling {
    /// The spelling without the parameter that a refusal names. `None` if it names no such parameter.
    pub(crate) fn otherwise(self, refusal: &str, options: &Options) -> Option<Self> {
        let refusal = refusal.to_ascii_lowercase();
        if self.stream_options && refusal.contains("stream_options") {
            return Some(Self { stream_options: false, ..self });
        }
        // A limit that is too high is refused under each of its names.
        let is_unknown = REFUSED.iter().any(|word| refusal.contains(word));
        let names_limit = refusal.contains("max_completion_tokens") || (refusal.contains("max_tokens") && is_unknown);
        let can_change = options.max_tokens.is_some() && !self.completion_tokens;
        (can_change && names_limit).then_some(Self { completion_tokens: true, ..self })
    }
}

/// The words with which servers refuse a parameter.
const REFUSED: [&str; 9] = [
    "unsupported",
    "not supported",
    "unknown",
    "unrecognized",
    "unexpected",
    "not permitted",
    "not allowed",
    "extra_forbidden",
    "deprecated",
];

/// The body of a request.
pub(crate) fn body(options: &Options, spelling: Spelling, history: &[Message]) -> Value {
    let messages: Vec<Value> = history.iter().flat_map(messages).collect();
    let mut body = json!({ "model": options.model, "messages": messages, "stream": true });
    if spelling.stream_options {
        body["stream_options"] = json!({ "include_usage": true });
    }
    if options.tools {
        body["tools"] = tools::described();
    }
    if let Some(max_tokens) = options.max_tokens {
        let name = if spelling.completion_tokens { "max_completion_tokens" } else { "max_tokens" };
        body[name] = max_tokens.into();
    }
    body
}

/// A message in the form of the protocol. Each result of a tool is a message.
fn messages(message: &Message) -> Vec<Value> {
    match message {
        Message::System { content } => vec![json!({ "role": "system", "content": content })],
        Message::User { content } => vec![json!({ "role": "user", "content": content })],
        Message::Assistant { blocks, .. } => vec![assistant(blocks)],
        Message::ToolResults { results } => results.iter().map(tool_result).collect(),
    }
}

fn tool_result(result: &ToolResult) -> Value {
    json!({ "role": "tool", "tool_call_id": result.tool_use_id, "content": result.content })
}

fn assistant(blocks: &[AssistantBlock]) -> Value {
    let (mut text, mut calls) = (String::new(), Vec::new());
    for block in blocks {
        match block {
            AssistantBlock::Text { text: part } => text.push_str(part),
            AssistantBlock::ToolUse { id, name, args } => {
                // Servers refuse arguments that are not a JSON object. The tool's result tells the model what was
                // wrong.
                let is_object = serde_json::from_str::<Value>(args).is_ok_and(|args| args.is_object());
                let args = if is_object { args } else { "{}" };
                calls.push(json!({ "id": id, "type": "function", "function": { "name": name, "arguments": args } }));
            }
            AssistantBlock::Reasoning { .. } => {}
        }
    }
    let mut message = json!({ "role": "assistant", "content": text });
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    message
}
