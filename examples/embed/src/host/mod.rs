//! A service as hosts in other languages use it: the C interface and the Python package share it. Only `signals` and
//! `fork` have `unsafe` code.
//!
//! It adds three things to a service of the library: a close that wakes every waiting thread, one descriptor that shows
//! whether there is something to read, and requests in JSON.

pub mod callback;
pub mod closed;
pub mod events;
pub mod fork;
pub mod notifier;
pub mod requests;
pub mod service;
pub mod signals;
pub mod subscription;
pub mod turn;
pub mod wait;
mod watcher;
