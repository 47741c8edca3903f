//! Everything that a thread of this crate can wait for, and everything that can end such a wait.
//!
//! | Wait for | Ends with |
//! |---|---|
//! | a [`Latch`](latch::Latch): a turn's end, a session's close or end | the latch being set |
//! | a [`CancelToken`](cancel::CancelToken) | a cancel; not by the end of the turn |
//! | an item in a [`WorkQueue`](work_queue::WorkQueue); a [`Signal`](signal::Signal) | the item being put in; the signal |
//! | a [`Permit`](semaphore::Permit) | a permit coming back, the cancel token, or a deadline |
//! | another session, from a session's own thread ([`own_thread`]) | its answer, the waiter's own cancel token, the deadline; refused where it would close a circle |
//!
//! A thread of a turn lends the turn's permit while it waits: see [`turn_permit`]. Time is that of a [`Clock`](clock::Clock). Nothing here knows how a session or a service works.

pub(crate) mod cancel;
pub(crate) mod clock;
pub(crate) mod deadline;
pub(crate) mod latch;
pub(crate) mod leaving;
#[cfg(feature = "testkit")]
pub(crate) mod manual;
pub(crate) mod own_thread;
pub(crate) mod polling;
pub(crate) mod semaphore;
pub(crate) mod signal;
pub(crate) mod turn_permit;
pub(crate) mod wakeups;
#[cfg(feature = "testkit")]
pub(crate) mod watched;
pub(crate) mod work_queue;
