//! Histories: many real threads make random calls of one service, and the contract has to explain their answers.
//!
//! 1. A *plan* lists the steps of each thread ([`plan`]): create, open, begin, queue, supersede, withdraw, wait,
//!    interrupt, read, list, export, take, archive, inject, subscribe, read the history and follow the events after it,
//!    wait for an idle session, shut down. Its agents answer, fail, panic, wait for a cancel, or ignore it. Queues have
//!    room for 0, 1 or 2 turns.
//! 2. The plan runs on real threads ([`run`], [`player`]). Every call is recorded with a stamp before it and a stamp
//!    after it, from one clock for the whole run. Agents record what happens to them ([`agent`]).
//! 3. The *history* is checked ([`check`]):
//!    - Each session by itself, against a sequential model ([`model`]). The search looks for an order of single steps,
//!      each within its call, that gives exactly the recorded answers ([`search`]).
//!    - The rules about several sessions, by intervals: capacity, counts, the order of lists ([`global`]).
//!    - The events that subscribers and receivers got, and what a client has shown that follows from the boundary of a
//!      history ([`heard`]).
//!
//! A watchdog ends a run that hangs. Its report names the step of each thread, and whether that step may wait
//! ([`run`]). When all threads wait, the run cancels the turns that wait for a cancel. It cancels nothing that has to
//! end by itself, such as host mode in a draining session. If such a turn does not end, the run hangs and fails.
//!
//! Sub-agents, timeouts of turns, comms and full event channels are not in the plans. The contract's own tests cover
//! them.
//!
//! The runs of the default length have to cover every kind of answer about queues and waits for idleness, and every kind
//! of client that follows a session ([`coverage`]).
//!
//! The checker has tests of its own ([`tests`]): histories that it must refuse, and histories that it must accept.
//!
//! # Length and replay
//!
//! | Variable | Meaning |
//! |---|---|
//! | `TURNWISE_HISTORY_CASES` | the number of plans of a run; their seeds are the same in every run |
//! | `TURNWISE_HISTORY_SOAK` | runs plans for that many seconds, with fresh seeds |
//! | `TURNWISE_HISTORY_SEED` | runs the plan of this seed `TURNWISE_HISTORY_CASES` times |
//!
//! A seed repeats the plan, not the schedule, which the operating system decides. A plan that has failed once may pass
//! a thousand times, so a replay can only repeat it. For the same reason a smaller plan has to pass several times
//! before it counts as one that passes, and the smallest plan found may not be the smallest that can fail. The history
//! in the report is what happened in the failed run.
//!
//! Some failures need a thread that is preempted between two certain instructions. The longer the run, the more often
//! the system preempts a thread there. More threads than processors make it more likely, and so does a single
//! processor.

// The library's rule about locks does not apply to its tests.
#![allow(clippy::disallowed_types)]

mod agent;
mod answers;
mod assemble;
mod check;
mod coverage;
mod explore;
mod generate;
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
