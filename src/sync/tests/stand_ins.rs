//! The stand-ins, on real threads.

#[path = "../arms.rs"]
mod arms;
#[path = "../channel.rs"]
mod channel;
#[path = "channels.rs"]
mod channels;

use std::time::{Duration, Instant};

use parking_lot::Mutex;

mod support {
    pub(super) use super::arms::select;
    pub(super) use super::channel::{at, bounded, never, unbounded, Receiver, Sender};
    pub(super) use std::time::Instant;
}

mod raw {
    pub(super) use std::thread::{current, park, Thread};

    /// Any number below `count`.
    pub(super) fn choose(count: usize) -> usize {
        use std::hash::{BuildHasher, Hasher};
        std::collections::hash_map::RandomState::new().build_hasher().finish() as usize % count
    }
}

/// Deadlines come when they come.
struct Patience;

impl Patience {
    fn new() -> Self {
        Self
    }

    fn is_worth_waiting_for(_due: Instant) -> bool {
        true
    }

    fn wait_for(&mut self, due: Instant) {
        let left = due.saturating_duration_since(Instant::now());
        std::thread::park_timeout(left.min(Duration::from_micros(50)));
    }
}
