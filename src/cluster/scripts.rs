//! The scripts that the server runs. Each is one step for every other client.
//!
//! A script is a file in `scripts/`. Its first line has its flags: without `allow-oom` it is refused as a whole when the
//! memory of the server is full. Its head says what it promises. Behind the first line comes `common.lua`, which compares
//! the id of the namespace and has the functions that several scripts use.
//!
//! `tests/cluster/scripts` holds them to a sequential model.

use crate::sync::WriteOnce;

use super::wire::{digest, Command};

/// A script.
pub(super) struct Script {
    name: &'static str,
    common: &'static str,
    text: &'static str,
    digest: WriteOnce<String>,
}

impl Script {
    const fn new(name: &'static str, common: &'static str, text: &'static str) -> Self {
        Self { name, common, text, digest: WriteOnce::new() }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// The whole text: the first line, the common part, and the rest.
    fn source(&self) -> String {
        let (flags, rest) = self.text.split_once('\n').unwrap_or((self.text, ""));
        [flags, "\n", self.common, rest].concat()
    }

    /// The digest by which the server knows the script.
    pub(super) fn digest(&self) -> &str {
        self.digest.get_or_init(|| digest(&self.source()))
    }

    /// The command that gives the script to the server.
    pub(super) fn load(&self) -> Command {
        Command::new("SCRIPT").arg("LOAD").arg(self.source())
    }
}

macro_rules! scripts {
    ($common:expr; $($name:ident = $file:literal,)*) => {
        $(pub(super) static $name: Script =
            Script::new($file, $common, include_str!(concat!("scripts/", $file, ".lua")));)*
    };
}

scripts! {
    "";
    FOUND = "found",
    MEET = "meet",
}

scripts! {
    include_str!("scripts/common.lua");
    DELETE = "delete",
    LIST = "list",
    LOAD = "load",
    SAVE = "save",
    SUMMARY = "summary",
}
