//! The keyboard while an answer is written: a thread that reads the keys.

#[cfg(unix)]
pub(crate) use on_unix::Keyboard;

#[cfg(unix)]
mod on_unix {
    use std::fs::File;
    use std::io::{self, pipe, stdin, PipeReader, PipeWriter, Read};
    use std::os::fd::AsFd;
    use std::thread::{self, JoinHandle};

    use nix::errno::Errno;
    use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
    use turnwise::crossbeam_channel::{unbounded, Receiver, Sender};
    use turnwise_apps::terminal::Quiet;

    use crate::keys::{Decoder, Key};

    /// The keyboard. While it is open, keys are not echoed, and Ctrl-C is a signal.
    pub(crate) struct Keyboard {
        /// Disconnected when the terminal is closed.
        pub(crate) pressed: Receiver<Key>,
        /// The end of this pipe tells the thread to stop.
        stop: PipeWriter,
        reader: JoinHandle<()>,
        _mode: Quiet,
    }

    impl Keyboard {
        /// # Errors
        /// Fails if standard input is not a terminal, or if the system refuses the mode of the terminal or the thread.
        pub(crate) fn open() -> io::Result<Self> {
            let terminal = File::from(stdin().as_fd().try_clone_to_owned()?);
            let ((stopped, stop), (key, pressed)) = (pipe()?, unbounded());
            let mode = Quiet::begin()?;
            let reader =
                thread::Builder::new().name("keyboard".into()).spawn(move || read(terminal, &stopped, &key))?;
            Ok(Self { pressed, stop, reader, _mode: mode })
        }

        /// Restores the terminal. Returns the keys that were read and not received.
        pub(crate) fn close(self) -> Vec<Key> {
            drop(self.stop);
            // The thread does not panic.
            let _ = self.reader.join();
            self.pressed.try_iter().collect()
        }
    }

    /// Reads keys until the terminal is closed or the program closes the keyboard. Keys that are pressed later stay in
    /// the terminal, for the line editor.
    fn read(mut terminal: File, stopped: &PipeReader, key: &Sender<Key>) {
        let (mut decoder, mut bytes) = (Decoder::default(), [0; 1024]);
        while is_ready(&terminal, stopped) {
            let Ok(length @ 1..) = terminal.read(&mut bytes) else { return };
            if decoder.keys(&bytes[..length]).into_iter().any(|pressed| key.send(pressed).is_err()) {
                return;
            }
        }
    }

    /// Waits for input (true), or for the end (false).
    fn is_ready(terminal: &File, stopped: &PipeReader) -> bool {
        loop {
            let wait = |source| PollFd::new(source, PollFlags::POLLIN);
            let mut sources = [wait(stopped.as_fd()), wait(terminal.as_fd())];
            match poll(&mut sources, PollTimeout::NONE) {
                Ok(_) => return !sources[0].any().unwrap_or(true),
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }
}

/// On other systems no keyboard opens: lines are read between the answers.
#[cfg(not(unix))]
pub(crate) struct Keyboard {
    pub(crate) pressed: turnwise::crossbeam_channel::Receiver<crate::keys::Key>,
}

#[cfg(not(unix))]
impl Keyboard {
    pub(crate) fn open() -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn close(self) -> Vec<crate::keys::Key> {
        Vec::new()
    }
}
