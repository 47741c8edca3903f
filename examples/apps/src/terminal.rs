//! The modes of the terminal, and their restoration when the program ends.
//!
//! A line editor puts the terminal into raw mode while it waits for keys, and [`Quiet`] turns off the echo and the
//! editing of lines. If a signal ended the program there, the terminal would stay in that mode, and the shell would not
//! show what the user types.
//!
//! A thread handles the signals. It must not restore the terminal just before the main thread begins to edit a line:
//!
//! ```text
//! main:     is it ending? no                        raw mode
//! signals:                  not raw, nothing to do             exit
//! ```
//!
//! So the main thread first sets `IS_EDITING`, and then checks `IS_ENDING`. The signal thread first sets `IS_ENDING`,
//! and then checks `IS_EDITING`. If the mode is changed, it waits for the mode that it has to undo.

#[cfg(unix)]
use std::io;
use std::process;

#[cfg(unix)]
use ratatui::termion::terminal_size_fd;

#[cfg(unix)]
pub use on_unix::Quiet;
#[cfg(unix)]
pub(crate) use on_unix::{edit, restore_on_signals};

/// The number of columns of the terminal on standard error.
pub fn width() -> Option<usize> {
    #[cfg(unix)]
    return terminal_size_fd(&io::stderr()).ok().map(|(columns, _)| columns.into()).filter(|columns| *columns > 0);
    #[cfg(not(unix))]
    None
}

/// Restores the terminal, and ends the program with this exit code.
pub fn end(code: i32) -> ! {
    #[cfg(unix)]
    on_unix::restore();
    process::exit(code)
}

#[cfg(unix)]
#[allow(clippy::disallowed_types)] // The library's rule about locks does not apply to the programs.
mod on_unix {
    use std::io::{self, IsTerminal, Write};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, PoisonError};
    use std::thread;
    use std::time::{Duration, Instant};

    use nix::sys::termios::{tcgetattr, tcsetattr, LocalFlags, SetArg, SpecialCharacterIndices, Termios};
    use signal_hook::consts::{SIGHUP, SIGQUIT, SIGTERM};
    use signal_hook::iterator::Signals;

    /// The state that is restored. Stored before the mode changes for the first time.
    static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
    /// Written by the main thread only.
    static IS_EDITING: AtomicBool = AtomicBool::new(false);
    /// Set by the thread that ends the program, and never cleared.
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
        let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
        if !io::stdin().is_terminal() || before.is_some() {
            return Ok(());
        }
        let now = tcgetattr(io::stdin())?;
        let mut signals = Signals::new([SIGHUP, SIGQUIT, SIGTERM])?;
        let end = move || {
            if let Some(signal) = signals.forever().next() {
                super::end(128 + signal);
            }
        };
        thread::Builder::new().name("signals".into()).spawn(end)?;
        *before = Some(now);
        Ok(())
    }

    /// Calls `read`, with which the line editor reads a line.
    pub(crate) fn edit<T>(read: impl FnOnce() -> T) -> T {
        begin();
        let line = read();
        IS_EDITING.store(false, Ordering::SeqCst);
        line
    }

    /// The main thread is about to change the mode.
    fn begin() {
        IS_EDITING.store(true, Ordering::SeqCst);
        while IS_ENDING.load(Ordering::SeqCst) {
            // Another thread ends the program.
            IS_EDITING.store(false, Ordering::SeqCst);
            thread::park();
        }
    }

    /// A mode of the terminal, for keys that are pressed while the program writes: keys arrive one by one and are not
    /// echoed. Output is as usual, and Ctrl-C is a signal. The drop restores the mode. For the main thread.
    #[must_use]
    #[derive(Debug)]
    pub struct Quiet {
        before: Termios,
    }

    impl Quiet {
        /// # Errors
        /// Fails if standard input is not a terminal, or if the system refuses the mode, or the signals or the thread
        /// with which it is restored.
        pub fn begin() -> io::Result<Self> {
            restore_on_signals()?;
            let before = tcgetattr(io::stdin())?;
            let mut quiet = before.clone();
            quiet.local_flags -= LocalFlags::ICANON | LocalFlags::ECHO;
            quiet.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
            quiet.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
            begin();
            match tcsetattr(io::stdin(), SetArg::TCSADRAIN, &quiet) {
                Ok(()) => Ok(Self { before }),
                Err(error) => {
                    IS_EDITING.store(false, Ordering::SeqCst);
                    Err(error.into())
                }
            }
        }
    }

    impl Drop for Quiet {
        fn drop(&mut self) {
            // If this fails, the terminal is closed.
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before);
            IS_EDITING.store(false, Ordering::SeqCst);
        }
    }

    pub(super) fn restore() {
        let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = &*before else { return };
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
