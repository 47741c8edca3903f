//! The parts of this service that the persistent service uses one by one: ids, starts, waits, and the lives of
//! sessions.

use std::time::Duration;

use crate::agent::SessionAgentBuilder;
use crate::error::SessionError;
use crate::ids::numbers::{LastNumbers, NumberRecord};
use crate::model::{Session, SessionId};
use crate::permits::reservation::{Reservation, SharedReservation};
use crate::reentrancy::{self, Wait, WaitError};
use crate::service::{ArchiveMode, CreateSessionRequest, RefusedTurn, SessionSpec, StartTurnRequest};
use crate::session::command::{TakeCondition, Taken};
use crate::session::handle::SessionHandle;
use crate::session::unload::UnloadDecision;
use crate::status::gate::GateState;
use crate::sync::{Arc, Instant, Weak};
use crate::time::clock::{Clock, Deadline, Stopwatch};
use crate::turn::handle::TurnHandle;

use super::calls::{archive, archive_wait, wait_until_ended};
use super::launch::{identify, PreparedSession};
use super::service::EphemeralSessionService;
use super::settings::UnloadSettings;
use super::started::TurnWithWait;

/// What a look at all sessions has found.
pub(crate) struct Look {
    /// The sessions that could be unloaded, each with the end of its last use.
    pub(crate) unused: Vec<(Instant, SessionId)>,
    /// A session that is being unloaded.
    pub(crate) unloading: Option<Life>,
    /// All sessions, with their gates and whether they were unused. If two looks in a row find the same, there was an
    /// instant between them at which all sessions were as found: a gate never has the same value again after a turn.
    pub(crate) states: Vec<(SessionId, GateState, bool)>,
}

/// One life of a session. A later life under the same id is another one.
pub(crate) struct Life {
    handle: Arc<SessionHandle>,
    clock: Clock,
}

impl Life {
    /// Whether it counts its turns and events in this record.
    pub(crate) fn counts_in(&self, record: &Weak<dyn NumberRecord>) -> bool {
        self.handle.shared().numbers.are_in(record)
    }

    /// As `archive_with`.
    pub(crate) fn archive(&self, mode: ArchiveMode) -> Result<(), SessionError> {
        archive(&self.handle, mode)
    }

    /// Whether a turn is admitted, in an open session or in a closed one.
    pub(crate) fn is_running(&self) -> bool {
        self.handle.gate().state().is_running()
    }

    /// Whether callers can use the session.
    pub(crate) fn is_open(&self) -> bool {
        self.handle.is_open()
    }

    /// Whether the session was closed to be unloaded, and can be resumed after its end.
    pub(crate) fn is_unloading(&self) -> bool {
        self.handle.is_unloading()
    }

    pub(crate) fn id(&self) -> SessionId {
        self.handle.id()
    }

    /// The end of the last use, if the session could be unloaded now.
    pub(crate) fn unused_since(&self) -> Option<Instant> {
        self.handle.last_use().filter(|_| self.handle.is_unused())
    }

    /// The last numbers that the session has given out.
    pub(crate) fn last_numbers(&self) -> LastNumbers {
        let turn = self.handle.gate().state().turns();
        LastNumbers { turn, event: self.handle.bus().last_seq() }
    }

    /// Makes the session thread look whether a caller waits for capacity.
    pub(crate) fn wake(&self) {
        self.handle.wake();
    }

    /// Asks for the unloading of the session, and waits for the decision, which does not wait for a turn. `None` if the
    /// session has ended.
    pub(crate) fn unload(&self) -> Result<Option<UnloadDecision>, SessionError> {
        let waiting = self.clock.stopwatch();
        let failed = |error: WaitError| error.into_session_error(self.handle.id(), &waiting);
        let wait = Wait::on(self.handle.key()).map_err(failed)?;
        let Some(reply) = self.handle.request_unload() else { return Ok(Some(UnloadDecision::InUse)) };
        wait.receive(reply.decided().receiver(), &Deadline::never()).map_err(failed)?;
        Ok(reply.decision())
    }

    /// The committed history and its boundary, of an open session or a closed one.
    pub(crate) fn history_at(&self) -> (Session, u64) {
        self.handle.shared().history.get_with_boundary()
    }

    /// Waits until the thread of a closed session holds nothing of it.
    pub(crate) fn wait_until_ended(&self, waiting: &Stopwatch, timeout: Duration) -> Result<(), SessionError> {
        wait_until_ended(&self.handle, waiting, &waiting.deadline(timeout))
    }

