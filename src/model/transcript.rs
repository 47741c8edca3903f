//! The history of a session: the type that is stored, exported and resumed.
//!
//! **Invariant.** Clones share metadata until one of them writes, and messages also while one of them grows; see
//! [`Messages`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use super::messages::Messages;
use super::{Brief, SessionId, StopReason, Usage};
use crate::sync::Arc;

/// The format version of a serialized session. A reader refuses a newer one instead of guessing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(transparent))]
struct FormatVersion(u32);

impl FormatVersion {
    const CURRENT: Self = Self(Session::FORMAT_VERSION);
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for FormatVersion {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let version = u32::deserialize(deserializer)?;
        if version == 0 || version > Self::CURRENT.0 {
            return Err(serde::de::Error::custom(format_args!(
                "this session is of format version {version}, but only versions 1 to {} can be read here",
                Self::CURRENT.0
            )));
        }
        Ok(Self(version))
    }
}

/// The history of a session: its messages, usage, metadata and times. It is not a live session: that is a
/// [`SessionId`] in a service.
///
/// Clones share messages and metadata. So [`clone`](Clone::clone), [`fork`](Session::fork) and
/// [`SessionAgent::session_clone`](crate::SessionAgent::session_clone) take constant time. A [`push`](Session::push)
/// copies no message, even while clones share the history: the clones keep their length. Other changes of a shared
/// history copy it first, and so does a push to a clone that has become the shorter one.
///
/// With the feature `serde` a session can be serialized as JSON and resumed by another process. Deserializing a newer
/// format version fails with a clear error.
///
/// ```
/// use turnwise::{Message, Session};
///
/// let mut session = Session::new();
/// session.set_system_prompt("Answer in one word.");
/// session.push(Message::user("What falls in autumn?"));
/// session.push(Message::assistant("Leaves."));
/// let other = session.fork_at(2);
/// assert_eq!(session.last_assistant_text().as_deref(), Some("Leaves."));
/// assert_eq!(other.messages().len(), 2);
/// assert_ne!(other.id(), session.id());
/// ```
#[derive(Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Session {
    // First in the serialized form, so that a reader refuses a newer format before it meets unknown parts.
    format_version: FormatVersion,
    id: SessionId,
    created_at: SystemTime,
    updated_at: SystemTime,
    usage: Usage,
    #[cfg_attr(feature = "serde", serde(default))]
    metadata: Arc<BTreeMap<String, String>>,
    messages: Messages,
}

impl Session {
    /// The newest format version that this crate reads, and the one that it writes.
    pub const FORMAT_VERSION: u32 = 1;

    /// Makes an empty history with a fresh id.
    #[allow(clippy::new_without_default)] // It reads the clock and makes an id: not a neutral value.
    pub fn new() -> Self {
        Self::with_id(SessionId::new())
    }

    /// Makes an empty history of the session with this id.
    pub fn with_id(id: SessionId) -> Self {
        let now = SystemTime::now();
        Self {
            format_version: FormatVersion::CURRENT,
            id,
            created_at: now,
            updated_at: now,
            usage: Usage::default(),
            metadata: Arc::default(),
            messages: Messages::default(),
        }
    }

    /// Returns the id of the history's session.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Assigns the history to the session with this id.
    pub(crate) fn owned_by(mut self, id: SessionId) -> Self {
        self.id = id;
        self
    }

    /// Returns the format version.
    pub fn format_version(&self) -> u32 {
        self.format_version.0
    }

    /// Returns when the history began.
    pub fn created_at(&self) -> SystemTime {
        self.created_at
    }

    /// Returns when the history last changed.
    pub fn updated_at(&self) -> SystemTime {
        self.updated_at
    }

    /// Returns all messages, oldest first.
    ///
    /// A history that has grown while it was shared has no slice: the first call copies the messages into one, and
    /// later pushes add to the copy. [`iter`](Self::iter) copies nothing.
    pub fn messages(&self) -> &[Message] {
        self.messages.as_slice()
    }

