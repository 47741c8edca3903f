//! The calls of the service.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use crate::cluster::engine::{unexpected, Call};
use crate::cluster::scripts;
use crate::comms::CommsRuntime;
use crate::ephemeral::started::event_channel;
use crate::error::{CancelReason, SessionError};
use crate::inbox::injector::{InteractionSubscription, SubscribableInjector};
use crate::model::{
    AgentEvent, InputId, InputResponse, InteractionContent, PendingInput, RunResult, Session, SessionId, TurnId,
};
use crate::reentrancy::Wait;
use crate::service::{
    ArchiveMode, CreateSessionRequest, RefusedTurn, SessionQuery, SessionService, SessionSpec, SessionSummary,
    SessionView, StartTurnRequest,
};
use crate::subscription::stream::EventStream;
use crate::subscription::Subscription;
use crate::sync::Arc;
use crate::turn::handle::TurnHandle;
use crate::turn::stream::TurnStream;

use super::core::{engine_failed, Core};
use super::sender::Job;
use super::waiting::Waiting;
use super::ClusterService;
use crate::cluster::messages::reason_word;

impl SessionService for ClusterService {
    fn start_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<RunResult, SessionError> {
        // Before the turn begins: a refused wait has no effect.
        let wait = self.core().announce_wait(id)?;
        self.begin_turn(id, request)?.wait_announced(wait)
    }

    fn start_turn_with(
        &self,
        id: SessionId,
        request: StartTurnRequest,
        on_event: &mut dyn FnMut(AgentEvent),
    ) -> Result<RunResult, SessionError> {
        let wait = self.core().announce_wait(id)?;
        let (event_tx, events) = event_channel();
        let turn = self.begin_turn(id, request.event_tx(event_tx))?;
        let mut stream = TurnStream::new(turn, events);
        stream.by_ref().for_each(on_event);
        // The stream announces its own wait.
        wait.end();
        stream.wait()
    }

    fn begin_session(&self, request: CreateSessionRequest) -> Result<TurnHandle, SessionError> {
        self.core().begin_session(request)
    }

    fn begin_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<TurnHandle, SessionError> {
        self.core().begin(id, request).map_err(|refused| (*refused).into())
    }

    #[allow(clippy::result_large_err)] // See the trait.
    fn try_begin_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<TurnHandle, RefusedTurn> {
        self.core().begin(id, request).map_err(|refused| *refused)
    }

    fn open_session(&self, spec: SessionSpec) -> Result<SessionId, SessionError> {
        let (id, accepted) = self.core().open(&spec)?;
        let waiting = Waiting::new(id, None);
        let waited = self.core().announce_wait(id).and_then(|wait| {
            let waited = wait.wait_for(accepted.outcome.finished(), waiting.deadline());
            waited.map_err(|error| waiting.error(error))
        });
        if let Err(error) = waited {
            // An error means that there is no session: it gets no turns, and is removed when it is built.
            let _ = self.core().archive(id, ArchiveMode::Interrupt);
            let _ = self.core().jobs.send(Job::Withdraw(id, accepted.outcome));
            return Err(error);
        }
        accepted.outcome.take().unwrap_or(Err(SessionError::NotFound { id })).map(|_| id)
    }

    fn restart(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        self.core().restart(id, timeout)
    }

    fn interrupt(&self, id: SessionId) -> Result<(), SessionError> {
        self.core().interrupt(id, None)
    }

    fn interrupt_turn(&self, id: SessionId, turn: TurnId) -> Result<(), SessionError> {
        self.core().interrupt(id, Some(turn))
    }

    fn respond(&self, id: SessionId, input: InputId, response: InputResponse) -> Result<(), SessionError> {
        self.core().respond(id, input, &response)
    }

    fn pending_inputs(&self, id: SessionId) -> Result<Vec<PendingInput>, SessionError> {
        self.core().pending_inputs(id)
    }

    fn steer(
        &self,
        id: SessionId,
        turn: Option<TurnId>,
        content: InteractionContent,
    ) -> Result<InteractionSubscription, SessionError> {
        self.core().steer(id, turn, &content)
    }

    fn read(&self, id: SessionId) -> Result<SessionView, SessionError> {
        self.core().read(id)
    }

    fn history_at(&self, id: SessionId) -> Result<(Session, u64), SessionError> {
        self.core().history_at(id)
    }

    fn list(&self, query: SessionQuery) -> Result<Vec<SessionSummary>, SessionError> {
        self.core().list(&query)
    }

