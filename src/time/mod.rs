//! Time: the clock of a service, its deadlines, and values that a thread waits for until a deadline.

pub(crate) mod clock;
#[cfg(feature = "testkit")]
pub(crate) mod manual;
#[cfg(feature = "testkit")]
pub(crate) mod watched;