    /// Iterates over all messages, oldest first. Unlike [`messages`](Self::messages) it never copies them.
    ///
    /// ```
    /// use turnwise::{Message, Session};
    ///
    /// let mut session = Session::new();
    /// session.push_batch([Message::user("one"), Message::assistant("1")]);
    /// assert_eq!(session.iter().len(), 2);
    /// assert_eq!(session.iter().next_back().map(Message::text).as_deref(), Some("1"));
    /// ```
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Message> + ExactSizeIterator + Clone {
        self.messages.iter()
    }

    /// The change that made `earlier` to this history, if `earlier` is an older share of it. Compares no message.
    #[cfg(feature = "store")]
    pub(crate) fn change_since(&self, earlier: &Self) -> HistoryChange {
        match self.messages.common_start(&earlier.messages) {
            Some(start) => HistoryChange::Appended { start },
            None => HistoryChange::Rewritten,
        }
    }

    /// The messages under another header: that of the record that has them.
    #[cfg(feature = "store")]
    pub(crate) fn with_figures(
        self,
        id: SessionId,
        created_at: SystemTime,
        updated_at: SystemTime,
        usage: Usage,
        metadata: BTreeMap<String, String>,
    ) -> Self {
        let metadata = if *self.metadata == metadata { self.metadata } else { Arc::new(metadata) };
        Self { id, created_at, updated_at, usage, metadata, ..self }
    }

    /// The messages from an index on.
    #[cfg(feature = "store")]
    pub(crate) fn iter_from(&self, start: usize) -> impl ExactSizeIterator<Item = &Message> {
        self.messages.iter_from(start)
    }

    /// Returns all messages for modification. Copies them first if another clone shares them.
    ///
    /// ```
    /// use turnwise::{Message, Session};
    ///
    /// let mut session = Session::new();
    /// session.push_batch([Message::user("one"), Message::assistant("1"), Message::user("two")]);
    /// let kept = session.clone();
    /// session.messages_mut().drain(..2);
    /// assert_eq!((session.messages().len(), kept.messages().len()), (1, 3));
    /// ```
    pub fn messages_mut(&mut self) -> &mut Vec<Message> {
        self.touch();
        self.messages.as_mut()
    }

    /// Returns the last `n` messages, or all where there are fewer.
    ///
    /// ```
    /// use turnwise::{Message, Session};
    ///
    /// let mut session = Session::new();
    /// session.push_batch([Message::user("hello"), Message::assistant("HELLO")]);
    /// assert_eq!(session.last_n(1), [Message::assistant("HELLO")]);
    /// assert_eq!(session.last_n(10).len(), 2);
    /// ```
    pub fn last_n(&self, n: usize) -> &[Message] {
        let all = self.messages();
        &all[all.len().saturating_sub(n)..]
    }

    /// Adds a message.
    pub fn push(&mut self, message: Message) {
        self.touch();
        self.messages.push(message);
    }

    /// Adds several messages at once.
    pub fn push_batch(&mut self, messages: impl IntoIterator<Item = Message>) {
        self.touch();
        messages.into_iter().for_each(|message| self.messages.push(message));
    }

    /// Sets the system prompt: replaces the one at the beginning of the history, or inserts it there.
    pub fn set_system_prompt(&mut self, prompt: impl Into<String>) {
        let content = prompt.into();
        if matches!(self.iter().next(), Some(Message::System { content: old }) if *old == content) {
            return;
        }
        let messages = self.messages_mut();
        match messages.first_mut() {
            Some(Message::System { content: old }) => *old = content,
            _ => messages.insert(0, Message::System { content }),
        }
    }

    /// Returns the tokens used so far, by kind.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Returns the tokens used so far.
    pub fn total_tokens(&self) -> u64 {
        self.usage.total_tokens()
    }

