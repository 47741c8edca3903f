//! The terminal of a program with a prompt, restored when a signal ends the program.
//!
//! A line editor has the terminal in raw mode while it waits for keys. A program that a signal ends there would leave it so:
//! the shell afterwards would show nothing of what is typed.

/// From the first call on, SIGHUP, SIGQUIT and SIGTERM restore the terminal to what it is now, and end the program with 128 and
/// the signal's number. Does nothing where standard input is no terminal.
///
/// # Errors
/// What the system says against it.
#[cfg(unix)]
pub(crate) fn restore_on_signals() -> std::io::Result<()> {
    use std::io::{self, IsTerminal};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use signal_hook::consts::{SIGHUP, SIGQUIT, SIGTERM};
    use signal_hook::iterator::Signals;

    static IS_INSTALLED: AtomicBool = AtomicBool::new(false);
    if !io::stdin().is_terminal() || IS_INSTALLED.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    let before = nix::sys::termios::tcgetattr(io::stdin())?;
    let mut signals = Signals::new([SIGHUP, SIGQUIT, SIGTERM])?;
    let end = move || {
        if let Some(signal) = signals.forever().next() {
            restore(&before);
            std::process::exit(128 + signal);
        }
    };
    thread::Builder::new().name("signals".into()).spawn(end)?;
    Ok(())
}

#[cfg(unix)]
fn restore(before: &nix::sys::termios::Termios) {
    use std::io::{self, Write};

    use nix::sys::termios::{tcgetattr, tcsetattr, SetArg};

    let is_changed = tcgetattr(io::stdin()).is_ok_and(|now| now != *before);
    if is_changed {
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
