//! The worker of one active session: a thread that carries out the commands of the session in their order, begins its
//! turns, and makes updates and answers of their events.
//!
//! **Invariants.**
//! - The updates of a prompt come before its answer, and the updates of two turns are not mixed. Only one turn of a
//!   session runs at a time, so the worker reads one event channel until it disconnects. If several turns have events,
//!   then at most one of them has not ended, and the others come first.
//! - Every prompt and every other command gets one answer. A worker that panics answers those that are left with an
//!   error in its drop.
//! - A session has at most one worker. It leaves the table of the connection only when no command waits for it.

use std::convert::Infallible;

use agent_client_protocol_schema::v1::{
    AgentRequest, AgentResponse, AvailableCommandsUpdate, CloseSessionResponse, DeleteSessionResponse, Error,
    LoadSessionRequest, LoadSessionResponse, McpServer, NewSessionRequest, NewSessionResponse, PromptResponse,
    RequestId, ResumeSessionRequest, ResumeSessionResponse, SessionUpdate, StopReason,
};

use super::client::LoadedBy;
use super::dispatch::Connection;
use super::input;
use super::listing::path_text;
use super::pending::Waiter;
use super::prompts::{Prompt, Prompts};
use super::replay;
use super::service::AcpService;
use super::stop::{error_of, invalid_params, invalid_request, prompt_response, unknown_session};
use super::updates::TurnUpdates;
use super::CWD_LABEL;
use crate::error::SessionError;
use crate::model::{AgentEvent, InputId, InputRequest, SessionId, TurnId};
use crate::panics::contain_and_log;
use crate::service::{SessionState, StartTurnRequest};
use crate::sync::{at_or_never, bounded, never, Arc, Instant, Receiver, Select, TryRecvError};
use crate::turn::handle::TurnHandle;

/// A request about one session.
pub(super) enum Command {
    New(RequestId, NewSessionRequest),
    Load(RequestId, LoadSessionRequest),
    Resume(RequestId, ResumeSessionRequest),
    Prompt(Arc<Prompt>, String),
    Close(RequestId),
    Delete(RequestId),
}

/// A turn without an answer.
struct Running {
    prompt: Arc<Prompt>,
    handle: TurnHandle,
    events: Receiver<AgentEvent>,
    updates: TurnUpdates,
    /// The input requests that the client was asked, with the numbers of the calls.
    asked: Vec<(InputId, i64)>,
}

/// The close or delete that waits for the turns. Later commands wait behind it.
struct Closing {
    id: RequestId,
    is_delete: bool,
    deadline: Option<Instant>,
}

pub(super) struct Worker<S> {
    connection: Arc<Connection<S>>,
    session: SessionId,
    prompts: Arc<Prompts>,
    commands: Receiver<Command>,
    turns: Vec<Running>,
    /// The turn whose events are read.
    current: Option<TurnId>,
    /// The session is live, and belongs to this connection.
    is_active: bool,
    closing: Option<Closing>,
    /// The command that is being carried out, other than a prompt or a close.
    in_progress: Option<RequestId>,
    /// Never ready: for updates that belong to no turn.
    no_turn: Receiver<Infallible>,
}

enum Step {
    Command(Box<Command>),
    /// Something has happened to a turn.
    Turn,
    /// A close has waited long enough.
    Overdue,
    End,
}

impl<S: AcpService> Worker<S> {
    pub(super) fn new(
        connection: Arc<Connection<S>>,
        session: SessionId,
        prompts: Arc<Prompts>,
        commands: Receiver<Command>,
    ) -> Self {
        Self {
            connection,
            session,
            prompts,
            commands,
            turns: Vec::new(),
            current: None,
            is_active: false,
            closing: None,
            in_progress: None,
            no_turn: never(),
        }
    }

    /// Works until the session has left the table and all its turns are answered. The drop of the worker answers what a
    /// panic has left.
    pub(super) fn run(mut self) {
        contain_and_log("the worker of a session of a client", || self.work());
    }

    fn work(&mut self) {
        loop {
            match self.next_step() {
                Step::Command(command) => self.carry_out(*command),
                Step::Turn => self.read_events(),
                Step::Overdue => self.finish_close(),
                Step::End => break,
            }
        }
    }

