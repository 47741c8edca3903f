//! Threads, atomics, locks, channels and the clock: the one place that names where they come from.
//!
//! Everything else in the crate imports its primitives from here, so that the same code runs on three sets of them:
//!
//! | Compiled with | Primitives | What for |
//! |---|---|---|
//! | nothing said | `real`: std, parking_lot, crossbeam | use |
//! | `--cfg turnwise_shuttle` | `shuttle`: threads that take turns as a scheduler says | whole services, thousands of schedules |
//! | `--cfg turnwise_loom` | `loom`: every schedule and every outcome that the memory orderings allow | the gate, the semaphore, the cancel token |
//!
//! The two model checkers have no crossbeam channels; `channel` stands in for them, and is held to crossbeam's behaviour by
//! the same tests on both. All of it is compiled for tests only. `tests/layers.rs` keeps everybody else from naming a
//! primitive.

#[cfg(turnwise_loom)]
#[path = "sync/loom.rs"]
mod primitives;
#[cfg(not(any(turnwise_loom, turnwise_shuttle)))]
#[path = "sync/real.rs"]
mod primitives;
#[cfg(turnwise_shuttle)]
#[path = "sync/shuttle.rs"]
mod primitives;

#[cfg(test)]
mod tests;

pub(crate) use primitives::*;

/// A number that no other call in this process returns.
pub(crate) fn unique_number() -> u64 {
    // Not one of the primitives: nobody ever waits for it, and a model checker has nothing to look for here.
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    // ORDERING: Relaxed; only the uniqueness of the number matters, nothing is published with it.
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// A channel that becomes ready at `deadline`, or never.
pub(crate) fn at_or_never(deadline: Option<Instant>) -> Receiver<Instant> {
    deadline.map_or_else(never, at)
}
