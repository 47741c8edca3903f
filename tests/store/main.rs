//! Sessions that outlive the process: what is kept and when, what becomes of it after a crash, and of damaged records.

// The library's rule about locks is the library's.
#![allow(clippy::disallowed_types)]

#[cfg(unix)]
mod asking;
mod created;
mod files;
mod hostile;
mod killed;
mod lives;
mod queue;
mod races;
mod requests;
mod saving;
mod sessions;
mod support;
