//! The terminal: taken over while the dashboard runs, and given back whatever happens.

use std::fs::File;
use std::io::{self, stdin, stdout, IsTerminal, Stdout, Write};
use std::panic;
use std::process;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::termios::{tcgetattr, tcsetattr, SetArg, Termios};

use ratatui::backend::TermionBackend;
use ratatui::termion::event::Key;
use ratatui::termion::input::TermRead;
use ratatui::termion::raw::{IntoRawMode, RawTerminal};
use ratatui::termion::screen::{AlternateScreen, IntoAlternateScreen};
use ratatui::Terminal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use turnwise::crossbeam_channel::{bounded, unbounded, Receiver, Sender};
use turnwise_apps::say::warn;

/// How long a signal waits for the program's main thread, which a terminal that takes no output keeps from restoring it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Shows the cursor, and the first screen.
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";

/// What comes from outside.
pub(crate) enum Input {
    Key(Key),
    /// A signal ends the program.
    Signal,
}

/// The alternate screen in raw mode.
pub(crate) struct Screen {
    // Dropped in this order: the cursor is shown again, the first screen and the line mode come back, all of that is written
    // out before anything is written to standard error, and a signal that waits for it is told.
    pub(crate) terminal: Terminal<TermionBackend<AlternateScreen<RawTerminal<Stdout>>>>,
    _written_out: WrittenOut,
    before: Termios,
    /// Disconnected when the terminal is restored.
    _taken: Sender<()>,
    restored: Receiver<()>,
    signals: Option<Signals>,
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
        let failed = |error: io::Error| format!("the terminal cannot be set up: {error}");
        // From here on no signal ends the program before the terminal is restored.
        let signals = Some(Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM]).map_err(failed)?);
        let before = tcgetattr(stdout()).map_err(|error| failed(error.into()))?;
        let set_up = || {
            let output = stdout().into_raw_mode()?.into_alternate_screen()?;
            Terminal::new(TermionBackend::new(output))
        };
        let (taken, restored) = bounded(0);
        let terminal = set_up().map_err(failed)?;
        Ok(Self { terminal, _written_out: WrittenOut, before, _taken: taken, restored, signals })
    }

    /// The keys that are pressed, and the signals that end the program. A SIGINT from elsewhere counts as Ctrl-C, which in raw
    /// mode is a key like others.
    pub(crate) fn input(&mut self) -> Result<Receiver<Input>, String> {
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.into()).spawn(run).map(drop).map_err(|error| error.to_string())
        };
        let (received, input) = unbounded();
        let (before, restored, keys) = (self.before.clone(), self.restored.clone(), received.clone());
        if let Some(signals) = self.signals.take() {
            spawn("signals", Box::new(move || wait_for_signals(signals, &received, &before, &restored)))?;
        }
        spawn("keys", Box::new(move || read_keys(&keys)))?;
        Ok(input)
    }

    /// Restores the terminal. The thread that has received the signal ends the program then.
    pub(crate) fn wait_for_exit(self) -> ! {
        drop(self);
        loop {
            thread::park();
        }
    }
}

/// Ends the program, with 128 and the signal's number, when the main thread has restored the terminal. Where that takes too long,
/// restores it here.
fn wait_for_signals(mut signals: Signals, received: &Sender<Input>, before: &Termios, restored: &Receiver<()>) {
    for signal in signals.forever() {
        // Sending fails where the program ends already.
        if signal == SIGINT {
            let _ = received.send(Input::Key(Key::Ctrl('c')));
            continue;
        }
        let _ = received.send(Input::Signal);
        // Nothing is ever sent: the channel disconnects.
        if restored.recv_timeout(PATIENCE).is_err_and(|error| error.is_timeout()) {
            let _ = tcsetattr(stdout(), SetArg::TCSANOW, before);
            leave();
        }
        process::exit(128 + signal);
    }
}

/// Leaves the dashboard's screen, as far as the terminal takes output. The main thread may hold the lock of standard output.
fn leave() {
    let (written, done) = bounded::<()>(0);
    thread::spawn(move || {
        let _ = File::options().write(true).open("/dev/tty").and_then(|mut terminal| terminal.write_all(LEAVE));
        drop(written);
    });
    let _ = done.recv_timeout(PATIENCE);
}

/// Ends with the program: nothing ends a thread that reads from a terminal.
fn read_keys(pressed: &Sender<Input>) {
    for key in stdin().keys() {
        // A terminal that cannot be read any more has no user.
        let gone = key.is_err();
        if pressed.send(Input::Key(key.unwrap_or(Key::Ctrl('c')))).is_err() || gone {
            return;
        }
    }
    let _ = pressed.send(Input::Key(Key::Ctrl('c')));
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
                let line = format!("thread '{name}' {panic}");
                PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        }));
        Self
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        // The hook takes this lock too: nothing that may panic runs while it is held.
        let panics = std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
        panics.iter().for_each(|panic| warn(format_args!("dashboard: {panic}")));
    }
}
