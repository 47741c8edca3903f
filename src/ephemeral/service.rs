//! The service: where calls come in.

use std::fmt;
use std::time::Duration;

use crate::agent::{SessionAgentBuilder, SessionContext};
use crate::error::{CancelReason, SessionError};
use crate::model::{AgentEvent, RunResult, Session, SessionId, SessionSnapshot, TurnId};
use crate::panics::contain_and_log;
use crate::service::{
    forward_session_service, ArchiveMode, CreateSessionRequest, ServiceStats, SessionQuery, SessionService,
    SessionSpec, SessionSummary, SessionView, ShutdownReport, StartTurnRequest, WeakService,
};
use crate::session::command::{Command, HistoryReply, HistoryRequest, Turn};
use crate::session::handle::{ActiveEntry, Admission, SessionHandle};
use crate::session::thread::{self, First, Opening, Start};
use crate::sync::{bounded, Arc, Instant, Weak};
use crate::turn::context::TurnContext;
use crate::turn::events::{EventSender, TurnEvents};
use crate::turn::handle::TurnHandle;
use crate::turn::outcome::Outcome;
use crate::turn::stream::TurnStream;
use crate::wait::cancel::CancelToken;
use crate::wait::own_thread::{self, Wait, WaitError, WaitKey};

use super::config::{ServiceConfig, Settings};
use super::core::{Core, Seat};
use super::shutdown;
use super::threads::ThreadSpec;

/// Hosts sessions in memory, each on a thread of its own. What is worth keeping is kept by whoever
/// [exports](SessionService::export_session) it.
///
/// A cheap handle: clones are the same service, usable from any thread. Dropping the last one closes every session and
/// cancels every turn without waiting for them; [`shutdown`](Self::shutdown) does the same and waits.
///
/// ```
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, StartTurnRequest};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt.to_uppercase()))), 8);
/// let first = service.create_session(CreateSessionRequest::new("hello"))?;
/// let second = service.start_turn(first.session_id, StartTurnRequest::new("again"))?;
/// assert_eq!(second.text, "AGAIN");
/// assert_eq!(service.read(first.session_id)?.state.message_count, 4);
/// # Ok::<(), turnwise::SessionError>(())
/// ```
pub struct EphemeralSessionService<B: SessionAgentBuilder> {
    inner: Arc<Inner<B>>,
}

/// What the handles of a service have in common. Its drop is the drop of the last handle.
struct Inner<B: SessionAgentBuilder> {
    core: Arc<Core>,
    builder: Arc<B>,
    weak: Weak<Inner<B>>,
}

impl<B: SessionAgentBuilder> EphemeralSessionService<B> {
    /// A service that hosts at most `max_sessions` at a time; 0 admits nobody. Starts no thread.
    pub fn new(builder: B, max_sessions: usize) -> Self {
        Self::with_settings(builder, Settings { max_sessions, ..Settings::default() })
    }

    /// A service with other settings than the defaults.
    pub fn configure(builder: B) -> ServiceConfig<B> {
        ServiceConfig::new(builder)
    }

    pub(crate) fn with_settings(builder: B, settings: Settings) -> Self {
        let core = Arc::new(Core::new(settings));
        let builder = Arc::new(builder);
        Self { inner: Arc::new_cyclic(|weak| Inner { core, builder, weak: weak.clone() }) }
    }

    /// How many sessions were ever registered, those included that could not be built then or got no thread: a number to
    /// give to [`wait_session_registered`](Self::wait_session_registered).
    pub fn registered_sessions(&self) -> u64 {
        self.inner.core.registry.registrations()
    }

    /// Waits until more than `seen` sessions have been registered, and returns how many; `None` where that does not happen
    /// in time, or never will after a shutdown. A registration between two calls is never missed.
    ///
    /// # Blocking
    /// Until the next registration, at most for `timeout`; on a session's own thread also until its turn is cancelled.
    pub fn wait_session_registered(&self, seen: u64, timeout: Duration) -> Option<u64> {
        let deadline = deadline_after(timeout);
        loop {
            match self.inner.core.registry.registrations_after(seen) {
                Ok(count) => return Some(count),
                Err(next) => drop(own_thread::receive(next?.receiver(), Some(deadline)).ok()?),
            }
        }
    }

