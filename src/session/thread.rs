//! The life of a session's thread: build the agent, serve commands one at a time, drop the agent.
//!
//! Everything that may panic here is user code, and every call of it goes through [`contain`].

use std::convert::Infallible;

use crate::agent::{SessionAgent, SessionAgentBuilder, SessionContext};
use crate::error::{AgentError, BuildError, SessionError};
use crate::model::{Session, SessionId, TurnId};
use crate::panics::{contain, contain_and_log, PanicMessage};
use crate::service::SessionSpec;
use crate::sync::{never, select, Arc, Receiver, Sender};
use crate::turn::counters::Counters;
use crate::turn::outcome::{Answer, TurnResult};
use crate::wait::own_thread::OwnThread;
use crate::wait::semaphore::Semaphore;

use super::command::{Command, HistoryRequest, Turn};
use super::handle::{ActiveEntry, Admission, SessionHandle};
use super::running::{Input, RunningTurn};

/// All that a session's thread starts with.
pub(crate) struct Start<B> {
    pub(crate) builder: Arc<B>,
    pub(crate) spec: SessionSpec,
    pub(crate) context: SessionContext,
    pub(crate) handle: Arc<SessionHandle>,
    pub(crate) commands: Receiver<Command>,
    pub(crate) first: First,
    pub(crate) running: Arc<Semaphore>,
    pub(crate) counters: Arc<Counters>,
}

/// What comes with the build.
pub(crate) enum First {
    /// The first turn, admitted already.
    Turn(Box<Turn>),
    /// Nothing: the caller waits for the build alone.
    Open(Opening),
}

/// A build without a turn. In the order in which it is given back.
pub(crate) struct Opening {
    pub(crate) active: ActiveEntry,
    pub(crate) admission: Admission,
    pub(crate) reply: Sender<Result<SessionId, SessionError>>,
}

/// What a failed build still owes its caller, once nothing is left of the session. Dropping it pays.
pub(crate) enum Owed {
    Turn { _answer: Answer },
    Open { reply: Sender<Result<SessionId, SessionError>>, error: SessionError },
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Self::Open { reply, error } = self {
            // Nobody listens where the caller has stopped waiting.
            let _ = reply.try_send(Err(error.clone()));
        }
    }
}

/// Runs a session from its build to its end, on the calling thread. Returns what is owed after a failed build.
pub(crate) fn run<B: SessionAgentBuilder>(start: Start<B>) -> Option<Owed> {
    let Start { builder, spec, context, handle, commands, first, running, counters } = start;
    let id = handle.id();
    let cancel = context.cancel_token().clone();
    let own = OwnThread::enter(id, handle.key(), running, cancel);
    let mut first = FirstStep::take_up(first, &counters);
    let agent = match first.build(builder, spec, context) {
        Ok(agent) => agent,
        Err(source) => {
            log::debug!(target: "turnwise::session", "session {id}: not built");
            return Some(first.fail(SessionError::Build { id, source }, &counters));
        }
    };
    log::debug!(target: "turnwise::session", "session {id}: built");
    let closed = handle.closed().receiver().clone();
    let takeovers = Vec::new();
    let mut thread = SessionThread { agent, handle, commands, closed, takeovers, own, counters };
    thread.publish();
    thread.handle.gate().end_build();
    // Everything that may panic in there is contained one by one. Should that not be all: an agent is never dropped while
    // its thread unwinds, where a second panic would end the program.
    contain_and_log("a session's thread", || {
        first.succeed(&mut thread);
        thread.serve();
    });
    let SessionThread { agent, commands, takeovers, .. } = thread;
    // Whoever has asked for something is answered now, however long the agent takes to go.
    drop(commands);
    drop(takeovers);
    contain_and_log("the drop of an agent", move || drop(agent));
    log::debug!(target: "turnwise::session", "session {id}: ended");
    None
}

/// [`First`], once the thread has taken it up.
#[allow(clippy::large_enum_variant)] // One on the stack of its thread, for the length of the build.
enum FirstStep {
    Turn(RunningTurn, Input),
    Open(Opening),
}

