//! The events of a turn as updates for the client.

use std::collections::{BTreeMap, BTreeSet};

use agent_client_protocol_schema::v1::{
    ClientCapabilities, ContentBlock, ContentChunk, SessionUpdate, ToolCall, ToolCallStatus, ToolCallUpdate,
    ToolCallUpdateFields, UsageUpdate,
};
use serde_json::Value;

use super::config::{AcpConfig, ToolDisplay};
use super::input;
use crate::model::{AgentEvent, InputId, InputOutcome, SessionId, Usage};
use crate::panics::{self, record};

/// The name of the custom event that carries an update.
const UPDATE: &str = "acp.session_update";

/// The event with which an agent sends an update of its own: a plan, the available commands, the used context, or the
/// content of a tool call, such as a diff or a terminal.
///
/// An update that the client has not said it understands is left out. So is one with a path that is not UTF-8, because
/// JSON cannot hold the path; the log then has a warning.
///
/// ```
/// use turnwise::acp::schema::{Plan, PlanEntry, PlanEntryPriority, PlanEntryStatus, SessionUpdate};
/// use turnwise::acp::update_event;
/// use turnwise::{Cancelled, TurnContext};
///
/// fn show_plan(turn: &TurnContext) -> Result<(), Cancelled> {
///     let step = PlanEntry::new("Read the tests", PlanEntryPriority::High, PlanEntryStatus::InProgress);
///     turn.emit(update_event(&SessionUpdate::Plan(Plan::new(vec![step]))))
/// }
/// ```
pub fn update_event(update: &SessionUpdate) -> AgentEvent {
    // Updates are plain data with string keys. Only a path that is not UTF-8 fails, and an empty payload is no update.
    let payload = serde_json::to_string(update).unwrap_or_else(|_| {
        record!(Warn, "turnwise::acp", "an update of an agent has a path that is not UTF-8, and is left out");
        String::new()
    });
    AgentEvent::Custom { name: UPDATE.to_owned(), payload }
}

/// What the client knows of one turn.
#[derive(Debug, Default)]
pub(super) struct TurnUpdates {
    /// The tool calls that have begun and not ended, by id.
    open_calls: BTreeMap<String, ToolCallStatus>,
    /// The calls that stand for open permissions about no other call.
    permissions: BTreeSet<String>,
    /// Text has been sent since the last complete one.
    has_text: bool,
    has_thought: bool,
    /// Text has been sent since the last tool call.
    has_answer: bool,
    /// All text that has been sent.
    sent: String,
    /// The tool calls that have ended.
    ended_calls: BTreeSet<String>,
    /// The tool calls whose content the agent has sent itself.
    own_content: BTreeSet<String>,
}

impl TurnUpdates {
    /// The only tool call that is open. `None` if several are: a question may be about any of them.
    pub(super) fn current_call(&self) -> Option<&str> {
        let mut open = self.open_calls.keys();
        open.next().filter(|_| open.next().is_none()).map(String::as_str)
    }

    /// The update that shows the subject of a permission, if it is a call of the permission's own.
    pub(super) fn announce(&mut self, input: InputId, subject: &ToolCallUpdate) -> Option<SessionUpdate> {
        let id = input::own_call(input);
        (*subject.tool_call_id.0 == id).then(|| {
            let fields = subject.fields.clone();
            let call = ToolCall::new(id.clone(), fields.title.unwrap_or_default()).raw_input(fields.raw_input);
            self.permissions.insert(id);
            SessionUpdate::ToolCall(call.status(ToolCallStatus::Pending))
        })
    }

    /// The update that ends the call of a permission's own.
    pub(super) fn resolve(&mut self, input: InputId, outcome: &InputOutcome) -> Option<SessionUpdate> {
        let id = input::own_call(input);
        self.permissions.remove(&id).then(|| {
            let status = match outcome {
                InputOutcome::Answered => ToolCallStatus::Completed,
                _ => ToolCallStatus::Failed,
            };
            SessionUpdate::ToolCallUpdate(ToolCallUpdate::new(id, ToolCallUpdateFields::new().status(status)))
        })
    }

