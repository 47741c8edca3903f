//! The client as an agent sees it: which client has loaded a session, and blocking calls to it.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use agent_client_protocol_schema::v1::{
    AgentRequest, ClientCapabilities, ClientResponse, CreateTerminalRequest, CreateTerminalResponse, Error,
    KillTerminalRequest, McpServer, ReadTextFileRequest, TerminalExitStatus, TerminalId, TerminalOutputRequest,
    TerminalOutputResponse, WaitForTerminalExitRequest, WriteTextFileRequest,
};
use serde_json::{Map, Value};

use super::link::Link;
use super::pending::{Reply, Waiter};
use crate::context::turn::TurnContext;
use crate::error::{AgentError, Cancelled};
use crate::model::{Brief, SessionId};
use crate::sync::{bounded, Arc, Mutex, Receiver, Weak};

/// The clients that have loaded sessions, by session. Clones share one table.
///
/// The host makes one, gives a clone to the builder of its agents, and passes another one to [`AcpConfig::new`]. One
/// table may serve several connections.
///
/// ```
/// use turnwise::acp::AcpClients;
/// use turnwise::{agent_fn, builder_fn, EphemeralSessionService, SessionAgentBuilder};
///
/// let clients = AcpClients::new();
/// let of_builder = clients.clone();
/// let builder = builder_fn(move |spec, session| {
///     let client = of_builder.client(session.session_id());
///     let agent = agent_fn(move |path, turn| Ok(turn.finish(client.read_text_file(turn, &path, None, None)?)));
///     agent.build_agent(spec, session)
/// });
/// let service = EphemeralSessionService::new(builder, 8);
/// # drop(service);
/// ```
///
/// [`AcpConfig::new`]: super::AcpConfig::new
#[derive(Clone, Default)]
pub struct AcpClients {
    table: Arc<Mutex<HashMap<SessionId, LoadedBy>>>,
}

/// What a client has said when it loaded a session.
#[derive(Clone)]
pub(super) struct LoadedBy {
    pub(super) link: Weak<Link>,
    pub(super) cwd: PathBuf,
    pub(super) mcp_servers: Arc<[McpServer]>,
}

impl AcpClients {
    /// Makes an empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the client of a session, whether or not one has loaded it yet. Each call of the client finds the
    /// connection that has loaded the session most recently, so the value stays valid when the session is loaded again.
    pub fn client(&self, session: SessionId) -> AcpClient {
        AcpClient { clients: self.clone(), session }
    }

    /// Sets the client of a session. Returns the one before.
    pub(super) fn set(&self, session: SessionId, loaded: LoadedBy) -> Option<LoadedBy> {
        self.table.lock().insert(session, loaded)
    }

    /// Removes the client of a session, unless another connection has loaded it meanwhile.
    pub(super) fn remove(&self, session: SessionId, link: &Arc<Link>) {
        let mut table = self.table.lock();
        let is_own = |loaded: &LoadedBy| std::ptr::eq(loaded.link.as_ptr(), Arc::as_ptr(link));
        if table.get(&session).is_some_and(is_own) {
            table.remove(&session);
        }
    }

    fn get(&self, session: SessionId) -> Option<LoadedBy> {
        self.table.lock().get(&session).cloned()
    }
}

impl fmt::Debug for AcpClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcpClients").field("sessions", &self.table.lock().len()).finish()
    }
}

/// The client that has loaded a session, for the session's agent.
///
/// # Blocking
/// Each call waits for the client's reply, for as long as that takes. The wait holds no running permit, and ends with the
/// cancellation of the turn. A later reply has no effect.
///
/// # Errors
/// Those of [`CallError`]. After a failed call the connection goes on.
#[derive(Clone, Debug)]
pub struct AcpClient {
    clients: AcpClients,
    session: SessionId,
}

impl AcpClient {
    /// What the client can do. Nothing, if no client has loaded the session, or its connection has ended.
    pub fn capabilities(&self) -> ClientCapabilities {
        self.link().ok().and_then(|link| link.capabilities().cloned()).unwrap_or_default()
    }

    /// The working directory that the client has named: an absolute path. `None` if no client has loaded the session.
    pub fn cwd(&self) -> Option<PathBuf> {
        Some(self.clients.get(self.session)?.cwd)
    }

    /// The MCP servers that the client has named. They all use stdio. To connect to them is left to the agent.
    pub fn mcp_servers(&self) -> Arc<[McpServer]> {
        self.clients.get(self.session).map(|loaded| loaded.mcp_servers).unwrap_or_default()
    }

