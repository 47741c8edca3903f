//! The chat, used as a user would, with a real server on the loopback device that answers well and badly.
#![cfg(unix)]
#![allow(clippy::disallowed_types)] // The library's rule about channels does not apply here.

// The tests use only parts of these modules of the program.
#[allow(dead_code)]
#[path = "../../src/bin/chat/asking.rs"]
mod asking;
mod bare;
mod calls;
#[path = "../../src/bin/chat/columns.rs"]
mod columns;
mod conversations;
#[allow(dead_code)]
#[path = "../../src/bin/chat/draft.rs"]
mod draft;
mod ends;
#[allow(dead_code)]
#[path = "../../src/bin/chat/events.rs"]
mod events;
#[path = "../support/folder.rs"]
mod folder;
mod interrupts;
#[allow(dead_code)]
#[path = "../../src/bin/chat/json.rs"]
mod json;
#[path = "../../src/bin/chat/keys.rs"]
mod keys;
mod options;
#[path = "../../src/bin/chat/places.rs"]
mod places;
#[path = "../support/program.rs"]
mod program;
mod questions;
mod queue;
mod reads;
mod refusals;
mod replies;
mod retries;
mod server;
mod steering;
mod streams;
mod support;
#[path = "../support/terminal.rs"]
mod terminal;
mod terminals;
mod typing;
mod writes;
