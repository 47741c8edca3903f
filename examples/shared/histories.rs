//! Histories in JSON files.

use std::fmt::Display;
use std::fs;

use turnwise::{Session, SessionService};

pub(crate) fn save(history: &Session, file: &str) -> Result<(), String> {
    let json = serde_json::to_string_pretty(history).map_err(|error| format!("error: {error}"))?;
    fs::write(file, json).map_err(|error| failed(file, &error))
}

/// The history in a file, for a new session. The one that was saved may still be live: then this is another one with the same
/// past.
pub(crate) fn load(file: &str, service: &impl SessionService) -> Result<Session, String> {
    let json = fs::read_to_string(file).map_err(|error| failed(file, &error))?;
    let history: Session = serde_json::from_str(&json).map_err(|error| failed(file, &error))?;
    Ok(if service.read(history.id()).is_ok() { history.fork() } else { history })
}

fn failed(file: &str, error: &dyn Display) -> String {
    format!("error: {file}: {error}")
}