    fn next_step(&mut self) -> Step {
        loop {
            let is_done = self.turns.is_empty();
            if self.closing.is_some() {
                // A load behind the close makes the session live again, so it must not come before the unloading.
                return if is_done { Step::Overdue } else { self.wait_for_turns() };
            }
            match self.commands.try_recv() {
                Ok(command) => return Step::Command(Box::new(command)),
                Err(TryRecvError::Disconnected) if is_done => return Step::End,
                Err(TryRecvError::Disconnected) => return self.wait_for_turns(),
                Err(TryRecvError::Empty) if is_done && !self.is_active => {
                    // Afterwards the channel is disconnected, or has a command.
                    self.leave();
                    continue;
                }
                Err(TryRecvError::Empty) => {}
            }
            let mut select = Select::new();
            select.recv(&self.commands);
            for events in self.events() {
                select.recv(events);
            }
            if select.ready() > 0 {
                return Step::Turn;
            }
        }
    }

    /// Waits for the turns alone: no more commands can come, or they wait behind a close.
    fn wait_for_turns(&self) -> Step {
        let overdue = at_or_never(self.closing.as_ref().and_then(|closing| closing.deadline));
        let mut select = Select::new();
        select.recv(&overdue);
        for events in self.events() {
            select.recv(events);
        }
        match select.ready() {
            0 => Step::Overdue,
            _ => Step::Turn,
        }
    }

    /// The event channels to wait for. While one turn emits, the channels of the others are empty, and disconnect when a
    /// queued turn is withdrawn.
    fn events(&self) -> impl Iterator<Item = &Receiver<AgentEvent>> {
        self.turns.iter().map(|turn| &turn.events)
    }

    fn carry_out(&mut self, command: Command) {
        self.in_progress = command.request();
        let (id, answer) = match command {
            Command::New(id, request) => (id, self.open(request).map(AgentResponse::NewSessionResponse)),
            Command::Load(id, request) => (id, self.load(&request).map(AgentResponse::LoadSessionResponse)),
            Command::Resume(id, request) => (id, self.resume(&request).map(AgentResponse::ResumeSessionResponse)),
            Command::Prompt(prompt, text) => return self.begin(prompt, text),
            Command::Close(id) => return self.close(id, false),
            Command::Delete(id) => return self.close(id, true),
        };
        let is_ok = answer.is_ok();
        self.in_progress = None;
        self.leave_if_inactive();
        self.connection.link.answer(id, answer);
        if is_ok {
            self.send_commands();
        }
    }

    /// Builds a new session.
    fn open(&mut self, request: NewSessionRequest) -> Result<NewSessionResponse, Error> {
        let cwd = path_text(&request.cwd)?;
        let before = self.set_client(&request.cwd, request.mcp_servers)?;
        let spec = self.connection.config.session.clone().session_id(self.session).label(CWD_LABEL, cwd);
        let opened = self.connection.service.open_session(spec);
        self.activate(before, opened.map(drop))?;
        Ok(NewSessionResponse::new(self.session.to_string()))
    }

    fn resume(&mut self, request: &ResumeSessionRequest) -> Result<ResumeSessionResponse, Error> {
        self.make_live(&request.cwd, request.mcp_servers.clone())?;
        Ok(ResumeSessionResponse::new())
    }

    /// Makes the session live, and sends its history.
    fn load(&mut self, request: &LoadSessionRequest) -> Result<LoadSessionResponse, Error> {
        if !self.turns.is_empty() {
            // The export would wait for a turn that waits for this thread to read its events.
            return Err(invalid_request("the session has a running prompt"));
        }
        let was_active = self.is_active;
        self.make_live(&request.cwd, request.mcp_servers.clone())?;
        let Connection { service, config, .. } = &*self.connection;
        let history = match service.export_session_timeout(self.session, config.load_timeout) {
            Ok(history) => history,
            Err(error) => {
                // The client takes the session as one that is not loaded.
                if !was_active {
                    self.deactivate();
                }
                return Err(error_of(error));
            }
        };
        let connection = &self.connection;
        for update in replay::updates(&history, &connection.config) {
            connection.link.update(self.session, update, &self.no_turn);
        }
        Ok(LoadSessionResponse::new())
    }

    fn make_live(&mut self, cwd: &std::path::Path, mcp_servers: Vec<McpServer>) -> Result<(), Error> {
        let cwd_text = path_text(cwd)?;
        let before = self.set_client(cwd, mcp_servers)?;
        let live = self.resume_in(cwd_text);
        self.activate(before, live)
    }

