//! An agent whose turns are kept, around the host's own.

use crate::agent::{SessionAgent, SessionAgentBuilder, SessionContext};
use crate::comms::CommsRuntime;
use crate::error::AgentError;
use crate::inbox::injector::SubscribableInjector;
use crate::model::{InboxInteraction, RunResult, Session, SessionSnapshot, SkillId};
use crate::panics::contain;
use crate::service::{SessionSpec, WeakService};
use crate::sync::Arc;
use crate::turn::context::TurnContext;

use super::error::StoreError;
use super::kept::Kept;

/// What a session is launched with, in its specification's `extension`. It owns the right to the session's record: where there
/// is no agent in the end, it goes with the specification.
pub(super) struct Launch {
    pub(super) kept: Arc<Kept>,
    /// What the host has put there.
    pub(super) extension: Option<Arc<dyn std::any::Any + Send + Sync>>,
}

pub(super) struct KeepingBuilder<B> {
    pub(super) builder: B,
    /// What agents are to find when they ask for the service: the one that keeps.
    pub(super) service: WeakService,
}

impl<B: SessionAgentBuilder> SessionAgentBuilder for KeepingBuilder<B> {
    type Agent = KeptAgent<B::Agent>;

    fn build_agent(&self, spec: &SessionSpec, session: &SessionContext) -> Result<Self::Agent, AgentError> {
        let Some(launch) = spec.extension_as::<Launch>() else {
            return Err(AgentError::Internal("a session that was not launched by the service that keeps it".into()));
        };
        let spec = SessionSpec { extension: launch.extension.clone(), ..spec.clone() };
        let agent = self.builder.build_agent(&spec, &session.clone().with_service(self.service.clone()))?;
        let agent = KeptAgent { agent, kept: Arc::clone(&launch.kept), is_half_done: false };
        // A session that is there is there for good: from now on, and not from its first turn on. What is kept already is left
        // alone until a turn has changed it.
        if !agent.kept.is_stored() {
            agent.keep().map_err(|error| {
                // A store may have written what it reports as failed, and there is no session.
                if let Err(error) = agent.kept.delete() {
                    log::warn!(target: "turnwise::store", "a session that could not be kept may be in the store: {error}");
                }
                AgentError::other(error)
            })?;
        }
        Ok(agent)
    }
}

/// The fields are in the order in which they are dropped: an agent may still be at work while it is.
pub(super) struct KeptAgent<A: SessionAgent> {
    agent: A,
    kept: Arc<Kept>,
    /// The agent's last turn has failed. Where it is the keeping that has, there is nothing to roll back.
    is_half_done: bool,
}

impl<A: SessionAgent> KeptAgent<A> {
    fn keep(&self) -> Result<(), StoreError> {
        match self.newest() {
            Ok(history) => self.kept.keep(history),
            Err(error) => {
                self.kept.note_behind_agent();
                Err(error)
            }
        }
    }

    fn newest(&self) -> Result<Session, StoreError> {
        let history = contain(|| self.agent.session_clone());
        history.map_err(|message| StoreError::failed(format!("session_clone panicked: {message}")))
    }

    /// A result is the caller's once it is kept. An error is the caller's in any case.
    fn kept(&mut self, result: Result<RunResult, AgentError>, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.kept.set_agent_at_work(false);
        self.is_half_done = result.is_err();
        match result {
            Ok(result) => self.keep().map(|()| result).map_err(AgentError::other),
            // Once `cancel` has rolled back what is half-done.
            Err(error) if turn.is_cancelled() => Err(error),
            Err(error) => {
                self.keep_after_failure();
                Err(error)
            }
        }
    }

    fn keep_after_failure(&self) {
        if let Err(error) = self.keep() {
            log::warn!(target: "turnwise::store", "a turn that has failed is not kept: {error}");
        }
    }
}

/// The last chance for what could not be kept when it happened.
impl<A: SessionAgent> Drop for KeptAgent<A> {
    fn drop(&mut self) {
        if let Err(error) = self.kept.catch_up(|| self.newest()) {
            log::warn!(target: "turnwise::store", "what has come last is not kept: {error}");
        }
    }
}

impl<A: SessionAgent> SessionAgent for KeptAgent<A> {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.kept.set_agent_at_work(true);
        let result = self.agent.run_turn(prompt, turn);
        self.kept(result, turn)
    }

    fn run_interaction(&mut self, interaction: InboxInteraction, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.kept.set_agent_at_work(true);
        let result = self.agent.run_interaction(interaction, turn);
        self.kept(result, turn)
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
        if self.is_half_done {
            self.kept.set_agent_at_work(true);
            self.agent.cancel();
            self.kept.set_agent_at_work(false);
            self.keep_after_failure();
        }
    }

    fn event_injector(&self) -> Option<Arc<dyn SubscribableInjector>> {
        self.agent.event_injector()
    }

    fn comms_runtime(&self) -> Option<Arc<dyn CommsRuntime>> {
        self.agent.comms_runtime()
    }
}
