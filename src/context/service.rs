//! The service that hosts a session, as one of its turns uses it.

use std::fmt;
use std::time::Duration;

use crate::comms::CommsRuntime;
use crate::error::SessionError;
use crate::inbox::injector::SubscribableInjector;
use crate::model::{AgentEvent, InteractionId, RunResult, Session, SessionId, TurnId};
use crate::reentrancy::{OnBehalf, TurnRef};
use crate::service::{
    forward_session_service, ArchiveMode, CreateSessionRequest, RefusedTurn, SessionQuery, SessionService, SessionSpec,
    SessionSummary, SessionView, StartTurnRequest,
};
use crate::subscription::stream::EventStream;
use crate::subscription::Subscription;
use crate::sync::Arc;
use crate::turn::handle::TurnHandle;
use crate::turn::stream::TurnStream;

use super::turn::TurnContext;

/// The service that hosts a session, for a turn of it; made by [`TurnContext::service`]. Its waits belong to the turn,
/// whichever thread calls:
///
/// - The turn gives its running permit back during the wait.
/// - The cancellation of the turn ends the wait with [`SessionError::Interrupted`].
/// - A wait that would close a cycle is refused with [`SessionError::Reentrant`].
///
/// So scoped threads of an agent may use sub-agents too. The [`TurnHandle`]s and streams obtained here carry the turn
/// with them: a wait with them, on any thread, belongs to the turn until it ends. Afterwards it is a wait of the host. On
/// a session thread every wait belongs to that session instead.
///
/// It holds a strong handle of the service, and ends with the turn at the latest.
///
/// ```
/// use std::thread;
/// use turnwise::{agent_fn, AgentError, CreateSessionRequest, EphemeralSessionService, SessionService};
///
/// // Upper-cases a text by a sub-agent for each word, side by side.
/// let agent = agent_fn(|prompt, turn| {
///     if !prompt.contains(' ') {
///         return Ok(turn.finish(prompt.to_uppercase()));
///     }
///     let service = turn.service().ok_or_else(|| AgentError::Internal("the service is gone".into()))?;
///     let one = |word: &str| service.create_session(CreateSessionRequest::new(word));
///     let words: Result<Vec<String>, _> = thread::scope(|scope| {
///         let tools: Vec<_> = prompt.split(' ').map(|word| scope.spawn(move || one(word))).collect();
///         let joined = turn.without_permit(|| tools.into_iter().map(|tool| tool.join()).collect::<Vec<_>>());
///         joined.into_iter().map(|result| Ok(result.expect("tools do not panic")?.text)).collect()
///     });
///     words.map(|words| turn.finish(words.join(" "))).map_err(|error: turnwise::SessionError| error.into())
/// });
/// let service = EphemeralSessionService::configure(agent).max_running_turns(1).build()?;
/// assert_eq!(service.create_session(CreateSessionRequest::new("side by side"))?.text, "SIDE BY SIDE");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TurnService<'turn> {
    service: Arc<dyn SessionService>,
    turn: TurnRef,
    _context: &'turn TurnContext,
}

/// The service during one call, on a thread that waits on behalf of the turn.
struct Entered<'a> {
    service: &'a dyn SessionService,
    _on_behalf: Option<OnBehalf>,
}

impl TurnContext {
    /// The service that hosts the session, for waits that belong to this turn on whichever thread of it; see
    /// [`TurnService`]. `None` if the host has dropped its last handle.
    pub fn service(&self) -> Option<TurnService<'_>> {
        let service = self.weak_service().upgrade()?;
        Some(TurnService { service, turn: self.turn_ref(), _context: self })
    }
}

impl TurnService<'_> {
    fn enter(&self) -> Entered<'_> {
        Entered { service: &*self.service, _on_behalf: self.turn.enter() }
    }

    fn tag(&self, handle: TurnHandle) -> TurnHandle {
        handle.on_behalf_of(self.turn.clone())
    }
}

impl SessionService for TurnService<'_> {
    fn begin_session(&self, request: CreateSessionRequest) -> Result<TurnHandle, SessionError> {
        self.enter().service.begin_session(request).map(|handle| self.tag(handle))
    }

    fn begin_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<TurnHandle, SessionError> {
        self.enter().service.begin_turn(id, request).map(|handle| self.tag(handle))
    }

    #[allow(clippy::result_large_err)] // See the trait.
    fn try_begin_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<TurnHandle, RefusedTurn> {
        self.enter().service.try_begin_turn(id, request).map(|handle| self.tag(handle))
    }

    fn stream_session(&self, request: CreateSessionRequest) -> Result<TurnStream, SessionError> {
        let stream = self.enter().service.stream_session(request)?;
        Ok(stream.map_handle(|handle| self.tag(handle)))
    }

    fn stream_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<TurnStream, SessionError> {
        let stream = self.enter().service.stream_turn(id, request)?;
        Ok(stream.map_handle(|handle| self.tag(handle)))
    }

    fn subscribe(&self, id: SessionId, options: Subscription) -> Result<EventStream, SessionError> {
        let stream = self.enter().service.subscribe(id, options)?;
        Ok(stream.on_behalf_of(self.turn.clone()))
    }

    forward_session_service!(but_handles self => self.enter().service);
}

impl fmt::Debug for TurnService<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnService").field("turn", &self._context.turn_id()).finish_non_exhaustive()
    }
}
