//! A store in a file.

mod opening;

use std::fmt;
use std::path::{Path, PathBuf};

use redb::backends::InMemoryBackend;
use redb::{AccessGuard, Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::model::SessionId;
use crate::panics::{contain, contain_and_log, record};
use crate::sync::{AtomicBool, Ordering, RwLock};

use super::batches::Batches;
use super::error::{Loggable, Panicked, StoreError};
use super::record::{decode, encode, StoredSession, StoredSummary};
use super::SessionStore;

type Key = [u8; 16];
type Table = TableDefinition<'static, Key, &'static [u8]>;
type Records = ReadOnlyTable<Key, &'static [u8]>;

const SESSIONS: Table = Table::new("sessions");
/// The same sessions, each in a few bytes: for lists.
const SUMMARIES: Table = Table::new("summaries");

/// Keeps sessions in one file, with the embedded database `redb`.
///
/// A save is on the disk when it returns (`fsync`). A process that is killed at any moment, or a machine that loses its power,
/// leaves the file as it was after the last save that is complete; it is opened again like any other, though that may take
/// longer. Saves from several threads at once share one write to the disk.
///
/// The file belongs to one store at a time. A program that moves or deletes it meanwhile takes away what is saved. The file does
/// not shrink; what is deleted makes room for what comes. After a failure of the disk the next call opens the file again, at the
/// same path, and does not follow a link that stands there by then.
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
    /// Where it is; nowhere, if it is in memory.
    path: Option<PathBuf>,
    /// There until the store is dropped. A call that uses the database holds a read lock; the write lock is for opening the
    /// database again, and for closing it.
    database: RwLock<Option<Database>>,
    /// Something has failed. redb then refuses everything until the file is opened again, which the next call does.
    has_failed: AtomicBool,
    saves: Batches<Save, Result<(), StoreError>>,
}

struct Save {
    key: Key,
    session: Vec<u8>,
    summary: Vec<u8>,
}

