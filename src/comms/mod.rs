//! Messages between sessions: the trait [`CommsRuntime`] and its error.
//!
//! **Invariant.** Sending never blocks. Two sessions that each wait for room in the other's inbox would deadlock.

pub(crate) mod local;

use std::fmt;

use crate::model::{InboxInteraction, InteractionContent, InteractionId};
use crate::sync::Receiver;

/// Connects a session to its peers. [`LocalComms`](crate::LocalComms) connects the sessions of one process; for other
/// transports a user implements this trait.
///
/// ```
/// use turnwise::crossbeam_channel::{unbounded, Receiver, Sender};
/// use turnwise::{CommsError, CommsRuntime, InboxInteraction, InteractionContent, InteractionId};
///
/// /// A connection to one log, which never answers.
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
    /// Sends to the peer with this name. Returns the interaction's id, to which a response refers.
    ///
    /// # Errors
    /// [`CommsError`], with the unsent content: the peer's inbox is full, there is no such peer, or the connection is
    /// closed.
    ///
    /// # Blocking
    /// Must not block: two sessions that wait for room in each other's inbox would wait for ever.
    fn send(&self, to: &str, content: InteractionContent) -> Result<InteractionId, CommsError>;

    /// Returns the names of the peers that can be sent to now.
    fn peers(&self) -> Vec<String>;

    /// Returns the receiver of the peers' messages; host mode runs them as interactions. `None` where nothing is ever
    /// received. A disconnected channel is no error: it means that no more messages arrive.
    fn inbox(&self) -> Option<Receiver<InboxInteraction>>;
}

/// The error of a send. Returns the unsent content.
///
/// ```
/// use turnwise::{CommsRuntime, InteractionContent, LocalComms};
///
/// let comms = LocalComms::new();
/// let alice = comms.join("alice")?;
/// let error = alice.send("bob", InteractionContent::message("hello")).unwrap_err();
/// assert_eq!(error.to_string(), "there is no peer called 'bob'");
/// assert_eq!(error.into_content(), InteractionContent::message("hello")); // can be sent again
/// # Ok::<(), turnwise::NameTaken>(())
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommsError {
    /// The peer's inbox is full.
    #[error("the inbox of '{to}' is full")]
    Full {
        /// The peer's name.
        to: String,
        /// The unsent content.
        content: InteractionContent,
    },
    /// The connection is closed: the sender has left, or the peer is leaving.
    #[error("the line to '{to}' is closed")]
    Closed {
        /// The peer's name.
        to: String,
        /// The unsent content.
        content: InteractionContent,
    },
    /// There is no peer with this name.
    #[error("there is no peer called '{to}'")]
    UnknownPeer {
        /// The peer's name.
        to: String,
        /// The unsent content.
        content: InteractionContent,
    },
}

impl CommsError {
    /// Returns the unsent content.
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
