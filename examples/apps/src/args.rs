//! The command line. The system does not promise that arguments are text.

use std::ffi::{OsStr, OsString};

/// The arguments behind the program's name. Paths are used as they are.
pub fn all() -> impl Iterator<Item = OsString> {
    std::env::args_os().skip(1)
}

/// The arguments as text.
///
/// # Errors
/// What to tell the user about the first that is not UTF-8.
pub fn texts() -> Result<Vec<String>, String> {
    all().map(|arg| text(&arg).map(str::to_owned)).collect()
}

/// One argument as text.
pub fn text(arg: &OsStr) -> Result<&str, String> {
    arg.to_str().ok_or_else(|| format!("the argument '{}' is not UTF-8", arg.to_string_lossy()))
}
