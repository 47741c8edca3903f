//! One save of a session: what has changed, and which record it replaces.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::{Brief, CallbackPending, Message, Session, SessionId, TurnId, Usage};

use super::error::StoreError;
use super::record::{StoredNumbers, StoredSession, StoredSummary};

/// The revision of a record: each save gives the record a new one.
///
/// ```
/// use turnwise::store::Revision;
///
/// let revision = Revision::new();
/// assert_ne!(revision, Revision::new());
/// assert_eq!(Revision::from_uuid(*revision.as_uuid()), revision);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(Uuid);

impl Revision {
    /// Makes a fresh revision: a UUID of version 7.
    #[allow(clippy::new_without_default)] // A `default()` that makes a fresh revision would surprise.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Makes the revision with this UUID.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// Returns the revision's UUID.
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revision({})", self.0)
    }
}

/// One save of a session, for a [`SessionStore`](super::SessionStore).
///
/// It is a compare-and-set. The writer has seen the revision [`seen`](Self::seen), and the record gets the revision
/// [`next`](Self::next). A store that has another revision refuses the save with [`StoreError::Conflict`], because
/// another writer has changed the record meanwhile. A store that has `next` already answers `Ok` and changes nothing: the
/// writer repeats a save that has failed, and this save was written before it failed. [`check`](Self::check) decides
/// between the three.
///
/// ```
/// use turnwise::store::{Change, FileStore, Save, SessionStore, StoreError, StoredSession};
/// use turnwise::{Message, Session};
///
/// let store = FileStore::in_memory()?;
/// let mut session = StoredSession::new(Session::new());
/// let header = session.header();
/// let first = Save::new(&header, Change::Rewritten(&session.history), None);
/// store.save(&first)?;
/// let seen = first.next;
///
/// let added = [Message::user("hello")];
/// session.history.push_batch(added.clone());
/// let header = session.header();
/// let second = Save::new(&header, Change::Appended(&added), Some(seen));
/// store.save(&second)?;
/// store.save(&second)?; // a repeated save changes nothing
/// assert_eq!(store.load(session.id())?, Some((session, second.next)));
///
/// // Another writer that has seen the first revision only.
/// let late = Save::new(&header, Change::Appended(&added), Some(seen));
/// assert!(matches!(store.save(&late), Err(StoreError::Conflict { .. })));
/// # Ok::<(), StoreError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Save<'a> {
    /// The whole record apart from the messages. It is in every save, since usage, times and numbers change with every
    /// turn.
    pub header: &'a StoredHeader,
    /// The change of the messages since the revision `seen`.
    pub change: Change<'a>,
    /// The revision that the writer has seen; `None` if the record is new.
    pub seen: Option<Revision>,
    /// The revision that the record gets.
    pub next: Revision,
    /// The turn that has ended, if the save is for the end of one. Such a save comes even if the history has not changed.
    ///
    /// The agent's run decides the end: a turn in host mode counts as ended once its prompt has run, and a turn that was
    /// cancelled before its agent ran is not saved.
    pub turn: Option<TurnEnd>,
}

/// The change of a history's messages since the last save.
///
/// A history that has grown by pushes alone was appended to. Every other change rewrites the history, for example a
/// compaction or a roll-back.
#[derive(Clone, Copy)]
pub enum Change<'a> {
    /// These messages come behind the stored ones. Empty if only the header has changed.
    Appended(&'a [Message]),
    /// The messages are those of this history now. Also the change of a new record.
    Rewritten(&'a Session),
}

/// The end of a turn, as its agent has ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TurnEnd {
    /// The turn.
    pub turn_id: TurnId,
    /// How it has ended.
    pub outcome: TurnOutcome,
}

/// How a turn has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TurnOutcome {
    /// With a result.
    Completed,
    /// With an error of the agent.
    Failed,
    /// By a cancellation, with a result or without one.
    Cancelled,
    /// With a tool call that the host must run; see [`SessionInfo::callback_pending`](crate::SessionInfo).
    CallbackPending,
    /// By a panic of the agent.
    Faulted,
}

/// The record of a session without its messages.
///
/// ```
/// use turnwise::store::StoredSession;
/// use turnwise::{Message, Session};
///
/// let mut history = Session::new();
/// history.push(Message::user("hello"));
/// let stored = StoredSession::new(history);
/// let header = stored.header();
/// assert_eq!(header.message_count, 1);
/// assert_eq!(StoredSession::from_parts(header, vec![Message::user("hello")])?, stored);
/// # Ok::<(), turnwise::store::StoreError>(())
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoredHeader {
    /// The format version of the history.
    pub format_version: u32,
    /// The id of the session.
    pub session_id: SessionId,
    /// When the history began.
    pub created_at: SystemTime,
    /// When the history last changed.
    pub updated_at: SystemTime,
    /// The number of messages, with those of the save.
    pub message_count: usize,
    /// Tokens used so far.
    pub usage: Usage,
    /// The metadata of the history.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// See [`StoredSession::model`].
    #[serde(default)]
    pub model: String,
    /// See [`StoredSession::system_prompt`].
    #[serde(default)]
    pub system_prompt: Option<String>,
    /// See [`StoredSession::max_tokens`].
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// See [`StoredSession::labels`].
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// See [`StoredSession::archived`].
    #[serde(default)]
    pub archived: bool,
    /// See [`StoredSession::rewrites_history`].
    #[serde(default)]
    pub rewrites_history: bool,
    /// See [`StoredSession::numbers`].
    #[serde(default)]
    pub numbers: StoredNumbers,
    /// See [`StoredSession::callback_pending`].
    #[serde(default)]
    pub callback_pending: Option<CallbackPending>,
}

