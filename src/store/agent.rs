//! An agent that wraps the host's agent and saves its turns.

use crate::agent::{SessionAgent, SessionAgentBuilder, SessionContext};
use crate::comms::CommsRuntime;
use crate::context::turn::TurnContext;
use crate::error::{AgentError, NotBuilt, SessionError};
use crate::ids::numbers::LastNumbers;
use crate::inbox::injector::SubscribableInjector;
use crate::model::{
    CallbackPending, HistoryChange, InboxInteraction, Message, RunResult, Session, SessionSnapshot, SkillId, TurnId,
};
use crate::panics::{contain, contain_and_log, record};
use crate::service::SessionSpec;
use crate::sync::Arc;

use super::error::{discard, Loggable, Panicked, StoreError};
use super::kept::RecordLease;
use super::save::{TurnEnd, TurnOutcome};

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
        let lease = Arc::clone(&launch.lease);
        // After a restart: the agent that panicked is dropped, and this one resumes the history before it.
        lease.set_agent_running(false);
        let agent = SavingAgent { agent, lease, is_half_done: false, callback: None, cancelled: None };
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
    /// The turn or the interaction that was cancelled, for the save after its roll-back.
    cancelled: Option<Ended>,
}

/// What a save after the agent's run tells of it.
#[derive(Clone, Copy)]
struct Ended {
    used: LastNumbers,
    /// `None` after an interaction, which ends no turn.
    turn: Option<TurnEnd>,
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
        self.save(None).map_err(|error| match error {
            // Another service has created a session with this id meanwhile.
            StoreError::Conflict { id } => AgentError::other(NotBuilt(SessionError::AlreadyExists { id })),
            error => {
                // The save may have written the record although it reports a failure, and there is no session.
                self.lease.withdraw("created");
                AgentError::other(error)
            }
        })
    }

    /// Checks that the agent's history begins with the stored one, a leading system message apart. Checked once,
    /// because the agent's next save replaces the record.
    fn check_resumed(&self, kept: &Session) -> Result<(), StoreError> {
        let own = self.newest()?;
        // An agent that has resumed has a share of the stored history, so there is nothing to compare.
        let is_share = own.change_since(kept) != HistoryChange::Rewritten;
        let mut rest = without_system(&own);
        if is_share || without_system(kept).all(|message| rest.next() == Some(message)) {
            return Ok(());
        }
        Err(StoreError::NotResumed { id: self.lease.id(), kept: kept.iter().len(), has: own.iter().len() })
    }

    /// Saves the agent's history after its run, or after its build.
    fn save(&self, ended: Option<Ended>) -> Result<(), StoreError> {
        let (used, turn) = (ended.map(|ended| ended.used), ended.and_then(|ended| ended.turn));
        match self.newest() {
            Ok(history) => self.lease.save_history(history, used, self.callback.clone(), turn),
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

    /// Runs the agent, and saves after it. If the agent panics, the end of the turn is saved, without a history.
    fn run(
        &mut self,
        turn: &TurnContext,
        run: impl FnOnce(&mut A) -> Result<RunResult, AgentError>,
    ) -> Result<RunResult, AgentError> {
        self.lease.set_agent_running(true);
        let result = {
            let used = || turn.last_numbers();
            let fault = FaultGuard { lease: &self.lease, turn_id: turn.turn_id(), used: &used, is_armed: true };
            let result = run(&mut self.agent);
            fault.disarm();
            result
        };
        self.lease.set_agent_running(false);
        result
    }

    /// Saves after a turn or an interaction. The caller gets a result only once it is saved, and an error in any case.
    fn save_after(
        &mut self,
        result: Result<RunResult, AgentError>,
        turn: &TurnContext,
        ends_turn: bool,
    ) -> Result<RunResult, AgentError> {
        self.is_half_done = result.is_err();
        let outcome = outcome_of(&result, turn);
        let end = TurnEnd { turn_id: turn.turn_id(), outcome };
        let ended = Ended { used: turn.last_numbers(), turn: ends_turn.then_some(end) };
        match result {
            Ok(result) => self.save(Some(ended)).map(|()| result).map_err(AgentError::other),
            // Saved after `cancel` has rolled back the failed turn.
            Err(error) if turn.is_cancelled() => {
                self.cancelled = Some(ended);
                Err(error)
            }
            // The host gets the callback only once it is stored.
            Err(error @ AgentError::CallbackPending { .. }) if self.callback.is_some() => {
                Err(self.save(Some(ended)).map_or_else(AgentError::other, |()| error))
            }
            Err(error) => {
                // For a cancellation that comes after this, and before the end of the turn.
                let outcome = TurnOutcome::Cancelled;
                self.cancelled = Some(Ended { turn: ended.turn.map(|end| TurnEnd { outcome, ..end }), ..ended });
                self.save_after_failure(ended);
                Err(error)
            }
        }
    }

    fn save_after_failure(&self, ended: Ended) {
        match self.save(Some(ended)) {
            // The session thread reports it.
            Err(StoreError::Conflict { .. }) | Ok(()) => {}
            Err(error) => self.report("a turn that failed is not kept", error),
        }
    }

    /// Logs an error of the store that no caller gets.
    fn report(&self, what: &str, error: StoreError) {
        report(&self.lease, what, error);
    }
}

/// Saves the end of a turn whose agent panics: it is dropped while the thread unwinds.
struct FaultGuard<'a> {
    lease: &'a RecordLease,
    turn_id: TurnId,
    used: &'a dyn Fn() -> LastNumbers,
    is_armed: bool,
}