    /// Adds the usage of a model call.
    ///
    /// ```
    /// use turnwise::{Session, Usage};
    ///
    /// let mut session = Session::new();
    /// for _ in 0..2 {
    ///     session.record_usage(Usage { input_tokens: 10, output_tokens: 2, ..Usage::default() });
    /// }
    /// assert_eq!((session.total_tokens(), session.usage().output_tokens), (24, 4));
    /// ```
    pub fn record_usage(&mut self, usage: Usage) {
        self.usage += usage;
        self.touch();
    }

    /// Returns the text of the last assistant message that has any.
    pub fn last_assistant_text(&self) -> Option<String> {
        let has_text = |message: &&Message| match message {
            Message::Assistant { blocks, .. } => blocks.iter().any(|block| block.text().is_some()),
            _ => false,
        };
        self.iter().rev().find(has_text).map(|message| message.text().into_owned())
    }

    /// Returns the number of tool calls that the assistant made.
    pub fn tool_call_count(&self) -> usize {
        let calls_in = |message: &Message| match message {
            Message::Assistant { blocks, .. } => {
                blocks.iter().filter(|block| matches!(block, AssistantBlock::ToolUse { .. })).count()
            }
            _ => 0,
        };
        self.iter().map(calls_in).sum()
    }

    /// Returns the metadata that the host has set.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Sets a metadata value, replacing an older one of the same key.
    ///
    /// ```
    /// use turnwise::Session;
    ///
    /// let mut session = Session::new();
    /// session.set_metadata("title", "Autumn");
    /// assert_eq!(session.fork().metadata()["title"], "Autumn");
    /// ```
    pub fn set_metadata(&mut self, key: impl Into<String>, value: impl Into<String>) {
        Arc::make_mut(&mut self.metadata).insert(key.into(), value.into());
        self.touch();
    }

    /// Makes a copy with a fresh id. Takes constant time.
    ///
    /// ```
    /// use turnwise::{Message, Session};
    ///
    /// let mut session = Session::new();
    /// session.push(Message::user("Shall I go left or right?"));
    /// let (mut left, mut right) = (session.fork(), session.fork());
    /// left.push(Message::assistant("Left."));
    /// right.push(Message::assistant("Right."));
    /// assert_ne!(left.id(), right.id());
    /// assert_eq!(left.messages()[0], right.messages()[0]);
    /// ```
    #[must_use]
    pub fn fork(&self) -> Self {
        let now = SystemTime::now();
        Self { id: SessionId::new(), created_at: now, updated_at: now, ..self.clone() }
    }

    /// Makes a copy with a fresh id and the first `index` messages, or all where there are fewer. It keeps the usage
    /// of the whole history, since those tokens were used.
    #[must_use]
    pub fn fork_at(&self, index: usize) -> Self {
        let kept: Vec<Message> = self.iter().take(index).cloned().collect();
        Self { messages: Messages::from(kept), ..self.fork() }
    }

    fn touch(&mut self) {
        self.updated_at = SystemTime::now();
    }
}

/// How a history has changed since an older share of it.
#[cfg(feature = "store")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HistoryChange {
    /// Messages were added behind the first `start` ones, or none.
    Appended { start: usize },
    /// Any other change.
    Rewritten,
}

/// Joins the parts of a text. Copies only if there are several.
fn join<'a>(mut parts: impl Iterator<Item = &'a str>) -> Cow<'a, str> {
    let mut text = Cow::Borrowed(parts.next().unwrap_or_default());
    parts.for_each(|part| text += part);
    text
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("created_at", &self.created_at)
            .field("updated_at", &self.updated_at)
            .field("messages", &self.iter().len())
            .field("usage", &self.usage)
            .finish_non_exhaustive()
    }
}

