//! A queue that one thread waits at.
//!
//! What a channel would be used for, were it not for its price. A thread that waits at a channel spins first, and when it is woken
//! finds the channel locked by the thread that wakes it; where ten thousand threads wait for one message each, that is half of
//! all the work. Here the waiting thread parks at once, and is woken with no lock held. A thread that polls first decides that
//! for itself: see [`polling`](crate::wait::polling).
//!
//! **Invariant.** While the queue is not empty, nobody is noted as asleep: who puts something in takes the note along and
//! [calls up](crate::wait::waking) the thread, and who finds the queue empty leaves the note, each under one lock.

use std::collections::VecDeque;
use std::fmt;

use crate::sync::{current, park, Arc, AtomicBool, Mutex, Ordering, Receiver, Thread};
use crate::wait::bell::Bell;
use crate::wait::waking::{own_calls, Calls};

/// Both ends of a new one.
pub(crate) fn mailbox<T>() -> (MailSender<T>, MailReceiver<T>) {
    let state = State { items: VecDeque::new(), waiter: Waiter::Awake, is_gone: false };
    let shared = Arc::new(Shared { has_mail: AtomicBool::new(false), state: Mutex::new(state), bell: Bell::new() });
    (MailSender(Arc::clone(&shared)), MailReceiver(shared))
}

/// The end that anybody puts something in at.
pub(crate) struct MailSender<T>(Arc<Shared<T>>);

/// The end of the thread that waits. Dropping it drops what is in the queue, and whatever is sent from then on.
pub(crate) struct MailReceiver<T>(Arc<Shared<T>>);

struct Shared<T> {
    /// Whether the queue is not empty; written under its lock, so that who polls needs none.
    has_mail: AtomicBool,
    state: Mutex<State<T>>,
    bell: Bell,
}

struct State<T> {
    items: VecDeque<T>,
    waiter: Waiter,
    is_gone: bool,
}

/// The thread at the receiving end.
enum Waiter {
    Awake,
    /// It has found nothing, and parks.
    Asleep(Thread),
    /// There is something in the queue since, and it has not been back yet.
    CalledUp(Arc<Calls>),
}

impl<T> MailSender<T> {
    /// Never waits. Where the receiver is gone, the item is dropped.
    pub(crate) fn send(&self, item: T) {
        let shared = &*self.0;
        let woken = {
            let mut state = shared.state.lock();
            if state.is_gone {
                drop(state);
                return drop(item);
            }
            if state.items.len() == state.items.capacity() {
                // Mostly there is one item at a time, and many thousand mailboxes.
                let more = state.items.len().max(1);
                state.items.reserve_exact(more);
            }
            state.items.push_back(item);
            shared.has_mail.store(true, Ordering::SeqCst);
            state.waiter.call_up()
        };
        if let Some(thread) = woken {
            thread.unpark();
        }
        shared.bell.ring();
    }
}

impl<T> MailReceiver<T> {
    /// Whether there is something, at the price of a look.
    pub(crate) fn has_mail(&self) -> bool {
        self.0.has_mail.load(Ordering::SeqCst)
    }

    /// What has been there longest. Waits for it, parked.
    pub(crate) fn receive(&self) -> T {
        loop {
            {
                let mut state = self.0.state.lock();
                if let Some(item) = self.take_from(&mut state) {
                    let waiter = std::mem::replace(&mut state.waiter, Waiter::Awake);
                    drop(state);
                    if let Waiter::CalledUp(calls) = waiter {
                        calls.arrived();
                    }
                    return item;
                }
                state.waiter = Waiter::Asleep(current());
            }
            // Also comes back where nobody has sent anything: whatever the agent's code has left behind of wake-ups ends here.
            park();
        }
    }

    /// What has been there longest, if there is anything. Rings again for what is left.
    pub(crate) fn try_receive(&self) -> Option<T> {
        let item = self.take_from(&mut self.0.state.lock());
        if self.has_mail() {
            self.0.bell.ring();
        }
        item
    }

    /// Something can be received while there may be something in the queue: for a `select!`.
    pub(crate) fn listen(&self) -> Receiver<()> {
        self.0.bell.listen(|| !self.0.state.lock().items.is_empty())
    }

    fn take_from(&self, state: &mut State<T>) -> Option<T> {
        let item = state.items.pop_front();
        self.0.has_mail.store(!state.items.is_empty(), Ordering::SeqCst);
        item
    }
}

impl Waiter {
    /// Calls it up if it sleeps, now that there is something, and before it can look. Gives whom to unpark once it can.
    fn call_up(&mut self) -> Option<Thread> {
        match std::mem::replace(self, Self::Awake) {
            Self::Asleep(thread) => {
                let calls = own_calls();
                let woken = calls.add(thread);
                *self = Self::CalledUp(calls);
                woken
            }
            other => {
                *self = other;
                None
            }
        }
    }
}

impl<T> Drop for MailReceiver<T> {
    fn drop(&mut self) {
        let items = {
            let mut state = self.0.state.lock();
            state.is_gone = true;
            std::mem::take(&mut state.items)
        };
        // With no lock held: what is dropped may send.
        drop(items);
    }
}

impl<T> fmt::Debug for MailSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailSender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for MailReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailReceiver").field("has_mail", &self.has_mail()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_arrives_once_in_the_order_of_each_sender() {
        const SENDERS: usize = 4;
        const EACH: usize = 5_000;
        let (sender, receiver) = mailbox();
        std::thread::scope(|scope| {
            for name in 0..SENDERS {
                let sender = &sender;
                scope.spawn(move || (0..EACH).for_each(|number| sender.send((name, number))));
            }
            let mut next = [0; SENDERS];
            for _ in 0..SENDERS * EACH {
                let (name, number) = receiver.receive();
                assert_eq!(number, next[name]);
                next[name] += 1;
            }
        });
        assert!(receiver.try_receive().is_none() && !receiver.has_mail());
    }

    #[test]
    fn wake_ups_of_others_are_no_mail() {
        let (sender, receiver) = mailbox();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| receiver.receive());
            for _ in 0..1_000 {
                waiter.thread().unpark();
                std::thread::yield_now();
            }
            assert!(!waiter.is_finished());
            sender.send(7);
            assert_eq!(waiter.join().unwrap(), 7);
        });
    }

    #[test]
    fn a_bell_rings_for_what_was_there_before_and_for_what_is_left() {
        let (sender, receiver) = mailbox();
        sender.send(1);
        sender.send(2);
        let bell = receiver.listen();
        bell.recv().unwrap();
        assert_eq!(receiver.try_receive(), Some(1));
        bell.recv().unwrap();
        assert_eq!(receiver.try_receive(), Some(2));
        sender.send(3);
        bell.recv().unwrap();
        assert_eq!(receiver.receive(), 3);
    }

    #[test]
    fn what_nobody_receives_is_dropped_at_once() {
        let (sender, receiver) = mailbox();
        let item = Arc::new(());
        sender.send(Arc::clone(&item));
        drop(receiver);
        assert_eq!(Arc::strong_count(&item), 1);
        sender.send(Arc::clone(&item));
        assert_eq!(Arc::strong_count(&item), 1);
    }
}
