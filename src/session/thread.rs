//! The life of a session thread: it builds the agent, serves commands one at a time, and drops the agent.
//!
//! Only user code may panic here, and every call of it goes through [`contain`].
//!
//! Every session has a stack, and stack memory that was once used stays allocated. So functions that few turns need are
//! never inlined: their variables are on the stack only while they run.

use crate::agent::{SessionAgent, SessionAgentBuilder, SessionContext};
use crate::cancel::CancelToken;
use crate::context::turn::TurnContext;
use crate::error::{AgentError, Cancelled, SessionError};
use crate::inbox::queue::Incoming;
use crate::model::{CallbackPending, InboxInteraction, RunResult, Session, TurnId};
use crate::panics::{contain, contain_and_log, record, PanicMessage};
use crate::reentrancy::{CurrentSession, RunningPermit};
use crate::service::{RestartPolicy, SessionSpec};
use crate::spans::SessionSpan;
use crate::status::history::{Commit, CommittedHistory};
use crate::sync::{never, select, Arc};
use crate::turn::events::EventSender;
use crate::turn::handle::TurnResult;
use crate::wait::polling;

use super::command::{Command, HistoryRequest};
use super::first::{First, FirstStep, LastReply};
use super::handle::SessionHandle;
use super::hosting::{HostSources, Hosting};
use super::restart::{AdmittedRestart, Blueprint, RestartLimit};
use super::running::{Input, RunningTurn, Turn};
use super::unload::{UnloadDecision, UnloadPolicy, UnloadRequest, Unloading};

/// The start data of a session thread.
pub(crate) struct Start<B> {
    pub(crate) builder: Arc<B>,
    /// In a box: it stays with the session, and the stack of a session is memory that each session has.
    pub(crate) spec: Box<SessionSpec>,
    pub(crate) context: SessionContext,
    pub(crate) handle: Arc<SessionHandle>,
    pub(crate) first: First,
    pub(crate) restart_policy: Option<RestartPolicy>,
    pub(crate) unload_policy: UnloadPolicy,
}

/// Runs a session from its build to its end, on the calling thread. If the build has failed, or another writer has changed
/// the session's record, it returns the last reply, still unsent.
pub(crate) fn run<B: SessionAgentBuilder>(start: Start<B>) -> Option<Box<LastReply>> {
    let Start { builder, spec, context, handle, first, restart_policy, unload_policy } = start;
    let id = handle.id();
    let cancel = context.cancel_token().clone();
    let own = CurrentSession::enter(id, handle.key(), Arc::clone(&handle.shared().permit), cancel);
    let span = SessionSpan::new(id);
    let mut first = FirstStep::take_up(first, &handle, &span);
    let mut blueprint = Blueprint::new(builder, spec);
    let agent = match first.build(&mut blueprint, context, &span) {
        Ok(agent) => agent,
        Err(source) => {
            blueprint.release();
            record!(Debug, "turnwise::session", "session {id}: not built");
            let reply = first.fail(source.into_session_error(id), &handle);
            handle.close_commands();
            return Some(Box::new(reply));
        }
    };
    record!(Debug, "turnwise::session", "session {id}: built");
    let has_callback = handle.shared().callback().is_some();
    let mut thread = SessionThread {
        agent: Some(agent),
        blueprint,
        restart_limit: RestartLimit::new(restart_policy),
        unloading: Unloading::new(unload_policy),
        handle,
        takeovers: Vec::new(),
        hosting: None,
        has_callback,
        is_warm: false,
        last_reply: None,
        own,
        span,
    };
    thread.show_agent();
    thread.begin_idle_time();
    // Each call of user code is contained on its own. This is the second barrier: an agent is never dropped while its
    // thread unwinds, because a second panic would abort the program.
    contain_and_log("a session's thread", || {
        if let Some((turn, input)) = first.succeed(&thread.handle) {
            thread.run_turn(turn, input);
        }
        thread.serve();
    });
    // Waiting callers are answered now, however long the drop of the agent takes.
    thread.handle.close_commands();
    thread.takeovers.clear();
    let hosting = thread.hosting.take();
    contain_and_log("the drop of a turn", move || drop(hosting));
    thread.drop_agent();
    thread.blueprint.release();
    record!(Debug, "turnwise::session", "session {id}: ended");
    thread.last_reply
}

