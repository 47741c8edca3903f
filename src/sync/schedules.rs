//! Runs a scenario in many schedules, under shuttle.

use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::Arc;

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler};
use shuttle::{Config, MaxSteps, Runner};

/// Runs `scenario` in `schedules` schedules that `seed` determines. Half of them are uniformly random, beginning with one
/// for each of `known`, seeds that have found a bug once. The other half use priorities that change at a few points (PCT).
///
/// With `TURNWISE_REPLAY` in the environment it runs that schedule alone.
pub(crate) fn run(known: &[u64], schedules: usize, seed: u64, scenario: impl Fn() + Send + Sync + 'static) {
    let run = AssertUnwindSafe(|| run_all(known, schedules, seed, scenario));
    if let Err(payload) = catch_unwind(run) {
        eprintln!("to run this schedule alone, set TURNWISE_REPLAY to the last failing schedule above");
        resume_unwind(payload);
    }
}

fn run_all(known: &[u64], schedules: usize, seed: u64, scenario: impl Fn() + Send + Sync + 'static) {
    let scenario = Arc::new(scenario);
    let again = || {
        let scenario = Arc::clone(&scenario);
        // PCT needs a second thread, also where the scenario has none.
        move || {
            let second = shuttle::thread::spawn(|| {});
            scenario();
            let _ = second.join();
        }
    };
    if let Ok(schedule) = std::env::var("TURNWISE_REPLAY") {
        Runner::new(ReplayScheduler::new_from_encoded(&schedule), config()).run(again());
        return;
    }
    for seed in known {
        Runner::new(RandomScheduler::new_from_seed(*seed, 1), config()).run(again());
    }
    let random = schedules.div_ceil(2);
    Runner::new(RandomScheduler::new_from_seed(seed, random), config()).run(again());
    let shallow = (schedules - random).div_ceil(2);
    for (depth, schedules) in [(2, shallow), (5, schedules - random - shallow)] {
        if schedules > 0 {
            Runner::new(PctScheduler::new_from_seed(seed, depth, schedules), config()).run(again());
        }
    }
}

pub(crate) fn config() -> Config {
    let mut config = Config::new();
    // Loom checks the orderings.
    config.silence_warnings = true;
    // Unoptimized frames are large.
    config.stack_size = 256 << 10;
    config.max_steps = MaxSteps::FailAfter(200_000);
    config
}
