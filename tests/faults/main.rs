//! Failures outside of the library: the system refuses threads, stacks are tiny, thousands of agents panic at once,
//! receivers are dropped, hooks panic, clocks jump. Nothing hangs, and nothing leaks.
//!
//! Some tests count the threads, the memory or the files of their process. They run in a process of their own: see
//! `apart`.

// The rule of `clippy.toml` about primitives is for the library, not for its tests.
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

/// The limit of waits that have to succeed: longer than any of them takes on a loaded machine.
const LONG: Duration = Duration::from_secs(120);

fn create(prompt: &str) -> CreateSessionRequest {
    CreateSessionRequest::new(prompt)
}

fn turn(prompt: &str) -> StartTurnRequest {
    StartTurnRequest::new(prompt)
}
