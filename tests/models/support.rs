//! Agents for scenarios.

use std::panic;
use std::time::Duration;

use crate::sync::Arc;
use crate::{
    builder_fn, AgentError, CancelReason, CreateSessionRequest, EphemeralSessionService, Message, RunResult, Session,
    SessionAgent, SessionAgentBuilder, SessionError, SessionId, SessionService, SessionSpec, StartTurnRequest,
    TurnContext,
};

/// So far away that no schedule gets there: who waits this long and is not answered is stuck.
pub(crate) const FAR: Duration = Duration::from_secs(86_400);
/// A time that may be over at any moment, or not for long.
pub(crate) const SOON: Duration = Duration::from_millis(1);

type Play = dyn Fn(&str, &TurnContext) -> Result<String, AgentError> + Send + Sync;

/// Does what it was made for, and keeps one message for each turn that went well.
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

/// Builds agents that do in each turn what `play` does.
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

/// What a prompt has an agent do:
///
/// | Prompt | |
/// |---|---|
/// | `wait` | waits for its cancellation |
/// | `fail` | fails |
/// | `panic` | panics |
/// | anything | is the answer |
pub(crate) fn act(prompt: &str, turn: &TurnContext) -> Result<String, AgentError> {
    match prompt {
        "wait" => {
            assert!(turn.cancel_token().cancelled().recv().is_err());
            Err(turn.check().expect_err("the token has fired").into())
        }
        "fail" => Err(AgentError::Internal("as asked".into())),
        "panic" => unwind("as asked"),
        other => Ok(other.to_owned()),
    }
}

/// A panic that no hook reports: thousands of them are part of the scenario.
pub(crate) fn unwind(message: &'static str) -> ! {
    panic::resume_unwind(Box::new(message))
}

/// A service of agents that [`act`], and one session of it that has done nothing yet.
pub(crate) fn with_session() -> (EphemeralSessionService<impl SessionAgentBuilder>, SessionId) {
    let service = EphemeralSessionService::new(actors(act), 4);
    let id = open(&service);
    (service, id)
}

pub(crate) fn open(service: &dyn SessionService) -> SessionId {
    service.open_session(SessionSpec::new()).expect("there is room")
}

pub(crate) fn turn(prompt: &str) -> StartTurnRequest {
    StartTurnRequest::new(prompt)
}

pub(crate) fn create(prompt: &str) -> CreateSessionRequest {
    CreateSessionRequest::new(prompt)
}

/// Ends the service, and sees every thread off.
pub(crate) fn finish<B: SessionAgentBuilder>(service: &EphemeralSessionService<B>) {
    let report = service.shutdown(FAR);
    assert_eq!(report.stuck, []);
    let stats = service.stats();
    assert_eq!((stats.sessions, stats.running_turns), (0, 0));
}

/// Why the turn was cancelled, if it was.
pub(crate) fn reason(result: &Result<RunResult, SessionError>) -> Option<CancelReason> {
    result.as_ref().err().and_then(SessionError::cancel_reason)
}
