//! Lines that a person types at a prompt.

use rustyline::error::ReadlineError;
use rustyline::DefaultEditor;

/// The next line, with those that it goes on in after a backslash; `None` at the end of the input.
pub(crate) fn read_line(editor: &mut DefaultEditor, name: &str) -> Result<Option<String>, String> {
    let mut text = String::new();
    loop {
        let prompt = if text.is_empty() { format!("{name}> ") } else { "... ".into() };
        match editor.readline(&prompt) {
            Ok(line) => match line.strip_suffix('\\') {
                Some(begun) => text.extend([begun, "\n"]),
                None => {
                    text.push_str(&line);
                    return Ok(Some(text));
                }
            },
            // Ctrl-C at the prompt gives up what has been typed.
            Err(ReadlineError::Interrupted) => text.clear(),
            Err(ReadlineError::Eof) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        }
    }
}
