//! The run of script files, from the first cell to the last.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use turnwise::{SessionId, SessionService, SessionSpec, StartTurnRequest};
use turnwise_apps::say::{plain_line, warn};

use crate::report::{explain, show, to_terminal};
use crate::Notebook;

/// The mark of a new cell, at the beginning of a line.
const CELL_MARK: &str = "// %%";

pub(crate) struct Script {
    name: String,
    cells: Vec<String>,
}

impl Script {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let mut cells = vec![String::new()];
        // Some editors add a byte order mark, which would hide a cell mark in the first line.
        for line in text.strip_prefix('\u{feff}').unwrap_or(text).lines() {
            if line.starts_with(CELL_MARK) {
                cells.push(String::new());
            }
            // `cells` is never empty.
            if let Some(cell) = cells.last_mut() {
                cell.push_str(line);
                cell.push('\n');
            }
        }
        cells.retain(|cell| !cell.trim().is_empty());
        Self { name: name.to_owned(), cells }
    }
}

/// Reads all files before the first cell runs.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Script>, String> {
    let script = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Script::new(&name_of(path), &text))
    };
    paths.iter().map(script).collect()
}

fn name_of(path: &Path) -> String {
    plain_line(&path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy())
}

/// Runs all scripts concurrently, each in a kernel of its own. With several scripts, each output line begins with a
/// name.
pub(crate) fn run(notebook: &Notebook, scripts: &[Script], limit: Option<Duration>) -> ExitCode {
    let alone = scripts.len() == 1;
    let good = thread::scope(|scope| {
        let runs: Vec<_> = scripts
            .iter()
            .map(|script| {
                let prefix = if alone { String::new() } else { format!("[{}] ", script.name) };
                scope.spawn(move || run_script(notebook, script, &prefix, limit))
            })
            .collect();
        // The script of a thread that panicked has failed.
        let results: Vec<bool> = runs.into_iter().map(|run| run.join().unwrap_or(false)).collect();
        results.into_iter().all(|good| good)
    });
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs a script's cells, one after the other. After a cell that fails or is interrupted, the next one runs.
fn run_script(notebook: &Notebook, script: &Script, prefix: &str, limit: Option<Duration>) -> bool {
    let spec = SessionSpec::new().label("name", script.name.as_str());
    match notebook.open_session(spec) {
        Ok(kernel) => {
            let results: Vec<bool> =
                script.cells.iter().map(|cell| run_cell(notebook, kernel, cell, prefix, limit)).collect();
            results.into_iter().all(|good| good)
        }
        Err(error) => {
            warn(format_args!("{prefix}{}", explain(&error)));
            false
        }
    }
}

fn run_cell(notebook: &Notebook, kernel: SessionId, cell: &str, prefix: &str, limit: Option<Duration>) -> bool {
    let mut request = StartTurnRequest::new(cell);
    request.timeout = limit;
    match notebook.stream_turn(kernel, request) {
        Ok(stream) => show(stream, &mut to_terminal(prefix)),
        Err(error) => {
            warn(format_args!("{prefix}{}", explain(&error)));
            false
        }
    }
}
