//! # An agent in an editor
//!
//! Editors such as Zed start an agent as a child process, and speak the Agent Client Protocol with it: lines of JSON over
//! standard input and output. [`acp::serve`](crate::acp::serve) connects a service to such an editor, for as long as the
//! editor stays. The program needs nothing else, and no async runtime.
//!
//! # The program
//!
//! ```no_run
//! use turnwise::acp::{serve, AcpClients, AcpConfig};
//! use turnwise::{agent_fn, builder_fn, EphemeralSessionService, SessionAgentBuilder, WhenBusy};
//!
//! let clients = AcpClients::new();
//! let of_builder = clients.clone();
//! let builder = builder_fn(move |spec, session| {
//!     // The editor that has loaded the session: in every build, also in one that resumes it.
//!     let client = of_builder.client(session.session_id());
//!     let agent = agent_fn(move |path, turn| {
//!         let text = client.read_text_file(turn, &path, None, None)?; // with the unsaved changes
//!         Ok(turn.finish(format!("{} lines", text.lines().count())))
//!     });
//!     agent.build_agent(spec, session)
//! });
//! let service = EphemeralSessionService::configure(builder).max_sessions(64).turn_queue(8).build()?;
//! let config = AcpConfig::new(clients).agent("counter", "1.0.0").when_busy(WhenBusy::Queue);
//! serve(service, config, std::io::stdin(), std::io::stdout())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - **Standard output belongs to the protocol.** A library that prints there breaks the connection. On Unix a program can
//!   duplicate descriptor 1 for [`serve`](crate::acp::serve), and then point descriptor 1 at standard error. The program
//!   `acp-agent` in `examples/apps` does so.
//! - **A session survives a restart of the editor** in a service of the module `store` only. The editor lists the sessions
//!   of its project by their directory, the label [`CWD_LABEL`](crate::acp::CWD_LABEL), and loads one.
//! - **An editor may keep many sessions open.** A service with
//!   [`unload_idle_after`](crate::store::PersistentConfig::unload_idle_after) or
//!   [`unload_when_full`](crate::store::PersistentConfig::unload_when_full) unloads those that are idle. The editor does not
//!   notice: the next prompt resumes the session, and the new agent finds the editor.
//! - **The end of the input ends the service**, within [`AcpConfig::grace`](crate::acp::AcpConfig::grace). Editors kill an
//!   agent that takes longer than two seconds.
//!
//! # What the editor shows
//!
//! | Event of the agent | What the client gets |
//! |---|---|
//! | `TextDelta`, `ReasoningDelta` | a chunk of the message, a chunk of the thought |
//! | `TextComplete`, `ReasoningComplete` | nothing if there were pieces; else the whole text |
//! | `ToolCallRequested` | a tool call, pending, with its arguments; [`display_tools`](crate::acp::AcpConfig::display_tools) gives title, kind and files |
//! | `ToolExecutionStarted` | the tool call, in progress |
//! | `ToolExecutionCompleted`, `ToolExecutionTimedOut` | the tool call, completed or failed, with its result |
//! | `TurnCompleted` | the used context, if [`context_size`](crate::acp::AcpConfig::context_size) is set |
//! | an [`update_event`](crate::acp::update_event) | the agent's own update: a plan, commands, a diff, a terminal |
//! | `InputRequested` | a request for a permission, or a form |
//! | any other | nothing |
//!
//! If an agent emits no text, its result is sent as one chunk. Tool calls that are open at the end of a turn have failed.
//!
//! # The end of a prompt
//!
//! | The turn ends with | The prompt is answered with |
//! |---|---|
//! | a result | `end_turn`, or `max_tokens` by its stop reason |
//! | the stop reason `ContentFilter` | `refusal`, if the [history drops the prompt](crate::acp::AcpConfig::filtered_prompts_are_dropped); else `end_turn` |
//! | `MaxTurnsReached`, `ToolCallBudgetExceeded` | `max_turn_requests` |
//! | `TokenBudgetExceeded` | `max_tokens` |
//! | anything, after a cancellation by the client | `cancelled` |
//! | an interrupt, or a prompt that supersedes it | `cancelled` |
//! | any other error, a deadline and a shutdown included | an error, with the code and the text of the error |
//!
//! # Asking the user
//!
//! An agent asks with [`TurnContext::request_input`](crate::TurnContext::request_input), as in [any host](super::asking). A
//! request with options is shown as a permission. The ids `allow_once`, `allow_always`, `reject_once` and `reject_always`
//! give the options their kinds. The payload may be the JSON of a
//! [`ToolCallUpdate`](crate::acp::schema::ToolCallUpdate), with the id of the tool call, a title, and a diff.
//!
//! ```
//! use turnwise::acp::schema::{Diff, ToolCallUpdate, ToolCallUpdateFields};
//! use turnwise::{AgentError, InputError, InputRequest, TurnContext};
//!
//! fn may_write(turn: &TurnContext, call: &str, path: &str, old: String, new: &str) -> Result<bool, AgentError> {
//!     let fields = ToolCallUpdateFields::new().title(format!("Write {path}"));
//!     let fields = fields.content(vec![Diff::new(path, new).old_text(old).into()]);
//!     let shown = serde_json::to_string(&ToolCallUpdate::new(call.to_owned(), fields)).unwrap_or_default();
//!     let request = InputRequest::new("permission", format!("Write {path}?"))
//!         .option("allow_once", "Allow")
//!         .option("reject_once", "Reject")
//!         .payload(shown);
//!     match turn.request_input(request) {
//!         Ok(answer) => Ok(answer == "allow_once"),
//!         Err(InputError::Cancelled(cancelled)) => Err(cancelled.into()),
//!         Err(_) => Ok(false), // closed without an answer, or not understood
//!     }
//! }
//! ```
//!
//! A request without options is a form with one field, where the client has forms; elsewhere it is declined at once.
//! Nothing but a selected option is an answer: an error of the client, a cancelled permission and an unknown option decline.
//!
//! # Calling the editor
//!
//! [`AcpClient`](crate::acp::AcpClient) reads and writes files, and runs commands in terminals of the editor. A call blocks
//! until the editor replies. It holds no running permit, and ends with the cancellation of the turn.
//! [`capabilities`](crate::acp::AcpClient::capabilities) tells what the editor can do; an agent falls back to its own file
//! system where it has to.
//!
//! The client names MCP servers for a session ([`mcp_servers`](crate::acp::AcpClient::mcp_servers)). The protocol expects an
//! agent to connect to those that use stdio. The module does not do it.
