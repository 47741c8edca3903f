//! A session's inbox.

use std::collections::VecDeque;

use crate::cancel::CancelToken;
use crate::ids::Ids;
use crate::model::{EventSource, InboxInteraction, InteractionContent, InteractionId};
use crate::sync::Receiver;
use crate::wait::work_queue::{Contents, WorkQueue};

use super::injector::{EventInjector, InjectError, InteractionSubscription, SubscribableInjector};
use super::reply::Reply;

/// An interaction, and the duty to answer it.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) interaction: InboxInteraction,
    pub(crate) reply: Reply,
}

/// The interactions that have been injected and not been taken yet. In host mode the session's thread waits at it.
#[derive(Debug)]
pub(crate) struct Inbox {
    capacity: usize,
    ids: Ids,
    queue: WorkQueue<Incoming, Extra>,
}

/// What is under the queue's lock beside the interactions.
#[derive(Debug, Default)]
struct Extra {
    /// How many of the items are dismissals: those take no room.
    dismissals: usize,
    /// The interaction that the session runs in host mode. It comes here under the lock under which it leaves the queue, so that an
    /// interrupt finds it in one place or the other.
    running: Option<(InteractionId, CancelToken)>,
}

/// Where an interrupt found an interaction.
#[derive(Debug)]
pub(crate) enum Found {
    /// In the queue; it is out of it now.
    Queued(Incoming),
    /// Run by the session: to be cancelled through this token.
    Running(CancelToken),
}

impl Inbox {
    pub(crate) fn new(capacity: usize, ids: Ids) -> Self {
        Self { capacity, ids, queue: WorkQueue::new() }
    }

    /// For the session's thread: an arm for its `select!`, ready while there may be an interaction. The wait ends with
    /// [`end_wait`](Self::end_wait).
    pub(crate) fn ready(&self) -> &Receiver<()> {
        self.queue.ready()
    }

    /// For the session's thread: ends its wait. To be called after each `select!`, whichever arm was ready.
    pub(crate) fn end_wait(&self) {
        self.queue.end_wait();
    }

    /// For the session's thread: takes the oldest interaction, to be run under `cancel`.
    pub(crate) fn take_next(&self, cancel: &CancelToken) -> Option<Incoming> {
        self.queue.change(|Contents { items, extra, .. }| {
            let next = items.pop_front();
            match &next {
                Some(dismissal) if dismissal.is_dismissal() => extra.dismissals -= 1,
                Some(next) => extra.running = Some((next.interaction.id, cancel.clone())),
                None => {}
            }
            next
        })
    }

    /// Notes an interaction that did not come through the inbox and is run under `cancel`. A dismissal is not run.
    pub(crate) fn begin_running(&self, incoming: &Incoming, cancel: &CancelToken) {
        if !incoming.is_dismissal() {
            let running = Some((incoming.interaction.id, cancel.clone()));
            let last = self.queue.change(|contents| std::mem::replace(&mut contents.extra.running, running));
            drop(last);
        }
    }

    /// Notes that no interaction runs any more.
    pub(crate) fn end_running(&self) {
        let last = self.queue.change(|contents| contents.extra.running.take());
        drop(last);
    }

    /// Finds one interaction, to end it alone. A queued one is taken out.
    pub(crate) fn find(&self, id: InteractionId) -> Option<Found> {
        self.queue.change(|Contents { items, extra, .. }| {
            if let Some((running, cancel)) = &extra.running {
                if *running == id {
                    return Some(Found::Running(cancel.clone()));
                }
            }
            let place = items.iter().position(|item| item.interaction.id == id && !item.is_dismissal())?;
            items.remove(place).map(Found::Queued)
        })
    }

    /// Takes out, and fails, every interaction that has a subscriber. Host mode has ended, and the next turn in host mode may never come;
    /// the sender is told, and may send it again.
    pub(crate) fn fail_followed(&self) {
        let followed: VecDeque<Incoming> = self.queue.change(|Contents { items, .. }| {
            if !items.iter().any(|item| item.reply.has_subscriber()) {
                return VecDeque::new();
            }
            let (followed, left) = std::mem::take(items).into_iter().partition(|item| item.reply.has_subscriber());
            *items = left;
            followed
        });
        for item in followed {
            drop(item.reply.end(Err("host mode ended before the interaction ran")));
        }
    }

    /// Takes all interactions, oldest first.
    pub(crate) fn take_all(&self) -> VecDeque<Incoming> {
        self.queue.change(|Contents { items, extra, .. }| {
            extra.dismissals = 0;
            std::mem::take(items)
        })
    }

    /// Closes the inbox. What is in it fails.
    pub(crate) fn close(&self) {
        let failed = self.queue.close();
        drop(failed);
    }

    fn put(&self, incoming: Incoming) -> Result<(), InjectError> {
        let is_dismissal = incoming.is_dismissal();
        let refused = self.queue.change(|contents| {
            let Contents { items, is_closed, extra } = contents;
            if *is_closed {
                return Some((incoming, InjectError::Closed as fn(String) -> InjectError));
            }
            if is_dismissal && items.back().is_some_and(Incoming::is_dismissal) {
                // One dismissal behind another says nothing new.
                return None;
            }
            if !is_dismissal && items.len() - extra.dismissals >= self.capacity {
                return Some((incoming, InjectError::Full as fn(String) -> InjectError));
            }
            extra.dismissals += usize::from(is_dismissal);
            contents.push(incoming);
            None
        });
        refused.map_or(Ok(()), |(incoming, error)| Err(error(incoming.into_body())))
    }

    fn interaction(&self, source: &EventSource, content: InteractionContent) -> InboxInteraction {
        InboxInteraction::with_id(self.ids.interaction_id(), source.to_string(), content)
    }
}

impl Incoming {
    /// An interaction without a subscriber.
    pub(crate) fn unfollowed(interaction: InboxInteraction) -> Self {
        let reply = Reply::to_nobody(interaction.id);
        Self { interaction, reply }
    }

    pub(crate) fn is_dismissal(&self) -> bool {
        matches!(self.interaction.content, InteractionContent::Dismiss)
    }

    fn into_body(self) -> String {
        match self.interaction.content {
            InteractionContent::Message { body } => body,
            _ => String::new(),
        }
    }
}

impl EventInjector for Inbox {
    fn inject(&self, body: String, source: EventSource) -> Result<(), InjectError> {
        let interaction = self.interaction(&source, InteractionContent::Message { body });
        self.put(Incoming::unfollowed(interaction))
    }

    fn dismiss(&self, source: EventSource) -> Result<(), InjectError> {
        self.put(Incoming::unfollowed(self.interaction(&source, InteractionContent::Dismiss)))
    }
}

impl SubscribableInjector for Inbox {
    fn inject_with_subscription(
        &self,
        body: String,
        source: EventSource,
    ) -> Result<InteractionSubscription, InjectError> {
        let interaction = self.interaction(&source, InteractionContent::Message { body });
        let id = interaction.id;
        let (reply, events) = Reply::to_subscriber(id);
        self.put(Incoming { interaction, reply })?;
        Ok(InteractionSubscription { id, events })
    }
}
