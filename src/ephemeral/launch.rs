//! The start of sessions and turns: the work on the caller's thread before the session thread takes over.
//!
//! | Step | A session | A turn of a live session | A turn of a busy session that may queue |
//! |---|---|---|---|
//! | register | [`RegisteredSession`] holds the id, the capacity and the numbers of the record | its guards hold the admission | - |
//! | prepare | [`PreparedSession`] holds the start data of the session thread | [`NewTurn`] holds the rest | the same |
//! | start | [`PreparedSession::start`]: the session thread runs | the command is sent | [`SessionHandle::accept`]: the turn is in the queue |
//!
//! Each step returns a value, which the caller passes on or drops. A drop gives everything back, and answers an
//! admitted turn.
//!
//! # When a wait is announced
//!
//! A caller that will wait for the turn announces the wait between the admission and the start. If it did so later, the
//! turn could already ask for the caller's session, and the caller would be refused instead. If it did so earlier, a
//! start that is refused as busy would look like a wait for a moment, and other sessions would be refused because of
//! it.
//!
//! For a turn that is queued the wait is announced before the turn is accepted, because it may run as soon as it is in
//! the queue. A start that is refused because the queue is full does look like a wait for a moment.

use std::time::Duration;

use crate::agent::{SessionAgentBuilder, SessionContext};
use crate::cancel::CancelToken;
use crate::error::SessionError;
use crate::ids::Ids;
use crate::model::{Labels, Session, SessionId, SessionSnapshot, TurnId};
use crate::panics::{contain_and_log, record, Contained};
use crate::reentrancy::{self, Wait, WaitError, WaitKey};
use crate::service::{CreateSessionRequest, RefusedTurn, SessionSpec, StartTurnRequest, WeakService, WhenBusy};
use crate::session::admission::{Admission, TokenSeal};
use crate::session::command::Command;
use crate::session::first::{BuildGuards, First, Opening};
use crate::session::handle::{Profile, SessionHandle};
use crate::session::queue::NewTurn;
use crate::session::running::Input;
use crate::session::thread::{self, Start};
use crate::session::unload::UnloadPolicy;
use crate::spans::CallerSpan;
use crate::sync::{bounded, Arc, Receiver};
use crate::turn::events::EventSender;
use crate::turn::handle::{Outcome, TurnHandle};

use super::core::{Core, Registration};
use super::service::Inner;
use super::settings::{Settings, UnloadSettings};
use super::started::TurnWithWait;
use super::threads::ThreadSpec;

/// A session that is registered: it has its id, its capacity and its first numbers. It has no first turn and no opening
/// yet.
///
/// The registration is the last field of this and of [`PreparedSession`]: the id is freed after the rest is dropped.
struct RegisteredSession<B> {
    builder: Arc<B>,
    spec: SessionSpec,
    context: SessionContext,
    cancel: CancelToken,
    handle: Arc<SessionHandle>,
    seal: TokenSeal,
    admission: Admission,
    registration: Registration,
}

/// A session that is ready to start. `R` goes to its caller: the handle of the first turn, or the reply of the build.
#[must_use = "dropping it gives up the session"]
pub(crate) struct PreparedSession<B, R> {
    start: Contained<Start<B>>,
    reply: R,
    registration: Registration,
}

/// The reply that the caller of a build without a turn waits for.
pub(super) struct OpeningReply {
    pub(super) handle: Arc<SessionHandle>,
    /// The session's id once the agent is built. Disconnects without an id if the session has ended before.
    pub(super) opened: Receiver<Result<SessionId, SessionError>>,
}

impl<B: SessionAgentBuilder> Inner<B> {
    pub(super) fn weak_service(&self) -> WeakService {
        WeakService::new(self.weak.clone())
    }

    /// Prepares a session with its first turn.
    pub(super) fn prepare_session(
        &self,
        request: CreateSessionRequest,
    ) -> Result<PreparedSession<B, TurnHandle>, SessionError> {
        let CreateSessionRequest { session, turn } = request;
        let turn_id = TurnId::new(session.numbering.after.turn + 1);
        Ok(self.register(session, Some(turn_id), turn.timeout)?.with_turn(turn_id, turn))
    }

    /// Prepares a session without a turn, for a caller that waits for the build.
    pub(super) fn prepare_opening(&self, spec: SessionSpec) -> Result<PreparedSession<B, OpeningReply>, SessionError> {
        Ok(self.register(spec, None, None)?.opening())
    }

