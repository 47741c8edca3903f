//! Text for the user, on standard output and on standard error.
//!
//! Text from outside (names, arguments, histories, errors) may contain escape sequences, which could overwrite the
//! screen or change the window title. So every line goes through [`plain`]. If standard output is closed, the program
//! ends quietly, as it would by a signal: it would have no reader any more. Standard error is for additional messages,
//! and a failed write there is ignored.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use crate::terminal;

/// The exit code of a program that SIGPIPE has ended, as shells report it: 128 and the signal's number.
const BROKEN_PIPE: i32 = 141;

/// Prints a line on standard output.
pub fn say(line: impl Display) {
    let line = plain(&line.to_string()) + "\n";
    write_out(line.as_bytes());
}

/// Prints a line on standard error.
pub fn warn(line: impl Display) {
    let line = plain(&line.to_string()) + "\n";
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Writes bytes to standard output unchanged, and flushes them.
///
/// Ends the program if that fails: quietly with 141 if the reader has closed the output, else with a message and 1.
pub fn write_out(bytes: &[u8]) {
    let written = {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush())
    };
    if let Err(error) = written {
        end_where_reader_has_gone(&error);
        warn(format_args!("standard output: {error}"));
        terminal::end(1);
    }
}

/// Ends the program quietly if the error is that of a closed pipe.
pub fn end_where_reader_has_gone(error: &io::Error) {
    if error.kind() == ErrorKind::BrokenPipe {
        terminal::end(BROKEN_PIPE);
    }
}

/// The text without characters that control a terminal. U+FFFD replaces each control character except newline and tab,
/// and each character that changes the direction of text.
pub fn plain(text: &str) -> String {
    let shown = |symbol: char| match symbol {
        '\n' | '\t' => symbol,
        _ if symbol.is_control() || turns_text(symbol) => char::REPLACEMENT_CHARACTER,
        _ => symbol,
    };
    text.chars().map(shown).collect()
}

/// The plain text on a single line, for names. A newline in a name would look like the next entry of a list.
pub fn plain_line(text: &str) -> String {
    plain(text).replace(['\n', '\t'], &char::REPLACEMENT_CHARACTER.to_string())
}

fn turns_text(symbol: char) -> bool {
    matches!(symbol, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}
