//! What the tests of a host need, to be without sleeps and without luck.

pub use crate::ids::seeded::SeededIds;
pub use crate::wait::manual::ManualClock;
