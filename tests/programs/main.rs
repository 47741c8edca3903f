//! What all examples owe their users, whatever each is for: arguments that are no text, output that is closed or full, files
//! that are replaced whole, terminals that are restored. The chat has tests of its own.
#![cfg(unix)]
#![allow(clippy::disallowed_types)] // The library's rule about channels is the library's.

mod files;
#[path = "../examples/program.rs"]
mod program;
mod streams;
mod terminal;

use std::path::{Path, PathBuf};

use turnwise::SessionId;

/// A new folder, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("turnwise-programs-{}", SessionId::new()));
        std::fs::create_dir(&folder).expect("a place for files");
        Self(folder)
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// The names of all that is in there.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("the folder").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
