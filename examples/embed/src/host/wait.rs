//! The waits of host threads: a deadline, and what is checked in between.
//!
//! A wait ends by what it waits for, by the close of a handle, by its deadline, or by its *check*: a closure that runs
//! at least every 50 milliseconds. The Python package passes one that looks for signals. Without a check, and outside of
//! callbacks, a wait parks until something happens.

use std::time::{Duration, Instant};

use crossbeam_channel::Select;
use library::SessionError;

use super::callback;
use super::closed::Closed;
use crate::codes::Failure;

/// The longest time between two checks.
pub const SLICE: Duration = Duration::from_millis(50);

/// Runs between two slices of a wait, and ends the wait by an error.
pub type Check<'a> = &'a mut dyn FnMut() -> Result<(), Failure>;

/// The limits of one wait.
#[expect(missing_debug_implementations, reason = "a closure has none")]
pub struct Wait<'a> {
    deadline: Option<Instant>,
    check: Option<Check<'a>>,
}

impl<'a> Wait<'a> {
    /// A wait of `timeout_ms` milliseconds; without an end if that is negative or beyond the range of the clock.
    pub fn new(timeout_ms: i64) -> Self {
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        Self { deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)), check: None }
    }

    /// Sets the check.
    #[must_use]
    pub fn checked(mut self, check: Check<'a>) -> Self {
        self.check = Some(check);
        self
    }

    /// The time until the deadline; `None` without one.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Whether the deadline has passed.
    pub fn is_over(&self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }

    /// The length of the next slice: at most until the deadline.
    pub fn slice(&self) -> Duration {
        self.remaining().map_or(SLICE, |remaining| remaining.min(SLICE))
    }

    /// Runs the check.
    pub fn run_check(&mut self) -> Result<(), Failure> {
        self.check.as_mut().map_or(Ok(()), |check| check())
    }

    /// Parks until an operation of `select` is ready; `false` at the end of the slice or at the deadline. The caller
    /// calls again until [`is_over`](Self::is_over).
    pub fn park(&mut self, select: &mut Select<'_>) -> Result<bool, Failure> {
        self.run_check()?;
        let is_ready = match (&self.check, self.deadline) {
            (Some(_), _) => select.ready_timeout(self.slice()).is_ok(),
            (None, Some(deadline)) => select.ready_deadline(deadline).is_ok(),
            (None, None) => {
                select.ready();
                true
            }
        };
        Ok(is_ready)
    }

    /// Calls an operation with a timeout again and again, until it returns something else than a timeout. In between it
    /// runs the check and looks whether a handle was closed.
    pub fn in_slices<T>(
        &mut self,
        closed: &[&Closed],
        mut operation: impl FnMut(Duration) -> Result<T, SessionError>,
    ) -> Result<T, Failure> {
        loop {
            self.run_check()?;
            closed.iter().try_for_each(|closed| closed.check())?;
            match operation(self.slice()) {
                Err(SessionError::Timeout { .. } | SessionError::Ending { .. }) if !self.is_over() => {}
                Err(_) if closed.iter().any(|closed| closed.is_set()) => return Err(Failure::closed()),
                result => return Ok(result?),
            }
        }
    }
}

/// Refuses a call that would wait for the thread it is made on.
pub fn refuse_in_callback(what: &str) -> Result<(), Failure> {
    if callback::is_inside() {
        Err(Failure::reentrant(what))
    } else {
        Ok(())
    }
}
