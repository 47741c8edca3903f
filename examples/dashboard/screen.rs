//! The terminal: taken over while the dashboard runs, and given back whatever happens.

use std::io::{self, stdin, stdout, IsTerminal, Stdout, Write};
use std::panic;
use std::sync::{Mutex, PoisonError};
use std::thread;

use ratatui::backend::TermionBackend;
use ratatui::termion::event::Key;
use ratatui::termion::input::TermRead;
use ratatui::termion::raw::{IntoRawMode, RawTerminal};
use ratatui::termion::screen::{AlternateScreen, IntoAlternateScreen};
use ratatui::Terminal;
use turnwise::crossbeam_channel::{unbounded, Receiver};

/// The alternate screen in raw mode.
pub(crate) struct Screen {
    // Dropped in this order: the cursor is shown again, the first screen and the line mode come back, and all of that is
    // written out before anybody writes to standard error.
    pub(crate) terminal: Terminal<TermionBackend<AlternateScreen<RawTerminal<Stdout>>>>,
    _written_out: WrittenOut,
}

struct WrittenOut;

impl Drop for WrittenOut {
    fn drop(&mut self) {
        // Where it fails the terminal is gone.
        let _ = stdout().flush();
    }
}

impl Screen {
    /// # Errors
    /// What is in the way: no terminal, or one that cannot be set up.
    pub(crate) fn take() -> Result<Self, String> {
        if !stdout().is_terminal() {
            return Err("standard output is no terminal; --once prints a frame, --svg FILE draws one".into());
        }
        if !stdin().is_terminal() {
            return Err("standard input is no terminal, so there are no keys; --once prints a frame without".into());
        }
        let set_up = || {
            let output = stdout().into_raw_mode()?.into_alternate_screen()?;
            Terminal::new(TermionBackend::new(output))
        };
        let failed = |error: io::Error| format!("the terminal cannot be set up: {error}");
        Ok(Self { terminal: set_up().map_err(failed)?, _written_out: WrittenOut })
    }
}

/// The keys that are pressed; it disconnects when the terminal is gone. A SIGINT from elsewhere counts as Ctrl-C, which in
/// raw mode is a key like others.
pub(crate) fn keys() -> Result<Receiver<Key>, String> {
    let (pressed, keys) = unbounded();
    let interrupted = pressed.clone();
    ctrlc::set_handler(move || _ = interrupted.send(Key::Ctrl('c'))).map_err(|error| error.to_string())?;
    // Ends with the program: nothing ends a thread that reads from a terminal.
    let read = move || {
        for key in stdin().keys() {
            // A terminal that cannot be read any more is as good as somebody who leaves.
            let gone = key.is_err();
            if pressed.send(key.unwrap_or(Key::Ctrl('c'))).is_err() || gone {
                return;
            }
        }
        let _ = pressed.send(Key::Ctrl('c'));
    };
    thread::Builder::new().name("keys".into()).spawn(read).map_err(|error| error.to_string())?;
    Ok(keys)
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Shows the program's own panics when it is dropped. Made before a [`Screen`], that is after the terminal is back.
pub(crate) struct Panics;

impl Panics {
    /// Keeps what panics say from going across the picture. Those of agents, on threads whose names begin with `agents`, are
    /// no news: the library contains them, and the dashboard shows them.
    pub(crate) fn keep(agents: &'static str) -> Self {
        panic::set_hook(Box::new(move |panic| {
            let thread = thread::current();
            let name = thread.name().unwrap_or("unnamed");
            if !name.starts_with(agents) {
                PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(format!("thread '{name}' {panic}"));
            }
        }));
        Self
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        for panic in PANICS.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            eprintln!("dashboard: {panic}");
        }
    }
}
