//! Waking many threads.
//!
//! To wake a thread takes the waking one a few microseconds, and the system puts the woken one where it ran before, or where it
//! is woken from. Who begins a turn on each of ten thousand sessions would be at it for long, and most of what it wakes would
//! stand in line behind one another for the same processor, with the others idle: up to half again as long as it has to take.
//!
//! So only a few of the threads that one thread calls up are *on their way* at a time: woken, but not running yet. Whoever it calls
//! up beyond that is noted, and every thread that arrives wakes one that is noted before it does anything else. So the waking
//! becomes work that all processors share.
//!
//! Each thread has [`Calls`] of its own, and what one calls up never stands in line behind what another does. Of the many that one
//! thread calls up at a time, the last are woken later than they would have been, and whoever asks one of those for something else
//! waits with it: it is the time until all are through that gets shorter.
//!
//! # Why nobody sleeps on
//!
//! All of it is under one lock:
//!
//! ```text
//! call up:  MOST on their way?  no: one more, woken at once          yes: a note
//! arrive:   a note?             yes: that one is on its way instead  no: one less
//! ```
//!
//! Every thread arrives once for each time that it is called up, and after that: it is called up before it can find what it was
//! called up for. So at any time `on_their_way` is how many have been called up and not arrived, less the notes. From that follows:
//!
//! - It is never less than none: it gets less where there are no notes, by somebody who has been called up and has not arrived.
//! - While there are notes it is [`MOST`], since it gets less only where there are none. So at least so many are awake, or have been
//!   woken, and each of them will take a note; all it needs for that is a processor, as it was parked by the library's own code.
//!
//! Anything may unpark a thread, so one that is only noted may arrive unwoken. It takes a note like any other, and its own, which
//! stays, will wake somebody who is awake already. The first adds one to those who have been woken, the second takes one away.

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::sync::{thread_local, Arc, Mutex, Thread, WOKEN_AT_ONCE as MOST};

/// Those whom one thread has called up, until they arrive.
#[derive(Debug)]
pub(crate) struct Calls {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    on_their_way: usize,
    /// Has room for as many as there ever were at a time, a pointer each.
    notes: VecDeque<Thread>,
}

thread_local! {
    /// Made when this thread first calls somebody up.
    static OWN: RefCell<Option<Arc<Calls>>> = const { RefCell::new(None) };
}

/// Those of the calling thread.
pub(crate) fn own_calls() -> Arc<Calls> {
    let own = OWN.try_with(|slot| Arc::clone(slot.borrow_mut().get_or_insert_with(Calls::new)));
    // Where the slot is gone, the thread is on its way out, and calls up few.
    own.unwrap_or_else(|_| Calls::new())
}

impl Calls {
    fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { on_their_way: 0, notes: VecDeque::new() }) })
    }

    /// Calls up a parked thread, which cannot find yet what for: gives it back to be unparked, or has somebody do so that arrives.
    /// It has to [arrive](Self::arrived) once.
    #[must_use = "the thread is to be unparked"]
    pub(crate) fn add(&self, thread: Thread) -> Option<Thread> {
        let mut state = self.state.lock();
        if state.on_their_way == MOST {
            state.notes.push_back(thread);
            return None;
        }
        state.on_their_way += 1;
        Some(thread)
    }

    /// The calling thread is one of those that have been called up, and runs.
    pub(crate) fn arrived(&self) {
        let next = {
            let mut state = self.state.lock();
            let next = state.notes.pop_front();
            if next.is_none() {
                state.on_their_way -= 1;
            }
            next
        };
        if let Some(thread) = next {
            thread.unpark();
        }
    }

    /// Whether everybody has arrived.
    #[cfg(test)]
    pub(crate) fn are_none(&self) -> bool {
        let state = self.state.lock();
        state.on_their_way == 0 && state.notes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::current;
    use crate::wait::mailbox::mailbox;

    #[test]
    fn what_one_thread_calls_up_does_not_stand_in_line_behind_what_another_does() {
        // As many as are woken at a time, and one more; nobody of them is there yet.
        let calls = own_calls();
        for _ in 0..MOST {
            assert!(calls.add(current()).is_some());
        }
        assert!(calls.add(current()).is_none());
        for number in 0..100 {
            let (sender, receiver) = mailbox();
            std::thread::scope(|scope| {
                let waiter = scope.spawn(move || receiver.receive());
                std::thread::yield_now();
                scope.spawn(move || sender.send(number));
                assert_eq!(waiter.join().unwrap(), number);
            });
        }
        (0..=MOST).for_each(|_| calls.arrived());
        assert!(calls.are_none());
    }
}
