//! The interactions that a turn has taken and not settled.

use crate::inbox::queue::Incoming;
use crate::inbox::reply::Reply;
use crate::model::{AgentEvent, InboxInteraction};
use crate::sync::{AtomicBool, Mutex, Ordering};

/// The replies of the turn's open interactions: in host mode the running interaction, and all that the agent has
/// drained from the inbox since. A reply that is left when this is dropped fails.
#[derive(Debug, Default)]
pub(crate) struct Interactions {
    replies: Mutex<Vec<Reply>>,
    /// Whether one of them has a subscriber. Saves the lock for every event.
    has_subscribers: AtomicBool,
    dismissed: AtomicBool,
}

impl Interactions {
    /// Adds an interaction, and returns its content.
    pub(crate) fn add(&self, incoming: Incoming) -> InboxInteraction {
        if incoming.is_dismissal() {
            self.dismissed.store(true, Ordering::SeqCst);
        }
        let Incoming { interaction, reply, .. } = incoming;
        let mut replies = self.replies.lock();
        if reply.has_subscriber() {
            self.has_subscribers.store(true, Ordering::SeqCst);
        }
        replies.push(reply);
        interaction
    }

    /// Whether a dismissal has been taken.
    pub(crate) fn is_dismissed(&self) -> bool {
        self.dismissed.load(Ordering::SeqCst)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.replies.lock().is_empty()
    }

    pub(crate) fn have_subscribers(&self) -> bool {
        self.has_subscribers.load(Ordering::SeqCst)
    }

    /// Forwards an event of the agent to the subscribers.
    pub(crate) fn forward(&self, event: &AgentEvent) {
        self.replies.lock().iter_mut().for_each(|reply| reply.forward(event));
    }

    /// Takes the replies, to be settled now.
    pub(crate) fn take(&self) -> Vec<Reply> {
        let mut replies = self.replies.lock();
        self.has_subscribers.store(false, Ordering::SeqCst);
        std::mem::take(&mut replies)
    }
}
