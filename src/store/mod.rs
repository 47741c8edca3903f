//! Sessions that outlive the process. With the feature `store`.
//!
//! A [`PersistentSessionService`] is a service that also saves its sessions in a [`SessionStore`]. [`FileStore`] is
//! one: a file that no crash leaves half-written.
//!
//! - **A finished turn is on the disk before its result is returned.** A result that a caller has is never lost. A
//!   process that is killed at any moment loses at most the running turns.
//! - **A session that is not live is resumed on its next turn.** Its agent is built from the stored record, under the
//!   same id, and the session takes capacity from then on. [`unload`](PersistentSessionService::unload) frees thread
//!   and capacity, and leaves the session for later.
//! - **A kept turn costs what it adds.** The store is told which messages a turn has added. [`FileStore`] writes these
//!   alone, however long the history is.
//! - **Several services may share one store.** Each save names the [`Revision`] that it replaces. A service whose record
//!   was changed by another one gets a [`StoreError::Conflict`], ends its session unsaved, and loads the record for the
//!   session's next turn.
//! - **An archived session stays readable.** [`read`](crate::SessionService::read) and
//!   [`export_session`](crate::SessionService::export_session) answer from the store.
//! - **A damaged record affects one session only.** Calls about that session fail with a [`StoreError`]. Damage to the
//!   structure of the file is for redb to detect. It checks after a crash, not at every read. Such damage may fail the
//!   calls about every session, or end the process.
//!
//! ```
//! # let folder = std::env::temp_dir().join(format!("turnwise-doc-{}", turnwise::SessionId::new()));
//! # std::fs::create_dir(&folder).unwrap();
//! use std::time::Duration;
//! use turnwise::store::{FileStore, PersistentSessionService};
//! use turnwise::{agent_fn, CreateSessionRequest, SessionService, StartTurnRequest};
//!
//! let path = folder.join("sessions.redb");
//! let agent = || agent_fn(|prompt, turn| Ok(turn.finish(prompt.to_uppercase())));
//!
//! let service = PersistentSessionService::new(agent(), 8, FileStore::open(&path)?);
//! let first = service.create_session(CreateSessionRequest::new("hello"))?;
//! service.shutdown(Duration::from_secs(5));
//! drop(service); // drops the store too, so that the file is free
//!
//! let service = PersistentSessionService::new(agent(), 8, FileStore::open(&path)?);
//! let second = service.start_turn(first.session_id, StartTurnRequest::new("again"))?;
//! assert_eq!(second.text, "AGAIN");
//! assert_eq!(service.export_session(first.session_id)?.messages().len(), 4);
//! # drop(service);
//! # std::fs::remove_dir_all(folder).unwrap();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod agent;
pub(crate) mod batches;
mod calls;
mod config;
mod error;
mod file;
mod kept;
mod launch;
mod record;
mod room;
mod save;
mod service;

pub use config::PersistentConfig;
pub use error::StoreError;
pub use file::FileStore;
pub use record::{StoredNumbers, StoredSession, StoredSummary};
pub use save::{Change, Revision, Save, StoredHeader, TurnEnd, TurnOutcome};
pub use service::PersistentSessionService;

use crate::model::SessionId;
use crate::sync::Arc;

