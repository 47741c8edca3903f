//! Waits for sessions, and the calls that need them.
//!
//! The engine sends no message about the end of another client's turns. So a wait looks at the session again and again,
//! first after 5 milliseconds, then at most every 50. On a session thread each is a wait for the session, as that for a
//! turn: it is refused in a circle, it ends with the turn's cancellation, and it lends the running permit.

use std::time::Duration;

use uuid::Uuid;

use crate::cluster::engine::{unexpected, Call, Patience};
use crate::cluster::error::EngineError;
use crate::cluster::scripts;
use crate::cluster::wire::Reply;
use crate::error::SessionError;
use crate::model::{RequestId, Session, SessionId};
use crate::reentrancy::{self, Wait, WaitError};
use crate::service::ArchiveMode;
use crate::sync::{never, Arc};
use crate::time::clock::{Clock, Deadline, Stopwatch};

use super::core::{engine_failed, Core};
use super::reading::Look;

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// A wait with its end.
pub(super) struct Waiting {
    id: SessionId,
    since: Stopwatch,
    deadline: Deadline,
}

impl Waiting {
    /// Begins to wait for a session, at most for `timeout`; without end for `None`.
    pub(super) fn new(id: SessionId, timeout: Option<Duration>) -> Self {
        let since = Clock::System.stopwatch();
        let deadline = timeout.map_or_else(Deadline::never, |timeout| since.deadline(timeout));
        Self { id, since, deadline }
    }

    pub(super) fn error(&self, error: WaitError) -> SessionError {
        error.into_session_error(self.id, &self.since)
    }

    pub(super) fn deadline(&self) -> &Deadline {
        &self.deadline
    }
}

