//! A store in a file.

mod encoding;
mod opening;
mod tables;

use std::fmt;
use std::path::{Path, PathBuf};

use redb::backends::InMemoryBackend;
use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};

use crate::model::SessionId;
use crate::panics::{contain, contain_and_log};
use crate::sync::{AtomicBool, Ordering, RwLock};

use super::batches::Batches;
use super::error::{Panicked, StoreError};
use super::record::{StoredSession, StoredSummary};
use super::save::{Revision, Save};
use super::SessionStore;

use tables::{EncodedSave, Tables};

/// Stores sessions in one file, with the embedded database `redb`.
///
/// A save writes the messages that it adds, not the whole history, so a turn of a long session costs as much as one of a
/// short session. It is on the disk when it returns (`fsync`). After a kill of the process or a loss of power the file has the
/// state of the last complete save. It is opened again like any other, though that may take longer. Saves from several
/// threads at once share one write to the disk.
///
/// The file belongs to one store at a time. If a program moves or deletes the file meanwhile, later saves are lost. The
/// file does not shrink; the space of deleted records is reused. After a failure of the disk the next call reopens the
/// file, at the same path. It does not follow a link that is there by then.
///
/// ```
/// # let folder = tempfile();
/// use turnwise::store::{Change, FileStore, Save, SessionStore, StoredSession};
/// use turnwise::{Message, Session};
///
/// let path = folder.join("sessions.redb");
/// let mut history = Session::new();
/// history.push(Message::user("hello"));
///
/// let store = FileStore::open(&path)?;
/// let header = StoredSession::new(history.clone()).header();
/// store.save(&Save::new(&header, Change::Rewritten(&history), None))?;
/// drop(store);
///
/// let store = FileStore::open(&path)?;
/// let (stored, revision) = store.load(history.id())?.unwrap();
/// assert_eq!(stored.history, history);
/// assert!(store.delete(history.id(), Some(revision))?);
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
    saves: Batches<EncodedSave, Result<(), StoreError>>,
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
    /// [`StoreError::InUse`] if another store has the file. [`StoreError::NewerFile`] if a newer version of this crate
    /// has written it. Records of an older version can be read, and the next save of each writes the current one.
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
        store.transaction(|transaction| match tables::prepare(transaction)? {
            None => Ok(()),
            Some((version, supported)) => Err(StoreError::NewerFile { version, supported }),
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

    fn reading<T>(&self, body: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.reopen_after_failure();
        let database = self.database.read();
        self.recording_failure(|| body(&opened(&database)?.begin_read().map_err(StoreError::failed)?))
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

    /// Writes the saves in one transaction. Each gets a result of its own, and a conflict of one does not concern the
    /// others.
    fn write(&self, saves: &[EncodedSave]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        self.transaction(|transaction| {
            let mut tables = Tables::open(transaction)?;
            saves.iter().map(|save| tables.save(save)).collect()
        })
    }

    /// Writes the saves in one transaction. If it fails, each save is written alone, so that one bad save does not fail
    /// the others.
    fn write_all(&self, saves: &[EncodedSave]) -> Vec<Result<(), StoreError>> {
        match self.write(saves) {
            Ok(results) => results,
            Err(error) if saves.len() == 1 => vec![Err(error)],
            Err(_) => saves.chunks(1).map(|save| self.write(save)?.remove(0)).collect(),
        }
    }
}

impl SessionStore for FileStore {
    fn save(&self, save: &Save<'_>) -> Result<(), StoreError> {
        let result = self.saves.write(EncodedSave::new(save)?, |saves| self.write_all(saves));
        result.unwrap_or_else(|| Err(StoreError::failed("a save has got lost")))
    }

    fn load(&self, id: SessionId) -> Result<Option<(StoredSession, Revision)>, StoreError> {
        self.reading(|transaction| tables::load(transaction, id))?.transpose()
    }

    fn summary(&self, id: SessionId) -> Result<Option<StoredSummary>, StoreError> {
        self.reading(|transaction| tables::summary(transaction, id))?.transpose()
    }

    fn list(&self) -> Result<Vec<SessionId>, StoreError> {
        self.reading(tables::list)
    }

    fn summaries(&self) -> Result<Vec<Result<StoredSummary, StoreError>>, StoreError> {
        self.reading(tables::summaries)
    }

    fn delete(&self, id: SessionId, seen: Option<Revision>) -> Result<bool, StoreError> {
        self.saves.alone(|| self.transaction(|transaction| Tables::open(transaction)?.delete(id, seen)))?
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

/// Contains a panic of redb, which a damaged file may cause, and returns it as an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    contain(work).unwrap_or_else(|message| Err(StoreError::failed(Panicked { of: "the database", message })))
}
