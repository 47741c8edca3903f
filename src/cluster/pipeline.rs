//! Calls of many threads over one connection: the calls that come while a batch is under way form the next batch.
//!
//! One of the calling threads is the *leader*. It takes all calls that wait, sends them, and passes the leadership to the
//! first call that has come meanwhile. Then it gives the answers out. So no thread is needed for the sending, each answer
//! wakes its own caller, and the next batch is under way while the answers of the last one are given out.
//!
//! [`Batches`](crate::store::batches::Batches) is for batches that take longer: there each caller gets the lock of the
//! writer once, one after the other.
//!
//! **Invariants.** There is a leader exactly while `has_leader` is set. Without a leader no call waits. The first of the
//! calls that wait is the leader's own, or has been told to lead. So no call waits for ever:
//!
//! ```text
//! leader                                     another caller
//! sends its batch
//!                                            finds a leader: adds its call
//! locks: the call is the first; tells it
//!                                            leads, and sends its own call with those behind it
//! ```

use std::collections::VecDeque;

use crate::sync::{bounded, Mutex, Sender};

pub(crate) struct Pipeline<T, R> {
    queue: Mutex<Queue<T, R>>,
}

struct Queue<T, R> {
    waiting: VecDeque<Waiting<T, R>>,
    has_leader: bool,
}

struct Waiting<T, R> {
    item: T,
    to_caller: Sender<Message<R>>,
}

enum Message<R> {
    /// The call is the first in the queue, and its caller sends the next batch.
    Lead,
    Result(R),
}

/// The leadership. A drop passes it on, also while the thread unwinds.
struct Leadership<'a, T, R>(&'a Pipeline<T, R>);

impl<T, R> Pipeline<T, R> {
    pub(crate) fn new() -> Self {
        Self { queue: Mutex::new(Queue { waiting: VecDeque::new(), has_leader: false }) }
    }

    /// Sends an item, alone or with others. `send` returns one result for each item, in order. It runs on one thread at a
    /// time. Returns `None` if it returns too few, or panics on another thread.
    pub(crate) fn send(&self, item: T, send: impl FnOnce(&[T]) -> Vec<R>) -> Option<R> {
        // Room for the word to lead, which the caller takes out before its result can come.
        let (to_caller, messages) = bounded(1);
        let leads = {
            let mut queue = self.queue.lock();
            queue.waiting.push_back(Waiting { item, to_caller });
            !std::mem::replace(&mut queue.has_leader, true)
        };
        if !leads {
            match messages.recv() {
                Ok(Message::Result(result)) => return Some(result),
                Ok(Message::Lead) => {}
                Err(_) => return None,
            }
        }
        let leadership = Leadership(self);
        let batch = std::mem::take(&mut self.queue.lock().waiting);
        let (items, callers): (Vec<T>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.item, waiting.to_caller)).unzip();
        let mut results = send(&items).into_iter();
        // Before the answers are given out, so that the next batch need not wait for that.
        drop(leadership);
        let own = results.next();
        for (to_caller, result) in callers.iter().skip(1).zip(results) {
            // The caller waits for it, so there is room.
            let _ = to_caller.try_send(Message::Result(result));
        }
        own
    }
}

impl<T, R> Drop for Leadership<'_, T, R> {
    fn drop(&mut self) {
        let next = {
            let mut queue = self.0.queue.lock();
            let next = queue.waiting.front().map(|first| first.to_caller.clone());
            queue.has_leader = next.is_some();
            next
        };
        if let Some(next) = next {
            let _ = next.try_send(Message::Lead);
        }
    }
}
