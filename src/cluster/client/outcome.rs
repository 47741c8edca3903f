//! What has become of a request, for a caller that was not told.

use crate::error::SessionError;
use crate::model::{RequestId, RunResult, SessionId, TurnId};

use super::core::{engine_failed, Outcome};
use super::ClusterService;

/// What has become of a request. Returned by [`ClusterService::outcome`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RequestOutcome {
    /// Its turn has ended with this result.
    Answered(Result<RunResult, SessionError>),
    /// It was about no turn: the agent of a session was to be built, and this is the result. For a request of
    /// [`take_session`](crate::SessionService::take_session), [`SessionError::NotFound`] says that the session was removed.
    Built(Result<(), SessionError>),
    /// It is in flight: the turn runs, or waits in the queue of its session. `None` if it is about no turn.
    Running(Option<TurnId>),
    /// The engine has never seen it. If it comes later, it is refused, so that it may be made again as another request.
    NeverSeen,
}

impl ClusterService {
    /// Asks the engine what has become of a request: after a
    /// [`SessionError::OutcomeUnknown`], which has the name of the request. Any client may ask, for the ten minutes after the
    /// end of the request. Later it is [`RequestOutcome::NeverSeen`] too, so ask soon.
    ///
    /// ```no_run
    /// use turnwise::cluster::{ClusterService, Engine, EngineConfig, RequestOutcome};
    /// use turnwise::{RunResult, SessionError, SessionId, SessionService, StartTurnRequest};
    ///
    /// /// Runs a turn, exactly once, although the engine may be away at the wrong moment.
    /// fn ask(service: &ClusterService, session: SessionId, prompt: &str) -> Result<RunResult, SessionError> {
    ///     loop {
    ///         match service.start_turn(session, StartTurnRequest::new(prompt)) {
    ///             Err(SessionError::OutcomeUnknown { id, request, .. }) => loop {
    ///                 match service.outcome(id, request) {
    ///                     Ok(RequestOutcome::Answered(result)) => return result,
    ///                     Ok(RequestOutcome::NeverSeen) => break, // and never will be: another request is made
    ///                     // It runs, or the engine is still away.
    ///                     _ => std::thread::sleep(std::time::Duration::from_millis(200)),
    ///                 }
    ///             },
    ///             result => return result,
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`SessionError::Store`] with the [`EngineError`](crate::cluster::EngineError). Then nothing was decided.
    ///
    /// # Blocking
    /// For the engine. While it does not answer, for one [lease](crate::cluster::EngineConfig::lease).
    pub fn outcome(&self, id: SessionId, request: RequestId) -> Result<RequestOutcome, SessionError> {
        let outcome = self.core().outcome(id, request, false).map_err(|error| engine_failed(Some(id), error))?;
        Ok(match outcome {
            Outcome::Ended(ended) if ended.turn.get() == 0 => RequestOutcome::Built(ended.result(id).map(drop)),
            Outcome::Ended(ended) => RequestOutcome::Answered(ended.result(id)),
            Outcome::Running(0) => RequestOutcome::Running(None),
            Outcome::Running(turn) => RequestOutcome::Running(Some(TurnId::new(turn))),
            Outcome::NeverSeen => RequestOutcome::NeverSeen,
        })
    }
}
