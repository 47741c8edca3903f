//! The reply that every interaction must get.

use crate::model::{AgentEvent, InteractionId};
use crate::sync::{unbounded, Receiver, Sender};

/// The limit of a subscriber's unread events.
const CAPACITY: usize = 1_024;

/// Ends the stream of its interaction's subscriber, if there is one, with exactly one terminal event: the given one, or
/// a failure if the reply is dropped without one. Never waits.
#[derive(Debug)]
pub(crate) struct Reply {
    id: InteractionId,
    subscriber: Option<Subscriber>,
}

#[derive(Debug)]
struct Subscriber {
    /// Unbounded, so that the last event always has room. [`CAPACITY`] limits the others.
    events: Sender<AgentEvent>,
    truncated: bool,
}

impl Reply {
    /// The reply of an interaction without a subscriber.
    pub(crate) fn without_subscriber(id: InteractionId) -> Self {
        Self { id, subscriber: None }
    }

    /// The reply of an interaction whose events arrive in the returned channel.
    pub(crate) fn with_subscriber(id: InteractionId) -> (Self, Receiver<AgentEvent>) {
        let (events, receiver) = unbounded();
        (Self { id, subscriber: Some(Subscriber { events, truncated: false }) }, receiver)
    }

    pub(crate) fn has_subscriber(&self) -> bool {
        self.subscriber.is_some()
    }

    /// Forwards an event of the interaction to its subscriber.
    pub(crate) fn forward(&mut self, event: &AgentEvent) {
        let Some(subscriber) = self.subscriber.as_mut().filter(|subscriber| !subscriber.truncated) else { return };
        let event = if subscriber.events.len() < CAPACITY {
            event.clone()
        } else {
            subscriber.truncated = true;
            AgentEvent::StreamTruncated { reason: format!("{CAPACITY} events were not read") }
        };
        // Fails only if the subscriber has dropped its receiver.
        drop(subscriber.events.send(event));
    }

    /// Ends the interaction as complete, with its answer, or as failed, with its error. Returns the terminal event.
    pub(crate) fn end(self, outcome: Result<&str, &str>) -> AgentEvent {
        let terminal = self.terminal_event(outcome);
        self.end_with(terminal.clone());
        terminal
    }

    /// The event that ends the interaction as complete, with its answer, or as failed, with its error.
    pub(crate) fn terminal_event(&self, outcome: Result<&str, &str>) -> AgentEvent {
        let interaction_id = self.id;
        match outcome {
            Ok(text) => AgentEvent::InteractionComplete { interaction_id, result: text.to_owned() },
            Err(error) => AgentEvent::InteractionFailed { interaction_id, error: error.to_owned() },
        }
    }

    /// Ends the interaction with its terminal event.
    pub(crate) fn end_with(mut self, terminal: AgentEvent) {
        self.end_stream(terminal);
    }

    fn end_stream(&mut self, terminal: AgentEvent) {
        if let Some(subscriber) = self.subscriber.take() {
            drop(subscriber.events.send(terminal));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let error = "the session took no more interactions".to_owned();
        self.end_stream(AgentEvent::InteractionFailed { interaction_id: self.id, error });
    }
}
