//! What goes wrong outside of the library: the system refuses threads, stacks are tiny, thousands of agents panic at once,
//! receivers vanish, hooks panic, clocks jump. Nothing hangs, and nothing leaks.
//!
//! What is counted for the whole process (threads, memory, files) is counted in a process of its own: see `apart`.

// The library's rule about locks is the library's.
#![allow(clippy::disallowed_types)]

mod apart;
mod clocks;
mod hooks;
mod leaks;
mod panics;
mod receivers;
mod stacks;
mod threads;

use std::time::Duration;

use turnwise::{CreateSessionRequest, StartTurnRequest};

/// Longer than anything here takes on a loaded machine.
const LONG: Duration = Duration::from_secs(120);

fn create(prompt: &str) -> CreateSessionRequest {
    CreateSessionRequest::new(prompt)
}

fn turn(prompt: &str) -> StartTurnRequest {
    StartTurnRequest::new(prompt)
}
