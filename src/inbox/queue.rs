//! A session's inbox.
//!
//! **Invariant.** A message that steers a turn is in the queue only while that turn is admitted and its steering has not
//! ended. So the turn that takes such a message is the one that it steers.

use std::collections::VecDeque;

use crate::cancel::CancelToken;
use crate::ids::Ids;
use crate::model::{EventSource, InboxInteraction, InteractionContent, InteractionId, TurnId};
use crate::sync::{Arc, Receiver};
use crate::wait::signal::Signal;
use crate::wait::work_queue::{Contents, WorkQueue};

use super::injector::{EventInjector, InjectError, InteractionSubscription, SubscribableInjector};
use super::reply::Reply;
use super::wait::InboxWait;

/// An interaction, and the reply that it must get.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) interaction: InboxInteraction,
    pub(crate) reply: Reply,
    /// The turn that it steers, if it is for one turn only.
    steers: Option<TurnId>,
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
    /// The number of items that take no room: dismissals without a subscriber.
    roomless: usize,
    /// The inbox never opens again.
    is_ended: bool,
    /// The turn whose steering ended last.
    steering_over: Option<TurnId>,
    /// The signals of the turn's threads that [wait](InboxWait) for a message.
    waiting: Vec<Arc<Signal>>,
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

/// A message for the admitted turn, not yet put in.
pub(crate) struct SteeringMessage(Incoming);

/// The [sender](InboxInteraction::from) of a message that steers.
const STEERING_SENDER: &str = "steering";

/// What a thread of the turn has found in the inbox.
pub(crate) enum Found<'a> {
    Message(Incoming),
    /// The inbox is closed, and stays empty.
    Closed,
    /// The inbox is empty. The next message, or the close, wakes this wait.
    Nothing(InboxWait<'a>),
}

/// The reason why an interaction was not put in.
pub(crate) enum Refused {
    Closed,
    Full,
    /// The turn that it steers takes no more messages.
    SteeringOver,
}

impl Inbox {
    pub(crate) fn new(capacity: usize, ids: Ids) -> Self {
        Self { capacity, ids, queue: WorkQueue::new() }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
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
            let next = take_oldest(items, extra)?;
            if !next.is_dismissal() {
                extra.running = Some((next.interaction.id, cancel.clone()));
            }
            Some(next)
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
        self.queue.change(|contents| {
            if let Some((running, cancel)) = &contents.extra.running {
                if *running == id {
                    return Some(InterruptTarget::Running(cancel.clone()));
                }
            }
            let is_it = |item: &Incoming| item.interaction.id == id && !item.is_dismissal();
            contents.take_if(is_it).pop_front().map(InterruptTarget::Queued)
        })
    }

    /// Removes and fails every interaction that has a subscriber. Host mode has ended, and the next turn in host mode
    /// may never come. The subscriber is told, and may inject the message again.
    pub(crate) fn fail_subscribed(&self) {
        let subscribed = self.queue.change(|contents| contents.take_if(|item| item.reply.has_subscriber()));
        fail(subscribed, "host mode ended before the interaction ran");
    }

    /// Ends the steering of the admitted turn: it takes no more messages, and those that it has not taken fail.
    pub(crate) fn end_steering(&self, turn: TurnId) {
        let left = self.queue.change(|contents| {
            contents.extra.steering_over = Some(turn);
            contents.take_if(|item| item.steers.is_some())
        });
        fail(left, "the turn ended before it took the message");
    }

    /// Takes all interactions, oldest first.
    pub(crate) fn take_all(&self) -> VecDeque<Incoming> {
        self.queue.change(|Contents { items, extra, .. }| {
            extra.roomless = 0;
            std::mem::take(items)
        })
    }

