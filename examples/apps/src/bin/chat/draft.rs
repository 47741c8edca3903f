//! The line that is typed while an answer is written.

use std::mem;

use crate::keys::Key;

/// A line, as far as it is typed.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    text: String,
}

/// The effect of a key on the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    Line(String),
    /// A line for the answer that is being written.
    Steer(String),
    /// The end of the input.
    End,
}

impl Draft {
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The part of the text that is shown: its last line.
    pub(crate) fn shown(&self) -> &str {
        self.text.rsplit('\n').next().unwrap_or_default()
    }

    pub(crate) fn take(&mut self) -> String {
        mem::take(&mut self.text)
    }

    /// Puts a line that was typed in front of the text, for another attempt.
    pub(crate) fn put_back(&mut self, line: &str) {
        self.text.insert_str(0, line);
    }

    /// Applies a key. Returns the line that is complete with it.
    pub(crate) fn press(&mut self, key: Key) -> Option<Typed> {
        match key {
            Key::Text(symbol) => self.text.push(symbol),
            Key::Backspace => _ = self.text.pop(),
            Key::EraseWord => self.erase_word(),
            Key::EraseLine => self.text.clear(),
            Key::Enter => return self.enter(),
            Key::Steer if self.text.trim().is_empty() => {}
            Key::Steer => {
                let text = self.take();
                return Some(Typed::Steer(steering(&text).unwrap_or(text.trim()).to_owned()));
            }
            Key::End if self.text.is_empty() => return Some(Typed::End),
            Key::End => {}
        }
        None
    }

    fn enter(&mut self) -> Option<Typed> {
        // A line that ends with a backslash continues, as at the prompt.
        if self.text.ends_with('\\') {
            self.text.pop();
            self.text.push('\n');
            return None;
        }
        let line = self.take();
        match steering(&line) {
            Some(text) => Some(Typed::Steer(text.to_owned())),
            None => (!line.trim().is_empty()).then_some(Typed::Line(line)),
        }
    }

    fn erase_word(&mut self) {
        let before = self.text.trim_end().trim_end_matches(|symbol: char| !symbol.is_whitespace());
        self.text.truncate(before.len());
    }
}

/// The text of a line for the answer that is being written: what follows its exclamation mark.
pub(crate) fn steering(line: &str) -> Option<&str> {
    line.trim().strip_prefix('!').map(str::trim).filter(|text| !text.is_empty())
}
