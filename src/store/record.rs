//! The stored record of a session: the data, without its encoding.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::ids::numbers::LastNumbers;
use crate::model::{Brief, CallbackPending, Labels, Message, Session, SessionId, Usage};
use crate::service::{SessionSpec, SessionState, SessionSummary};

use super::error::StoreError;
use super::save::StoredHeader;

/// A stored session: its history, and the specification of its agent. The specification's
/// [`extension`](SessionSpec::extension) is not stored.
///
/// ```
/// use turnwise::store::StoredSession;
/// use turnwise::{agent_fn, EphemeralSessionService, Message, Session, SessionService};
///
/// let mut history = Session::new();
/// history.push_batch([Message::user("hello"), Message::assistant("hello")]);
/// let mut stored = StoredSession::new(history);
/// stored.labels.insert("user".into(), "ada".into());
///
/// // Any service can resume it.
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
/// let id = service.open_session(stored.spec())?;
/// assert_eq!(id, stored.id());
/// assert_eq!(service.read(id)?.state.message_count, 2);
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoredSession {
    /// The history, as of the last saved turn.
    pub history: Session,
    /// The name of the model, in the builder's own terms.
    #[serde(default)]
    pub model: String,
    /// The system prompt.
    #[serde(default)]
    pub system_prompt: Option<String>,
    /// The limit of output tokens of a model call.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// The labels that queries match.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether it is archived: it can be read, and runs no more turns.
    #[serde(default)]
    pub archived: bool,
    /// Whether its agent's history may begin differently from this one; see
    /// [`SessionSpec::rewrites_history`](crate::SessionSpec::rewrites_history).
    #[serde(default)]
    pub rewrites_history: bool,
    /// The numbers that its turns and events have used.
    #[serde(default)]
    pub numbers: StoredNumbers,
    /// The tool that the host must run; see
    /// [`SessionInfo::callback_pending`](crate::SessionInfo::callback_pending).
    #[serde(default)]
    pub callback_pending: Option<CallbackPending>,
}

/// The numbers that a session's turns and events have used. Its next life uses none of them again.
///
/// Numbers are reserved in blocks, before the first number of a block is used. After an orderly end both figures of a
/// kind are the same. After a kill the next life begins behind the reserved block.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use turnwise::store::{FileStore, PersistentSessionService, SessionStore};
/// use turnwise::{agent_fn, CreateSessionRequest, SessionService, StartTurnRequest};
///
/// let store = Arc::new(FileStore::in_memory()?);
/// let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
/// let service = PersistentSessionService::new(agent, 1, Arc::clone(&store));
/// let first = service.create_session(CreateSessionRequest::new("hello"))?;
/// service.unload(first.session_id, Duration::from_secs(5))?;
/// let numbers = store.load(first.session_id)?.expect("it is kept").0.numbers;
/// assert_eq!((numbers.turns, numbers.turns_reserved), (1, 1));
/// let second = service.start_turn(first.session_id, StartTurnRequest::new("again"))?;
/// assert!(second.turn_id > first.turn_id);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoredNumbers {
    /// The last turn that is known to have been admitted; 0 for none.
    pub turns: u64,
    /// The last turn that may have been admitted.
    pub turns_reserved: u64,
    /// The last event that is known to have been numbered; 0 for none.
    pub events: u64,
    /// The last event that may have been numbered.
    pub events_reserved: u64,
}

impl StoredNumbers {
    /// Far more than any session reaches, and far from the limits of the words that numbers share with flags.
    const MAX: u64 = 1 << 56;

    /// Refuses impossible numbers.
    pub(super) fn check(self, id: SessionId) -> Result<(), StoreError> {
        let Self { turns, turns_reserved, events, events_reserved } = self;
        if turns <= turns_reserved && events <= events_reserved && turns_reserved.max(events_reserved) <= Self::MAX {
            return Ok(());
        }
        Err(StoreError::Corrupt { id, reason: format!("its numbers cannot be: {self:?}") })
    }

    pub(super) fn reserved(self) -> LastNumbers {
        LastNumbers { turn: self.turns_reserved, event: self.events_reserved }
    }

    /// Reserves a block behind each of `used` that has reached its reserved number.
    pub(super) fn reserve(&mut self, used: LastNumbers, block: LastNumbers) {
        if used.turn >= self.turns_reserved {
            self.turns_reserved = used.turn.saturating_add(block.turn);
        }
        if used.event >= self.events_reserved {
            self.events_reserved = used.event.saturating_add(block.event);
        }
    }

    /// Records used numbers. Events that were numbered without a reservation, after a failure of the store, get one
    /// now.
    pub(super) fn note_used(&mut self, used: LastNumbers, block: LastNumbers) {
        if used.turn > self.turns_reserved || used.event > self.events_reserved {
            self.reserve(used, block);
        }
        self.turns = self.turns.max(used.turn);
        self.events = self.events.max(used.event);
    }

    /// Sets the exact numbers at the end of a life. Returns whether they have changed.
    pub(super) fn finish(&mut self, used: LastNumbers) -> bool {
        let LastNumbers { turn, event } = used;
        let exact = Self { turns: turn, turns_reserved: turn, events: event, events_reserved: event };
        std::mem::replace(self, exact) != exact
    }
}

