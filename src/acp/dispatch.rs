//! The connection, and the reader that passes each line of the client on.
//!
//! **Invariant.** The reader waits for the client only. A request that may wait for a session, for the disk or for a build
//! is carried out by a worker.

use std::convert::Infallible;
use std::io;

use agent_client_protocol_schema::v1::{
    AgentCapabilities, AgentResponse, CancelNotification, CancelRequestNotification, ClientNotification, ClientRequest,
    Error, Implementation, InitializeRequest, InitializeResponse, ListSessionsRequest, PromptCapabilities,
    PromptRequest, ProtocolLevelNotification, RequestId, SessionCapabilities, SessionCloseCapabilities,
    SessionDeleteCapabilities, SessionListCapabilities, SessionResumeCapabilities,
};
use agent_client_protocol_schema::{MethodDispatchError, ProtocolVersion};
use indexmap::IndexMap;
use serde_json::Value;

use super::config::{AcpConfig, AcpError};
use super::content;
use super::input;
use super::link::Link;
use super::listing;
use super::message::Incoming;
use super::pending::{Reply, Waiter};
use super::prompts::Prompts;
use super::service::AcpService;
use super::stop::{invalid_params, invalid_request, unknown_session};
use super::worker::{Command, Worker};
use crate::model::{SessionId, TurnId};
use crate::panics::{contain, record};
use crate::sync::{unbounded, Arc, Builder, Mutex, Receiver, Sender, Weak};

/// How many lists may be in progress at a time.
const LISTS: usize = 8;

/// How many sessions above the limit may be in the table for their deletes.
const DELETES: usize = 8;

pub(super) struct Connection<S> {
    pub(super) service: S,
    pub(super) config: AcpConfig,
    pub(super) link: Arc<Link>,
    sessions: Mutex<Sessions>,
}

struct Sessions {
    /// In the order of their activation.
    active: IndexMap<SessionId, ActiveSession>,
    /// The number of lists in progress.
    lists: usize,
    /// Cloned into every thread of the connection. `None` after the end: no thread starts any more.
    running: Option<Sender<Infallible>>,
}

/// A session in the table. The drop of the sender is the end of its worker.
struct ActiveSession {
    commands: Sender<Command>,
    prompts: Arc<Prompts>,
}

/// The answer of a request on the reader's thread. `None` if another thread answers.
type Outcome = Option<Result<AgentResponse, Error>>;

impl<S: AcpService> Connection<S> {
    /// `running` is cloned into every thread.
    pub(super) fn new(service: S, config: AcpConfig, link: Arc<Link>, running: Sender<Infallible>) -> Self {
        let sessions = Sessions { active: IndexMap::new(), lists: 0, running: Some(running) };
        Self { service, config, link, sessions: Mutex::new(sessions) }
    }

    /// Handles one line of the client.
    ///
    /// # Errors
    /// If the client leaves so many answers unread that there is no room for another one within the grace.
    fn receive(self: &Arc<Self>, line: &[u8]) -> Result<(), AcpError> {
        match Incoming::parse(line) {
            Incoming::Request { id, .. } if !self.link.accept() => {
                self.answer(id, Err(invalid_request("too many requests have no answer yet")))
            }
            Incoming::Request { id, method, params } => {
                if let Some(answer) = self.request(&id, &method, params) {
                    self.link.answer(id, answer);
                }
                Ok(())
            }
            Incoming::Notification { method, params } => {
                self.notification(&method, &params);
                Ok(())
            }
            Incoming::Reply { id, result } => {
                self.reply(&id, result);
                Ok(())
            }
            Incoming::Malformed { id, error } => self.answer(id, Err(error)),
            Incoming::Ignored => Ok(()),
        }
    }

