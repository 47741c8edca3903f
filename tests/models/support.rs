//! Agents and services for the scenarios.

use std::panic;
use std::time::Duration;

use crate::sync::Arc;
use crate::{
    builder_fn, AgentError, CancelReason, CreateSessionRequest, EphemeralSessionService, Message, RunResult, Session,
    SessionAgent, SessionAgentBuilder, SessionError, SessionId, SessionService, SessionSpec, StartTurnRequest,
    TurnContext,
};

/// A timeout that no schedule reaches. A call that waits this long without an answer is stuck.
pub(crate) const FAR: Duration = Duration::from_secs(86_400);
/// A timeout that may pass at any point of a schedule.
pub(crate) const SOON: Duration = Duration::from_millis(1);

type Play = dyn Fn(&str, &TurnContext) -> Result<String, AgentError> + Send + Sync;

/// An agent that calls `play` in each turn, and adds one message to its history for each turn that succeeds.
pub(crate) struct Actor {
    play: Arc<Play>,
    history: Session,
}

impl SessionAgent for Actor {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let text = (self.play)(&prompt, turn)?;
        self.history.push(Message::assistant(text.as_str()));
        Ok(turn.finish(text))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }
}

/// A builder of agents that call `play` in each turn.
pub(crate) fn actors(
    play: impl Fn(&str, &TurnContext) -> Result<String, AgentError> + Send + Sync + 'static,
) -> impl SessionAgentBuilder<Agent = Actor> {
    let play: Arc<Play> = Arc::new(play);
    builder_fn(move |spec, context| {
        let resumed = spec.resume.clone();
        let history = resumed.unwrap_or_else(|| Session::with_id(context.session_id()));
        Ok(Actor { play: Arc::clone(&play), history })
    })
}

/// Plays a turn by its prompt:
///
/// | Prompt | The turn |
/// |---|---|
/// | `wait` | waits for its cancellation |
/// | `fail` | fails |
/// | `panic` | panics |
/// | any other | succeeds, with the prompt as its text |
pub(crate) fn act(prompt: &str, turn: &TurnContext) -> Result<String, AgentError> {
    match prompt {
        "wait" => {
            assert!(turn.cancel_token().cancelled().recv().is_err());
            Err(turn.check().expect_err("the token is cancelled").into())
        }
        "fail" => Err(AgentError::Internal("as asked".into())),
        "panic" => unwind("as asked"),
        other => Ok(other.to_owned()),
    }
}

/// Panics without a call of the panic hook, which would report thousands of expected panics.
pub(crate) fn unwind(message: &'static str) -> ! {
    panic::resume_unwind(Box::new(message))
}

/// A service whose agents play [`act`], and one idle session that has run no turn.
pub(crate) fn with_session() -> (EphemeralSessionService<impl SessionAgentBuilder>, SessionId) {
    let service = EphemeralSessionService::new(actors(act), 4);
    let id = open(&service);
    (service, id)
}

pub(crate) fn open(service: &dyn SessionService) -> SessionId {
    service.open_session(SessionSpec::new()).expect("there is capacity")
}

pub(crate) fn turn(prompt: &str) -> StartTurnRequest {
    StartTurnRequest::new(prompt)
}

pub(crate) fn create(prompt: &str) -> CreateSessionRequest {
    CreateSessionRequest::new(prompt)
}

/// Shuts the service down, and checks that every thread has ended.
pub(crate) fn finish<B: SessionAgentBuilder>(service: &EphemeralSessionService<B>) {
    let report = service.shutdown(FAR);
    assert_eq!(report.stuck, []);
    let stats = service.stats();
    assert_eq!((stats.sessions, stats.running_turns), (0, 0));
}

/// The reason for which the turn was cancelled, if it was.
pub(crate) fn reason(result: &Result<RunResult, SessionError>) -> Option<CancelReason> {
    result.as_ref().err().and_then(SessionError::cancel_reason)
}