impl StoredSession {
    /// Creates a record of a history, with defaults for the rest.
    pub fn new(history: Session) -> Self {
        Self {
            history,
            model: String::new(),
            system_prompt: None,
            max_tokens: None,
            labels: BTreeMap::new(),
            archived: false,
            rewrites_history: false,
            numbers: StoredNumbers::default(),
            callback_pending: None,
        }
    }

    /// Creates the record of a session that is about to be built. `id` is the id in `spec`.
    pub(super) fn of_new(spec: &SessionSpec, id: SessionId) -> Self {
        Self {
            history: spec.resume.clone().unwrap_or_else(|| Session::with_id(id)),
            model: spec.model.clone(),
            system_prompt: spec.system_prompt.clone(),
            max_tokens: spec.max_tokens,
            labels: spec.labels.clone(),
            archived: false,
            rewrites_history: spec.rewrites_history,
            numbers: StoredNumbers::default(),
            callback_pending: None,
        }
    }

    /// The specification that resumes the session.
    pub fn spec(&self) -> SessionSpec {
        SessionSpec {
            session_id: Some(self.id()),
            model: self.model.clone(),
            system_prompt: self.system_prompt.clone(),
            max_tokens: self.max_tokens,
            resume: Some(self.history.clone()),
            labels: self.labels.clone(),
            rewrites_history: self.rewrites_history,
            callback: self.callback_pending.clone(),
            ..SessionSpec::new()
        }
    }

    /// The id of the session.
    pub fn id(&self) -> SessionId {
        self.history.id()
    }

    /// The summary of the session, for lists.
    pub fn summary(&self) -> StoredSummary {
        self.header().summary()
    }

    /// The record without its messages.
    pub fn header(&self) -> StoredHeader {
        let history = &self.history;
        StoredHeader {
            format_version: history.format_version(),
            session_id: self.id(),
            created_at: history.created_at(),
            updated_at: history.updated_at(),
            message_count: history.iter().len(),
            usage: history.usage(),
            metadata: history.metadata().clone(),
            model: self.model.clone(),
            system_prompt: self.system_prompt.clone(),
            max_tokens: self.max_tokens,
            labels: self.labels.clone(),
            archived: self.archived,
            rewrites_history: self.rewrites_history,
            numbers: self.numbers,
            callback_pending: self.callback_pending.clone(),
        }
    }

    /// The record of a header and its messages. For stores that keep the two apart.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the header is about another number of messages, and [`StoreError::Newer`] if its
    /// history is of a newer format.
    pub fn from_parts(header: StoredHeader, messages: Vec<Message>) -> Result<Self, StoreError> {
        let id = header.session_id;
        if header.format_version > Session::FORMAT_VERSION {
            let (version, supported) = (header.format_version, Session::FORMAT_VERSION);
            return Err(StoreError::Newer { id, version, supported });
        }
        if header.message_count != messages.len() {
            let reason = format!("it has {} messages in place of {}", messages.len(), header.message_count);
            return Err(StoreError::Corrupt { id, reason });
        }
        let mut history = Session::with_id(id);
        *history.messages_mut() = messages;
        Ok(header.with_history(history))
    }
}

impl fmt::Debug for StoredSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSession")
            .field("history", &self.history)
            .field("model", &self.model)
            .field("system_prompt", &self.system_prompt.as_deref().map(Brief))
            .field("max_tokens", &self.max_tokens)
            .field("labels", &self.labels)
            .field("archived", &self.archived)
            .field("rewrites_history", &self.rewrites_history)
            .field("numbers", &self.numbers)
            .field("callback_pending", &self.callback_pending)
            .finish()
    }
}

/// The summary of a stored session, for lists: small, however long the history is.
///
/// ```
/// use turnwise::store::StoredSession;
/// use turnwise::{Message, Session};
///
/// let mut history = Session::new();
/// history.push(Message::user("hello"));
/// let summary = StoredSession::new(history).summary();
/// assert_eq!((summary.message_count, summary.archived), (1, false));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoredSummary {
    /// The id of the session.
    pub session_id: SessionId,
    /// When the conversation began.
    pub created_at: SystemTime,
    /// When the conversation last changed.
    pub updated_at: SystemTime,
    /// How many messages it has.
    pub message_count: usize,
    /// Tokens used so far.
    pub usage: Usage,
    /// How many turns are known to have been admitted, over all its lives.
    #[serde(default)]
    pub turns: u64,
    /// Its labels.
    #[serde(default)]
    pub labels: Labels,
    /// Whether it is archived.
    #[serde(default)]
    pub archived: bool,
}

impl From<StoredSummary> for SessionSummary {
    fn from(stored: StoredSummary) -> Self {
        Self {
            session_id: stored.session_id,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
            message_count: stored.message_count,
            turns: stored.turns,
            total_tokens: stored.usage.total_tokens(),
            is_active: false,
            queued_turns: 0,
            state: if stored.archived { SessionState::Archived } else { SessionState::Idle },
            is_live: false,
            labels: stored.labels,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_does_not_contain_the_conversation() {
        let mut history = Session::new();
        history.push(Message::user("a secret"));
        history.set_metadata("title", "a secret");
        let mut stored = StoredSession::new(history);
        stored.system_prompt = Some("a secret".into());
        assert!(!format!("{stored:?} {:?}", stored.header()).contains("secret"));
    }
}
