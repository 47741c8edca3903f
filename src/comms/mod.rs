//! How sessions reach each other.

pub(crate) mod local;

use std::fmt;

use crate::model::{InboxInteraction, InteractionContent, InteractionId};
use crate::sync::Receiver;

/// A session's line to its peers. [`LocalComms`](crate::LocalComms) connects the sessions of one process; for anything else
/// a user brings an implementation.
///
/// ```
/// use turnwise::crossbeam_channel::{unbounded, Receiver, Sender};
/// use turnwise::{CommsError, CommsRuntime, InboxInteraction, InteractionContent, InteractionId};
///
/// /// A line to one log, which never answers.
/// struct ToLog(Sender<InteractionContent>);
///
/// impl CommsRuntime for ToLog {
///     fn send(&self, to: &str, content: InteractionContent) -> Result<InteractionId, CommsError> {
///         match self.0.send(content) {
///             Ok(()) => Ok(InteractionId::new()),
///             Err(unsent) => Err(CommsError::Closed { to: to.to_owned(), content: unsent.0 }),
///         }
///     }
///
///     fn peers(&self) -> Vec<String> {
///         vec!["log".to_owned()]
///     }
///
///     fn inbox(&self) -> Option<Receiver<InboxInteraction>> {
///         None
///     }
/// }
///
/// let (sender, log) = unbounded(); // sending never blocks
/// ToLog(sender).send("log", InteractionContent::message("started"))?;
/// assert_eq!(log.recv()?, InteractionContent::message("started"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait CommsRuntime: Send + Sync {
    /// Sends to the peer with this name. Returns the interaction's id, which a response names.
    ///
    /// # Errors
    /// [`CommsError`], with what was not sent: the peer's inbox is full, there is no such peer, or the line is closed.
    ///
    /// # Blocking
    /// Must not block: of two sessions that wait for room with each other neither would ever make any.
    fn send(&self, to: &str, content: InteractionContent) -> Result<InteractionId, CommsError>;

    /// The names of those that can be sent to now.
    fn peers(&self) -> Vec<String>;

    /// Where what peers send arrives: in host mode the session runs it as interactions. `None` where nothing is ever
    /// received. A channel that disconnects is no error; nothing more comes from there.
    fn inbox(&self) -> Option<Receiver<InboxInteraction>>;
}

/// Why something was not sent. Gives it back.
///
/// ```
/// use turnwise::{CommsRuntime, InteractionContent, LocalComms};
///
/// let comms = LocalComms::new();
/// let alice = comms.join("alice")?;
/// let error = alice.send("bob", InteractionContent::message("hello")).unwrap_err();
/// assert_eq!(error.to_string(), "there is no peer called 'bob'");
/// assert_eq!(error.into_content(), InteractionContent::message("hello")); // to be sent again
/// # Ok::<(), turnwise::NameTaken>(())
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommsError {
    /// The peer has no room for more now.
    #[error("the inbox of '{to}' is full")]
    Full {
        /// Whom it was for.
        to: String,
        /// What was not sent.
        content: InteractionContent,
    },
    /// The line is closed: the sender has left, or the peer is just leaving.
    #[error("the line to '{to}' is closed")]
    Closed {
        /// Whom it was for.
        to: String,
        /// What was not sent.
        content: InteractionContent,
    },
    /// Nobody is called that.
    #[error("there is no peer called '{to}'")]
    UnknownPeer {
        /// Whom it was for.
        to: String,
        /// What was not sent.
        content: InteractionContent,
    },
}

impl CommsError {
    /// What was not sent.
    pub fn into_content(self) -> InteractionContent {
        match self {
            Self::Full { content, .. } | Self::Closed { content, .. } | Self::UnknownPeer { content, .. } => content,
        }
    }
}

impl fmt::Debug for CommsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, to, content) = match self {
            Self::Full { to, content } => ("Full", to, content),
            Self::Closed { to, content } => ("Closed", to, content),
            Self::UnknownPeer { to, content } => ("UnknownPeer", to, content),
        };
        f.debug_struct(name).field("to", to).field("content", content).finish()
    }
}
