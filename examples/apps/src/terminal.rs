//! The terminal of a program with a prompt, restored when a signal ends the program.
//!
//! A line editor has the terminal in raw mode while it waits for keys. A program that a signal ends there would leave it so:
//! the shell afterwards would show nothing of what is typed.
//!
//! Signals have a thread of their own, which must not restore the terminal just before the main thread begins to edit a line:
//!
//! ```text
//! main:     is it ending? no                        raw mode
//! signals:                  not raw, nothing to do             exit
//! ```
//!
//! So the main thread first says that it edits, then asks whether the program ends; the signals' thread says that it ends, then
//! asks whether a line is edited, and waits for the raw mode that it has to undo.

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
    /// Set by the main thread alone.
    static IS_EDITING: AtomicBool = AtomicBool::new(false);
    /// Set by the signals' thread, and never cleared.
    static IS_ENDING: AtomicBool = AtomicBool::new(false);

    /// How long the raw mode takes at most to begin or to end.
    const PATIENCE: Duration = Duration::from_secs(1);
    const PAUSE: Duration = Duration::from_millis(1);

    /// From the first call on, SIGHUP, SIGQUIT and SIGTERM restore the terminal to what it is now, and end the program with 128
    /// and the signal's number. Does nothing where standard input is no terminal.
    ///
    /// # Errors
    /// What the system says against it.
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

    /// Has the line editor read a line.
    pub(crate) fn edit<T>(read: impl FnOnce() -> T) -> T {
        IS_EDITING.store(true, Ordering::SeqCst);
        while IS_ENDING.load(Ordering::SeqCst) {
            // The signals' thread ends the program.
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
        // Where these fail the terminal is gone.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        // The editor has asked for marks around what is pasted; and what comes next begins on a line of its own.
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
