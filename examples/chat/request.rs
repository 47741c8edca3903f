//! A request, as the server wants it.

use serde_json::{json, Value};
use turnwise::{AssistantBlock, Message, ToolResult};

use crate::options::Options;
use crate::tools;

/// The body of a request.
pub(crate) fn body(options: &Options, history: &[Message]) -> Value {
    let messages: Vec<Value> = history.iter().flat_map(messages).collect();
    let mut body = json!({
        "model": options.model,
        "messages": messages,
        "stream": true,
        "stream_options": { "include_usage": true }
    });
    if options.tools {
        body["tools"] = tools::described();
    }
    if let Some(max_tokens) = options.max_tokens {
        body["max_tokens"] = max_tokens.into();
    }
    body
}

/// A message as the server wants it. The answers of tools are a message each.
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
                // The tool's answer tells what was wrong with them; servers refuse arguments that are no JSON object.
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
