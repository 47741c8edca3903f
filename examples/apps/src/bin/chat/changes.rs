//! The tools that change files: `write_file` and `note`.
//!
//! They write inside the working directory, and nowhere else (`places.rs`).

use std::env;
use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use turnwise_apps::save::save;

use crate::places::place;

/// The longest file that is written, in bytes.
const LONGEST_FILE: usize = 256 << 10;
/// The file of the notes.
const NOTES: &str = "notes.md";
/// How many lines of a text the user is shown, and how many characters of each.
const SHOWN_LINES: usize = 8;
const SHOWN_WIDTH: usize = 100;

/// A change of a file that is not made yet.
#[derive(Debug)]
pub(crate) struct Change {
    name: String,
    text: String,
    /// Whether the text is added at the end of the file.
    appends: bool,
}

#[derive(Deserialize)]
struct File {
    path: String,
    content: String,
}

#[derive(Deserialize)]
struct Note {
    text: String,
}

/// The change of `write_file`. The error is a text for the model.
pub(crate) fn write_file(args: &str) -> Result<Change, String> {
    let File { path, content } = serde_json::from_str(args).map_err(|error| error.to_string())?;
    Change { name: path, text: content, appends: false }.checked()
}

/// The change of `note`.
pub(crate) fn note(args: &str) -> Result<Change, String> {
    let Note { text } = serde_json::from_str(args).map_err(|error| error.to_string())?;
    if text.trim().is_empty() {
        return Err("the note is empty".into());
    }
    // A note is one item of a list.
    let text = format!("- {}\n", text.trim().replace('\n', "\n  "));
    Change { name: NOTES.into(), text, appends: true }.checked()
}

impl Change {
    fn checked(self) -> Result<Self, String> {
        if self.text.len() > LONGEST_FILE {
            return Err(format!("the text is longer than {LONGEST_FILE} bytes"));
        }
        self.place()?;
        Ok(self)
    }

    fn place(&self) -> Result<PathBuf, String> {
        place(&folder()?, &self.name).map_err(|why| format!("'{}' is not written: {why}", self.name))
    }

    /// What the change does, for the question to the user: its file, its size, and the begin of its text.
    pub(crate) fn described(&self) -> String {
        let verb = match (self.appends, Path::new(&self.name).exists()) {
            (true, _) => "add to",
            (false, true) => "replace",
            (false, false) => "create",
        };
        let lines: Vec<&str> = self.text.lines().collect();
        let mut text = format!("{verb} the file '{}' ({})", self.name, size(&self.text));
        for line in lines.iter().take(SHOWN_LINES) {
            let cut = if line.chars().nth(SHOWN_WIDTH).is_some() { " ..." } else { "" };
            let _ = write!(text, "\n    {}{cut}", line.chars().take(SHOWN_WIDTH).collect::<String>());
        }
        match lines.len().saturating_sub(SHOWN_LINES) {
            0 => {}
            1 => text.push_str("\n    ... and 1 more line"),
            more => _ = write!(text, "\n    ... and {more} more lines"),
        }
        text
    }

    /// Makes the change. The file keeps its old content if that fails.
    pub(crate) fn make(self) -> Result<String, String> {
        let failed = |error| format!("{}: {error}", self.name);
        // The user may have taken long to answer, and the files may be others now.
        let file = self.place()?;
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let old = match fs::read_to_string(&file) {
            _ if !self.appends => String::new(),
            Ok(old) if old.is_empty() || old.ends_with('\n') => old,
            Ok(old) => old + "\n",
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(error)),
        };
        save(&file, (old + &self.text).as_bytes()).map_err(failed)?;
        Ok(format!("written to '{}': {}", self.name, size(&self.text)))
    }
}

fn size(text: &str) -> String {
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let (lines, bytes) = (text.lines().count(), text.len());
    format!("{lines} line{}, {bytes} byte{}", plural(lines), plural(bytes))
}

/// The working directory, without symbolic links.
fn folder() -> Result<PathBuf, String> {
    env::current_dir()
        .and_then(|folder| folder.canonicalize())
        .map_err(|error| format!("the working directory: {error}"))
}
