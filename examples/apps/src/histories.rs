//! Histories in JSON files.

use std::fmt::Display;
use std::fs;
use std::path::Path;

use turnwise::{Session, SessionService};

use crate::save;

/// Saves a history. If that fails, the file keeps its old content.
pub fn save(history: &Session, file: &str) -> Result<(), String> {
    let json = serde_json::to_string_pretty(history).map_err(|error| format!("error: {error}"))?;
    save::save(Path::new(file), json.as_bytes()).map_err(|error| failed(file, &error))
}

/// The history in a file, for a new session. If the saved session is still live, the new one gets a fork of the
/// history, with an id of its own.
pub fn load(file: &str, service: &impl SessionService) -> Result<Session, String> {
    let json = fs::read_to_string(file).map_err(|error| failed(file, &error))?;
    // Some editors add a byte order mark.
    let json = json.strip_prefix('\u{feff}').unwrap_or(&json);
    let history: Session = serde_json::from_str(json).map_err(|error| failed(file, &error))?;
    Ok(if service.read(history.id()).is_ok() { history.fork() } else { history })
}

fn failed(file: &str, error: &dyn Display) -> String {
    format!("error: {file}: {error}")
}
