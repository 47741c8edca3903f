//! A store in a file.

mod opening;

use std::fmt;
use std::path::{Path, PathBuf};

use redb::backends::InMemoryBackend;
use redb::{AccessGuard, Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::model::SessionId;
use crate::panics::{contain, contain_and_log};
use crate::sync::{AtomicBool, Ordering, RwLock};

use super::batches::Batches;
use super::error::{Panicked, StoreError};
use super::record::{decode, encode, StoredSession, StoredSummary};
use super::SessionStore;

type Key = [u8; 16];
type Table = TableDefinition<'static, Key, &'static [u8]>;
type Records = ReadOnlyTable<Key, &'static [u8]>;

const SESSIONS: Table = Table::new("sessions");
/// The summary of each session in a few bytes, for lists.
const SUMMARIES: Table = Table::new("summaries");

/// Stores sessions in one file, with the embedded database `redb`.
///
/// A save is on the disk when it returns (`fsync`). After a kill of the process or a loss of power the file has the
/// state of the last complete save. It is opened again like any other, though that may take longer. Saves from several
/// threads at once share one write to the disk.
///
/// The file belongs to one store at a time. If a program moves or deletes the file meanwhile, later saves are lost. The
/// file does not shrink; the space of deleted records is reused. After a failure of the disk the next call reopens the
/// file, at the same path. It does not follow a link that is there by then.
///
/// ```
/// # let folder = tempfile();
/// use turnwise::store::{FileStore, SessionStore, StoredSession};
/// use turnwise::{Message, Session};
///
/// let path = folder.join("sessions.redb");
/// let mut history = Session::new();
/// history.push(Message::user("hello"));
///
/// let store = FileStore::open(&path)?;
/// store.save(&StoredSession::new(history.clone()))?;
/// drop(store);
///
/// let store = FileStore::open(&path)?;
/// assert_eq!(store.load(history.id())?.unwrap().history, history);
/// assert!(store.delete(history.id())?);
/// assert!(store.list()?.is_empty());
/// # std::fs::remove_dir_all(folder).unwrap();
/// # fn tempfile() -> std::path::PathBuf {
/// #     let folder = std::env::temp_dir().join(format!("turnwise-doc-{}", turnwise::SessionId::new()));
/// #     std::fs::create_dir(&folder).unwrap();
/// #     folder
/// # }
/// # Ok::<(), turnwise::store::StoreError>(())
/// ```
pub struct FileStore {
    /// The path of the file; `None` for a store in memory.
    path: Option<PathBuf>,
    /// An error after a failed reopen, and once the store is dropped. A call that uses the database holds a read lock.
    /// The write lock is for a reopen and for the close.
    database: RwLock<Result<Database, StoreError>>,
    /// Whether a call has failed. redb then refuses all calls until the file is reopened, which the next call does.
    has_failed: AtomicBool,
    saves: Batches<Save, Result<(), StoreError>>,
}

struct Save {
    key: Key,
    session: Vec<u8>,
    summary: Vec<u8>,
}

impl FileStore {
    /// Opens the store in a file. Creates the store if there is no file, or an empty one.
    ///
    /// # The new file
    /// On Unix a new file has the mode `0600`, less the bits of the umask: its owner may read and write it, and other
    /// users may not. For other access rights, create an empty file with those rights first. The store then takes that
    /// file's place, with its permission bits and its group, and with its owner if the process may give files away. The
    /// access control list of the empty file is not copied, and other hard links to it still name the empty file.
    ///
    /// The store is created in a temporary file in the same folder, and moved into place when it is complete. The
    /// temporary file is named `.turnwise-`, a random part and `.unfinished`. It is created exclusively, so no existing
    /// file or link is used for it. It never has more access rights than the store. If the process is killed meanwhile,
    /// the temporary file remains. It affects no later call and can be deleted.
    ///
    /// The move replaces no file but the empty one. If several processes create a store at once, one succeeds. The
    /// others get [`StoreError::InUse`], or open the same store once the first has closed it.
    ///
    /// A user who may rename files in the folder can replace the store. Use a folder that only its owner may write to.
    ///
    /// # Links
    /// A link to a file is followed once, by this call: the store is the target file. A dangling link is refused, and
    /// so is a link that takes the file's place later.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another store has the file.
    ///
    /// [`StoreError::Failed`] in these cases; the file at the path is then left as it is:
    /// - The file cannot be read and written, or is neither empty nor a store.
    /// - The path leads to a folder, a pipe, a device or a dangling link.
    /// - The folder of the file does not exist, or takes no new files.
    /// - The path names no file: it is empty, or ends with `..` or a separator.
    /// - The group of an empty file cannot be kept.
    ///
    /// # Blocking
    /// For the disk. After a crash until the file has been checked.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = opening::resolve(path.as_ref())?;
        let database = guarded(|| opening::open_or_create(&path))?;
        Self::with_database(database, Some(path))
    }

    /// Creates a store in memory, for tests: it behaves the same, but its records are lost when it is dropped.
    ///
    /// ```
    /// use turnwise::store::{FileStore, PersistentSessionService};
    /// use turnwise::{agent_fn, CreateSessionRequest, SessionService};
    ///
    /// let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
    /// let service = PersistentSessionService::new(agent, 1, FileStore::in_memory()?);
    /// service.create_session(CreateSessionRequest::new("hello"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`StoreError::Failed`] if there is no memory.
    pub fn in_memory() -> Result<Self, StoreError> {
        let database = Database::builder().create_with_backend(InMemoryBackend::new());
        Self::with_database(database.map_err(StoreError::failed)?, None)
    }

    fn with_database(database: Database, path: Option<PathBuf>) -> Result<Self, StoreError> {
        let (database, has_failed) = (RwLock::new(Ok(database)), AtomicBool::new(false));
        let store = Self { path, database, has_failed, saves: Batches::new() };
        // Created now, because readers expect both tables.
        store.transaction(|transaction| {
            transaction.open_table(SESSIONS).map_err(StoreError::failed)?;
            transaction.open_table(SUMMARIES).map_err(StoreError::failed)?;
            Ok(())
        })?;
        Ok(store)
    }

    /// Runs a transaction: if this returns `Ok`, all of it is committed, otherwise none of it.
    fn transaction<T>(&self, body: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.reopen_after_failure();
        let database = self.database.read();
        self.recording_failure(|| {
            let transaction = opened(&database)?.begin_write().map_err(StoreError::failed)?;
            let done = body(&transaction)?;
            transaction.commit().map_err(StoreError::failed)?;
            Ok(done)
        })
    }

    fn reading<T>(&self, table: Table, body: impl FnOnce(&Records) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.reopen_after_failure();
        let database = self.database.read();
        self.recording_failure(|| {
            let transaction = opened(&database)?.begin_read().map_err(StoreError::failed)?;
            body(&transaction.open_table(table).map_err(StoreError::failed)?)
        })
    }

    fn recording_failure<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let result = guarded(work);
        if matches!(result, Err(StoreError::Failed(_))) {
            // ORDERING: Relaxed. A call that sees it late fails once more; the database itself is behind its lock.
            self.has_failed.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Reopens the file if a call has failed. If the reopen fails too, each use of the database returns why.
    ///
    /// Not logged: a caller may hold the lock of the saves or of a record, and a logger may use the store.
    fn reopen_after_failure(&self) {
        let Some(path) = self.path.as_ref().filter(|_| self.has_failed.load(Ordering::Relaxed)) else { return };
        let mut database = self.database.write();
        if self.has_failed.swap(false, Ordering::Relaxed) {
            let failed = std::mem::replace(&mut *database, Err(closed()));
            // redb's drop may panic after a failure of the disk. The call that failed has reported it already.
            let _ = contain(move || drop(failed));
            *database = guarded(|| opening::reopen(path))
                .map_err(|error| StoreError::failed(format!("after a failure the store does not open again: {error}")));
        }
    }

    fn write(&self, saves: &[Save]) -> Result<(), StoreError> {
        self.transaction(|transaction| {
            let mut sessions = transaction.open_table(SESSIONS).map_err(StoreError::failed)?;
            let mut summaries = transaction.open_table(SUMMARIES).map_err(StoreError::failed)?;
            for save in saves {
                sessions.insert(save.key, save.session.as_slice()).map_err(StoreError::failed)?;
                summaries.insert(save.key, save.summary.as_slice()).map_err(StoreError::failed)?;
            }
            Ok(())
        })
    }

    /// Writes the saves in one transaction. If it fails, each save is written alone, so that one bad save does not fail
    /// the others.
    fn write_all(&self, saves: &[Save]) -> Vec<Result<(), StoreError>> {
        match self.write(saves) {
            Ok(()) => vec![Ok(()); saves.len()],
            Err(error) if saves.len() == 1 => vec![Err(error)],
            Err(_) => saves.chunks(1).map(|save| self.write(save)).collect(),
        }
    }

    fn read<T>(&self, table: Table, id: SessionId, decoded: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, StoreError> {
        self.reading(table, |table| {
            let record = table.get(key(id)).map_err(StoreError::failed)?;
            Ok(record.map(|record| decoded(record.value())))
        })
    }

    /// Reads all records of a table, and converts each with `made`.
    fn read_all<T>(&self, table: Table, made: impl Fn(SessionId, &[u8]) -> T) -> Result<Vec<T>, StoreError> {
        self.reading(table, |table| {
            let records = table.iter().map_err(StoreError::failed)?;
            let mut last = None;
            let mut made = |(key, record): (AccessGuard<'_, Key>, AccessGuard<'_, &[u8]>)| {
                // The pages of a damaged file may form a cycle, and the iteration would not end.
                if last.replace(key.value()).is_some_and(|last| last >= key.value()) {
                    return Err(StoreError::failed("the file is damaged: its records are in no order"));
                }
                Ok(made(id(key.value()), record.value()))
            };
            records.map(|record| record.map_err(StoreError::failed).and_then(&mut made)).collect()
        })
    }
}

impl SessionStore for FileStore {
    fn save(&self, session: &StoredSession) -> Result<(), StoreError> {
        let id = session.id();
        let save = Save { key: key(id), session: encode(id, session)?, summary: encode(id, &session.summary())? };
        let result = self.saves.write(save, |saves| self.write_all(saves));
        result.unwrap_or_else(|| Err(StoreError::failed("a save has got lost")))
    }

    fn load(&self, id: SessionId) -> Result<Option<StoredSession>, StoreError> {
        self.read(SESSIONS, id, |record| decode::<StoredSession>(id, record))?
            .map(|stored| owned(id, stored?))
            .transpose()
    }

    fn summary(&self, id: SessionId) -> Result<Option<StoredSummary>, StoreError> {
        self.read(SUMMARIES, id, |record| decode(id, record))?.transpose()
    }

    fn list(&self) -> Result<Vec<SessionId>, StoreError> {
        self.read_all(SESSIONS, |id, _| id)
    }

    fn summaries(&self) -> Result<Vec<Result<StoredSummary, StoreError>>, StoreError> {
        self.read_all(SUMMARIES, decode)
    }

    fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        let remove = |transaction: &WriteTransaction| {
            let mut sessions = transaction.open_table(SESSIONS).map_err(StoreError::failed)?;
            let mut summaries = transaction.open_table(SUMMARIES).map_err(StoreError::failed)?;
            let session = sessions.remove(key(id)).map_err(StoreError::failed)?.is_some();
            let summary = summaries.remove(key(id)).map_err(StoreError::failed)?.is_some();
            Ok(session || summary)
        };
        self.saves.alone(|| self.transaction(remove))
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        let database = std::mem::replace(&mut *self.database.write(), Err(closed()));
        // This may be any thread, and closing a damaged database may panic.
        contain_and_log("the closing of a store", move || drop(database));
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").finish_non_exhaustive()
    }
}

fn opened(database: &Result<Database, StoreError>) -> Result<&Database, StoreError> {
    database.as_ref().map_err(StoreError::clone)
}

fn closed() -> StoreError {
    StoreError::failed("the store is closed")
}

fn key(id: SessionId) -> Key {
    id.as_uuid().into_bytes()
}

fn id(key: Key) -> SessionId {
    SessionId::from_uuid(uuid::Uuid::from_bytes(key))
}

/// Checks the id in a record. A valid record under another session's key is damage too.
fn owned(id: SessionId, stored: StoredSession) -> Result<StoredSession, StoreError> {
    if stored.id() == id {
        Ok(stored)
    } else {
        Err(StoreError::Corrupt { id, reason: format!("it is that of session {}", stored.id()) })
    }
}

/// Contains a panic of redb, which a damaged file may cause, and returns it as an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    contain(work).unwrap_or_else(|message| Err(StoreError::failed(Panicked { of: "the database", message })))
}
