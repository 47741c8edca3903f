//! The start of stored sessions: first the record, then the session in the ephemeral service.
//!
//! A start is a value, as in the ephemeral service: the caller finishes it or drops it, and a drop gives everything
//! back.

use crate::agent::SessionAgentBuilder;
use crate::ephemeral::launch::PreparedSession;
use crate::ephemeral::started::TurnWithWait;
use crate::ephemeral::EphemeralSessionService;
use crate::error::SessionError;
use crate::model::SessionId;
use crate::panics::contain_and_log;
use crate::permits::reservation::SharedReservation;
use crate::service::{CreateSessionRequest, RefusedTurn, SessionSpec, StartTurnRequest, WhenBusy};
use crate::sync::{yield_now, Arc};
use crate::turn::handle::TurnHandle;

use super::agent::{Launch, SavingBuilder};
use super::kept::{LaunchClaim, LaunchInProgress};
use super::record::StoredSession;
use super::room::Resume;
use super::service::Inner;

/// The specification that starts a session, and the launch that ends after the start.
pub(super) type Launched<'a, B> = (SessionSpec, PendingLaunch<'a, B>);

type Live<B> = EphemeralSessionService<SavingBuilder<B>>;

/// A launch whose session the ephemeral service will register. [`finish`](Self::finish) comes after the start.
pub(super) struct PendingLaunch<'a, B: SessionAgentBuilder> {
    live: &'a Live<B>,
    id: SessionId,
    launch: LaunchInProgress,
    /// Dropped last: other callers of the session look again once it is registered.
    resume: Option<Resume<'a>>,
}

impl<'a, B: SessionAgentBuilder> PendingLaunch<'a, B> {
    /// Keeps the right to resume the session until the launch has ended.
    pub(super) fn keep(&mut self, resume: Resume<'a>) {
        self.resume = Some(resume);
    }

    /// Ends the launch, after the session has started or failed to start.
    ///
    /// A caller that archived or deleted the session before its registration did not find it in the ephemeral service.
    /// So the launch archives it.
    pub(super) fn finish(self) {
        let Self { live, id, launch, resume } = self;
        if launch.is_closed() {
            if let Some(life) = live.life(id).filter(|life| life.counts_in(&launch.record)) {
                let _ = life.archive(launch.archive_mode());
            }
        }
        launch.end();
        drop(resume);
    }
}

/// A session with its first turn, ready to start.
pub(super) struct FirstTurn<'a, B: SessionAgentBuilder> {
    session: PreparedSession<SavingBuilder<B>, TurnHandle>,
    launch: PendingLaunch<'a, B>,
}

impl<B: SessionAgentBuilder> FirstTurn<'_, B> {
    pub(super) fn start(self) -> Result<TurnHandle, SessionError> {
        let started = self.session.start();
        self.launch.finish();
        started
    }

    pub(super) fn start_with_wait(self) -> Result<TurnWithWait, SessionError> {
        let started = self.session.start_with_wait();
        self.launch.finish();
        started
    }
}

