//! Where time comes from.
//!
//! **Every duration that a service is given is measured on its clock**: timeouts of turns and of waits, and what an agent
//! sleeps. So nothing here or above asks the system for the time, or waits until some instant, but through a [`Clock`].
//!
//! Two durations stay on the system's clock, since nobody sees them run out: how long a thread without a session waits for
//! another one, and how often an emitter that waits for room looks at a queue again.

use std::time::Duration;

use crate::sync::{at_or_never, Instant, Receiver, RecvTimeoutError};
#[cfg(feature = "testkit")]
use crate::time::manual::{self, ManualClock};

/// What a service measures time with. A cheap handle: clones are the same clock.
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    /// That of the operating system.
    #[default]
    System,
    /// One that a test moves; see [`manual`].
    #[cfg(feature = "testkit")]
    Manual(ManualClock),
}

/// An instant on a clock; where it lies past the end of time, or there is none, it never comes.
#[derive(Clone, Debug)]
pub(crate) struct Deadline {
    clock: Clock,
    at: Option<Instant>,
}

/// Rings once, when its deadline has come.
#[derive(Debug)]
#[must_use = "dropping it stops it"]
pub(crate) struct Alarm {
    rings: Receiver<Instant>,
    _entry: Entry,
}

/// What a clock knows of something that is due at some time; it ends when that is done. The system's clock knows nothing.
#[derive(Debug, Default)]
#[must_use = "dropping it says that it is done"]
pub(crate) struct Entry {
    #[cfg(feature = "testkit")]
    _manual: Option<manual::Entry>,
}

/// Measures what a wait takes.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    clock: Clock,
    started: Instant,
}

impl Clock {
    pub(crate) fn now(&self) -> Instant {
        match self {
            Self::System => Instant::now(),
            #[cfg(feature = "testkit")]
            Self::Manual(clock) => clock.now(),
        }
    }

    /// `timeout` from now.
    pub(crate) fn deadline(&self, timeout: Duration) -> Deadline {
        self.deadline_at(self.now().checked_add(timeout))
    }

    /// At that instant; never, where there is none.
    pub(crate) fn deadline_at(&self, at: Option<Instant>) -> Deadline {
        Deadline { clock: self.clone(), at }
    }

    pub(crate) fn stopwatch(&self) -> Stopwatch {
        Stopwatch { clock: self.clone(), started: self.now() }
    }
}

impl Deadline {
    /// For waits that no time ends.
    pub(crate) const fn never() -> Self {
        Self { clock: Clock::System, at: None }
    }

    /// When; `None` for never.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Whether no clock has any part in it.
    pub(crate) fn is_never(&self) -> bool {
        matches!((&self.clock, self.at), (Clock::System, None))
    }

    /// Whether there is more time left than that.
    pub(crate) fn is_farther_than(&self, duration: Duration) -> bool {
        self.at.is_none_or(|at| at.saturating_duration_since(self.clock.now()) > duration)
    }

    /// For the `select!` of a thread that waits for something else, but no longer than this.
    pub(crate) fn alarm(&self) -> Alarm {
        match &self.clock {
            Clock::System => Alarm { rings: at_or_never(self.at), _entry: Entry::default() },
            #[cfg(feature = "testkit")]
            Clock::Manual(clock) => Alarm::manual(clock.wait_entry(self.at)),
        }
    }

    /// For the `select!` of a thread that has something to do then: keep it until that is done.
    pub(crate) fn duty_alarm(&self) -> Alarm {
        match &self.clock {
            Clock::System => self.alarm(),
            #[cfg(feature = "testkit")]
            Clock::Manual(clock) => Alarm::manual(clock.watch_entry(self.at)),
        }
    }

    /// For something that is to be done then, by a thread with an alarm of its own: keep it until that is done.
    pub(crate) fn duty(&self) -> Entry {
        match &self.clock {
            Clock::System => Entry::default(),
            #[cfg(feature = "testkit")]
            Clock::Manual(clock) => Entry { _manual: Some(clock.duty_entry(self.at)) },
        }
    }

    /// Receives what comes in time. What is there already always does.
    pub(crate) fn receive<T>(&self, channel: &Receiver<T>) -> Result<T, RecvTimeoutError> {
        match (&self.clock, self.at) {
            (Clock::System, Some(at)) => channel.recv_deadline(at),
            (Clock::System, None) => channel.recv().map_err(|_| RecvTimeoutError::Disconnected),
            #[cfg(feature = "testkit")]
            (Clock::Manual(clock), at) => clock.receive(channel, at),
        }
    }
}

impl Alarm {
    #[cfg(feature = "testkit")]
    fn manual((entry, rings): (manual::Entry, Receiver<Instant>)) -> Self {
        Self { rings, _entry: Entry { _manual: Some(entry) } }
    }

    /// Something can be received once the deadline has come.
    pub(crate) fn rings(&self) -> &Receiver<Instant> {
        &self.rings
    }
}

impl Stopwatch {
    /// `timeout` from its start.
    pub(crate) fn deadline(&self, timeout: Duration) -> Deadline {
        self.clock.deadline_at(self.started.checked_add(timeout))
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.started)
    }
}
