//! How long something takes, and what is said about it.

use std::time::{Duration, Instant};

use super::full_or_quick;

/// How long each of a number of runs took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Of one run, whose length somebody else has measured.
    pub(crate) fn of(time: Duration) -> Self {
        Self(vec![time])
    }

    pub(crate) fn add(&mut self, times: Times) {
        self.0.extend(times.0);
    }

    /// What half of the runs do not exceed.
    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// What `percent` of a hundred runs do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted.get((sorted.len() * percent / 100).min(last)).copied().unwrap_or_default()
    }

    /// The longest run.
    pub(crate) fn max(&self) -> Duration {
        self.percentile(100)
    }
}

impl FromIterator<Duration> for Times {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        Self(times.into_iter().collect())
    }
}

/// How long one run takes.
pub(crate) fn time(run: impl FnOnce()) -> Duration {
    let started = Instant::now();
    run();
    started.elapsed()
}

/// How long each of `runs` takes.
pub(crate) fn times(runs: usize, mut run: impl FnMut()) -> Times {
    (0..runs).map(|_| time(&mut run)).collect()
}

/// How long a run takes that is too short to be timed alone: `batches` times the average of a thousand.
pub(crate) fn times_of_thousands(batches: usize, mut run: impl FnMut()) -> Times {
    const BATCH: u32 = 1_000;
    (0..batches).map(|_| time(|| (0..BATCH).for_each(|_| run())) / BATCH).collect()
}

/// Somebody whose times are compared with others': a call is one round.
pub(crate) type Contestant<'a> = Box<dyn FnMut() -> Times + 'a>;

/// Lets the contestants run in turn, so that what disturbs the machine meanwhile disturbs them all, and returns the times
/// of each. The first round of everybody is not counted: caches, allocators and thread-locals are cold in it. Of `rounds`, a
/// quick run has one.
pub(crate) fn interleaved<const N: usize>(rounds: usize, mut contestants: [Contestant<'_>; N]) -> [Times; N] {
    let rounds = full_or_quick(rounds, 1);
    let mut all = std::array::from_fn(|_| Times::default());
    for round in 0..=rounds {
        for (times, contestant) in all.iter_mut().zip(&mut contestants) {
            let measured = contestant();
            if round > 0 {
                times.add(measured);
            }
        }
    }
    all
}
