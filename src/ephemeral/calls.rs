//! The calls of a service.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::agent::SessionAgentBuilder;
use crate::comms::CommsRuntime;
use crate::error::{CancelReason, SessionError};
use crate::inbox::injector::{InteractionSubscription, SubscribableInjector};
use crate::model::{
    AgentEvent, InputId, InputResponse, InteractionContent, InteractionId, PendingInput, RunResult, Session, SessionId,
    TurnId,
};
use crate::reentrancy::{Wait, WaitError};
use crate::service::{
    ArchiveMode, CreateSessionRequest, RefusedTurn, SessionQuery, SessionService, SessionSpec, SessionSummary,
    SessionView, StartTurnRequest,
};
use crate::session::command::{Command, HistoryReply, HistoryRequest, TakeCondition, Taken};
use crate::session::handle::SessionHandle;
use crate::subscription::queue::Scope;
use crate::subscription::stream::EventStream;
use crate::subscription::Subscription;
use crate::sync::{bounded, Arc};
use crate::time::clock::{Deadline, Stopwatch};
use crate::turn::handle::TurnHandle;

use super::launch::OpeningReply;
use super::service::Inner;
use super::started::event_channel;

impl<B: SessionAgentBuilder> SessionService for Inner<B> {
    fn create_session(&self, request: CreateSessionRequest) -> Result<RunResult, SessionError> {
        self.prepare_session(request)?.start_with_wait()?.wait()
    }

    fn create_session_with(
        &self,
        request: CreateSessionRequest,
        on_event: &mut dyn FnMut(AgentEvent),
    ) -> Result<RunResult, SessionError> {
        let (event_tx, events) = event_channel();
        self.prepare_session(request.event_tx(event_tx))?.start_with_wait()?.follow(events, on_event)
    }

    fn start_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<RunResult, SessionError> {
        self.start_with_wait(id, request)?.wait()
    }

    fn start_turn_with(
        &self,
        id: SessionId,
        request: StartTurnRequest,
        on_event: &mut dyn FnMut(AgentEvent),
    ) -> Result<RunResult, SessionError> {
        let (event_tx, events) = event_channel();
        self.start_with_wait(id, request.event_tx(event_tx))?.follow(events, on_event)
    }

    fn export_session(&self, id: SessionId) -> Result<Session, SessionError> {
        let handle = self.core.open(id)?;
        request_history(&handle, Command::Export, &self.core.clock().stopwatch(), &Deadline::never())
    }

    fn begin_session(&self, request: CreateSessionRequest) -> Result<TurnHandle, SessionError> {
        self.prepare_session(request)?.start()
    }

    fn begin_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<TurnHandle, SessionError> {
        Ok(self.begin(id, request)?)
    }

    #[allow(clippy::result_large_err)] // See the trait.
    fn try_begin_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<TurnHandle, RefusedTurn> {
        self.begin(id, request)
    }

    fn interrupt(&self, id: SessionId) -> Result<(), SessionError> {
        self.core.open(id)?.interrupt(None)
    }

    fn interrupt_turn(&self, id: SessionId, turn: TurnId) -> Result<(), SessionError> {
        self.core.open(id)?.interrupt(Some(turn))
    }

    fn interrupt_interaction(&self, id: SessionId, interaction: InteractionId) -> Result<(), SessionError> {
        self.core.open(id)?.interrupt_interaction(interaction)
    }

    fn respond(&self, id: SessionId, input: InputId, response: InputResponse) -> Result<(), SessionError> {
        // Also in a closed session: its last turn may have asked.
        self.core.registry.find(id).ok_or(SessionError::NotFound { id })?.respond(input, response)
    }

    fn pending_inputs(&self, id: SessionId) -> Result<Vec<PendingInput>, SessionError> {
        let handle = self.core.registry.find(id).ok_or(SessionError::NotFound { id })?;
        Ok(handle.shared().inputs.all())
    }

