//! The tables of the file, and what a save writes to them.
//!
//! A record has one row in `records`, one in `summaries`, and its messages in the rows of `messages`, whose keys are the
//! session's id and the index of the first message. An append fills the last of these rows up to a page, then adds
//! others. So it costs what it adds, and the rows are full. A rewrite replaces all rows of messages.
//!
//! **Invariants**
//! - The row in `records` is written in the transaction that writes the messages, so it never counts a message that is
//!   not there.
//! - A session is in `records` or in `sessions`, not in both. `sessions` has records of version 1, which the next save
//!   moves.

use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::model::{Message, SessionId};
use crate::store::error::StoreError;
use crate::store::record::{StoredSession, StoredSummary};
use crate::store::save::{Change, Revision, Save};

use super::encoding::{
    corrupt, encode_header, encode_summary, read_chunk, read_summary, read_whole, Chunk, Lines, Record, FIRST_REVISION,
};

pub(super) type Key = [u8; 16];
type ChunkKey = [u8; 24];

const RECORDS: TableDefinition<'_, Key, &[u8]> = TableDefinition::new("records");
const MESSAGES: TableDefinition<'_, ChunkKey, &[u8]> = TableDefinition::new("messages");
/// The summary of each session in a few bytes, for lists.
const SUMMARIES: TableDefinition<'_, Key, &[u8]> = TableDefinition::new("summaries");
/// Records of version 1.
const WHOLE: TableDefinition<'_, Key, &[u8]> = TableDefinition::new("sessions");
/// The version of the file: one row.
const FORMAT: TableDefinition<'_, &str, u32> = TableDefinition::new("format");

/// The version of the tables. A file of version 1 has no row for it.
const VERSION: u32 = 2;

/// Creates the tables that the file lacks, because readers expect all of them. Returns the version of a file that is
/// newer than this crate, which is then left as it is.
pub(super) fn prepare(transaction: &WriteTransaction) -> Result<Option<(u32, u32)>, StoreError> {
    let mut format = transaction.open_table(FORMAT).map_err(StoreError::failed)?;
    let version = format.get("version").map_err(StoreError::failed)?.map(|version| version.value());
    if let Some(newer) = version.filter(|version| *version > VERSION) {
        return Ok(Some((newer, VERSION)));
    }
    format.insert("version", VERSION).map_err(StoreError::failed)?;
    for table in [RECORDS, SUMMARIES, WHOLE] {
        transaction.open_table(table).map_err(StoreError::failed)?;
    }
    transaction.open_table(MESSAGES).map_err(StoreError::failed)?;
    Ok(None)
}

/// A save, encoded for the file.
pub(super) struct EncodedSave {
    id: SessionId,
    seen: Option<Revision>,
    next: Revision,
    message_count: u64,
    header: Vec<u8>,
    summary: Vec<u8>,
    added: Lines,
    is_rewrite: bool,
}

impl EncodedSave {
    pub(super) fn new(save: &Save<'_>) -> Result<Self, StoreError> {
        let (id, header) = (save.id(), save.header);
        let (added, is_rewrite) = match save.change {
            Change::Appended(added) => (Lines::of(id, added.iter())?, false),
            Change::Rewritten(history) => (Lines::of(id, history.iter())?, true),
        };
        Ok(Self {
            id,
            seen: save.seen,
            next: save.next,
            message_count: header.message_count as u64,
            header: encode_header(header)?,
            summary: encode_summary(&header.summary())?,
            added,
            is_rewrite,
        })
    }
}

/// The tables of a transaction that writes.
pub(super) struct Tables<'t> {
    records: Table<'t, Key, &'static [u8]>,
    messages: Table<'t, ChunkKey, &'static [u8]>,
    summaries: Table<'t, Key, &'static [u8]>,
    whole: Table<'t, Key, &'static [u8]>,
}

