//! Messages that steer a turn: what their senders see of them.

use std::collections::HashMap;
use std::time::Duration;

use crate::cluster::engine::{unexpected, Call};
use crate::cluster::error::EngineError;
use crate::cluster::scripts;
use crate::error::SessionError;
use crate::inbox::injector::InteractionSubscription;
use crate::inbox::reply::Reply as InteractionReply;
use crate::model::{AgentEvent, InteractionContent, InteractionId, SessionId, TurnId};
use crate::sync::{Mutex, Sender};
use crate::time::clock::Clock;

use super::core::{engine_failed, Core};
use super::reading::Look;
use super::sender::Job;

/// The messages whose end is not known yet.
#[derive(Default)]
pub(super) struct Steered {
    open: Mutex<HashMap<InteractionId, Message>>,
}

struct Message {
    reply: InteractionReply,
    /// Whether the turn has taken it. Then its end is reported by the worker.
    is_taken: bool,
    /// The number of the last report of the worker.
    reports: u64,
}

/// What becomes of a message: an entry `steered {request} kind {what} body {event} number {number}`. The step that ends a
/// turn gives no number.
pub(super) struct Report<'a> {
    pub(super) number: Option<u64>,
    pub(super) what: &'a [u8],
    pub(super) body: &'a [u8],
}

impl Steered {
    /// Takes a report in.
    pub(super) fn receive(&self, request: &[u8], report: &Report<'_>, jobs: &Sender<Job>, lease: Duration) {
        let Some(id) = std::str::from_utf8(request).ok().and_then(|text| text.parse().ok()) else { return };
        let Report { number, what, body } = *report;
        if number.is_some_and(|number| !self.is_next(id, number)) {
            return;
        }
        let event = || serde_json::from_slice(body).ok().map(|event| with_id(event, id));
        match what {
            b"taken" => {
                if let Some(message) = self.open.lock().get_mut(&id) {
                    message.is_taken = true;
                }
            }
            b"event" => {
                if let (Some(event), Some(message)) = (event(), self.open.lock().get_mut(&id)) {
                    message.reply.forward(&event);
                }
            }
            b"end" => match event() {
                Some(event) => self.end(id, event),
                None => self.fail(id, "its end cannot be read: the worker has another version of this crate"),
            },
            b"over" => {
                let is_taken = self.open.lock().get(&id).is_some_and(|message| message.is_taken);
                if is_taken {
                    if let Some(at) = Clock::System.now().checked_add(lease) {
                        // Fails only if the client has stopped.
                        let _ = jobs.send(Job::EndSteering(at, id));
                    }
                } else {
                    self.fail(id, "the turn has ended without taking it");
                }
            }
            b"lost" => self.fail(id, "the worker of the turn is gone"),
            _ => {}
        }
    }

    /// Whether a report of a worker has not come before. A worker repeats one whose answer was lost.
    fn is_next(&self, id: InteractionId, number: u64) -> bool {
        let mut open = self.open.lock();
        let Some(message) = open.get_mut(&id) else { return false };
        let is_next = number > message.reports;
        message.reports = message.reports.max(number);
        is_next
    }

    /// The turn has ended, and what has become of the message was not reported in time.
    pub(super) fn give_up(&self, id: InteractionId) {
        self.fail(id, "the worker has not reported its end");
    }

    pub(super) fn fail_all(&self, error: &str) {
        let open = std::mem::take(&mut *self.open.lock());
        for message in open.into_values() {
            message.reply.end(Err(error));
        }
    }

    fn fail(&self, id: InteractionId, error: &str) {
        let message = self.open.lock().remove(&id);
        if let Some(message) = message {
            message.reply.end(Err(error));
        }
    }

    fn end(&self, id: InteractionId, event: AgentEvent) {
        let message = self.open.lock().remove(&id);
        if let Some(message) = message {
            message.reply.end_with(event);
        }
    }

    /// Enters a message before its call is sent, since reports may come before the reply of the call.
    fn enter(&self, id: InteractionId) -> InteractionSubscription {
        let (reply, events) = InteractionReply::with_subscriber(id);
        self.open.lock().insert(id, Message { reply, is_taken: false, reports: 0 });
        InteractionSubscription { id, events }
    }

    fn remove(&self, id: InteractionId) {
        let message = self.open.lock().remove(&id);
        drop(message);
    }
}