    fn steer(
        &self,
        id: SessionId,
        turn: Option<TurnId>,
        content: InteractionContent,
    ) -> Result<InteractionSubscription, SessionError> {
        self.core.open(id)?.steer(turn, content)
    }

    fn read(&self, id: SessionId) -> Result<SessionView, SessionError> {
        let handle = self.core.registry.find(id);
        handle.and_then(|handle| handle.view()).ok_or(SessionError::NotFound { id })
    }

    fn history_at(&self, id: SessionId) -> Result<(Session, u64), SessionError> {
        Ok(self.core.open(id)?.shared().history.get_with_boundary())
    }

    fn list(&self, query: SessionQuery) -> Result<Vec<SessionSummary>, SessionError> {
        self.core.registry.list(&query)
    }

    fn set_labels(&self, id: SessionId, labels: BTreeMap<String, String>) -> Result<(), SessionError> {
        match self.core.registry.set_labels(id, labels.into()) {
            true => Ok(()),
            false => Err(SessionError::NotFound { id }),
        }
    }

    fn archive_with(&self, id: SessionId, mode: ArchiveMode) -> Result<(), SessionError> {
        archive(&*self.core.registry.find(id).ok_or(SessionError::NotFound { id })?, mode)
    }

    fn event_injector(&self, id: SessionId) -> Option<Arc<dyn SubscribableInjector>> {
        self.core.open(id).ok().map(|handle| handle.injector())
    }

    fn comms_runtime(&self, id: SessionId) -> Option<Arc<dyn CommsRuntime>> {
        self.core.open(id).ok()?.comms()
    }

    fn subscribe(&self, id: SessionId, options: Subscription) -> Result<EventStream, SessionError> {
        let handle = self.core.open(id)?;
        let (queue, stream) = self.core.new_stream(options, Scope::OneSession);
        let attached = handle.bus().attach(&queue);
        attached.then(|| stream.of_session(handle.key())).ok_or(SessionError::NotFound { id })
    }

    fn open_session(&self, spec: SessionSpec) -> Result<SessionId, SessionError> {
        let waiting = self.core.clock().stopwatch();
        let opening = self.prepare_opening(spec)?;
        // Announced before the start, because the session may ask for this thread's session as soon as it runs.
        let wait = Wait::on(opening.key());
        let OpeningReply { handle, opened } = opening.start()?;
        let id = handle.id();
        match wait.and_then(|wait| wait.receive(&opened, &Deadline::never())) {
            Ok(opened) => {
                opened.unwrap_or(Err(SessionError::NotFound { id })).map_err(|error| self.core.refusal(error))
            }
            Err(error) => {
                // An error means that there is no session, and the caller may not know its id.
                handle.close(ArchiveMode::Interrupt, CancelReason::Archived).run_hooks();
                Err(error.into_session_error(id, &waiting))
            }
        }
    }

    fn export_session_timeout(&self, id: SessionId, timeout: Duration) -> Result<Session, SessionError> {
        let handle = self.core.open(id)?;
        let waiting = self.core.clock().stopwatch();
        request_history(&handle, Command::Export, &waiting, &waiting.deadline(timeout))
    }

    fn archive_wait(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        match self.core.registry.find(id) {
            Some(handle) => archive_wait(&handle, &self.core.clock().stopwatch(), timeout),
            None if self.core.registry.has_ended(id) => Ok(()),
            None => Err(SessionError::NotFound { id }),
        }
    }

    fn wait_idle(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        let handle = self.core.open(id)?;
        let waiting = self.core.clock().stopwatch();
        let failed = |error: WaitError| error.into_session_error(id, &waiting);
        if handle.gate().state().refusal().is_ok() {
            return Ok(());
        }
        // Before the entry in the list: a refused wait leaves none.
        let wait = Wait::on(handle.key()).map_err(failed)?;
        let Some(idle) = handle.begin_idle_wait()? else { return Ok(()) };
        let report = wait.receive(idle.report(), &waiting.deadline(timeout)).map_err(failed)?;
        handle.idle_result(report)
    }