    fn resume_in(&self, cwd: String) -> Result<(), SessionError> {
        let Connection { service, config, .. } = &*self.connection;
        service.resume_session(self.session)?;
        let view = service.read(self.session)?;
        if view.state.state == SessionState::Faulted {
            match service.restart(self.session, config.load_timeout) {
                // The host, or the policy of the service, has been faster. An export waits for that build.
                Ok(()) | Err(SessionError::NotFaulted { .. } | SessionError::Busy { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if view.labels.get(CWD_LABEL) != Some(&cwd) {
            let mut labels = (*view.labels).clone();
            labels.insert(CWD_LABEL.to_owned(), cwd);
            service.set_labels(self.session, labels)?;
        }
        Ok(())
    }

    /// Names this connection as the session's client, before the build of the agent, which may ask for it.
    fn set_client(&self, cwd: &std::path::Path, mcp_servers: Vec<McpServer>) -> Result<Option<LoadedBy>, Error> {
        if !mcp_servers.iter().all(|server| matches!(server, McpServer::Stdio(_))) {
            return Err(invalid_params("an MCP server that does not use stdio is not supported"));
        }
        let link = Arc::downgrade(&self.connection.link);
        let loaded = LoadedBy { link, cwd: cwd.to_owned(), mcp_servers: mcp_servers.into() };
        Ok(self.connection.config.clients.set(self.session, loaded))
    }

    /// Activates the session, or gives it back to the client that had it before.
    fn activate(&mut self, before: Option<LoadedBy>, live: Result<(), SessionError>) -> Result<(), Error> {
        match live {
            Ok(()) => {
                self.is_active = true;
                Ok(())
            }
            Err(error) => {
                let clients = &self.connection.config.clients;
                match before {
                    Some(before) => drop(clients.set(self.session, before)),
                    None => clients.remove(self.session, &self.connection.link),
                }
                Err(error_of(error))
            }
        }
    }

    fn send_commands(&self) {
        let commands = &self.connection.config.commands;
        if !commands.is_empty() {
            let update = AvailableCommandsUpdate::new(commands.clone());
            let update = SessionUpdate::AvailableCommandsUpdate(update);
            self.connection.link.update(self.session, update, &self.no_turn);
        }
    }

    /// Begins the turn of a prompt.
    fn begin(&mut self, prompt: Arc<Prompt>, text: String) {
        let Connection { service, config, .. } = &*self.connection;
        if prompt.is_cancelled() {
            // Also where the session is not active: a cancelled prompt is no error.
            return self.answer(&prompt, Ok(cancelled()));
        }
        if !self.is_active {
            return self.answer(&prompt, Err(unknown_session(&self.session.to_string())));
        }
        let (event_tx, events) = bounded(config.unread_updates);
        let mut request = StartTurnRequest::new(text).event_tx(event_tx).when_busy(config.when_busy);
        request.timeout = config.turn_timeout;
        match service.begin_turn(self.session, request) {
            Ok(handle) => {
                if prompt.has_begun(handle.turn_id()) {
                    handle.interrupt();
                }
                let updates = TurnUpdates::default();
                self.turns.push(Running { prompt, handle, events, updates, asked: Vec::new() });
            }
            Err(error) => {
                let is_cancelled = prompt.is_cancelled();
                let response = prompt_response(Err(error), is_cancelled, false);
                self.answer(&prompt, response.map(AgentResponse::PromptResponse));
            }
        }
    }

    fn answer(&self, prompt: &Arc<Prompt>, answer: Result<AgentResponse, Error>) {
        self.prompts.remove(prompt);
        self.connection.link.answer(prompt.id.clone(), answer);
    }

    /// Reads the events that are there, of one turn.
    fn read_events(&mut self) {
        while let Some(at) = self.turns.iter().position(|turn| self.is_withdrawn(turn)) {
            self.finish(at);
        }
        let Some(at) = self.next_turn() else { return };
        self.current = Some(self.turns[at].handle.turn_id());
        // A turn that emits without a pause must not keep the commands waiting.
        for _ in 0..self.connection.config.unread_updates {
            match self.turns[at].events.try_recv() {
                Ok(event) => self.forward(at, event),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => return self.finish(at),
            }
        }
    }

    /// Whether a queued turn has ended without being run. A turn that is run emits its start at least.
    fn is_withdrawn(&self, turn: &Running) -> bool {
        self.current != Some(turn.handle.turn_id()) && turn.handle.is_finished() && turn.events.is_empty()
    }

    /// The turn whose events come next: the one that is being read, one that has ended, or else the one that runs.
    fn next_turn(&self) -> Option<usize> {
        let find = |fits: &dyn Fn(&Running) -> bool| self.turns.iter().position(fits);
        find(&|turn| self.current == Some(turn.handle.turn_id()))
            .or_else(|| find(&|turn| turn.handle.is_finished()))
            .or_else(|| find(&|turn| !turn.events.is_empty()))
    }

    fn forward(&mut self, at: usize, event: AgentEvent) {
        let Connection { link, config, .. } = &*self.connection;
        let turn = &mut self.turns[at];
        match event {
            AgentEvent::InputRequested { input_id, request } => self.ask(at, input_id, &request),
            AgentEvent::InputResolved { input_id, outcome } => {
                if let Some(update) = turn.updates.resolve(input_id, &outcome) {
                    link.update(self.session, update, turn.handle.finished());
                }
                // A later reply of the client is ignored.
                let number = turn.asked.iter().position(|(asked, _)| *asked == input_id);
                if let Some(number) = number {
                    link.pending.remove(turn.asked.swap_remove(number).1);
                }
            }
            event => {
                let able = link.capabilities().cloned().unwrap_or_default();
                for update in turn.updates.of(event, self.session, config, &able) {
                    link.update(self.session, update, turn.handle.finished());
                }
            }
        }
    }

    /// Asks the client for input. A client that cannot be asked declines.
    fn ask(&mut self, at: usize, input: InputId, asked: &InputRequest) {
        let Connection { service, link, .. } = &*self.connection;
        let turn = &mut self.turns[at];
        let able = link.capabilities().cloned().unwrap_or_default();
        let request = input::request(self.session, input, asked, turn.updates.current_call(), &able);
        if let Some((AgentRequest::RequestPermissionRequest(permission), _)) = &request {
            // First, so that the client knows the call that it is asked about.
            if let Some(update) = turn.updates.announce(input, &permission.tool_call) {
                link.update(self.session, update, turn.handle.finished());
            }
        }
        let number = request.and_then(|(request, kind)| {
            link.request(request, Waiter::Input { session: self.session, input, kind }).ok()
        });
        match number {
            Some(number) => turn.asked.push((input, number)),
            // Fails if the request has ended already.
            None => drop(service.respond(self.session, input, input::declined("the client cannot be asked"))),
        }
    }

    /// Answers the prompt of a turn whose event channel has disconnected.
    fn finish(&mut self, at: usize) {
        let Connection { link, config, .. } = &*self.connection;
        let Running { prompt, handle, mut updates, asked, .. } = self.turns.remove(at);
        if self.current == Some(handle.turn_id()) {
            self.current = None;
        }
        for (_, number) in asked {
            link.pending.remove(number);
        }
        let result = handle.wait();
        let answer = result.as_ref().ok().map(|result| result.text.as_str());
        let is_cancelled = prompt.is_cancelled();
        for update in updates.end(answer.filter(|_| !is_cancelled)) {
            // The turn has ended. Without room these few updates are above the limit.
            link.update(self.session, update, &ended_turn());
        }
        let response = prompt_response(result, is_cancelled, config.filtered_prompts_are_dropped);
        self.answer(&prompt, response.map(AgentResponse::PromptResponse));
    }

    fn close(&mut self, id: RequestId, is_delete: bool) {
        let deadline = Instant::now().checked_add(self.connection.config.close_timeout);
        self.closing = Some(Closing { id, is_delete, deadline });
    }

    /// Ends a close: all turns are answered, or it has waited long enough.
    fn finish_close(&mut self) {
        let Some(Closing { id, is_delete, deadline }) = &self.closing else { return };
        let (id, is_delete, deadline) = (id.clone(), *is_delete, *deadline);
        let answer = match self.is_active || is_delete {
            true => self.unload(is_delete, deadline),
            false => Err(unknown_session(&self.session.to_string())),
        };
        self.closing = None;
        self.deactivate();
        // Before the answer: after it the client counts on the place of the session.
        self.leave_if_inactive();
        self.connection.link.answer(id, answer);
    }

    /// Unloads or deletes the session.
    fn unload(&self, is_delete: bool, deadline: Option<Instant>) -> Result<AgentResponse, Error> {
        let left = deadline.map_or(self.connection.config.close_timeout, |at| at - Instant::now());
        let service = &self.connection.service;
        let answer = if is_delete {
            let deleted = service.delete_session(self.session, left);
            deleted.map(|()| AgentResponse::DeleteSessionResponse(DeleteSessionResponse::new()))
        } else {
            let unloaded = service.unload_session(self.session, left);
            unloaded.map(|()| AgentResponse::CloseSessionResponse(CloseSessionResponse::new()))
        };
        answer.map_err(error_of)
    }

    /// Leaves the table of the connection, unless the session is in use or a command waits.
    fn leave_if_inactive(&self) {
        if !self.is_active && self.turns.is_empty() && self.closing.is_none() {
            self.leave();
        }
    }

    fn leave(&self) {
        self.connection.forget(self.session, &self.prompts, &self.commands);
    }

    /// The session does not belong to this connection any more.
    fn deactivate(&mut self) {
        if std::mem::take(&mut self.is_active) {
            self.connection.config.clients.remove(self.session, &self.connection.link);
        }
    }
}

impl Command {
    /// The id of the request, for the commands that are answered once they are carried out.
    fn request(&self) -> Option<RequestId> {
        match self {
            Self::New(id, _) | Self::Load(id, _) | Self::Resume(id, _) => Some(id.clone()),
            // The list of prompts and the close have their own.
            Self::Prompt(..) | Self::Close(_) | Self::Delete(_) => None,
        }
    }
}

/// The end of a worker. After an ordinary end there is nothing left to answer. After a panic, and where the thread of the
/// worker did not start, no request may wait for ever.
impl<S> Drop for Worker<S> {
    fn drop(&mut self) {
        // First, so that no later command is sent to this worker.
        self.connection.remove(self.session, &self.prompts);
        let link = &self.connection.link;
        for turn in &self.turns {
            for (_, number) in &turn.asked {
                link.pending.remove(*number);
            }
            contain_and_log("an interrupt of a client's turn", || turn.handle.interrupt());
        }
        if std::mem::take(&mut self.is_active) {
            self.connection.config.clients.remove(self.session, link);
        }
        let closing = self.closing.take().map(|closing| closing.id);
        for id in self.in_progress.take().into_iter().chain(closing) {
            link.answer(id, Err(Error::internal_error()));
        }
        for command in self.commands.try_iter() {
            match command {
                Command::New(id, _) | Command::Load(id, _) | Command::Resume(id, _) => {
                    link.answer(id, Err(Error::internal_error()));
                }
                Command::Close(id) | Command::Delete(id) => link.answer(id, Err(Error::internal_error())),
                Command::Prompt(..) => {}
            }
        }
        for prompt in self.prompts.take_all() {
            let answer = if prompt.is_cancelled() { Ok(cancelled()) } else { Err(Error::internal_error()) };
            link.answer(prompt.id.clone(), answer);
        }
    }
}

fn cancelled() -> AgentResponse {
    AgentResponse::PromptResponse(PromptResponse::new(StopReason::Cancelled))
}

/// The channel of a turn that has ended: it is disconnected.
fn ended_turn() -> Receiver<Infallible> {
    bounded(0).1
}

#[cfg(test)]
mod tests {
    use serde_json::{json, Value};

    use super::*;
    use crate::acp::link::Link;
    use crate::acp::outbox::outbox;
    use crate::acp::{AcpClients, AcpConfig};
    use crate::sync::unbounded;
    use crate::{agent_fn, EphemeralSessionService};

    #[test]
    fn c69_a_worker_that_panics_answers_everything_that_is_left() {
        let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
        let (outbox, writer) = outbox(1, 9);
        let link = Arc::new(Link::new(outbox));
        let (running, _threads) = bounded(0);
        let connection = Arc::new(Connection::new(service, AcpConfig::new(AcpClients::new()), link, running));
        let (prompts, session) = (Arc::<Prompts>::default(), SessionId::new());
        let (commands, received) = unbounded();
        let (first, cancelled) = (prompts.add(RequestId::Number(1)), prompts.add(RequestId::Number(2)));
        prompts.cancel(&cancelled.id);
        commands.send(Command::Prompt(first, String::new())).unwrap();
        commands.send(Command::Prompt(cancelled, String::new())).unwrap();
        commands.send(Command::Resume(RequestId::Number(3), ResumeSessionRequest::new("", "/"))).unwrap();
        commands.send(Command::Delete(RequestId::Number(4))).unwrap();
        let mut worker = Worker::new(Arc::clone(&connection), session, prompts, received);
        worker.in_progress = Some(RequestId::Number(5));
        worker.close(RequestId::Number(6), false);
        drop(worker);
        assert!(commands.send(Command::Close(RequestId::Null)).is_err());

        connection.link.outbox.end();
        let mut lines = Vec::new();
        writer.run(&mut lines).unwrap();
        let lines = String::from_utf8(lines).unwrap();
        let mut answers: Vec<(i64, Value)> = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|line| (line["id"].as_i64().unwrap(), line["error"]["code"].clone()))
            .collect();
        answers.sort_by_key(|answer| answer.0);
        let failed = |id| (id, json!(-32603));
        assert_eq!(answers, [failed(1), (2, Value::Null), failed(3), failed(4), failed(5), failed(6)]);
    }
}
