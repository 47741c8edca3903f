//! The clock of a service.
//!
//! **Every duration that a service is given is measured on its clock**: timeouts of turns and of waits, and the sleeps
//! of an agent. So this layer and the layers that use it measure time, and wait for an instant, only through a
//! [`Clock`].
//!
//! Four durations stay on the system's clock, since no caller observes their end: how long a thread without a session
//! waits for the next one, how often an emitter that waits for room checks a queue again, how long a thread
//! [polls](crate::wait::polling) before it parks, and how late a woken thread is for the
//! [throttle](crate::wait::wakeups).

use std::time::{Duration, SystemTime};

use crate::sync::{at_or_never, Instant, Receiver, RecvTimeoutError};
#[cfg(feature = "testkit")]
use crate::time::manual::{self, ManualClock};

/// The clock of a service. A cheap handle: clones are the same clock.
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    /// The clock of the operating system.
    #[default]
    System,
    /// A clock that a test advances; see [`manual`].
    #[cfg(feature = "testkit")]
    Manual(ManualClock),
}

/// An instant on a clock. It never comes if there is none, or if it is past the last representable instant.
#[derive(Clone, Debug)]
pub(crate) struct Deadline {
    clock: Clock,
    at: Option<Instant>,
}

/// Fires once, when its deadline comes.
#[derive(Debug)]
#[must_use = "dropping it stops it"]
pub(crate) struct Alarm {
    fired: Receiver<Instant>,
    _entry: Entry,
}

/// A clock's entry for work that is due at some time. It ends when the work is done. The system's clock has no entries.
#[derive(Debug, Default)]
#[must_use = "dropping it says that the work is done"]
pub(crate) struct Entry {
    #[cfg(feature = "testkit")]
    _manual: Option<manual::Entry>,
}

/// Measures the duration of a wait.
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

    /// The time of day.
    pub(crate) fn system_time(&self) -> SystemTime {
        match self {
            Self::System => SystemTime::now(),
            #[cfg(feature = "testkit")]
            Self::Manual(clock) => clock.system_time(),
        }
    }

    /// The time from now until `at`, at least zero.
    pub(crate) fn until(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.now())
    }

    /// The deadline `timeout` from now.
    pub(crate) fn deadline(&self, timeout: Duration) -> Deadline {
        self.deadline_at(self.now().checked_add(timeout))
    }

    /// The deadline at this instant; never, if there is none.
    pub(crate) fn deadline_at(&self, at: Option<Instant>) -> Deadline {
        Deadline { clock: self.clone(), at }
    }

    pub(crate) fn stopwatch(&self) -> Stopwatch {
        Stopwatch { clock: self.clone(), started: self.now() }
    }
}

impl Deadline {
    /// The deadline of a wait that no time ends.
    pub(crate) const fn never() -> Self {
        Self { clock: Clock::System, at: None }
    }

    /// The instant; `None` for never.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Whether no clock can end a wait with this deadline.
    pub(crate) fn is_never(&self) -> bool {
        matches!((&self.clock, self.at), (Clock::System, None))
    }

    /// Whether more than `duration` is left.
    pub(crate) fn leaves_more_than(&self, duration: Duration) -> bool {
        self.at.is_none_or(|at| at.saturating_duration_since(self.clock.now()) > duration)
    }

    /// An alarm for the `select!` of a thread that waits for something else until this deadline.
    pub(crate) fn alarm(&self) -> Alarm {
        match &self.clock {
            Clock::System => Alarm { fired: at_or_never(self.at), _entry: Entry::default() },
            #[cfg(feature = "testkit")]
            Clock::Manual(clock) => Alarm::manual(clock.wait_entry(self.at)),
        }
    }

    /// An alarm for the `select!` of a thread that has work to do at this deadline. The thread keeps it until the work
    /// is done.
    pub(crate) fn work_alarm(&self) -> Alarm {
        match &self.clock {
            Clock::System => self.alarm(),
            #[cfg(feature = "testkit")]
            Clock::Manual(clock) => Alarm::manual(clock.work_alarm_entry(self.at)),
        }
    }

    /// An entry for work that another thread's alarm starts at this deadline. The owner keeps it until the work is
    /// done.
    pub(crate) fn work_entry(&self) -> Entry {
        match &self.clock {
            Clock::System => Entry::default(),
            #[cfg(feature = "testkit")]
            Clock::Manual(clock) => Entry { _manual: Some(clock.work_entry(self.at)) },
        }
    }

    /// Receives a message that arrives in time. A message that is already there is received even after the deadline.
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
    fn manual((entry, fired): (manual::Entry, Receiver<Instant>)) -> Self {
        Self { fired, _entry: Entry { _manual: Some(entry) } }
    }

    /// The channel that becomes ready once the deadline has come.
    pub(crate) fn receiver(&self) -> &Receiver<Instant> {
        &self.fired
    }
}

impl Stopwatch {
    /// The deadline `timeout` from the start.
    pub(crate) fn deadline(&self, timeout: Duration) -> Deadline {
        self.clock.deadline_at(self.started.checked_add(timeout))
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.started)
    }
}