impl FirstStep {
    fn take_up(first: First, counters: &Counters) -> Self {
        match first {
            First::Turn(turn) => {
                let (turn, input) = RunningTurn::take_up(*turn, counters);
                Self::Turn(turn, input)
            }
            First::Open(mut opening) => {
                opening.admission.pick_up();
                Self::Open(opening)
            }
        }
    }

    /// Builds the agent; what it emits meanwhile on this thread is part of the first turn.
    fn build<B: SessionAgentBuilder>(
        &mut self,
        builder: Arc<B>,
        spec: SessionSpec,
        context: SessionContext,
    ) -> Result<B::Agent, BuildError> {
        let building = match self {
            Self::Turn(turn, _) => Some(context.events().while_building(Arc::clone(turn.context().events()))),
            Self::Open(_) => None,
        };
        let built = contain(|| builder.build_agent(&spec, &context));
        drop(building);
        // A user's values, so they may panic: the agent is there all the same, and outlives them.
        contain_and_log("the drop of a builder", move || drop(builder));
        contain_and_log("the drop of a session's specification", move || drop(spec));
        drop(context);
        built.map_err(BuildError::Panicked)?.map_err(BuildError::Agent)
    }

    /// Until the session is gone it is `Building`, so that an interrupt still finds a turn whose last event has no room.
    fn fail(self, error: SessionError, counters: &Counters) -> Owed {
        match self {
            Self::Turn(turn, _) => Owed::Turn { _answer: turn.end_but_answer(Err(error), counters) },
            Self::Open(Opening { active, admission, reply }) => {
                drop(active);
                drop(admission);
                Owed::Open { reply, error }
            }
        }
    }

    fn succeed<A: SessionAgent>(self, thread: &mut SessionThread<A>) {
        match self {
            Self::Turn(turn, input) => thread.run_turn(turn, input),
            Self::Open(Opening { active, admission, reply }) => {
                drop(active);
                drop(admission);
                let id = thread.handle.id();
                let result = if thread.handle.is_open() { Ok(id) } else { Err(SessionError::NotFound { id }) };
                // Nobody listens where the caller has stopped waiting.
                let _ = reply.try_send(result);
            }
        }
    }
}

/// The owner of an agent.
struct SessionThread<A> {
    agent: A,
    handle: Arc<SessionHandle>,
    commands: Receiver<Command>,
    /// Disconnects when the session is closed; then it is replaced by a channel that never becomes ready.
    closed: Receiver<Infallible>,
    /// Those that found a turn on its way, and are decided after it.
    takeovers: Vec<HistoryRequest>,
    own: OwnThread,
    counters: Arc<Counters>,
}

impl<A: SessionAgent> SessionThread<A> {
    fn serve(&mut self) {
        while let Some(command) = self.next_command() {
            match command {
                Command::Turn(turn) => self.on_turn(*turn),
                Command::Export(request) => self.on_export(&request),
                Command::Take(request) => self.takeovers.push(request),
                Command::Wake => {}
            }
            self.decide_takeovers();
        }
    }

    /// The next thing to do, or `None` when the session is at its end.
    fn next_command(&mut self) -> Option<Command> {
        loop {
            let gate = self.handle.gate().state();
            if gate.is_closed() && !gate.is_running() {
                // What was asked for before the close is still answered.
                return self.commands.try_recv().ok();
            }
            select! {
                // The handle holds a sender, so this never disconnects.
                recv(self.commands) -> command => return command.ok(),
                recv(self.closed) -> _ => self.closed = never(),
            }
        }
    }

    fn on_turn(&mut self, turn: Turn) {
        let (turn, input) = RunningTurn::take_up(turn, &self.counters);
        self.run_turn(turn, input);
    }

