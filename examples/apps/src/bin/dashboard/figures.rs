//! Rates, latencies, and the format of figures.

use std::collections::VecDeque;
use std::time::Duration;

/// A rate per second, over the last two seconds. The caller passes the time.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    since: Duration,
    /// The number of the current slot.
    slot: u128,
    slots: [u64; Self::SLOTS],
}

impl Meter {
    pub(crate) const SLOTS: usize = 8;
    const SLOT: Duration = Duration::from_millis(250);

    pub(crate) fn new(now: Duration) -> Self {
        Self { since: now, slot: Self::slot_of(now), slots: [0; Self::SLOTS] }
    }

    pub(crate) fn add(&mut self, now: Duration, count: u64) {
        self.advance(now);
        self.slots[Self::SLOTS - 1] += count;
    }

    pub(crate) fn per_second(&mut self, now: Duration) -> f64 {
        self.advance(now);
        let begun = Self::SLOT * self.slot as u32;
        let window = Self::SLOT * (Self::SLOTS as u32 - 1) + now.saturating_sub(begun);
        // The window of a young meter is its age.
        let covered = window.min(now.saturating_sub(self.since)).max(Self::SLOT);
        self.slots.iter().sum::<u64>() as f64 / covered.as_secs_f64()
    }

    /// The count of each slot, the oldest first.
    pub(crate) fn slots(&self) -> [u64; Self::SLOTS] {
        self.slots
    }

    fn advance(&mut self, now: Duration) {
        let slot = Self::slot_of(now).max(self.slot);
        let passed = (slot - self.slot).min(Self::SLOTS as u128) as usize;
        self.slots.rotate_left(passed);
        self.slots[Self::SLOTS - passed..].fill(0);
        self.slot = slot;
    }

    fn slot_of(now: Duration) -> u128 {
        now.as_millis() / Self::SLOT.as_millis()
    }
}

/// The latencies of the last turns. Each added latency updates the percentiles, so that no picture has to compute them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies {
    recent: VecDeque<Duration>,
    pub(crate) p50: Option<Duration>,
    pub(crate) p99: Option<Duration>,
}

impl Latencies {
    const KEPT: usize = 256;

    pub(crate) fn add(&mut self, latency: Duration) {
        if self.recent.len() == Self::KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(latency);
        let mut sorted: Vec<Duration> = self.recent.iter().copied().collect();
        sorted.sort_unstable();
        self.p50 = percentile(&sorted, 50);
        self.p99 = percentile(&sorted, 99);
    }

    pub(crate) fn last(&self) -> Option<Duration> {
        self.recent.back().copied()
    }
}

/// The percentile by nearest rank.
fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied()
}

/// A duration with three figures.
pub(crate) fn short_time(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    match millis {
        m if m < 9.95 => format!("{m:.1} ms"),
        m if m < 999.5 => format!("{m:.0} ms"),
        m => format!("{:.2} s", m / 1e3),
    }
}

/// A number in at most six characters.
pub(crate) fn short_count(count: u64) -> String {
    match count {
        0..=9_999 => count.to_string(),
        10_000..=999_999 => format!("{:.1}k", count as f64 / 1e3),
        _ => format!("{:.1}M", count as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_meter_drops_counts_older_than_its_window() {
        let mut meter = Meter::new(at(0));
        for step in 0..40 {
            meter.add(at(step * 50), 5);
        }
        assert!((meter.per_second(at(1_999)) - 100.0).abs() < 1.0, "{}", meter.per_second(at(1_999)));
        assert!((meter.per_second(at(2_999)) - 50.0).abs() < 1.0, "half of the window has no counts");
        assert_eq!(meter.per_second(at(60_000)), 0.0);
        assert_eq!(meter.slots(), [0; Meter::SLOTS]);
    }

    #[test]
    fn a_young_meter_divides_by_its_age_and_never_by_zero() {
        let mut meter = Meter::new(at(10_100));
        meter.add(at(10_100), 10);
        assert_eq!(meter.per_second(at(10_100)), 40.0, "at least a slot");
        assert_eq!(meter.per_second(at(11_100)), 10.0);
        meter.add(at(9_000), 1); // a time in the past counts in the current slot
        assert_eq!(meter.per_second(at(11_100)), 11.0);
    }

    #[test]
    fn percentiles_are_measured_values() {
        let mut latencies = Latencies::default();
        assert_eq!((latencies.p50, latencies.p99, latencies.last()), (None, None, None));
        latencies.add(at(7));
        assert_eq!((latencies.p50, latencies.p99), (Some(at(7)), Some(at(7))));
        let mut latencies = Latencies::default();
        (1..=100).rev().for_each(|millis| latencies.add(at(millis)));
        assert_eq!((latencies.p50, latencies.p99, latencies.last()), (Some(at(50)), Some(at(99)), Some(at(1))));
        (0..Latencies::KEPT).for_each(|_| latencies.add(at(3)));
        assert_eq!((latencies.p50, latencies.p99), (Some(at(3)), Some(at(3))), "old latencies are dropped");
    }

    #[test]
    fn figures_stay_short() {
        let times = [(at(0), "0.0 ms"), (at(10), "10 ms"), (at(999), "999 ms"), (at(1_234), "1.23 s")];
        for (time, text) in times {
            assert_eq!(short_time(time), text);
        }
        assert_eq!(short_time(Duration::from_micros(9_970)), "10 ms");
        assert_eq!(short_time(Duration::from_micros(999_700)), "1.00 s");
        for (count, text) in [(0, "0"), (9_999, "9999"), (12_345, "12.3k"), (7_654_321, "7.7M")] {
            assert_eq!(short_count(count), text);
        }
    }
}