impl<B: SessionAgentBuilder> Inner<B> {
    /// Reserves the id of a new session, and begins its record. The returned specification starts it.
    pub(super) fn launch_new(&self, mut spec: SessionSpec) -> Result<Launched<'_, B>, SessionError> {
        match self.try_launch_new(&mut spec) {
            Ok(launch) => Ok((spec, launch)),
            Err(error) => {
                // A host's value in it may panic when it is dropped.
                contain_and_log("the drop of a session's specification", move || drop(spec));
                Err(error)
            }
        }
    }

    fn try_launch_new(&self, spec: &mut SessionSpec) -> Result<PendingLaunch<'_, B>, SessionError> {
        self.live.claim_reservation(spec)?;
        let id = self.live.identify(spec);
        if spec.reservation.is_none() {
            spec.reservation = self.make_room(|| self.check_free(id))?.map(SharedReservation::new);
        }
        if self.live.is_shut_down() {
            return Err(SessionError::ShuttingDown);
        }
        let claim = self.table.reserve_launch(id)?.ok_or(SessionError::AlreadyExists { id })?;
        // Checked for generated ids too: a seed may generate an id again.
        if self.table.summary(id)?.is_some() {
            return Err(SessionError::AlreadyExists { id });
        }
        claim.begin(StoredSession::of_new(spec, id));
        Ok(self.leave_lease(id, claim, spec))
    }

    /// Checks that no session has the id, before another session is unloaded for it.
    fn check_free(&self, id: SessionId) -> Result<(), SessionError> {
        if self.table.find(id).is_some() || self.table.summary(id)?.is_some() {
            return Err(SessionError::AlreadyExists { id });
        }
        Ok(())
    }

    /// Reserves the record of a stored session. The returned specification resumes it.
    pub(super) fn launch_stored(&self, id: SessionId) -> Result<Launched<'_, B>, SessionError> {
        let claim = self.table.reserve_launch(id)?.ok_or_else(|| self.table.refusal(id))?;
        let mut spec = claim.resume()?.spec();
        let launch = self.leave_lease(id, claim, &mut spec);
        Ok((spec, launch))
    }

    /// Passes the lease to the session, inside the specification.
    fn leave_lease(&self, id: SessionId, claim: LaunchClaim, spec: &mut SessionSpec) -> PendingLaunch<'_, B> {
        let (lease, launch) = claim.leave_to(spec);
        spec.extension = Some(Arc::new(Launch { lease, extension: spec.extension.take() }));
        PendingLaunch { live: &self.live, id, launch, resume: None }
    }

    /// Prepares a new session with its first turn.
    pub(super) fn prepare_new(&self, request: CreateSessionRequest) -> Result<FirstTurn<'_, B>, SessionError> {
        let CreateSessionRequest { session, turn } = request;
        let (session, launch) = self.launch_new(session)?;
        let session = self.live.prepare_session(CreateSessionRequest { session, turn })?;
        Ok(FirstTurn { session, launch })
    }

    /// Starts a turn: in the live session if there is one, otherwise as the first turn of a stored session.
    #[allow(clippy::result_large_err)] // The turn itself is larger.
    pub(super) fn begin(&self, id: SessionId, request: StartTurnRequest) -> Result<TurnHandle, RefusedTurn> {
        self.begin_live_or_stored(id, request, Live::begin, FirstTurn::start)
    }

    /// As [`begin`](Self::begin). If the turn begins a life, `registered` is called before the life starts: what subscribes
    /// then gets its first event.
    #[cfg(feature = "redis")]
    #[allow(clippy::result_large_err)] // The turn itself is larger.
    pub(super) fn begin_and(
        &self,
        id: SessionId,
        request: StartTurnRequest,
        registered: impl FnOnce(),
    ) -> Result<TurnHandle, RefusedTurn> {
        let start = |first: FirstTurn<'_, B>| {
            registered();
            first.start()
        };
        self.begin_live_or_stored(id, request, Live::begin, start)
    }

    /// As [`begin`](Self::begin), for a thread that will wait for the turn.
    #[allow(clippy::result_large_err)] // The turn itself is larger.
    fn begin_with_wait(&self, id: SessionId, request: StartTurnRequest) -> Result<TurnWithWait, RefusedTurn> {
        self.begin_live_or_stored(id, request, Live::begin_with_wait, FirstTurn::start_with_wait)
    }

    #[allow(clippy::result_large_err)] // The turn itself is larger.
    fn begin_live_or_stored<'a, T>(
        &'a self,
        id: SessionId,
        mut request: StartTurnRequest,
        begin: impl Fn(&Live<B>, SessionId, StartTurnRequest) -> Result<T, RefusedTurn>,
        start: impl FnOnce(FirstTurn<'a, B>) -> Result<T, SessionError>,
    ) -> Result<T, RefusedTurn> {
        #[cfg(feature = "redis")]
        if let Some(error) = self.given_out.get().filter(|_| request.number.is_none()).and_then(|refuse| refuse(id)) {
            return Err(RefusedTurn::new(error, request));
        }
        let (mut was_launching, mut room) = (true, None);
        loop {
            request = match begin(&self.live, id, request) {
                Err(RefusedTurn { error: SessionError::NotFound { .. }, request, .. }) => request,
                begun => return begun,
            };
            match self.launch_stored_with_room(id, &mut room) {
                Ok(None) => was_launching = true,
                Ok(Some(stored)) => {
                    let spare = request.spare();
                    let started = self.prepare_stored(stored, request).and_then(start);
                    return started.map_err(|error| RefusedTurn::new(error, spare));
                }
                // The launch in progress registers the session in a moment, and the turn is queued behind it. After the
                // launch it is tried once more. If there is no session then, the session ends.
                Err(SessionError::Busy { .. }) if was_launching && request.when_busy != WhenBusy::Refuse => {
                    was_launching = self.table.is_launching(id);
                    yield_now();
                }
                Err(error) => return Err(RefusedTurn::new(error, request)),
            }
        }
    }

    /// Prepares a stored session with the first turn of its next life.
    fn prepare_stored<'a>(
        &'a self,
        (session, launch): Launched<'a, B>,
        turn: StartTurnRequest,
    ) -> Result<FirstTurn<'a, B>, SessionError> {
        let session = self.live.prepare_session(CreateSessionRequest { session, turn }).map_err(still_ending)?;
        Ok(FirstTurn { session, launch })
    }

    /// Starts a turn that this thread will wait for.
    pub(super) fn start_with_wait(
        &self,
        id: SessionId,
        request: StartTurnRequest,
    ) -> Result<TurnWithWait, SessionError> {
        // Before the admission: in a cycle the session is busy too, and the caller would get that error.
        self.live.refuse_circle(id)?;
        Ok(self.begin_with_wait(id, request)?)
    }
}

/// The error of a stored session that cannot be registered again, because its last life has not quite ended.
pub(super) fn still_ending(error: SessionError) -> SessionError {
    match error {
        SessionError::AlreadyExists { id } => SessionError::Busy { id, turn: None },
        error => error,
    }
}
