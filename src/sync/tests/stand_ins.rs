//! The replacement channels, on real threads.

#[path = "../arms.rs"]
mod arms;
#[path = "../channel.rs"]
mod channel;
#[path = "channels.rs"]
mod channels;

use std::time::{Duration, Instant};

use parking_lot::Mutex;

mod support {
    pub(super) use super::arms::{select, Select};
    pub(super) use super::channel::{at, bounded, never, unbounded, Receiver, Sender};
    pub(super) use std::time::Instant;
}

mod raw {
    pub(super) use std::thread::{current, park, Thread};

    /// A random number below `count`.
    pub(super) fn choose(count: usize) -> usize {
        use std::hash::{BuildHasher, Hasher};
        std::collections::hash_map::RandomState::new().build_hasher().finish() as usize % count
    }
}

/// Deadlines come in real time.
struct TimedWait;

impl TimedWait {
    fn new() -> Self {
        Self
    }

    fn can_poll_until(_due: Instant) -> bool {
        true
    }

    fn wait_for(&mut self, due: Instant) {
        let left = due.saturating_duration_since(Instant::now());
        std::thread::park_timeout(left.min(Duration::from_micros(50)));
    }
}
