//! A value whose changes threads can wait for.

use crate::sync::{Arc, Mutex};
use crate::time::clock::Deadline;
use crate::wait::latch::Latch;

/// A value under a lock, with a latch for its next change.
///
/// A wait reads the value, waits for the next change, and reads again. **Invariant.** The read and the making of the
/// latch are under one lock, so no change is missed.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    value: T,
    /// Set by the next change. Made by the first thread that waits for it.
    next_change: Option<Arc<Latch>>,
}

impl<T> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { state: Mutex::new(State { value, next_change: None }) }
    }

    pub(crate) fn read<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&self.state.lock().value)
    }

    /// Changes the value and wakes every waiting thread.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let (result, waiters) = {
            let mut state = self.state.lock();
            (change(&mut state.value), state.next_change.take())
        };
        if let Some(waiters) = waiters {
            waiters.set();
        }
        result
    }

    /// Returns what `take` finds in the value, or removes from it. Otherwise returns a latch that the next change sets.
    pub(crate) fn take<R>(&self, take: impl FnOnce(&mut T) -> Option<R>) -> Result<R, Arc<Latch>> {
        let mut state = self.state.lock();
        match take(&mut state.value) {
            Some(found) => Ok(found),
            None => Err(Arc::clone(state.next_change.get_or_insert_with(|| Arc::new(Latch::new())))),
        }
    }

    /// Waits until `find` returns a result; `None` if the deadline comes first.
    pub(crate) fn wait<R>(&self, deadline: &Deadline, mut find: impl FnMut(&T) -> Option<R>) -> Option<R> {
        loop {
            match self.take(|value| find(value)) {
                Ok(found) => return Some(found),
                Err(change) => match deadline.receive(change.receiver()) {
                    Err(error) if error.is_timeout() => return None,
                    _ => {}
                },
            }
        }
    }
}
