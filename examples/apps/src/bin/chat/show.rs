//! Messages, answers and errors as text for the user.

use turnwise::{AssistantBlock, CancelReason, Message, RunResult, SessionError};
use turnwise_apps::say::{plain, say};

/// The text of a model or a server without characters that control a terminal. Carriage returns are removed, not
/// replaced, because some models and servers end their lines with them.
pub(crate) fn without_controls(text: &str) -> String {
    plain(&text.replace('\r', ""))
}

/// A line that the user has typed, in one line although it continues in others.
pub(crate) fn one_line(line: &str) -> String {
    line.replace('\n', " ")
}

/// Shows a message of a conversation.
pub(crate) fn show_message(message: &Message) {
    match message {
        Message::System { content } => say(format_args!("system: {}", without_controls(content))),
        Message::User { content } => say(format_args!("you: {}", without_controls(content))),
        Message::Assistant { blocks, .. } => blocks.iter().for_each(show_block),
        Message::ToolResults { results } => {
            results.iter().for_each(|result| say(format_args!("tool: {}", without_controls(&result.content))));
        }
    }
}

fn show_block(block: &AssistantBlock) {
    match block {
        AssistantBlock::Text { text } => say(format_args!("assistant: {}", without_controls(text))),
        AssistantBlock::ToolUse { name, args, .. } => {
            say(format_args!("assistant: {}({})", without_controls(name), without_controls(args)))
        }
        AssistantBlock::Reasoning { .. } => {}
    }
}

/// Shows the answer of a turn in the background.
pub(crate) fn show_answer(name: &str, result: &Result<RunResult, SessionError>) {
    let text = match result {
        Ok(result) => without_controls(&result.text),
        Err(error) => explain(error),
    };
    say(format_args!("[{name}] {}", text.trim_end()));
}

/// The error in the words of conversations.
pub(crate) fn explain(error: &SessionError) -> String {
    match error.cancel_reason() {
        Some(CancelReason::Interrupted | CancelReason::Archived) => return "interrupted".into(),
        Some(CancelReason::DeadlineExceeded) => return "stopped: that took too long (--timeout)".into(),
        Some(reason) => return format!("stopped: {reason}"),
        None => {}
    }
    if let Some(error) = error.agent_error() {
        return format!("error: {}", without_controls(&error.to_string()));
    }
    match error {
        SessionError::Busy { .. } | SessionError::Timeout { .. } => {
            "error: that conversation is still being answered; /stop ends it".into()
        }
        SessionError::QueueFull { capacity, .. } => {
            format!("error: the queue is full, {capacity} questions wait; /unqueue withdraws them")
        }
        SessionError::InboxFull { capacity, .. } => {
            format!("error: {capacity} lines are sent to that answer and not taken in yet")
        }
        SessionError::NotRunning { .. } => "error: that conversation is not being answered".into(),
        other => format!("error: {other}"),
    }
}
