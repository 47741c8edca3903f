//! The replacement channels and crossbeam's, held to the same tests.

// The same tests are compiled for both, on purpose.
#![allow(clippy::duplicate_mod)]

#[cfg(not(turnwise_loom))]
mod in_use;
#[cfg(not(any(turnwise_loom, turnwise_shuttle)))]
mod stand_ins;
