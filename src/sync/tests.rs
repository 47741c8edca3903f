//! The channels that stand in for crossbeam's, held to the same tests as those.

// The same tests on both: that is the point.
#![allow(clippy::duplicate_mod)]

#[cfg(not(turnwise_loom))]
mod in_use;
#[cfg(not(any(turnwise_loom, turnwise_shuttle)))]
mod stand_ins;