    fn restart(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        let refused = |error| self.core.refusal(error);
        let handle = self.core.open(id).map_err(refused)?;
        let waiting = self.core.clock().stopwatch();
        let failed = |error: WaitError| error.into_session_error(id, &waiting);
        // Before the restart begins: a refused wait has no effect.
        let wait = Wait::on(handle.key()).map_err(failed)?;
        let (reply, restarted) = bounded(1);
        handle.begin_restart(Some(reply)).map_err(refused)?;
        let restarted = wait.receive(&restarted, &waiting.deadline(timeout)).map_err(failed)?;
        restarted.unwrap_or(Err(SessionError::NotFound { id })).map_err(refused)
    }

    fn take_session(&self, id: SessionId, timeout: Duration) -> Result<Session, SessionError> {
        // If that wait fails, the caller still gets the history.
        self.take(id, timeout, None).map(|(history, _ended)| history)
    }
}

impl<B: SessionAgentBuilder> Inner<B> {
    /// Takes a session, if `condition` allows it.
    pub(super) fn take(
        &self,
        id: SessionId,
        timeout: Duration,
        condition: Option<TakeCondition>,
    ) -> Result<Taken, SessionError> {
        let handle = self.core.open(id)?;
        let waiting = self.core.clock().stopwatch();
        let deadline = waiting.deadline(timeout);
        let command = |request: HistoryRequest| Command::Take(request.on_condition(condition));
        let history = request_history(&handle, command, &waiting, &deadline)?;
        Ok((history, wait_until_ended(&handle, &waiting, &deadline)))
    }
}

/// Closes a session. A second close is an error, unless it is an interrupt.
pub(super) fn archive(handle: &SessionHandle, mode: ArchiveMode) -> Result<(), SessionError> {
    let closed = handle.close(mode, CancelReason::Archived);
    let is_first = closed.first;
    closed.run_hooks();
    if is_first || mode == ArchiveMode::Interrupt {
        Ok(())
    } else {
        Err(SessionError::NotFound { id: handle.id() })
    }
}

/// Closes a session, and waits until its thread holds nothing of it.
pub(super) fn archive_wait(handle: &SessionHandle, waiting: &Stopwatch, timeout: Duration) -> Result<(), SessionError> {
    let failed = |error: WaitError| error.into_session_error(handle.id(), waiting);
    let wait = Wait::on(handle.key()).map_err(failed)?;
    handle.close(ArchiveMode::Drain, CancelReason::Archived).run_hooks();
    let ended = handle.ended().receiver();
    wait.receive(ended, &waiting.deadline(timeout)).map(drop).map_err(failed)
}

/// Waits until the thread of a closed session holds nothing of it.
pub(super) fn wait_until_ended(
    handle: &SessionHandle,
    waiting: &Stopwatch,
    deadline: &Deadline,
) -> Result<(), SessionError> {
    let ended = Wait::on(handle.key()).and_then(|wait| wait.receive(handle.ended().receiver(), deadline));
    ended.map(drop).map_err(|error| error.into_session_error(handle.id(), waiting))
}

/// Requests the history from the session thread, and waits for it.
fn request_history(
    handle: &SessionHandle,
    command: impl FnOnce(HistoryRequest) -> Command,
    waiting: &Stopwatch,
    deadline: &Deadline,
) -> Result<Session, SessionError> {
    let id = handle.id();
    let failed = |error: WaitError| error.into_session_error(id, waiting);
    let wait = Wait::on(handle.key()).map_err(failed)?;
    let (request, reply) = HistoryReply::new();
    handle.send(command(request));
    let waited = wait.receive(reply.decided().receiver(), deadline);
    // A decision made in the moment in which the wait ended stands.
    match (reply.give_up(), waited) {
        (Some(result), _) => result,
        (None, Err(error)) => {
            handle.take_back(|command| command.is_answered_to(&reply));
            Err(failed(error))
        }
        (None, Ok(_)) => Err(SessionError::NotFound { id }),
    }
}
