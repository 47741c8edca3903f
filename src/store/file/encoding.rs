//! The encoding of a value in the file.
//!
//! A value is a head and a payload. The head is four letters, a version (2 bytes), and a checksum of version and payload
//! (CRC-32, 4 bytes), both little-endian. The layout of the head is the same in all versions, so that a newer value is
//! told from a damaged one. The payloads of version 2:
//!
//! | Value | Payload |
//! |---|---|
//! | record | the revision (16 bytes), the number of messages and the index of the last chunk (8 bytes each), the header as JSON |
//! | chunk | the session's id (16 bytes), the index of its first message (8 bytes), messages as JSON, one a line |
//! | summary | JSON |
//!
//! In version 1 a record was the whole session as JSON. Such a record is read, and its next save writes version 2.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::{Message, Session, SessionId};
use crate::store::error::StoreError;
use crate::store::record::{StoredSession, StoredSummary};
use crate::store::save::{Revision, StoredHeader};

const MAGIC: &[u8; 4] = b"turn";
const VERSION: u16 = 2;
/// The version of records that are whole sessions.
const WHOLE: u16 = 1;
const HEAD: usize = 10;

/// The revision of every record of version 1, which has none of its own.
pub(super) const FIRST_REVISION: Revision = Revision::from_uuid(Uuid::nil());

/// A record of version 2, apart from the messages.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) revision: Revision,
    pub(super) message_count: u64,
    /// The index of the first message in the last chunk.
    pub(super) last_chunk: u64,
    header: &'a [u8],
}

/// Messages in JSON, one a line.
pub(super) struct Lines {
    text: Vec<u8>,
    /// The end of each line in `text`.
    ends: Vec<usize>,
}

impl<'a> Record<'a> {
    pub(super) fn decode(id: SessionId, value: &'a [u8]) -> Result<Self, StoreError> {
        let payload = payload(id, value, VERSION)?;
        let Some((revision, rest)) = payload.split_first_chunk::<16>() else {
            return Err(corrupt(id, "it has no revision"));
        };
        let Some((message_count, rest)) = rest.split_first_chunk::<8>() else {
            return Err(corrupt(id, "it has no number of messages"));
        };
        let Some((last_chunk, header)) = rest.split_first_chunk::<8>() else {
            return Err(corrupt(id, "it has no last chunk"));
        };
        Ok(Self {
            revision: Revision::from_uuid(Uuid::from_bytes(*revision)),
            message_count: u64::from_le_bytes(*message_count),
            last_chunk: u64::from_le_bytes(*last_chunk),
            header,
        })
    }

    pub(super) fn header(&self, id: SessionId) -> Result<StoredHeader, StoreError> {
        let header: StoredHeader = from_json(id, self.header)?;
        // A valid record under another session's key is damage too.
        if header.session_id != id {
            return Err(corrupt(id, &format!("it is that of session {}", header.session_id)));
        }
        Ok(header)
    }

    /// Encodes a record whose header is JSON already.
    pub(super) fn encode(revision: Revision, message_count: u64, last_chunk: u64, header: &[u8]) -> Vec<u8> {
        let mut value = vec![0; HEAD];
        value.extend_from_slice(revision.as_uuid().as_bytes());
        value.extend_from_slice(&message_count.to_le_bytes());
        value.extend_from_slice(&last_chunk.to_le_bytes());
        value.extend_from_slice(header);
        seal(value)
    }
}

impl Lines {
    pub(super) fn of<'m>(id: SessionId, messages: impl Iterator<Item = &'m Message>) -> Result<Self, StoreError> {
        let mut lines = Self { text: Vec::new(), ends: Vec::new() };
        for message in messages {
            write_json(id, &mut lines.text, message)?;
            lines.text.push(b'\n');
            lines.ends.push(lines.text.len());
        }
        Ok(lines)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The lines, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.text[start..end])
    }
}

/// A chunk of messages that is being filled.
pub(super) struct Chunk {
    pub(super) start: u64,
    value: Vec<u8>,
}

impl Chunk {
    /// The length of a chunk that takes no more messages. With its key it fills one page of the database, so an append
    /// to a chunk writes as many pages as a chunk of its own.
    const FULL: usize = 3_900;

    const PREFIX: usize = HEAD + 16 + 8;

    pub(super) fn new(id: SessionId, start: u64) -> Self {
        let mut value = vec![0; HEAD];
        value.extend_from_slice(id.as_uuid().as_bytes());
        value.extend_from_slice(&start.to_le_bytes());
        Self { start, value }
    }

    /// A chunk that more messages may be added to.
    pub(super) fn resume(id: SessionId, start: u64, value: &[u8]) -> Result<Self, StoreError> {
        chunk_lines(id, start, value)?;
        Ok(Self { start, value: value.to_vec() })
    }

