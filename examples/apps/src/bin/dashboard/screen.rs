//! The terminal: set up while the dashboard runs, and restored on every exit.

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

/// How long a signal waits for the main thread to restore the terminal. A terminal that accepts no output may block the
/// main thread.
const PATIENCE: Duration = Duration::from_secs(1);
/// Shows the cursor, and the main screen.
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";

/// Input of the dashboard.
pub(crate) enum Input {
    Key(Key),
    /// A signal ends the program.
    Signal,
}

/// The alternate screen in raw mode.
pub(crate) struct Screen {
    // The fields are dropped in this order. The terminal shows the cursor, the main screen and line mode again. The
    // output is flushed before anything is written to standard error. Then the channel tells a waiting signal thread.
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
        // If this fails, the terminal is closed.
        let _ = stdout().flush();
    }
}

impl Screen {
    /// # Errors
    /// Fails if there is no terminal, or if it cannot be set up.
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

    /// The pressed keys, and the signals that end the program. A SIGINT from another process counts as the key Ctrl-C,
    /// since in raw mode Ctrl-C is a key.
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

    /// Restores the terminal. Then the signal thread ends the program.
    pub(crate) fn wait_for_exit(self) -> ! {
        drop(self);
        loop {
            thread::park();
        }
    }
}

/// Ends the program with 128 and the signal's number, after the main thread has restored the terminal. If that takes
/// too long, restores it here.
fn wait_for_signals(mut signals: Signals, received: &Sender<Input>, before: &Termios, restored: &Receiver<()>) {
    for signal in signals.forever() {
        // The send fails if the program ends already.
        if signal == SIGINT {
            let _ = received.send(Input::Key(Key::Ctrl('c')));
            continue;
        }
        let _ = received.send(Input::Signal);
        // No message is ever sent. The channel disconnects.
        if restored.recv_timeout(PATIENCE).is_err_and(|error| error.is_timeout()) {
            let _ = tcsetattr(stdout(), SetArg::TCSANOW, before);
            leave();
        }
        process::exit(128 + signal);
    }
}

/// Leaves the dashboard's screen, if the terminal accepts output. It writes to `/dev/tty`, since the main thread may
/// hold the lock of standard output.
fn leave() {
    let (written, done) = bounded::<()>(0);
    thread::spawn(move || {
        let _ = File::options().write(true).open("/dev/tty").and_then(|mut terminal| terminal.write_all(LEAVE));
        drop(written);
    });
    let _ = done.recv_timeout(PATIENCE);
}

/// Reads keys until the program ends, since nothing can end a thread that reads from a terminal.
fn read_keys(pressed: &Sender<Input>) {
    for key in stdin().keys() {
        // A terminal that cannot be read is closed. That counts as Ctrl-C.
        let gone = key.is_err();
        if pressed.send(Input::Key(key.unwrap_or(Key::Ctrl('c')))).is_err() || gone {
            return;
        }
    }
    let _ = pressed.send(Input::Key(Key::Ctrl('c')));
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Prints the panics of the program when it is dropped. It is made before the [`Screen`], so it is dropped after the
/// terminal is restored.
pub(crate) struct Panics;

impl Panics {
    /// Collects panic messages, which would be printed over the screen. Panics of agents, on threads whose names begin
    /// with `agents`, are ignored: the library contains them, and the dashboard shows them.
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
        // The panic hook takes this lock too, so nothing that may panic runs while it is held.
        let panics = std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
        panics.iter().for_each(|panic| warn(format_args!("dashboard: {panic}")));
    }
}