/// The owner of an agent.
struct SessionThread<B: SessionAgentBuilder> {
    /// `None` during a restart, and in a faulted session after a restart whose build has failed.
    agent: Option<B::Agent>,
    blueprint: Blueprint<B>,
    restart_limit: RestartLimit,
    unloading: Unloading,
    handle: Arc<SessionHandle>,
    /// Requests that arrived while a turn was admitted. They are decided after it.
    takeovers: Vec<HistoryRequest>,
    /// The turn that is in host mode, between two interactions.
    /// In a box, since it is large and few sessions have one. So are the next reply and the specification.
    hosting: Option<Box<Hosting>>,
    /// The session shows a pending callback.
    has_callback: bool,
    /// A turn has just ended, so the thread polls for the next one.
    is_warm: bool,
    /// The reply of the turn with which the session has ended, because another writer has changed its record.
    last_reply: Option<Box<LastReply>>,
    own: CurrentSession,
    span: SessionSpan,
}

/// What the session thread does next.
enum Event {
    Command(Command),
    /// An interaction has arrived in host mode, with the token that cancels it alone.
    Interaction(Incoming, CancelToken),
    /// Host mode ends with this result.
    HostingOver(Result<(), Cancelled>),
}

/// The arm of the `select!` that was ready.
enum Ready {
    Commands,
    Inbox,
    /// `None` if the peers' channel is disconnected.
    Comms(Option<InboxInteraction>),
    Cancelled,
}

impl<B: SessionAgentBuilder> SessionThread<B> {
    fn serve(&mut self) {
        loop {
            if let Some(claim) = self.unloading.claim() {
                if self.unload_if_unused() == UnloadDecision::Unloaded {
                    self.handle.keep_claim(claim);
                }
            }
            let Some(event) = self.next_event() else { return };
            match event {
                Event::Command(Command::Turn(turn)) => self.on_turn(turn),
                Event::Command(Command::Restart(restart)) => self.on_restart(restart),
                Event::Command(Command::Export(request)) => self.on_export(&request),
                Event::Command(Command::Take(request)) => self.takeovers.push(request),
                Event::Command(Command::Unload(request)) => self.on_unload(request),
                Event::Command(Command::Wake) => {}
                Event::Interaction(incoming, cancel) => self.on_interaction(incoming, cancel),
                Event::HostingOver(end) => self.on_hosting_over(end),
            }
            self.decide_takeovers();
        }
    }

    /// The next event, or `None` when the session ends.
    fn next_event(&mut self) -> Option<Event> {
        loop {
            if self.loss().is_some() {
                self.handle.close_lost();
            }
            let gate = self.handle.gate().state();
            if let Some(end) = self.hosting_end() {
                return Some(Event::HostingOver(end));
            }
            if gate.is_closed() && !gate.is_running() {
                // Commands sent before the close are still answered.
                return self.handle.commands().pop().map(Event::Command);
            }
            if let Some(command) = self.poll_for_command() {
                return Some(Event::Command(command));
            }
            if let Some(event) = self.wait_for_event() {
                return Some(event);
            }
        }
    }

    /// The result with which host mode ends now, if it does.
    fn hosting_end(&self) -> Option<Result<(), Cancelled>> {
        // Not read from the gate: a close that cancels sets the gate first, then cancels the token, and is done only
        // then. By the gate alone, host mode would end with success in the middle of such a close.
        let is_closed = self.handle.is_close_done();
        self.hosting.as_ref().and_then(|hosting| hosting.end(is_closed))
    }

    /// Polls for a command for a short time after a turn, because the next turn often arrives at once.
    fn poll_for_command(&mut self) -> Option<Command> {
        if !std::mem::take(&mut self.is_warm) {
            return None;
        }
        let commands = self.handle.commands();
        polling::poll_for_work(|| commands.has_items());
        if commands.has_items() {
            commands.pop()
        } else {
            None
        }
    }