/// The record that a save finds.
enum Found {
    Nothing,
    Record {
        revision: Revision,
        message_count: u64,
        last_chunk: u64,
    },
    /// A record of version 1.
    Whole(Box<StoredSession>),
    /// It cannot be read.
    Damaged(StoreError),
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            records: transaction.open_table(RECORDS).map_err(StoreError::failed)?,
            messages: transaction.open_table(MESSAGES).map_err(StoreError::failed)?,
            summaries: transaction.open_table(SUMMARIES).map_err(StoreError::failed)?,
            whole: transaction.open_table(WHOLE).map_err(StoreError::failed)?,
        })
    }

    /// Writes a save. The inner error is about this save alone, and the transaction goes on.
    pub(super) fn save(&mut self, save: &EncodedSave) -> Result<Result<(), StoreError>, StoreError> {
        let id = save.id;
        let found = self.find(id)?;
        let revision = match &found {
            Found::Nothing => None,
            Found::Record { revision, .. } => Some(*revision),
            Found::Whole(_) => Some(FIRST_REVISION),
            Found::Damaged(error) => return Ok(Err(error.clone())),
        };
        match Save::is_due(id, revision, save.seen, save.next) {
            Ok(true) => {}
            Ok(false) => return Ok(Ok(())),
            Err(conflict) => return Ok(Err(conflict)),
        }
        let added = save.added.len() as u64;
        let last_chunk = match found {
            _ if save.is_rewrite => {
                self.remove_messages(id)?;
                self.append(id, None, 0, save.added.iter())?
            }
            Found::Record { message_count, .. } if message_count + added != save.message_count => {
                return Ok(Err(corrupt(
                    id,
                    &format!("it has {message_count} messages, and {added} more are to follow"),
                )));
            }
            Found::Record { message_count, last_chunk, .. } => {
                let last = match self.last_chunk(id, last_chunk, message_count)? {
                    Ok(last) => last,
                    Err(error) => return Ok(Err(error)),
                };
                self.append(id, last, message_count, save.added.iter())?
            }
            Found::Whole(stored) => {
                let kept = match Lines::of(id, stored.history.iter()) {
                    Ok(kept) => kept,
                    Err(error) => return Ok(Err(error)),
                };
                self.append(id, None, 0, kept.iter().chain(save.added.iter()))?
            }
            Found::Nothing | Found::Damaged(_) => self.append(id, None, 0, save.added.iter())?,
        };
        let record = Record::encode(save.next, save.message_count, last_chunk, &save.header);
        self.records.insert(key(id), record.as_slice()).map_err(StoreError::failed)?;
        self.summaries.insert(key(id), save.summary.as_slice()).map_err(StoreError::failed)?;
        if matches!(revision, Some(FIRST_REVISION)) {
            self.whole.remove(key(id)).map_err(StoreError::failed)?;
        }
        Ok(Ok(()))
    }

    fn find(&self, id: SessionId) -> Result<Found, StoreError> {
        if let Some(value) = self.records.get(key(id)).map_err(StoreError::failed)? {
            return Ok(match Record::decode(id, value.value()) {
                Ok(Record { revision, message_count, last_chunk, .. }) => {
                    Found::Record { revision, message_count, last_chunk }
                }
                Err(error) => Found::Damaged(error),
            });
        }
        let whole = self.whole.get(key(id)).map_err(StoreError::failed)?;
        Ok(match whole.map(|value| read_whole(id, value.value())) {
            None => Found::Nothing,
            Some(Ok(stored)) => Found::Whole(Box::new(stored)),
            Some(Err(error)) => Found::Damaged(error),
        })
    }

    /// The chunk that an append continues.
    #[allow(clippy::type_complexity)] // The outer error is the database's, the inner one the record's.
    fn last_chunk(
        &self,
        id: SessionId,
        start: u64,
        message_count: u64,
    ) -> Result<Result<Option<Chunk>, StoreError>, StoreError> {
        if message_count == 0 {
            return Ok(Ok(None));
        }
        let value = self.messages.get(chunk_key(id, start)).map_err(StoreError::failed)?;
        Ok(match value {
            Some(value) => Chunk::resume(id, start, value.value()).map(Some),
            None => Err(corrupt(id, "its last messages are gone")),
        })
    }

    /// Appends lines behind `count` messages, the last of which are in `last`. Returns the index of the last chunk.
    fn append<'l>(
        &mut self,
        id: SessionId,
        last: Option<Chunk>,
        count: u64,
        lines: impl Iterator<Item = &'l [u8]>,
    ) -> Result<u64, StoreError> {
        let mut chunk = last.unwrap_or_else(|| Chunk::new(id, count));
        let (mut is_changed, mut last) = (false, chunk.start);
        for (index, line) in (count..).zip(lines) {
            if !chunk.add(line) {
                let full = std::mem::replace(&mut chunk, Chunk::new(id, index));
                if is_changed {
                    self.put(id, full)?;
                }
                last = index;
                chunk.add(line);
            }
            is_changed = true;
        }
        if is_changed {
            self.put(id, chunk)?;
        }
        Ok(last)
    }

    fn put(&mut self, id: SessionId, chunk: Chunk) -> Result<(), StoreError> {
        let key = chunk_key(id, chunk.start);
        self.messages.insert(key, chunk.encode().as_slice()).map_err(StoreError::failed)?;
        Ok(())
    }

    fn remove_messages(&mut self, id: SessionId) -> Result<(), StoreError> {
        self.messages.retain_in(chunk_key(id, 0)..=chunk_key(id, u64::MAX), |_, _| false).map_err(StoreError::failed)
    }

    /// Deletes a session. The inner error is about this session alone.
    pub(super) fn delete(
        &mut self,
        id: SessionId,
        seen: Option<Revision>,
    ) -> Result<Result<bool, StoreError>, StoreError> {
        if let Some(seen) = seen {
            let is_another = match self.find(id)? {
                Found::Nothing => false,
                Found::Record { revision, .. } => revision != seen,
                Found::Whole(_) => FIRST_REVISION != seen,
                Found::Damaged(_) => true,
            };
            if is_another {
                return Ok(Err(StoreError::Conflict { id }));
            }
        }
        let mut is_there = false;
        for table in [&mut self.records, &mut self.summaries, &mut self.whole] {
            is_there |= table.remove(key(id)).map_err(StoreError::failed)?.is_some();
        }
        self.remove_messages(id)?;
        Ok(Ok(is_there))
    }
}

