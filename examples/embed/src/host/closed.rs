//! A latch that wakes the threads that wait for an object, when the object is closed.

use std::convert::Infallible;

use crossbeam_channel::{bounded, Receiver, Sender};
use parking_lot::Mutex;

use crate::codes::Failure;

/// Set once, by the close of the object. Its channel disconnects then, so that a `select` sees it.
#[derive(Debug)]
pub struct Closed {
    sender: Mutex<Option<Sender<Infallible>>>,
    receiver: Receiver<Infallible>,
}

impl Closed {
    /// Sets the latch and wakes every waiter. Returns whether this call set it.
    pub fn set(&self) -> bool {
        let sender = self.sender.lock().take();
        sender.is_some()
    }

    /// Whether the object is closed.
    pub fn is_set(&self) -> bool {
        self.sender.lock().is_none()
    }

    /// Fails once the object is closed.
    pub fn check(&self) -> Result<(), Failure> {
        if self.is_set() {
            Err(Failure::closed())
        } else {
            Ok(())
        }
    }

    /// Disconnects at the close.
    pub fn receiver(&self) -> &Receiver<Infallible> {
        &self.receiver
    }
}

impl Default for Closed {
    fn default() -> Self {
        let (sender, receiver) = bounded(0);
        Self { sender: Mutex::new(Some(sender)), receiver }
    }
}
