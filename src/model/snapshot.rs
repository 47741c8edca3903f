//! What a session shows of itself between turns.

use std::fmt;
use std::time::SystemTime;

use super::{Brief, Session, Usage};
use crate::sync::Arc;

/// The figures of a session that [`read`](crate::SessionService::read) and [`list`](crate::SessionService::list) answer
/// with. Published after every turn, and by an agent in the middle of one where it calls
/// [`TurnContext::publish`](crate::TurnContext::publish).
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
    /// When the conversation began.
    pub created_at: SystemTime,
    /// When it last changed.
    pub updated_at: SystemTime,
    /// Messages in it.
    pub message_count: usize,
    /// Tokens used so far.
    pub total_tokens: u64,
    /// The same, by kind.
    pub usage: Usage,
    /// What the assistant said last. Shared, so that a read copies no long answer.
    pub last_assistant_text: Option<Arc<str>>,
}

impl From<&Session> for SessionSnapshot {
    fn from(session: &Session) -> Self {
        Self {
            created_at: session.created_at(),
            updated_at: session.updated_at(),
            message_count: session.messages().len(),
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
