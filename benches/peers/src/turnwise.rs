//! This library.

use std::thread;
use std::time::{Duration, Instant};

use ::turnwise::crossbeam_channel::{bounded, unbounded, Receiver, Sender};
use ::turnwise::{
    AgentError, AgentEvent, CreateSessionRequest, EphemeralSessionService, RunResult, Session, SessionAgent,
    SessionAgentBuilder, SessionContext, SessionId, SessionQuery, SessionService, SessionSpec, StartTurnRequest,
    TurnContext,
};

use crate::common::{delta, MANY, STACK};
use crate::peer::{Peer, Service};
use crate::task::Task;

#[derive(Debug)]
pub(crate) struct Turnwise {
    service: EphemeralSessionService<Builder>,
    told: Receiver<Instant>,
}

impl Turnwise {
    pub(crate) fn new() -> Self {
        let (tell, told) = unbounded();
        let service = EphemeralSessionService::configure(Builder { tell }).max_sessions(2 * MANY).stack_size(STACK);
        Self { service: service.build().expect("the settings work"), told }
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
        let rest = self.service.stats().sessions - sessions.len();
        sessions.iter().for_each(|&id| self.service.archive(id).expect("it is alive"));
        // What comes next is to have the machine to itself.
        while self.service.stats().sessions > rest {
            thread::sleep(Duration::from_millis(1));
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

    fn begin<'a>(&'a self, session: &'a SessionId, task: Task) -> Box<dyn FnOnce() + 'a> {
        let turn = self.service.begin_turn(*session, StartTurnRequest::new(task.prompt())).expect("a turn");
        Box::new(|| drop(turn.wait()))
    }

    fn read(&self, session: &SessionId) {
        self.service.read(*session).expect("it is alive");
    }

    fn list(&self, limit: Option<usize>) -> usize {
        let query = SessionQuery::new();
        let query = limit.into_iter().fold(query, |query, limit| query.limit(limit));
        self.service.list(query).expect("a list").len()
    }

    fn interrupt(&self, session: &SessionId, milliseconds: u64) -> Duration {
        let wait = self.begin(session, Task::Wait(milliseconds));
        // A turn that is interrupted before it has begun is not run, and its agent tells nothing.
        while self.service.stats().running_turns == 0 {
            thread::yield_now();
        }
        thread::sleep(Duration::from_micros(500));
        let interrupted = Instant::now();
        self.service.interrupt(*session).expect("the turn runs");
        let told = self.told.recv().expect("the agent tells");
        wait();
        told.saturating_duration_since(interrupted)
    }
}

#[derive(Debug)]
struct Builder {
    tell: Sender<Instant>,
}

impl SessionAgentBuilder for Builder {
    type Agent = Agent;

    fn build_agent(&self, _spec: &SessionSpec, session: &SessionContext) -> Result<Agent, AgentError> {
        Ok(Agent { session: Session::with_id(session.session_id()), tell: self.tell.clone() })
    }
}

/// No history grows, no text is made.
#[derive(Debug)]
struct Agent {
    session: Session,
    tell: Sender<Instant>,
}

impl SessionAgent for Agent {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        match Task::of_prompt(&prompt) {
            Task::Emit(events) => (0..events).try_for_each(|_| turn.emit(delta()))?,
            Task::Wait(milliseconds) => {
                if let Err(cancelled) = turn.sleep(Duration::from_millis(milliseconds)) {
                    self.tell.send(Instant::now()).expect("the bench listens");
                    return Err(cancelled.into());
                }
            }
            task => task.work(),
        }
        Ok(turn.finish(""))
    }

    fn session_clone(&self) -> Session {
        self.session.clone()
    }
}
