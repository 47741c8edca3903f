//! Scenarios: small programs in which a protocol of the library could go wrong, and what must hold in each schedule.
//!
//! The scenarios are unit tests of the library, because they use `crate::sync`. Each scenario is one body that runs in
//! two ways:
//!
//! - `cargo test` runs it on real threads, a few hundred times.
//! - `RUSTFLAGS="--cfg turnwise_shuttle" cargo test --lib models` runs it under shuttle, in thousands of schedules.
//!   Half of the schedules are uniformly random. The other half use priorities that change at a few points (PCT).
//!
//! Under shuttle a wait that no thread would ever end is a deadlock, and fails the scenario. A run that exceeds the
//! limit of steps fails too. A failing run prints its schedule; `TURNWISE_REPLAY=<schedule>` with the test's name
//! replays it.
//!
//! A bug that was found this way leaves its seed with the scenario ([`explore_from`]). The seed gives the same schedule
//! as long as the code up to the failure stays the same. After a change of that code it is one schedule among many.
//!
//! `TURNWISE_SCHEDULES` sets the number of schedules of each kind. `TURNWISE_SEED` sets the first seed: a number, or
//! `fresh`. By default the seeds are the same in every run, so that an unchanged build passes again. Nightly runs use
//! fresh seeds.
//!
//! The scenarios of `orderings` run under loom, with `--cfg turnwise_loom`. Loom checks the memory orderings of single
//! protocols, which shuttle's sequentially consistent schedules cannot show.

use std::any::Any;
use std::panic;

use crate::sync::{Builder, JoinHandle};

#[cfg(not(turnwise_loom))]
mod admission;
#[cfg(not(turnwise_loom))]
mod asking;
#[cfg(all(feature = "redis", not(turnwise_loom)))]
mod cluster;
#[cfg(not(turnwise_loom))]
mod comms;
#[cfg(all(feature = "acp", not(turnwise_loom)))]
mod editors;
#[cfg(not(turnwise_loom))]
mod ends;
#[cfg(not(turnwise_loom))]
mod events;
#[cfg(not(turnwise_loom))]
mod faults;
#[cfg(not(turnwise_loom))]
mod histories;
#[cfg(not(turnwise_loom))]
mod hosting;
#[cfg(not(turnwise_loom))]
mod idle;
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
mod restarts;
#[cfg(not(turnwise_loom))]
mod steering;
#[cfg(not(turnwise_loom))]
mod sub_sessions;
#[cfg(not(turnwise_loom))]
mod support;
#[cfg(all(feature = "store", not(turnwise_loom)))]
mod unloading;
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
    let schedules: usize = std::env::var("TURNWISE_SCHEDULES").map_or(1_000, |text| text.parse().expect("a number"));
    crate::sync::schedules::run(seeds, 2 * schedules, seed(), body);
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

/// Starts another thread of the scenario.
pub(crate) fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().name("scenario".into()).spawn(body).expect("a thread")
}

/// Waits for a thread of the scenario and returns its result. A panic of that thread continues on the calling thread.
pub(crate) fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|payload: Box<dyn Any + Send>| panic::resume_unwind(payload))
}

/// Lets other threads run.
#[cfg(not(turnwise_loom))]
pub(crate) fn yield_now() {
    #[cfg(turnwise_shuttle)]
    shuttle::thread::yield_now();
    #[cfg(not(turnwise_shuttle))]
    std::thread::yield_now();
}

/// A replay needs this: the same schedule gives the same run. Under shuttle nothing in the library may depend on random
/// numbers, on the clock or on the order of a hash map.
#[cfg(turnwise_shuttle)]
#[test]
fn a_schedule_determines_the_whole_run() {
    use crate::{EventSource, SessionService};
    use shuttle::scheduler::{RandomScheduler, UncontrolledNondeterminismCheckScheduler};
    use support::{actors, create, finish, open, turn, SOON};

    let twice = UncontrolledNondeterminismCheckScheduler::new(RandomScheduler::new_from_seed(seed(), 300));
    shuttle::Runner::new(twice, crate::sync::schedules::config()).run(|| {
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