    /// Answers a line that was not accepted.
    fn answer(&self, id: RequestId, answer: Result<AgentResponse, Error>) -> Result<(), AcpError> {
        match self.link.answer_from_reader(id, answer, self.config.grace) {
            true => Ok(()),
            false => Err(AcpError::Output(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Answers a line above the limit.
    fn refuse_long_line(&self) -> Result<(), AcpError> {
        let error =
            Error::parse_error().data(Value::from(format!("a line has at most {} bytes", self.config.max_line)));
        self.answer(RequestId::Null, Err(error))
    }

    fn request(self: &Arc<Self>, id: &RequestId, method: &str, mut params: Value) -> Outcome {
        if method != "initialize" && self.link.capabilities().is_none() {
            return refused(invalid_request("the first request is \"initialize\""));
        }
        complete(method, &mut params);
        let request = match ClientRequest::from_method_and_params(method, &params) {
            Ok(request) => request,
            Err(MethodDispatchError::UnknownMethod { .. }) => return refused(Error::method_not_found()),
            Err(error) => return refused(Error::invalid_params().data(Value::from(error.to_string()))),
        };
        if let ClientRequest::InitializeRequest(request) = request {
            return Some(self.initialize(request).map(AgentResponse::InitializeResponse));
        }
        let id = id.clone();
        match request {
            ClientRequest::NewSessionRequest(request) => self.open(SessionId::new(), Command::New(id, request)),
            ClientRequest::LoadSessionRequest(request) => {
                let session = request.session_id.0.clone();
                self.with_id(&session, |session| self.open(session, Command::Load(id, request)))
            }
            ClientRequest::ResumeSessionRequest(request) => {
                let session = request.session_id.0.clone();
                self.with_id(&session, |session| self.open(session, Command::Resume(id, request)))
            }
            ClientRequest::ListSessionsRequest(request) => self.list(id, request),
            ClientRequest::PromptRequest(request) => self.prompt(id, &request),
            ClientRequest::CloseSessionRequest(request) => {
                self.with_id(&request.session_id.0, |session| self.close(session, id))
            }
            ClientRequest::DeleteSessionRequest(request) => {
                self.with_id(&request.session_id.0, |session| self.delete(session, id))
            }
            ClientRequest::AuthenticateRequest(_) => refused(invalid_params("there is no such method to authenticate")),
            // Modes, options and logout are not offered. Extensions are not known.
            _ => refused(Error::method_not_found()),
        }
    }

    fn initialize(&self, request: InitializeRequest) -> Result<InitializeResponse, Error> {
        if !self.link.initialize(request.client_capabilities) {
            return Err(invalid_request("the connection is initialized already"));
        }
        let session = SessionCapabilities::new()
            .list(SessionListCapabilities::new())
            .resume(SessionResumeCapabilities::new())
            .close(SessionCloseCapabilities::new())
            .delete(SessionDeleteCapabilities::new());
        let able = AgentCapabilities::new()
            .load_session(true)
            .prompt_capabilities(PromptCapabilities::new().embedded_context(true))
            .session_capabilities(session);
        let agent = self.config.agent.clone();
        let agent = agent.unwrap_or_else(|| Implementation::new("turnwise", env!("CARGO_PKG_VERSION")));
        Ok(InitializeResponse::new(ProtocolVersion::V1).agent_capabilities(able).agent_info(agent))
    }

    fn with_id(&self, text: &str, request: impl FnOnce(SessionId) -> Outcome) -> Outcome {
        match text.parse() {
            Ok(session) => request(session),
            Err(_) => refused(unknown_session(text)),
        }
    }

    /// Passes a command to the worker of a session, and starts one if there is none.
    fn open(self: &Arc<Self>, session: SessionId, command: Command) -> Outcome {
        let (worker, running) = {
            let mut sessions = self.sessions.lock();
            if let Some(active) = sessions.active.get(&session) {
                // Under this lock, under which a worker leaves the table: it finds the command, and stays.
                return sent(active.commands.send(command).is_ok());
            }
            let above = if matches!(command, Command::Delete(_)) { DELETES } else { 0 };
            if sessions.active.len() >= self.config.max_sessions.saturating_add(above) {
                return refused(invalid_request("too many sessions are active; close one first"));
            }
            let Some(running) = sessions.running.clone() else { return refused(Error::internal_error()) };
            let (commands, received) = unbounded();
            let _ = commands.send(command);
            let prompts = Arc::<Prompts>::default();
            sessions.active.insert(session, ActiveSession { commands, prompts: Arc::clone(&prompts) });
            (Worker::new(Arc::clone(self), session, prompts, received), running)
        };
        // A thread that does not start drops the worker, which leaves the table and answers.
        start_worker(worker, running);
        None
    }

    fn list(self: &Arc<Self>, id: RequestId, request: ListSessionsRequest) -> Outcome {
        let running = {
            let mut sessions = self.sessions.lock();
            let Some(running) = sessions.running.clone().filter(|_| sessions.lists < LISTS) else {
                return refused(invalid_request("too many lists are in progress"));
            };
            sessions.lists += 1;
            running
        };
        let connection = Arc::clone(self);
        let is_started = start("acp-list", move || {
            let _running = running;
            // Dropped before it: `serve` may count on the last handle of the service.
            let connection = connection;
            // The service may be one of the host's.
            let answer = contain(|| listing::page(&connection.service, &request, &connection.config));
            let answer = answer.unwrap_or_else(|_| Err(Error::internal_error()));
            connection.sessions.lock().lists -= 1;
            connection.link.answer(id, answer.map(AgentResponse::ListSessionsResponse));
        });
        if is_started {
            return None;
        }
        self.sessions.lock().lists -= 1;
        refused(Error::internal_error())
    }

    fn prompt(&self, id: RequestId, request: &PromptRequest) -> Outcome {
        let text = match content::text_of(&request.prompt) {
            Ok(text) => text,
            Err(error) => return refused(error),
        };
        self.with_id(&request.session_id.0, |session| {
            let sessions = self.sessions.lock();
            let Some(active) = sessions.active.get(&session) else {
                return refused(unknown_session(&request.session_id.0));
            };
            // In the list before any later line is read: a cancellation finds it.
            let prompt = active.prompts.add(id);
            let is_sent = active.commands.send(Command::Prompt(Arc::clone(&prompt), text)).is_ok();
            if !is_sent {
                active.prompts.remove(&prompt);
            }
            sent(is_sent)
        })
    }

    /// Cancels the prompts of a session. Its worker carries out the close behind them, and later commands behind the
    /// close.
    fn close(self: &Arc<Self>, session: SessionId, id: RequestId) -> Outcome {
        let prompts = {
            let sessions = self.sessions.lock();
            let Some(active) = sessions.active.get(&session) else {
                return refused(unknown_session(&session.to_string()));
            };
            if active.commands.send(Command::Close(id)).is_err() {
                return sent(false);
            }
            Arc::clone(&active.prompts)
        };
        self.interrupt(of(session, prompts.cancel_all()));
        None
    }

    /// Deletes a session, active or not. One that is not gets a worker for the delete.
    fn delete(self: &Arc<Self>, session: SessionId, id: RequestId) -> Outcome {
        let outcome = self.open(session, Command::Delete(id));
        // No prompt of the client is behind the delete yet.
        self.cancel_all(session);
        outcome
    }

    fn notification(self: &Arc<Self>, method: &str, params: &Value) {
        if self.link.capabilities().is_none() {
            return;
        }
        if let Ok(ClientNotification::CancelNotification(CancelNotification { session_id, .. })) =
            ClientNotification::from_method_and_params(method, params)
        {
            self.cancel(&session_id.0);
        } else if let Ok(ProtocolLevelNotification::CancelRequestNotification(cancel)) =
            ProtocolLevelNotification::from_method_and_params(method, params)
        {
            self.cancel_request(&cancel);
        }
        // Every other notification is ignored: it has no answer.
    }

    /// Cancels all prompts of a session. Without one it does nothing.
    fn cancel(self: &Arc<Self>, session: &str) {
        if let Ok(session) = session.parse() {
            self.cancel_all(session);
        }
    }

    fn cancel_all(self: &Arc<Self>, session: SessionId) {
        let Some(prompts) = self.sessions.lock().active.get(&session).map(|active| Arc::clone(&active.prompts)) else {
            return;
        };
        self.interrupt(of(session, prompts.cancel_all()));
    }

    /// Cancels the prompt with this id. Other requests are carried out to their end.
    fn cancel_request(self: &Arc<Self>, cancel: &CancelRequestNotification) {
        let sessions: Vec<_> = {
            let sessions = self.sessions.lock();
            sessions.active.iter().map(|(id, active)| (*id, Arc::clone(&active.prompts))).collect()
        };
        let cancelled = |(session, prompts): (_, Arc<Prompts>)| of(session, prompts.cancel(&cancel.request_id));
        self.interrupt(sessions.into_iter().flat_map(cancelled).collect());
    }

    /// Interrupts turns. Does not wait: see [`interrupt_with`](Self::interrupt_with).
    fn interrupt(self: &Arc<Self>, turns: Vec<(SessionId, TurnId)>) {
        let running = self.sessions.lock().running.clone();
        self.interrupt_with(running, turns);
    }

    /// Interrupts turns, in this order, on a thread of their own: the cancel hooks of the agents run there, and one of them
    /// may not return. There is at most one such thread for each prompt, since a prompt gives its turn away once. A turn
    /// that has ended meanwhile is left alone.
    fn interrupt_with(self: &Arc<Self>, running: Option<Sender<Infallible>>, turns: Vec<(SessionId, TurnId)>) {
        if turns.is_empty() {
            return;
        }
        let (connection, of_thread) = (Arc::clone(self), turns.clone());
        let is_started = start("acp-cancel", move || {
            let _running = running;
            // Dropped before it, as in `list`.
            let connection = connection;
            connection.interrupt_here(of_thread);
        });
        if !is_started {
            self.interrupt_here(turns);
        }
    }

    fn interrupt_here(&self, turns: Vec<(SessionId, TurnId)>) {
        for (session, turn) in turns {
            let _ = self.service.interrupt_turn(session, turn);
        }
    }

    fn reply(&self, id: &RequestId, reply: Reply) {
        match self.link.pending.take(id) {
            // The agent may have stopped waiting: then no receiver is left.
            Some(Waiter::Call(sender)) => drop(sender.try_send(reply)),
            Some(Waiter::AbandonedTerminal { session }) => self.link.release_created(session, reply),
            Some(Waiter::Input { session, input, kind }) => {
                let response = input::response(kind, reply);
                if self.service.respond(session, input, response).is_err() {
                    // The answer is none of the options, or the request has ended. In the second case this fails too.
                    let declined = input::declined("the client's answer is none of the options");
                    let _ = self.service.respond(session, input, declined);
                }
            }
            None => {}
        }
    }

    /// Ends the connection: refuses new threads, cancels all prompts, and tells the workers to end. Does not wait.
    pub(super) fn end(self: &Arc<Self>) {
        let (active, running) = {
            let mut sessions = self.sessions.lock();
            (std::mem::take(&mut sessions.active), sessions.running.take())
        };
        // Before the interrupts: a worker that waits for room must see the end.
        self.link.end();
        record!(Debug, "turnwise::acp", "the connection has ended; {} sessions were active", active.len());
        // With the drop of its entry a worker ends, once it has answered its prompts.
        let cancelled = |(session, active): (_, ActiveSession)| of(session, active.prompts.cancel_all());
        self.interrupt_with(running, active.into_iter().flat_map(cancelled).collect());
    }

    /// Passes a line of the reader to the connection; `None` is one above the limit. Returns whether there is still a
    /// connection.
    pub(super) fn receive_weakly(connection: &Weak<Self>, line: Option<&[u8]>) -> Result<bool, AcpError> {
        let Some(connection) = connection.upgrade() else { return Ok(false) };
        match line {
            Some(line) => connection.receive(line),
            None => connection.refuse_long_line(),
        }
        .map(|()| true)
    }
}

impl<S> Connection<S> {
    /// Takes a worker's session out of the table, unless a command waits for the worker. Then the drop of the sender
    /// disconnects the worker's channel.
    pub(super) fn forget(&self, session: SessionId, of: &Arc<Prompts>, commands: &Receiver<Command>) {
        let removed = {
            let mut sessions = self.sessions.lock();
            // Under the lock under which commands are sent: none comes between the check and the removal.
            if commands.is_empty() {
                sessions.remove(session, of)
            } else {
                None
            }
        };
        drop(removed);
    }

    /// Takes a worker's session out of the table, if it is there.
    pub(super) fn remove(&self, session: SessionId, of: &Arc<Prompts>) {
        let removed = self.sessions.lock().remove(session, of);
        drop(removed);
    }
}

impl Sessions {
    /// Removes the entry of the worker with these prompts. The entry of a later worker stays.
    fn remove(&mut self, session: SessionId, of: &Arc<Prompts>) -> Option<ActiveSession> {
        let is_own = self.active.get(&session).is_some_and(|active| Arc::ptr_eq(&active.prompts, of));
        if is_own {
            self.active.shift_remove(&session)
        } else {
            None
        }
    }
}

/// The turns with their session.
fn of(session: SessionId, turns: Vec<TurnId>) -> Vec<(SessionId, TurnId)> {
    turns.into_iter().map(|turn| (session, turn)).collect()
}

/// The outcome of a command for a worker. A worker that has ended takes none.
fn sent(is_sent: bool) -> Outcome {
    if is_sent {
        None
    } else {
        refused(Error::internal_error())
    }
}

fn refused(error: Error) -> Outcome {
    Some(Err(error))
}

/// Starts the thread of a worker.
fn start_worker<S: AcpService>(worker: Worker<S>, running: Sender<Infallible>) {
    start("acp-session", move || {
        let _running = running;
        worker.run();
    });
}

/// Starts a detached thread. Returns whether that has succeeded.
fn start(name: &str, body: impl FnOnce() + Send + 'static) -> bool {
    let started = Builder::new().name(name.to_owned()).spawn(body);
    if let Err(error) = &started {
        record!(Warn, "turnwise::acp", "no thread for a request of the client: {}", error.kind());
    }
    started.is_ok()
}

/// Adds what clients leave out, and what the types require.
fn complete(method: &str, params: &mut Value) {
    let Value::Object(params) = params else { return };
    match method {
        "initialize" => {
            // A version that the type cannot hold is one that is not supported, and is answered with 1.
            let version = params.get("protocolVersion").and_then(Value::as_u64);
            params.extend(version.map(|version| ("protocolVersion".to_owned(), version.min(u16::MAX.into()).into())));
        }
        "session/new" | "session/load" => {
            params.entry("mcpServers").or_insert_with(|| Value::Array(Vec::new()));
        }
        _ => {}
    }
}
