//! The interactions that a turn is working on.

use crate::inbox::queue::Incoming;
use crate::inbox::reply::Reply;
use crate::model::{AgentEvent, InboxInteraction};
use crate::sync::{AtomicBool, Mutex, Ordering};

/// What a turn has taken on and not settled yet: in host mode the interaction that runs, and everything that the agent has
/// drained from the inbox since. Whatever is left when this is dropped fails.
#[derive(Debug, Default)]
pub(crate) struct Interactions {
    under_way: Mutex<Vec<Reply>>,
    /// Whether anybody follows one of them: saves the lock for every event.
    followed: AtomicBool,
    dismissed: AtomicBool,
}

impl Interactions {
    /// Takes one on, and returns what it is about.
    pub(crate) fn take_on(&self, incoming: Incoming) -> InboxInteraction {
        if incoming.is_dismissal() {
            self.dismissed.store(true, Ordering::SeqCst);
        }
        let Incoming { interaction, reply } = incoming;
        let mut under_way = self.under_way.lock();
        if reply.has_subscriber() {
            self.followed.store(true, Ordering::SeqCst);
        }
        under_way.push(reply);
        interaction
    }

    /// Whether somebody has said that the session is not needed any more.
    pub(crate) fn is_dismissed(&self) -> bool {
        self.dismissed.load(Ordering::SeqCst)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.under_way.lock().is_empty()
    }

    pub(crate) fn are_followed(&self) -> bool {
        self.followed.load(Ordering::SeqCst)
    }

    /// Passes an event of the agent on to whoever follows.
    pub(crate) fn pass_on(&self, event: &AgentEvent) {
        self.under_way.lock().iter_mut().for_each(|reply| reply.pass_on(event));
    }

    /// Those that are to be settled now.
    pub(crate) fn take(&self) -> Vec<Reply> {
        let mut under_way = self.under_way.lock();
        self.followed.store(false, Ordering::SeqCst);
        std::mem::take(&mut under_way)
    }
}