    /// Figures of the service.
    pub fn stats(&self) -> ServiceStats {
        let core = &*self.inner.core;
        let counters = &core.counters;
        ServiceStats {
            sessions: core.capacity.held(),
            max_sessions: core.capacity.limit(),
            running_turns: core.running.held(),
            sessions_created: counters.sessions_created.get(),
            turns_started: counters.turns_started.get(),
            turns_completed: counters.turns_completed.get(),
            turns_failed: counters.turns_failed.get(),
            turns_cancelled: counters.turns_cancelled.get(),
            faults: counters.faults.get(),
            events_dropped: counters.events_dropped.get(),
        }
    }

    /// Refuses new sessions and turns from now on, cancels every turn, and waits for every thread to end.
    ///
    /// Can be called again, to wait longer for sessions that were stuck, and from several threads. From a session's own
    /// thread it works too, but cannot wait for that session, nor for one that waits for it: those are reported as stuck. A
    /// wait for *another* service's sessions ends there when the waiting turn is cancelled.
    ///
    /// # Blocking
    /// Until all sessions have ended, at most for `timeout`. The agents' cancel hooks run on this thread, before the waiting
    /// begins; what time they take comes on top, which is why they should take none.
    pub fn shutdown(&self, timeout: Duration) -> ShutdownReport {
        self.shutdown_with(ArchiveMode::Interrupt, timeout)
    }

    /// As [`shutdown`](Self::shutdown); with [`ArchiveMode::Drain`] running turns may finish. What has not finished in
    /// time goes on: call [`shutdown`](Self::shutdown) to cancel it.
    ///
    /// # Blocking
    /// Until all sessions have ended, at most for `timeout`.
    pub fn shutdown_with(&self, mode: ArchiveMode, timeout: Duration) -> ShutdownReport {
        shutdown::shut_down(&self.inner.core, mode, deadline_after(timeout))
    }

    /// A handle that does not keep the service alive.
    pub fn downgrade(&self) -> WeakService {
        self.inner.weak_service()
    }
}

impl<B: SessionAgentBuilder> Clone for EphemeralSessionService<B> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<B: SessionAgentBuilder> fmt::Debug for EphemeralSessionService<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EphemeralSessionService").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl<B: SessionAgentBuilder> SessionService for EphemeralSessionService<B> {
    forward_session_service!(self => self.inner);
}

impl<B: SessionAgentBuilder> Drop for Inner<B> {
    fn drop(&mut self) {
        shutdown::close_all(&self.core, ArchiveMode::Interrupt);
    }
}

impl<B: SessionAgentBuilder> Inner<B> {
    fn weak_service(&self) -> WeakService {
        WeakService::new(self.weak.clone())
    }