/// A message of a history.
///
/// ```
/// use turnwise::Message;
///
/// let history = [Message::system("Be brief."), Message::user("Hello?"), Message::assistant("Hello.")];
/// let roles = history.iter().map(|message| match message {
///     Message::System { .. } => "system",
///     Message::User { .. } => "user",
///     Message::Assistant { .. } => "assistant",
///     Message::ToolResults { .. } => "tool",
/// });
/// assert_eq!(roles.collect::<Vec<_>>(), ["system", "user", "assistant"]);
/// ```
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(tag = "role", rename_all = "snake_case")
)]
pub enum Message {
    /// The system prompt.
    System {
        /// The text.
        content: String,
    },
    /// A user's message.
    User {
        /// The text.
        content: String,
    },
    /// An assistant's message.
    Assistant {
        /// The parts of the message, in order.
        blocks: Vec<AssistantBlock>,
        /// The reason why the model stopped.
        stop_reason: StopReason,
    },
    /// The results of tool calls.
    ToolResults {
        /// One result for each call.
        results: Vec<ToolResult>,
    },
}

impl Message {
    /// Makes a system prompt.
    pub fn system(content: impl Into<String>) -> Self {
        Self::System { content: content.into() }
    }

    /// Makes a user's message.
    pub fn user(content: impl Into<String>) -> Self {
        Self::User { content: content.into() }
    }

    /// Makes a finished assistant's message of one text.
    pub fn assistant(text: impl Into<String>) -> Self {
        let blocks = vec![AssistantBlock::Text { text: text.into() }];
        Self::Assistant { blocks, stop_reason: StopReason::EndTurn }
    }

    /// Returns the message's text: the content of a prompt, the text blocks of an answer without its reasoning and its
    /// tool calls, or the tool results. Several parts are joined without a separator. Copies only then.
    ///
    /// ```
    /// use turnwise::{AssistantBlock, Message, StopReason};
    ///
    /// assert_eq!(Message::user("Hello?").text(), "Hello?");
    /// let text = |text: &str| AssistantBlock::Text { text: text.into() };
    /// let thought = AssistantBlock::Reasoning { text: "A greeting.".into() };
    /// let blocks = vec![thought, text("Good "), text("day.")];
    /// assert_eq!(Message::Assistant { blocks, stop_reason: StopReason::EndTurn }.text(), "Good day.");
    /// ```
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::System { content } | Self::User { content } => Cow::Borrowed(content),
            Self::Assistant { blocks, .. } => join(blocks.iter().filter_map(AssistantBlock::text)),
            Self::ToolResults { results } => join(results.iter().map(|result| result.content.as_str())),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System { content } => f.debug_struct("System").field("content", &Brief(content)).finish(),
            Self::User { content } => f.debug_struct("User").field("content", &Brief(content)).finish(),
            Self::Assistant { blocks, stop_reason } => {
                f.debug_struct("Assistant").field("blocks", blocks).field("stop_reason", stop_reason).finish()
            }
            Self::ToolResults { results } => f.debug_struct("ToolResults").field("results", results).finish(),
        }
    }
}

/// A part of an assistant's message.
///
/// ```
/// use turnwise::{AssistantBlock, Message, Session, StopReason};
///
/// let said = AssistantBlock::Text { text: "Let me see.".into() };
/// let call = AssistantBlock::ToolUse { id: "1".into(), name: "clock".into(), args: "{}".into() };
/// let mut session = Session::new();
/// session.push(Message::Assistant { blocks: vec![said, call], stop_reason: StopReason::ToolUse });
/// assert_eq!(session.last_assistant_text().as_deref(), Some("Let me see."));
/// assert_eq!(session.tool_call_count(), 1);
/// ```
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(tag = "type", rename_all = "snake_case")
)]
pub enum AssistantBlock {
    /// Text for the user.
    Text {
        /// The text.
        text: String,
    },
    /// The model's reasoning before the answer.
    Reasoning {
        /// The text.
        text: String,
    },
    /// A tool call.
    ToolUse {
        /// The id of the call; its result refers to it.
        id: String,
        /// The tool's name.
        name: String,
        /// The arguments as JSON text.
        args: String,
    },
}

impl AssistantBlock {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text { text } => Some(text),
            Self::Reasoning { .. } | Self::ToolUse { .. } => None,
        }
    }
}

