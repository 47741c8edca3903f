//! The part of a connection that needs no service: agents reach it from their session threads.

use std::convert::Infallible;
use std::time::Duration;

use agent_client_protocol_schema::rpc::{JsonRpcMessage, Notification};
use agent_client_protocol_schema::v1::{
    AgentNotification, AgentRequest, AgentResponse, ClientCapabilities, CreateTerminalResponse, Error,
    ReleaseTerminalRequest, Request, RequestId, Response, SessionNotification, SessionUpdate, TerminalId,
};

use super::client::CallError;
use super::outbox::Outbox;
use super::pending::{PendingCalls, Reply, Waiter};
use crate::model::SessionId;
use crate::sync::{bounded, Mutex, Receiver, Sender, WriteOnce};

pub(super) struct Link {
    pub(super) outbox: Outbox,
    pub(super) pending: PendingCalls,
    /// Set by `initialize`.
    capabilities: WriteOnce<ClientCapabilities>,
    /// Disconnects at the end of the connection.
    ended: Receiver<Infallible>,
    /// The only sender of `ended`, until the end.
    until_end: Mutex<Option<Sender<Infallible>>>,
}

impl Link {
    pub(super) fn new(outbox: Outbox) -> Self {
        let (until_end, ended) = bounded(0);
        let until_end = Mutex::new(Some(until_end));
        Self { outbox, pending: PendingCalls::new(), capabilities: WriteOnce::new(), ended, until_end }
    }

    /// Stores what the client can do. Returns whether this is the first time.
    pub(super) fn initialize(&self, capabilities: ClientCapabilities) -> bool {
        self.capabilities.set(capabilities).is_ok()
    }

    /// What the client can do. `None` before `initialize`.
    pub(super) fn capabilities(&self) -> Option<&ClientCapabilities> {
        self.capabilities.get()
    }

    /// Ends the connection for everything that waits for the client. The queue of lines stays open.
    pub(super) fn end(&self) {
        let until_end = self.until_end.lock().take();
        drop(until_end);
        self.pending.close();
    }

    /// Accepts a request of the client, which is then answered by [`answer`](Self::answer) once. `false` if too many have no
    /// answer.
    pub(super) fn accept(&self) -> bool {
        self.outbox.accept()
    }

    /// Answers an accepted request of the client. Does not wait.
    pub(super) fn answer(&self, id: RequestId, result: Result<AgentResponse, Error>) {
        let failed = Response::new(id.clone(), Err::<AgentResponse, _>(Error::internal_error()));
        if !self.outbox.put_accepted(&JsonRpcMessage::wrap(Response::new(id, result))) {
            self.outbox.put_accepted(&JsonRpcMessage::wrap(failed));
        }
    }

    /// Answers a line that was not accepted, on the reader's thread. Waits if the client has left many answers unread, at
    /// most for `patience`. Returns whether the answer is in the queue.
    pub(super) fn answer_from_reader(
        &self,
        id: RequestId,
        result: Result<AgentResponse, Error>,
        patience: Duration,
    ) -> bool {
        self.outbox.put_answer(&JsonRpcMessage::wrap(Response::new(id, result)), &self.ended, patience)
    }

    /// Sends an update. Waits for a place until `turn` has ended.
    pub(super) fn update(&self, session: SessionId, update: SessionUpdate, turn: &Receiver<Infallible>) {
        let notification = SessionNotification::new(session.to_string(), update);
        let notification = AgentNotification::SessionNotification(notification);
        let message = Notification { method: notification.method().into(), params: Some(notification) };
        self.outbox.put_update(&JsonRpcMessage::wrap(message), turn, &self.ended);
    }

    /// Tells the client to free a terminal. Does not wait.
    pub(super) fn release_terminal(&self, session: SessionId, terminal: TerminalId) {
        let request = ReleaseTerminalRequest::new(session.to_string(), terminal);
        // No thread waits for the reply: it finds no receiver.
        let (sender, _) = bounded(1);
        let _ = self.request(AgentRequest::ReleaseTerminalRequest(request), Waiter::Call(sender));
    }

    /// Frees the terminal of a reply to `terminal/create`, if it is one.
    pub(super) fn release_created(&self, session: SessionId, reply: Reply) {
        let created = reply.ok().and_then(|reply| serde_json::from_value::<CreateTerminalResponse>(reply).ok());
        if let Some(created) = created {
            self.release_terminal(session, created.terminal_id);
        }
    }

    /// Sends a request to the client. Returns its number.
    ///
    /// # Errors
    /// [`CallError::NoClient`] after the end of the connection, [`CallError::NotUtf8`] for a request that JSON cannot hold.
    /// Then no reply comes, and nothing waits for one.
    pub(super) fn request(&self, request: AgentRequest, waiter: Waiter) -> Result<i64, CallError> {
        // Before the request is sent: the reply may come at once.
        let number = self.pending.add(waiter).ok_or(CallError::NoClient)?;
        let id = RequestId::Number(number);
        let message = Request { id, method: request.method().into(), params: Some(request) };
        if !self.outbox.put(&JsonRpcMessage::wrap(message)) {
            self.pending.remove(number);
            return Err(CallError::NotUtf8);
        }
        Ok(number)
    }
}
