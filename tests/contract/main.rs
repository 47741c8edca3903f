//! The contract, row by row: every test's name begins with the number of the row that it holds the library to.
//!
//! Nothing sleeps to let something happen. Agents stop at gates that the test opens, and every test runs under a watchdog
//! (see `support::run`), so that a call that waits for what it must not wait for fails the test instead of hanging it.

// The library's rule about locks is the library's.
#![allow(clippy::disallowed_types)]

mod archive;
mod clock;
mod comms;
mod errors;
mod events;
mod faults;
mod host_ends;
mod hosting;
mod inbox;
mod input;
mod interrupt;
mod keeping;
mod kit;
mod permits;
mod reading;
mod registry;
mod sub_agents;
mod sub_sessions;
mod subscriptions;
mod support;
mod threads;
mod turns;
mod waits;
