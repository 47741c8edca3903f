//! What is kept of a session, and how it is written down.
//!
//! A record is a header and JSON. The header is four letters, a version (2 bytes), and a checksum of version and JSON
//! (CRC-32, 4 bytes), both little-endian. The header stays as it is in every version to come, so that a newer record is told
//! from a damaged one.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::{Brief, Labels, Session, SessionId, Usage};
use crate::service::{SessionSpec, SessionState, SessionSummary};

use super::error::StoreError;

/// A session as it is kept: its history, and what its agent was built from. What a specification's
/// [`extension`](SessionSpec::extension) holds cannot be kept.
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
/// // Any service can go on from it.
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
/// let id = service.open_session(stored.spec())?;
/// assert_eq!(id, stored.id());
/// assert_eq!(service.read(id)?.state.message_count, 2);
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoredSession {
    /// The history, as of the last turn that is kept.
    pub history: Session,
    /// Which model, in the builder's own words.
    #[serde(default)]
    pub model: String,
    /// What the assistant is to be.
    #[serde(default)]
    pub system_prompt: Option<String>,
    /// How much a model call may write, in tokens.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// What to find the session by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether it is archived: it can be read, and runs no more turns.
    #[serde(default)]
    pub archived: bool,
}

impl StoredSession {
    /// A history, and nothing else said about the session.
    pub fn new(history: Session) -> Self {
        Self {
            history,
            model: String::new(),
            system_prompt: None,
            max_tokens: None,
            labels: BTreeMap::new(),
            archived: false,
        }
    }

    /// What there is to keep of a session that is about to be built. `spec` names its id.
    pub(super) fn of_new(spec: &SessionSpec, id: SessionId) -> Self {
        Self {
            history: spec.resume.clone().unwrap_or_else(|| Session::with_id(id)),
            model: spec.model.clone(),
            system_prompt: spec.system_prompt.clone(),
            max_tokens: spec.max_tokens,
            labels: spec.labels.clone(),
            archived: false,
        }
    }

    /// What to build its agent from, once more.
    pub fn spec(&self) -> SessionSpec {
        SessionSpec {
            session_id: Some(self.id()),
            model: self.model.clone(),
            system_prompt: self.system_prompt.clone(),
            max_tokens: self.max_tokens,
            resume: Some(self.history.clone()),
            labels: self.labels.clone(),
            extension: None,
        }
    }

    /// Which session.
    pub fn id(&self) -> SessionId {
        self.history.id()
    }

    /// What lists show of it.
    pub fn summary(&self) -> StoredSummary {
        StoredSummary {
            session_id: self.id(),
            created_at: self.history.created_at(),
            updated_at: self.history.updated_at(),
            message_count: self.history.messages().len(),
            usage: self.history.usage(),
            labels: self.labels.clone().into(),
            archived: self.archived,
        }
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
            .finish()
    }
}

/// What lists show of a session that is kept: small, however long the history is.
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
    /// Which session.
    pub session_id: SessionId,
    /// When the conversation began.
    pub created_at: SystemTime,
    /// When it last changed.
    pub updated_at: SystemTime,
    /// Messages in it.
    pub message_count: usize,
    /// Tokens used so far.
    pub usage: Usage,
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
            turns: 0,
            total_tokens: stored.usage.total_tokens(),
            is_active: false,
            state: if stored.archived { SessionState::Archived } else { SessionState::Idle },
            labels: stored.labels,
        }
    }
}

const LETTERS: &[u8; 4] = b"turn";
const VERSION: u16 = 1;
const HEADER: usize = 10;

/// Writes a value down.
pub(super) fn encode(id: SessionId, value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    let mut record = vec![0; HEADER];
    // A time before 1970 is all that cannot be written.
    serde_json::to_writer(&mut record, value).map_err(|error| StoreError::failed(format!("session {id}: {error}")))?;
    let checksum = checksum(VERSION.to_le_bytes(), &record[HEADER..]);
    record[..4].copy_from_slice(LETTERS);
    record[4..6].copy_from_slice(&VERSION.to_le_bytes());
    record[6..HEADER].copy_from_slice(&checksum.to_le_bytes());
    Ok(record)
}

