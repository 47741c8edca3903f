//! Something for a `select!` to wait for, beside a queue that is no channel.

use crate::sync::{bounded, OnceLock, Receiver, Sender};

/// Rings while there may be something in a queue.
///
/// **Invariant.** While somebody listens and the queue is not empty, the bell rings, or a thread that has heard it is about to
/// take from the queue. Whoever puts something in does so, under the queue's lock, before it rings;
/// [`listen`](Self::listen) makes the bell before it looks into the queue, under the same lock. So at least one of them sees
/// the other.
#[derive(Debug)]
pub(crate) struct Bell {
    /// Made when somebody listens for the first time.
    ends: OnceLock<(Sender<()>, Receiver<()>)>,
}

impl Bell {
    pub(crate) fn new() -> Self {
        Self { ends: OnceLock::new() }
    }

    /// Something can be received while there may be something in the queue, into which `has_something` looks, under its lock.
    /// For one listener.
    pub(crate) fn listen(&self, has_something: impl FnOnce() -> bool) -> Receiver<()> {
        let (_, receiver) = self.ends.get_or_init(|| bounded(1));
        if has_something() {
            self.ring();
        }
        receiver.clone()
    }

    pub(crate) fn ring(&self) {
        if let Some((sender, _)) = self.ends.get() {
            // Full: it is ringing already.
            let _ = sender.try_send(());
        }
    }
}
