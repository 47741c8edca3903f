//! Histories: many real threads call one service at random, and what they were answered has to be explained by the contract.
//!
//! A *plan* says what each thread does: create, open, begin, wait, interrupt, read, list, export, take, archive, inject,
//! subscribe, shut down, with agents that answer, fail, panic, wait to be cancelled, or do not listen ([`plan`]). It is run on
//! real threads ([`run`], [`player`]); every call is recorded with a stamp before it and one after it, of one clock for the
//! whole run, and agents record what happens to them ([`agent`]). Then the *history* is checked ([`check`]):
//!
//! - each session by itself, against a sequential machine ([`model`]): is there an order of single steps, each within its
//!   call, that leads to just these answers ([`search`])?
//! - what is about several, by intervals: capacity, counts, the order of lists ([`global`]);
//! - what subscribers and event receivers have heard ([`heard`]).
//!
//! A run that hangs is ended by a watchdog, which says where each thread is, and whether it may wait there at all ([`run`]).
//! Turns that wait to be cancelled are cancelled once every thread waits; what has to end by itself, such as host mode in a
//! session that is drained, is left to itself, so that it hangs where it does not.
//!
//! Not in here, but in the contract's own tests: sub-agents, timeouts, comms, full event channels.
//!
//! The checker is tested too: [`tests`] has histories that it must refuse, and what it must let pass.
//!
//! # How far, and again
//!
//! | Variable | |
//! |---|---|
//! | `TURNWISE_HISTORY_CASES` | how many plans a run goes through; their seeds are the same every time |
//! | `TURNWISE_HISTORY_SOAK` | for so many seconds, with seeds of its own |
//! | `TURNWISE_HISTORY_SEED` | the plan of this seed, as often as `TURNWISE_HISTORY_CASES` says |
//!
//! A seed gives the same plan every time, not the same schedule: that is up to the system. So a plan that has failed once may
//! go well a thousand times; to run it again and again is all that a replay can do. It is also why smaller plans are tried
//! several times before they are said to go well, and why the smallest that failed is not always the smallest that can. The
//! history in the report is what has happened, whether it happens again or not.
//!
//! What goes wrong only where a thread is stopped between two certain instructions is seen when the system happens to stop it
//! there: rarely in ten seconds, more often the longer it runs. More threads than processors help, and so does one processor.

// The library's rule about locks is the library's.
#![allow(clippy::disallowed_types)]

mod agent;
mod assemble;
mod check;
mod explore;
mod global;
mod heard;
mod history;
mod model;
mod plan;
mod player;
mod run;
mod search;
mod task;
mod tests;
mod told;

#[test]
fn histories_are_explained_by_the_contract() {
    explore::explore();
}
