//! `turnwise`, this library.

use std::thread;
use std::time::{Duration, Instant};

use ::turnwise::crossbeam_channel::{bounded, select, unbounded, Receiver, Sender};
use ::turnwise::{
    AgentError, AgentEvent, Cancelled, CreateSessionRequest, EphemeralSessionService, RunResult, Session, SessionAgent,
    SessionAgentBuilder, SessionContext, SessionError, SessionId, SessionQuery, SessionService, SessionSpec,
    StartTurnRequest, TurnContext, TurnHandle,
};

use crate::common::times::time;
use crate::common::{delta, MANY, STACK};
use crate::peer::{Peer, Service, PATIENCE, SETTLE};
use crate::task::Task;

#[derive(Debug)]
pub(crate) struct Turnwise {
    service: EphemeralSessionService<Builder>,
    running: Receiver<()>,
    release: Sender<()>,
    told: Receiver<Instant>,
}

impl Turnwise {
    pub(crate) fn new() -> Self {
        let ((run, running), (release, released), (tell, told)) = (unbounded(), unbounded(), unbounded());
        let builder = Builder(Signals { run, released, tell });
        let service = EphemeralSessionService::configure(builder).max_sessions(2 * MANY).stack_size(STACK);
        Self { service: service.build().expect("the settings are valid"), running, release, told }
    }

    /// Starts a turn, and waits until it runs. The turn is held until it is released or interrupted.
    fn hold(&self, session: &SessionId, milliseconds: u64) -> TurnHandle {
        let request = StartTurnRequest::new(Task::Hold(milliseconds).prompt());
        let turn = self.service.begin_turn(*session, request).expect("a turn");
        self.running.recv_timeout(PATIENCE).expect("the turn runs");
        turn
    }
}

impl Peer for Turnwise {
    const NAME: &'static str = "turnwise";
    type Session = SessionId;

    fn open(&self) -> SessionId {
        self.service.open_session(SessionSpec::new()).expect("a session")
    }

    fn ask(&self, session: &SessionId, task: Task) {
        self.service.start_turn(*session, StartTurnRequest::new(task.prompt())).expect("a result");
    }

    fn ask_all(&self, sessions: &[SessionId], task: Task) {
        let begin = |id: &SessionId| self.service.begin_turn(*id, StartTurnRequest::new(task.prompt()));
        let turns: Vec<_> = sessions.iter().map(|id| begin(id).expect("a turn")).collect();
        turns.into_iter().for_each(|turn| drop(turn.wait().expect("a result")));
    }

    fn cycle(&self) {
        let created = self.service.create_session(CreateSessionRequest::new("")).expect("a session");
        self.service.archive(created.session_id).expect("a live session");
    }

    fn close_all(&self, sessions: Vec<SessionId>) {
        sessions.iter().for_each(|&id| self.service.archive(id).expect("a live session"));
        // The next measurement must not share the machine with the end of these sessions.
        for &id in &sessions {
            match self.service.archive_wait(id, PATIENCE) {
                // The service remembers a limited number of ended sessions, and has forgotten this one.
                Ok(()) | Err(SessionError::NotFound { .. }) => {}
                Err(error) => panic!("a session does not end: {error}"),
            }
        }
    }
}

impl Service for Turnwise {
    fn stream(&self, session: &SessionId, events: u64) {
        let (event_tx, received) = bounded(256);
        let request = StartTurnRequest::new(Task::Emit(events).prompt()).event_tx(event_tx);
        let turn = self.service.begin_turn(*session, request).expect("a turn");
        let deltas = received.iter().filter(|event| matches!(event, AgentEvent::TextDelta { .. })).count();
        assert_eq!(deltas as u64, events);
        turn.wait().expect("a result");
    }

    fn read(&self, session: &SessionId) {
        self.service.read(*session).expect("a live session");
    }

    fn read_during_a_turn(&self, session: &SessionId, milliseconds: u64) -> Duration {
        let turn = self.hold(session, milliseconds);
        let read = time(|| self.read(session));
        self.release.send(()).expect("the agent listens");
        turn.wait().expect("a result");
        read
    }

    fn list(&self, limit: Option<usize>) -> usize {
        let query = SessionQuery::new();
        let query = limit.into_iter().fold(query, |query, limit| query.limit(limit));
        self.service.list(query).expect("a list").len()
    }

    fn interrupt(&self, session: &SessionId, milliseconds: u64) -> Duration {
        let turn = self.hold(session, milliseconds);
        thread::sleep(SETTLE);
        let interrupted = Instant::now();
        self.service.interrupt(*session).expect("the turn runs");
        let told = self.told.recv_timeout(PATIENCE).expect("the agent is notified");
        turn.wait().expect_err("interrupted");
        told.saturating_duration_since(interrupted)
    }
}

/// The channels between the agents and the workloads.
#[derive(Clone, Debug)]
struct Signals {
    run: Sender<()>,
    released: Receiver<()>,
    tell: Sender<Instant>,
}

#[derive(Debug)]
struct Builder(Signals);

impl SessionAgentBuilder for Builder {
    type Agent = Agent;

    fn build_agent(&self, _spec: &SessionSpec, session: &SessionContext) -> Result<Agent, AgentError> {
        Ok(Agent { session: Session::with_id(session.session_id()), signals: self.0.clone() })
    }
}

/// An agent that adds no messages and produces no text.
#[derive(Debug)]
struct Agent {
    session: Session,
    signals: Signals,
}

impl Agent {
    fn hold(&self, turn: &TurnContext, milliseconds: u64) -> Result<(), Cancelled> {
        self.signals.run.send(()).expect("the bench listens");
        select! {
            recv(self.signals.released) -> _ => {}
            // No message is ever sent. The channel disconnects with the cancel.
            recv(turn.cancel_token().cancelled()) -> _ => {}
        }
        turn.sleep(Duration::from_millis(milliseconds)).inspect_err(|_| {
            self.signals.tell.send(Instant::now()).expect("the bench listens");
        })
    }
}

impl SessionAgent for Agent {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        match Task::of_prompt(&prompt) {
            Task::Emit(events) => (0..events).try_for_each(|_| turn.emit(delta()))?,
            Task::Hold(milliseconds) => self.hold(turn, milliseconds)?,
            task => task.work(),
        }
        Ok(turn.finish(""))
    }

    fn session_clone(&self) -> Session {
        self.session.clone()
    }
}
