//! The errors of stores.

use std::error::Error;
use std::fmt;
use std::io;
use std::iter::successors;
use std::path::PathBuf;

use crate::error::{AgentError, SessionError};
use crate::model::{Brief, SessionId};
use crate::panics::{contain, contain_and_log, PanicMessage};
use crate::sync::Arc;

/// An error of a store.
///
/// A call of a service returns it as the source of [`SessionError::Store`]. A turn that succeeded but could not be
/// saved fails with it too, as an [`AgentError::Other`]: see [`StoreError::of`].
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
#[derive(Clone)]
#[non_exhaustive]
pub enum StoreError {
    /// A record is damaged. Other records can be used; this one can be [deleted](super::SessionStore::delete).
    Corrupt {
        /// The session of the record.
        id: SessionId,
        /// What is wrong with the record.
        reason: String,
    },
    /// A record was written by a newer version of this crate. It stays as it is.
    Newer {
        /// The session of the record.
        id: SessionId,
        /// The version of the record, or of the history in it.
        version: u32,
        /// The newest version that this crate can read.
        supported: u32,
    },
    /// The file was written by a newer version of this crate. It stays as it is.
    NewerFile {
        /// The version of the file.
        version: u32,
        /// The newest version that this crate can use.
        supported: u32,
    },
    /// The file is in use by another store, in this process or in another one.
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A session was resumed, but its agent's history does not begin with the stored one. Its next turn would replace
    /// results that callers already have. The record stays as it is. The builder must begin with
    /// [`SessionSpec::history`](crate::SessionSpec::history). An agent that rewrites its history on purpose sets
    /// [`SessionSpec::rewrites_history`](crate::SessionSpec::rewrites_history).
    NotResumed {
        /// The session.
        id: SessionId,
        /// How many messages are stored.
        kept: usize,
        /// How many messages the agent's history has.
        has: usize,
    },
    /// Another writer has changed the record since this writer has read or saved it: another service on the same store, or
    /// a program. Nothing is saved. A service ends its session, which has become out of date, and the session's next
    /// turn loads the record. So the caller can repeat the turn.
    Conflict {
        /// The session of the record.
        id: SessionId,
    },
    /// The store failed: the disk, for example, or a file that is no store.
    Failed(Arc<dyn Error + Send + Sync>),
}

impl StoreError {
    /// Converts any error to a [`StoreError::Failed`], for other implementations of a store.
    pub fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(Arc::from(error.into()))
    }

    /// The store's error in a failed call or turn, if there is one.
    ///
    /// ```
    /// use turnwise::store::{PersistentSessionService, Revision, Save, SessionStore, StoreError, StoredSession};
    /// use turnwise::{agent_fn, CreateSessionRequest, SessionId, SessionService};
    ///
    /// struct FullDisk;
    ///
    /// impl SessionStore for FullDisk {
    ///     fn save(&self, _: &Save<'_>) -> Result<(), StoreError> {
    ///         Err(StoreError::failed("no space left"))
    ///     }
    ///     fn load(&self, _: SessionId) -> Result<Option<(StoredSession, Revision)>, StoreError> {
    ///         Ok(None)
    ///     }
    ///     fn list(&self) -> Result<Vec<SessionId>, StoreError> {
    ///         Ok(Vec::new())
    ///     }
    ///     fn delete(&self, _: SessionId, _: Option<Revision>) -> Result<bool, StoreError> {
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

    /// A name for the kind of error that does not change between releases.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Corrupt { .. } => "STORE_RECORD_CORRUPT",
            Self::Newer { .. } => "STORE_RECORD_NEWER",
            Self::NewerFile { .. } => "STORE_FILE_NEWER",
            Self::InUse { .. } => "STORE_IN_USE",
            Self::NotResumed { .. } => "STORE_NOT_RESUMED",
            Self::Conflict { .. } => "STORE_CONFLICT",
            Self::Failed(_) => "STORE_FAILED",
        }
    }

    /// Converts it to the error of a call about this session.
    pub(crate) fn about(self, id: SessionId) -> SessionError {
        SessionError::Store { id: Some(id), source: Arc::new(self) }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt { id, reason } => write!(f, "the record of session {id} is damaged: {reason}"),
            Self::Newer { id, version, supported } => write!(
                f,
                "the record of session {id} is of version {version}, but only versions up to {supported} can be read here"
            ),
            Self::NewerFile { version, supported } => write!(
                f,
                "the store's file is of version {version}, but only versions up to {supported} can be used here"
            ),
            Self::InUse { path } => write!(f, "the store {} is in use already", path.display()),
            Self::NotResumed { id, kept, has } => write!(
                f,
                "the agent of session {id} did not resume: {kept} messages are kept, and its history of {has} messages does \
                 not begin with them"
            ),
            Self::Conflict { id } => write!(f, "another writer has changed the record of session {id}"),
            Self::Failed(source) => write!(f, "the store failed: {source}"),
        }
    }
}

/// Omits the text of a store, which may quote a conversation. `Display` has it, for the caller.
impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt { id, reason } => {
                f.debug_struct("Corrupt").field("id", id).field("reason", &Brief(reason)).finish()
            }
            Self::Newer { id, version, supported } => {
                let mut out = f.debug_struct("Newer");
                out.field("id", id).field("version", version).field("supported", supported).finish()
            }
            Self::NewerFile { version, supported } => {
                f.debug_struct("NewerFile").field("version", version).field("supported", supported).finish()
            }
            Self::InUse { path } => f.debug_struct("InUse").field("path", path).finish(),
            Self::NotResumed { id, kept, has } => {
                f.debug_struct("NotResumed").field("id", id).field("kept", kept).field("has", has).finish()
            }
            Self::Conflict { id } => f.debug_struct("Conflict").field("id", id).finish(),
            Self::Failed(_) => write!(f, "Failed({})", Loggable(self)),
        }
    }
}

/// The sources that `Display` does not already contain.
impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(source) => source.source(),
            _ => None,
        }
    }
}

/// A panic of user code, reported as an error. `Display` has its text, for the caller; `Debug` has not.
#[derive(thiserror::Error)]
#[error("{of} panicked: {message}")]
pub(super) struct Panicked {
    /// The code that panicked.
    pub(super) of: &'static str,
    pub(super) message: PanicMessage,
}

impl fmt::Debug for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Panicked").field("of", &self.of).field("message", &Brief(&self.message)).finish()
    }
}

/// The part of a store's error that may be logged: its code and, for a failure of the system, the kind of that. A
/// store's own text may quote a conversation, so it is not logged. Its `Display` is also foreign code, which may panic.
pub(super) struct Loggable<'a>(pub(super) &'a StoreError);

impl fmt::Display for Loggable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.code())?;
        match self.0 {
            StoreError::Failed(source) => match contain(|| io_error_kind(&**source)).ok().flatten() {
                Some(kind) => write!(f, " ({kind})"),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// The kind of the first system error in a chain of sources.
fn io_error_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    // The chain of a foreign error may be endless.
    const MAX_SOURCES: usize = 16;
    let chain = successors(Some(error), |&error| error.source()).take(MAX_SOURCES);
    chain.filter_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind).next()
}

/// Drops an error of a store that no caller gets. A panic of its drop is contained.
pub(super) fn discard(error: StoreError) {
    contain_and_log("the drop of a store's error", move || drop(error));
}
