//! The options of a connection, and its errors.

use std::fmt;
use std::io;
use std::time::Duration;

use agent_client_protocol_schema::v1::{AvailableCommand, Implementation, ToolCallLocation, ToolKind};
use serde_json::Value;

use super::client::AcpClients;
use crate::model::SessionId;
use crate::service::{SessionSpec, WhenBusy};
use crate::sync::Arc;

/// How a client shows a tool call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToolDisplay {
    /// The title. By default the name of the tool.
    pub title: String,
    /// The kind, by which a client chooses an icon.
    pub kind: ToolKind,
    /// The files that the call concerns, with absolute paths. A client may follow them. A path that is not UTF-8 is left
    /// out.
    pub locations: Vec<ToolCallLocation>,
}

impl ToolDisplay {
    /// Makes one with a title and a kind.
    ///
    /// ```
    /// use turnwise::acp::{schema::{ToolCallLocation, ToolKind}, ToolDisplay};
    ///
    /// let display = ToolDisplay::new("Read notes.txt", ToolKind::Read)
    ///     .locations(vec![ToolCallLocation::new("/home/ada/notes.txt")]);
    /// assert_eq!(display.locations.len(), 1);
    /// ```
    pub fn new(title: impl Into<String>, kind: ToolKind) -> Self {
        Self { title: title.into(), kind, locations: Vec::new() }
    }

    /// Sets the files that the call concerns.
    #[must_use]
    pub fn locations(mut self, locations: Vec<ToolCallLocation>) -> Self {
        self.locations = locations;
        self
    }
}

/// A function from the name of a tool and its arguments to its display.
pub(super) type DisplayTool = Arc<dyn Fn(SessionId, &str, &Value) -> ToolDisplay + Send + Sync>;

/// The options of a connection.
///
/// ```
/// use std::time::Duration;
/// use turnwise::acp::{schema::{AvailableCommand, ToolKind}, AcpClients, AcpConfig, ToolDisplay};
/// use turnwise::WhenBusy;
///
/// let config = AcpConfig::new(AcpClients::new())
///     .agent("my-agent", "1.0.0")
///     .when_busy(WhenBusy::Queue)
///     .turn_timeout(Duration::from_secs(600))
///     .commands(vec![AvailableCommand::new("plan", "Make a plan first")])
///     .display_tools(|_session, name, args| match name {
///         "read_file" => ToolDisplay::new(format!("Read {}", args["path"]), ToolKind::Read),
///         _ => ToolDisplay::new(name, ToolKind::Other),
///     });
/// ```
#[derive(Clone)]
#[must_use]
pub struct AcpConfig {
    pub(super) clients: AcpClients,
    pub(super) agent: Option<Implementation>,
    pub(super) session: SessionSpec,
    pub(super) when_busy: WhenBusy,
    pub(super) turn_timeout: Option<Duration>,
    pub(super) commands: Vec<AvailableCommand>,
    pub(super) context_size: Option<u64>,
    pub(super) filtered_prompts_are_dropped: bool,
    pub(super) display_tool: DisplayTool,
    pub(super) max_line: usize,
    pub(super) max_sessions: usize,
    pub(super) max_requests: usize,
    pub(super) unread_updates: usize,
    pub(super) page: usize,
    pub(super) load_timeout: Duration,
    pub(super) close_timeout: Duration,
    pub(super) grace: Duration,
    pub(super) keep_service: bool,
}

impl AcpConfig {
    /// Makes the default options. `clients` is the table that the builder of the agents looks its client up in.
    pub fn new(clients: AcpClients) -> Self {
        Self {
            clients,
            agent: None,
            session: SessionSpec::new(),
            when_busy: WhenBusy::default(),
            turn_timeout: None,
            commands: Vec::new(),
            context_size: None,
            filtered_prompts_are_dropped: false,
            display_tool: Arc::new(|_, name, _| ToolDisplay::new(name, ToolKind::Other)),
            max_line: 32 << 20,
            max_sessions: 64,
            max_requests: 256,
            unread_updates: 64,
            page: 100,
            load_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(10),
            grace: Duration::from_millis(1_500),
            keep_service: false,
        }
    }

    /// Sets the name and the version of the agent, which the client may show.
    pub fn agent(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.agent = Some(Implementation::new(name, version));
        self
    }

    /// Sets the specification of new sessions. Its id, and its label [`CWD_LABEL`](super::CWD_LABEL), are replaced.
    pub fn session(mut self, spec: SessionSpec) -> Self {
        self.session = spec;
        self
    }

    /// Sets what happens to a prompt while another one of its session runs. By default it is refused. A prompt that is
    /// superseded is answered as cancelled.
    pub fn when_busy(mut self, when_busy: WhenBusy) -> Self {
        self.when_busy = when_busy;
        self
    }