    /// Registers a session, whose first turn may have a timeout. If that fails, nothing is left of the session, and its
    /// reservation is given back.
    fn register(
        &self,
        mut spec: SessionSpec,
        first_turn: Option<TurnId>,
        timeout: Option<Duration>,
    ) -> Result<RegisteredSession<B>, SessionError> {
        let cancel = CancelToken::new();
        match self.try_register(&mut spec, first_turn, timeout, &cancel) {
            Ok((handle, seal, admission, registration)) => {
                self.core.global_subscribers.attach_all(handle.bus());
                let context = self.context(&handle, cancel.clone());
                let builder = Arc::clone(&self.builder);
                Ok(RegisteredSession { builder, spec, context, cancel, handle, seal, admission, registration })
            }
            Err(error) => {
                contain_and_log("the drop of a session's specification", move || drop(spec));
                Err(error)
            }
        }
    }

    fn try_register(
        &self,
        spec: &mut SessionSpec,
        first_turn: Option<TurnId>,
        timeout: Option<Duration>,
        cancel: &CancelToken,
    ) -> Result<Registered, SessionError> {
        let core = &self.core;
        // First: from here on every failure gives the reservation back.
        let reserved = core.claim_reservation(spec)?;
        self.prepare_timeout(timeout.or(core.settings.unload.idle_after))?;
        let id = identify(spec, &core.settings.ids);
        let profile = profile(core, self.of_agents.clone(), id, first_turn, spec);
        let (handle, seal, admission) = SessionHandle::new(profile, first_turn, cancel.clone());
        let registration = Registration::of(core, &handle, reserved)?;
        // Before a caller gets any of the numbers.
        handle.shared().numbers.open()?;
        Ok((handle, seal, admission, registration))
    }

    fn context(&self, handle: &SessionHandle, cancel: CancelToken) -> SessionContext {
        let events = EventSender::new(Arc::clone(handle.shared()));
        SessionContext::new(events, self.of_agents.clone(), cancel)
    }

    /// Starts the timer thread for a turn or a session with a timeout, before anything is admitted.
    fn prepare_timeout(&self, timeout: Option<Duration>) -> Result<(), SessionError> {
        match timeout {
            None => Ok(()),
            Some(_) => {
                let started = self.core.deadlines.start();
                started.map_err(|source| SessionError::Spawn { source: Arc::new(source) })
            }
        }
    }

    /// Starts a turn in a live session, or queues it.
    #[allow(clippy::result_large_err)] // The turn itself is larger.
    pub(super) fn begin(&self, id: SessionId, request: StartTurnRequest) -> Result<TurnHandle, RefusedTurn> {
        self.begin_announced(id, request, |_| Ok(())).map(|(turn, ())| turn)
    }

    /// As [`begin`](Self::begin), for a thread that will wait for the turn.
    #[allow(clippy::result_large_err)] // The turn itself is larger.
    pub(super) fn begin_with_wait(
        &self,
        id: SessionId,
        request: StartTurnRequest,
    ) -> Result<TurnWithWait, RefusedTurn> {
        let failed = |error: WaitError| error.into_session_error(id, &self.core.clock().stopwatch());
        let begun = self.begin_announced(id, request, |key| Wait::on(key).map_err(failed));
        begun.map(|(turn, wait)| TurnWithWait { turn, wait })
    }

    /// Starts or queues a turn, after `announce` has announced the caller's wait.
    #[allow(clippy::result_large_err)] // The turn itself is larger.
    fn begin_announced<W>(
        &self,
        id: SessionId,
        request: StartTurnRequest,
        announce: impl Fn(WaitKey) -> Result<W, SessionError>,
    ) -> Result<(TurnHandle, W), RefusedTurn> {
        let (cancel, when_busy) = (CancelToken::new(), request.when_busy);
        let (handle, admitted) = match self.try_admit(id, &request, &cancel) {
            Ok(found) => found,
            Err(error) => return Err(RefusedTurn::new(error, request)),
        };
        let guards = match admitted {
            Ok(admitted) => Some(admitted),
            Err(SessionError::Busy { .. }) if when_busy != WhenBusy::Refuse || self.may_follow_opening(&handle) => None,
            Err(error) => return Err(RefusedTurn::new(self.core.refusal(error), request)),
        };
        let wait = match announce(handle.key()) {
            Ok(wait) => wait,
            Err(error) => return Err(RefusedTurn::new(error, request)),
        };
        let Some((turn_id, seal, admission)) = guards else {
            return self.queue(&handle, request, cancel).map(|turn| (turn, wait));
        };
        let (turn, outcome) = make_turn(&self.core, id, request, cancel.clone());
        handle.send(Command::Turn(turn.admitted(turn_id, (seal, admission))));
        Ok((turn_handle(&self.core, &handle, turn_id, cancel, outcome), wait))
    }

    /// Whether the session is only busy because another caller resumes it, in a service that unloads sessions. Without the
    /// unload the session would be idle. So a turn that does not queue waits for the build.
    fn may_follow_opening(&self, handle: &SessionHandle) -> bool {
        self.core.settings.unload.is_on() && handle.is_opening()
    }

