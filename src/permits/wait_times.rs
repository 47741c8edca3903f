//! The time that a call of the agent spends in waits: for a running permit, and for the host's input.

use std::time::Duration;

use crate::sync::Instant;

/// The waits of one call of the agent, over all threads of the turn. A plain value: the caller locks it and passes the
/// time.
///
/// An instant counts once, however many threads wait. While an input request is pending, it counts as a wait for
/// input. Otherwise, while a thread waits for a running permit, it counts as a wait for that.
///
/// **Invariant.** `since` is set if and only if a thread waits.
#[derive(Debug, Default)]
pub(super) struct WaitTimes {
    inputs: usize,
    permits: usize,
    /// The time up to which `waited` is complete.
    since: Option<Instant>,
    waited: Waited,
}

/// The time that a call of the agent has spent in waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waited {
    pub(crate) permit: Duration,
    pub(crate) input: Duration,
}

impl WaitTimes {
    /// Those of a call that has waited this long for its first permit.
    pub(super) fn after_first_permit(permit: Duration) -> Self {
        Self { waited: Waited { permit, ..Waited::default() }, ..Self::default() }
    }

    pub(super) fn begin_input(&mut self, now: Instant) {
        self.change(now, |times| times.inputs += 1);
    }

    pub(super) fn end_input(&mut self, now: Instant) {
        // Zero if the call has ended meanwhile: a helper thread of the turn may be late.
        self.change(now, |times| times.inputs = times.inputs.saturating_sub(1));
    }

    pub(super) fn begin_permit(&mut self, now: Instant) {
        self.change(now, |times| times.permits += 1);
    }

    pub(super) fn end_permit(&mut self, now: Instant) {
        self.change(now, |times| times.permits = times.permits.saturating_sub(1));
    }

    /// Ends the call, and every wait of it.
    pub(super) fn end_call(&mut self, now: Instant) -> Waited {
        self.change(now, |times| (times.inputs, times.permits) = (0, 0));
        std::mem::take(&mut self.waited)
    }

    fn change(&mut self, now: Instant, change: impl FnOnce(&mut Self)) {
        // Another thread may have read the clock later and come here first.
        let now = self.since.map_or(now, |since| since.max(now));
        if let Some(since) = self.since {
            let passed = now.saturating_duration_since(since);
            let sum = if self.inputs > 0 { &mut self.waited.input } else { &mut self.waited.permit };
            *sum = sum.saturating_add(passed);
        }
        change(self);
        self.since = (self.inputs > 0 || self.permits > 0).then_some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn c58_an_instant_in_two_waits_counts_once_and_as_input() {
        let begin = Instant::now();
        let at = |seconds| begin + seconds * SECOND;
        let mut times = WaitTimes::after_first_permit(SECOND);
        times.begin_permit(at(2));
        times.begin_input(at(5));
        times.begin_input(at(6));
        times.end_permit(at(7));
        times.end_input(at(8));
        times.end_input(at(9));
        times.begin_permit(at(20));
        assert_eq!(times.end_call(at(22)), Waited { permit: 6 * SECOND, input: 4 * SECOND });
        // The guard of a late thread, and a clock that was read too early.
        times.end_permit(at(30));
        times.begin_input(at(40));
        times.begin_input(at(39));
        assert_eq!(times.end_call(at(41)), Waited { permit: Duration::ZERO, input: SECOND });
    }
}
