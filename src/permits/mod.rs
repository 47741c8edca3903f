//! Permits: how many sessions and running turns there may be at a time, and how a turn lends its permit while it waits.

pub(crate) mod semaphore;
pub(crate) mod turn_permit;
