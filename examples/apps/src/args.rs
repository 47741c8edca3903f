//! The command line. The system does not guarantee that arguments are UTF-8.

use std::ffi::{OsStr, OsString};

/// The arguments after the program's name, as the system gives them. Paths need not be UTF-8.
pub fn all() -> impl Iterator<Item = OsString> {
    std::env::args_os().skip(1)
}

/// The arguments as text.
///
/// # Errors
/// A message about the first argument that is not UTF-8.
pub fn texts() -> Result<Vec<String>, String> {
    all().map(|arg| text(&arg).map(str::to_owned)).collect()
}

/// An argument as text.
pub fn text(arg: &OsStr) -> Result<&str, String> {
    arg.to_str().ok_or_else(|| format!("the argument '{}' is not UTF-8", arg.to_string_lossy()))
}