impl fmt::Debug for AssistantBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { text } => f.debug_struct("Text").field("text", &Brief(text)).finish(),
            Self::Reasoning { text } => f.debug_struct("Reasoning").field("text", &Brief(text)).finish(),
            Self::ToolUse { id, name, args } => {
                f.debug_struct("ToolUse").field("id", id).field("name", name).field("args", &Brief(args)).finish()
            }
        }
    }
}

/// The result of a tool call.
///
/// ```
/// use turnwise::{AssistantBlock, Message, ToolResult};
///
/// /// Runs one tool call, with a clock as the only tool.
/// fn run_tool(call: &AssistantBlock) -> Option<ToolResult> {
///     let AssistantBlock::ToolUse { id, name, .. } = call else { return None };
///     let is_error = name != "clock";
///     let content = if is_error { format!("there is no tool '{name}'") } else { "12:00".to_owned() };
///     Some(ToolResult { tool_use_id: id.clone(), content, is_error })
/// }
///
/// let call = AssistantBlock::ToolUse { id: "1".into(), name: "clock".into(), args: "{}".into() };
/// let results: Vec<ToolResult> = run_tool(&call).into_iter().collect();
/// assert_eq!(results[0].content, "12:00");
/// let answer = Message::ToolResults { results }; // the next message of the history
/// # drop(answer);
/// ```
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ToolResult {
    /// The id of the call.
    pub tool_use_id: String,
    /// The result's text.
    pub content: String,
    /// Whether the tool failed.
    pub is_error: bool,
}

impl fmt::Debug for ToolResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolResult")
            .field("tool_use_id", &self.tool_use_id)
            .field("content", &Brief(&self.content))
            .field("is_error", &self.is_error)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_shares_messages_until_one_side_writes() {
        let mut session = Session::new();
        session.push(Message::user("one"));
        let clone = session.clone();
        assert!(std::ptr::eq(session.messages(), clone.messages()));
        assert!(std::ptr::eq(session.messages(), session.fork().messages()));
        session.push(Message::user("two"));
        assert_eq!(clone.messages().len(), 1);
        assert_eq!(session.messages().len(), 2);
    }

    #[test]
    fn the_system_prompt_is_replaced_not_repeated() {
        let mut session = Session::new();
        session.push(Message::user("hello"));
        session.set_system_prompt("be brief");
        session.set_system_prompt("be kind");
        assert_eq!(session.messages(), [Message::system("be kind"), Message::user("hello")]);
    }

    #[test]
    fn the_last_assistant_text_skips_messages_without_text() {
        let mut session = Session::new();
        assert_eq!(session.last_assistant_text(), None);
        session.push(Message::assistant("said"));
        let call = AssistantBlock::ToolUse { id: "1".into(), name: "clock".into(), args: "{}".into() };
        session.push(Message::Assistant { blocks: vec![call], stop_reason: StopReason::ToolUse });
        assert_eq!(session.last_assistant_text().as_deref(), Some("said"));
        assert_eq!(session.tool_call_count(), 1);
        assert_eq!(session.last_n(1).len(), 1);
        assert_eq!(session.last_n(9).len(), 2);
        assert_eq!(session.fork_at(1).messages().len(), 1);
        assert_eq!(session.fork_at(9).messages().len(), 2);
    }

    #[test]
    fn debug_output_does_not_contain_message_texts() {
        let mut session = Session::new();
        session.push(Message::assistant("a secret"));
        assert!(!format!("{session:?} {:?}", session.messages()).contains("secret"));
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_newer_format_version_is_refused_with_a_clear_error() {
        let session = Session::new();
        let json = serde_json::to_string(&session).unwrap();
        assert_eq!(serde_json::from_str::<Session>(&json).unwrap(), session);
        let mut newer: serde_json::Value = serde_json::from_str(&json).unwrap();
        newer["format_version"] = 2.into();
        newer["messages"] = serde_json::json!([{ "role": "narrator", "content": "of the future" }]);
        let error = serde_json::from_value::<Session>(newer).unwrap_err().to_string();
        assert!(error.contains("format version 2"), "{error}");
    }
}
