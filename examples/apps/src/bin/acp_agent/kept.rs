//! The file with the sessions.
//!
//! A process has its file for itself. Several windows of an editor start several agents, so each takes the first file of
//! a row that is free. After a restart of the editor the old agent may need a moment to end, so the first file gets some
//! time. A session of a second window is found again when a second agent runs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use turnwise::store::{FileStore, StoreError};

/// How long a new agent waits for the file of one that ends.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it tries again meanwhile.
const PAUSE: Duration = Duration::from_millis(50);
/// How many files there may be.
const FILES: usize = 16;

/// Opens the given file, or else one of the user's row of files.
pub(crate) fn open(given: Option<&Path>) -> Result<FileStore, String> {
    if let Some(file) = given {
        return open_patiently(file).map_err(|error| format!("{}: {error}", file.display()));
    }
    let folder = folder().ok_or("there is no home directory; name a file with --sessions")?;
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let first = folder.join("acp-agent.redb");
    let mut opened = open_patiently(&first).map_err(|error| (first, error));
    for number in 2..=FILES {
        let Err((_, StoreError::InUse { .. })) = opened else { break };
        let file = folder.join(format!("acp-agent-{number}.redb"));
        opened = FileStore::open(&file).map_err(|error| (file, error));
    }
    opened.map_err(|(file, error)| format!("{}: {error}", file.display()))
}

fn open_patiently(file: &Path) -> Result<FileStore, StoreError> {
    let begun = Instant::now();
    loop {
        match FileStore::open(file) {
            Err(StoreError::InUse { .. }) if begun.elapsed() < PATIENCE => thread::sleep(PAUSE),
            opened => return opened,
        }
    }
}

/// The folder for the state of programs.
fn folder() -> Option<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = variable("XDG_STATE_HOME").or_else(|| variable("LOCALAPPDATA"));
    Some(state.or_else(|| variable("HOME").map(|home| home.join(".local/state")))?.join("turnwise"))
}