impl FileStore {
    /// Opens the store in a file, and creates it where there is no file or an empty one.
    ///
    /// # The new file
    /// On Unix a new file has the mode `0600`, less what the umask takes away: its owner may read and write it, and other users
    /// may not. For other access rights, create an empty file with those rights first. The store then takes that file's
    /// place, with its permission bits and its group, and with its owner where the process may give files away. An access
    /// control list of the empty file is not taken over, and other hard links to it go on naming the empty file.
    ///
    /// The store is made in a file of its own, `.turnwise-` with a random part and `.unfinished`, in the same folder, and moved
    /// into place once it is complete. That file is made anew, so no file or link that stands in the folder is used for it. It
    /// never has more access rights than the store. A process that is killed meanwhile leaves that file behind; it disturbs no
    /// later call and can be deleted.
    ///
    /// The move replaces no file but the empty one. Of several processes that create a store at once, one has it, and the
    /// others get [`StoreError::InUse`], or open the same store once the first has closed it.
    ///
    /// A user who may rename files in the folder can replace the store: keep it in a folder that only its owner may write to.
    ///
    /// # Links
    /// A link to a file is followed once, here: the store is the file that it leads to. A link that leads nowhere is refused, and so
    /// is a link that takes the file's place later.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where another store has the file.
    ///
    /// [`StoreError::Failed`] where the file cannot be read and written; where it is neither empty nor a store; where
    /// a folder, a pipe, a device or a link that leads nowhere stands in its place; where its folder does not exist or takes no new
    /// files; where the path names no file, as an empty path does, or one that ends with `..` or a separator; and where the group
    /// of an empty file cannot be kept. What stands at the path is then left as it is.
    ///
    /// # Blocking
    /// For the disk. After a crash until the file has been looked through.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = opening::resolve(path.as_ref())?;
        let database = guarded(|| opening::open_or_create(&path))?;
        Self::with_database(database, Some(path))
    }

    /// A store in memory, for tests: the same in everything, but gone when it is dropped.
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
    /// [`StoreError::Failed`] where there is no memory.
    pub fn in_memory() -> Result<Self, StoreError> {
        let database = Database::builder().create_with_backend(InMemoryBackend::new());
        Self::with_database(database.map_err(StoreError::failed)?, None)
    }

    fn with_database(database: Database, path: Option<PathBuf>) -> Result<Self, StoreError> {
        let (database, has_failed) = (RwLock::new(Some(database)), AtomicBool::new(false));
        let store = Self { path, database, has_failed, saves: Batches::new() };
        // So that readers find both tables.
        store.transaction(|transaction| {
            transaction.open_table(SESSIONS).map_err(StoreError::failed)?;
            transaction.open_table(SUMMARIES).map_err(StoreError::failed)?;
            Ok(())
        })?;
        Ok(store)
    }

    /// All of it is done when this returns with `Ok`, and nothing of it otherwise.
    fn transaction<T>(&self, body: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.open_again_after_failure();
        let database = self.database.read();
        self.noting_failure(|| {
            let transaction = opened(&database)?.begin_write().map_err(StoreError::failed)?;
            let done = body(&transaction)?;
            transaction.commit().map_err(StoreError::failed)?;
            Ok(done)
        })
    }

    fn reading<T>(&self, table: Table, body: impl FnOnce(&Records) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.open_again_after_failure();
        let database = self.database.read();
        self.noting_failure(|| {
            let transaction = opened(&database)?.begin_read().map_err(StoreError::failed)?;
            body(&transaction.open_table(table).map_err(StoreError::failed)?)
        })
    }

    fn noting_failure<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let result = guarded(work);
        if matches!(result, Err(StoreError::Failed(_))) {
            // ORDERING: Relaxed. A call that sees it late fails once more; the database itself is behind its lock.
            self.has_failed.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Where that fails too, the call says so.
    fn open_again_after_failure(&self) {
        let Some(path) = self.path.as_ref().filter(|_| self.has_failed.load(Ordering::Relaxed)) else { return };
        let mut database = self.database.write();
        if self.has_failed.swap(false, Ordering::Relaxed) {
            let failed = database.take();
            // The database's own code; what it makes of a failed disk is reported by the call that met it.
            let _ = contain(move || drop(failed));
            match guarded(|| opening::reopen(path)) {
                Ok(opened) => *database = Some(opened),
                Err(error) => {
                    self.has_failed.store(true, Ordering::Relaxed);
                    // With no lock held: a logger may use the store.
                    drop(database);
                    record!(Error, "turnwise::store", "the store does not open again: {}", Loggable(&error));
                }
            }
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

    /// One save that cannot be written does not fail the others: they are tried again without it.
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

    /// All records, each made into something.
    fn read_all<T>(&self, table: Table, made: impl Fn(SessionId, &[u8]) -> T) -> Result<Vec<T>, StoreError> {
        self.reading(table, |table| {
            let records = table.iter().map_err(StoreError::failed)?;
            let mut last = None;
            let mut made = |(key, record): (AccessGuard<'_, Key>, AccessGuard<'_, &[u8]>)| {
                // In a damaged file pages may lead back to each other, and there would be no end.
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
        let database = self.database.write().take();
        // On whatever thread the last handle goes: after a damage, closing may panic too.
        contain_and_log("the closing of a store", move || drop(database));
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").finish_non_exhaustive()
    }
}

fn opened(database: &Option<Database>) -> Result<&Database, StoreError> {
    database.as_ref().ok_or_else(|| StoreError::failed("the store could not be opened again after a failure"))
}

fn key(id: SessionId) -> Key {
    id.as_uuid().into_bytes()
}

fn id(key: Key) -> SessionId {
    SessionId::from_uuid(uuid::Uuid::from_bytes(key))
}

/// A record that is sound in itself, but in another's place, is not what was once written there.
fn owned(id: SessionId, stored: StoredSession) -> Result<StoredSession, StoreError> {
    if stored.id() == id {
        Ok(stored)
    } else {
        Err(StoreError::Corrupt { id, reason: format!("it is that of session {}", stored.id()) })
    }
}

/// What a damaged file makes of the database's code is an error, and not the end of the thread that asked.
fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    contain(work).unwrap_or_else(|message| Err(StoreError::failed(Panicked { of: "the database", message })))
}
