//! How sessions and turns start: all that happens on the caller's thread before the session's thread takes over.

use std::time::Duration;

use crate::agent::{SessionAgentBuilder, SessionContext};
use crate::error::SessionError;
use crate::ids::Ids;
use crate::model::{Labels, Session, SessionId, SessionSnapshot, TurnId};
use crate::panics::{contain_and_log, record};
use crate::service::{CreateSessionRequest, SessionSpec, StartTurnRequest, WeakService};
use crate::session::command::{Command, Input, Turn};
use crate::session::first::First;
use crate::session::guards::TurnGuards;
use crate::session::handle::{ActiveEntry, Admission, Profile, SessionHandle};
use crate::session::thread::{self, Start};
use crate::sync::Arc;
use crate::turn::events::EventSender;
use crate::turn::handle::TurnHandle;
use crate::turn::outcome::Outcome;
use crate::wait::cancel::CancelToken;
use crate::wait::own_thread::{self, Wait, WaitError, WaitKey};

use super::awaited::Awaited;
use super::core::Seat;
use super::service::Inner;
use super::settings::Settings;
use super::threads::ThreadSpec;

impl<B: SessionAgentBuilder> Inner<B> {
    pub(super) fn weak_service(&self) -> WeakService {
        WeakService::new(self.weak.clone())
    }

    /// Registers a session and starts its thread. `first` makes what comes with the build, and what the
    /// caller gets back beside the handle; whatever fails, nothing is left of it.
    pub(super) fn launch<T>(
        &self,
        mut spec: SessionSpec,
        first_turn: Option<TurnId>,
        cancel: CancelToken,
        first: impl FnOnce(&Arc<SessionHandle>, ActiveEntry, Admission) -> (First, T),
    ) -> Result<(Arc<SessionHandle>, T), SessionError> {
        let core = &self.core;
        let id = identify(&mut spec, &core.settings.ids);
        let snapshot = SessionSnapshot::from(spec.resume.as_ref().unwrap_or(&Session::with_id(id)));
        let Settings { inbox_capacity, event_history, ref ids, .. } = core.settings;
        let (labels, ids) = (Labels::from(spec.labels.clone()), ids.clone());
        let (counters, clock) = (Arc::clone(&core.counters), core.clock().clone());
        let (numbering, running) = (std::mem::take(&mut spec.numbering), Arc::clone(&core.running));
        let status = core.registry.new_status(numbering.after.turn, first_turn, &snapshot);
        let profile = Profile {
            status,
            id,
            labels,
            snapshot,
            inbox_capacity,
            event_history,
            ids,
            counters,
            clock,
            numbering,
            running,
        };
        let (handle, active, admission) = SessionHandle::new(profile, first_turn, cancel.clone());
        let reserved = Seat::reserve(core, &handle);
        // In the record before a caller has one of them.
        let reserved = reserved.and_then(|seat| handle.environment().numbers.open().map(|()| seat));
        let seat = match reserved {
            Ok(seat) => seat,
            Err(error) => {
                contain_and_log("the drop of a session's specification", move || drop(spec));
                return Err(error);
            }
        };
        core.everyone.listen_to(handle.bus());
        let (first, made) = first(&handle, active, admission);
        let start = Start {
            builder: Arc::clone(&self.builder),
            spec,
            context: self.context(&handle, cancel),
            first,
            handle: Arc::clone(&handle),
        };
        let life = move || {
            let failure = thread::run(start);
            // Capacity and id are free before a failed build is answered.
            drop(seat);
            if let Some(failure) = failure {
                contain_and_log("the drop of a builder's error", move || failure.send());
            }
        };
        let settings = &core.settings;
        let name = thread_name(&settings.thread_name_prefix, id);
        let thread = ThreadSpec { name, stack_size: settings.stack_size };
        core.threads
            .spawn((handle.key(), id), thread, life)
            .map_err(|source| SessionError::Spawn { source: Arc::new(source) })?;
        core.counters.sessions_created.add_one();
        record!(Debug, "turnwise::service", "session {id}: created");
        Ok((handle, made))
    }

    fn context(&self, handle: &SessionHandle, cancel: CancelToken) -> SessionContext {
        let events = EventSender::new(Arc::clone(handle.environment()));
        SessionContext::new(events, self.weak_service(), cancel)
    }

    /// Makes sure that a timeout can be kept, before anything is admitted.
    fn prepare_timeout(&self, timeout: Option<Duration>) -> Result<(), SessionError> {
        match timeout {
            None => Ok(()),
            Some(_) => {
                let started = self.core.deadlines.start();
                started.map_err(|source| SessionError::Spawn { source: Arc::new(source) })
            }
        }
    }