    /// As `archive_wait`.
    pub(crate) fn archive_wait(&self, timeout: Duration) -> Result<(), SessionError> {
        archive_wait(&self.handle, &self.clock.stopwatch(), timeout)
    }
}

impl<B: SessionAgentBuilder> EphemeralSessionService<B> {
    /// Takes the reservation out of all clones of a specification, so that only this one has it. Every failure from
    /// here on gives it back.
    pub(crate) fn claim_reservation(&self, spec: &mut SessionSpec) -> Result<(), SessionError> {
        let claimed = self.inner.core.claim_reservation(spec)?;
        spec.reservation = claimed.map(|permit| SharedReservation::new(Reservation::new(permit)));
        Ok(())
    }

    /// As [`reserve`](Self::reserve). `in_queue` is called if it has to wait, once it has its place among the waiters.
    pub(crate) fn reserve_with(&self, timeout: Duration, in_queue: impl FnOnce()) -> Result<Reservation, SessionError> {
        self.inner.core.reserve(timeout, in_queue)
    }

    /// Sets the id of a session before it is registered.
    pub(crate) fn identify(&self, spec: &mut SessionSpec) -> SessionId {
        identify(spec, &self.inner.core.settings.ids)
    }

    pub(crate) fn stopwatch(&self) -> Stopwatch {
        self.inner.core.clock().stopwatch()
    }

    /// Fails if this thread's turn is cancelled.
    pub(crate) fn check_cancelled(&self, waiting: &Stopwatch) -> Result<(), SessionError> {
        match reentrancy::check() {
            Err(error @ WaitError::Interrupted { waiter, .. }) => Err(error.into_session_error(waiter, waiting)),
            _ => Ok(()),
        }
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.inner.core.registry.is_shut_down()
    }

    /// Refuses a wait for this thread's session, or for one that waits for it.
    pub(crate) fn refuse_circle(&self, id: SessionId) -> Result<(), SessionError> {
        self.inner.refuse_circle(id)
    }

    /// Starts a turn in a live session, or queues it.
    #[allow(clippy::result_large_err)] // The turn itself is larger.
    pub(crate) fn begin(&self, id: SessionId, request: StartTurnRequest) -> Result<TurnHandle, RefusedTurn> {
        self.inner.begin(id, request)
    }

    /// As [`begin`](Self::begin), for a thread that will wait for the turn.
    #[allow(clippy::result_large_err)] // The turn itself is larger.
    pub(crate) fn begin_with_wait(
        &self,
        id: SessionId,
        request: StartTurnRequest,
    ) -> Result<TurnWithWait, RefusedTurn> {
        self.inner.begin_with_wait(id, request)
    }

    /// Prepares a session with its first turn, for the caller to start.
    pub(crate) fn prepare_session(
        &self,
        request: CreateSessionRequest,
    ) -> Result<PreparedSession<B, TurnHandle>, SessionError> {
        self.inner.prepare_session(request)
    }

    /// Waits for the end of a closed session. Returns at once if the session does not exist, or is open.
    pub(crate) fn wait_until_ended(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        let core = &self.inner.core;
        let Some(handle) = core.registry.find(id).filter(|handle| !handle.is_open()) else { return Ok(()) };
        let waiting = core.clock().stopwatch();
        wait_until_ended(&handle, &waiting, &waiting.deadline(timeout))
    }

    /// The current life of the session with this id, open or closed.
    pub(crate) fn life(&self, id: SessionId) -> Option<Life> {
        let core = &self.inner.core;
        core.registry.find(id).map(|handle| Life { handle, clock: core.clock().clone() })
    }

    /// Looks at all sessions, one after the other.
    pub(crate) fn look(&self) -> Look {
        let core = &self.inner.core;
        let mut look = Look { unused: Vec::new(), unloading: None, states: Vec::new() };
        for handle in core.registry.all() {
            let (id, life) = (handle.id(), Life { handle, clock: core.clock().clone() });
            let unused_since = life.unused_since();
            look.states.push((id, life.handle.gate().state(), unused_since.is_some()));
            look.unused.extend(unused_since.map(|last_use| (last_use, id)));
            if life.is_unloading() {
                look.unloading = Some(life);
            }
        }
        look
    }

    /// When this service unloads its sessions.
    pub(crate) fn unload_settings(&self) -> UnloadSettings {
        self.inner.core.settings.unload
    }

    /// As `take_session`, on a condition.
    pub(crate) fn take_session_if(
        &self,
        id: SessionId,
        timeout: Duration,
        condition: TakeCondition,
    ) -> Result<Taken, SessionError> {
        self.inner.take(id, timeout, Some(condition))
    }
}