    /// The updates for an event, in order. Most events are one or none.
    pub(super) fn of(
        &mut self,
        event: AgentEvent,
        session: SessionId,
        config: &AcpConfig,
        able: &ClientCapabilities,
    ) -> Vec<SessionUpdate> {
        match event {
            AgentEvent::TextDelta { delta } => self.text(delta),
            // The pieces have been sent already, if the agent has emitted any.
            AgentEvent::TextComplete { content } => match std::mem::take(&mut self.has_text) {
                true => Vec::new(),
                false => self.complete_text(content),
            },
            AgentEvent::ReasoningDelta { delta } => {
                self.has_thought = true;
                thought(delta)
            }
            AgentEvent::ReasoningComplete { content } => match std::mem::take(&mut self.has_thought) {
                true => Vec::new(),
                false => thought(content),
            },
            AgentEvent::TurnCompleted { usage, .. } => {
                (self.has_text, self.has_thought) = (false, false);
                used(config.context_size, usage)
            }
            AgentEvent::ToolCallRequested { id, name, args } => {
                self.begin_call(id, &name, Some(&args), ToolCallStatus::Pending, session, config)
            }
            AgentEvent::ToolExecutionStarted { id, name } => self.start_call(id, &name, session, config),
            AgentEvent::ToolExecutionCompleted { id, name, result, is_error, .. } => {
                let status = if is_error { ToolCallStatus::Failed } else { ToolCallStatus::Completed };
                self.end_call(id, &name, status, Some(result), session, config)
            }
            AgentEvent::ToolExecutionTimedOut { id, name, timeout_ms } => {
                let message = format!("timed out after {timeout_ms} ms");
                self.end_call(id, &name, ToolCallStatus::Failed, Some(message), session, config)
            }
            AgentEvent::ToolResultReceived { id, name, is_error } if self.open_calls.contains_key(&id) => {
                let status = if is_error { ToolCallStatus::Failed } else { ToolCallStatus::Completed };
                self.end_call(id, &name, status, None, session, config)
            }
            AgentEvent::Custom { name, payload } if name == UPDATE => {
                let update = serde_json::from_str(&payload).ok();
                update.filter(|update| understands(able, update)).map(|update| self.note(update)).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// The updates at the end of the turn: the answer, if the agent has not sent it, and the end of open tool calls.
    pub(super) fn end(&mut self, answer: Option<&str>) -> Vec<SessionUpdate> {
        let fields = || ToolCallUpdateFields::new().status(ToolCallStatus::Failed);
        let open = std::mem::take(&mut self.open_calls).into_keys();
        let mut updates: Vec<_> = open
            .chain(std::mem::take(&mut self.permissions))
            .map(|id| SessionUpdate::ToolCallUpdate(ToolCallUpdate::new(id, fields())))
            .collect();
        // An agent may stream the text before its tool calls, and give the last text as the result only.
        let is_unsent = |answer: &&str| !self.has_answer && !self.sent.trim_end().ends_with(answer.trim());
        if let Some(answer) = answer.filter(|answer| !answer.is_empty()).filter(is_unsent) {
            updates.extend(self.text(answer.to_owned()));
        }
        updates
    }

    fn text(&mut self, text: String) -> Vec<SessionUpdate> {
        self.has_text = true;
        self.complete_text(text)
    }

    fn complete_text(&mut self, text: String) -> Vec<SessionUpdate> {
        self.has_answer = true;
        self.sent.push_str(&text);
        vec![SessionUpdate::AgentMessageChunk(ContentChunk::new(text.into()))]
    }

    fn begin_call(
        &mut self,
        id: String,
        name: &str,
        args: Option<&str>,
        status: ToolCallStatus,
        session: SessionId,
        config: &AcpConfig,
    ) -> Vec<SessionUpdate> {
        self.has_answer = false;
        self.ended_calls.remove(&id);
        self.open_calls.insert(id.clone(), status);
        vec![SessionUpdate::ToolCall(tool_call(id, name, args, session, config).status(status))]
    }

    fn start_call(&mut self, id: String, name: &str, session: SessionId, config: &AcpConfig) -> Vec<SessionUpdate> {
        if !self.open_calls.contains_key(&id) {
            return self.begin_call(id, name, None, ToolCallStatus::InProgress, session, config);
        }
        self.open_calls.insert(id.clone(), ToolCallStatus::InProgress);
        let fields = ToolCallUpdateFields::new().status(ToolCallStatus::InProgress);
        vec![SessionUpdate::ToolCallUpdate(ToolCallUpdate::new(id, fields))]
    }

    fn end_call(
        &mut self,
        id: String,
        name: &str,
        status: ToolCallStatus,
        result: Option<String>,
        session: SessionId,
        config: &AcpConfig,
    ) -> Vec<SessionUpdate> {
        if !self.ended_calls.insert(id.clone()) {
            // The agent has ended the call with an update of its own.
            return Vec::new();
        }
        let mut updates = match self.open_calls.remove(&id) {
            Some(_) => Vec::new(),
            None => vec![SessionUpdate::ToolCall(tool_call(id.clone(), name, None, session, config))],
        };
        let result = result.filter(|result| !result.is_empty());
        let fields = ToolCallUpdateFields::new().status(status);
        // Content replaces content. That of the agent, such as a diff, stays.
        let fields = match self.own_content.contains(&id) {
            true => fields.raw_output(result.map(Value::from)),
            false => fields.content(result.map(|result| vec![result.into()])),
        };
        updates.push(SessionUpdate::ToolCallUpdate(ToolCallUpdate::new(id, fields)));
        updates
    }

    /// Notes what an update of the agent's own says about text and tool calls.
    fn note(&mut self, update: SessionUpdate) -> SessionUpdate {
        let (id, status, has_content) = match &update {
            SessionUpdate::ToolCall(call) => (&call.tool_call_id, Some(call.status), !call.content.is_empty()),
            SessionUpdate::ToolCallUpdate(ToolCallUpdate { tool_call_id, fields, .. }) => {
                (tool_call_id, fields.status, fields.content.is_some())
            }
            SessionUpdate::AgentMessageChunk(ContentChunk { content: ContentBlock::Text(text), .. }) => {
                (self.has_answer, self.has_text) = (true, true);
                self.sent.push_str(&text.text);
                return update;
            }
            _ => return update,
        };
        let id = id.0.as_ref().to_owned();
        if has_content {
            self.own_content.insert(id.clone());
        }
        match status {
            Some(ToolCallStatus::Completed | ToolCallStatus::Failed) => {
                self.open_calls.remove(&id);
                self.ended_calls.insert(id);
            }
            Some(status) => {
                self.ended_calls.remove(&id);
                self.open_calls.insert(id, status);
            }
            None => {}
        }
        update
    }
}

fn thought(text: String) -> Vec<SessionUpdate> {
    vec![SessionUpdate::AgentThoughtChunk(ContentChunk::new(text.into()))]
}

/// How much of the context a model call has used. Only where both numbers are known.
fn used(size: Option<u64>, usage: Usage) -> Vec<SessionUpdate> {
    let size = size.filter(|_| usage.total_tokens() > 0);
    size.map(|size| SessionUpdate::UsageUpdate(UsageUpdate::new(usage.total_tokens(), size))).into_iter().collect()
}

/// A tool call as the client is to show it.
pub(super) fn tool_call(
    id: String,
    name: &str,
    args: Option<&str>,
    session: SessionId,
    config: &AcpConfig,
) -> ToolCall {
    let args = args.map(|args| serde_json::from_str(args).unwrap_or_else(|_| Value::from(args)));
    // The host's code. A panic costs the display only.
    let display = panics::contain(|| (config.display_tool)(session, name, args.as_ref().unwrap_or(&Value::Null)));
    let ToolDisplay { title, kind, mut locations } =
        display.unwrap_or_else(|_| ToolDisplay::new(name, agent_client_protocol_schema::v1::ToolKind::Other));
    // JSON cannot hold these paths. The client still sees the call.
    locations.retain(|location| location.path.to_str().is_some());
    ToolCall::new(id, title).kind(kind).locations(locations).raw_input(args)
}

/// Whether the client may be sent this update.
fn understands(able: &ClientCapabilities, update: &SessionUpdate) -> bool {
    let session = able.session.as_ref();
    match update {
        SessionUpdate::UserMessageChunk(_)
        | SessionUpdate::AgentMessageChunk(_)
        | SessionUpdate::AgentThoughtChunk(_)
        | SessionUpdate::ToolCall(_)
        | SessionUpdate::ToolCallUpdate(_)
        | SessionUpdate::Plan(_)
        | SessionUpdate::AvailableCommandsUpdate(_)
        | SessionUpdate::SessionInfoUpdate(_)
        | SessionUpdate::UsageUpdate(_) => true,
        SessionUpdate::PlanUpdate(_) | SessionUpdate::PlanRemoved(_) => able.plan.is_some(),
        SessionUpdate::Notice(_) => session.is_some_and(|session| session.notices.is_some()),
        SessionUpdate::CompactionUpdate(_) | SessionUpdate::CompactionSummaryChunk(_) => {
            session.is_some_and(|session| session.compaction.is_some())
        }
        // Modes and options are not offered, and sub-agents are not shown as sessions.
        _ => false,
    }
}