impl FaultGuard<'_> {
    fn disarm(mut self) {
        self.is_armed = false;
    }
}

impl Drop for FaultGuard<'_> {
    fn drop(&mut self) {
        if !self.is_armed {
            return;
        }
        let end = TurnEnd { turn_id: self.turn_id, outcome: TurnOutcome::Faulted };
        if let Err(error) = self.lease.save_fault((self.used)(), end) {
            report(self.lease, "the end of a turn that panicked is not kept", error);
        }
    }
}

fn outcome_of(result: &Result<RunResult, AgentError>, turn: &TurnContext) -> TurnOutcome {
    match result {
        _ if turn.is_cancelled() => TurnOutcome::Cancelled,
        Ok(_) => TurnOutcome::Completed,
        Err(AgentError::CallbackPending { .. }) => TurnOutcome::CallbackPending,
        Err(_) => TurnOutcome::Failed,
    }
}

/// Logs an error of the store that no caller gets.
fn report(lease: &RecordLease, what: &str, error: StoreError) {
    record!(Warn, "turnwise::store", "session {}: {what}: {}", lease.id(), Loggable(&error));
    discard(error);
}

fn without_system(history: &Session) -> impl Iterator<Item = &Message> {
    let mut messages = history.iter().peekable();
    let _system = messages.next_if(|message| matches!(message, Message::System { .. }));
    messages
}

/// Repeats a save or an export that has failed. The history cannot be exported after this.
impl<A: SessionAgent> Drop for SavingAgent<A> {
    fn drop(&mut self) {
        if self.lease.is_lost() {
            return;
        }
        if let Err(error) = self.lease.catch_up(|| self.newest()) {
            self.report("its last turns are not kept", error);
        }
    }
}

impl<A: SessionAgent> SessionAgent for SavingAgent<A> {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let result = self.run(turn, |agent| agent.run_turn(prompt, turn));
        self.callback = Some(result.as_ref().err().and_then(AgentError::callback));
        self.save_after(result, turn, true)
    }

    fn run_interaction(&mut self, interaction: InboxInteraction, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let result = self.run(turn, |agent| agent.run_interaction(interaction, turn));
        self.callback = None;
        self.save_after(result, turn, false)
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
            let ended = self.cancelled.take();
            let used = || ended.map(|ended| ended.used).unwrap_or_default();
            let end = ended.and_then(|ended| ended.turn);
            let fault = end.map(|TurnEnd { turn_id, .. }| FaultGuard {
                lease: &self.lease,
                turn_id,
                used: &used,
                is_armed: true,
            });
            self.agent.cancel();
            fault.into_iter().for_each(FaultGuard::disarm);
            self.lease.set_agent_running(false);
            if let Some(ended) = ended {
                self.save_after_failure(ended);
            }
        }
    }

    fn event_injector(&self) -> Option<Arc<dyn SubscribableInjector>> {
        self.agent.event_injector()
    }

    fn comms_runtime(&self) -> Option<Arc<dyn CommsRuntime>> {
        self.agent.comms_runtime()
    }
}
