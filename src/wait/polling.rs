//! Looking again before parking.
//!
//! To park a thread and to wake it costs far more than a short turn does: some microseconds on a busy machine, and fifty where a
//! processor goes to sleep meanwhile. So whoever waits for something that may be about to come looks again for a while: a few
//! times at once, then giving way to others in between.
//!
//! # How long
//!
//! Both sides of a turn wait, the caller for its end and the session's thread for the next one, and the patience of one has to
//! outlast the wake-up of the other. With less than that, one late wake-up has the other side park, which makes the next one
//! late: a rhythm that does not end by itself, and takes thirty times as long.
//!
//! # How many
//!
//! A thread that gives way costs nothing but its turn among those that can run. Where thousands wait for work at a time, that
//! is what the work has to wait for. So no more than a few session threads poll at a time; the others park at once.
//!
//! The figures below are those that served round trips, 2 to 64 callers at a time and one turn on each of 10,000 sessions best,
//! together: see `benches/w01_round_trip.rs`, `w04_callers.rs`, `w09_one_turn_each.rs`.

use std::time::Duration;

use crate::sync::{process_wide, spin_loop, yield_now, AtomicUsize, Instant, Ordering, POLLS};

/// How often in a tight loop: a fraction of a microsecond.
const SPINS: u32 = 20;
/// How long a caller gives way for.
pub(crate) const FOR_AN_ANSWER: Duration = Duration::from_micros(50);
/// How long a session's thread does, after a turn.
const FOR_WORK: Duration = Duration::from_micros(20);
/// How many session threads poll at a time.
const MOST: usize = 64;
/// How often between two looks at the clock.
const YIELDS: u32 = 4;

process_wide! {
    /// How many session threads poll now.
    static POLLING: AtomicUsize = AtomicUsize::new(0);
}

/// Whether the answer comes soon. Where it does not, whoever waits parks, and looks once more when it does.
pub(crate) fn answer_comes_soon(has_come: impl Fn() -> bool) -> bool {
    POLLS && comes_within(FOR_AN_ANSWER, has_come)
}

/// As [`answer_comes_soon`], for a session's thread that has just ended a turn and may be about to get the next.
pub(crate) fn work_comes_soon(has_come: impl Fn() -> bool) -> bool {
    POLLS && Place::take().is_some_and(|_place| comes_within(FOR_WORK, has_come))
}

fn comes_within(patience: Duration, has_come: impl Fn() -> bool) -> bool {
    for _ in 0..SPINS {
        if has_come() {
            return true;
        }
        spin_loop();
    }
    let started = Instant::now();
    loop {
        for _ in 0..YIELDS {
            if has_come() {
                return true;
            }
            yield_now();
        }
        if Instant::now().saturating_duration_since(started) > patience {
            return false;
        }
    }
}

/// The place of one of those that poll for work.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        // ORDERING: Relaxed, here and in `drop`; a limit on work, nothing is concluded from it.
        let place = Self;
        // Counted even where there is none left: the drop of the place takes it back.
        (POLLING.fetch_add(1, Ordering::Relaxed) < MOST).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        POLLING.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_seen_and_nobody_polls_for_ever() {
        assert_eq!(answer_comes_soon(|| true), POLLS);
        assert!(!answer_comes_soon(|| false));
        assert!(!work_comes_soon(|| false));
    }

    #[test]
    fn places_are_given_back_whether_there_was_one_or_not() {
        // Other tests of this process poll too: more than there are at first, and all of them are back in the end.
        for _ in 0..10 * MOST {
            let places: Vec<_> = (0..2 * MOST).map(|_| Place::take()).collect();
            assert!(places.iter().flatten().count() <= MOST);
        }
        assert!(POLLING.load(Ordering::Relaxed) < 10 * MOST);
    }
}