    /// For a thread of the turn: takes the oldest interaction, or begins a wait for one.
    pub(crate) fn find(&self) -> Found<'_> {
        self.queue.change(|Contents { items, is_closed, extra }| {
            if let Some(message) = take_oldest(items, extra) {
                return Found::Message(message);
            }
            if *is_closed {
                return Found::Closed;
            }
            let signal = Arc::new(Signal::new());
            extra.waiting.push(Arc::clone(&signal));
            Found::Nothing(InboxWait::new(self, signal))
        })
    }

    /// Whether the inbox is closed: there will be no more interactions.
    pub(crate) fn is_closed(&self) -> bool {
        self.queue.change(|contents| contents.is_closed)
    }

    /// For a thread that [waits](InboxWait): takes the oldest interaction. `None` if there is none, with whether the
    /// inbox is closed.
    pub(super) fn take_or_closed(&self) -> (Option<Incoming>, bool) {
        self.queue.change(|Contents { items, is_closed, extra }| (take_oldest(items, extra), *is_closed))
    }

    /// Forgets a thread that has stopped waiting.
    pub(super) fn end_wait_of(&self, signal: &Arc<Signal>) {
        self.queue.change(|contents| contents.extra.waiting.retain(|waiting| !Arc::ptr_eq(waiting, signal)));
    }

    /// Closes the inbox for good. The interactions in it fail.
    pub(crate) fn close(&self) {
        self.close_as(true);
    }

    /// Closes the inbox of a session that has faulted, until [`reopen`](Self::reopen). The interactions in it fail.
    pub(crate) fn close_until_restart(&self) {
        self.close_as(false);
    }

    /// Opens the inbox again after a restart, unless the session has been closed meanwhile.
    pub(crate) fn reopen(&self) {
        self.queue.change(|contents| contents.is_closed = contents.extra.is_ended);
    }

    /// Whether there is an interaction that has not been taken.
    pub(crate) fn has_items(&self) -> bool {
        self.queue.change(|contents| !contents.items.is_empty())
    }

    /// Runs `close` if the inbox is empty. If `close` returns true, the inbox is closed for good in the same step: no
    /// interaction is accepted in between.
    pub(crate) fn close_if_empty(&self, close: impl FnOnce() -> bool) -> bool {
        self.queue.change(|contents| {
            let is_closed = contents.items.is_empty() && close();
            contents.is_closed |= is_closed;
            contents.extra.is_ended |= is_closed;
            is_closed
        })
    }

    fn close_as(&self, is_end: bool) {
        let (failed, waiting) = self.queue.change(|contents| {
            contents.is_closed = true;
            contents.extra.is_ended |= is_end;
            (std::mem::take(&mut contents.items), contents.extra.waiting.clone())
        });
        waiting.iter().for_each(|signal| signal.notify());
        drop(failed);
    }

    /// Puts in a message for the admitted turn only. The caller holds the lock under which the turn would end.
    pub(crate) fn steer(&self, turn: TurnId, message: SteeringMessage) -> Result<(), Refused> {
        self.put(Incoming { steers: Some(turn), ..message.0 }).map_err(|(refused, _)| refused)
    }

    /// Makes a message that [steers](Self::steer), and the subscription of its sender.
    pub(crate) fn steering_message(&self, content: InteractionContent) -> (SteeringMessage, InteractionSubscription) {
        let (incoming, subscription) =
            self.subscribed(InboxInteraction::with_id(self.ids.interaction_id(), STEERING_SENDER, content));
        (SteeringMessage(incoming), subscription)
    }

    fn subscribed(&self, interaction: InboxInteraction) -> (Incoming, InteractionSubscription) {
        let id = interaction.id;
        let (reply, events) = Reply::with_subscriber(id);
        (Incoming { interaction, reply, steers: None }, InteractionSubscription { id, events })
    }

    #[allow(clippy::result_large_err)] // The interaction itself is as large.
    fn put(&self, incoming: Incoming) -> Result<(), (Refused, Incoming)> {
        // An interaction that is not put in comes back, so that it is dropped with no lock held.
        let put = self.queue.change(|contents| {
            let Contents { items, is_closed, extra } = contents;
            if *is_closed {
                return Err((Some(Refused::Closed), incoming));
            }
            if incoming.steers.is_some() && incoming.steers == extra.steering_over {
                return Err((Some(Refused::SteeringOver), incoming));
            }
            let takes_room = incoming.takes_room();
            if !takes_room && items.back().is_some_and(Incoming::is_dismissal) {
                // A second dismissal behind the first has no effect.
                return Err((None, incoming));
            }
            if takes_room && items.len() - extra.roomless >= self.capacity {
                return Err((Some(Refused::Full), incoming));
            }
            extra.roomless += usize::from(!takes_room);
            let waiting = extra.waiting.clone();
            contents.push(incoming);
            Ok(waiting)
        });
        match put {
            Ok(waiting) => {
                // All of them check the inbox: the first one may have stopped waiting, and would take nothing.
                waiting.iter().for_each(|signal| signal.notify());
                Ok(())
            }
            Err((None, _)) => Ok(()),
            Err((Some(refused), incoming)) => Err((refused, incoming)),
        }
    }

    fn inject_incoming(&self, incoming: Incoming) -> Result<(), InjectError> {
        self.put(incoming).map_err(|(refused, incoming)| match refused {
            Refused::Full => InjectError::Full(incoming.into_body()),
            Refused::Closed | Refused::SteeringOver => InjectError::Closed(incoming.into_body()),
        })
    }

    fn interaction(&self, source: &EventSource, content: InteractionContent) -> InboxInteraction {
        InboxInteraction::with_id(self.ids.interaction_id(), source.to_string(), content)
    }
}

