//! `meerkat-session`: the async service of sessions, each of which is a task.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use ::turnwise::crossbeam_channel::{unbounded, Receiver, Sender};
use async_trait::async_trait;
use meerkat_core::error::AgentError;
use meerkat_core::event::AgentEvent;
use meerkat_core::service::{CreateSessionRequest, SessionError, SessionQuery, SessionService, StartTurnRequest};
use meerkat_core::skills::SkillId;
use meerkat_core::types::{RunResult, SessionId, Usage};
use meerkat_core::Session;
use meerkat_session::ephemeral::{SessionAgent, SessionAgentBuilder, SessionSnapshot};
use meerkat_session::EphemeralSessionService;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::common::MANY;
use crate::peer::{Peer, Service};
use crate::task::Task;

pub(crate) struct Meerkat<'r> {
    runtime: &'r Runtime,
    service: Arc<EphemeralSessionService<Builder>>,
    told: Receiver<Instant>,
}

impl<'r> Meerkat<'r> {
    pub(crate) fn new(runtime: &'r Runtime) -> Self {
        let (tell, told) = unbounded();
        Self { runtime, service: Arc::new(EphemeralSessionService::new(Builder { tell }, 2 * MANY)), told }
    }

    async fn turn(&self, session: &SessionId, task: Task, event_tx: Option<mpsc::Sender<AgentEvent>>) {
        // An interrupted turn has no result; nobody asks for it.
        drop(self.service.start_turn(session, request(task, event_tx)).await);
    }
}

fn request(task: Task, event_tx: Option<mpsc::Sender<AgentEvent>>) -> StartTurnRequest {
    StartTurnRequest { prompt: task.prompt(), event_tx, host_mode: false, skill_references: None }
}

impl Peer for Meerkat<'_> {
    const NAME: &'static str = "meerkat";
    type Session = SessionId;

    fn open(&self) -> SessionId {
        let request = CreateSessionRequest {
            model: String::new(),
            prompt: String::new(),
            system_prompt: None,
            max_tokens: None,
            event_tx: None,
            host_mode: false,
            skill_references: None,
        };
        self.runtime.block_on(self.service.create_session(request)).expect("a session").session_id
    }

    fn ask(&self, session: &SessionId, task: Task) {
        self.runtime.block_on(self.service.start_turn(session, request(task, None))).expect("a result");
    }

    fn ask_all(&self, sessions: &[SessionId], task: Task) {
        let turns = sessions.iter().map(|session| self.turn(session, task, None));
        self.runtime.block_on(futures::future::join_all(turns));
    }

    fn cycle(&self) {
        let session = self.open();
        self.runtime.block_on(self.service.archive(&session)).expect("it is alive");
    }

    fn close_all(&self, sessions: Vec<SessionId>) {
        for session in sessions {
            self.runtime.block_on(self.service.archive(&session)).expect("it is alive");
        }
    }
}

impl Service for Meerkat<'_> {
    fn stream(&self, session: &SessionId, events: u64) {
        let (event_tx, mut received) = mpsc::channel(256);
        let service = Arc::clone(&self.service);
        let (session, request) = (session.clone(), request(Task::Emit(events), Some(event_tx)));
        let turn = self.runtime.spawn(async move { service.start_turn(&session, request).await });
        let mut deltas = 0;
        while let Some(event) = received.blocking_recv() {
            deltas += u64::from(matches!(event, AgentEvent::TextDelta { .. }));
        }
        assert_eq!(deltas, events);
        self.runtime.block_on(turn).expect("no panic").expect("a result");
    }

    fn begin<'a>(&'a self, session: &'a SessionId, task: Task) -> Box<dyn FnOnce() + 'a> {
        let (service, id) = (Arc::clone(&self.service), session.clone());
        let turn = self.runtime.spawn(async move { service.start_turn(&id, request(task, None)).await });
        Box::new(|| drop(self.runtime.block_on(turn)))
    }

    fn read(&self, session: &SessionId) {
        self.runtime.block_on(self.service.read(session)).expect("it is alive");
    }

    fn list(&self, limit: Option<usize>) -> usize {
        self.runtime.block_on(self.service.list(SessionQuery { limit, offset: None })).expect("a list").len()
    }

    fn interrupt(&self, session: &SessionId, milliseconds: u64) -> Duration {
        let wait = self.begin(session, Task::Wait(milliseconds));
        thread::sleep(Duration::from_micros(500));
        let interrupted = Instant::now();
        self.runtime.block_on(self.service.interrupt(session)).expect("the turn runs");
        let told = self.told.recv().expect("the agent tells");
        wait();
        told.saturating_duration_since(interrupted)
    }
}

struct Builder {
    tell: Sender<Instant>,
}

#[async_trait]
impl SessionAgentBuilder for Builder {
    type Agent = Agent;

    async fn build_agent(
        &self,
        _request: &CreateSessionRequest,
        _event_tx: mpsc::Sender<AgentEvent>,
    ) -> Result<Agent, SessionError> {
        Ok(Agent { session: Session::new(), tell: self.tell.clone() })
    }
}

/// No history grows, no text is made.
struct Agent {
    session: Session,
    tell: Sender<Instant>,
}

impl Agent {
    fn result(&self) -> RunResult {
        RunResult {
            text: String::new(),
            session_id: self.session.id().clone(),
            usage: Usage::default(),
            turns: 1,
            tool_calls: 0,
            structured_output: None,
            schema_warnings: None,
        }
    }
}

#[async_trait]
impl SessionAgent for Agent {
    async fn run_with_events(
        &mut self,
        prompt: String,
        event_tx: mpsc::Sender<AgentEvent>,
    ) -> Result<RunResult, AgentError> {
        match Task::of_prompt(&prompt) {
            Task::Emit(events) => {
                for _ in 0..events {
                    let delta = AgentEvent::TextDelta { delta: "word ".to_owned() };
                    event_tx.send(delta).await.expect("the service listens");
                }
            }
            task => task.work_in_a_task().await,
        }
        Ok(self.result())
    }

    async fn run_host_mode(&mut self, _prompt: String) -> Result<RunResult, AgentError> {
        Ok(self.result())
    }

    fn set_skill_references(&mut self, _references: Option<Vec<SkillId>>) {}

    fn cancel(&mut self) {
        self.tell.send(Instant::now()).expect("the bench listens");
    }

    fn session_id(&self) -> SessionId {
        self.session.id().clone()
    }

    fn snapshot(&self) -> SessionSnapshot {
        let now = SystemTime::now();
        SessionSnapshot {
            created_at: now,
            updated_at: now,
            message_count: 0,
            total_tokens: 0,
            usage: Usage::default(),
            last_assistant_text: None,
        }
    }

    fn session_clone(&self) -> Session {
        self.session.clone()
    }
}
