//! The terminal while an answer is written: the answer on standard output, all other messages on standard error.
//!
//! The line that is being typed has a row of its own below the answer:
//!
//! ```text
//! Once upon a time there was
//! next> and now in Fren
//! ```
//!
//! Before each output the row is erased, and the cursor returns to the end of the answer. Afterwards the row is drawn
//! again. For that the screen counts the columns of the answer.

use std::io::{self, IsTerminal, Write};
use std::mem;
use std::time::{Duration, Instant};

use turnwise_apps::say::{warn, write_out};
use turnwise_apps::terminal;

use crate::columns;
use crate::show::without_controls;

/// The period of the progress sign.
pub(crate) const TICK: Duration = Duration::from_millis(100);
const SIGNS: [char; 4] = ['|', '/', '-', '\\'];
/// The width of a terminal that does not report it.
const USUAL_WIDTH: usize = 80;

/// The state of the terminal. A failure to write the answer ends the program. A failure to write anything else is
/// ignored.
pub(crate) struct Screen {
    begun: Instant,
    /// The time of the last output.
    shown: Instant,
    ticks: usize,
    /// Whether standard error is a terminal, which can show progress and the row.
    is_watched: bool,
    /// Whether standard output is a terminal. Otherwise the answer does not move the cursor.
    shows_answer: bool,
    /// Whether the progress sign is visible.
    shows_sign: bool,
    /// The column at the end of the answer; 0 where a line begins.
    column: usize,
    width: usize,
    /// The text of the row; empty for none.
    row: String,
    /// Whether the row is visible.
    shows_row: bool,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            shown: now,
            ticks: 0,
            is_watched: io::stderr().is_terminal(),
            shows_answer: io::stdout().is_terminal(),
            shows_sign: false,
            column: 0,
            width: terminal::width().unwrap_or(USUAL_WIDTH),
            row: String::new(),
            shows_row: false,
        }
    }

    /// The next answer begins: the progress sign counts from here.
    pub(crate) fn begin_answer(&mut self) {
        self.begun = Instant::now();
    }

    /// Writes a piece of the answer.
    pub(crate) fn text(&mut self, text: &str) {
        let text = without_controls(text);
        self.write(|screen| {
            write_out(text.as_bytes());
            screen.column = columns::after(screen.column, &text, screen.width);
        });
    }

    /// Writes a message, in a line of its own.
    pub(crate) fn note(&mut self, text: &str) {
        self.line(&format!("[{text}]"));
    }

    /// Writes this text on standard error, in a line of its own.
    pub(crate) fn line(&mut self, text: &str) {
        self.lines(|| warn(without_controls(text)));
    }

    /// Lets `write` write lines, on any output.
    pub(crate) fn lines<T>(&mut self, write: impl FnOnce() -> T) -> T {
        self.write(|screen| {
            screen.end_line();
            write()
        })
    }

    /// Sets the row: a label, and as much of the end of the text as there is room for. An empty label removes the row.
    pub(crate) fn set_row(&mut self, label: &str, text: &str) {
        let row = match label {
            "" => String::new(),
            // The last column stays free: a character there would leave the cursor between two rows.
            _ => label.to_owned() + columns::tail(text, self.width.saturating_sub(label.len() + 1)),
        };
        if row != self.row {
            self.write(|screen| screen.row = row);
        }
    }

    /// Removes the row, and ends the line of the answer.
    pub(crate) fn end(&mut self) {
        self.set_row("", "");
        self.lines(|| ());
    }

    /// Shows progress if there was no output for a while, since a model may think for long.
    pub(crate) fn on_time(&mut self) {
        if self.shown.elapsed() < TICK {
            return;
        }
        self.shown = Instant::now();
        self.ticks += 1;
        // In a line of the answer or in the row the sign would overwrite text.
        if self.is_watched && self.cursor() == 0 && !self.shows_row {
            let sign = SIGNS[self.ticks % SIGNS.len()];
            tell(&format!("\r{sign} {} s", self.begun.elapsed().as_secs()));
            self.shows_sign = true;
        }
    }

    /// Lets `write` write at the end of the answer.
    fn write<T>(&mut self, write: impl FnOnce(&mut Self) -> T) -> T {
        self.clear_sign();
        self.erase_row();
        let written = write(self);
        self.draw_row();
        written
    }

    /// The column of the cursor in the terminal, if the row is not visible.
    fn cursor(&self) -> usize {
        if self.shows_answer {
            self.column
        } else {
            0
        }
    }

    fn clear_sign(&mut self) {
        self.shown = Instant::now();
        if mem::take(&mut self.shows_sign) {
            tell("\r\x1b[K");
        }
    }

    fn draw_row(&mut self) {
        if self.row.is_empty() || !self.is_watched {
            return;
        }
        let begin = if self.cursor() == 0 { "" } else { "\n" };
        tell(&format!("{begin}{}", self.row));
        self.shows_row = true;
    }

    /// Erases the row, and returns the cursor to the end of the answer.
    fn erase_row(&mut self) {
        if !mem::take(&mut self.shows_row) {
            return;
        }
        match self.cursor() {
            0 => tell("\r\x1b[K"),
            column if column < self.width => tell(&format!("\r\x1b[K\x1b[A\x1b[{}G", column + 1)),
            // The answer fills its last row, so it continues in the row that was erased.
            _ => {
                tell("\r\x1b[K");
                self.column = 0;
            }
        }
    }

    fn end_line(&mut self) {
        if mem::take(&mut self.column) > 0 {
            write_out(b"\n");
        }
    }
}

/// Writes to standard error unchanged.
fn tell(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}
