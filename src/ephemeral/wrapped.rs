//! What a service that adds something to this one has to do as this one does: give out ids, and announce its waits.

use crate::agent::SessionAgentBuilder;
use crate::error::SessionError;
use crate::model::{AgentEvent, RunResult, SessionId};
use crate::service::{CreateSessionRequest, SessionSpec, StartTurnRequest};
use crate::sync::bounded;
use crate::turn::handle::TurnHandle;
use crate::turn::stream::TurnStream;
use crate::wait::own_thread::Wait;

use super::calls::follow;
use super::launch::identify;
use super::service::EphemeralSessionService;

/// A turn that has been started by a thread that will wait for it, with that wait.
#[must_use = "the wait is over when it is dropped"]
pub(crate) struct Awaited {
    turn: TurnHandle,
    wait: Wait,
}

impl Awaited {
    pub(crate) fn wait(self) -> Result<RunResult, SessionError> {
        self.turn.wait_announced(self.wait)
    }
}

impl<B: SessionAgentBuilder> EphemeralSessionService<B> {
    /// Gives a session its id before it is launched.
    pub(crate) fn identify(&self, spec: &mut SessionSpec) -> SessionId {
        identify(spec, &self.inner.core.settings.ids)
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.inner.core.registry.is_shut_down()
    }

    /// Refuses a wait for a session that waits for this thread's, or is this thread's.
    pub(crate) fn refuse_circle(&self, id: SessionId) -> Result<(), SessionError> {
        self.inner.refuse_circle(id)
    }

    /// As `begin_turn`, for a thread that will wait for the turn.
    pub(crate) fn begin_awaited_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<Awaited, SessionError> {
        self.inner.start(id, request).map(|(turn, wait)| Awaited { turn, wait })
    }

    /// As `begin_session`, for a thread that will wait for the turn.
    pub(crate) fn begin_awaited_session(&self, request: CreateSessionRequest) -> Result<Awaited, SessionError> {
        self.inner.begin_and_announce(request).map(|(turn, wait)| Awaited { turn, wait })
    }
}

/// Has a turn's events passed on while the calling thread waits for it. `begin` gets what to put into the request.
pub(crate) fn follow_awaited(
    begin: impl FnOnce(crate::sync::Sender<AgentEvent>) -> Result<Awaited, SessionError>,
    on_event: &mut dyn FnMut(AgentEvent),
) -> Result<RunResult, SessionError> {
    let (event_tx, events) = bounded(TurnStream::CAPACITY);
    let Awaited { turn, wait } = begin(event_tx)?;
    follow(TurnStream::new(turn, events), wait, on_event)
}
