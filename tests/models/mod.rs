//! Scenarios: small programs in which a protocol of the library could go wrong, and what must hold in every schedule of them.
//!
//! They are part of the library's unit tests, so that they reach `crate::sync`, and each of them is one body that runs in two
//! ways:
//!
//! - `cargo test`: on real threads, a few hundred times over.
//! - `RUSTFLAGS="--cfg turnwise_shuttle" cargo test --lib models`: under shuttle, in thousands of schedules, half of them
//!   uniformly random, half by priorities that change at a few points (PCT). Waits that nobody would ever end are deadlocks
//!   and fail; so do runs that never come to an end. What a failing run prints replays it:
//!   `TURNWISE_REPLAY=<schedule>` with the test's name.
//!
//! A bug that was found this way leaves the seed behind that found it ([`explore_from`]): as long as the code before the place
//! where it showed stays the same, that is the very same schedule; after that it is one like any other.
//!
//! `TURNWISE_SCHEDULES` says how many schedules of each kind; `TURNWISE_SEED` where they begin: a number, or `fresh`. Without
//! it they are the same every time, so that a green build stays green; the nightly runs take fresh ones.
//!
//! `orderings` is the third way, for what sequentially consistent schedules cannot show: single protocols under loom, with
//! `--cfg turnwise_loom`.

use std::any::Any;
use std::panic;

use crate::sync::{Builder, JoinHandle};

#[cfg(not(turnwise_loom))]
mod admission;
#[cfg(not(turnwise_loom))]
mod asking;
#[cfg(not(turnwise_loom))]
mod comms;
#[cfg(not(turnwise_loom))]
mod ends;
#[cfg(not(turnwise_loom))]
mod events;
#[cfg(not(turnwise_loom))]
mod faults;
#[cfg(not(turnwise_loom))]
mod hosting;
#[cfg(not(turnwise_loom))]
mod interrupts;
#[cfg(all(feature = "store", not(turnwise_loom)))]
mod keeping;
#[cfg(turnwise_loom)]
mod orderings;
#[cfg(not(turnwise_loom))]
mod permits;
#[cfg(not(turnwise_loom))]
mod queue;
#[cfg(not(turnwise_loom))]
mod support;
#[cfg(not(turnwise_loom))]
mod wakeups;

/// Runs `body` in many schedules.
#[cfg(not(turnwise_loom))]
pub(crate) fn explore(body: impl Fn() + Send + Sync + 'static) {
    explore_from(&[], body);
}

/// Runs `body` in many schedules, beginning with those of these seeds, each of which has found a bug once.
#[cfg(not(any(turnwise_loom, turnwise_shuttle)))]
pub(crate) fn explore_from(_seeds: &[u64], body: impl Fn() + Send + Sync + 'static) {
    for _ in 0..200 {
        body();
    }
}

/// Runs `body` in many schedules, beginning with those of these seeds, each of which has found a bug once.
#[cfg(turnwise_shuttle)]
pub(crate) fn explore_from(seeds: &[u64], body: impl Fn() + Send + Sync + 'static) {
    use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler};
    use std::sync::Arc;

    let body = Arc::new(body);
    let again = || {
        let body = Arc::clone(&body);
        // PCT insists on a second thread, even where the scenario has none.
        move || {
            let second = spawn(|| {});
            body();
            join(second);
        }
    };
    if let Ok(schedule) = std::env::var("TURNWISE_REPLAY") {
        shuttle::Runner::new(ReplayScheduler::new_from_encoded(&schedule), config()).run(again());
        return;
    }
    for seed in seeds {
        shuttle::Runner::new(RandomScheduler::new_from_seed(*seed, 1), config()).run(again());
    }
    let schedules = std::env::var("TURNWISE_SCHEDULES").map_or(1_000, |text| text.parse().expect("a number"));
    let seed = seed();
    shuttle::Runner::new(RandomScheduler::new_from_seed(seed, schedules), config()).run(again());
    for depth in [2, 5] {
        shuttle::Runner::new(PctScheduler::new_from_seed(seed, depth, schedules / 2), config()).run(again());
    }
}

#[cfg(turnwise_shuttle)]
fn config() -> shuttle::Config {
    let mut config = shuttle::Config::new();
    // The orderings are loom's business.
    config.silence_warnings = true;
    // Unoptimized frames are large.
    config.stack_size = 256 << 10;
    config.max_steps = shuttle::MaxSteps::FailAfter(200_000);
    config
}

#[cfg(turnwise_shuttle)]
fn seed() -> u64 {
    match std::env::var("TURNWISE_SEED") {
        Err(_) => 0x7475_726e_7769_7365,
        Ok(text) if text == "fresh" => {
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64)
        }
        Ok(text) => text.parse().expect("a number or 'fresh'"),
    }
}

/// Another thread of the scenario.
pub(crate) fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().name("scenario".into()).spawn(body).expect("a thread")
}

/// What a thread of the scenario has come to; its panic goes on here.
pub(crate) fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|payload: Box<dyn Any + Send>| panic::resume_unwind(payload))
}

/// Lets others go on.
#[cfg(not(turnwise_loom))]
pub(crate) fn yield_now() {
    #[cfg(turnwise_shuttle)]
    shuttle::thread::yield_now();
    #[cfg(not(turnwise_shuttle))]
    std::thread::yield_now();
}

/// What a replay promises: the same schedule is the same run. Nothing in the library may depend on chance, on the clock or on the
/// order of a hash map.
#[cfg(turnwise_shuttle)]
#[test]
fn a_schedule_is_all_that_a_run_depends_on() {
    use crate::{EventSource, SessionService};
    use shuttle::scheduler::{RandomScheduler, UncontrolledNondeterminismCheckScheduler};
    use support::{actors, create, finish, open, turn, SOON};

    let twice = UncontrolledNondeterminismCheckScheduler::new(RandomScheduler::new_from_seed(seed(), 300));
    shuttle::Runner::new(twice, config()).run(|| {
        let config = crate::EphemeralSessionService::configure(actors(support::act)).idle_threads(1);
        let service = config.max_running_turns(1).build().unwrap();
        let hosting = service.begin_session(create("x").host_mode(true).timeout(SOON)).unwrap();
        let id = open(&service);
        let other = service.clone();
        let caller = spawn(move || drop(other.start_turn(id, turn("x"))));
        if let Some(injector) = service.event_injector(hosting.session_id()) {
            drop(injector.inject_with_subscription("x".into(), EventSource::Tcp));
        }
        let _ = service.archive(id);
        join(caller);
        finish(&service);
        drop(hosting.wait());
    });
}
