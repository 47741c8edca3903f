//! Waking many threads.
//!
//! To wake a thread takes the waking one a few microseconds, and the system puts the woken one where it ran before, or where it
//! is woken from. Who begins a turn on each of ten thousand sessions would be at it for long, and most of what it wakes would
//! stand in line behind one another for the same processor, with the others idle: half again as long as it has to take.
//!
//! So only a few threads at a time are *on their way*, which is: have been called up, and do not run yet. Whoever is called up
//! beyond that is noted, and every thread that arrives wakes one that is noted before it does anything else. That is no later
//! than it could have run, since so many others stand in line before it; and the waking becomes work that all processors share.
//!
//! # Why nobody sleeps on
//!
//! A thread on its way waits for nothing but a processor: it has been parked by the library's own code, and holds no lock. So it
//! arrives. All else is under one lock, where this holds:
//!
//! **Invariant.** While a note is kept, there are [`MOST`] threads on their way, each of which takes a note when it arrives.
//!
//! ```text
//! call up:  MOST on their way?  no: one more, woken at once          yes: a note
//! arrive:   a note?             yes: that one is on its way instead  no: one less
//! ```
//!
//! Anything may unpark a thread, so one that is only noted may find what it was called up for, and arrives unwoken. It takes a
//! note like any other: one thread more is on its way than is counted. Its own note stays, and whoever takes it wakes somebody who
//! is awake already, which makes it one less. Of two such events the one that adds is always the first, so the count is never
//! more than there are.

use std::collections::VecDeque;

use crate::sync::{process_wide, Mutex, Thread, WOKEN_AT_ONCE as MOST};

process_wide! {
    static CALLS: Mutex<Calls> = Mutex::new(Calls { on_their_way: 0, notes: VecDeque::new() });
}

struct Calls {
    on_their_way: usize,
    /// Has room for as many as there ever were at a time, a pointer each.
    notes: VecDeque<Thread>,
}

/// Wakes a parked thread, or has another do so that arrives. The thread has to [arrive](arrived), once for each call.
pub(crate) fn call_up(thread: Thread) {
    {
        let mut calls = CALLS.lock();
        if calls.on_their_way == MOST {
            calls.notes.push_back(thread);
            return;
        }
        calls.on_their_way += 1;
    }
    thread.unpark();
}

/// Whether nobody is on their way: what is counted has been counted back.
#[cfg(test)]
pub(crate) fn is_quiet() -> bool {
    let calls = CALLS.lock();
    calls.on_their_way == 0 && calls.notes.is_empty()
}

/// The calling thread has been called up, and runs.
pub(crate) fn arrived() {
    let next = {
        let mut calls = CALLS.lock();
        let next = calls.notes.pop_front();
        if next.is_none() {
            calls.on_their_way -= 1;
        }
        next
    };
    if let Some(thread) = next {
        thread.unpark();
    }
}
