//! A session's inbox.

use std::collections::VecDeque;

use crate::ids::Ids;
use crate::model::{EventSource, InboxInteraction, InteractionContent, InteractionId};
use crate::sync::{Mutex, Receiver};
use crate::wait::bell::Bell;
use crate::wait::cancel::CancelToken;

use super::injector::{EventInjector, InjectError, InteractionSubscription, SubscribableInjector};
use super::reply::Reply;

/// An interaction, and what is owed to whoever started it.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) interaction: InboxInteraction,
    pub(crate) reply: Reply,
}

/// What has been injected and not been taken yet.
#[derive(Debug)]
pub(crate) struct Inbox {
    capacity: usize,
    ids: Ids,
    state: Mutex<State>,
    bell: Bell,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Incoming>,
    /// How many dismissals are among them: they take no room.
    dismissals: usize,
    closed: bool,
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
        Self { capacity, ids, state: Mutex::default(), bell: Bell::new() }
    }

    /// A channel that something can be received from while there may be something in the inbox. For one listener.
    pub(crate) fn listen(&self) -> Receiver<()> {
        self.bell.listen(|| !self.state.lock().items.is_empty())
    }

    /// The oldest, to be run under `cancel`. Rings again for what is left.
    pub(crate) fn take_next(&self, cancel: &CancelToken) -> Option<Incoming> {
        let (next, more) = {
            let mut state = self.state.lock();
            let next = state.items.pop_front();
            match &next {
                Some(dismissal) if dismissal.is_dismissal() => state.dismissals -= 1,
                Some(next) => state.running = Some((next.interaction.id, cancel.clone())),
                None => {}
            }
            (next, !state.items.is_empty())
        };
        if more {
            self.bell.ring();
        }
        next
    }

    /// Notes an interaction that did not come through the inbox and is run under `cancel`. A dismissal is not run.
    pub(crate) fn begin_running(&self, incoming: &Incoming, cancel: &CancelToken) {
        if !incoming.is_dismissal() {
            let last = self.state.lock().running.replace((incoming.interaction.id, cancel.clone()));
            drop(last);
        }
    }

    /// No interaction runs any more.
    pub(crate) fn end_running(&self) {
        let last = self.state.lock().running.take();
        drop(last);
    }

    /// Finds one interaction, to end it alone. One that is queued is taken out.
    pub(crate) fn find(&self, id: InteractionId) -> Option<Found> {
        let mut state = self.state.lock();
        if let Some((running, cancel)) = &state.running {
            if *running == id {
                return Some(Found::Running(cancel.clone()));
            }
        }
        let place = state.items.iter().position(|item| item.interaction.id == id && !item.is_dismissal())?;
        state.items.remove(place).map(Found::Queued)
    }

    /// Takes out, and fails, every interaction that is followed. Host mode has ended, and the next turn in host mode may never come;
    /// the sender is told, and may send it again.
    pub(crate) fn fail_followed(&self) {
        let followed = {
            let mut state = self.state.lock();
            if !state.items.iter().any(|item| item.reply.has_subscriber()) {
                return;
            }
            let items = std::mem::take(&mut state.items);
            let (followed, left): (VecDeque<_>, _) = items.into_iter().partition(|item| item.reply.has_subscriber());
            state.items = left;
            followed
        };
        for item in followed {
            drop(item.reply.end(Err("host mode ended before the interaction ran")));
        }
    }

    /// All that there is now, oldest first.
    pub(crate) fn take_all(&self) -> VecDeque<Incoming> {
        let mut state = self.state.lock();
        state.dismissals = 0;
        std::mem::take(&mut state.items)
    }

    /// Takes nothing in any more. What is in it fails.
    pub(crate) fn close(&self) {
        let items = {
            let mut state = self.state.lock();
            state.closed = true;
            std::mem::take(&mut state.items)
        };
        drop(items);
    }

    fn put(&self, incoming: Incoming) -> Result<(), InjectError> {
        let refused = {
            let mut state = self.state.lock();
            let is_dismissal = incoming.is_dismissal();
            if state.closed {
                Some((incoming, InjectError::Closed as fn(String) -> InjectError))
            } else if is_dismissal && state.items.back().is_some_and(Incoming::is_dismissal) {
                // Said already.
                return Ok(());
            } else if !is_dismissal && state.items.len() - state.dismissals >= self.capacity {
                Some((incoming, InjectError::Full as fn(String) -> InjectError))
            } else {
                state.dismissals += usize::from(is_dismissal);
                state.items.push_back(incoming);
                None
            }
        };
        match refused {
            None => {
                self.bell.ring();
                Ok(())
            }
            Some((incoming, error)) => Err(error(incoming.into_body())),
        }
    }

    fn interaction(&self, source: &EventSource, content: InteractionContent) -> InboxInteraction {
        InboxInteraction::with_id(self.ids.interaction_id(), source.to_string(), content)
    }
}

impl Incoming {
    /// From somebody who does not follow what becomes of it.
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
