//! The tools that the model may call: they list, read and write the files of the session's directory.

use std::path::Path;

use serde::Deserialize;
use serde_json::{json, Value};
use turnwise::acp::schema::{ToolCallLocation, ToolKind};
use turnwise::acp::ToolDisplay;

use crate::places;

/// A call of a tool, with its arguments.
#[derive(Debug)]
pub(crate) enum Tool {
    List(Folder),
    Read(Lines),
    Write(File),
}

/// The arguments of `list_files`.
#[derive(Debug, Deserialize)]
pub(crate) struct Folder {
    /// The session's directory if it is absent.
    #[serde(default)]
    pub(crate) path: String,
}

/// The arguments of `read_file`.
#[derive(Debug, Deserialize)]
pub(crate) struct Lines {
    pub(crate) path: String,
    /// The first line, counted from 1.
    #[serde(default)]
    pub(crate) line: Option<u32>,
    /// The number of lines.
    #[serde(default)]
    pub(crate) limit: Option<u32>,
}

/// The arguments of `write_file`.
#[derive(Debug, Deserialize)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) content: String,
}

const NAMES: [&str; 3] = ["list_files", "read_file", "write_file"];

/// The descriptions of the tools for the model.
pub(crate) fn described() -> Value {
    let (text, number) = (json!({ "type": "string" }), json!({ "type": "integer", "minimum": 1 }));
    json!([
        function(
            "list_files",
            "The names of the files and directories in a directory of the project. Without a path: in its root.",
            &json!({ "path": text }),
            &[]
        ),
        function(
            "read_file",
            "The text of a file of the project, or `limit` lines from `line` on.",
            &json!({ "path": text, "line": number, "limit": number }),
            &["path"]
        ),
        function(
            "write_file",
            "Writes a text file of the project, and replaces an old one. The user may refuse.",
            &json!({ "path": text, "content": text }),
            &["path", "content"]
        ),
    ])
}

fn function(name: &str, description: &str, properties: &Value, required: &[&str]) -> Value {
    let schema = json!({ "type": "object", "properties": properties, "required": required });
    json!({ "type": "function", "function": { "name": name, "description": description, "parameters": schema } })
}

/// Whether a tool has this name.
pub(crate) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Whether this is the name of a tool, or the beginning of one.
pub(crate) fn is_begun(name: &str) -> bool {
    NAMES.iter().any(|known| known.starts_with(name))
}

impl Tool {
    /// The tool with this name and these arguments. The error is a text for the model.
    pub(crate) fn new(name: &str, args: &str) -> Result<Self, String> {
        let wrong = |error: serde_json::Error| error.to_string();
        match name {
            "list_files" => serde_json::from_str(args).map(Self::List).map_err(wrong),
            "read_file" => serde_json::from_str(args).map(Self::Read).map_err(wrong),
            "write_file" => serde_json::from_str(args).map(Self::Write).map_err(wrong),
            unknown => Err(format!("there is no tool '{unknown}'")),
        }
    }
}

/// How the editor shows a call.
pub(crate) fn display(folder: Option<&Path>, name: &str, args: &Value) -> ToolDisplay {
    let path = args["path"].as_str().unwrap_or_default();
    let (title, kind) = match name {
        "list_files" if path.is_empty() => ("List the files".to_owned(), ToolKind::Search),
        "list_files" => (format!("List {path}"), ToolKind::Search),
        "read_file" => (format!("Read {path}"), ToolKind::Read),
        "write_file" => (format!("Write {path}"), ToolKind::Edit),
        other => (other.to_owned(), ToolKind::Other),
    };
    let place = folder.and_then(|folder| places::place(folder, path).ok());
    let line = args["line"].as_u64().and_then(|line| line.try_into().ok());
    let locations = place.into_iter().map(|place| ToolCallLocation::new(place).line(line)).collect();
    ToolDisplay::new(title, kind).locations(locations)
}
