//! A wake-up that a thread can wait for in a `select!`.

use crate::sync::{bounded, OnceLock, Receiver, Sender};

/// A channel with room for one wake-up. The wake-up stays until a thread receives it; later ones are merged with it.
///
/// A wake-up only tells the thread to check again. The thread may find that nothing has changed.
#[derive(Debug)]
pub(crate) struct Signal {
    /// Made on first use: ten thousand sessions never use the channel of their inbox.
    channel: OnceLock<(Sender<()>, Receiver<()>)>,
}

impl Signal {
    pub(crate) fn new() -> Self {
        Self { channel: OnceLock::new() }
    }

    /// Sends a wake-up. Never waits.
    pub(crate) fn notify(&self) {
        notify(self.sender());
    }

    /// The channel for a `select!`: ready while there is a wake-up.
    pub(crate) fn receiver(&self) -> &Receiver<()> {
        &self.channel().1
    }

    /// A sender for [`notify`], to be kept apart from the signal.
    pub(crate) fn sender(&self) -> &Sender<()> {
        &self.channel().0
    }

    fn channel(&self) -> &(Sender<()>, Receiver<()>) {
        self.channel.get_or_init(|| bounded(1))
    }
}

/// Sends a wake-up through the sender of a [`Signal`]. Never waits.
pub(crate) fn notify(sender: &Sender<()>) {
    // Full: there is a wake-up already. Disconnected: the signal is dropped, so no thread waits for it.
    let _ = sender.try_send(());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_ups_are_merged_and_stay_until_one_is_received() {
        let signal = Signal::new();
        signal.notify();
        signal.notify();
        assert!(signal.receiver().try_recv().is_ok());
        assert!(signal.receiver().try_recv().is_err());
    }
}