    /// Waits for the next event. The session thread waits for work nowhere else. Returns `None` after a wake-up without
    /// an event, or with one that [`next_event`](Self::next_event) finds.
    ///
    /// An arm without a source is a channel that is never ready.
    fn wait_for_event(&mut self) -> Option<Event> {
        let (commands, inbox) = (self.handle.commands(), &self.handle.shared().inbox);
        let (silent, no_sources) = (never(), HostSources::none());
        let (inbox_ready, sources) = match &self.hosting {
            Some(hosting) => (inbox.ready(), &hosting.sources),
            None => (&silent, &no_sources),
        };
        let ready = select! {
            recv(commands.ready()) -> _ => Ready::Commands,
            recv(inbox_ready) -> _ => Ready::Inbox,
            recv(sources.comms) -> interaction => Ready::Comms(interaction.ok()),
            recv(sources.cancelled) -> _ => Ready::Cancelled,
        };
        // After any arm, and before any work: see `wait::work_queue`.
        commands.end_wait();
        let Some(hosting) = &mut self.hosting else {
            return commands.pop().map(Event::Command);
        };
        inbox.end_wait();
        match ready {
            Ready::Commands => commands.pop().map(Event::Command),
            Ready::Inbox => {
                let cancel = hosting.token_of_next();
                match inbox.take_next(&cancel) {
                    Some(incoming) => Some(Event::Interaction(incoming, cancel)),
                    None => {
                        hosting.discard_token(&cancel);
                        None
                    }
                }
            }
            Ready::Comms(Some(interaction)) => {
                let (incoming, cancel) = (Incoming::without_subscriber(interaction), hosting.token_of_next());
                inbox.begin_running(&incoming, &cancel);
                Some(Event::Interaction(incoming, cancel))
            }
            Ready::Comms(None) => {
                hosting.sources.comms = never();
                None
            }
            // Host mode ends: `next_event` reads the token.
            Ready::Cancelled => None,
        }
    }

    fn on_turn(&mut self, turn: Turn) {
        let (turn, input) = RunningTurn::take_up(turn, &self.handle, &self.span);
        self.run_turn(turn, input);
    }

    /// Runs a turn that is picked up, until its answer or the beginning of host mode.
    fn run_turn(&mut self, mut turn: RunningTurn, input: Input) {
        let Input { prompt, skills, host_mode } = input;
        let mut callback = None;
        let result = self.step(&mut turn, |agent, context| {
            agent.set_skill_references(skills);
            let result = agent.run_turn(prompt, context);
            callback = result.as_ref().err().and_then(AgentError::callback);
            result
        });
        self.note_callback(callback);
        if !host_mode || result.is_err() {
            turn.end_steering();
        }
        if host_mode && result.is_ok() {
            turn.settle_in_host_mode(&result);
        } else {
            turn.settle(&result);
        }
        match result {
            Ok(result) if host_mode => self.begin_hosting(turn, result),
            result if host_mode => self.end_hosting(turn, result),
            result => self.end_turn(turn, result),
        }
    }

    /// Shows the callback with which a turn has ended, or that it has ended otherwise.
    fn note_callback(&mut self, callback: Option<CallbackPending>) {
        if callback.is_some() || self.has_callback {
            self.has_callback = callback.is_some();
            self.handle.shared().set_callback(callback);
        }
    }

    #[inline(never)] // See the head of this file.
    fn begin_hosting(&mut self, mut turn: RunningTurn, result: RunResult) {
        turn.release_permit();
        let entered = turn.context().events().span().enter();
        self.update_endpoints();
        let comms = self.handle.comms();
        let comms_inbox = comms.and_then(|comms| {
            let inbox = contain(|| comms.inbox()).unwrap_or_else(|_| {
                record!(Error, "turnwise::session", "session {}: comms inbox panicked", self.handle.id());
                None
            });
            contain_and_log("the drop of an agent's comms", move || drop(comms));
            inbox
        });
        let sources = HostSources {
            comms: comms_inbox.unwrap_or_else(never),
            cancelled: turn.context().cancel_token().cancelled().clone(),
        };
        entered.exit();
        record!(Debug, "turnwise::session", "session {}: in host mode", self.handle.id());
        self.hosting = Some(Box::new(Hosting { turn, result, sources }));
    }

