//! Sessions that outlive the process. With the feature `store`.
//!
//! A [`PersistentSessionService`] is a service like any other, and keeps what its sessions come to in a [`SessionStore`]:
//! [`FileStore`] is one, in a file that no crash leaves half-written.
//!
//! - **A finished turn is on the disk before its result is returned.** Whoever has a result has it for good. Killed at any
//!   moment, a process loses at most the turns that were running.
//! - **A session that is not live is resumed on its next turn:** its agent is built from what is kept, under the same id, and
//!   counts against the capacity from then on. [`unload`](PersistentSessionService::unload) gives the thread back, and leaves
//!   the session for later.
//! - **An archived session stays readable.** [`read`](crate::SessionService::read) and
//!   [`export_session`](crate::SessionService::export_session) answer from the store.
//! - **A damaged record is one session's business.** It is a [`StoreError`] to whoever asks for that session. (Where a disk has
//!   damaged what holds the records together, that is redb's to find. It looks after a crash, not at every read: such a file may
//!   also be an error for everybody, or end the process.)
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
//! drop(service); // and with it the store, so that the file is free
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

/// Where sessions are kept.
///
/// Calls may come from any thread and at the same time, except that the saves and deletes of one session come one at a time. Whoever
/// only looks (`load`, `summary`, lists) may come in the middle of one, and is to get what was there before it or what is there after
/// it. Calls may block for as long as the disk takes. They must not call the service that they serve: that may wait for them.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use turnwise::store::{PersistentSessionService, SessionStore, StoreError, StoredSession};
/// use turnwise::{agent_fn, CreateSessionRequest, SessionId, SessionService};
///
/// /// Keeps sessions as long as the process lives.
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
    /// Keeps a session, in place of what was kept of it before. With `Ok` it is safe: it will be there after a crash.
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
    /// [`StoreError::Failed`], mostly. What was kept before is still there.
    fn save(&self, session: &StoredSession) -> Result<(), StoreError>;

    /// What is kept of a session; `None` where nothing is.
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
    /// [`StoreError::Corrupt`] and [`StoreError::Newer`], which are about this session alone; [`StoreError::Failed`].
    fn load(&self, id: SessionId) -> Result<Option<StoredSession>, StoreError>;

    /// All sessions that are kept, in any order; those included that cannot be loaded.
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

    /// Forgets a session, also one that cannot be loaded. Returns whether there was anything to forget.
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

    /// What lists show of a session. A store that finds that without loading all of the history says so here.
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
    /// Those of [`load`](Self::load).
    fn summary(&self, id: SessionId) -> Result<Option<StoredSummary>, StoreError> {
        Ok(self.load(id)?.map(|stored| stored.summary()))
    }

    /// What lists show of all sessions, in any order; an error in place of each that cannot be read. A store that finds that
    /// with less than a look at each says so here.
    ///
    /// # Errors
    /// [`StoreError::Failed`] where there is no list at all.
    fn summaries(&self) -> Result<Vec<Result<StoredSummary, StoreError>>, StoreError> {
        let ids = self.list()?;
        Ok(ids.into_iter().filter_map(|id| self.summary(id).transpose()).collect())
    }
}

/// A shared store is a store: for hosts that keep a hand on it, to look at what is kept or to save copies of it. A store serves one
/// [`PersistentSessionService`] at a time: of two, neither would know what the other has kept, and the last to save would win.
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
