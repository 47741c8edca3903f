//! The wait of a turn's thread for a message in the inbox.
//!
//! Any number of threads of a turn may wait, beside the session thread's own wait in host mode. Each of them has a signal
//! in the inbox. A message that is put in wakes all of them, and each takes the oldest message if there is one:
//!
//! ```text
//! waiting thread                             sender
//! lock; the inbox is empty: add the signal   lock; push the message; copy the signals; unlock
//! unlock                                     notify the copied signals
//! select! over the signal, the cancel and the timeout
//! cancelled: leave; else lock; take a message, if there is one; unlock
//! remove the signal
//! ```
//!
//! The signal is added under the lock under which the inbox was found empty, so no message is missed. A message stays in
//! the inbox until a thread takes it under the lock: a thread that stops waiting takes none with it.

use std::fmt;

use crate::cancel::CancelToken;
use crate::error::Cancelled;
use crate::sync::{select, Arc};
use crate::time::clock::Deadline;
use crate::wait::signal::Signal;

use super::queue::{Inbox, Incoming};

/// A thread's place among the waiting threads. A drop gives it up.
#[must_use]
pub(crate) struct InboxWait<'a> {
    inbox: &'a Inbox,
    signal: Arc<Signal>,
}

impl<'a> InboxWait<'a> {
    pub(super) fn new(inbox: &'a Inbox, signal: Arc<Signal>) -> Self {
        Self { inbox, signal }
    }

    /// Waits for a message. `None` if the deadline passes or the inbox is closed. A cancelled thread takes no message.
    pub(crate) fn wait(self, cancel: &CancelToken, deadline: &Deadline) -> Result<Option<Incoming>, Cancelled> {
        let alarm = deadline.alarm();
        loop {
            let is_late = select! {
                recv(self.signal.receiver()) -> _ => false,
                recv(cancel.cancelled()) -> _ => false,
                recv(alarm.receiver()) -> _ => true,
            };
            cancel.check()?;
            // Also after the deadline: if both arms are ready, `select!` picks either.
            match self.inbox.take_or_closed() {
                (Some(message), _) => return Ok(Some(message)),
                (None, is_closed) if is_closed || is_late => return Ok(None),
                (None, _) => {}
            }
        }
    }
}

impl Drop for InboxWait<'_> {
    fn drop(&mut self) {
        self.inbox.end_wait_of(&self.signal);
    }
}

impl fmt::Debug for InboxWait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InboxWait")
    }
}