    #[inline(never)] // See the head of this file.
    fn on_interaction(&mut self, incoming: Incoming, cancel: CancelToken) {
        // Interactions arrive only in host mode.
        let Some(mut hosting) = self.hosting.take() else { return };
        let is_dismissal = incoming.is_dismissal();
        let interaction = hosting.turn.context().events().interactions().add(incoming);
        if is_dismissal {
            hosting.turn.context().events().settle(Ok(""), Commit::Stay);
            hosting.discard_token(&cancel);
            self.hosting = Some(hosting);
            return;
        }
        hosting.turn.begin_interaction(cancel);
        let result = self.step(&mut hosting.turn, |agent, context| agent.run_interaction(interaction, context));
        hosting.turn.settle_in_host_mode(&result);
        self.handle.shared().inbox.end_running();
        hosting.turn.end_interaction();
        hosting.turn.release_permit();
        match result {
            Ok(latest) => hosting.add(latest),
            Err(fault @ SessionError::Faulted { .. }) => return self.end_hosting(hosting.turn, Err(fault)),
            Err(error) if self.loss().is_some() => return self.end_hosting(hosting.turn, Err(error)),
            Err(error) => {
                record!(Debug, "turnwise::session", "session {}: an interaction failed", self.handle.id());
                contain_and_log("the drop of an agent's error", move || drop(error));
            }
        }
        self.hosting = Some(hosting);
    }

    #[inline(never)] // See the head of this file.
    fn on_hosting_over(&mut self, end: Result<(), Cancelled>) {
        if let Some(hosting) = self.hosting.take() {
            let Hosting { turn, result, .. } = *hosting;
            let id = self.handle.id();
            let cancelled = |cancelled: Cancelled| SessionError::Agent { id, source: cancelled.into() };
            let result = match self.loss() {
                Some(loss) => Err(loss.clone()),
                None => end.map(|()| result).map_err(cancelled),
            };
            self.end_hosting(turn, result);
        }
    }

    /// Ends a turn that was meant to enter host mode, or was in it.
    fn end_hosting(&mut self, turn: RunningTurn, result: TurnResult) {
        turn.end_steering();
        self.handle.shared().inbox.fail_subscribed();
        self.end_turn(turn, result);
        // Between interactions the turn holds no permit, so no release of a permit has ended its run.
        self.own.end_turn();
    }

    fn end_turn(&mut self, turn: RunningTurn, result: TurnResult) {
        record!(
            Debug,
            "turnwise::session",
            "session {}: turn {} ends: {}",
            self.handle.id(),
            turn.context().turn_id(),
            result.as_ref().map_or_else(SessionError::code, |_| "OK")
        );
        turn.announce_end(&result);
        match self.loss().cloned() {
            None => turn.end(result),
            Some(loss) => self.end_lost(turn, result, &loss),
        }
        self.is_warm = true;
    }

    /// The error with which the session ends, if another writer has changed its record.
    fn loss(&self) -> Option<&SessionError> {
        self.handle.shared().numbers.loss()
    }

    /// Ends the last turn of a session whose record another writer has changed. Queued turns get the same error. All of
    /// them are answered after the end of the session, so that a caller can repeat its turn at once.
    #[inline(never)] // See the head of this file.
    fn end_lost(&mut self, turn: RunningTurn, result: TurnResult, loss: &SessionError) {
        // Before the end of the turn, which would admit the next one.
        let queued = self.handle.end_queue(loss);
        self.handle.close_lost();
        self.last_reply = Some(Box::new(LastReply::of_turns(turn.end_but_answer(result), queued)));
    }

