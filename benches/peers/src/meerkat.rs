//! `meerkat-session`: an async service of sessions. Each session is a task.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
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
use tokio::sync::{mpsc, Notify};
use tokio::task::JoinHandle;

use crate::common::times::time;
use crate::common::MANY;
use crate::peer::{Peer, Service, PATIENCE, SETTLE};
use crate::task::Task;

pub(crate) struct Meerkat<'r> {
    runtime: &'r Runtime,
    service: Arc<EphemeralSessionService<Builder>>,
    running: Receiver<()>,
    release: Arc<Notify>,
    told: Receiver<Instant>,
}

impl<'r> Meerkat<'r> {
    pub(crate) fn new(runtime: &'r Runtime) -> Self {
        let ((run, running), release, (tell, told)) = (unbounded(), Arc::new(Notify::new()), unbounded());
        let builder = Builder(Signals { run, released: Arc::clone(&release), tell });
        let service = Arc::new(EphemeralSessionService::new(builder, 2 * MANY));
        Self { runtime, service, running, release, told }
    }

    /// Starts a turn, and waits until it runs. The turn is held until it is released.
    fn hold(&self, session: &SessionId, milliseconds: u64) -> JoinHandle<Result<RunResult, SessionError>> {
        let (service, id, request) =
            (Arc::clone(&self.service), session.clone(), request(Task::Hold(milliseconds), None));
        let turn = self.runtime.spawn(async move { service.start_turn(&id, request).await });
        self.running.recv_timeout(PATIENCE).expect("the turn runs");
        turn
    }

    /// Begins a call during a held turn, and then releases the turn. The session answers no call before its turn has
    /// ended, so a wait for the answer before the release would not end. One poll begins the call, because no other
    /// call holds the service's lock or fills the session's queue.
    async fn begin_then_release<T>(&self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        let begun = futures::poll!(&mut call);
        self.release.notify_one();
        match begun {
            Poll::Ready(answer) => answer,
            Poll::Pending => call.await,
        }
    }

    async fn turn(&self, session: &SessionId, task: Task, event_tx: Option<mpsc::Sender<AgentEvent>>) {
        self.service.start_turn(session, request(task, event_tx)).await.expect("a result");
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
        self.runtime.block_on(self.service.archive(&session)).expect("a live session");
    }

    fn close_all(&self, sessions: Vec<SessionId>) {
        for session in sessions {
            self.runtime.block_on(self.service.archive(&session)).expect("a live session");
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
        self.runtime.block_on(turn).expect("the turn does not panic").expect("a result");
    }

    fn read(&self, session: &SessionId) {
        self.runtime.block_on(self.service.read(session)).expect("a live session");
    }

    fn read_during_a_turn(&self, session: &SessionId, milliseconds: u64) -> Duration {
        let turn = self.hold(session, milliseconds);
        let read = || self.runtime.block_on(self.begin_then_release(self.service.read(session))).expect("a view");
        let read = time(|| drop(read()));
        self.runtime.block_on(turn).expect("the turn does not panic").expect("a result");
        read
    }

    fn list(&self, limit: Option<usize>) -> usize {
        self.runtime.block_on(self.service.list(SessionQuery { limit, offset: None })).expect("a list").len()
    }

    fn interrupt(&self, session: &SessionId, milliseconds: u64) -> Duration {
        let turn = self.hold(session, milliseconds);
        thread::sleep(SETTLE);
        let interrupted = Instant::now();
        let interrupt = self.begin_then_release(self.service.interrupt(session));
        self.runtime.block_on(interrupt).expect("the turn runs");
        let told = self.told.recv_timeout(PATIENCE).expect("the agent is notified");
        self.runtime.block_on(turn).expect("the turn does not panic").expect("a result");
        told.saturating_duration_since(interrupted)
    }
}

/// The channels between the agents and the workloads.
#[derive(Clone)]
struct Signals {
    run: Sender<()>,
    released: Arc<Notify>,
    tell: Sender<Instant>,
}

struct Builder(Signals);

#[async_trait]
impl SessionAgentBuilder for Builder {
    type Agent = Agent;

    async fn build_agent(
        &self,
        _request: &CreateSessionRequest,
        _event_tx: mpsc::Sender<AgentEvent>,
    ) -> Result<Agent, SessionError> {
        Ok(Agent { session: Session::new(), signals: self.0.clone() })
    }
}

/// An agent that adds no messages and produces no text.
struct Agent {
    session: Session,
    signals: Signals,
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
            Task::Hold(milliseconds) => {
                self.signals.run.send(()).expect("the bench listens");
                self.signals.released.notified().await;
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
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
        self.signals.tell.send(Instant::now()).expect("the bench listens");
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
