//! Text for a person, on standard output and on standard error.
//!
//! Text from outside (names, arguments, histories, errors) may contain escape sequences, with which it would write over the
//! screen or retitle the window. So every line goes through [`plain`]. Standard output that is closed ends the program
//! quietly, as a signal would: a program that went on would work for no reader. Standard error is for what a person may want
//! to know besides: a failure to write there changes nothing.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process;

/// The exit code of a program that SIGPIPE ended, as shells have it: 128 and the signal's number.
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

/// Writes bytes to standard output as they are, at once.
///
/// Ends the program where that fails: quietly and with 141 where the reader has gone, else with a message and 1.
pub fn write_out(bytes: &[u8]) {
    let written = {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush())
    };
    if let Err(error) = written {
        end_where_reader_has_gone(&error);
        warn(format_args!("standard output: {error}"));
        process::exit(1);
    }
}

/// Ends the program quietly where that is what the error says.
pub fn end_where_reader_has_gone(error: &io::Error) {
    if error.kind() == ErrorKind::BrokenPipe {
        process::exit(BROKEN_PIPE);
    }
}

/// The text without what would tell a terminal to do something: a replacement character stands for each control character
/// but newline and tab, and for each character that changes the direction of the text after it.
pub fn plain(text: &str) -> String {
    let shown = |symbol: char| match symbol {
        '\n' | '\t' => symbol,
        _ if symbol.is_control() || turns_text(symbol) => char::REPLACEMENT_CHARACTER,
        _ => symbol,
    };
    text.chars().map(shown).collect()
}

/// The same on a single line, for names: a newline in one would look like the next entry of a list.
pub fn plain_line(text: &str) -> String {
    plain(text).replace(['\n', '\t'], &char::REPLACEMENT_CHARACTER.to_string())
}

fn turns_text(symbol: char) -> bool {
    matches!(symbol, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}