    /// Calls the agent once in a turn: waits for a running permit, calls, and publishes the agent's snapshot. The caller
    /// settles the interactions that the agent has taken, and commits the history that the turn has from here.
    fn step(
        &mut self,
        turn: &mut RunningTurn,
        call: impl FnOnce(&mut B::Agent, &TurnContext) -> Result<RunResult, AgentError>,
    ) -> TurnResult {
        let id = self.handle.id();
        let result = match self.start_call(turn) {
            Ok(permit) => {
                turn.set_permit(permit);
                record!(Debug, "turnwise::session", "session {id}: turn {} runs", turn.context().turn_id());
                let entered = turn.context().events().span().enter();
                let result = self.call_agent(turn, call);
                let result = result.map_err(|error| self.loss().cloned().unwrap_or(error));
                let commit = self.publish_unless_faulted(&result);
                entered.exit();
                turn.set_commit(commit);
                result
            }
            Err(error) => Err(error),
        };
        turn.end_call();
        result
    }

    /// Waits for a running permit. An error is the turn's result, without a call of the agent.
    fn start_call(&self, turn: &RunningTurn) -> Result<RunningPermit, SessionError> {
        if let Some(loss) = self.loss() {
            return Err(loss.clone());
        }
        let context = turn.context();
        let started = self.own.start_turn(context.turn_id(), context.cancel_token());
        started.map_err(|cancelled| SessionError::Agent { id: self.handle.id(), source: cancelled.into() })
    }

    fn call_agent(
        &mut self,
        turn: &RunningTurn,
        call: impl FnOnce(&mut B::Agent, &TurnContext) -> Result<RunResult, AgentError>,
    ) -> TurnResult {
        let context = turn.context();
        // No turn is admitted while there is no agent.
        let Some(agent) = &mut self.agent else { return Err(self.handle.faulted()) };
        let ran = contain(|| call(agent, context));
        // Also after a panic: no sub-session outlives the agent's call.
        context.close_sub_sessions();
        let id = self.handle.id();
        match ran {
            Ok(Ok(mut result)) => {
                result.session_id = id;
                result.turn_id = context.turn_id();
                Ok(context.mark_if_cancelled(result))
            }
            Ok(Err(source)) if context.is_cancelled() => self.roll_back(source, context.turn_id()),
            Ok(Err(source)) => Err(SessionError::Agent { id, source }),
            Err(message) => Err(self.fault(message, context.turn_id())),
        }
    }

    /// Lets the agent roll back a turn that was cancelled and failed.
    #[inline(never)] // See the head of this file.
    fn roll_back(&mut self, source: AgentError, turn: TurnId) -> TurnResult {
        let agent = self.agent.as_mut();
        match contain(|| agent.map_or((), SessionAgent::cancel)) {
            Ok(()) => Err(SessionError::Agent { id: self.handle.id(), source }),
            Err(message) => {
                contain_and_log("the drop of an agent's error", move || drop(source));
                Err(self.fault(message, turn))
            }
        }
    }

    #[inline(never)] // See the head of this file.
    fn fault(&mut self, message: PanicMessage, turn: TurnId) -> SessionError {
        // The panic message may contain part of the conversation: it goes to the caller, not into the log.
        record!(Error, "turnwise::session", "session {}: the agent panicked in turn {turn}", self.handle.id());
        let fault = self.handle.fault(message);
        self.restart_by_policy();
        fault
    }

    /// Begins a restart if the service's policy allows one. It follows the turn that has faulted.
    fn restart_by_policy(&mut self) {
        let clock = &self.handle.shared().clock;
        // Refused in a closed session, and where a caller has begun a restart already.
        if self.restart_limit.allows(clock) && self.handle.begin_restart(None).is_ok() {
            self.restart_limit.count(clock);
        }
    }

    /// Builds the agent again, and answers the caller of the restart.
    #[inline(never)] // See the head of this file.
    fn on_restart(&mut self, restart: AdmittedRestart) {
        let AdmittedRestart { mut guards, cancel, reply } = restart;
        guards.pick_up();
        let id = self.handle.id();
        let result = self.rebuild(cancel);
        match &result {
            Ok(()) => {
                record!(Debug, "turnwise::session", "session {id}: restarted");
                self.handle.shared().counters.restarts.add_one();
                // Before the gate: a caller that finds the session idle can inject.
                self.handle.shared().inbox.reopen();
                self.begin_idle_time();
                guards.end_build();
            }
            Err(error) => {
                record!(Debug, "turnwise::session", "session {id}: not restarted");
                guards.fail_restart(error.clone());
            }
        }
        let result = if self.handle.is_open() { result } else { Err(SessionError::NotFound { id }) };
        contain_and_log("the drop of a builder's error", move || {
            if let Some(reply) = reply {
                // The receiver is disconnected if the caller has stopped waiting.
                let _ = reply.try_send(result);
            }
        });
    }