    fn set_labels(&self, id: SessionId, labels: BTreeMap<String, String>) -> Result<(), SessionError> {
        self.core().set_labels(id, &labels)
    }

    fn archive_with(&self, id: SessionId, mode: ArchiveMode) -> Result<(), SessionError> {
        self.core().archive(id, mode)
    }

    fn event_injector(&self, _: SessionId) -> Option<Arc<dyn SubscribableInjector>> {
        None
    }

    fn comms_runtime(&self, _: SessionId) -> Option<Arc<dyn CommsRuntime>> {
        None
    }

    fn subscribe(&self, id: SessionId, options: Subscription) -> Result<EventStream, SessionError> {
        self.core().subscribe(id, options)
    }

    fn export_session(&self, id: SessionId) -> Result<Session, SessionError> {
        self.core().export(id, None)
    }

    fn export_session_timeout(&self, id: SessionId, timeout: Duration) -> Result<Session, SessionError> {
        self.core().export(id, Some(timeout))
    }

    fn archive_wait(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        self.core().archive_wait(id, timeout)
    }

    fn wait_idle(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        self.core().wait_idle(id, timeout)
    }

    fn take_session(&self, id: SessionId, timeout: Duration) -> Result<Session, SessionError> {
        self.core().take_session(id, timeout)
    }
}

impl Core {
    /// Announces a wait of this thread for a session.
    fn announce_wait(&self, id: SessionId) -> Result<Wait, SessionError> {
        Wait::on(self.key_of(id)).map_err(|error| Waiting::new(id, None).error(error))
    }

    fn interrupt(&self, id: SessionId, turn: Option<TurnId>) -> Result<(), SessionError> {
        let turn = turn.map(|turn| turn.to_string()).unwrap_or_default();
        let call = Call::new(&scripts::INTERRUPT).arg(id.to_string()).arg(turn);
        let request = Uuid::now_v7().to_string();
        let answer = self.engine.write(call.arg(reason_word(CancelReason::Interrupted)).arg(request));
        let answer = answer.map_err(|error| engine_failed(Some(id), error))?;
        match answer.words().as_deref() {
            Some([b"ok", _]) => Ok(()),
            Some([b"missing"]) => Err(SessionError::NotFound { id }),
            Some([b"archived"]) => Err(SessionError::Archived { id }),
            Some([b"idle"]) => Err(SessionError::NotRunning { id }),
            _ => Err(engine_failed(Some(id), unexpected(&scripts::INTERRUPT))),
        }
    }

    fn respond(&self, id: SessionId, input: InputId, response: &InputResponse) -> Result<(), SessionError> {
        let (kind, answer) = match response {
            InputResponse::Answer(answer) => ("answer", answer.as_str()),
            InputResponse::Declined { .. } => ("declined", ""),
        };
        let body = serde_json::to_vec(response).map_err(|_| engine_failed(Some(id), unexpected(&scripts::RESPOND)))?;
        let call = Call::new(&scripts::RESPOND).arg(id.to_string()).arg(Uuid::now_v7().to_string());
        let answer = self.engine.write(call.arg(input.to_string()).arg(kind).arg(answer).arg(body));
        let answer = answer.map_err(|error| engine_failed(Some(id), error))?;
        match answer.words().as_deref() {
            Some([b"ok"]) => Ok(()),
            Some([b"missing"]) => Err(SessionError::NotFound { id }),
            Some([b"settled"]) => Err(SessionError::InputNotPending { id, input }),
            Some([b"invalid"]) => Err(SessionError::InvalidAnswer { id, input }),
            _ => Err(engine_failed(Some(id), unexpected(&scripts::RESPOND))),
        }
    }

    fn set_labels(&self, id: SessionId, labels: &BTreeMap<String, String>) -> Result<(), SessionError> {
        let labels = serde_json::to_vec(labels).map_err(|_| engine_failed(Some(id), unexpected(&scripts::LABEL)))?;
        let call = Call::new(&scripts::LABEL).arg(id.to_string()).arg(labels);
        let answer = self.engine.write(call).map_err(|error| engine_failed(Some(id), error))?;
        match answer.words().as_deref() {
            Some([b"ok"]) => Ok(()),
            Some([b"missing"]) => Err(SessionError::NotFound { id }),
            Some([b"archived"]) => Err(SessionError::Archived { id }),
            _ => Err(engine_failed(Some(id), unexpected(&scripts::LABEL))),
        }
    }
}