    /// The open session, and its admission of a turn.
    fn try_admit(
        &self,
        id: SessionId,
        request: &StartTurnRequest,
        cancel: &CancelToken,
    ) -> Result<(Arc<SessionHandle>, Result<Admitted, SessionError>), SessionError> {
        let handle = self.core.open(id).map_err(|error| self.core.refusal(error))?;
        self.prepare_timeout(request.timeout)?;
        let admitted = handle.admit(cancel, request.number);
        Ok((handle, admitted))
    }

    /// Queues a turn of a busy session. The whole turn exists before: once it is in the queue, the end of the turn before
    /// it may start it.
    #[allow(clippy::result_large_err)] // The turn itself is larger.
    fn queue(
        &self,
        handle: &Arc<SessionHandle>,
        request: StartTurnRequest,
        cancel: CancelToken,
    ) -> Result<TurnHandle, RefusedTurn> {
        let (timeout, when_busy) = (request.timeout, request.when_busy);
        let (turn, outcome) = make_turn(&self.core, handle.id(), request, cancel.clone());
        match handle.accept(turn, when_busy) {
            Ok(turn_id) => Ok(turn_handle(&self.core, handle, turn_id, cancel, outcome)),
            Err((error, turn)) => {
                let NewTurn { number, input: Input { prompt, skills, host_mode }, tool_results, event_tx, .. } = turn;
                let skill_references = skills;
                let request = StartTurnRequest {
                    prompt,
                    event_tx,
                    host_mode,
                    skill_references,
                    timeout,
                    tool_results,
                    when_busy,
                    number,
                };
                Err(RefusedTurn::new(self.core.refusal(error), request))
            }
        }
    }

    /// Refuses a wait for this thread's session, or for one that waits for it.
    pub(super) fn refuse_circle(&self, id: SessionId) -> Result<(), SessionError> {
        if reentrancy::has_waiter() {
            if let Some(handle) = self.core.registry.find(id) {
                let failed = |error: WaitError| error.into_session_error(id, &self.core.clock().stopwatch());
                return reentrancy::refuse_cycle(handle.key()).map_err(failed);
            }
        }
        Ok(())
    }

    /// Starts a turn that this thread will wait for.
    pub(super) fn start_with_wait(
        &self,
        id: SessionId,
        request: StartTurnRequest,
    ) -> Result<TurnWithWait, SessionError> {
        // Before the admission: in a cycle the session is busy too, and the caller would get that error.
        self.refuse_circle(id)?;
        Ok(self.begin_with_wait(id, request)?)
    }
}

/// A session that is registered, with the guards of its build.
type Registered = (Arc<SessionHandle>, TokenSeal, Admission, Registration);

/// The number and the guards of an admitted turn.
type Admitted = (TurnId, TokenSeal, Admission);

impl<B> RegisteredSession<B> {
    /// Prepares the session with the first turn that it was registered for.
    fn with_turn(self, turn_id: TurnId, request: StartTurnRequest) -> PreparedSession<B, TurnHandle> {
        let Self { builder, spec, context, cancel, handle, seal, admission, registration } = self;
        let core = registration.core();
        let (turn, outcome) = make_turn(core, handle.id(), request, cancel.clone());
        let turn_handle = turn_handle(core, &handle, turn_id, cancel, outcome);
        let first = First::Turn(turn.admitted(turn_id, (seal, admission)));
        let (restart_policy, unload_policy) = (core.settings.restart_faulted, unload_policy(core));
        let spec = Box::new(spec);
        let start = Start { builder, spec, context, handle, first, restart_policy, unload_policy };
        PreparedSession::new(start, turn_handle, registration)
    }

    /// Prepares the session without a turn.
    fn opening(self) -> PreparedSession<B, OpeningReply> {
        let (reply, opened) = bounded(1);
        let opening = Opening { guards: BuildGuards::new(self.seal, self.admission), reply };
        let Self { builder, spec, context, handle, registration, .. } = self;
        let reply = OpeningReply { handle: Arc::clone(&handle), opened };
        let (first, core) = (First::Open(opening), registration.core());
        let (restart_policy, unload_policy) = (core.settings.restart_faulted, unload_policy(core));
        let spec = Box::new(spec);
        let start = Start { builder, spec, context, handle, first, restart_policy, unload_policy };
        PreparedSession::new(start, reply, registration)
    }
}

impl<B, R> PreparedSession<B, R> {
    fn new(start: Start<B>, reply: R, registration: Registration) -> Self {
        // It holds the user's values: the specification and the builder.
        let start = Contained::new("the drop of a session that was not started", start);
        Self { start, reply, registration }
    }

