//! What all examples owe their users, whatever each is for: arguments that are no text, output that is closed or full, files
//! that are replaced whole, terminals that are restored. What takes a server to
//! test is in the tests of the chat.
#![cfg(unix)]
#![allow(clippy::disallowed_types)] // The library's rule about channels is the library's.

mod files;
#[path = "../support/folder.rs"]
mod folder;
#[path = "../support/program.rs"]
mod program;
mod streams;
#[path = "../support/terminal.rs"]
mod terminal;
mod terminals;