/// Loads a session. The inner error is about this session alone.
#[allow(clippy::type_complexity)]
pub(super) fn load(
    transaction: &ReadTransaction,
    id: SessionId,
) -> Result<Option<Result<(StoredSession, Revision), StoreError>>, StoreError> {
    let records = transaction.open_table(RECORDS).map_err(StoreError::failed)?;
    let Some(value) = records.get(key(id)).map_err(StoreError::failed)? else {
        let whole = transaction.open_table(WHOLE).map_err(StoreError::failed)?;
        let value = whole.get(key(id)).map_err(StoreError::failed)?;
        return Ok(value.map(|value| read_whole(id, value.value()).map(|stored| (stored, FIRST_REVISION))));
    };
    let record = match Record::decode(id, value.value()) {
        Ok(record) => record,
        Err(error) => return Ok(Some(Err(error))),
    };
    let header = match record.header(id) {
        Ok(header) => header,
        Err(error) => return Ok(Some(Err(error))),
    };
    let mut messages: Vec<Message> = Vec::new();
    let table = transaction.open_table(MESSAGES).map_err(StoreError::failed)?;
    for row in table.range(chunk_key(id, 0)..=chunk_key(id, u64::MAX)).map_err(StoreError::failed)? {
        let (_, value) = row.map_err(StoreError::failed)?;
        // The chunks follow each other without a gap. With damage to the pages the iteration might not even end.
        if let Err(error) = read_chunk(id, messages.len() as u64, value.value(), &mut messages) {
            return Ok(Some(Err(error)));
        }
    }
    Ok(Some(StoredSession::from_parts(header, messages).map(|stored| (stored, record.revision))))
}

pub(super) fn summary(
    transaction: &ReadTransaction,
    id: SessionId,
) -> Result<Option<Result<StoredSummary, StoreError>>, StoreError> {
    let summaries = transaction.open_table(SUMMARIES).map_err(StoreError::failed)?;
    let value = summaries.get(key(id)).map_err(StoreError::failed)?;
    Ok(value.map(|value| read_summary(id, value.value())))
}

pub(super) fn summaries(transaction: &ReadTransaction) -> Result<Vec<Result<StoredSummary, StoreError>>, StoreError> {
    read_all(transaction, SUMMARIES, read_summary)
}

pub(super) fn list(transaction: &ReadTransaction) -> Result<Vec<SessionId>, StoreError> {
    let mut ids = read_all(transaction, RECORDS, |id, _| id)?;
    ids.extend(read_all(transaction, WHOLE, |id, _| id)?);
    Ok(ids)
}

/// Reads all rows of a table, and converts each with `made`.
fn read_all<T>(
    transaction: &ReadTransaction,
    table: TableDefinition<'_, Key, &'static [u8]>,
    made: impl Fn(SessionId, &[u8]) -> T,
) -> Result<Vec<T>, StoreError> {
    let table = transaction.open_table(table).map_err(StoreError::failed)?;
    let (mut all, mut last) = (Vec::new(), None);
    for row in table.iter().map_err(StoreError::failed)? {
        let (key, value) = row.map_err(StoreError::failed)?;
        // The pages of a damaged file may form a cycle, and the iteration would not end.
        if last.replace(key.value()).is_some_and(|last| last >= key.value()) {
            return Err(StoreError::failed("the file is damaged: its records are in no order"));
        }
        all.push(made(SessionId::from_uuid(uuid::Uuid::from_bytes(key.value())), value.value()));
    }
    Ok(all)
}

fn key(id: SessionId) -> Key {
    id.as_uuid().into_bytes()
}

/// Big-endian, so that the rows of a session are in the order of its messages.
fn chunk_key(id: SessionId, start: u64) -> ChunkKey {
    let mut key = [0; 24];
    key[..16].copy_from_slice(id.as_uuid().as_bytes());
    key[16..].copy_from_slice(&start.to_be_bytes());
    key
}
