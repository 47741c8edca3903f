//! Kept sessions: what the store saves and when, what a killed process loses, and what a damaged record does.

// The library's rule about locks does not apply to its tests.
#![allow(clippy::disallowed_types)]

#[cfg(unix)]
mod asking;
mod created;
mod files;
mod history;
mod hostile;
mod killed;
mod lives;
mod making_room;
mod queue;
mod races;
mod requests;
mod reservations;
mod restarts;
mod revisions;
mod saving;
mod sessions;
mod support;
mod unloading;
