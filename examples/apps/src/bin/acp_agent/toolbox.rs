//! The builder of agents, and the toolbox of an agent: it runs the calls of the model in the session's directory, through
//! the editor where the editor can do it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use turnwise::acp::schema::{Diff, McpServer, ToolCallLocation, ToolCallUpdate, ToolCallUpdateFields, ToolKind};
use turnwise::acp::{AcpClient, AcpClients, CallError};
use turnwise::{
    AgentError, AgentEvent, Cancelled, InputError, InputRequest, SessionAgentBuilder, SessionContext, SessionSpec,
    TurnContext,
};
use turnwise_apps::save::save;
use turnwise_apps::say::warn;

use crate::agent::Chat;
use crate::calls::ToolCall;
use crate::options::Options;
use crate::places::place;
use crate::request::Dialect;
use crate::tools::{File, Folder, Lines, Tool};

/// The longest text that a tool gives to the model or writes, in bytes.
const LONGEST: usize = 256 << 10;
/// The most names in a list.
const MOST_NAMES: usize = 500;

const ALLOW_ONCE: &str = "allow_once";
const ALLOW_ALWAYS: &str = "allow_always";

pub(crate) struct AgentBuilder {
    pub(crate) options: Arc<Options>,
    pub(crate) dialect: Arc<Dialect>,
    pub(crate) clients: AcpClients,
}

impl SessionAgentBuilder for AgentBuilder {
    type Agent = Chat;

    fn build_agent(&self, spec: &SessionSpec, session: &SessionContext) -> Result<Chat, AgentError> {
        let client = self.clients.client(session.session_id());
        for server in client.mcp_servers().iter() {
            if let McpServer::Stdio(server) = server {
                warn(format_args!("acp-agent: the MCP server '{}' is left out", server.name));
            }
        }
        Ok(Chat::new(spec, &self.options, &self.dialect, Toolbox { client, may_write: false }))
    }
}

/// The answer of a tool. The error is a text for the model too.
type ToolAnswer = Result<String, String>;

pub(crate) struct Toolbox {
    client: AcpClient,
    /// The user has allowed every write. Kept in memory only: a session that is loaded asks again.
    may_write: bool,
}

impl Toolbox {
    /// The answer of a call, which may be a refusal, and the time that the tool took.
    pub(crate) fn answer(&mut self, call: &ToolCall, turn: &TurnContext) -> Result<(ToolAnswer, Duration), Cancelled> {
        // An incomplete call does not run. Its result gives the reason to the model.
        let tool = match call.arguments().and_then(|args| Tool::new(&call.name, args)) {
            Ok(tool) => tool,
            Err(error) => return Ok((Err(error), Duration::ZERO)),
        };
        if let Tool::Write(file) = &tool {
            if let Some(refusal) = self.refusal(call, file, turn)? {
                return Ok((Err(refusal), Duration::ZERO));
            }
        }
        turn.emit(AgentEvent::ToolExecutionStarted { id: call.id.clone(), name: call.name.clone() })?;
        let begun = Instant::now();
        let answer = match tool {
            Tool::List(folder) => self.list(&folder),
            Tool::Read(lines) => self.read(&lines, turn)?,
            Tool::Write(file) => self.write(file, turn)?,
        };
        Ok((answer, begun.elapsed()))
    }

    /// Asks the user whether the file may be written. Returns the refusal, as a text for the model.
    fn refusal(&mut self, call: &ToolCall, file: &File, turn: &TurnContext) -> Result<Option<String>, Cancelled> {
        if file.content.len() > LONGEST {
            return Ok(Some(format!("the text is longer than {LONGEST} bytes")));
        }
        let at = match self.place(&file.path) {
            Ok(at) => at,
            Err(refusal) => return Ok(Some(refusal)),
        };
        if self.may_write {
            return Ok(None);
        }
        // The editor shows what would change.
        let old = fs::read_to_string(&at).ok();
        let diff = Diff::new(&at, file.content.as_str()).old_text(old);
        let fields = ToolCallUpdateFields::new()
            .title(format!("Write {}", file.path))
            .kind(ToolKind::Edit)
            .locations(vec![ToolCallLocation::new(&at)])
            .content(vec![diff.into()]);
        let shown = match serde_json::to_string(&ToolCallUpdate::new(call.id.clone(), fields)) {
            Ok(shown) => shown,
            // The user must not allow what the editor cannot show.
            Err(error) => return Ok(Some(format!("'{}': {error}", file.path))),
        };
        let request = InputRequest::new("permission", format!("Write {}?", file.path))
            .option(ALLOW_ONCE, "Allow")
            .option(ALLOW_ALWAYS, "Always allow")
            .option("reject_once", "Reject")
            .payload(shown);
        // The turn waits here, until the user has answered or the turn is cancelled.
        match turn.request_input(request) {
            Ok(answer) if answer == ALLOW_ONCE => Ok(None),
            Ok(answer) if answer == ALLOW_ALWAYS => {
                self.may_write = true;
                Ok(None)
            }
            Err(InputError::Cancelled(cancelled)) => Err(cancelled),
            Ok(_) | Err(_) => Ok(Some("refused by the user".into())),
        }
    }

