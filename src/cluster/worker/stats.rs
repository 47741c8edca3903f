//! The figures and reports of a worker.

use std::time::Duration;

use crate::service::ServiceStats;

/// The figures of a [`Worker`](super::Worker), for its metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Sessions that the engine has given to the worker.
    pub sessions: usize,
    /// Sessions with something to do now, or a moment ago.
    pub attended: usize,
    /// Turns that have begun here.
    pub turns_begun: u64,
    /// Turns that have ended here.
    pub turns_ended: u64,
    /// Turns that were answered with an error without a save: the build has failed, for example, or the store.
    pub turns_refused: u64,
    /// Turns that ran when the worker lost their sessions.
    pub turns_lost: u64,
    /// The time since the lease was renewed last, by the worker's clock. A quarter of the lease is ordinary. `None` without
    /// a lease: the engine is away, or was found replaced.
    pub lease_age: Option<Duration>,
    /// How often the worker was made known to the engine: 1, and one more for each lease that was lost.
    pub incarnations: u64,
    /// How often the worker has lost the connection on which it waits.
    pub reconnects: u64,
    /// The figures of the service that hosts the sessions.
    pub service: ServiceStats,
}

/// What a [drain](super::Worker::drain) has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Sessions that were given up, each with its last save.
    pub given_up: usize,
    /// Sessions that still have turns in flight here.
    pub busy: usize,
}
