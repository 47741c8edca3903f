//! A coding agent for editors, by the Agent Client Protocol over standard input and output. The model may be that of any
//! endpoint with the protocol of OpenAI's chat completions.
//!
//! An editor starts the program; the README of the programs has the lines for its settings. The agent is that of `chat`,
//! with tools for the files of the session's directory (`tools.rs`). It reads a file through the editor where the editor
//! can do that, so that the model sees unsaved changes, and writes a file after the user has permitted it (`toolbox.rs`).
//!
//! Sessions are kept in a file (`kept.rs`), so the editor finds them again after a restart.
//!
//! **Deviation.** The protocol asks agents to connect to the MCP servers that a client names. This agent has its own
//! tools only: it names the servers that it leaves out on standard error.

// The library's rule about locks does not apply to the programs.
#![allow(clippy::disallowed_types)]

// These modules are those of the chat.
#[path = "../chat/address.rs"]
mod address;
#[path = "../chat/agent.rs"]
mod agent;
#[path = "../chat/calls.rs"]
mod calls;
#[path = "../chat/endpoint.rs"]
mod endpoint;
#[path = "../chat/events.rs"]
mod events;
#[path = "../chat/json.rs"]
mod json;
mod kept;
mod options;
mod output;
#[path = "../chat/places.rs"]
mod places;
#[path = "../chat/refusal.rs"]
mod refusal;
#[path = "../chat/reply.rs"]
mod reply;
#[path = "../chat/request.rs"]
mod request;
mod toolbox;
mod tools;
#[path = "../chat/wire.rs"]
mod wire;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use turnwise::acp::{serve, AcpClients, AcpConfig, AcpError};
use turnwise::store::PersistentSessionService;
use turnwise::{EphemeralSessionService, SessionSpec};
use turnwise_apps::{args, say::warn};

use options::Options;
use toolbox::AgentBuilder;

const MAX_SESSIONS: usize = 64;

const SYSTEM: &str = "You are a coding agent in the user's editor. You can list and read the files of the project, and \
                      write them after the user has permitted it. Paths are relative to the project's directory. Read a \
                      file before you change it.";

fn main() -> ExitCode {
    match args::texts().and_then(options::parse) {
        Ok(Some(options)) => match run(options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                warn(format_args!("acp-agent: {message}"));
                ExitCode::FAILURE
            }
        },
        Ok(None) => {
            warn(options::USAGE);
            ExitCode::SUCCESS
        }
        Err(message) => {
            warn(format_args!("acp-agent: {message}\n\n{}", options::USAGE));
            ExitCode::from(2)
        }
    }
}

fn run(options: Options) -> Result<(), String> {
    let output = output::private().map_err(|error| format!("standard output: {error}"))?;
    let store = kept::open(options.sessions.as_deref())?;
    let clients = AcpClients::new();
    let mut spec = SessionSpec::new().model(&options.model);
    spec.system_prompt = Some(options.system.clone().unwrap_or_else(|| SYSTEM.to_owned()));
    let mut config = AcpConfig::new(clients.clone())
        .agent("turnwise-acp-agent", env!("CARGO_PKG_VERSION"))
        .session(spec)
        .turn_timeout(options.timeout)
        .max_sessions(MAX_SESSIONS);
    if let Some(size) = options.context {
        config = config.context_size(size);
    }
    let display = clients.clone();
    config = config
        .display_tools(move |session, name, args| tools::display(display.client(session).cwd().as_deref(), name, args));
    let builder = AgentBuilder { options: Arc::new(options), dialect: Arc::default(), clients };
    let settings = EphemeralSessionService::configure(builder).max_sessions(MAX_SESSIONS).thread_name_prefix("acp");
    let service = PersistentSessionService::with_config(settings, store).map_err(|error| error.to_string())?;
    match serve(service, config, io::stdin(), output) {
        // The user has been told by the editor, and what was done before is kept.
        Err(AcpError::Stuck { sessions }) => {
            warn(format_args!("acp-agent: {} sessions did not stop in time", sessions.len()));
            Ok(())
        }
        ended => ended.map_err(|error| error.to_string()),
    }
}
