//! A history as updates, for a client that loads it.

use std::collections::HashMap;

use agent_client_protocol_schema::v1::{ContentChunk, SessionUpdate, ToolCallStatus};

use super::config::AcpConfig;
use super::updates::tool_call;
use crate::model::{AssistantBlock, Message, Session, ToolResult};

/// The updates of a whole history, in order. A tool call is shown once, with its final status: a call without a result
/// was cut off, and counts as failed.
pub(super) fn updates<'a>(history: &'a Session, config: &'a AcpConfig) -> impl Iterator<Item = SessionUpdate> + 'a {
    let messages = history.messages();
    messages.iter().enumerate().flat_map(move |(at, message)| match message {
        Message::System { .. } | Message::ToolResults { .. } => Vec::new(),
        Message::User { content } => vec![SessionUpdate::UserMessageChunk(chunk(content))],
        Message::Assistant { blocks, .. } => {
            let results = results_after(&messages[at + 1..]);
            blocks.iter().map(|block| block_update(block, &results, history, config)).collect()
        }
    })
}

/// The results that follow a message, by the id of the call. They end with the next message of another kind.
fn results_after(messages: &[Message]) -> HashMap<&str, &ToolResult> {
    let mut results = HashMap::new();
    for message in messages {
        let Message::ToolResults { results: found } = message else { break };
        results.extend(found.iter().map(|result| (result.tool_use_id.as_str(), result)));
    }
    results
}

fn block_update(
    block: &AssistantBlock,
    results: &HashMap<&str, &ToolResult>,
    history: &Session,
    config: &AcpConfig,
) -> SessionUpdate {
    match block {
        AssistantBlock::Text { text } => SessionUpdate::AgentMessageChunk(chunk(text)),
        AssistantBlock::Reasoning { text } => SessionUpdate::AgentThoughtChunk(chunk(text)),
        AssistantBlock::ToolUse { id, name, args } => {
            let call = tool_call(id.clone(), name, Some(args), history.id(), config);
            SessionUpdate::ToolCall(match results.get(id.as_str()) {
                Some(result) if result.is_error => {
                    call.status(ToolCallStatus::Failed).content(vec![result.content.as_str().into()])
                }
                Some(result) => call.status(ToolCallStatus::Completed).content(vec![result.content.as_str().into()]),
                None => call.status(ToolCallStatus::Failed),
            })
        }
    }
}

fn chunk(text: &str) -> ContentChunk {
    ContentChunk::new(text.into())
}