    /// Registers a session and starts its thread. `first` makes what comes with the build, and what the
    /// caller gets back beside the handle; whatever fails, nothing is left of it.
    fn launch<T>(
        &self,
        mut spec: SessionSpec,
        first_turn: Option<TurnId>,
        cancel: CancelToken,
        first: impl FnOnce(&Arc<SessionHandle>, ActiveEntry, Admission) -> (First, T),
    ) -> Result<(Arc<SessionHandle>, T), SessionError> {
        let core = &self.core;
        let id = identify(&mut spec);
        let snapshot = SessionSnapshot::from(spec.resume.as_ref().unwrap_or(&Session::with_id(id)));
        let (handle, commands, active, admission) =
            SessionHandle::new(id, spec.labels.clone(), snapshot, first_turn, cancel.clone());
        let seat = Seat::reserve(core, &handle)?;
        let (first, made) = first(&handle, active, admission);
        let start = Start {
            builder: Arc::clone(&self.builder),
            spec,
            context: SessionContext::new(id, EventSender::new(id), self.weak_service(), cancel),
            first,
            commands,
            running: Arc::clone(&core.running),
            counters: Arc::clone(&core.counters),
            handle: Arc::clone(&handle),
        };
        let life = move || {
            let owed = thread::run(start);
            // Capacity and id are free before a failed build is answered.
            drop(seat);
            contain_and_log("the drop of a builder's error", move || drop(owed));
        };
        let settings = &core.settings;
        let name = thread_name(&settings.thread_name_prefix, id);
        let thread = ThreadSpec { name, stack_size: settings.stack_size };
        core.threads
            .spawn((handle.key(), id), thread, life)
            .map_err(|source| SessionError::Spawn { source: Arc::new(source) })?;
        core.counters.sessions_created.add_one();
        log::debug!(target: "turnwise::service", "session {id}: created");
        Ok((handle, made))
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
    ) -> (TurnHandle, Box<Turn>) {
        let (core, id) = (&self.core, handle.id());
        let StartTurnRequest { prompt, event_tx, skill_references, timeout } = request;
        let deadline = timeout.and_then(|timeout| core.deadlines.arm(timeout, &cancel));
        let events = TurnEvents::new(id, turn_id, event_tx, cancel.clone(), Arc::clone(&core.counters));
        let published = Arc::clone(handle.published());
        let context = TurnContext::new(id, turn_id, Arc::new(events), cancel.clone(), published);
        let (answer, outcome) = Outcome::new(id);
        let (active, admission) = guards;
        let turn = Turn { prompt, skills: skill_references, context, deadline, active, admission, answer };
        (TurnHandle::new(id, turn_id, handle.key(), cancel, outcome), Box::new(turn))
    }

    /// Registers a session with its first turn, and starts its thread. `before` is called with its key just before that.
    fn begin<T>(
        &self,
        request: CreateSessionRequest,
        before: impl FnOnce(WaitKey) -> T,
    ) -> Result<(TurnHandle, T), SessionError> {
        let CreateSessionRequest { session, turn: request } = request;
        self.prepare_timeout(request.timeout)?;
        let (turn_id, cancel) = (TurnId::new(1), CancelToken::new());
        let launched = self.launch(session, Some(turn_id), cancel.clone(), |handle, active, admission| {
            let (turn_handle, turn) = self.turn(handle, turn_id, request, cancel, (active, admission));
            (First::Turn(turn), (turn_handle, before(handle.key())))
        });
        launched.map(|(_, begun)| begun)
    }

    /// As [`begin`](Self::begin), for a thread that will wait for the first turn. The wait is announced before the session
    /// can ask for anybody; a fresh session closes no circle.
    fn begin_and_announce(&self, request: CreateSessionRequest) -> Result<(TurnHandle, Wait), SessionError> {
        let (turn, wait) = self.begin(request, Wait::on)?;
        let wait = wait.map_err(|error| error.into_session_error(turn.session_id(), Instant::now()))?;
        Ok((turn, wait))
    }

    /// Admits a turn; the session's thread is not told yet. Dropping the turn gives the admission up.
    fn admit(
        &self,
        id: SessionId,
        request: StartTurnRequest,
    ) -> Result<(Arc<SessionHandle>, TurnHandle, Box<Turn>), SessionError> {
        let refused = |error| self.core.refusal(error);
        let handle = self.core.open(id).map_err(refused)?;
        self.prepare_timeout(request.timeout)?;
        let cancel = CancelToken::new();
        let (turn_id, active, admission) = handle.admit(&cancel).map_err(refused)?;
        let (turn_handle, turn) = self.turn(&handle, turn_id, request, cancel, (active, admission));
        Ok((handle, turn_handle, turn))
    }

