//! Threads, atomics, locks, channels and the clock: the only module that names where they come from.
//!
//! The rest of the crate imports its primitives from here, so the same code runs on three sets of them:
//!
//! | Compiled with | Primitives | Use |
//! |---|---|---|
//! | no `--cfg` | `real`: std, parking_lot, crossbeam | programs |
//! | `--cfg turnwise_shuttle` | `shuttle`: a scheduler chooses which thread runs next | whole services, thousands of schedules |
//! | `--cfg turnwise_loom` | `loom`: every schedule and every outcome that the memory orderings allow; two scenarios limit the preemptions | single protocols, such as the gate, the semaphore and the cancel token |
//!
//! The two model checkers have no crossbeam channels. `channel` replaces them, and the same tests hold both to the same
//! behaviour. The replacements are compiled for tests only: of this crate, and under shuttle also of its hosts, through
//! `testkit::explore`. `tests/layers.rs` checks that no other module names a
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

// `testkit::sync` hands some of them on. Without that feature, or under loom, none is public.
#[allow(unreachable_pub, unused_imports)]
pub use primitives::*;

/// A number that no other call in this process returns.
pub(crate) fn unique_number() -> u64 {
    // Not one of the primitives: no thread waits for it, so a model checker has nothing to explore.
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    // ORDERING: Relaxed; only the uniqueness of the number matters, and nothing is published with it.
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// A channel that becomes ready at `deadline`, or never.
pub(crate) fn at_or_never(deadline: Option<Instant>) -> Receiver<Instant> {
    deadline.map_or_else(never, at)
}