    /// Adds a line, unless the chunk is full.
    pub(super) fn add(&mut self, line: &[u8]) -> bool {
        let has_room = self.value.len() == Self::PREFIX || self.value.len() + line.len() <= Self::FULL;
        if has_room {
            self.value.extend_from_slice(line);
        }
        has_room
    }

    pub(super) fn encode(self) -> Vec<u8> {
        seal(self.value)
    }
}

/// Reads the messages of a chunk.
pub(super) fn read_chunk(
    id: SessionId,
    start: u64,
    value: &[u8],
    messages: &mut Vec<Message>,
) -> Result<(), StoreError> {
    for message in serde_json::Deserializer::from_slice(chunk_lines(id, start, value)?).into_iter() {
        messages.push(message.map_err(|error| unreadable(id, &error))?);
    }
    Ok(())
}

fn chunk_lines(id: SessionId, start: u64, value: &[u8]) -> Result<&[u8], StoreError> {
    let payload = payload(id, value, VERSION)?;
    let rest = payload.strip_prefix(id.as_uuid().as_bytes());
    let lines = rest.and_then(|rest| rest.strip_prefix(&start.to_le_bytes()));
    lines.ok_or_else(|| corrupt(id, "some of its messages are those of another record"))
}

/// Reads a record of version 1.
pub(super) fn read_whole(id: SessionId, value: &[u8]) -> Result<StoredSession, StoreError> {
    let stored: StoredSession = from_json(id, payload(id, value, WHOLE)?)?;
    if stored.id() == id {
        Ok(stored)
    } else {
        Err(corrupt(id, &format!("it is that of session {}", stored.id())))
    }
}

pub(super) fn encode_summary(summary: &StoredSummary) -> Result<Vec<u8>, StoreError> {
    let mut value = vec![0; HEAD];
    write_json(summary.session_id, &mut value, summary)?;
    Ok(seal(value))
}

pub(super) fn read_summary(id: SessionId, value: &[u8]) -> Result<StoredSummary, StoreError> {
    // It is the same in both versions.
    let (_, payload) = open(id, value)?;
    from_json(id, payload)
}

pub(super) fn encode_header(header: &StoredHeader) -> Result<Vec<u8>, StoreError> {
    let mut json = Vec::new();
    write_json(header.session_id, &mut json, header)?;
    Ok(json)
}

fn write_json(id: SessionId, out: &mut Vec<u8>, value: &impl Serialize) -> Result<(), StoreError> {
    // Only a time before 1970 cannot be encoded.
    serde_json::to_writer(out, value).map_err(|error| StoreError::failed(format!("session {id}: {error}")))
}

/// Fills the head of a value.
fn seal(mut value: Vec<u8>) -> Vec<u8> {
    let checksum = checksum(VERSION.to_le_bytes(), &value[HEAD..]);
    value[..4].copy_from_slice(MAGIC);
    value[4..6].copy_from_slice(&VERSION.to_le_bytes());
    value[6..HEAD].copy_from_slice(&checksum.to_le_bytes());
    value
}

/// Checks the head of a value. Returns its version, which may be any that can be read here, and its payload.
fn open(id: SessionId, value: &[u8]) -> Result<(u16, &[u8]), StoreError> {
    match value {
        [b't', b'u', b'r', b'n', v0, v1, c0, c1, c2, c3, payload @ ..] => {
            if checksum([*v0, *v1], payload) != u32::from_le_bytes([*c0, *c1, *c2, *c3]) {
                return Err(corrupt(id, "its checksum does not match"));
            }
            let version = u16::from_le_bytes([*v0, *v1]);
            if version > VERSION {
                return Err(StoreError::Newer { id, version: version.into(), supported: VERSION.into() });
            }
            Ok((version, payload))
        }
        _ => Err(corrupt(id, &format!("{} bytes without the head of a record", value.len()))),
    }
}

/// The payload of a value that has to be of this version.
fn payload(id: SessionId, value: &[u8], wanted: u16) -> Result<&[u8], StoreError> {
    match open(id, value)? {
        (version, payload) if version == wanted => Ok(payload),
        (version, _) => Err(corrupt(id, &format!("it is of version {version} in place of {wanted}"))),
    }
}

fn from_json<T: DeserializeOwned>(id: SessionId, json: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(json).map_err(|error| {
        // The layout of a history has its own version.
        let outline = serde_json::from_slice::<Outline>(json).ok().and_then(Outline::format_version);
        match outline.filter(|version| *version > Session::FORMAT_VERSION) {
            Some(version) => StoreError::Newer { id, version, supported: Session::FORMAT_VERSION },
            None => unreadable(id, &error),
        }
    })
}