    /// Starts a turn that this thread will wait for.
    ///
    /// The wait is announced between the admission and the command. Later, the turn could ask for this session before the
    /// announcement, and this session would be the one to be refused. Earlier, a start that is refused as busy would look
    /// like a wait for a moment, and refuse others.
    fn start(&self, id: SessionId, request: StartTurnRequest) -> Result<(TurnHandle, Wait), SessionError> {
        let failed = |error: WaitError| error.into_session_error(id, Instant::now());
        if let Some(handle) = self.core.registry.find(id) {
            // Rather than that it is busy, which it is too.
            own_thread::refuse_circle(handle.key()).map_err(failed)?;
        }
        let (handle, turn_handle, turn) = self.admit(id, request)?;
        let wait = Wait::on(handle.key()).map_err(failed)?;
        handle.send(Command::Turn(turn));
        Ok((turn_handle, wait))
    }

    fn export_until(&self, id: SessionId, deadline: Option<Instant>) -> Result<Session, SessionError> {
        let handle = self.core.open(id)?;
        request_history(&handle, Command::Export, deadline)
    }
}

/// Passes a turn's events on as they come; then its result. The wait stays announced while `on_event` runs: this thread will
/// come back to it, whatever happens.
fn follow(
    mut stream: TurnStream,
    announced: Wait,
    on_event: &mut dyn FnMut(AgentEvent),
) -> Result<RunResult, SessionError> {
    stream.by_ref().for_each(on_event);
    drop(announced);
    stream.wait()
}

/// Asks a session's thread for the history, and waits for it.
fn request_history(
    handle: &SessionHandle,
    command: fn(HistoryRequest) -> Command,
    deadline: Option<Instant>,
) -> Result<Session, SessionError> {
    let (id, started) = (handle.id(), Instant::now());
    let failed = |error: WaitError| error.into_session_error(id, started);
    let wait = Wait::on(handle.key()).map_err(failed)?;
    let (request, reply) = HistoryReply::new();
    handle.send(command(request));
    let waited = wait.receive(reply.decided().receiver(), deadline);
    // What was decided in the very moment in which the wait ended stands.
    match (reply.give_up(), waited) {
        (Some(result), _) => result,
        (None, Err(error)) => Err(failed(error)),
        (None, Ok(_)) => Err(SessionError::NotFound { id }),
    }
}

impl<B: SessionAgentBuilder> SessionService for Inner<B> {
    fn create_session(&self, request: CreateSessionRequest) -> Result<RunResult, SessionError> {
        let (turn, wait) = self.begin_and_announce(request)?;
        turn.wait_announced(wait)
    }

    fn create_session_with(
        &self,
        mut request: CreateSessionRequest,
        on_event: &mut dyn FnMut(AgentEvent),
    ) -> Result<RunResult, SessionError> {
        let (event_tx, events) = bounded(TurnStream::CAPACITY);
        request.turn = request.turn.event_tx(event_tx);
        let (turn, wait) = self.begin_and_announce(request)?;
        follow(TurnStream::new(turn, events), wait, on_event)
    }

    fn start_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<RunResult, SessionError> {
        let (turn, wait) = self.start(id, request)?;
        turn.wait_announced(wait)
    }

    fn start_turn_with(
        &self,
        id: SessionId,
        request: StartTurnRequest,
        on_event: &mut dyn FnMut(AgentEvent),
    ) -> Result<RunResult, SessionError> {
        let (event_tx, events) = bounded(TurnStream::CAPACITY);
        let (turn, wait) = self.start(id, request.event_tx(event_tx))?;
        follow(TurnStream::new(turn, events), wait, on_event)
    }

    fn export_session(&self, id: SessionId) -> Result<Session, SessionError> {
        self.export_until(id, None)
    }

    fn begin_session(&self, request: CreateSessionRequest) -> Result<TurnHandle, SessionError> {
        self.begin(request, |_| ()).map(|(turn, ())| turn)
    }

    fn begin_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<TurnHandle, SessionError> {
        let (handle, turn_handle, turn) = self.admit(id, request)?;
        handle.send(Command::Turn(turn));
        Ok(turn_handle)
    }

    fn interrupt(&self, id: SessionId) -> Result<(), SessionError> {
        self.core.open(id)?.interrupt(None)
    }

    fn interrupt_turn(&self, id: SessionId, turn: TurnId) -> Result<(), SessionError> {
        self.core.open(id)?.interrupt(Some(turn))
    }

