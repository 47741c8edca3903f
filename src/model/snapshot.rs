//! The snapshot of a session that reads show.

use std::fmt;
use std::time::SystemTime;

use super::{Brief, Session, Usage};
use crate::sync::Arc;

/// The figures of a session that [`read`](crate::SessionService::read) and [`list`](crate::SessionService::list)
/// return.
///
/// The session thread publishes a snapshot after the build and after every turn and interaction. An agent publishes
/// one during a turn with [`TurnContext::publish`](crate::TurnContext::publish).
///
/// ```
/// use turnwise::{Message, Session, SessionSnapshot};
///
/// let mut session = Session::new();
/// session.push_batch([Message::user("What falls in autumn?"), Message::assistant("Leaves.")]);
/// let snapshot = SessionSnapshot::from(&session);
/// assert_eq!(snapshot.message_count, 2);
/// assert_eq!(snapshot.last_assistant_text.as_deref(), Some("Leaves."));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SessionSnapshot {
    /// When the history began.
    pub created_at: SystemTime,
    /// When the history last changed.
    pub updated_at: SystemTime,
    /// The number of messages in the history.
    pub message_count: usize,
    /// The tokens used so far.
    pub total_tokens: u64,
    /// The tokens used so far, by kind.
    pub usage: Usage,
    /// The last assistant text. Shared, so that a read does not copy a long answer.
    pub last_assistant_text: Option<Arc<str>>,
}

impl From<&Session> for SessionSnapshot {
    fn from(session: &Session) -> Self {
        Self {
            created_at: session.created_at(),
            updated_at: session.updated_at(),
            message_count: session.iter().len(),
            total_tokens: session.total_tokens(),
            usage: session.usage(),
            last_assistant_text: session.last_assistant_text().map(Arc::from),
        }
    }
}

impl fmt::Debug for SessionSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionSnapshot")
            .field("created_at", &self.created_at)
            .field("updated_at", &self.updated_at)
            .field("message_count", &self.message_count)
            .field("total_tokens", &self.total_tokens)
            .field("usage", &self.usage)
            .field("last_assistant_text", &self.last_assistant_text.as_deref().map(Brief))
            .finish()
    }
}
