//! Polling before parking.
//!
//! To park and wake a thread costs far more than a short turn: some microseconds on a busy machine, and fifty where a
//! processor goes to sleep in between. So a thread whose message may be about to arrive polls for a while: a few times
//! in a tight loop, then yielding in between.
//!
//! # How long
//!
//! Both sides of a turn wait: the caller for its end, the session thread for the next one. Each side must poll for
//! longer than the other side's wake-up takes. Otherwise one late wake-up makes the other side park, which makes the
//! next wake-up late. That rhythm does not end by itself, and a turn takes thirty times as long.
//!
//! # How many
//!
//! A thread that yields costs only its slot among the runnable threads. Where thousands poll for work at a time, the
//! work waits behind all of them. So only a few session threads poll at a time; the others park at once.
//!
//! The figures below are the best compromise between round trips, 2 to 64 callers at a time, and one turn on each of
//! 10,000 sessions: see `benches/w01_round_trip.rs`, `w04_callers.rs`, `w09_one_turn_each.rs`.

use std::time::Duration;

use crate::sync::{process_wide, spin_loop, yield_now, AtomicUsize, Instant, Ordering, POLLS};

/// The polls in a tight loop: a fraction of a microsecond.
const SPINS: u32 = 20;
/// How long a caller polls for an answer.
pub(crate) const ANSWER_POLL: Duration = Duration::from_micros(50);
/// How long a session thread polls for work after a turn.
const WORK_POLL: Duration = Duration::from_micros(20);
/// The limit of session threads that poll at a time.
const MAX_POLLING: usize = 64;
/// The polls between two reads of the clock.
const YIELDS: u32 = 4;

process_wide! {
        /// The number of session threads that poll now.
    static POLLING: AtomicUsize = AtomicUsize::new(0);
}

/// Polls for an answer. Returns whether it has come; if not, the caller parks, and checks once more when it does.
pub(crate) fn poll_for_answer(is_ready: impl Fn() -> bool) -> bool {
    POLLS && poll(ANSWER_POLL, is_ready)
}

/// As [`poll_for_answer`], for a session thread that has just ended a turn and may be about to get the next.
pub(crate) fn poll_for_work(is_ready: impl Fn() -> bool) -> bool {
    POLLS && PollSlot::acquire().is_some_and(|_slot| poll(WORK_POLL, is_ready))
}

fn poll(limit: Duration, is_ready: impl Fn() -> bool) -> bool {
    for _ in 0..SPINS {
        if is_ready() {
            return true;
        }
        spin_loop();
    }
    let started = Instant::now();
    loop {
        for _ in 0..YIELDS {
            if is_ready() {
                return true;
            }
            yield_now();
        }
        if Instant::now().saturating_duration_since(started) > limit {
            return false;
        }
    }
}

/// One of the [`MAX_POLLING`] slots of polling session threads.
struct PollSlot;

impl PollSlot {
    fn acquire() -> Option<Self> {
        // ORDERING: Relaxed, here and in `drop`: the count only limits work, and publishes nothing.
        let slot = Self;
        // Counted even beyond the limit: the drop of `slot` subtracts it again.
        (POLLING.fetch_add(1, Ordering::Relaxed) < MAX_POLLING).then_some(slot)
    }
}

impl Drop for PollSlot {
    fn drop(&mut self) {
        POLLING.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polling_sees_what_is_ready_and_ends() {
        assert_eq!(poll_for_answer(|| true), POLLS);
        assert!(!poll_for_answer(|| false));
        assert!(!poll_for_work(|| false));
    }

    #[test]
    fn poll_slots_are_given_back_also_beyond_the_limit() {
        // Other tests of this process poll too, so the count may start above zero. All slots come back in the end.
        for _ in 0..10 * MAX_POLLING {
            let slots: Vec<_> = (0..2 * MAX_POLLING).map(|_| PollSlot::acquire()).collect();
            assert!(slots.iter().flatten().count() <= MAX_POLLING);
        }
        assert!(POLLING.load(Ordering::Relaxed) < 10 * MAX_POLLING);
    }
}
