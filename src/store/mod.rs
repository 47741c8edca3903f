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
mod error;
mod file;
mod kept;
mod launch;
mod record;
mod service;

pub use error::StoreError;
pub use file::FileStore;
pub use record::{StoredNumbers, StoredSession, StoredSummary};
pub use service::PersistentSessionService;

use crate::model::SessionId;
use crate::sync::Arc;

/// A store of sessions.
///
/// Calls may come from any thread and concurrently, but the saves and deletes of one session come one at a time. A read
/// (`load`, `summary`, lists) may come during a save or a delete, and must return the state before or after it. Calls
/// may block for as long as the disk takes. They must not call the service that they serve, which may wait for them.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use turnwise::store::{PersistentSessionService, SessionStore, StoreError, StoredSession};
/// use turnwise::{agent_fn, CreateSessionRequest, SessionId, SessionService};
///
/// /// Keeps sessions for the life of the process.
/// #[derive(Default)]
/// struct Memory(Mutex<HashMap<SessionId, StoredSession>>);
///
/// impl SessionStore for Memory {
///     fn save(&self, session: &StoredSession) -> Result<(), StoreError> {
///         self.0.lock().unwrap().insert(session.id(), session.clone());
///         Ok(())
///     }
///
///     fn load(&self, id: SessionId) -> Result<Option<StoredSession>, StoreError> {
///         Ok(self.0.lock().unwrap().get(&id).cloned())
///     }
///
///     fn list(&self) -> Result<Vec<SessionId>, StoreError> {
///         Ok(self.0.lock().unwrap().keys().copied().collect())
///     }
///
///     fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
///         Ok(self.0.lock().unwrap().remove(&id).is_some())
///     }
/// }
///
/// let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
/// let service = PersistentSessionService::new(agent, 8, Memory::default());
/// service.create_session(CreateSessionRequest::new("hello"))?;
/// # Ok::<(), turnwise::SessionError>(())
/// ```
pub trait SessionStore: Send + Sync + 'static {
    /// Saves a session, in place of its last record. After `Ok` the record survives a crash.
    ///
    /// ```
    /// # use turnwise::store::{FileStore, SessionStore, StoredSession};
    /// # use turnwise::{Message, Session};
    /// # let store = FileStore::in_memory()?;
    /// # let mut session = StoredSession::new(Session::new());
    /// store.save(&session)?;
    /// session.history.push(Message::user("hello"));
    /// store.save(&session)?;
    /// assert_eq!(store.load(session.id())?, Some(session));
    /// # Ok::<(), turnwise::store::StoreError>(())
    /// ```
    ///
    /// # Errors
    /// Usually [`StoreError::Failed`]. The last record is unchanged.
    fn save(&self, session: &StoredSession) -> Result<(), StoreError>;

    /// Loads a session; `None` if the store has no record of it.
    ///
    /// ```
    /// # use turnwise::store::{FileStore, SessionStore, StoredSession};
    /// # use turnwise::Session;
    /// # let store = FileStore::in_memory()?;
    /// # let session = StoredSession::new(Session::new());
    /// assert_eq!(store.load(session.id())?, None);
    /// store.save(&session)?;
    /// assert_eq!(store.load(session.id())?, Some(session));
    /// # Ok::<(), turnwise::store::StoreError>(())
    /// ```
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Newer`], for this session only; [`StoreError::Failed`].
    fn load(&self, id: SessionId) -> Result<Option<StoredSession>, StoreError>;

    /// Lists all stored sessions, in any order, including those that cannot be loaded.
    ///
    /// ```
    /// # use turnwise::store::{FileStore, SessionStore, StoredSession};
    /// # use turnwise::Session;
    /// # let store = FileStore::in_memory()?;
    /// # let session = StoredSession::new(Session::new());
    /// store.save(&session)?;
    /// assert_eq!(store.list()?, [session.id()]);
    /// # Ok::<(), turnwise::store::StoreError>(())
    /// ```
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    fn list(&self) -> Result<Vec<SessionId>, StoreError>;

    /// Deletes a session, also one that cannot be loaded. Returns whether the store had a record of it.
    ///
    /// ```
    /// # use turnwise::store::{FileStore, SessionStore, StoredSession};
    /// # use turnwise::Session;
    /// # let store = FileStore::in_memory()?;
    /// # let session = StoredSession::new(Session::new());
    /// store.save(&session)?;
    /// assert!(store.delete(session.id())?);
    /// assert!(!store.delete(session.id())?);
    /// # Ok::<(), turnwise::store::StoreError>(())
    /// ```
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    fn delete(&self, id: SessionId) -> Result<bool, StoreError>;

    /// Loads the summary of a session, for lists. Implement it if the store can read a summary without the whole
    /// history.
    ///
    /// ```
    /// # use turnwise::store::{FileStore, SessionStore, StoredSession};
    /// # use turnwise::Session;
    /// # let store = FileStore::in_memory()?;
    /// # let session = StoredSession::new(Session::new());
    /// store.save(&session)?;
    /// assert_eq!(store.summary(session.id())?, Some(session.summary()));
    /// # Ok::<(), turnwise::store::StoreError>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`load`](Self::load).
    fn summary(&self, id: SessionId) -> Result<Option<StoredSummary>, StoreError> {
        Ok(self.load(id)?.map(|stored| stored.summary()))
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

/// A shared store, for a host that also reads the records or saves copies. A store must serve one
/// [`PersistentSessionService`] at a time. Two services would not see each other's saves, and the last save would win.
impl<S: SessionStore + ?Sized> SessionStore for Arc<S> {
    fn save(&self, session: &StoredSession) -> Result<(), StoreError> {
        (**self).save(session)
    }

    fn load(&self, id: SessionId) -> Result<Option<StoredSession>, StoreError> {
        (**self).load(id)
    }

    fn list(&self) -> Result<Vec<SessionId>, StoreError> {
        (**self).list()
    }

    fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        (**self).delete(id)
    }

    fn summary(&self, id: SessionId) -> Result<Option<StoredSummary>, StoreError> {
        (**self).summary(id)
    }

    fn summaries(&self) -> Result<Vec<Result<StoredSummary, StoreError>>, StoreError> {
        (**self).summaries()
    }
}
