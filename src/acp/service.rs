//! What a connection needs of a service beyond the common calls.

use std::time::Duration;

use crate::agent::SessionAgentBuilder;
use crate::ephemeral::EphemeralSessionService;
use crate::error::SessionError;
use crate::model::SessionId;
use crate::service::{ArchiveMode, ServiceControl, SessionService};
#[cfg(feature = "store")]
use crate::store::PersistentSessionService;

/// A service that [`serve`](super::serve) can connect to an editor.
///
/// Both services of the crate implement it. Only one that stores sessions can resume them in another process.
pub trait AcpService: ServiceControl + 'static {
    /// Makes a session live, if it is not.
    ///
    /// # Errors
    /// [`SessionError::NotFound`] or [`SessionError::Archived`] if there is no such open session. The errors of
    /// [`open_session`](SessionService::open_session), if its agent has to be built.
    ///
    /// # Blocking
    /// May wait for the disk, and for the build.
    fn resume_session(&self, id: SessionId) -> Result<(), SessionError>;

    /// Frees what a session that is not needed at present takes, and keeps its history. Never archives it.
    ///
    /// # Errors
    /// Those of the service, such as [`SessionError::Timeout`] if a turn has not ended in time.
    ///
    /// # Blocking
    /// Until no turn runs, at most for `timeout`.
    fn unload_session(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError>;

    /// Removes a session and its history.
    ///
    /// # Errors
    /// [`SessionError::NotFound`] if there is none; other errors of the service.
    ///
    /// # Blocking
    /// May wait for the disk, and for the end of the session, at most for `timeout`.
    fn delete_session(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError>;
}

/// A service in memory keeps a closed session live, because its history exists nowhere else.
impl<B: SessionAgentBuilder> AcpService for EphemeralSessionService<B> {
    fn resume_session(&self, id: SessionId) -> Result<(), SessionError> {
        self.read(id).map(drop)
    }

    fn unload_session(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        let _ = timeout;
        self.read(id).map(drop)
    }

    fn delete_session(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        self.archive_with(id, ArchiveMode::Interrupt)?;
        self.archive_wait(id, timeout)
    }
}

#[cfg(feature = "store")]
#[cfg_attr(docsrs, doc(cfg(feature = "store")))]
impl<B: SessionAgentBuilder> AcpService for PersistentSessionService<B> {
    fn resume_session(&self, id: SessionId) -> Result<(), SessionError> {
        self.resume(id)
    }

    fn unload_session(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        self.unload(id, timeout)
    }

    fn delete_session(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        let _ = timeout;
        self.delete(id)
    }
}
