//! The agent of a worker's session: the host's agent, whose results are kept for the save that answers the clients, and
//! whose input requests the engine decides.

use std::panic::resume_unwind;

use crate::agent::{SessionAgent, SessionAgentBuilder, SessionContext};
use crate::comms::CommsRuntime;
use crate::context::turn::{Remote, TurnContext};
use crate::error::{AgentError, CancelReason, Cancelled, SessionError};
use crate::inbox::injector::SubscribableInjector;
use crate::model::{
    InboxInteraction, InputId, InputRequest, InputResponse, RunResult, Session, SessionId, SessionSnapshot, SkillId,
    TurnId,
};
use crate::panics::{contain, record};
use crate::service::SessionSpec;
use crate::sync::Arc;
use crate::turn::input::RemoteHost;

use super::super::engine::{Call, Engine};
use super::super::messages::{reason_of, Failure, Verdict};
use super::super::scripts;
use super::hosting::{Hosted, Hosting};
use super::store::fenced;

pub(super) struct ReportingBuilder<B> {
    pub(super) builder: B,
    pub(super) engine: Engine,
    pub(super) hosting: Arc<Hosting>,
}

pub(super) struct ReportingAgent<A> {
    agent: A,
    engine: Engine,
    hosting: Arc<Hosting>,
    id: SessionId,
    /// The turn that has failed, until it is rolled back.
    failed: Option<TurnId>,
    /// Whether the last turn was refused. The host's agent knows nothing of it, and has nothing to roll back.
    has_refused: bool,
}

impl<B: SessionAgentBuilder> SessionAgentBuilder for ReportingBuilder<B> {
    type Agent = ReportingAgent<B::Agent>;

    fn build_agent(&self, spec: &SessionSpec, session: &SessionContext) -> Result<Self::Agent, AgentError> {
        let agent = self.builder.build_agent(spec, session)?;
        let (engine, hosting) = (self.engine.clone(), Arc::clone(&self.hosting));
        Ok(ReportingAgent { agent, engine, hosting, id: session.session_id(), failed: None, has_refused: false })
    }
}

impl<A> ReportingAgent<A> {
    /// `None` for a session of an agent's own, which no client knows.
    fn hosted(&self) -> Option<Arc<Hosted>> {
        self.hosting.find(self.id)
    }

    fn run(
        &mut self,
        turn: &TurnContext,
        run: impl FnOnce(&mut A) -> Result<RunResult, AgentError>,
    ) -> Result<RunResult, AgentError> {
        let hosted = self.hosted();
        self.has_refused = false;
        if let Some(hosted) = &hosted {
            hosted.note_own_turn((!turn.is_numbered()).then(|| turn.turn_id()));
            if !turn.is_numbered() {
                // The service refuses it before, unless the session was given to this worker in between.
                self.has_refused = true;
                return Err(AgentError::Config(NOT_LOCAL.into()));
            }
            self.announce_host(hosted, turn);
        }
        let (id, turn_id) = (self.id, turn.turn_id());
        let agent = &mut self.agent;
        let result = note_panic(hosted.as_deref(), turn_id, || run(agent));
        self.failed = result.is_err().then_some(turn_id);
        if let Some(hosted) = hosted {
            let verdict: Verdict = match &result {
                Ok(result) => {
                    // As the session thread does it after this call.
                    let result = RunResult { session_id: id, turn_id, ..result.clone() };
                    Ok(turn.mark_if_cancelled(result))
                }
                Err(source) => Err(Failure::new(&SessionError::Agent { id, source: source.clone() })),
            };
            hosted.set_verdict(turn_id, verdict);
        }
        result
    }

    /// Connects the turn's input requests with the engine.
    fn announce_host(&self, hosted: &Arc<Hosted>, turn: &TurnContext) {
        let epoch = hosted.owner().and_then(|owner| owner.epoch.parse().ok());
        if let Some(epoch) = epoch {
            let host = TurnHost { engine: self.engine.clone(), hosted: Arc::clone(hosted), turn: turn.turn_id() };
            turn.set_remote(Remote { epoch, host: Arc::new(host) });
        }
    }
}

