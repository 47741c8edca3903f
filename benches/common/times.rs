//! Times of runs, and their statistics.

use std::time::{Duration, Instant};

use super::failures::attempt;
use super::full_or_quick;

/// The times of a number of runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// The time of one run, which the caller has measured.
    pub(crate) fn of(time: Duration) -> Self {
        Self(vec![time])
    }

    pub(crate) fn add(&mut self, times: Times) {
        self.0.extend(times.0);
    }

    /// The time that half of the runs do not exceed.
    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// The time that `percent` of a hundred runs do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted.get((sorted.len() * percent / 100).min(last)).copied().unwrap_or_default()
    }

    /// Whether there is no time, because the first run has failed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The longest time.
    pub(crate) fn max(&self) -> Duration {
        self.percentile(100)
    }
}

impl FromIterator<Duration> for Times {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        Self(times.into_iter().collect())
    }
}

/// The time of one run.
pub(crate) fn time(run: impl FnOnce()) -> Duration {
    let started = Instant::now();
    run();
    started.elapsed()
}

/// The time of each of `runs` runs.
pub(crate) fn times(runs: usize, mut run: impl FnMut()) -> Times {
    (0..runs).map(|_| time(&mut run)).collect()
}

/// Times of a run that is too short to be measured alone: for each of `batches`, the average of a thousand runs.
pub(crate) fn times_of_thousands(batches: usize, mut run: impl FnMut()) -> Times {
    const BATCH: u32 = 1_000;
    (0..batches).map(|_| time(|| (0..BATCH).for_each(|_| run())) / BATCH).collect()
}

/// Work whose times are compared with those of other work. One call is one round.
pub(crate) type Contestant<'a> = Box<dyn FnMut() -> Times + 'a>;

/// Runs the contestants in turn, so that a disturbance of the machine affects all of them. Returns the times of each.
///
/// The first round of each is not counted, because caches, allocators and thread-locals are cold. A quick run has one
/// counted round. A contestant that panics runs no further round and keeps its times; the others continue.
pub(crate) fn interleaved<const N: usize>(rounds: usize, mut contestants: [Contestant<'_>; N]) -> [Times; N] {
    let rounds = full_or_quick(rounds, 1);
    let mut all = std::array::from_fn(|_| Times::default());
    let mut has_failed = [false; N];
    for round in 0..=rounds {
        for (place, contestant) in contestants.iter_mut().enumerate() {
            if has_failed[place] {
                continue;
            }
            match attempt(&format!("round {round} of contestant {} of {N}", place + 1), contestant) {
                Some(measured) if round > 0 => all[place].add(measured),
                Some(_) => {}
                None => has_failed[place] = true,
            }
        }
    }
    all
}
