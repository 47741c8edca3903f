//! What the host does with a plugin: loads it, uses it, and unloads it once nothing of it runs any more.

use std::error::Error;
use std::time::Duration;

use turnwise::crossbeam_channel::unbounded;
use turnwise::{
    AgentEvent, CreateSessionRequest, EphemeralSessionService, EventSource, RunResult, ServiceControl,
    SessionAgentBuilder, SessionError, SessionId, SessionService, SessionSpec, StartTurnRequest, TurnHandle,
    WeakService,
};
use turnwise_apps::say::say;

use crate::ledger::{threads, Ledger};

/// A plugin that is loaded.
pub(crate) struct Plugin {
    name: &'static str,
    service: Box<dyn ServiceControl>,
    weak: WeakService,
    ledger: Ledger,
    sessions: Vec<(SessionId, &'static str)>,
    /// Turns that nobody has waited for. A result may be of the plugin's types, so the host has to let go of all of them.
    turns: Vec<TurnHandle>,
}

/// What an attempt to unload a plugin came to.
pub(crate) enum Unload {
    /// Nothing of it is left: here a host would unmap its code.
    Done,
    /// It has threads: the code has to stay, and the host may try again.
    Refused(Plugin),
    /// It has none, as far as its service knows, and yet something is left.
    Left,
}

impl Plugin {
    pub(crate) fn load<B: SessionAgentBuilder>(
        name: &'static str,
        ledger: Ledger,
        builder: B,
        idle_threads: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let config = EphemeralSessionService::configure(builder)
            .max_sessions(8)
            .idle_threads(idle_threads)
            .thread_name_prefix(name);
        let service = config.build()?;
        let weak = service.downgrade();
        let plugin = Self { name, service: Box::new(service), weak, ledger, sessions: Vec::new(), turns: Vec::new() };
        plugin.say("loaded");
        Ok(plugin)
    }

    pub(crate) fn say(&self, what: &str) {
        say(format_args!("[{}] {what}", self.name));
    }

    /// What the name of each of the plugin's threads begins with.
    fn prefix(&self) -> String {
        format!("{}-", self.name)
    }

    fn session(&self, id: SessionId) -> &'static str {
        self.sessions.iter().find(|(known, _)| *known == id).map_or("?", |(_, name)| *name)
    }

    pub(crate) fn open(&mut self, name: &'static str) -> Result<SessionId, SessionError> {
        let id = self.service.open_session(SessionSpec::new())?;
        self.sessions.push((id, name));
        Ok(id)
    }

    /// A turn from its beginning to its end.
    pub(crate) fn ask(&self, id: SessionId, request: StartTurnRequest) {
        let result = self.service.start_turn(id, request);
        self.say(&format!("{}: {}", self.session(id), in_words(&result)));
    }

    /// A turn that is in the middle of its work when this returns: the first event of the agent's own has come.
    pub(crate) fn begin(&mut self, id: SessionId, prompt: &str) -> Result<(), Box<dyn Error>> {
        let (event_tx, events) = unbounded();
        self.turns.push(self.service.begin_turn(id, StartTurnRequest::new(prompt).event_tx(event_tx))?);
        let started =
            |event: &AgentEvent| !matches!(event, AgentEvent::RunStarted { .. } | AgentEvent::RunFailed { .. });
        events.iter().find(started).ok_or("the turn has ended at once")?;
        self.say(&format!("{}: in the middle of a turn", self.session(id)));
        Ok(())
    }

    /// A session that stays in host mode; it has answered one message when this returns.
    pub(crate) fn host(&mut self, name: &'static str, message: &str) -> Result<(), Box<dyn Error>> {
        let hosting = self.service.begin_session(CreateSessionRequest::new("hello").host_mode(true))?;
        let id = hosting.session_id();
        self.sessions.push((id, name));
        self.turns.push(hosting);
        let injector = self.service.event_injector(id).ok_or("the session is gone")?;
        let interaction = injector.inject_with_subscription(message.into(), EventSource::Other("host".into()))?;
        for event in interaction.events {
            if let AgentEvent::InteractionComplete { result, .. } = event {
                self.say(&format!("{name}: in host mode, and says {result}"));
            }
        }
        Ok(())
    }

    /// The session ends; the thread that it had may wait for another one.
    pub(crate) fn archive(&self, id: SessionId, limit: Duration) -> Result<(), SessionError> {
        self.service.archive_wait(id, limit)?;
        self.say(&format!("{}: archived", self.session(id)));
        Ok(())
    }

    /// What there is of the plugin now.
    pub(crate) fn take_stock(&self) {
        let Ledger { agents, thread_locals, .. } = &self.ledger;
        let threads = self.service.stats().threads;
        self.say(&format!("there are: threads {threads}, agents {agents}, thread-locals {thread_locals}"));
    }

    /// Ends the plugin's service, and looks whether everything of it is gone.
    pub(crate) fn unload(mut self, limit: Duration) -> Unload {
        let report = self.service.shutdown(limit);
        for &id in &report.stuck {
            self.say(&format!("not unloaded: {} is stuck, the code has to stay", self.session(id)));
        }
        // No session has to be stuck for a thread to be left: the one that watches time limits runs the agents' cancel hooks.
        let known = self.service.stats().threads;
        if report.stuck.is_empty() && known > 0 {
            self.say(&format!("not unloaded: no session is stuck, and {known} of its threads are left"));
        }
        if !report.stuck.is_empty() || known > 0 {
            return Unload::Refused(self);
        }
        for turn in std::mem::take(&mut self.turns) {
            let name = self.session(turn.session_id());
            // All turns are over: it does not wait.
            self.say(&format!("{name}: {}", in_words(&turn.wait())));
        }
        let (name, prefix) = (self.name, self.prefix());
        let Self { service, weak, ledger, .. } = self;
        // And the builder with it.
        drop(service);
        // Where the system does not tell, the service has to be believed.
        let threads = threads(&prefix).unwrap_or(known);
        let is_done = threads == 0 && weak.upgrade().is_none() && ledger.is_settled();
        let verdict = if is_done { "unloaded" } else { "SOMETHING IS LEFT" };
        let Ledger { builders, agents, thread_locals } = &ledger;
        say(format_args!(
            "[{name}] {verdict}: threads {threads}, builders {builders}, agents {agents}, thread-locals {thread_locals}"
        ));
        if is_done {
            Unload::Done
        } else {
            Unload::Left
        }
    }
}

fn in_words(result: &Result<RunResult, SessionError>) -> String {
    match result {
        Ok(result) => result.text.clone(),
        Err(error) => match error.cancel_reason() {
            Some(reason) => format!("told to stop: {reason}"),
            None => format!("failed: {error}"),
        },
    }
}
