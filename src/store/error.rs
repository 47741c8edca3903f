//! Why a session could not be kept, or not be found again.

use std::error::Error;
use std::path::PathBuf;

use crate::error::{AgentError, SessionError};
use crate::model::SessionId;
use crate::sync::Arc;

/// What a store says where it fails.
///
/// A call of a service carries it as the source of [`SessionError::Store`]. A turn that went well and could not be kept fails
/// with it too, as an [`AgentError::Other`]: see [`StoreError::of`].
///
/// ```
/// use turnwise::store::{FileStore, StoreError};
///
/// # let folder = std::env::temp_dir().join(format!("turnwise-doc-{}", turnwise::SessionId::new()));
/// # std::fs::create_dir(&folder)?;
/// let path = folder.join("sessions.redb");
/// let store = FileStore::open(&path)?;
/// assert!(matches!(FileStore::open(&path), Err(StoreError::InUse { .. })));
/// # drop(store);
/// # std::fs::remove_dir_all(folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A record is not what was once written. The others can be used; this one can be [deleted](super::SessionStore::delete).
    #[error("the record of session {id} is damaged: {reason}")]
    Corrupt {
        /// Whose record.
        id: SessionId,
        /// What is wrong with it.
        reason: String,
    },
    /// A record was written by a newer version of this crate. It is left as it is.
    #[error(
        "the record of session {id} is of version {version}, but only versions up to {supported} can be read here"
    )]
    Newer {
        /// Whose record.
        id: SessionId,
        /// The version that it was written in, of the record or of the history in it.
        version: u32,
        /// The newest that can be read here.
        supported: u32,
    },
    /// The file is in use, by another store in this process or in another one.
    #[error("the store {} is in use already", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// What the store stands on has failed: a disk, a file that is no store.
    #[error("the store failed: {0}")]
    Failed(#[source] Arc<dyn Error + Send + Sync>),
}

impl StoreError {
    /// Any error as a [`StoreError::Failed`]: for stores of one's own.
    pub fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(Arc::from(error.into()))
    }

    /// The store's part in a failed call or turn, if it has one.
    ///
    /// ```
    /// use turnwise::store::{PersistentSessionService, SessionStore, StoreError, StoredSession};
    /// use turnwise::{agent_fn, CreateSessionRequest, SessionId, SessionService};
    ///
    /// struct FullDisk;
    ///
    /// impl SessionStore for FullDisk {
    ///     fn save(&self, _: &StoredSession) -> Result<(), StoreError> {
    ///         Err(StoreError::failed("no space left"))
    ///     }
    ///     fn load(&self, _: SessionId) -> Result<Option<StoredSession>, StoreError> {
    ///         Ok(None)
    ///     }
    ///     fn list(&self) -> Result<Vec<SessionId>, StoreError> {
    ///         Ok(Vec::new())
    ///     }
    ///     fn delete(&self, _: SessionId) -> Result<bool, StoreError> {
    ///         Ok(false)
    ///     }
    /// }
    ///
    /// let service = PersistentSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1, FullDisk);
    /// let error = service.create_session(CreateSessionRequest::new("hello")).unwrap_err();
    /// assert_eq!(StoreError::of(&error).unwrap().to_string(), "the store failed: no space left");
    /// ```
    pub fn of(error: &SessionError) -> Option<&Self> {
        match error {
            SessionError::Store { source, .. } => source.downcast_ref(),
            error => match error.agent_error()? {
                AgentError::Other(source) => source.downcast_ref(),
                _ => None,
            },
        }
    }

    /// As the error of a call about this session.
    pub(super) fn about(self, id: SessionId) -> SessionError {
        SessionError::Store { id: Some(id), source: Arc::new(self) }
    }
}