impl Contents<Incoming, Extra> {
    /// Takes out the interactions that match, oldest first. The others keep their order.
    fn take_if(&mut self, matches: impl Fn(&Incoming) -> bool) -> VecDeque<Incoming> {
        if !self.items.iter().any(&matches) {
            return VecDeque::new();
        }
        let (taken, left) = std::mem::take(&mut self.items).into_iter().partition(&matches);
        self.items = left;
        self.merge_dismissals();
        taken
    }

    /// Merges dismissals that have become neighbours, since the second one has no effect. So there is at most one more
    /// of them than there are messages.
    fn merge_dismissals(&mut self) {
        let mut is_behind_dismissal = false;
        self.items.retain(|item| {
            let is_merged = is_behind_dismissal && !item.takes_room();
            is_behind_dismissal = item.is_dismissal();
            !is_merged
        });
        self.extra.roomless = self.items.iter().filter(|item| !item.takes_room()).count();
    }
}

fn take_oldest(items: &mut VecDeque<Incoming>, extra: &mut Extra) -> Option<Incoming> {
    let oldest = items.pop_front()?;
    extra.roomless -= usize::from(!oldest.takes_room());
    Some(oldest)
}

fn fail(interactions: VecDeque<Incoming>, error: &str) {
    for item in interactions {
        drop(item.reply.end(Err(error)));
    }
}

impl Incoming {
    /// An interaction without a subscriber.
    pub(crate) fn without_subscriber(interaction: InboxInteraction) -> Self {
        let reply = Reply::without_subscriber(interaction.id);
        Self { interaction, reply, steers: None }
    }

    /// Whether it counts for the capacity. A dismissal does not, since two of them are merged, unless its sender follows
    /// it.
    fn takes_room(&self) -> bool {
        !self.is_dismissal() || self.reply.has_subscriber()
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
        self.inject_incoming(Incoming::without_subscriber(interaction))
    }

    fn dismiss(&self, source: EventSource) -> Result<(), InjectError> {
        self.inject_incoming(Incoming::without_subscriber(self.interaction(&source, InteractionContent::Dismiss)))
    }
}

impl SubscribableInjector for Inbox {
    fn inject_with_subscription(
        &self,
        body: String,
        source: EventSource,
    ) -> Result<InteractionSubscription, InjectError> {
        let (incoming, subscription) = self.subscribed(self.interaction(&source, InteractionContent::Message { body }));
        self.inject_incoming(incoming)?;
        Ok(subscription)
    }
}
