//! Runs a host's scenario in many schedules.

pub use crate::sync::{yield_now, AtomicBool, AtomicU64, AtomicUsize, JoinHandle, Mutex, Ordering};

use crate::sync::Builder;

/// Runs `scenario` many times, to find a schedule of its threads in which it fails.
///
/// A scenario is a small program: a service, agents, and threads of the host, with assertions. It fails by a panic. How it
/// runs depends on the build:
///
/// | Built with | A run |
/// |---|---|
/// | nothing special | on real threads, `schedules` times; the system decides on the schedules |
/// | `RUSTFLAGS="--cfg turnwise_shuttle"` | under the model checker shuttle, in `schedules` different schedules; `seed` determines them all |
///
/// Under the model checker one thread runs at a time, and at every call of the library the checker decides which one goes
/// on. A wait that no thread would ever end is a deadlock, and fails the scenario; so does a run of 200,000 steps. A
/// failure prints its schedule. `TURNWISE_REPLAY=<schedule>` in the environment runs that schedule alone: set it for one
/// test.
///
/// ```sh
/// RUSTFLAGS="--cfg turnwise_shuttle" cargo test --release --target-dir target/shuttle my_scenario
/// ```
///
/// The checker sees only the primitives that it schedules: those of this library, the channels in
/// [`crossbeam_channel`](crate::crossbeam_channel), and the ones in [`sync`](super::sync). The state that agents and the
/// host share must be in these, and a channel must have room for a message. A wait in a lock or a channel of another library blocks the whole run. The clock stands
/// still, and a timeout below an hour may pass at any moment. A scenario must do the same in every run of one schedule:
/// it may not depend on random numbers, on the time of day or on the order of a hash map.
///
/// ```
/// use std::sync::Arc;
/// use turnwise::testkit::{explore, sync::{AtomicU64, Ordering}};
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
///
/// // Two sessions count in one place.
/// explore(50, 1, || {
///     let count = Arc::new(AtomicU64::new(0));
///     let counted = Arc::clone(&count);
///     let agent = agent_fn(move |prompt, turn| {
///         counted.fetch_add(1, Ordering::SeqCst); // in two steps, a load and a store, one count would be lost
///         Ok(turn.finish(prompt))
///     });
///     let service = EphemeralSessionService::new(agent, 2);
///     let turns = ["a", "b"].map(|prompt| service.begin_session(CreateSessionRequest::new(prompt)).unwrap());
///     turns.map(|turn| turn.wait().unwrap());
///     assert_eq!(count.load(Ordering::SeqCst), 2);
/// });
/// ```
///
/// # Panics
/// If a run fails, with the panic of the scenario.
///
/// # Blocking
/// Until all runs are over.
pub fn explore(schedules: usize, seed: u64, scenario: impl Fn() + Send + Sync + 'static) {
    #[cfg(turnwise_shuttle)]
    crate::sync::schedules::run(&[], schedules, seed, scenario);
    #[cfg(not(turnwise_shuttle))]
    {
        // The system chooses the schedules.
        let _ = seed;
        (0..schedules).for_each(|_| scenario());
    }
}

/// Starts a thread of a scenario.
///
/// ```
/// use turnwise::testkit::sync::spawn;
///
/// assert_eq!(spawn(|| 6 * 7).join().unwrap(), 42);
/// ```
///
/// # Panics
/// If the system refuses another thread.
pub fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    match Builder::new().spawn(body) {
        Ok(thread) => thread,
        Err(error) => panic!("no thread for the scenario: {error}"),
    }
}
