//! Interactions: the messages that reach a session other than by a prompt.

use std::fmt;

use super::{Brief, InteractionId};

/// A message in a session's inbox, from the host through an injector, or from a peer.
///
/// ```
/// use turnwise::{InboxInteraction, InteractionContent};
///
/// let heard = InboxInteraction::new("alice", InteractionContent::message("hello"));
/// assert_eq!(format!("{}: {}", heard.from, heard.text()), "alice: hello");
/// assert!(matches!(heard.content, InteractionContent::Message { .. }));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct InboxInteraction {
    /// The interaction's id. A response refers to it.
    pub id: InteractionId,
    /// The sender: a peer's name, or the name of an [`EventSource`].
    pub from: String,
    /// The content of the message.
    pub content: InteractionContent,
}

impl InboxInteraction {
    /// Makes an interaction with a fresh id.
    pub fn new(from: impl Into<String>, content: InteractionContent) -> Self {
        Self::with_id(InteractionId::new(), from, content)
    }

    /// Makes an interaction with this id.
    pub(crate) fn with_id(id: InteractionId, from: impl Into<String>, content: InteractionContent) -> Self {
        Self { id, from: from.into(), content }
    }

    /// Returns the content as a prompt: the body of a message, the intent and parameters of a request, the result of a
    /// response, an empty text for a dismissal.
    ///
    /// ```
    /// use turnwise::{InboxInteraction, InteractionContent};
    ///
    /// let content = InteractionContent::Request { intent: "weather".into(), params: r#"{"city":"Ulm"}"#.into() };
    /// assert_eq!(InboxInteraction::new("planner", content).text(), r#"weather {"city":"Ulm"}"#);
    /// ```
    pub fn text(&self) -> String {
        match &self.content {
            InteractionContent::Message { body } => body.clone(),
            InteractionContent::Request { intent, params } if params.is_empty() => intent.clone(),
            InteractionContent::Request { intent, params } => format!("{intent} {params}"),
            InteractionContent::Response { result, .. } => result.clone(),
            InteractionContent::Dismiss => String::new(),
        }
    }
}

/// The content of an interaction. `Debug` shows texts by their length only.
///
/// ```
/// use turnwise::{InboxInteraction, InteractionContent, ResponseStatus};
///
/// /// The response to a peer's request.
/// fn answer(asked: &InboxInteraction) -> Option<InteractionContent> {
///     let InteractionContent::Request { intent, .. } = &asked.content else { return None };
///     let status = if intent == "ping" { ResponseStatus::Completed } else { ResponseStatus::Failed };
///     Some(InteractionContent::Response { in_reply_to: asked.id, status, result: String::new() })
/// }
///
/// let ping = InboxInteraction::new("bob", InteractionContent::request("ping", ""));
/// let pong = answer(&ping);
/// assert!(matches!(pong, Some(InteractionContent::Response { in_reply_to, .. }) if in_reply_to == ping.id));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(tag = "type", rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum InteractionContent {
    /// A plain message.
    Message {
        /// The text.
        body: String,
    },
    /// A request. The receiving agent answers it with a [`Response`](InteractionContent::Response).
    Request {
        /// The intent.
        intent: String,
        /// The parameters as JSON text; may be empty.
        params: String,
    },
    /// The response to a request.
    Response {
        /// The id of the request's interaction.
        in_reply_to: InteractionId,
        /// The status of the request.
        status: ResponseStatus,
        /// The result as JSON text; may be empty.
        result: String,
    },
    /// Ends host mode: the session is not needed any more.
    Dismiss,
}

impl InteractionContent {
    /// Makes a message.
    pub fn message(body: impl Into<String>) -> Self {
        Self::Message { body: body.into() }
    }

    /// Makes a request.
    pub fn request(intent: impl Into<String>, params: impl Into<String>) -> Self {
        Self::Request { intent: intent.into(), params: params.into() }
    }
}

impl fmt::Debug for InteractionContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message { body } => f.debug_struct("Message").field("body", &Brief(body)).finish(),
            Self::Request { intent, params } => {
                f.debug_struct("Request").field("intent", &Brief(intent)).field("params", &Brief(params)).finish()
            }
            Self::Response { in_reply_to, status, result } => f
                .debug_struct("Response")
                .field("in_reply_to", in_reply_to)
                .field("status", status)
                .field("result", &Brief(result))
                .finish(),
            Self::Dismiss => f.write_str("Dismiss"),
        }
    }
}

/// The status of a request.
///
/// ```
/// use turnwise::{CommsRuntime, InteractionContent, LocalComms, ResponseStatus};
///
/// let comms = LocalComms::new();
/// let (alice, bob) = (comms.join("alice")?, comms.join("bob")?);
/// let in_reply_to = alice.send("bob", InteractionContent::request("dig a well", ""))?;
/// for status in [ResponseStatus::Accepted, ResponseStatus::Completed] {
///     bob.send("alice", InteractionContent::Response { in_reply_to, status, result: String::new() })?;
/// }
/// assert_eq!(alice.inbox().expect("a local peer has one").len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ResponseStatus {
    /// The peer is processing the request; another response will follow.
    Accepted,
    /// The request has succeeded.
    Completed,
    /// The request has failed.
    Failed,
}

/// The source of a message that the host program injects. `Display` shows its name.
///
/// ```
/// use turnwise::EventSource;
///
/// assert_eq!(EventSource::Stdin.to_string(), "stdin");
/// assert_eq!(EventSource::Other("alarm clock".into()).to_string(), "alarm clock");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum EventSource {
    /// A TCP connection.
    Tcp,
    /// A Unix domain socket.
    Uds,
    /// The program's standard input.
    Stdin,
    /// An HTTP callback.
    Webhook,
    /// A remote procedure call.
    Rpc,
    /// Any other source, by its name.
    Other(String),
}

impl fmt::Display for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Uds => "uds",
            Self::Stdin => "stdin",
            Self::Webhook => "webhook",
            Self::Rpc => "rpc",
            Self::Other(name) => name,
        })
    }
}