    /// Replaces the agent by one that resumes the committed history. The old agent is dropped first: it may hold a name
    /// or a port that the new one needs.
    fn rebuild(&mut self, cancel: CancelToken) -> Result<(), SessionError> {
        let id = self.handle.id();
        // A close ends the waits of the old agent's drop too.
        self.own.begin_build(cancel.clone());
        self.drop_agent();
        if self.handle.needs_no_agent() {
            return Err(SessionError::NotFound { id });
        }
        let shared = self.handle.shared();
        let history = shared.history.get();
        let events = EventSender::new(Arc::clone(shared));
        let context = SessionContext::new(events, (**self.handle.service()).clone(), cancel);
        let entered = self.span.enter();
        let built = self.blueprint.build_again(history, self.handle.labels(), context);
        entered.exit();
        self.agent = Some(built.map_err(|source| source.into_session_error(id))?);
        self.show_agent();
        Ok(())
    }

    /// Drops the agent, its injector and its comms. One by one: a second panic while the first unwinds would abort the
    /// program.
    fn drop_agent(&mut self) {
        let _entered = self.span.enter();
        let (injector, comms) = (self.handle.set_injector(None), self.handle.set_comms(None));
        contain_and_log("the drop of an agent's injector", move || drop(injector));
        contain_and_log("the drop of an agent's comms", move || drop(comms));
        let agent = self.agent.take();
        contain_and_log("the drop of an agent", move || drop(agent));
    }

    /// Shows an agent that has just been built: its snapshot, its history and its endpoints.
    fn show_agent(&self) {
        let _entered = self.span.enter();
        self.publish(CommittedHistory::replace);
        self.update_endpoints();
    }

    fn publish_unless_faulted(&self, result: &TurnResult) -> Commit {
        match result {
            Err(SessionError::Faulted { .. }) => Commit::Stay,
            _ => {
                self.publish(CommittedHistory::stage);
                Commit::Advance
            }
        }
    }

    /// Publishes the agent's snapshot, and exports its history with `export`. If a call panics, the last value stays.
    fn publish(&self, export: impl FnOnce(&CommittedHistory, Session)) {
        if let Some(snapshot) = self.query_agent("snapshot", SessionAgent::snapshot) {
            self.handle.shared().published.publish(snapshot);
        }
        let committed = &self.handle.shared().history;
        match self.query_agent("session_clone", SessionAgent::session_clone) {
            Some(history) => export(committed, history.owned_by(self.handle.id())),
            None => committed.note_behind(),
        }
    }

    /// Reads the agent's endpoints and stores them. If a call panics, that endpoint stays as before. The endpoints are
    /// read one by one, because the drop of the first one may panic too.
    fn update_endpoints(&self) {
        if let Some(injector) = self.query_agent("event_injector", SessionAgent::event_injector) {
            let last = self.handle.set_injector(injector);
            contain_and_log("the drop of an agent's injector", move || drop(last));
        }
        if let Some(comms) = self.query_agent("comms_runtime", SessionAgent::comms_runtime) {
            let last = self.handle.set_comms(comms);
            contain_and_log("the drop of an agent's comms", move || drop(last));
        }
    }

    fn query_agent<T>(&self, what: &str, query: impl FnOnce(&B::Agent) -> T) -> Option<T> {
        let agent = self.agent.as_ref()?;
        let answer = contain(|| query(agent));
        if answer.is_err() {
            record!(Error, "turnwise::session", "session {}: {what} panicked", self.handle.id());
        }
        answer.ok()
    }

