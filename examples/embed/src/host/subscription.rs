//! A subscription of a host: to a session, to all sessions, or to one interaction.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crossbeam_channel::{Receiver, Select, TryRecvError};
use library::{AgentEvent, EventStream, InteractionId, InteractionSubscription, SessionEvent, SessionId};

use super::callback;
use super::closed::Closed;
use super::events::Next;
use super::notifier::{Notifier, Source};
use super::wait::Wait;
use super::watcher::Watched;
use crate::codes::Failure;

/// A queue of events, read by [`next_event`](Self::next_event).
#[derive(Debug)]
pub struct Subscription {
    queue: Queue,
    /// Set when the handle of the host is closed.
    pub closed: Closed,
    service_closed: Arc<Closed>,
    source: OnceLock<Source>,
}

#[derive(Debug)]
enum Queue {
    Session(EventStream),
    Interaction { session: SessionId, id: InteractionId, events: Receiver<AgentEvent> },
}

/// An event of a subscription.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// An event with its number in the session.
    Numbered(SessionEvent),
    /// An event of an interaction.
    OfInteraction(SessionId, AgentEvent),
}

impl Subscription {
    pub(super) fn of_session(stream: EventStream, service_closed: Arc<Closed>) -> Self {
        Self::new(Queue::Session(stream), service_closed)
    }

    pub(super) fn of_interaction(
        session: SessionId,
        interaction: InteractionSubscription,
        service_closed: Arc<Closed>,
    ) -> Self {
        let InteractionSubscription { id, events } = interaction;
        Self::new(Queue::Interaction { session, id, events }, service_closed)
    }

    fn new(queue: Queue, service_closed: Arc<Closed>) -> Self {
        Self { queue, closed: Closed::default(), service_closed, source: OnceLock::new() }
    }

    /// The id of the interaction, if the subscription is one to an interaction.
    pub fn interaction_id(&self) -> Option<InteractionId> {
        match &self.queue {
            Queue::Session(_) => None,
            Queue::Interaction { id, .. } => Some(*id),
        }
    }

    /// The number of events that the subscription has missed.
    pub fn dropped(&self) -> u64 {
        match &self.queue {
            Queue::Session(stream) => stream.dropped(),
            Queue::Interaction { .. } => 0,
        }
    }

    pub(super) fn attach(&self, notifier: &Arc<Notifier>) {
        let watched = match &self.queue {
            Queue::Session(stream) => Watched::Subscription(stream.events().clone()),
            Queue::Interaction { events, .. } => Watched::Events(events.clone()),
        };
        drop(self.source.set(notifier.watch(watched)));
    }

    /// The next event, without waiting.
    pub fn try_next(&self) -> Next<Item> {
        let (received, is_empty) = match &self.queue {
            Queue::Session(stream) => (stream.try_recv().map(Item::Numbered), stream.events().is_empty()),
            Queue::Interaction { session, events, .. } => {
                (events.try_recv().map(|event| Item::OfInteraction(*session, event)), events.is_empty())
            }
        };
        let source = self.source.get();
        match received {
            Ok(item) => {
                if let Some(source) = source {
                    source.after_read(is_empty);
                }
                Next::Event(item)
            }
            Err(TryRecvError::Empty) => {
                if let Some(source) = source {
                    source.after_read(true);
                }
                Next::Empty
            }
            Err(TryRecvError::Disconnected) => {
                if let Some(source) = source {
                    source.end();
                }
                Next::End
            }
        }
    }

    /// The number of unread events.
    pub(super) fn unread(&self) -> usize {
        match &self.queue {
            Queue::Session(stream) => stream.events().len(),
            Queue::Interaction { events, .. } => events.len(),
        }
    }

    pub(super) fn add_to<'a>(&'a self, select: &mut Select<'a>) {
        match &self.queue {
            Queue::Session(stream) => select.recv(stream.events()),
            Queue::Interaction { events, .. } => select.recv(events),
        };
    }

    /// Waits for the next event; `Empty` if none comes in time.
    pub fn next_event(&self, mut wait: Wait<'_>) -> Result<Next<Item>, Failure> {
        loop {
            let next = self.try_next();
            if !matches!(next, Next::Empty) {
                return Ok(next);
            }
            self.closed.check()?;
            self.service_closed.check()?;
            if wait.is_over() {
                return Ok(Next::Empty);
            }
            match &self.queue {
                Queue::Session(stream) if callback::is_inside() => {
                    wait.run_check()?;
                    let (slice, begin) = (wait.slice(), Instant::now());
                    match stream.recv_timeout(slice) {
                        Ok(event) => return Ok(Next::Event(Item::Numbered(event))),
                        // The wait is refused, or the thread's own turn is cancelled. The caller checks its turn.
                        Err(error) if error.is_timeout() && begin.elapsed() < slice => return Ok(Next::Empty),
                        Err(_) => {}
                    }
                }
                _ => {
                    let mut select = Select::new();
                    self.add_to(&mut select);
                    select.recv(self.closed.receiver());
                    select.recv(self.service_closed.receiver());
                    wait.park(&mut select)?;
                }
            }
        }
    }
}
