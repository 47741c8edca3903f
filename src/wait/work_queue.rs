//! A queue at which one thread waits in a `select!`, beside other channels.
//!
//! The commands of a session and its inbox are such queues. A channel would cost more. A thread that receives from a
//! channel often finds it locked by the thread that has just woken it, and with ten thousand sessions that was a third of
//! all the time. Here the items are in a list under a lock of a few instructions. Only a [`Signal`] goes through a
//! channel, and tells the thread to check the list.
//!
//! # Why no item is missed
//!
//! The waiting thread records under the queue's lock that it waits, and only while the queue is empty:
//!
//! ```text
//! sender                                           waiting thread
//! lock; push the item                              lock; is the queue empty?
//!   is the thread "waiting"?                         no: send its own signal     yes: set "waiting"
//!     yes: set "notified"                          unlock
//! unlock                                           select! over the signal and other channels
//! send the signal, if it was waiting               lock; set "awake"; unlock; report the arrival, if notified
//!                                                  take the item
//! ```
//!
//! **Invariants.**
//! - While the queue has items, the thread is not "waiting": it is awake and will check the queue, or it is notified.
//! - A notified thread reports one arrival to the [throttle](crate::wait::wakeups) of the thread that notified it, by
//!   [`end_wait`](WorkQueue::end_wait). It does so before it works, also if another arm of its `select!` was ready.
//!   Until then its wake-up counts as in flight, and others are queued behind it.

use std::collections::VecDeque;
use std::fmt;

use crate::sync::{Arc, AtomicBool, Mutex, Ordering, Receiver};
use crate::wait::signal::Signal;
use crate::wait::wakeups::{own_throttle, WakeupThrottle};

/// Items for one waiting thread, and `X`: other data under the same lock.
pub(crate) struct WorkQueue<T, X = ()> {
    /// Whether there are items. Written under the lock, so that a polling thread needs no lock.
    has_items: AtomicBool,
    state: Mutex<State<T, X>>,
    signal: Signal,
}

struct State<T, X> {
    contents: Contents<T, X>,
    thread: ThreadState,
}

/// The data under a queue's lock.
pub(crate) struct Contents<T, X> {
    /// Oldest first.
    pub(crate) items: VecDeque<T>,
    /// Whether the queue takes no more items.
    pub(crate) is_closed: bool,
    pub(crate) extra: X,
}

/// The state of the thread that waits at the queue.
enum ThreadState {
    /// It will check the queue before it waits.
    Awake,
    /// It has found the queue empty, and waits for the signal.
    Waiting,
    /// An item was pushed while it waited. It has not reported its arrival yet.
    Notified(Arc<WakeupThrottle>),
}

impl<T, X: Default> WorkQueue<T, X> {
    pub(crate) fn new() -> Self {
        let contents = Contents { items: VecDeque::new(), is_closed: false, extra: X::default() };
        let state = State { contents, thread: ThreadState::Awake };
        Self { has_items: AtomicBool::new(false), state: Mutex::new(state), signal: Signal::new() }
    }
}

impl<T, X> WorkQueue<T, X> {
    /// Pushes an item. Returns it if the queue is closed. Never waits.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        self.change(|contents| {
            if contents.is_closed {
                return Err(item);
            }
            contents.push(item);
            Ok(())
        })
    }

    /// Changes the contents, and wakes the waiting thread if there are items afterwards.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut Contents<T, X>) -> R) -> R {
        let (result, throttle) = {
            let mut state = self.state.lock();
            let result = change(&mut state.contents);
            let has_items = self.store_has_items(&state.contents);
            (result, if has_items { state.thread.set_notified() } else { None })
        };
        if let Some(throttle) = throttle {
            throttle.send(&self.signal);
        }
        result
    }

    /// Closes the queue and takes out all items, to be dropped with no lock held.
    #[must_use = "the items are dropped, which answers them"]
    pub(crate) fn close(&self) -> VecDeque<T> {
        self.change(|contents| {
            contents.is_closed = true;
            std::mem::take(&mut contents.items)
        })
    }

    /// Whether there are items: one atomic load.
    pub(crate) fn has_items(&self) -> bool {
        self.has_items.load(Ordering::SeqCst)
    }

    /// For the waiting thread: begins a wait, and returns the channel for its `select!`, ready while there may be an
    /// item. [`end_wait`](Self::end_wait) ends the wait.
    pub(crate) fn ready(&self) -> &Receiver<()> {
        let (last, has_items) = {
            let mut state = self.state.lock();
            let has_items = !state.contents.items.is_empty();
            let next = if has_items { ThreadState::Awake } else { ThreadState::Waiting };
            (std::mem::replace(&mut state.thread, next), has_items)
        };
        last.report_arrival();
        if has_items {
            self.signal.notify();
        }
        self.signal.receiver()
    }

    /// For the waiting thread: ends its wait. Call it after each `select!`, whichever arm was ready.
    pub(crate) fn end_wait(&self) {
        let last = std::mem::replace(&mut self.state.lock().thread, ThreadState::Awake);
        last.report_arrival();
    }

    /// Takes the oldest item, if there is one.
    pub(crate) fn pop(&self) -> Option<T> {
        self.change(|contents| contents.items.pop_front())
    }

    fn store_has_items(&self, contents: &Contents<T, X>) -> bool {
        let has_items = !contents.items.is_empty();
        // ORDERING: Relaxed; all stores are made under the lock, which this thread holds.
        if self.has_items.load(Ordering::Relaxed) != has_items {
            self.has_items.store(has_items, Ordering::SeqCst);
        }
        has_items
    }

    /// Waits for the oldest item, and for nothing else.
    #[cfg(test)]
    pub(crate) fn wait_and_pop(&self) -> T {
        loop {
            self.ready().recv().expect("the queue keeps its signal");
            self.end_wait();
            if let Some(item) = self.pop() {
                return item;
            }
        }
    }
}

