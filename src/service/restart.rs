//! The policy by which faulted sessions restart by themselves.

use std::time::Duration;

/// How often a session may restart by itself after a panic of its agent: at most `max` times within `within`, on the
/// clock of the service. Beyond that it stays faulted, until a caller [restarts](crate::SessionService::restart) it.
///
/// Each session is counted for itself, and restarts by a caller are not counted. [`ServiceConfig::restart_faulted`] sets
/// the policy of a service.
///
/// [`ServiceConfig::restart_faulted`]: crate::ServiceConfig::restart_faulted
///
/// ```
/// use std::time::Duration;
/// use turnwise::RestartPolicy;
///
/// let policy = RestartPolicy::new(3, Duration::from_secs(60));
/// assert_eq!((policy.max, policy.within), (3, Duration::from_secs(60)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestartPolicy {
    /// The maximum number of restarts within [`within`](Self::within). At least 1.
    pub max: u32,
    /// The time in which restarts are counted. Not zero.
    pub within: Duration,
}

impl RestartPolicy {
    /// A policy of at most `max` restarts within `within`.
    pub const fn new(max: u32, within: Duration) -> Self {
        Self { max, within }
    }
}