/// A store of sessions.
///
/// Calls may come from any thread and concurrently, also about one session if several services share the store. A save is
/// a compare-and-set of the record's [`Revision`]: the store must compare and write in one step. A read (`load`,
/// `summary`, lists) may come during a save or a delete, and must return the state before or after it. Calls may block
/// for as long as the disk takes. They must not call the service that they serve, which may wait for them.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use turnwise::store::{PersistentSessionService, Revision, Save, SessionStore, StoreError, StoredSession};
/// use turnwise::{agent_fn, CreateSessionRequest, SessionId, SessionService};
///
/// /// Keeps sessions for the life of the process.
/// #[derive(Default)]
/// struct Memory(Mutex<HashMap<SessionId, (StoredSession, Revision)>>);
///
/// impl SessionStore for Memory {
///     fn save(&self, save: &Save<'_>) -> Result<(), StoreError> {
///         let mut records = self.0.lock().unwrap();
///         let stored = records.get(&save.id()).cloned();
///         if save.check(stored.as_ref().map(|(_, revision)| *revision))? {
///             let session = save.applied_to(stored.map(|(session, _)| session))?;
///             records.insert(save.id(), (session, save.next));
///         }
///         Ok(())
///     }
///
///     fn load(&self, id: SessionId) -> Result<Option<(StoredSession, Revision)>, StoreError> {
///         Ok(self.0.lock().unwrap().get(&id).cloned())
///     }
///
///     fn list(&self) -> Result<Vec<SessionId>, StoreError> {
///         Ok(self.0.lock().unwrap().keys().copied().collect())
///     }
///
///     fn delete(&self, id: SessionId, seen: Option<Revision>) -> Result<bool, StoreError> {
///         let mut records = self.0.lock().unwrap();
///         match (records.get(&id), seen) {
///             (Some((_, revision)), Some(seen)) if *revision != seen => Err(StoreError::Conflict { id }),
///             _ => Ok(records.remove(&id).is_some()),
///         }
///     }
/// }
///
/// let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
/// let service = PersistentSessionService::new(agent, 8, Memory::default());
/// service.create_session(CreateSessionRequest::new("hello"))?;
/// # Ok::<(), turnwise::SessionError>(())
/// ```
pub trait SessionStore: Send + Sync + 'static {
    /// Saves a session, if the record has the revision that the writer has seen. [`Save`] describes the parts and the
    /// rules, and [`Save::check`] applies them. After `Ok` the record survives a crash.
    ///
    /// ```
    /// # use turnwise::store::{Change, FileStore, Save, SessionStore, StoredSession};
    /// # use turnwise::{Message, Session};
    /// # let store = FileStore::in_memory()?;
    /// let mut session = StoredSession::new(Session::new());
    /// session.history.push(Message::user("hello"));
    /// let header = session.header();
    /// let save = Save::new(&header, Change::Rewritten(&session.history), None);
    /// store.save(&save)?;
    /// assert_eq!(store.load(session.id())?, Some((session.clone(), save.next)));
    /// # Ok::<(), turnwise::store::StoreError>(())
    /// ```
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the record has another revision; otherwise usually [`StoreError::Failed`]. The record
    /// is unchanged. After `Failed` the writer does not know whether the record was written, and repeats the same save
    /// before its next one.
    fn save(&self, save: &Save<'_>) -> Result<(), StoreError>;

    /// Loads a session and the revision of its record; `None` if the store has no record of it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Newer`], for this session only; [`StoreError::Failed`].
    fn load(&self, id: SessionId) -> Result<Option<(StoredSession, Revision)>, StoreError>;

    /// Lists all stored sessions, in any order, including those that cannot be loaded.
    ///
    /// ```
    /// # use turnwise::store::{Change, FileStore, Save, SessionStore, StoredSession};
    /// # use turnwise::Session;
    /// # let store = FileStore::in_memory()?;
    /// # let session = StoredSession::new(Session::new());
    /// store.save(&Save::new(&session.header(), Change::Rewritten(&session.history), None))?;
    /// assert_eq!(store.list()?, [session.id()]);
    /// # Ok::<(), turnwise::store::StoreError>(())
    /// ```
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    fn list(&self) -> Result<Vec<SessionId>, StoreError>;

    /// Deletes a session, also one that cannot be loaded. Returns whether the store had a record of it. With `seen` it
    /// deletes that revision only, with `None` any.
    ///
    /// ```
    /// # use turnwise::store::{Change, FileStore, Revision, Save, SessionStore, StoredSession};
    /// # use turnwise::Session;
    /// # let store = FileStore::in_memory()?;
    /// # let session = StoredSession::new(Session::new());
    /// let (id, header) = (session.id(), session.header());
    /// let save = Save::new(&header, Change::Rewritten(&session.history), None);
    /// store.save(&save)?;
    /// assert_eq!(store.delete(id, Some(Revision::new())).unwrap_err().code(), "STORE_CONFLICT");
    /// assert!(store.delete(id, Some(save.next))?);
    /// assert!(!store.delete(id, None)?);
    /// # Ok::<(), turnwise::store::StoreError>(())
    /// ```
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the record has another revision than `seen`; [`StoreError::Failed`].
    fn delete(&self, id: SessionId, seen: Option<Revision>) -> Result<bool, StoreError>;

    /// Loads the summary of a session, for lists. Implement it if the store can read a summary without the whole
    /// history.
    ///
    /// ```
    /// # use turnwise::store::{Change, FileStore, Save, SessionStore, StoredSession};
    /// # use turnwise::Session;
    /// # let store = FileStore::in_memory()?;
    /// # let session = StoredSession::new(Session::new());
    /// store.save(&Save::new(&session.header(), Change::Rewritten(&session.history), None))?;
    /// assert_eq!(store.summary(session.id())?, Some(session.summary()));
    /// # Ok::<(), turnwise::store::StoreError>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`load`](Self::load).
    fn summary(&self, id: SessionId) -> Result<Option<StoredSummary>, StoreError> {
        Ok(self.load(id)?.map(|(stored, _)| stored.summary()))
    }

    /// Loads the summaries of all sessions, in any order, with an error in place of each unreadable one. Implement it
    /// if the store can do so with fewer than one read per session.
    ///
    /// # Errors
    /// [`StoreError::Failed`] if there is no list at all.
    fn summaries(&self) -> Result<Vec<Result<StoredSummary, StoreError>>, StoreError> {
        let ids = self.list()?;
        Ok(ids.into_iter().filter_map(|id| self.summary(id).transpose()).collect())
    }
}

/// A shared store: for a host that also reads the records or saves copies, and for several services. Each service learns
/// of the other's saves by [`StoreError::Conflict`].
impl<S: SessionStore + ?Sized> SessionStore for Arc<S> {
    fn save(&self, save: &Save<'_>) -> Result<(), StoreError> {
        (**self).save(save)
    }

    fn load(&self, id: SessionId) -> Result<Option<(StoredSession, Revision)>, StoreError> {
        (**self).load(id)
    }

    fn list(&self) -> Result<Vec<SessionId>, StoreError> {
        (**self).list()
    }

    fn delete(&self, id: SessionId, seen: Option<Revision>) -> Result<bool, StoreError> {
        (**self).delete(id, seen)
    }

    fn summary(&self, id: SessionId) -> Result<Option<StoredSummary>, StoreError> {
        (**self).summary(id)
    }

    fn summaries(&self) -> Result<Vec<Result<StoredSummary, StoreError>>, StoreError> {
        (**self).summaries()
    }
}
