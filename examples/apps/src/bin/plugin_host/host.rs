//! The host's side of a plugin: it loads the plugin, uses it, and unloads it when no thread runs its code any more.

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

/// A loaded plugin.
pub(crate) struct Plugin {
    name: &'static str,
    service: Box<dyn ServiceControl>,
    weak: WeakService,
    ledger: Ledger,
    sessions: Vec<(SessionId, &'static str)>,
    /// Turns whose results the host has not taken. A result may hold the plugin's types, so the host has to drop them
    /// all.
    turns: Vec<TurnHandle>,
}

/// The outcome of an attempt to unload a plugin.
pub(crate) enum Unload {
    /// Nothing of the plugin is left. A host of shared libraries would unmap its code here.
    Done,
    /// The plugin still has threads. The code has to stay, and the host may try again.
    Refused(Plugin),
    /// The service reports no threads, but something of the plugin is left.
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

    /// The prefix of the names of the plugin's threads.
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

    /// Runs a turn, and waits for its result.
    pub(crate) fn ask(&self, id: SessionId, request: StartTurnRequest) {
        let result = self.service.start_turn(id, request);
        self.say(&format!("{}: {}", self.session(id), in_words(&result)));
    }

    /// Begins a turn, and waits for the first event of its agent. So the turn runs when this returns.
    pub(crate) fn begin(&mut self, id: SessionId, prompt: &str) -> Result<(), Box<dyn Error>> {
        let (event_tx, events) = unbounded();
        self.turns.push(self.service.begin_turn(id, StartTurnRequest::new(prompt).event_tx(event_tx))?);
        let started =
            |event: &AgentEvent| !matches!(event, AgentEvent::RunStarted { .. } | AgentEvent::RunFailed { .. });
        events.iter().find(started).ok_or("the turn has ended at once")?;
        self.say(&format!("{}: in the middle of a turn", self.session(id)));
        Ok(())
    }

    /// Begins a session in host mode, and waits until it has answered one message.
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

    /// Archives a session, and waits for its end. Its thread may then wait for another session.
    pub(crate) fn archive(&self, id: SessionId, limit: Duration) -> Result<(), SessionError> {
        self.service.archive_wait(id, limit)?;
        self.say(&format!("{}: archived", self.session(id)));
        Ok(())
    }

    /// Prints the counts of the plugin.
    pub(crate) fn take_stock(&self) {
        let Ledger { agents, thread_locals, .. } = &self.ledger;
        let threads = self.service.stats().threads;
        self.say(&format!("there are: threads {threads}, agents {agents}, thread-locals {thread_locals}"));
    }

    /// Shuts the plugin's service down, and checks that nothing of the plugin is left.
    pub(crate) fn unload(mut self, limit: Duration) -> Unload {
        let report = self.service.shutdown(limit);
        for &id in &report.stuck {
            self.say(&format!("not unloaded: {} is stuck, the code has to stay", self.session(id)));
        }
        // A thread may be left without a stuck session: the timer thread, which runs the agents' cancel hooks.
        let known = self.service.stats().threads;
        if report.stuck.is_empty() && known > 0 {
            self.say(&format!("not unloaded: no session is stuck, and {known} of its threads are left"));
        }
        if !report.stuck.is_empty() || known > 0 {
            return Unload::Refused(self);
        }
        for turn in std::mem::take(&mut self.turns) {
            let name = self.session(turn.session_id());
            // All turns have ended, so this does not wait.
            self.say(&format!("{name}: {}", in_words(&turn.wait())));
        }
        let (name, prefix) = (self.name, self.prefix());
        let Self { service, weak, ledger, .. } = self;
        // This drops the builder too.
        drop(service);
        // If the system has no list of threads, the figure of the service counts.
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
