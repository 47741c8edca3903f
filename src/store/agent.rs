//! An agent that wraps the host's agent and saves its turns.

use crate::agent::{SessionAgent, SessionAgentBuilder, SessionContext};
use crate::comms::CommsRuntime;
use crate::context::turn::TurnContext;
use crate::error::{AgentError, NotBuilt};
use crate::ids::numbers::LastNumbers;
use crate::inbox::injector::SubscribableInjector;
use crate::model::{CallbackPending, InboxInteraction, Message, RunResult, Session, SessionSnapshot, SkillId};
use crate::panics::{contain, contain_and_log, record};
use crate::service::SessionSpec;
use crate::sync::Arc;

use super::error::{discard, Loggable, Panicked, StoreError};
use super::kept::RecordLease;

/// The launch data of a session, in its specification's `extension`.
pub(super) struct Launch {
    pub(super) lease: Arc<RecordLease>,
    /// The host's own extension.
    pub(super) extension: Option<Arc<dyn std::any::Any + Send + Sync>>,
}

pub(super) struct SavingBuilder<B> {
    pub(super) builder: B,
}

impl<B: SessionAgentBuilder> SessionAgentBuilder for SavingBuilder<B> {
    type Agent = SavingAgent<B::Agent>;

    fn build_agent(&self, spec: &SessionSpec, session: &SessionContext) -> Result<Self::Agent, AgentError> {
        let Some(launch) = spec.extension_as::<Launch>() else {
            return Err(AgentError::Internal("a session that was not launched by the service that keeps it".into()));
        };
        let spec = SessionSpec { extension: launch.extension.clone(), ..spec.clone() };
        let agent = self.builder.build_agent(&spec, session)?;
        // After a restart: the agent that panicked is dropped, and this one resumes the history before it.
        launch.lease.set_agent_running(false);
        let agent = SavingAgent { agent, lease: Arc::clone(&launch.lease), is_half_done: false, callback: None };
        match agent.begin(&spec) {
            Ok(()) => Ok(agent),
            Err(error) => {
                // Before the error is returned: a panic of this drop would discard the error.
                contain_and_log("the drop of an agent", move || drop(agent));
                Err(error)
            }
        }
    }
}

/// The fields are in drop order: the drop of an agent may still run code that needs the lease.
pub(super) struct SavingAgent<A: SessionAgent> {
    agent: A,
    lease: Arc<RecordLease>,
    /// The agent's last turn has failed. If only the save has failed, there is nothing to roll back.
    is_half_done: bool,
    /// The callback with which the turn has ended, for its save. `None` in an interaction, which leaves the callback as
    /// it is.
    callback: Option<Option<CallbackPending>>,
}

impl<A: SessionAgent> SavingAgent<A> {
    /// Checks that the agent resumed, and saves a new session now instead of after its first turn.
    fn begin(&self, spec: &SessionSpec) -> Result<(), AgentError> {
        if let Some(kept) = spec.resume.as_ref().filter(|_| !spec.rewrites_history) {
            self.check_resumed(kept).map_err(|error| AgentError::other(NotBuilt(error.about(self.lease.id()))))?;
        }
        // A stored record stays unchanged until a turn has changed the history.
        if self.lease.is_stored() {
            return Ok(());
        }
        self.save(None).map_err(|error| {
            // The save may have written the record although it reports a failure, and there is no session.
            self.lease.withdraw("created");
            AgentError::other(error)
        })
    }

    /// Checks that the agent's history begins with the stored one, a leading system message apart. Checked once,
    /// because the agent's next save replaces the record.
    fn check_resumed(&self, kept: &Session) -> Result<(), StoreError> {
        let own = self.newest()?;
        let (kept, own) = (kept.messages(), own.messages());
        if without_system(own).starts_with(without_system(kept)) {
            return Ok(());
        }
        Err(StoreError::NotResumed { id: self.lease.id(), kept: kept.len(), has: own.len() })
    }

    /// Saves the agent's history, and the numbers that were used up to the end of a turn.
    fn save(&self, used: Option<LastNumbers>) -> Result<(), StoreError> {
        match self.newest() {
            Ok(history) => self.lease.save_history(history, used, self.callback.clone()),
            Err(error) => {
                self.lease.note_behind_agent();
                Err(error)
            }
        }
    }

    fn newest(&self) -> Result<Session, StoreError> {
        let history = contain(|| self.agent.session_clone());
        history.map_err(|message| StoreError::failed(Panicked { of: "session_clone", message }))
    }

    /// Saves after a turn. The caller gets a result only once it is saved, and an error in any case.
    fn save_after_turn(
        &mut self,
        result: Result<RunResult, AgentError>,
        turn: &TurnContext,
    ) -> Result<RunResult, AgentError> {
        self.lease.set_agent_running(false);
        self.is_half_done = result.is_err();
        let used = Some(turn.last_numbers());
        match result {
            Ok(result) => self.save(used).map(|()| result).map_err(AgentError::other),
            // Saved after `cancel` has rolled back the failed turn.
            Err(error) if turn.is_cancelled() => Err(error),
            // The host gets the callback only once it is stored.
            Err(error @ AgentError::CallbackPending { .. }) if self.callback.is_some() => {
                Err(self.save(used).map_or_else(AgentError::other, |()| error))
            }
            Err(error) => {
                self.save_after_failure(used);
                Err(error)
            }
        }
    }

    fn save_after_failure(&self, used: Option<LastNumbers>) {
        if let Err(error) = self.save(used) {
            self.report("a turn that failed is not kept", error);
        }
    }

    /// Logs an error of the store that no caller gets.
    fn report(&self, what: &str, error: StoreError) {
        record!(Warn, "turnwise::store", "session {}: {what}: {}", self.lease.id(), Loggable(&error));
        discard(error);
    }
}

fn without_system(messages: &[Message]) -> &[Message] {
    match messages {
        [Message::System { .. }, rest @ ..] => rest,
        all => all,
    }
}

/// Repeats a save or an export that has failed. The history cannot be exported after this.
impl<A: SessionAgent> Drop for SavingAgent<A> {
    fn drop(&mut self) {
        if let Err(error) = self.lease.catch_up(|| self.newest()) {
            self.report("its last turns are not kept", error);
        }
    }
}

impl<A: SessionAgent> SessionAgent for SavingAgent<A> {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.lease.set_agent_running(true);
        let result = self.agent.run_turn(prompt, turn);
        self.callback = Some(result.as_ref().err().and_then(AgentError::callback));
        self.save_after_turn(result, turn)
    }

    fn run_interaction(&mut self, interaction: InboxInteraction, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.lease.set_agent_running(true);
        let result = self.agent.run_interaction(interaction, turn);
        self.callback = None;
        self.save_after_turn(result, turn)
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
            self.lease.set_agent_running(true);
            self.agent.cancel();
            self.lease.set_agent_running(false);
            self.save_after_failure(None);
        }
    }

    fn event_injector(&self) -> Option<Arc<dyn SubscribableInjector>> {
        self.agent.event_injector()
    }

    fn comms_runtime(&self) -> Option<Arc<dyn CommsRuntime>> {
        self.agent.comms_runtime()
    }
}
