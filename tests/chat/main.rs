//! The chat example, used as a person would, against a real server on the loopback device that answers well and badly.
#![cfg(all(feature = "serde", unix))]
#![allow(clippy::disallowed_types)] // The library's rule about channels is the library's.

mod bare;
mod calls;
mod conversations;
mod ends;
mod interrupts;
mod options;
#[path = "../examples/program.rs"]
mod program;
mod refusals;
mod replies;
mod retries;
mod server;
mod support;