/// Without the error's own text, which quotes the record, and so the conversation.
fn unreadable(id: SessionId, error: &serde_json::Error) -> StoreError {
    corrupt(id, &format!("it cannot be read at line {}, column {}", error.line(), error.column()))
}

pub(super) fn corrupt(id: SessionId, reason: &str) -> StoreError {
    StoreError::Corrupt { id, reason: reason.to_owned() }
}

/// The part of a record that tells why the rest cannot be decoded.
#[derive(Deserialize)]
struct Outline {
    format_version: Option<u32>,
    /// In version 1.
    history: Option<HistoryOutline>,
}

#[derive(Deserialize)]
struct HistoryOutline {
    format_version: u32,
}

impl Outline {
    fn format_version(self) -> Option<u32> {
        self.format_version.or(self.history.map(|history| history.format_version))
    }
}

fn checksum(version: [u8; 2], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&version);
    hasher.update(payload);
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

    fn record(header: &StoredHeader) -> Vec<u8> {
        Record::encode(Revision::new(), 2, 0, &encode_header(header).unwrap())
    }

    fn read(id: SessionId, value: &[u8]) -> Result<StoredHeader, StoreError> {
        Record::decode(id, value)?.header(id)
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let stored = stored();
        let (id, header) = (stored.id(), stored.header());
        let revision = Revision::new();
        let value = Record::encode(revision, 2, 1, &encode_header(&header).unwrap());
        let record = Record::decode(id, &value).unwrap();
        assert_eq!((record.revision, record.message_count, record.last_chunk), (revision, 2, 1));
        assert_eq!(record.header(id).unwrap(), header);
        let lines = Lines::of(id, stored.history.iter()).unwrap();
        let mut chunk = Chunk::new(id, 7);
        assert!(lines.iter().all(|line| chunk.add(line)));
        let mut messages = Vec::new();
        read_chunk(id, 7, &chunk.encode(), &mut messages).unwrap();
        assert!(stored.history.iter().eq(&messages));
    }

    #[test]
    fn no_bit_of_a_value_can_change_unnoticed() {
        let stored = stored();
        let id = stored.id();
        let mut chunk = Chunk::new(id, 0);
        assert!(Lines::of(id, stored.history.iter()).unwrap().iter().all(|line| chunk.add(line)));
        type Reader = fn(SessionId, &[u8]) -> Result<(), StoreError>;
        let values: [(Vec<u8>, Reader); 3] = [
            (record(&stored.header()), |id, value| read(id, value).map(drop)),
            (chunk.encode(), |id, value| read_chunk(id, 0, value, &mut Vec::new())),
            (encode_summary(&stored.summary()).unwrap(), |id, value| read_summary(id, value).map(drop)),
        ];
        for (value, read) in values {
            read(id, &value).unwrap();
            for bit in 0..value.len() * 8 {
                let mut damaged = value.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let error = read(id, &damaged).unwrap_err();
                assert!(matches!(error, StoreError::Corrupt { .. }), "bit {bit}: {error}");
            }
            for len in 0..value.len() {
                read(id, &value[..len]).unwrap_err();
            }
        }
    }

    #[test]
    fn a_chunk_of_another_record_or_place_is_damage() {
        let id = SessionId::new();
        let value = Chunk::new(id, 3).encode();
        read_chunk(id, 3, &value, &mut Vec::new()).unwrap();
        read_chunk(id, 4, &value, &mut Vec::new()).unwrap_err();
        read_chunk(SessionId::new(), 3, &value, &mut Vec::new()).unwrap_err();
        read(SessionId::new(), &record(&stored().header())).unwrap_err();
    }

    #[test]
    fn a_newer_record_says_so() {
        let stored = stored();
        let mut value = record(&stored.header());
        value[4] = 7;
        let sum = checksum([7, 0], &value[HEAD..]);
        value[6..HEAD].copy_from_slice(&sum.to_le_bytes());
        let error = read(stored.id(), &value).unwrap_err();
        assert!(matches!(error, StoreError::Newer { version: 7, supported: 2, .. }), "{error}");
    }

    #[test]
    fn a_newer_history_in_a_record_of_today_says_so() {
        let stored = stored();
        let mut json = serde_json::to_value(stored.header()).unwrap();
        json["format_version"] = 3.into();
        json["session_id"] = 0.into();
        let value = Record::encode(Revision::new(), 2, 0, &serde_json::to_vec(&json).unwrap());
        let error = read(stored.id(), &value).unwrap_err();
        assert!(matches!(error, StoreError::Newer { version: 3, .. }), "{error}");
    }
}
