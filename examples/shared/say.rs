//! Lines on standard output.

use std::fmt::Display;
use std::io::{self, Write};

/// Prints a line. Where nobody reads on, nothing can be said about it.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}