impl<T, X> Contents<T, X> {
    pub(crate) fn push(&mut self, item: T) {
        if self.items.len() == self.items.capacity() {
            // There are many thousand queues, and most hold one item at a time: grow by no more than needed.
            self.items.reserve_exact(self.items.len().max(1));
        }
        self.items.push_back(item);
    }
}

impl ThreadState {
    /// Sets a waiting thread to notified. Returns the throttle through which to wake it, with no lock held.
    fn set_notified(&mut self) -> Option<Arc<WakeupThrottle>> {
        if !matches!(self, Self::Waiting) {
            return None;
        }
        let throttle = own_throttle();
        *self = Self::Notified(Arc::clone(&throttle));
        Some(throttle)
    }

    fn report_arrival(self) {
        if let Self::Notified(throttle) = self {
            throttle.arrived();
        }
    }
}

impl<T, X> fmt::Debug for WorkQueue<T, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkQueue").field("has_items", &self.has_items()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_arrives_once_in_the_order_of_its_sender() {
        const SENDERS: usize = 4;
        const EACH: usize = 5_000;
        let queue: WorkQueue<(usize, usize)> = WorkQueue::new();
        std::thread::scope(|scope| {
            for name in 0..SENDERS {
                let queue = &queue;
                scope.spawn(move || (0..EACH).for_each(|number| queue.push((name, number)).unwrap()));
            }
            let mut next = [0; SENDERS];
            for _ in 0..SENDERS * EACH {
                let (name, number) = queue.wait_and_pop();
                assert_eq!(number, next[name]);
                next[name] += 1;
            }
        });
        assert!(queue.pop().is_none() && !queue.has_items());
    }

    #[test]
    fn the_signal_is_sent_for_items_pushed_before_the_wait_and_for_items_left() {
        let queue: WorkQueue<u32> = WorkQueue::new();
        queue.push(1).unwrap();
        queue.push(2).unwrap();
        for number in [1, 2] {
            queue.ready().try_recv().unwrap();
            assert_eq!(queue.pop(), Some(number));
        }
        assert!(queue.ready().try_recv().is_err());
        queue.push(3).unwrap();
        assert_eq!(queue.wait_and_pop(), 3);
    }

    #[test]
    fn an_awake_thread_is_not_notified() {
        let queue: WorkQueue<u32> = WorkQueue::new();
        queue.push(1).unwrap();
        assert!(queue.signal.receiver().try_recv().is_err());
        let _ = queue.ready().try_recv();
        queue.end_wait();
        queue.push(2).unwrap();
        assert!(queue.signal.receiver().try_recv().is_err());
        assert_eq!((queue.pop(), queue.pop()), (Some(1), Some(2)));
    }

    #[test]
    fn the_end_of_a_wait_reports_the_arrival_once() {
        let queue: WorkQueue<u32> = WorkQueue::new();
        let ends: [fn(&WorkQueue<u32>); 2] = [WorkQueue::end_wait, |queue| drop(queue.ready().clone())];
        for end in ends {
            while queue.pop().is_some() {}
            let _waits = queue.ready();
            queue.push(1).unwrap();
            queue.push(2).unwrap();
            assert!(!own_throttle().is_idle());
            end(&queue);
            assert!(own_throttle().is_idle());
            queue.end_wait();
            assert!(own_throttle().is_idle(), "reported twice");
        }
    }

    #[test]
    fn a_closed_queue_gives_its_items_back_and_takes_no_more() {
        let queue: WorkQueue<u32> = WorkQueue::new();
        queue.push(1).unwrap();
        assert_eq!(queue.close(), [1]);
        assert_eq!(queue.push(2), Err(2));
        assert!(!queue.has_items());
    }
}
