//! This library.

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
        Self { service: service.build().expect("the settings work"), running, release, told }
    }

    /// A turn that runs by now, and is held until it is released or interrupted.
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
        self.service.open_session(SessionSpec::new()).expect("a thread")
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
        self.service.archive(created.session_id).expect("it is alive");
    }

    fn close_all(&self, sessions: Vec<SessionId>) {
        sessions.iter().for_each(|&id| self.service.archive(id).expect("it is alive"));
        // What comes next is to have the machine to itself.
        for &id in &sessions {
            match self.service.archive_wait(id, PATIENCE) {
                // It ended too long ago for the service to remember it.
                Ok(()) | Err(SessionError::NotFound { .. }) => {}
                Err(error) => panic!("a session that does not end: {error}"),
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
        self.service.read(*session).expect("it is alive");
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
        let told = self.told.recv_timeout(PATIENCE).expect("the agent tells");
        turn.wait().expect_err("interrupted");
        told.saturating_duration_since(interrupted)
    }
}

/// What agents tell the workloads, and are told by them.
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

/// No history grows, no text is made.
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
            // Nothing is ever sent: the channel ends with the cancellation.
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