    #[inline(never)] // See the head of this file.
    fn on_export(&self, request: &HistoryRequest) {
        if !request.is_given_up() {
            request.decide(self.export(), || true);
        }
    }

    /// The history, under the session's own id even if the agent returns another. Without an agent it is the committed
    /// history, and so it is if a restart has begun whose command has not been taken yet: the next agent begins with it.
    fn export(&self) -> Result<Session, SessionError> {
        let _entered = self.span.enter();
        let id = self.handle.id();
        let agent = self.agent.as_ref().filter(|_| !self.handle.gate().state().is_building());
        let Some(agent) = agent else { return Ok(self.handle.shared().history.get()) };
        match contain(|| agent.session_clone()) {
            Ok(session) => Ok(session.owned_by(id)),
            Err(message) => {
                record!(Error, "turnwise::session", "session {id}: session_clone panicked");
                let source = AgentError::Internal(format!("session_clone panicked: {message}"));
                Err(SessionError::Agent { id, source })
            }
        }
    }

    /// Starts the time that ends with the unloading of the idle session.
    fn begin_idle_time(&mut self) {
        let shared = self.handle.shared();
        if shared.last_use.is_some() {
            shared.set_last_use(shared.clock.now());
            self.unloading.set_alarm(None, &self.handle);
        }
    }

    #[inline(never)] // See the head of this file.
    fn on_unload(&mut self, request: UnloadRequest) {
        if request.is_of_caller() {
            request.decide(self.unload_if_unused());
            return;
        }
        let Some(last_use) = self.handle.last_use() else { return };
        let left = self.unloading.left(last_use, &self.handle.shared().clock);
        if left.is_some_and(|left| left.is_zero()) && self.unload_if_unused() == UnloadDecision::Unloaded {
            return;
        }
        self.unloading.set_alarm(left, &self.handle);
    }

    /// Unloads the session if nothing uses it, after the record has all of its history.
    #[inline(never)] // See the head of this file.
    fn unload_if_unused(&mut self) -> UnloadDecision {
        // The save is not needed for a session that stays anyway.
        if !self.handle.is_unused() || !self.takeovers.is_empty() {
            return UnloadDecision::InUse;
        }
        let id = self.handle.id();
        let saved = self.export().and_then(|history| self.handle.shared().numbers.catch_up(history));
        if let Err(error) = saved {
            record!(Warn, "turnwise::session", "session {id}: not unloaded: {}", error.code());
            contain_and_log("the drop of a store's error", move || drop(error));
            if self.loss().is_some() {
                self.handle.note_lost_by_unload();
            }
            return UnloadDecision::Unsaved;
        }
        if !self.handle.close_if_unused() {
            return UnloadDecision::InUse;
        }
        record!(Debug, "turnwise::session", "session {id}: unloaded");
        UnloadDecision::Unloaded
    }

    /// Hands the history over to the first request whose caller still waits, and closes the session. Later requests
    /// find it closed. In host mode this happens between two interactions, and ends host mode. Queued turns come first.
    fn decide_takeovers(&mut self) {
        self.takeovers.retain(|takeover| !takeover.is_given_up());
        let is_hosting = self.hosting.is_some();
        // While a turn is queued, the gate shows a running turn.
        if self.takeovers.is_empty() || (self.handle.gate().state().is_running() && !is_hosting) {
            return;
        }
        if is_hosting && self.handle.has_queued_turns() {
            return;
        }
        let session = self.export();
        let gate = self.handle.gate();
        let mut is_taken = false;
        self.takeovers.retain(|takeover| {
            let session = session.clone();
            let taken = session.and_then(|session| takeover.meet_condition(&session).map(|()| session));
            !takeover.decide(taken, || {
                let closed = if is_hosting { self.handle.close_if_nothing_queued() } else { gate.close_if_idle() };
                // Only the first of several takes closes it.
                is_taken |= closed;
                closed
            })
        });
        // Not after the close of another thread: that one may be about to cancel the turn, and finishes it afterwards.
        if is_taken {
            self.handle.finish_close();
        }
        if gate.state().is_closed() {
            // The remaining requests are too late, and get no decision.
            self.takeovers.clear();
        }
    }
}
