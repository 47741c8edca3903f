//! A subscription of a host: to a session, to all sessions, or to one interaction.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, TryRecvError};
use library::{
    AgentEvent, EventStream, InteractionId, InteractionSubscription, SessionError, SessionEvent, SessionId, WeakService,
};

use super::callback;
use super::closed::Closed;
use super::events::Next;
use super::notifier::{Notifier, Source};
use super::wait::Wait;
use super::watcher::Watched;
use crate::codes::{Failure, TURNWISE_CANCELLED};

/// A queue of events, read by [`next_event`](Self::next_event).
#[derive(Debug)]
pub struct Subscription {
    queue: Queue,
    /// Set when the handle of the host is closed.
    pub closed: Closed,
    service_closed: Arc<Closed>,
    source: OnceLock<Source>,
    /// The session of the events, and its service: asked why a wait was refused.
    asked: Option<(SessionId, WeakService)>,
    /// Set by the first read that has seen the end.
    has_ended: AtomicBool,
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
        Self {
            queue,
            closed: Closed::default(),
            service_closed,
            source: OnceLock::new(),
            asked: None,
            has_ended: AtomicBool::new(false),
        }
    }

    /// Has a refused wait ask the service why.
    pub(super) fn asking(mut self, id: SessionId, service: WeakService) -> Self {
        self.asked = Some((id, service));
        self
    }

    /// Whether a read has seen the end.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
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
                self.has_ended.store(true, Ordering::Release);
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
    ///
    /// # Errors
    /// In a callback `SESSION_REENTRANT` if the session of the events is the callback's own, or waits for it; and
    /// `CANCELLED` if the callback's own turn is told to stop.
    pub fn next_event(&self, mut wait: Wait<'_>) -> Result<Next<Item>, Failure> {
        let mut was_refused = false;
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
                        // The wait is refused, or the thread's own turn is cancelled.
                        Err(error) if error.is_timeout() && begin.elapsed() < slice => {
                            self.check_refusal(was_refused)?;
                            was_refused = true;
                        }
                        Err(_) => was_refused = false,
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

    /// Finds out why a wait was refused. `is_repeated`: whether the wait before was refused as well.
    fn check_refusal(&self, is_repeated: bool) -> Result<(), Failure> {
        let service = self.asked.as_ref().and_then(|(id, service)| Some((*id, service.upgrade()?)));
        if let Some((id, service)) = service {
            match service.wait_idle(id, Duration::ZERO) {
                Err(error @ (SessionError::Reentrant { .. } | SessionError::Interrupted { .. })) => {
                    return Err(error.into());
                }
                // The session that waited for this one waits no more: the wait is tried again.
                _ if !is_repeated => return Ok(()),
                _ => {}
            }
        }
        Err(Failure::new(TURNWISE_CANCELLED, "the turn that waits is told to stop"))
    }
}
