//! The tests of the contract. The name of a test begins with the number of its row in `docs/CONTRACT.md`.
//!
//! No test sleeps to let something happen. Agents wait at gates that the test opens. Every test runs under a watchdog
//! (see `support::run`): a call that waits for ever fails the test with a message instead of hanging it.

// The rule of `clippy.toml` about primitives is for the library, not for its tests.
#![allow(clippy::disallowed_types)]

mod archive;
mod asking;
mod clock;
mod comms;
mod errors;
mod events;
mod faults;
mod history;
mod host_ends;
mod hosting;
mod inbox;
mod input;
mod interrupt;
mod keeping;
mod kit;
mod permits;
mod queue;
mod reading;
mod registry;
mod reservations;
mod restarts;
mod steering;
mod sub_agents;
mod sub_sessions;
mod subscriptions;
mod support;
mod threads;
mod timings;
mod turns;
mod waits;
