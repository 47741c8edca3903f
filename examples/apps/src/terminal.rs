//! Restores the terminal of a program with a prompt when a signal ends the program.
//!
//! A line editor puts the terminal into raw mode while it waits for keys. If a signal ended the program there, the
//! terminal would stay in raw mode, and the shell would not show what the user types.
//!
//! A thread handles the signals. It must not restore the terminal just before the main thread begins to edit a line:
//!
//! ```text
//! main:     is it ending? no                        raw mode
//! signals:                  not raw, nothing to do             exit
//! ```
//!
//! So the main thread first sets `IS_EDITING`, and then checks `IS_ENDING`. The signal thread first sets `IS_ENDING`,
//! and then checks `IS_EDITING`. If a line is edited, it waits for the raw mode that it has to undo.

#[cfg(unix)]
pub(crate) use on_unix::{edit, restore_on_signals};

#[cfg(unix)]
mod on_unix {
    use std::io::{self, IsTerminal, Write};
    use std::process;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use nix::sys::termios::{tcgetattr, tcsetattr, SetArg, Termios};
    use signal_hook::consts::{SIGHUP, SIGQUIT, SIGTERM};
    use signal_hook::iterator::Signals;

    static IS_INSTALLED: AtomicBool = AtomicBool::new(false);
    /// Written by the main thread only.
    static IS_EDITING: AtomicBool = AtomicBool::new(false);
    /// Set by the signal thread, and never cleared.
    static IS_ENDING: AtomicBool = AtomicBool::new(false);

    /// The longest wait for the raw mode to begin or to end.
    const PATIENCE: Duration = Duration::from_secs(1);
    const PAUSE: Duration = Duration::from_millis(1);

    /// From the first call on, SIGHUP, SIGQUIT and SIGTERM restore the terminal to its current state, and end the
    /// program with 128 and the signal's number. Has no effect if standard input is not a terminal.
    ///
    /// # Errors
    /// Fails if the system refuses the state of the terminal, the signals or the thread.
    pub(crate) fn restore_on_signals() -> io::Result<()> {
        if !io::stdin().is_terminal() || IS_INSTALLED.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let before = tcgetattr(io::stdin())?;
        let mut signals = Signals::new([SIGHUP, SIGQUIT, SIGTERM])?;
        let end = move || {
            if let Some(signal) = signals.forever().next() {
                restore(&before);
                process::exit(128 + signal);
            }
        };
        thread::Builder::new().name("signals".into()).spawn(end)?;
        Ok(())
    }

    /// Calls `read`, with which the line editor reads a line.
    pub(crate) fn edit<T>(read: impl FnOnce() -> T) -> T {
        IS_EDITING.store(true, Ordering::SeqCst);
        while IS_ENDING.load(Ordering::SeqCst) {
            // The signal thread ends the program.
            IS_EDITING.store(false, Ordering::SeqCst);
            thread::park();
        }
        let line = read();
        IS_EDITING.store(false, Ordering::SeqCst);
        line
    }

    fn restore(before: &Termios) {
        IS_ENDING.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + PATIENCE;
        while !tcgetattr(io::stdin()).is_ok_and(|now| now != *before) {
            if !IS_EDITING.load(Ordering::SeqCst) || Instant::now() > deadline {
                return;
            }
            thread::sleep(PAUSE);
        }
        // If this fails, the terminal is closed.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        // This turns off the marks around pasted text, which the editor has turned on, and begins a new line.
        let mut out = io::stdout().lock();
        let _ = out.write_all(b"\x1b[?2004l\n").and_then(|()| out.flush());
    }
}

#[cfg(not(unix))]
pub(crate) fn restore_on_signals() -> std::io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
pub(crate) fn edit<T>(read: impl FnOnce() -> T) -> T {
    read()
}