    /// Reads a text file, with the unsaved changes that an editor has. `path` is absolute. `line` is the first line,
    /// counted from 1; `limit` is the number of lines.
    ///
    /// # Errors
    /// Also [`CallError::Unsupported`], if the client has no `fs.readTextFile`.
    pub fn read_text_file(
        &self,
        turn: &TurnContext,
        path: impl AsRef<Path>,
        line: Option<u32>,
        limit: Option<u32>,
    ) -> Result<String, CallError> {
        let request = ReadTextFileRequest::new(self.session.to_string(), path.as_ref()).line(line).limit(limit);
        let is_supported = |able: &ClientCapabilities| able.fs.read_text_file;
        match self.call(turn, AgentRequest::ReadTextFileRequest(request), is_supported)? {
            ClientResponse::ReadTextFileResponse(response) => Ok(response.content),
            _ => Err(CallError::InvalidReply),
        }
    }

    /// Writes a text file, and creates it if needed. `path` is absolute.
    ///
    /// # Errors
    /// Also [`CallError::Unsupported`], if the client has no `fs.writeTextFile`. A call that is cancelled may have
    /// written the file.
    pub fn write_text_file(
        &self,
        turn: &TurnContext,
        path: impl AsRef<Path>,
        content: impl Into<String>,
    ) -> Result<(), CallError> {
        let request = WriteTextFileRequest::new(self.session.to_string(), path.as_ref(), content);
        let is_supported = |able: &ClientCapabilities| able.fs.write_text_file;
        self.call(turn, AgentRequest::WriteTextFileRequest(request), is_supported).map(drop)
    }

    /// Starts a command in a terminal of the client. `request` says which, in which directory and with which limit of
    /// output; its session is replaced by this one.
    ///
    /// ```
    /// # use turnwise::acp::{schema::CreateTerminalRequest, AcpClient, CallError};
    /// # use turnwise::TurnContext;
    /// fn run_tests(client: &AcpClient, turn: &TurnContext) -> Result<String, CallError> {
    ///     let command = CreateTerminalRequest::new("", "make").args(vec!["test".into()]).output_byte_limit(64_000);
    ///     let terminal = client.create_terminal(turn, command)?;
    ///     terminal.wait_for_exit(turn)?;
    ///     Ok(terminal.output(turn)?.output) // the drop releases the terminal
    /// }
    /// ```
    ///
    /// # Errors
    /// Also [`CallError::Unsupported`], if the client has no `terminal`.
    pub fn create_terminal(
        &self,
        turn: &TurnContext,
        mut request: CreateTerminalRequest,
    ) -> Result<Terminal, CallError> {
        request.session_id = self.session.to_string().into();
        let link = self.link()?;
        match self.call_on(&link, turn, AgentRequest::CreateTerminalRequest(request), |able| able.terminal)? {
            ClientResponse::CreateTerminalResponse(CreateTerminalResponse { terminal_id, .. }) => {
                Ok(Terminal { client: self.clone(), link: Arc::downgrade(&link), id: terminal_id })
            }
            _ => Err(CallError::InvalidReply),
        }
    }

    fn link(&self) -> Result<Arc<Link>, CallError> {
        let loaded = self.clients.get(self.session).ok_or(CallError::NoClient)?;
        loaded.link.upgrade().ok_or(CallError::NoClient)
    }

    /// Sends a request to the client that has loaded the session, and waits for the reply.
    fn call(
        &self,
        turn: &TurnContext,
        request: AgentRequest,
        is_supported: impl FnOnce(&ClientCapabilities) -> bool,
    ) -> Result<ClientResponse, CallError> {
        turn.check()?;
        self.call_on(&*self.link()?, turn, request, is_supported)
    }

    /// Sends a request on this connection, and waits for the reply.
    fn call_on(
        &self,
        link: &Link,
        turn: &TurnContext,
        request: AgentRequest,
        is_supported: impl FnOnce(&ClientCapabilities) -> bool,
    ) -> Result<ClientResponse, CallError> {
        turn.check()?;
        if !link.capabilities().is_some_and(is_supported) {
            return Err(CallError::Unsupported { method: request.method().to_owned() });
        }
        let method = request.method().to_owned();
        let is_create = matches!(request, AgentRequest::CreateTerminalRequest(_));
        let (sender, replies) = bounded(1);
        let number = link.request(request, Waiter::Call(sender))?;
        // Dropped also if the wait unwinds: a call without a waiter must not stay in the table.
        let creates = is_create.then_some(self.session);
        let _removed = RemoveCall { link, number, replies: &replies, creates };
        let reply = turn.recv(&replies)?.ok_or(CallError::NoClient)?;
        // Python's SDK answers some calls with null instead of an empty object.
        let result = match reply? {
            Value::Null => Value::Object(Map::new()),
            result => result,
        };
        ClientResponse::from_method_and_result(&method, result).map_err(|_| CallError::InvalidReply)
    }
}

