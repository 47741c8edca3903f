//! The primitives by which one thread waits for another. They know neither time nor cancellation.
//!
//! | Primitive | A thread waits for |
//! |---|---|
//! | [`Latch`](latch::Latch) | an event that happens once: a turn's end, a cancel, a session's end |
//! | [`Signal`](signal::Signal) | a change, after which it checks again |
//! | [`WorkQueue`](work_queue::WorkQueue) | an item: a command, an interaction |
//!
//! A thread that waits for several things uses them in a `select!`. [`polling`] is what a thread does before it parks.
//! [`wakeups`] limits how many threads a caller wakes at a time.

pub(crate) mod latch;
pub(crate) mod polling;
pub(crate) mod signal;
pub(crate) mod wakeups;
pub(crate) mod work_queue;
