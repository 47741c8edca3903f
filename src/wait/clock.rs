//! Where time comes from.
//!
//! **Every duration that a service is given is measured on its clock**: timeouts of turns and of waits, and what an agent
//! sleeps. So nothing here or above asks the system for the time, or waits until some instant, but through a [`Clock`].
//!
//! Two durations stay on the system's clock, since nobody sees them run out: how long a thread without a session waits for
//! another one, and how often an emitter that waits for room looks at a queue again.

use std::time::Duration;

use crate::sync::{at_or_never, Instant, Receiver, RecvTimeoutError};

/// What a service measures time with. A cheap handle: clones are the same clock.
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    /// That of the operating system.
    #[default]
    System,
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

    /// For a `select!`.
    pub(crate) fn alarm(&self) -> Alarm {
        match self.clock {
            Clock::System => Alarm { rings: at_or_never(self.at) },
        }
    }

    /// Receives what comes in time. What is there already always does.
    pub(crate) fn receive<T>(&self, channel: &Receiver<T>) -> Result<T, RecvTimeoutError> {
        match (&self.clock, self.at) {
            (Clock::System, Some(at)) => channel.recv_deadline(at),
            (Clock::System, None) => channel.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }
}

impl Alarm {
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
