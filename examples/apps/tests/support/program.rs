//! A program of this package, run as a user would run it.
// Not every test that includes this file uses all of it.
#![allow(dead_code, clippy::disallowed_types)]

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any program takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// The command that runs the program of this name. Cargo builds every program of the package before a test of it runs.
pub(crate) fn command(name: &str) -> Command {
    Command::new(match name {
        "chat" => env!("CARGO_BIN_EXE_chat"),
        "dashboard" => env!("CARGO_BIN_EXE_dashboard"),
        "debate" => env!("CARGO_BIN_EXE_debate"),
        "game_loop" => env!("CARGO_BIN_EXE_game_loop"),
        "host_mode" => env!("CARGO_BIN_EXE_host_mode"),
        "keep" => env!("CARGO_BIN_EXE_keep"),
        "notebook" => env!("CARGO_BIN_EXE_notebook"),
        "plugin_host" => env!("CARGO_BIN_EXE_plugin_host"),
        other => panic!("there is no program '{other}'"),
    })
}

/// A running program, whose output a test can wait for.
pub(crate) struct Program {
    child: Child,
    input: Option<ChildStdin>,
    pub(crate) out: Output,
    pub(crate) err: Output,
}

/// The text of a program on standard output or standard error.
pub(crate) struct Output {
    pieces: Receiver<Vec<u8>>,
    /// The text that is printed and not yet expected.
    text: String,
    name: &'static str,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("the program starts");
        let out = Output::of(child.stdout.take().expect("a pipe"), "standard output");
        let err = Output::of(child.stderr.take().expect("a pipe"), "standard error");
        Self { input: child.stdin.take(), child, out, err }
    }

    /// Types a line.
    pub(crate) fn type_line(&mut self, line: &str) {
        self.type_text(&format!("{line}\n"));
    }

    pub(crate) fn type_text(&mut self, text: &str) {
        let input = self.input.as_mut().expect("still open");
        input.write_all(text.as_bytes()).and_then(|()| input.flush()).expect("the program reads");
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Presses Ctrl-C.
    pub(crate) fn interrupt(&self) {
        let killed = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(killed.expect("kill runs").success());
    }

    /// Ends the input, and waits for the end of the program. [`Output::rest`] then has the text that was not expected.
    pub(crate) fn end(&mut self) -> ExitStatus {
        drop(self.input.take());
        self.wait()
    }

    /// Kills the program with SIGKILL. Returns the text that was printed and not expected.
    pub(crate) fn kill(mut self) -> String {
        self.child.kill().expect("the program is killed");
        self.out.read_to_end();
        self.out.text.clone()
    }

    /// Waits for the program to end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.out.read_to_end();
        self.err.read_to_end();
        self.child.wait().expect("the program ends")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The program runs only if the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Output {
    fn of(mut pipe: impl Read + Send + 'static, name: &'static str) -> Self {
        let (read, pieces) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                if read.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { pieces, text: String::new(), name }
    }

    /// Waits until this text is printed. Returns the text before it, since the last expected one.
    #[track_caller]
    pub(crate) fn expect(&mut self, expected: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.text.find(expected) {
                let rest = self.text.split_off(found + expected.len());
                let mut before = std::mem::replace(&mut self.text, rest);
                before.truncate(found);
                return before;
            }
            if let Err(why) = self.read_on(deadline) {
                panic!("{expected:?} does not come on {}: {why}\n{}", self.name, self.text);
            }
        }
    }

    /// The text since the last expected one.
    pub(crate) fn rest(&self) -> &str {
        &self.text
    }

    #[track_caller]
    fn read_to_end(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while match self.read_on(deadline) {
            Ok(()) => true,
            Err(RecvTimeoutError::Disconnected) => false,
            Err(RecvTimeoutError::Timeout) => panic!("the program does not end\n{}", self.text),
        } {}
    }

    fn read_on(&mut self, deadline: Instant) -> Result<(), RecvTimeoutError> {
        let piece = self.pieces.recv_timeout(deadline.saturating_duration_since(Instant::now()))?;
        self.text.push_str(&String::from_utf8_lossy(&piece));
        Ok(())
    }
}