    /// The key that announces a wait for the session. A new session waits for no other, so the announcement is never
    /// refused.
    pub(super) fn key(&self) -> WaitKey {
        self.registration.handle().key()
    }
}

impl<B: SessionAgentBuilder, R> PreparedSession<B, R> {
    /// Starts the session thread. If the system has no thread for it, nothing is left of the session.
    pub(crate) fn start(self) -> Result<R, SessionError> {
        let Self { start, reply, registration } = self;
        let (core, handle) = (Arc::clone(registration.core()), Arc::clone(registration.handle()));
        let (start, id) = (start.into_inner(), handle.id());
        let life = move || {
            let last_reply = thread::run(start);
            // Capacity and id are free before the last callers are answered.
            registration.release();
            if let Some(reply) = last_reply {
                contain_and_log("the drop of a session's error", move || reply.send());
            }
        };
        let Settings { ref thread_name_prefix, stack_size, .. } = core.settings;
        let spec = ThreadSpec { name: thread_name(thread_name_prefix, id), stack_size };
        let spawned = core.threads.spawn((handle.key(), id), spec, life);
        spawned.map_err(|source| SessionError::Spawn { source: Arc::new(source) })?;
        core.counters.sessions_created.add_one();
        record!(Debug, "turnwise::service", "session {id}: created");
        Ok(reply)
    }
}

impl<B: SessionAgentBuilder> PreparedSession<B, TurnHandle> {
    /// As [`start`](Self::start), for a thread that will wait for the first turn.
    pub(crate) fn start_with_wait(self) -> Result<TurnWithWait, SessionError> {
        let wait = self.reply.announce_wait()?;
        Ok(TurnWithWait { turn: self.start()?, wait })
    }
}

fn profile(
    core: &Core,
    service: WeakService,
    id: SessionId,
    first_turn: Option<TurnId>,
    spec: &mut SessionSpec,
) -> Profile {
    let Settings { inbox_capacity, event_history, turn_queue, ref ids, .. } = core.settings;
    let history = spec.resume.clone().unwrap_or_else(|| Session::with_id(id));
    let snapshot = SessionSnapshot::from(&history);
    let numbering = std::mem::take(&mut spec.numbering);
    Profile {
        status: core.registry.new_status(numbering.after.turn, first_turn, &snapshot),
        id,
        model: spec.model.as_str().into(),
        labels: Labels::from(spec.labels.clone()),
        snapshot,
        history,
        inbox_capacity,
        event_history,
        ids: ids.clone(),
        counters: Arc::clone(&core.counters),
        clock: core.clock().clone(),
        numbering,
        callback: spec.callback.take(),
        running: Arc::clone(&core.running),
        service,
        turn_queue,
        may_be_unloaded: core.settings.unload.is_on(),
    }
}

fn unload_policy(core: &Core) -> UnloadPolicy {
    let UnloadSettings { idle_after, when_full, .. } = core.settings.unload;
    UnloadPolicy {
        idle: idle_after.map(|after| (after, core.deadlines.alarms())),
        demand: when_full.then(|| Arc::clone(&core.demand)),
    }
}

/// Creates a turn, and the slot for its result. Arms its deadline.
fn make_turn(core: &Core, id: SessionId, request: StartTurnRequest, cancel: CancelToken) -> (NewTurn, Arc<Outcome>) {
    let StartTurnRequest {
        prompt, event_tx, host_mode, skill_references: skills, timeout, tool_results, number, ..
    } = request;
    let deadline = timeout.and_then(|timeout| core.deadlines.arm(timeout, &cancel));
    let (answer, outcome) = Outcome::new(id);
    let input = Input { prompt, skills, host_mode };
    let caller = CallerSpan::current();
    (NewTurn { number, input, tool_results, event_tx, cancel, deadline, caller, answer }, outcome)
}

fn turn_handle(
    core: &Core,
    handle: &SessionHandle,
    turn_id: TurnId,
    cancel: CancelToken,
    outcome: Arc<Outcome>,
) -> TurnHandle {
    TurnHandle::new(handle.id(), turn_id, handle.key(), cancel, outcome, core.clock().clone())
}

/// Sets the id of a new session, in the specification and in the history that it resumes.
pub(super) fn identify(spec: &mut SessionSpec, ids: &Ids) -> SessionId {
    let resumed = spec.resume.as_ref().map(Session::id);
    let id = spec.session_id.or(resumed).unwrap_or_else(|| ids.session_id());
    spec.session_id = Some(id);
    spec.resume = spec.resume.take().map(|session| session.owned_by(id));
    id
}

/// A name that identifies the thread in a debugger.
fn thread_name(prefix: &str, id: SessionId) -> String {
    format!("{prefix}-{}", id.short())
}