impl<'a> Save<'a> {
    /// Makes a save with a fresh revision, for no turn. A program needs it only to write a record itself, and to test a
    /// store.
    pub fn new(header: &'a StoredHeader, change: Change<'a>, seen: Option<Revision>) -> Self {
        Self { header, change, seen, next: Revision::new(), turn: None }
    }

    /// Returns the id of the session.
    pub fn id(&self) -> SessionId {
        self.header.session_id
    }

    /// Compares the revision that the store has, or `None` without a record. Returns whether the save is to be written:
    /// `false` means that it was written before.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if another writer has changed, created or deleted the record.
    pub fn check(&self, stored: Option<Revision>) -> Result<bool, StoreError> {
        Self::is_due(self.id(), stored, self.seen, self.next)
    }

    /// As [`check`](Save::check), from the parts of a save.
    pub(super) fn is_due(
        id: SessionId,
        stored: Option<Revision>,
        seen: Option<Revision>,
        next: Revision,
    ) -> Result<bool, StoreError> {
        if stored == Some(next) {
            return Ok(false);
        }
        if stored == seen {
            return Ok(true);
        }
        Err(StoreError::Conflict { id })
    }

    /// The record after the save, from the stored one. For stores that keep whole records.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if `stored` is not the record to which the messages were appended.
    pub fn applied_to(&self, stored: Option<StoredSession>) -> Result<StoredSession, StoreError> {
        match (self.change, stored) {
            (Change::Rewritten(history), _) => Ok(self.header.clone().with_history(history.clone())),
            (Change::Appended(added), stored) => {
                let mut history = stored.map_or_else(|| Session::with_id(self.id()), |stored| stored.history);
                history.push_batch(added.iter().cloned());
                let (kept, count) = (history.iter().len(), self.header.message_count);
                if kept != count {
                    let reason = format!("it has {kept} messages in place of {count}");
                    return Err(StoreError::Corrupt { id: self.id(), reason });
                }
                Ok(self.header.clone().with_history(history))
            }
        }
    }
}

impl TurnEnd {
    /// Makes the end of a turn, for tests of a store.
    pub const fn new(turn_id: TurnId, outcome: TurnOutcome) -> Self {
        Self { turn_id, outcome }
    }
}

impl fmt::Display for TurnOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::CallbackPending => "callback_pending",
            Self::Faulted => "faulted",
        })
    }
}

impl fmt::Debug for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Appended(added) => write!(f, "Appended({} messages)", added.len()),
            Self::Rewritten(history) => write!(f, "Rewritten({} messages)", history.iter().len()),
        }
    }
}

impl StoredHeader {
    /// The summary of the session, for lists.
    pub fn summary(&self) -> StoredSummary {
        StoredSummary {
            session_id: self.session_id,
            created_at: self.created_at,
            updated_at: self.updated_at,
            message_count: self.message_count,
            usage: self.usage,
            turns: self.numbers.turns,
            labels: self.labels.clone().into(),
            archived: self.archived,
        }
    }

    /// The record with this history's messages. Everything else of the history is the header's.
    pub(super) fn with_history(self, history: Session) -> StoredSession {
        let Self { session_id, created_at, updated_at, usage, metadata, .. } = self;
        StoredSession {
            history: history.with_figures(session_id, created_at, updated_at, usage, metadata),
            model: self.model,
            system_prompt: self.system_prompt,
            max_tokens: self.max_tokens,
            labels: self.labels,
            archived: self.archived,
            rewrites_history: self.rewrites_history,
            numbers: self.numbers,
            callback_pending: self.callback_pending,
        }
    }
}

impl fmt::Debug for StoredHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredHeader")
            .field("session_id", &self.session_id)
            .field("created_at", &self.created_at)
            .field("updated_at", &self.updated_at)
            .field("message_count", &self.message_count)
            .field("usage", &self.usage)
            .field("model", &self.model)
            .field("system_prompt", &self.system_prompt.as_deref().map(Brief))
            .field("max_tokens", &self.max_tokens)
            .field("labels", &self.labels)
            .field("archived", &self.archived)
            .field("rewrites_history", &self.rewrites_history)
            .field("numbers", &self.numbers)
            .field("callback_pending", &self.callback_pending)
            .finish_non_exhaustive()
    }
}
