//! The tools that change files: `write_file` and `note`.
//!
//! They write inside the working directory, and nowhere else. A path has no `..`, is not absolute, and leads through no
//! symbolic link to another place. Hidden files are left alone, because some of them are programs or settings of
//! programs, such as `.git/hooks` and `.bashrc`.

use std::env;
use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use turnwise_apps::save::save;

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
        place(&folder()?, &self.name)?;
        Ok(self)
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
        let file = place(&folder()?, &self.name)?;
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

/// The place of a file in a folder.
///
/// # Errors
/// Fails if a file with this name is or would be outside of the folder or hidden, or if it is no regular file.
pub(crate) fn place(folder: &Path, name: &str) -> Result<PathBuf, String> {
    let refused = |why: &str| Err(format!("'{name}' is not written: {why}"));
    if name.is_empty() || name.ends_with(['/', '\\']) || name.contains('\0') {
        return refused("it is not the name of a file");
    }
    let mut place = folder.to_owned();
    for component in Path::new(name).components() {
        match component {
            Component::CurDir => continue,
            Component::Normal(part) => place.push(part),
            _ => return refused("it is not below the working directory"),
        }
        // The metadata of the link itself, which may lead to nothing.
        match fs::symlink_metadata(&place) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return refused(&error.to_string()),
        }
        match place.canonicalize() {
            Ok(real) if !real.starts_with(folder) => return refused("it is a link out of the working directory"),
            Ok(real) => place = real,
            Err(error) => return refused(&error.to_string()),
        }
    }
    let hidden = |part: Component<'_>| part.as_os_str().as_encoded_bytes().starts_with(b".");
    match place.strip_prefix(folder) {
        Ok(inside) if inside.components().any(hidden) => return refused("it is hidden"),
        Ok(inside) if inside.as_os_str().is_empty() => return refused("it is not the name of a file"),
        Ok(_) => {}
        Err(_) => return refused("it is not below the working directory"),
    }
    match fs::metadata(&place) {
        Ok(old) if !old.is_file() => refused("there is something else with this name"),
        _ => Ok(place),
    }
}