impl Core {
    pub(super) fn steer(
        &self,
        id: SessionId,
        turn: Option<TurnId>,
        content: &InteractionContent,
    ) -> Result<InteractionSubscription, SessionError> {
        let body = serde_json::to_vec(content)
            .map_err(|_| engine_failed(Some(id), EngineError::failed("a message that has no JSON")))?;
        let message = InteractionId::new();
        let subscription = self.steered.enter(message);
        let turn = turn.map(|turn| turn.to_string()).unwrap_or_default();
        let call = Call::new(&scripts::STEER).arg(id.to_string()).arg(turn).arg(message.to_string());
        let answer = self.engine.write(call.arg(self.name().as_bytes()).arg(body));
        let error = match answer.as_ref().map(|answer| answer.words()) {
            Ok(Some(words)) => match words.as_slice() {
                [b"ok", _] => return Ok(subscription),
                [b"missing"] => SessionError::NotFound { id },
                [b"archived"] => SessionError::Archived { id },
                [b"idle"] => self.idle_error(id),
                // Asked for before it came.
                [b"tombstone"] => SessionError::NotRunning { id },
                _ => engine_failed(Some(id), unexpected(&scripts::STEER)),
            },
            Ok(None) => engine_failed(Some(id), unexpected(&scripts::STEER)),
            Err(error) => engine_failed(Some(id), error.clone()),
        };
        self.steered.remove(message);
        Err(error)
    }

    /// The error of a message for a session without that turn.
    fn idle_error(&self, id: SessionId) -> SessionError {
        match self.look(id) {
            Ok(Some(Look { fault: Some(message), .. })) => SessionError::Faulted { id, message },
            _ => SessionError::NotRunning { id },
        }
    }
}

/// The worker's session gives the message an id of its own.
fn with_id(event: AgentEvent, interaction_id: InteractionId) -> AgentEvent {
    match event {
        AgentEvent::InteractionComplete { result, .. } => AgentEvent::InteractionComplete { interaction_id, result },
        AgentEvent::InteractionFailed { error, .. } => AgentEvent::InteractionFailed { interaction_id, error },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{unbounded, Receiver};

    struct Sent {
        steered: Steered,
        message: InteractionSubscription,
        jobs: (Sender<Job>, Receiver<Job>),
    }

    fn sent() -> Sent {
        let steered = Steered::default();
        let message = steered.enter(InteractionId::new());
        Sent { steered, message, jobs: unbounded() }
    }

    impl Sent {
        fn report(&self, what: &str, event: Option<&AgentEvent>) {
            self.report_as(what, event, None);
        }

        fn report_as(&self, what: &str, event: Option<&AgentEvent>, number: Option<u64>) {
            let body = event.map(|event| serde_json::to_string(event).unwrap()).unwrap_or_default();
            let request = self.message.id.to_string();
            let lease = Duration::from_secs(1);
            let report = Report { number, what: what.as_bytes(), body: body.as_bytes() };
            self.steered.receive(request.as_bytes(), &report, &self.jobs.0, lease);
        }

        fn events(&self) -> Vec<AgentEvent> {
            self.message.events.try_iter().collect()
        }
    }

    #[test]
    fn c87_the_end_of_a_message_has_the_id_that_its_sender_knows() {
        let sent = sent();
        sent.report("taken", None);
        let delta = AgentEvent::TextDelta { delta: "hm".into() };
        sent.report("event", Some(&delta));
        let result = "done".to_owned();
        let end = AgentEvent::InteractionComplete { interaction_id: InteractionId::new(), result: result.clone() };
        sent.report("end", Some(&end));
        sent.report("end", Some(&end));
        let own = AgentEvent::InteractionComplete { interaction_id: sent.message.id, result };
        assert_eq!(sent.events(), [delta, own]);
    }

    #[test]
    fn c87_a_report_that_is_repeated_is_shown_once() {
        let sent = sent();
        let deltas = ["a", "b"].map(|text| AgentEvent::TextDelta { delta: text.into() });
        sent.report_as("taken", None, Some(1));
        for (number, at) in [(2, 0), (2, 0), (3, 1), (2, 0), (3, 1)] {
            sent.report_as("event", Some(&deltas[at]), Some(number));
        }
        assert_eq!(sent.events(), deltas);
    }

    #[test]
    fn c87_a_message_that_the_turn_has_not_taken_fails_at_its_end_and_another_waits() {
        let untaken = sent();
        untaken.report("over", None);
        assert!(matches!(untaken.events().as_slice(), [AgentEvent::InteractionFailed { .. }]));
        let taken = sent();
        taken.report("taken", None);
        taken.report("over", None);
        assert!(taken.events().is_empty());
        let Ok(Job::EndSteering(_, id)) = taken.jobs.1.try_recv() else { panic!("no end is planned") };
        taken.steered.give_up(id);
        assert!(matches!(taken.events().as_slice(), [AgentEvent::InteractionFailed { .. }]));
    }

    #[test]
    fn c87_a_message_whose_worker_is_gone_fails() {
        let sent = sent();
        sent.report("lost", None);
        assert!(matches!(sent.events().as_slice(), [AgentEvent::InteractionFailed { .. }]));
    }
}
