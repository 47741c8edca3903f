//! A one-way switch that threads can wait for.

use std::convert::Infallible;
use std::fmt;

use crate::sync::{bounded, AtomicBool, Condvar, Mutex, OnceLock, Ordering, Receiver, Sender};

/// Starts unset; once set it stays set. Who waits for nothing else [waits](Latch::wait) for it; for all others there is
/// [`receiver`](Latch::receiver), a channel that never carries anything and disconnects when the latch is set, so a latch can be
/// an arm of any `select!`.
///
/// **Invariant.** The channel is made on first use, and its one sender is kept here exactly as long as the latch is
/// unset: both the making and the setting decide under `sender`'s lock, so no receiver can be left connected to a latch
/// that is set. Who waits decides under that lock too, and the setter wakes after it: so nobody goes to sleep unseen.
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
        // Dropping the sender disconnects the channel; it wakes waiters, so not under the lock.
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
        // Only one thread at a time gets here, so the cell never makes anybody wait.
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
    fn receivers_made_before_and_after_the_setting_disconnect() {
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
    fn all_who_wait_are_woken() {
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
