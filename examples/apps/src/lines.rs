//! Lines that the user types at a prompt.
//!
//! Lines that are typed or pasted while the program is busy are read at the next prompts. With its feature
//! `buffer-redux` the editor keeps input that it has read beyond a line. Ctrl-C discards the line, and that input too.

use std::{io, mem};

use rustyline::error::ReadlineError;
use rustyline::{Cmd, DefaultEditor, KeyEvent};

use crate::say::{end_where_reader_has_gone, plain_line};
use crate::terminal;

/// The next line. A line that ends with a backslash continues in the next one. `None` at the end of the input.
pub fn read_line(editor: &mut DefaultEditor, name: &str) -> Result<Option<String>, String> {
    continue_line(editor, name, "")
}

/// As [`read_line`], with a line that begins with this text. The user may change the text.
pub fn continue_line(editor: &mut DefaultEditor, name: &str, begun: &str) -> Result<Option<String>, String> {
    terminal::restore_on_signals().map_err(|error| format!("cannot catch signals: {error}"))?;
    // This is the key that a terminal delivers for a Ctrl-D that was typed while the program was busy.
    editor.bind_sequence(KeyEvent::ctrl('@'), Cmd::EndOfFile);
    let mut text = String::new();
    let mut begun = begun;
    loop {
        let prompt = if text.is_empty() { format!("{}> ", plain_line(name)) } else { "... ".into() };
        let begun = mem::take(&mut begun);
        match terminal::edit(|| editor.readline_with_initial(&prompt, (begun, ""))) {
            Ok(line) => match line.strip_suffix('\\') {
                Some(begun) => text.extend([begun, "\n"]),
                None => {
                    text.push_str(&line);
                    return Ok(Some(text));
                }
            },
            Err(ReadlineError::Interrupted) => text.clear(),
            Err(ReadlineError::Eof) => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
    }
}

/// The message about a failure. Ends the program if the reader of the prompts has closed the output.
fn failed(error: ReadlineError) -> String {
    let error = match error {
        ReadlineError::Io(error) => error,
        #[cfg(unix)]
        ReadlineError::Errno(error) => io::Error::from(error),
        other => return other.to_string(),
    };
    end_where_reader_has_gone(&error);
    error.to_string()
}