    fn list(&self, folder: &Folder) -> ToolAnswer {
        let root = self.folder()?;
        // The place of a file that need not exist is inside of the folder that is meant.
        let path = Path::new(&folder.path);
        let file = path.strip_prefix(&root).unwrap_or(path).join("x");
        let at = place(&root, &file.to_string_lossy()).map_err(|why| format!("'{}': {why}", folder.path))?;
        let at = at.parent().unwrap_or(&root);
        let entries = fs::read_dir(at).map_err(|error| format!("'{}': {error}", folder.path))?;
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| {
                let end = if entry.file_type().is_ok_and(|kind| kind.is_dir()) { "/" } else { "" };
                format!("{}{end}", entry.file_name().to_string_lossy())
            })
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        let left_out = names.len().saturating_sub(MOST_NAMES);
        names.truncate(MOST_NAMES);
        if left_out > 0 {
            names.push(format!("... and {left_out} more"));
        }
        Ok(if names.is_empty() { "(no files)".into() } else { names.join("\n") })
    }

    fn read(&self, lines: &Lines, turn: &TurnContext) -> Result<ToolAnswer, Cancelled> {
        let at = match self.place(&lines.path) {
            Ok(at) => at,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let text = if self.client.capabilities().fs.read_text_file {
            match self.client.read_text_file(turn, &at, lines.line, lines.limit) {
                Ok(text) => Ok(text),
                Err(CallError::Cancelled(cancelled)) => return Err(cancelled),
                Err(error) => Err(error.to_string()),
            }
        } else {
            fs::read_to_string(&at).map(|text| part(&text, lines)).map_err(|error| error.to_string())
        };
        Ok(match text {
            Ok(text) if text.len() > LONGEST => {
                Err(format!("'{}' is longer than {LONGEST} bytes; read a part of it", lines.path))
            }
            Ok(text) => Ok(text),
            Err(error) => Err(format!("'{}': {error}", lines.path)),
        })
    }

    fn write(&self, file: File, turn: &TurnContext) -> Result<ToolAnswer, Cancelled> {
        // The user may have taken long to answer, and the files may be others now.
        let at = match self.place(&file.path) {
            Ok(at) => at,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let size = file.content.len();
        let written = if self.client.capabilities().fs.write_text_file {
            match self.client.write_text_file(turn, &at, file.content) {
                Err(CallError::Cancelled(cancelled)) => return Err(cancelled),
                written => written.map_err(|error| error.to_string()),
            }
        } else {
            let folder = at.parent().map_or(Ok(()), fs::create_dir_all);
            folder.and_then(|()| save(&at, file.content.as_bytes())).map_err(|error| error.to_string())
        };
        Ok(match written {
            Ok(()) => Ok(format!("written to '{}': {size} bytes", file.path)),
            Err(error) => Err(format!("'{}': {error}", file.path)),
        })
    }

    /// The session's directory, without symbolic links.
    fn folder(&self) -> Result<PathBuf, String> {
        let cwd = self.client.cwd().ok_or("the editor is not connected any more")?;
        cwd.canonicalize().map_err(|error| format!("the project's directory: {error}"))
    }

    /// The place of a file of the session's directory. An absolute path may lead there too.
    fn place(&self, path: &str) -> Result<PathBuf, String> {
        let folder = self.folder()?;
        let inside = Path::new(path).strip_prefix(&folder).ok().and_then(Path::to_str).unwrap_or(path);
        let at = place(&folder, inside).map_err(|why| format!("'{path}': {why}"))?;
        // A symbolic link may lead to such a place. The protocol has no way to name it.
        if at.to_str().is_none() {
            return Err(format!("'{path}': its place has a name that is not UTF-8"));
        }
        Ok(at)
    }
}

/// The lines that are asked for.
fn part(text: &str, lines: &Lines) -> String {
    if lines.line.is_none() && lines.limit.is_none() {
        return text.to_owned();
    }
    let first = lines.line.unwrap_or(1).max(1) as usize - 1;
    let limit = lines.limit.map_or(usize::MAX, |limit| limit as usize);
    text.split_inclusive('\n').skip(first).take(limit).collect()
}
