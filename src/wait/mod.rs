//! The primitives by which one thread waits for another. They know neither time nor cancellation.
//!
//! | Primitive | A thread waits for |
//! |---|---|
//! | [`Latch`](latch::Latch) | something that happens once: a turn's end, a cancel, a session's end |
//! | [`Signal`](signal::Signal) | a change, to look again |
//! | [`WorkQueue`](work_queue::WorkQueue) | an item: a command, an interaction |
//!
//! Each is an arm of a `select!` where the thread waits for several things. [`polling`] is what a thread does before it waits;
//! [`wakeups`] limits how many threads a caller wakes at a time.

pub(crate) mod latch;
pub(crate) mod polling;
pub(crate) mod signal;
pub(crate) mod wakeups;
pub(crate) mod work_queue;