    fn read(&self, id: SessionId) -> Result<SessionView, SessionError> {
        let handle = self.core.registry.find(id);
        handle.and_then(|handle| handle.view()).ok_or(SessionError::NotFound { id })
    }

    fn list(&self, query: SessionQuery) -> Result<Vec<SessionSummary>, SessionError> {
        let page = self.core.registry.page(&query)?;
        Ok(page.iter().map(|handle| handle.summary()).collect())
    }

    fn archive_with(&self, id: SessionId, mode: ArchiveMode) -> Result<(), SessionError> {
        let handle = self.core.registry.find(id).ok_or(SessionError::NotFound { id })?;
        if handle.close(mode, CancelReason::Archived).first || mode == ArchiveMode::Interrupt {
            Ok(())
        } else {
            Err(SessionError::NotFound { id })
        }
    }

    fn open_session(&self, spec: SessionSpec) -> Result<SessionId, SessionError> {
        let started = Instant::now();
        let (reply, opened) = bounded(1);
        let (handle, wait) = self.launch(spec, None, CancelToken::new(), |handle, active, admission| {
            // Announced before the session can ask for anybody.
            (First::Open(Opening { active, admission, reply }), Wait::on(handle.key()))
        })?;
        let id = handle.id();
        match wait.and_then(|wait| wait.receive(&opened, None)) {
            Ok(opened) => {
                opened.unwrap_or(Err(SessionError::NotFound { id })).map_err(|error| self.core.refusal(error))
            }
            Err(error) => {
                // An error means that there is no session: its id may be known to nobody.
                drop(handle.close(ArchiveMode::Interrupt, CancelReason::Archived));
                Err(error.into_session_error(id, started))
            }
        }
    }

    fn export_session_timeout(&self, id: SessionId, timeout: Duration) -> Result<Session, SessionError> {
        self.export_until(id, Some(deadline_after(timeout)))
    }

    fn archive_wait(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        let started = Instant::now();
        let Some(handle) = self.core.registry.find(id) else {
            return if self.core.registry.has_ended(id) { Ok(()) } else { Err(SessionError::NotFound { id }) };
        };
        let failed = |error: WaitError| error.into_session_error(id, started);
        let wait = Wait::on(handle.key()).map_err(failed)?;
        drop(handle.close(ArchiveMode::Drain, CancelReason::Archived));
        let ended = handle.ended().receiver();
        wait.receive(ended, Some(deadline_after(timeout))).map(drop).map_err(failed)
    }

    fn take_session(&self, id: SessionId, timeout: Duration) -> Result<Session, SessionError> {
        let handle = self.core.open(id)?;
        let deadline = Some(deadline_after(timeout));
        let taken = request_history(&handle, Command::Take, deadline)?;
        // So that the caller can resume what it has taken. Too late or interrupted: the history is the caller's all the same.
        let _ = Wait::on(handle.key()).and_then(|wait| wait.receive(handle.ended().receiver(), deadline));
        Ok(taken)
    }
}

/// Gives a new session its id, once and for all: in the specification and in the history that it resumes.
fn identify(spec: &mut SessionSpec) -> SessionId {
    let resumed = spec.resume.as_ref().map(Session::id);
    let id = spec.session_id.or(resumed).unwrap_or_else(SessionId::new);
    spec.session_id = Some(id);
    spec.resume = spec.resume.take().map(|session| session.owned_by(id));
    id
}

/// A name that tells threads apart in a debugger: the end of a version 7 UUID is its random part.
fn thread_name(prefix: &str, id: SessionId) -> String {
    let id = id.to_string();
    format!("{prefix}-{}", &id[id.len() - 6..])
}

/// `timeout` from now; far away, where that is past the end of time.
fn deadline_after(timeout: Duration) -> Instant {
    /// Longer than any process lives: a hundred years.
    const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);
    let now = Instant::now();
    now.checked_add(timeout).or_else(|| now.checked_add(FAR)).unwrap_or(now)
}