    /// From a turn that is taken up to its answer.
    fn run_turn(&mut self, mut turn: RunningTurn, input: Input) {
        let id = self.handle.id();
        let result = match self.own.start_turn(turn.context().cancel_token()) {
            Ok(permit) => {
                turn.hold(permit);
                log::debug!(target: "turnwise::session", "session {id}: turn {} runs", turn.context().turn_id());
                let result = self.call_agent(&turn, input);
                self.publish_unless_faulted(&result);
                result
            }
            // Told to stop before it could run: answered without being run.
            Err(cancelled) => Err(SessionError::Agent { id, source: cancelled.into() }),
        };
        log::debug!(
            target: "turnwise::session",
            "session {id}: turn {} ends: {}",
            turn.context().turn_id(),
            result.as_ref().map_or_else(SessionError::code, |_| "OK")
        );
        turn.end(result, &self.counters);
    }

    /// The agent's part of a turn.
    fn call_agent(&mut self, turn: &RunningTurn, input: Input) -> TurnResult {
        let context = turn.context();
        let agent = &mut self.agent;
        let ran = contain(|| {
            agent.set_skill_references(input.skills);
            agent.run_turn(input.prompt, context)
        });
        let id = self.handle.id();
        match ran {
            Ok(Ok(mut result)) => {
                result.session_id = id;
                result.turn_id = context.turn_id();
                Ok(result)
            }
            Ok(Err(source)) if context.is_cancelled() => self.roll_back(source, context.turn_id()),
            Ok(Err(source)) => Err(SessionError::Agent { id, source }),
            Err(message) => Err(self.fault(message, context.turn_id())),
        }
    }

    /// Lets the agent clean up after a turn that was told to stop and failed.
    fn roll_back(&mut self, source: AgentError, turn: TurnId) -> TurnResult {
        let agent = &mut self.agent;
        match contain(|| agent.cancel()) {
            Ok(()) => Err(SessionError::Agent { id: self.handle.id(), source }),
            Err(message) => {
                contain_and_log("the drop of an agent's error", move || drop(source));
                Err(self.fault(message, turn))
            }
        }
    }

    fn fault(&self, message: PanicMessage, turn: TurnId) -> SessionError {
        // What the panic said may be part of the conversation: it goes to the caller, not into the log.
        log::error!(target: "turnwise::session", "session {}: the agent panicked in turn {turn}", self.handle.id());
        self.handle.fault(message)
    }

    fn publish_unless_faulted(&self, result: &TurnResult) {
        if !matches!(result, Err(SessionError::Faulted { .. })) {
            self.publish();
        }
    }

    /// Shows what the agent has come to; where it panics, what was shown before stays.
    fn publish(&self) {
        match contain(|| self.agent.snapshot()) {
            Ok(snapshot) => self.handle.published().publish(snapshot),
            Err(_) => {
                log::error!(target: "turnwise::session", "session {}: snapshot panicked", self.handle.id());
            }
        }
    }

    fn on_export(&self, request: &HistoryRequest) {
        if !request.is_given_up() {
            request.decide(self.export(), || true);
        }
    }

    /// The history, under the session's own id whatever the agent says.
    fn export(&self) -> Result<Session, SessionError> {
        let id = self.handle.id();
        match contain(|| self.agent.session_clone()) {
            Ok(session) => Ok(session.owned_by(id)),
            Err(message) => {
                log::error!(target: "turnwise::session", "session {id}: session_clone panicked");
                let source = AgentError::Internal(format!("session_clone panicked: {message}"));
                Err(SessionError::Agent { id, source })
            }
        }
    }

    /// Hands the session over to the first who still wants it; later ones find it closed.
    fn decide_takeovers(&mut self) {
        self.takeovers.retain(|takeover| !takeover.is_given_up());
        if self.takeovers.is_empty() || self.handle.gate().state().is_running() {
            return;
        }
        let session = self.export();
        let gate = self.handle.gate();
        self.takeovers.retain(|takeover| !takeover.decide(session.clone(), || gate.close_if_idle()));
        if gate.state().is_closed() {
            // Whoever is left has come too late, and finds no decision.
            self.takeovers.clear();
        }
    }
}
