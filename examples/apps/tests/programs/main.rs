//! The common behaviour of all programs: arguments that are not UTF-8, output that is closed or full, files that are
//! replaced as a whole, terminals that are restored. The tests of the chat have the cases that need a server.
#![cfg(unix)]
#![allow(clippy::disallowed_types)] // The library's rule about channels does not apply here.

mod files;
#[path = "../support/folder.rs"]
mod folder;
#[path = "../support/program.rs"]
mod program;
mod streams;
#[path = "../support/terminal.rs"]
mod terminal;
mod terminals;
