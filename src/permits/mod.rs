//! Permits: limits on the number of sessions and of running turns, the reservations of the former, and the running
//! permit that a turn lends while it waits.

pub(crate) mod reservation;
pub(crate) mod semaphore;
pub(crate) mod turn_permit;
pub(crate) mod wait_times;
