//! The chat example, used as a person would, against a real server on the loopback device that answers well and badly.
#![cfg(unix)]
#![allow(clippy::disallowed_types)] // The library's rule about channels is the library's.

mod bare;
mod calls;
mod conversations;
mod ends;
// Parts of the example of which not all is used here.
#[allow(dead_code)]
#[path = "../../src/bin/chat/events.rs"]
mod events;
#[path = "../support/folder.rs"]
mod folder;
mod interrupts;
#[allow(dead_code)]
#[path = "../../src/bin/chat/json.rs"]
mod json;
mod options;
#[path = "../support/program.rs"]
mod program;
mod reads;
mod refusals;
mod replies;
mod retries;
mod server;
mod streams;
mod support;
#[path = "../support/terminal.rs"]
mod terminal;
mod terminals;