    /// Both ends of an admitted turn.
    fn turn(
        &self,
        handle: &SessionHandle,
        turn_id: TurnId,
        request: StartTurnRequest,
        cancel: CancelToken,
        guards: (ActiveEntry, Admission),
    ) -> (TurnHandle, Turn) {
        let (core, id) = (&self.core, handle.id());
        let StartTurnRequest { prompt, event_tx, host_mode, skill_references: skills, timeout } = request;
        let deadline = timeout.and_then(|timeout| core.deadlines.arm(timeout, &cancel));
        let (answer, outcome) = Outcome::new(id);
        let (active, admission) = guards;
        let guards = TurnGuards::new(deadline, active, admission, answer);
        let input = Input { prompt, skills, host_mode };
        let turn = Turn { input, event_tx, turn_id, cancel: cancel.clone(), guards };
        (TurnHandle::new(id, turn_id, handle.key(), cancel, outcome, core.clock().clone()), turn)
    }

    /// Registers a session with its first turn, and starts its thread. `before` is called with its key just before that.
    pub(super) fn begin<T>(
        &self,
        request: CreateSessionRequest,
        before: impl FnOnce(WaitKey) -> T,
    ) -> Result<(TurnHandle, T), SessionError> {
        let CreateSessionRequest { session, turn: request } = request;
        self.prepare_timeout(request.timeout)?;
        let (turn_id, cancel) = (TurnId::new(session.numbering.after.turn + 1), CancelToken::new());
        let launched = self.launch(session, Some(turn_id), cancel.clone(), |handle, active, admission| {
            let (turn_handle, turn) = self.turn(handle, turn_id, request, cancel, (active, admission));
            (First::Turn(turn), (turn_handle, before(handle.key())))
        });
        launched.map(|(_, begun)| begun)
    }

    /// As [`begin`](Self::begin), for a thread that will wait for the first turn. The wait is announced before the session
    /// can ask for anybody; a fresh session closes no circle.
    pub(super) fn begin_and_announce(&self, request: CreateSessionRequest) -> Result<Awaited, SessionError> {
        let (turn, wait) = self.begin(request, Wait::on)?;
        let failed = |error: WaitError| error.into_session_error(turn.session_id(), &self.core.clock().stopwatch());
        let wait = wait.map_err(failed)?;
        Ok(Awaited { turn, wait })
    }

    /// Admits a turn; the session's thread is not told yet. Dropping the turn gives the admission up.
    pub(super) fn admit(
        &self,
        id: SessionId,
        request: StartTurnRequest,
    ) -> Result<(Arc<SessionHandle>, TurnHandle, Turn), SessionError> {
        let refused = |error| self.core.refusal(error);
        let handle = self.core.open(id).map_err(refused)?;
        self.prepare_timeout(request.timeout)?;
        let cancel = CancelToken::new();
        let (turn_id, active, admission) = handle.admit(&cancel).map_err(refused)?;
        let (turn_handle, turn) = self.turn(&handle, turn_id, request, cancel, (active, admission));
        Ok((handle, turn_handle, turn))
    }

    /// Refuses a wait for a session that waits for this thread's, or is this thread's.
    pub(super) fn refuse_circle(&self, id: SessionId) -> Result<(), SessionError> {
        if own_thread::is_a_sessions() {
            if let Some(handle) = self.core.registry.find(id) {
                let failed = |error: WaitError| error.into_session_error(id, &self.core.clock().stopwatch());
                return own_thread::refuse_circle(handle.key()).map_err(failed);
            }
        }
        Ok(())
    }

    /// Starts a turn that this thread will wait for.
    ///
    /// The wait is announced between the admission and the command. Later, the turn could ask for this session before the
    /// announcement, and this session would be the one to be refused. Earlier, a start that is refused as busy would look
    /// like a wait for a moment, and refuse others.
    pub(super) fn start(&self, id: SessionId, request: StartTurnRequest) -> Result<Awaited, SessionError> {
        let failed = |error: WaitError| error.into_session_error(id, &self.core.clock().stopwatch());
        // Rather than that it is busy, which it is too.
        self.refuse_circle(id)?;
        let (handle, turn_handle, turn) = self.admit(id, request)?;
        let wait = Wait::on(handle.key()).map_err(failed)?;
        handle.send(Command::Turn(turn));
        Ok(Awaited { turn: turn_handle, wait })
    }
}

/// Gives a new session its id, once and for all: in the specification and in the history that it resumes.
pub(super) fn identify(spec: &mut SessionSpec, ids: &Ids) -> SessionId {
    let resumed = spec.resume.as_ref().map(Session::id);
    let id = spec.session_id.or(resumed).unwrap_or_else(|| ids.session_id());
    spec.session_id = Some(id);
    spec.resume = spec.resume.take().map(|session| session.owned_by(id));
    id
}

/// A name that tells threads apart in a debugger.
fn thread_name(prefix: &str, id: SessionId) -> String {
    format!("{prefix}-{}", id.short())
}
