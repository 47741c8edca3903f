//! A program in a terminal of its own.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::program::Program;

pub(crate) struct Terminal {
    pub(crate) program: Program,
    /// The process id of the program, not of the tool that makes the terminal.
    id: String,
}

impl Terminal {
    /// Runs a program with its arguments, in its working directory. `None` if the tool that makes terminals is missing, or another tool has its
    /// name.
    pub(crate) fn start(command: &Command) -> Option<Self> {
        Self::start_in("sh -c 'echo id=$$; exec \"$0\" \"$@\"' PROGRAM; echo code=$?; stty -a", command)
    }

    /// Runs this shell line, in which `PROGRAM` stands for the program with its arguments. The line has to print `id=`
    /// and the program's process id first.
    pub(crate) fn start_in(line: &str, command: &Command) -> Option<Self> {
        let script = |line: &str| {
            let mut script = Command::new("script");
            script.args(["-qec", line, "/dev/null"]).env("SHELL", "/bin/sh").env("TERM", "xterm");
            script
        };
        let probe = script("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !probe.is_ok_and(|status| status.success()) {
            eprintln!("skipped: there is no `script` that runs a command in a terminal");
            return None;
        }
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().expect("plain text"))).collect();
        let mut script = script(&line.replace("PROGRAM", &words.join(" ")));
        script.current_dir(command.get_current_dir().unwrap_or(Path::new(".")));
        let mut program = Program::start(&mut script);
        program.out.expect("id=");
        let id = program.out.expect("\r\n");
        Some(Self { program, id })
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.id]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for the end with this exit code, and checks the modes of the terminal.
    pub(crate) fn expect_restored(mut self, code: i32) {
        self.program.out.expect(&format!("code={code}\r\n"));
        self.program.wait();
        let modes: Vec<&str> = self.program.out.rest().split([' ', ';', '\r', '\n']).collect();
        for mode in ["icanon", "echo", "isig", "icrnl", "opost"] {
            assert!(modes.contains(&mode), "{mode}: {modes:?}");
        }
    }
}