impl Core {
    /// Looks at something again until it is there.
    fn wait_until<T>(
        &self,
        waiting: &Waiting,
        mut look: impl FnMut() -> Result<Option<T>, SessionError>,
    ) -> Result<T, SessionError> {
        // Dropped behind the wait, since its drop may wait for a permit, which is no wait for the session.
        let mut permit = None;
        let _wait = Wait::on(self.key_of(waiting.id)).map_err(|error| waiting.error(error))?;
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if !waiting.deadline.leaves_more_than(Duration::ZERO) {
                return Err(waiting.error(WaitError::TimedOut));
            }
            permit = permit.or_else(|| reentrancy::lend_permit(&waiting.deadline));
            let next = Clock::System.deadline(pause);
            let next = if waiting.deadline.leaves_more_than(pause) { &next } else { &waiting.deadline };
            match reentrancy::receive(&never::<()>(), next) {
                Err(error @ (WaitError::Interrupted { .. } | WaitError::Reentrant { .. })) => {
                    return Err(waiting.error(error));
                }
                _ => pause = (pause * 2).min(MAX_PAUSE),
            }
        }
    }

    pub(super) fn wait_idle(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        self.wait_until(&Waiting::new(id, Some(timeout)), || match self.look_at(id)? {
            look if look.is_archived => Err(SessionError::Archived { id }),
            look if !look.flight.is_empty() => Ok(None),
            Look { fault: Some(message), .. } => Err(SessionError::Faulted { id, message }),
            _ => Ok(Some(())),
        })
    }

    /// Waits until the turn or the build that runs now has ended, and reads the history.
    pub(super) fn export(&self, id: SessionId, timeout: Option<Duration>) -> Result<Session, SessionError> {
        let Some(running) = self.look_at(id)?.flight.first().copied() else {
            return Ok(self.loaded(id)?.0.history);
        };
        self.wait_until(&Waiting::new(id, timeout), || match self.look_at(id)?.flight.first() {
            Some(first) if *first == running => Ok(None),
            _ => Ok(Some(self.loaded(id)?.0.history)),
        })
    }

    pub(super) fn archive(&self, id: SessionId, mode: ArchiveMode) -> Result<(), SessionError> {
        let mode = match mode {
            ArchiveMode::Drain => "drain",
            ArchiveMode::Interrupt => "interrupt",
        };
        let call = Call::new(&scripts::ARCHIVE).arg(id.to_string()).arg(Uuid::now_v7().to_string()).arg(mode);
        let answer = self.engine.write(call).map_err(|error| engine_failed(Some(id), error))?;
        match answer.words().as_deref() {
            Some([b"ok"]) => Ok(()),
            Some([b"missing"]) => Err(SessionError::NotFound { id }),
            Some([b"archived"]) => Err(SessionError::Archived { id }),
            _ => Err(engine_failed(Some(id), unexpected(&scripts::ARCHIVE))),
        }
    }

    pub(super) fn archive_wait(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        let waiting = Waiting::new(id, Some(timeout));
        // Before anything is archived.
        reentrancy::refuse_cycle(self.key_of(id)).map_err(|error| waiting.error(error))?;
        match self.archive(id, ArchiveMode::Drain) {
            Ok(()) | Err(SessionError::Archived { .. }) => {}
            Err(error) => return Err(error),
        }
        // A session that is deleted meanwhile has ended too.
        self.wait_until(&waiting, || Ok(self.look(id)?.is_none_or(|look| look.has_ended()).then_some(())))
    }

    pub(super) fn take_session(&self, id: SessionId, timeout: Duration) -> Result<Session, SessionError> {
        self.wait_until(&Waiting::new(id, Some(timeout)), || {
            let look = self.look_at(id)?;
            if look.is_archived {
                return Err(SessionError::Archived { id });
            } else if !look.flight.is_empty() {
                return Ok(None);
            }
            let (stored, revision) = self.loaded(id)?;
            let answer = self.take(id, &revision.to_string())?;
            match answer.words().as_deref() {
                Some([b"ok"]) => Ok(Some(stored.history)),
                Some([b"missing"]) => Err(SessionError::NotFound { id }),
                Some([b"archived"]) => Err(SessionError::Archived { id }),
                // A turn has begun, or has been saved, since the record was read.
                Some([b"busy", _] | [b"conflict"]) => Ok(None),
                _ => Err(engine_failed(Some(id), unexpected(&scripts::TAKE))),
            }
        })
    }

    /// Removes a session whose record has this revision. While the engine is away, the call is repeated: the record in
    /// hand is the only one if the session was removed. The last repeat may take one lease more.
    fn take(&self, id: SessionId, revision: &str) -> Result<Arc<Reply>, SessionError> {
        let request = RequestId::new();
        let patience = Patience::new(Patience::MOST);
        let mut has_failed = false;
        loop {
            let call = Call::new(&scripts::TAKE).arg(id.to_string()).arg(request.to_string()).arg(revision);
            match self.engine.write(call) {
                // Asked for before it came.
                Ok(answer) if answer.is_list_of("tombstone") => {
                    return Err(SessionError::OutcomeUnknown { id, request, turn: None });
                }
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_passing() && patience.leaves_more_than(Duration::ZERO) => has_failed = true,
                Err(EngineError::Replaced) => return Err(engine_failed(Some(id), EngineError::Replaced)),
                Err(error) if error.is_passing() || has_failed => {
                    return Err(SessionError::OutcomeUnknown { id, request, turn: None });
                }
                Err(error) => return Err(engine_failed(Some(id), error)),
            }
        }
    }

    pub(super) fn restart(self: &Arc<Self>, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        let waiting = Waiting::new(id, Some(timeout));
        // Before the build begins: a refused wait has no effect.
        let wait = Wait::on(self.key_of(id)).map_err(|error| waiting.error(error))?;
        let outcome = self.begin_restart(id)?.outcome;
        wait.wait_for(outcome.finished(), waiting.deadline()).map_err(|error| waiting.error(error))?;
        outcome.take().unwrap_or(Err(SessionError::NotFound { id })).map(drop)
    }
}
