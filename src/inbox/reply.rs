//! The duty to end an interaction.

use crate::model::{AgentEvent, InteractionId};
use crate::sync::{unbounded, Receiver, Sender};

/// How many unread events a subscriber may have.
const ROOM: usize = 1_024;

/// Ends its interaction's stream, if anybody subscribed to that, with exactly one terminal event: the one that it is given,
/// or, when it is dropped without one, a failure. Never waits.
#[derive(Debug)]
pub(crate) struct Reply {
    id: InteractionId,
    subscriber: Option<Subscriber>,
}

#[derive(Debug)]
struct Subscriber {
    /// Unbounded, so that the last event always has room; see [`ROOM`] for the others.
    events: Sender<AgentEvent>,
    truncated: bool,
}

impl Reply {
    /// For an interaction that nobody has subscribed to.
    pub(crate) fn to_nobody(id: InteractionId) -> Self {
        Self { id, subscriber: None }
    }

    /// For an interaction whose events come out of the returned channel.
    pub(crate) fn to_subscriber(id: InteractionId) -> (Self, Receiver<AgentEvent>) {
        let (events, receiver) = unbounded();
        (Self { id, subscriber: Some(Subscriber { events, truncated: false }) }, receiver)
    }

    pub(crate) fn has_subscriber(&self) -> bool {
        self.subscriber.is_some()
    }

    /// Passes an event of the interaction on.
    pub(crate) fn pass_on(&mut self, event: &AgentEvent) {
        let Some(subscriber) = self.subscriber.as_mut().filter(|subscriber| !subscriber.truncated) else { return };
        let event = if subscriber.events.len() < ROOM {
            event.clone()
        } else {
            subscriber.truncated = true;
            AgentEvent::StreamTruncated { reason: format!("{ROOM} events were not read") }
        };
        // Nobody listens any more: nobody to tell.
        drop(subscriber.events.send(event));
    }

    /// Ends the interaction as complete, with its answer, or as failed, with its error. Returns the event that says so.
    pub(crate) fn end(mut self, outcome: Result<&str, &str>) -> AgentEvent {
        let interaction_id = self.id;
        let terminal = match outcome {
            Ok(text) => AgentEvent::InteractionComplete { interaction_id, result: text.to_owned() },
            Err(error) => AgentEvent::InteractionFailed { interaction_id, error: error.to_owned() },
        };
        self.end_stream(terminal.clone());
        terminal
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
