//! A one-way flag that threads can wait for.

use std::convert::Infallible;
use std::fmt;

use crate::sync::{bounded, AtomicBool, Condvar, Mutex, OnceLock, Ordering, Receiver, Sender};

/// A flag that starts unset, and stays set once it is set. A thread that waits for nothing else calls
/// [`wait`](Latch::wait). For a `select!` there is [`receiver`](Latch::receiver): a channel that carries no message and
/// disconnects when the latch is set.
///
/// **Invariants.** The channel is made on first use. Its only sender is kept here exactly while the latch is unset.
/// Both the making and the setting decide under `sender`'s lock, so no receiver stays connected to a set latch. A
/// waiting thread decides under that lock too, and the setter notifies after it has held the lock. So no thread parks
/// without being woken.
pub(crate) struct Latch {
    set: AtomicBool,
    sender: Mutex<Option<Sender<Infallible>>>,
    receiver: OnceLock<Receiver<Infallible>>,
    changed: Condvar,
}

impl Latch {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = (Mutex::new(None), OnceLock::new());
        Self { set: AtomicBool::new(false), sender, receiver, changed: Condvar::new() }
    }

    pub(crate) fn is_set(&self) -> bool {
        self.set.load(Ordering::SeqCst)
    }

    /// Sets the latch and wakes every waiter. Setting it again changes nothing.
    pub(crate) fn set(&self) {
        self.set.store(true, Ordering::SeqCst);
        let sender = self.sender.lock().take();
        self.changed.notify_all();
        // Dropping the sender disconnects the channel and wakes threads, so it happens outside the lock.
        drop(sender);
    }

    /// Waits until the latch is set.
    pub(crate) fn wait(&self) {
        let mut sender = self.sender.lock();
        while !self.is_set() {
            self.changed.wait(&mut sender);
        }
    }

    /// The channel that disconnects when the latch is set.
    pub(crate) fn receiver(&self) -> &Receiver<Infallible> {
        if let Some(receiver) = self.receiver.get() {
            return receiver;
        }
        let mut sender = self.sender.lock();
        // Only one thread at a time gets here, so the cell makes no thread wait.
        self.receiver.get_or_init(|| {
            let (connected, receiver) = bounded(0);
            if !self.is_set() {
                *sender = Some(connected);
            }
            receiver
        })
    }
}

impl fmt::Debug for Latch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Latch").field(&self.is_set()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_made_before_and_after_the_latch_is_set_disconnect() {
        let early = Latch::new();
        assert!(early.receiver().try_recv().unwrap_err().is_empty());
        early.set();
        early.set();
        assert!(early.receiver().recv().is_err());

        let late = Latch::new();
        late.set();
        assert!(late.receiver().recv().is_err());
        assert!(late.is_set());
        late.wait();
    }

    #[test]
    fn every_waiting_thread_is_woken() {
        for _ in 0..200 {
            let latch = Latch::new();
            std::thread::scope(|scope| {
                (0..3).for_each(|_| drop(scope.spawn(|| latch.wait())));
                scope.spawn(|| latch.receiver().recv().unwrap_err());
                latch.set();
            });
        }
    }
}