/// Why a turn is refused that an agent has begun by the worker's own service, in a session that the engine gives out. The
/// engine would not know of it: another turn could run at the same time elsewhere.
pub(super) const NOT_LOCAL: &str = "the engine gives out the turns of this session: begin them with a ClusterService";

/// Calls the host's agent. The message of a panic becomes the verdict, and the panic goes on.
fn note_panic<T>(hosted: Option<&Hosted>, turn: TurnId, call: impl FnOnce() -> T) -> T {
    contain(call).unwrap_or_else(|message| {
        if let Some(hosted) = hosted {
            let faulted = SessionError::Faulted { id: hosted.id, message: Arc::clone(&message) };
            hosted.set_verdict(turn, Err(Failure::new(&faulted)));
        }
        resume_unwind(Box::new(message.to_string()))
    })
}

impl<A: SessionAgent> SessionAgent for ReportingAgent<A> {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.run(turn, |agent| agent.run_turn(prompt, turn))
    }

    fn run_interaction(&mut self, interaction: InboxInteraction, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.run(turn, |agent| agent.run_interaction(interaction, turn))
    }

    fn session_clone(&self) -> Session {
        self.agent.session_clone()
    }

    fn snapshot(&self) -> SessionSnapshot {
        self.agent.snapshot()
    }

    fn set_skill_references(&mut self, skills: Option<Vec<SkillId>>) {
        self.agent.set_skill_references(skills);
    }

    fn cancel(&mut self) {
        if std::mem::take(&mut self.has_refused) {
            return;
        }
        match (self.failed.take(), self.hosted()) {
            (Some(turn), Some(hosted)) => {
                let agent = &mut self.agent;
                note_panic(Some(&hosted), turn, || agent.cancel());
            }
            _ => self.agent.cancel(),
        }
    }

    fn event_injector(&self) -> Option<Arc<dyn SubscribableInjector>> {
        self.agent.event_injector()
    }

    fn comms_runtime(&self) -> Option<Arc<dyn CommsRuntime>> {
        self.agent.comms_runtime()
    }
}

/// The clients of a turn, as its input requests see them.
struct TurnHost {
    engine: Engine,
    hosted: Arc<Hosted>,
    turn: TurnId,
}

/// The reason where the engine does not know the turn any more: this worker has lost it.
const LOST: Cancelled = Cancelled { reason: CancelReason::Shutdown };

impl TurnHost {
    fn fenced(&self, script: &'static scripts::Script) -> Option<Call> {
        self.hosted.owner().map(|owner| fenced(script, self.hosted.id, &owner))
    }

    fn report(&self, code: &str) {
        record!(Warn, "turnwise::cluster", "session {}: an input request was not passed on: {code}", self.hosted.id);
    }
}

impl RemoteHost for TurnHost {
    fn ask(&self, input: InputId, request: &InputRequest) -> Result<(), Cancelled> {
        let Some(call) = self.fenced(&scripts::ASK) else { return Err(LOST) };
        let text = serde_json::to_vec(request).unwrap_or_default();
        let options = match request.options.as_slice() {
            [] => Vec::new(),
            options => {
                let ids: Vec<&str> = options.iter().map(|option| option.id.as_str()).collect();
                serde_json::to_vec(&ids).unwrap_or_default()
            }
        };
        let call = call.arg(self.turn.to_string()).arg(input.to_string()).arg(text).arg(options);
        match self.engine.write(call) {
            Ok(answer) if answer.is_list_of("ok") => Ok(()),
            Ok(answer) => Err(match answer.words().as_deref() {
                Some([b"cancelled", reason]) => Cancelled { reason: reason_of(reason) },
                _ => LOST,
            }),
            Err(error) => {
                self.report(error.code());
                Err(LOST)
            }
        }
    }

    fn settle(&self, input: InputId) -> Option<InputResponse> {
        let call = self.fenced(&scripts::SETTLE)?.arg(input.to_string());
        let answer = match self.engine.write(call) {
            Ok(answer) => answer,
            Err(error) => {
                self.report(error.code());
                return None;
            }
        };
        match answer.words().as_deref() {
            Some([b"answered", response]) => serde_json::from_slice(response).ok(),
            _ => None,
        }
    }
}