    /// Sets the timeout of each prompt. A prompt that takes longer is answered with an error. By default there is none.
    pub fn turn_timeout(mut self, timeout: Duration) -> Self {
        self.turn_timeout = Some(timeout);
        self
    }

    /// Sets the commands that a user may type as a prompt, such as `/plan`. The agent gets them as text.
    pub fn commands(mut self, commands: Vec<AvailableCommand>) -> Self {
        self.commands = commands;
        self
    }

    /// Sets the size of the model's context, in tokens. With it the client learns after every model call how much of
    /// the context is used.
    pub fn context_size(mut self, tokens: u64) -> Self {
        self.context_size = Some(tokens);
        self
    }

    /// Says that the agents remove a prompt from the history if a content filter has stopped its answer. Such a turn is
    /// a refusal for the client, which then does not show the prompt as part of the conversation. Otherwise it is an
    /// ordinary end.
    pub fn filtered_prompts_are_dropped(mut self) -> Self {
        self.filtered_prompts_are_dropped = true;
        self
    }

    /// Sets how tool calls are shown: from the session, the name of the tool and its arguments. Called on threads of the
    /// connection; it should not block. If it panics, the tool is shown by its name.
    pub fn display_tools(
        mut self,
        display: impl Fn(SessionId, &str, &Value) -> ToolDisplay + Send + Sync + 'static,
    ) -> Self {
        self.display_tool = Arc::new(display);
        self
    }

    /// Sets the longest line of the client, in bytes; by default 32 MiB. A longer line is skipped and answered with an
    /// error.
    pub fn max_line(mut self, bytes: usize) -> Self {
        self.max_line = bytes;
        self
    }

    /// Sets how many sessions the client may have active at a time; by default 64. Each takes a thread of the connection
    /// beside its session thread. One that is being closed counts until the close has ended. At most 8 sessions more may be
    /// in the course of a delete.
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.max_sessions = sessions;
        self
    }

    /// Sets how many requests of the client may have no answer that is written, at least 1; by default 256. A request above
    /// that is refused. Queued prompts count too.
    pub fn max_requests(mut self, requests: usize) -> Self {
        self.max_requests = requests.max(1);
        self
    }

    /// Sets how many updates may wait for a client that reads slowly, at least 1; by default 64. Beyond that the turns
    /// wait. The event channel of each turn has room for as many events again.
    pub fn unread_updates(mut self, updates: usize) -> Self {
        self.unread_updates = updates.max(1);
        self
    }

    /// Sets how many sessions one answer of `session/list` may have, at least 1; by default 100.
    pub fn page(mut self, sessions: usize) -> Self {
        self.page = sessions.max(1);
        self
    }

    /// Sets how long a `session/load` may wait for the history, or for the restart of a faulted session; by default 30
    /// seconds.
    pub fn load_timeout(mut self, timeout: Duration) -> Self {
        self.load_timeout = timeout;
        self
    }

    /// Sets how long a `session/close` or `session/delete` may wait for the turns of the session; by default 10 seconds.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Sets how long [`serve`](super::serve) may take after the end of the client; by default 1.5 seconds, because clients
    /// kill an agent that takes longer than 2. It is also how long a client may leave 1,024 refusals unread: then the
    /// connection ends with [`AcpError::Output`].
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Leaves the service running after the end of the client. By default [`serve`](super::serve) shuts it down.
    pub fn keep_service(mut self) -> Self {
        self.keep_service = true;
        self
    }
}

impl fmt::Debug for AcpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcpConfig")
            .field("agent", &self.agent)
            .field("session", &self.session)
            .field("when_busy", &self.when_busy)
            .field("max_line", &self.max_line)
            .field("max_sessions", &self.max_sessions)
            .field("max_requests", &self.max_requests)
            .field("unread_updates", &self.unread_updates)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}

/// Why a connection has failed. The prompts were cancelled all the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcpError {
    /// The input could not be read.
    #[error("the client's messages could not be read: {0}")]
    Input(#[source] io::Error),
    /// The output could not be written, for another reason than that the client has closed it. The kind is
    /// [`TimedOut`](io::ErrorKind::TimedOut) if the client has sent requests and has not read the answers.
    #[error("the client could not be written to: {0}")]
    Output(#[source] io::Error),
    /// The system has refused a thread.
    #[error("no thread for the connection: {0}")]
    Thread(#[source] io::Error),
    /// The connection has ended, and these sessions have not ended within [`AcpConfig::grace`]. What they had done
    /// before their running turns is kept, if the service stores sessions.
    #[error("{} sessions have not ended in time", .sessions.len())]
    Stuck {
        /// The sessions.
        sessions: Vec<SessionId>,
    },
}
