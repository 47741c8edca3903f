//! What a turn asks of its host, and the answers.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::{Brief, TurnId};

/// The id of an input request. It rises in a session, and is never used twice, over all lives of a stored session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct InputId(u64);

impl InputId {
    /// The bits for the requests of one turn. The bits above are the turn's number.
    const OF_TURN: u32 = 16;

    /// Makes the id with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The id after `last` of a request in turn `turn`. Turn numbers are never used twice, so neither are the ids.
    pub(crate) fn after(last: Self, turn: TurnId) -> Self {
        Self((turn.get() << Self::OF_TURN).max(last.0) + 1)
    }
}

impl fmt::Display for InputId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a turn asks of its host, by [`TurnContext::request_input`](crate::TurnContext::request_input).
///
/// ```
/// use std::time::Duration;
/// use turnwise::InputRequest;
///
/// let request = InputRequest::new("permission", "Delete notes.txt?")
///     .option("yes", "Delete it")
///     .option("no", "Keep it")
///     .payload(r#"{"path":"notes.txt"}"#)
///     .timeout(Duration::from_secs(60));
/// assert_eq!(request.options.len(), 2);
/// ```
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct InputRequest {
    /// The kind of request, as host and agent agree: for example `permission`, or `question`.
    pub kind: String,
    /// The text for the person who answers.
    pub message: String,
    /// The valid answers. Without options any text is valid.
    #[cfg_attr(feature = "serde", serde(default))]
    pub options: Vec<InputOption>,
    /// Data for the host, as JSON text.
    #[cfg_attr(feature = "serde", serde(default))]
    pub payload: Option<String>,
    /// How long the request is pending at most, on the service's clock; `None` for as long as the turn.
    #[cfg_attr(feature = "serde", serde(default))]
    pub timeout: Option<Duration>,
}

impl InputRequest {
    /// Makes a request without options, payload and timeout.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), options: Vec::new(), payload: None, timeout: None }
    }

    /// Adds a valid answer. `id` is the answer, `label` its text for a person.
    #[must_use]
    pub fn option(mut self, id: impl Into<String>, label: impl Into<String>) -> Self {
        self.options.push(InputOption::new(id, label));
        self
    }

    /// Sets the valid answers.
    #[must_use]
    pub fn options(mut self, options: impl IntoIterator<Item = InputOption>) -> Self {
        self.options = options.into_iter().collect();
        self
    }

    /// Sets the data for the host, as JSON text.
    #[must_use]
    pub fn payload(mut self, json: impl Into<String>) -> Self {
        self.payload = Some(json.into());
        self
    }

    /// Sets how long the request is pending at most.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Whether `answer` is one of the options, or there are none.
    pub(crate) fn allows(&self, answer: &str) -> bool {
        self.options.is_empty() || self.options.iter().any(|option| option.id == answer)
    }
}

impl fmt::Debug for InputRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InputRequest")
            .field("kind", &self.kind)
            .field("message", &Brief(&self.message))
            .field("options", &self.options)
            .field("payload", &self.payload.as_deref().map(Brief))
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// A valid answer to an [`InputRequest`].
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct InputOption {
    /// The answer.
    pub id: String,
    /// The answer's text for a person.
    pub label: String,
}

impl InputOption {
    /// Makes an option.
    pub fn new(id: impl Into<String>, label: impl Into<String>) -> Self {
        Self { id: id.into(), label: label.into() }
    }
}

impl fmt::Debug for InputOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InputOption").field("id", &self.id).field("label", &Brief(&self.label)).finish()
    }
}

/// An input request that has no answer yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct PendingInput {
    /// The request's id, for [`respond`](crate::SessionService::respond).
    pub id: InputId,
    /// The turn that asks.
    pub turn_id: TurnId,
    /// The request.
    pub request: InputRequest,
    /// When the request became pending, by the system's calendar.
    pub requested_at: SystemTime,
}

impl PendingInput {
    pub(crate) fn new(id: InputId, turn_id: TurnId, request: InputRequest) -> Self {
        Self { id, turn_id, request, requested_at: SystemTime::now() }
    }
}

/// The host's response to an input request.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum InputResponse {
    /// The answer: the id of an option, or any text if the request has no options.
    Answer(String),
    /// The host does not answer. The turn goes on with [`InputError::Declined`](crate::InputError::Declined).
    Declined {
        /// Why not.
        reason: Option<String>,
    },
}

impl fmt::Debug for InputResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(text) => f.debug_tuple("Answer").field(&Brief(text)).finish(),
            Self::Declined { reason } => {
                f.debug_struct("Declined").field("reason", &reason.as_deref().map(Brief)).finish()
            }
        }
    }
}

/// A tool that the host must run, where a turn has ended with
/// [`AgentError::CallbackPending`](crate::AgentError::CallbackPending). The host starts the turn that goes on with
/// [`StartTurnRequest::tool_results`](crate::StartTurnRequest::tool_results), in this process or in another one.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct CallbackPending {
    /// The tool's name.
    pub tool_name: String,
    /// The arguments as JSON text.
    pub args: String,
}

impl CallbackPending {
    pub(crate) fn new(tool_name: String, args: String) -> Self {
        Self { tool_name, args }
    }
}

impl fmt::Debug for CallbackPending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallbackPending").field("tool_name", &self.tool_name).field("args", &Brief(&self.args)).finish()
    }
}

/// How an input request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum InputOutcome {
    /// The host answered.
    Answered,
    /// The host declined.
    Declined,
    /// The request's timeout passed.
    TimedOut,
    /// The turn, or its interaction, was told to stop.
    Cancelled,
}

impl fmt::Display for InputOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Answered => "answered",
            Self::Declined => "declined",
            Self::TimedOut => "timed out",
            Self::Cancelled => "cancelled",
        })
    }
}