/// Removes a call from the table. Does nothing if the reply has been received.
struct RemoveCall<'a> {
    link: &'a Link,
    number: i64,
    replies: &'a Receiver<Reply>,
    /// The session of a call that creates a terminal. A later reply has a terminal that has to be released.
    creates: Option<SessionId>,
}

impl Drop for RemoveCall<'_> {
    fn drop(&mut self) {
        let Some(session) = self.creates else {
            self.link.pending.remove(self.number);
            return;
        };
        if self.link.pending.replace(self.number, Waiter::AbandonedTerminal { session }) {
            return;
        }
        // The reader has taken the call, and sends the reply at once or has sent it. After an ordinary reply, and after
        // the end of the connection, the sender is dropped and the channel empty.
        if let Ok(reply) = self.replies.recv() {
            self.link.release_created(session, reply);
        }
    }
}

/// A command in a terminal of the client. The drop tells the client to kill the command and to free the terminal, and
/// does not wait.
///
/// A tool call can show the terminal: put [`schema::Terminal`](super::schema::Terminal) with this id into its content.
#[derive(Debug)]
#[must_use = "the drop kills the command"]
pub struct Terminal {
    client: AcpClient,
    /// The connection that has the terminal, also after another client has loaded the session.
    link: Weak<Link>,
    id: TerminalId,
}

impl Terminal {
    /// The id that the client has given.
    pub fn id(&self) -> &TerminalId {
        &self.id
    }

    /// The output so far, and the exit status if the command has ended.
    ///
    /// # Errors
    /// Those of [`CallError`].
    pub fn output(&self, turn: &TurnContext) -> Result<TerminalOutputResponse, CallError> {
        let request = TerminalOutputRequest::new(self.session(), self.id.clone());
        match self.call(turn, AgentRequest::TerminalOutputRequest(request))? {
            ClientResponse::TerminalOutputResponse(response) => Ok(response),
            _ => Err(CallError::InvalidReply),
        }
    }

    /// Waits until the command has ended.
    ///
    /// # Errors
    /// Those of [`CallError`].
    pub fn wait_for_exit(&self, turn: &TurnContext) -> Result<TerminalExitStatus, CallError> {
        let request = WaitForTerminalExitRequest::new(self.session(), self.id.clone());
        match self.call(turn, AgentRequest::WaitForTerminalExitRequest(request))? {
            ClientResponse::WaitForTerminalExitResponse(response) => Ok(response.exit_status),
            _ => Err(CallError::InvalidReply),
        }
    }

    /// Kills the command. The terminal and its output stay.
    ///
    /// # Errors
    /// Those of [`CallError`].
    pub fn kill(&self, turn: &TurnContext) -> Result<(), CallError> {
        let request = KillTerminalRequest::new(self.session(), self.id.clone());
        self.call(turn, AgentRequest::KillTerminalRequest(request)).map(drop)
    }

    fn call(&self, turn: &TurnContext, request: AgentRequest) -> Result<ClientResponse, CallError> {
        let link = self.link.upgrade().ok_or(CallError::NoClient)?;
        self.client.call_on(&link, turn, request, |able| able.terminal)
    }

    fn session(&self) -> String {
        self.client.session.to_string()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(link) = self.link.upgrade() {
            link.release_terminal(self.client.session, self.id.clone());
        }
    }
}

/// Why a call to the client has failed. `Debug` shows the client's message by its length only.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The turn was told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// No client has loaded the session, or its connection has ended.
    #[error("the session has no client")]
    NoClient,
    /// The client has not said that it supports the method.
    #[error("the client does not support {method}")]
    Unsupported {
        /// The method.
        method: String,
    },
    /// A path of the call is not UTF-8, so the message cannot hold it. Nothing was sent.
    #[error("the path is not UTF-8")]
    NotUtf8,
    /// The client has answered with an error.
    #[error("the client refused: {message} ({code})")]
    Refused {
        /// The code of the JSON-RPC error.
        code: i32,
        /// The message of the client.
        message: String,
    },
    /// The client's reply is not one of the method.
    #[error("the client's reply is invalid")]
    InvalidReply,
}

impl fmt::Debug for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled(cancelled) => f.debug_tuple("Cancelled").field(cancelled).finish(),
            Self::NoClient => f.write_str("NoClient"),
            Self::NotUtf8 => f.write_str("NotUtf8"),
            Self::Unsupported { method } => f.debug_struct("Unsupported").field("method", method).finish(),
            Self::Refused { code, message } => {
                f.debug_struct("Refused").field("code", code).field("message", &Brief(message)).finish()
            }
            Self::InvalidReply => f.write_str("InvalidReply"),
        }
    }
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self::Refused { code: error.code.into(), message: error.message }
    }
}

impl From<CallError> for AgentError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Cancelled(cancelled) => cancelled.into(),
            error => Self::other(error),
        }
    }
}
