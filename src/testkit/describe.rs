//! The text form of events in a test's expectations.

use crate::model::AgentEvent;

/// Whether an event matches an expectation: its name, or its name and text.
pub(super) fn matches(event: &AgentEvent, expected: &str) -> bool {
    let (name, text) = name_and_text(event);
    match expected.strip_prefix(name) {
        Some("") => true,
        Some(rest) => rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) == Some(&text),
        None => false,
    }
}

/// Returns the event's name and text, such as `TextDelta(hello)`.
pub(super) fn describe(event: &AgentEvent) -> String {
    let (name, text) = name_and_text(event);
    format!("{name}({text})")
}

/// Returns an event's name and text. The text has neither ids nor durations, since they differ from run to run.
fn name_and_text(event: &AgentEvent) -> (&'static str, String) {
    use AgentEvent as E;
    let failed = |is_error: &bool| if *is_error { ", an error" } else { "" };
    match event {
        E::RunStarted { prompt, .. } => ("RunStarted", prompt.clone()),
        E::RunCompleted { result, .. } => ("RunCompleted", result.clone()),
        E::RunFailed { session_id, error, .. } => {
            ("RunFailed", error.replace(&format!("session {session_id}"), "the session"))
        }
        E::TurnStarted { turn_number } => ("TurnStarted", turn_number.to_string()),
        E::TextDelta { delta } => ("TextDelta", delta.clone()),
        E::TextComplete { content } => ("TextComplete", content.clone()),
        E::ReasoningDelta { delta } => ("ReasoningDelta", delta.clone()),
        E::ReasoningComplete { content } => ("ReasoningComplete", content.clone()),
        E::ToolCallRequested { name, args, .. } => ("ToolCallRequested", format!("{name} {args}")),
        E::ToolResultReceived { name, is_error, .. } => ("ToolResultReceived", format!("{name}{}", failed(is_error))),
        E::TurnCompleted { stop_reason, .. } => ("TurnCompleted", format!("{stop_reason:?}")),
        E::ToolExecutionStarted { name, .. } => ("ToolExecutionStarted", name.clone()),
        E::ToolExecutionCompleted { name, result, is_error, .. } => {
            ("ToolExecutionCompleted", format!("{name}: {result}{}", failed(is_error)))
        }
        E::ToolExecutionTimedOut { name, .. } => ("ToolExecutionTimedOut", name.clone()),
        E::Retrying { attempt, max_attempts, error, .. } => {
            ("Retrying", format!("{attempt} of {max_attempts}: {error}"))
        }
        E::BudgetWarning { budget_type, used, limit, .. } => {
            ("BudgetWarning", format!("{budget_type:?}: {used} of {limit}"))
        }
        E::CompactionStarted { message_count, .. } => ("CompactionStarted", format!("{message_count} messages")),
        E::CompactionCompleted { messages_before, messages_after, .. } => {
            ("CompactionCompleted", format!("{messages_before} to {messages_after} messages"))
        }
        E::CompactionFailed { error } => ("CompactionFailed", error.clone()),
        E::SkillsResolved { skills, .. } => {
            let names: Vec<&str> = skills.iter().map(|skill| skill.as_str()).collect();
            ("SkillsResolved", names.join(", "))
        }
        E::SkillResolutionFailed { reference, error } => ("SkillResolutionFailed", format!("{reference}: {error}")),
        E::InputRequested { request, .. } => ("InputRequested", format!("{}: {}", request.kind, request.message)),
        E::InputResolved { outcome, .. } => ("InputResolved", outcome.to_string()),
        E::InteractionComplete { result, .. } => ("InteractionComplete", result.clone()),
        E::InteractionFailed { error, .. } => ("InteractionFailed", error.clone()),
        E::StreamTruncated { reason } => ("StreamTruncated", reason.clone()),
        E::Custom { name, payload } => ("Custom", format!("{name} {payload}")),
    }
}
