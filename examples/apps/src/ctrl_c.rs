//! The effect of Ctrl-C while no turn runs that it could stop.

use std::io::{self, IsTerminal};

use crate::terminal;

/// The exit code of a program that SIGINT has ended, as shells report it.
pub const INTERRUPTED: u8 = 130;

/// The effect of a Ctrl-C while no turn runs that it could stop.
#[derive(Clone, Copy, Debug)]
pub enum AtRest {
    /// No effect. A line editor reads Ctrl-C as a key. So a signal was meant for a turn that has just ended, and an end
    /// of the program would lose its sessions.
    Stay,
    /// The program ends.
    End,
}

impl AtRest {
    /// The effect for a program that may have a prompt.
    pub fn of(has_prompt: bool) -> Self {
        if has_prompt && io::stdin().is_terminal() {
            Self::Stay
        } else {
            Self::End
        }
    }

    /// Carries the effect out. Does not return if the program ends.
    pub fn act(self) {
        match self {
            Self::Stay => {}
            Self::End => terminal::end(INTERRUPTED.into()),
        }
    }
}
