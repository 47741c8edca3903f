//! What Ctrl-C does where nothing runs that it could stop.

use std::io::{self, IsTerminal};
use std::process;

/// The exit code of a program that SIGINT ended, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// What a program does on a Ctrl-C while nothing runs that Ctrl-C could stop.
#[derive(Clone, Copy, Debug)]
pub enum AtRest {
    /// Nothing: a line editor takes Ctrl-C for a key, and what comes as a signal all the same was meant for something that has
    /// just ended. The sessions would be lost.
    Stay,
    /// The program ends.
    End,
}

impl AtRest {
    /// For a program that may have a prompt.
    pub fn of(has_prompt: bool) -> Self {
        if has_prompt && io::stdin().is_terminal() {
            Self::Stay
        } else {
            Self::End
        }
    }

    /// Does it. Does not return where the program is to end.
    pub fn act(self) {
        match self {
            Self::Stay => {}
            Self::End => process::exit(INTERRUPTED.into()),
        }
    }
}