/// Reads what [`encode`] has written.
pub(super) fn decode<T: DeserializeOwned>(id: SessionId, record: &[u8]) -> Result<T, StoreError> {
    let corrupt = |reason: String| StoreError::Corrupt { id, reason };
    let json = match record {
        [b't', b'u', b'r', b'n', v0, v1, c0, c1, c2, c3, json @ ..] => {
            if checksum([*v0, *v1], json) != u32::from_le_bytes([*c0, *c1, *c2, *c3]) {
                return Err(corrupt("its checksum does not match".to_owned()));
            }
            let version = u16::from_le_bytes([*v0, *v1]);
            if version > VERSION {
                return Err(StoreError::Newer { id, version: version.into(), supported: VERSION.into() });
            }
            json
        }
        _ => return Err(corrupt(format!("{} bytes without the header of a record", record.len()))),
    };
    serde_json::from_slice(json).map_err(|error| match serde_json::from_slice(json) {
        // The layout of a history has a version of its own.
        Ok(Outline { history: OutlineOfHistory { format_version: version } }) if version > Session::FORMAT_VERSION => {
            StoreError::Newer { id, version, supported: Session::FORMAT_VERSION }
        }
        _ => corrupt(error.to_string()),
    })
}

/// As much of a record as tells why the rest cannot be read.
#[derive(Deserialize)]
struct Outline {
    history: OutlineOfHistory,
}

#[derive(Deserialize)]
struct OutlineOfHistory {
    format_version: u32,
}

fn checksum(version: [u8; 2], json: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&version);
    hasher.update(json);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Message;

    fn stored() -> StoredSession {
        let mut history = Session::new();
        history.push_batch([Message::user("one"), Message::assistant("two")]);
        let mut stored = StoredSession::new(history);
        stored.labels.insert("user".into(), "ada".into());
        stored
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let stored = stored();
        let record = encode(stored.id(), &stored).unwrap();
        assert_eq!(decode::<StoredSession>(stored.id(), &record).unwrap(), stored);
    }

    #[test]
    fn no_bit_of_a_record_can_change_unnoticed() {
        let stored = stored();
        let record = encode(stored.id(), &stored).unwrap();
        for bit in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = decode::<StoredSession>(stored.id(), &damaged).unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "bit {bit}: {error}");
        }
        for len in 0..record.len() {
            decode::<StoredSession>(stored.id(), &record[..len]).unwrap_err();
        }
    }

    #[test]
    fn a_newer_record_says_so() {
        let stored = stored();
        let mut record = encode(stored.id(), &stored).unwrap();
        record[4] = 7;
        let sum = checksum([7, 0], &record[HEADER..]);
        record[6..HEADER].copy_from_slice(&sum.to_le_bytes());
        let error = decode::<StoredSession>(stored.id(), &record).unwrap_err();
        assert!(matches!(error, StoreError::Newer { version: 7, supported: 1, .. }), "{error}");
    }

    #[test]
    fn a_newer_history_in_a_record_of_today_says_so() {
        let stored = stored();
        let mut json = serde_json::to_value(&stored).unwrap();
        json["history"]["format_version"] = 3.into();
        let record = encode(stored.id(), &json).unwrap();
        let error = decode::<StoredSession>(stored.id(), &record).unwrap_err();
        assert!(matches!(error, StoreError::Newer { version: 3, .. }), "{error}");
    }

    #[test]
    fn debug_output_does_not_contain_what_was_said() {
        let mut stored = stored();
        stored.system_prompt = Some("a secret".into());
        assert!(!format!("{stored:?}").contains("secret"));
    }
}
