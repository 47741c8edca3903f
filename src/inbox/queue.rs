//! A session's inbox.

use std::collections::VecDeque;

use crate::cancel::CancelToken;
use crate::ids::Ids;
use crate::model::{EventSource, InboxInteraction, InteractionContent, InteractionId};
use crate::sync::Receiver;
use crate::wait::work_queue::{Contents, WorkQueue};

use super::injector::{EventInjector, InjectError, InteractionSubscription, SubscribableInjector};
use super::reply::Reply;

/// An interaction, and the reply that it must get.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) interaction: InboxInteraction,
    pub(crate) reply: Reply,
}

/// The interactions that have been injected and not taken yet. In host mode the session thread waits for them.
#[derive(Debug)]
pub(crate) struct Inbox {
    capacity: usize,
    ids: Ids,
    queue: WorkQueue<Incoming, Extra>,
}

/// The data under the queue's lock, beside the interactions.
#[derive(Debug, Default)]
struct Extra {
    /// The number of dismissals among the items. A dismissal takes no room.
    dismissals: usize,
    /// The interaction that the session runs in host mode. It is moved here under the same lock under which it leaves
    /// the queue, so an interrupt finds it in exactly one of the two.
    running: Option<(InteractionId, CancelToken)>,
}

/// An interaction that an interrupt ends.
#[derive(Debug)]
pub(crate) enum InterruptTarget {
    /// It was in the queue, and has been removed.
    Queued(Incoming),
    /// The session runs it. This token cancels it.
    Running(CancelToken),
}

impl Inbox {
    pub(crate) fn new(capacity: usize, ids: Ids) -> Self {
        Self { capacity, ids, queue: WorkQueue::new() }
    }

    /// For the session thread: the channel for its `select!`, ready while there may be an interaction.
    /// [`end_wait`](Self::end_wait) ends the wait.
    pub(crate) fn ready(&self) -> &Receiver<()> {
        self.queue.ready()
    }

    /// For the session thread: ends its wait. Call it after each `select!`, whichever arm was ready.
    pub(crate) fn end_wait(&self) {
        self.queue.end_wait();
    }

    /// For the session thread: takes the oldest interaction, to be run under `cancel`.
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

    /// Records an interaction that did not come through the inbox and runs under `cancel`. A dismissal is not run.
    pub(crate) fn begin_running(&self, incoming: &Incoming, cancel: &CancelToken) {
        if !incoming.is_dismissal() {
            let running = Some((incoming.interaction.id, cancel.clone()));
            let last = self.queue.change(|contents| std::mem::replace(&mut contents.extra.running, running));
            drop(last);
        }
    }

    /// Records that no interaction runs.
    pub(crate) fn end_running(&self) {
        let last = self.queue.change(|contents| contents.extra.running.take());
        drop(last);
    }

    /// Finds one interaction for an interrupt of it alone. A queued one is removed.
    pub(crate) fn find_interrupt_target(&self, id: InteractionId) -> Option<InterruptTarget> {
        self.queue.change(|Contents { items, extra, .. }| {
            if let Some((running, cancel)) = &extra.running {
                if *running == id {
                    return Some(InterruptTarget::Running(cancel.clone()));
                }
            }
            let position = items.iter().position(|item| item.interaction.id == id && !item.is_dismissal())?;
            items.remove(position).map(InterruptTarget::Queued)
        })
    }

    /// Removes and fails every interaction that has a subscriber. Host mode has ended, and the next turn in host mode
    /// may never come. The subscriber is told, and may inject the message again.
    pub(crate) fn fail_subscribed(&self) {
        let subscribed: VecDeque<Incoming> = self.queue.change(|Contents { items, .. }| {
            if !items.iter().any(|item| item.reply.has_subscriber()) {
                return VecDeque::new();
            }
            let (subscribed, left) = std::mem::take(items).into_iter().partition(|item| item.reply.has_subscriber());
            *items = left;
            subscribed
        });
        for item in subscribed {
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

    /// Closes the inbox. The interactions in it fail.
    pub(crate) fn close(&self) {
        let failed = self.queue.close();
        drop(failed);
    }

    fn put(&self, incoming: Incoming) -> Result<(), InjectError> {
        let is_dismissal = incoming.is_dismissal();
        // An interaction that is not put in comes back, so that it is dropped with no lock held.
        let refused = self.queue.change(|contents| {
            let Contents { items, is_closed, extra } = contents;
            if *is_closed {
                return Some((incoming, Some(InjectError::Closed as fn(String) -> InjectError)));
            }
            if is_dismissal && items.back().is_some_and(Incoming::is_dismissal) {
                // A second dismissal behind the first has no effect.
                return Some((incoming, None));
            }
            if !is_dismissal && items.len() - extra.dismissals >= self.capacity {
                return Some((incoming, Some(InjectError::Full as fn(String) -> InjectError)));
            }
            extra.dismissals += usize::from(is_dismissal);
            contents.push(incoming);
            None
        });
        match refused {
            Some((incoming, Some(error))) => Err(error(incoming.into_body())),
            Some((_, None)) | None => Ok(()),
        }
    }

    fn interaction(&self, source: &EventSource, content: InteractionContent) -> InboxInteraction {
        InboxInteraction::with_id(self.ids.interaction_id(), source.to_string(), content)
    }
}

impl Incoming {
    /// An interaction without a subscriber.
    pub(crate) fn without_subscriber(interaction: InboxInteraction) -> Self {
        let reply = Reply::without_subscriber(interaction.id);
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
        self.put(Incoming::without_subscriber(interaction))
    }

    fn dismiss(&self, source: EventSource) -> Result<(), InjectError> {
        self.put(Incoming::without_subscriber(self.interaction(&source, InteractionContent::Dismiss)))
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
        let (reply, events) = Reply::with_subscriber(id);
        self.put(Incoming { interaction, reply })?;
        Ok(InteractionSubscription { id, events })
    }
}
