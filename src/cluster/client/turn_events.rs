//! The thread that gives the events of one turn to their receiver, and the result behind them.
//!
//! The receiver is a channel of the host. It may be full for as long as the host likes, so no thread that serves other
//! turns sends to it. The events that wait here are bounded by the credit: the worker stops at the end of the window, and
//! its turn waits as a local one does.
//!
//! The result is given after the last event. If the end of the events does not come within one lease of the verdict and of
//! the last batch, or cannot come any more, a [`StreamTruncated`](AgentEvent::StreamTruncated) event stands for what is
//! missing, and the last event of the turn is made from the result. An agent may pass on the events of a sub-agent's turn:
//! only those with the session and the number of this turn begin and end it.
//!
//! Behind the result the thread waits for the end of the feed, for one lease at most. A worker that has more to send finds
//! the feed closed then.

use std::time::Duration;

use crate::cluster::error::EngineError;
use crate::error::SessionError;
use crate::model::{AgentEvent, RunResult, SessionId, TurnId};
use crate::panics::record;
use crate::sync::{select, Arc, Receiver, Sender, TrySendError};
use crate::time::clock::{Clock, Deadline};
use crate::turn::handle::TurnResult;

use super::core::Core;
use super::feed::{Batch, Feed};
use super::requests::Request;
use super::sender::{FeedCredit, Job};
use super::verdict::Kind;

/// How long the events of a turn are waited for that was refused, and of which none has come.
const UNKNOWN_FEED: Duration = Duration::from_secs(1);

/// A message to the thread.
pub(super) enum FeedMessage {
    /// The turn is accepted. Batches may come before. Without a receiver the events are dropped.
    Begin {
        receiver: Option<Sender<AgentEvent>>,
        turn: TurnId,
    },
    Batch(Batch),
    /// The request has ended.
    Ended {
        result: TurnResult,
        kind: Kind,
    },
}

/// The thread's data.
pub(super) struct TurnEvents {
    core: Arc<Core>,
    request: Arc<Request>,
    messages: Receiver<FeedMessage>,
    receiver: Option<Sender<AgentEvent>>,
    turn: TurnId,
    feed: Feed,
    has_started: bool,
    /// Whether the turn's last event has come.
    has_last: bool,
    /// Whether the worker has nothing more to send.
    is_feed_over: bool,
    /// Whether events were missing.
    has_gap: bool,
    /// Whether the last event had no room.
    is_behind: bool,
    /// Whether a credit was given, so that the engine has a field for it.
    has_credit: bool,
    /// Whether the worker was told that the client wants no more.
    is_closed: bool,
    ended: Option<(TurnResult, Kind)>,
    /// When the result is given at the latest.
    deadline: Deadline,
}

impl TurnEvents {
    pub(super) fn new(core: Arc<Core>, request: Arc<Request>, messages: Receiver<FeedMessage>) -> Self {
        Self {
            core,
            request,
            messages,
            receiver: None,
            turn: TurnId::new(0),
            feed: Feed::default(),
            has_started: false,
            has_last: false,
            is_feed_over: false,
            has_gap: false,
            is_behind: false,
            has_credit: false,
            is_closed: false,
            ended: None,
            deadline: Deadline::never(),
        }
    }

    pub(super) fn run(mut self) {
        let Some(early) = self.wait_for_begin() else { return };
        let mut is_over = early.into_iter().any(|message| self.on_message(message));
        while !is_over {
            is_over = match self.deadline.receive(&self.messages) {
                Ok(message) => self.on_message(message),
                // The time is over, or the client has ended.
                Err(_) => true,
            };
        }
        self.finish();
    }

    /// Waits until the turn is accepted. Returns the messages that came before; `None` if it is refused.
    fn wait_for_begin(&mut self) -> Option<Vec<FeedMessage>> {
        let mut early = Vec::new();
        loop {
            match self.messages.recv() {
                Ok(FeedMessage::Begin { receiver, turn }) => {
                    self.turn = turn;
                    self.receiver = receiver;
                    return Some(early);
                }
                Ok(message) => early.push(message),
                Err(_) => return None,
            }
        }
    }

    /// Returns whether nothing more is to come.
    fn on_message(&mut self, message: FeedMessage) -> bool {
        match message {
            FeedMessage::Begin { .. } => {}
            FeedMessage::Batch(batch) => self.on_batch(&batch),
            FeedMessage::Ended { result, kind } => {
                self.ended = Some((result, kind));
                let may_send_more = match kind {
                    Kind::Done | Kind::Refused => true,
                    Kind::Withdrawn | Kind::Lost | Kind::Deleted | Kind::Unknown => false,
                };
                // A turn that was refused in the queue has no feed at all.
                let is_feed_known = kind == Kind::Done || self.feed.epoch() > 0;
                self.wait_for_more(if is_feed_known { Duration::MAX } else { UNKNOWN_FEED });
                return self.is_over() || self.is_closed || !may_send_more;
            }
        }
        self.is_over() && self.ended.is_some()
    }

    /// Whether all events have come.
    fn is_over(&self) -> bool {
        self.has_last || self.is_feed_over
    }

    /// The worker may be gone, and then no event follows. It may be slow only as long as its lease lasts.
    fn wait_for_more(&mut self, at_most: Duration) {
        self.deadline = Clock::System.deadline(self.core.engine.config().lease.min(at_most));
    }

    fn on_batch(&mut self, batch: &Batch) {
        let Some(received) = self.feed.receive::<AgentEvent>(batch) else { return };
        self.request.begin();
        if received.is_truncated {
            self.has_gap = true;
            self.give(truncated("events of the turn are missing"));
        }
        for (event, cost) in received.events {
            self.has_started |= self.begins(&event);
            self.has_last |= self.ends(&event);
            self.give(event);
            self.consume(cost);
        }
        // Events that cannot be read take credit too.
        self.consume(0);
        self.is_feed_over |= received.is_last;
        if self.receiver.is_none() && !self.is_closed && !self.is_feed_over {
            self.is_closed = true;
            self.credit("closed");
        }
        if self.has_last || self.is_feed_over && !self.has_gap {
            // Disconnects the receiver, a moment before the session is free.
            self.receiver = None;
        }
        if self.ended.is_some() {
            // The receiver may have taken its time.
            self.wait_for_more(Duration::MAX);
        }
    }

    fn begins(&self, event: &AgentEvent) -> bool {
        matches!(event, AgentEvent::RunStarted { session_id, turn_id, .. } if self.is_own(*session_id, *turn_id))
    }

    fn ends(&self, event: &AgentEvent) -> bool {
        match event {
            AgentEvent::RunCompleted { session_id, turn_id, .. }
            | AgentEvent::RunFailed { session_id, turn_id, .. } => self.is_own(*session_id, *turn_id),
            _ => false,
        }
    }

    fn is_own(&self, session: SessionId, turn: TurnId) -> bool {
        (session, turn) == (self.request.id, self.turn)
    }

    fn consume(&mut self, cost: u64) {
        if let Some(sum) = self.feed.consume(cost).filter(|_| !self.is_closed) {
            self.credit(&sum.to_string());
        }
    }

    /// Gives an event to the receiver, and waits for room in it while the turn is not cancelled. Behind events that had no
    /// room comes one that says so.
    fn give(&mut self, event: AgentEvent) {
        if std::mem::take(&mut self.is_behind) {
            self.send(truncated("events of the cancelled turn had no room"));
        }
        if !self.is_behind {
            self.send(event);
        }
    }

    fn send(&mut self, event: AgentEvent) {
        let Some(receiver) = &self.receiver else { return };
        let event = match receiver.try_send(event) {
            Ok(()) => return,
            Err(TrySendError::Full(event)) => event,
            Err(TrySendError::Disconnected(_)) => return self.on_receiver_dropped(),
        };
        let cancel = &self.request.cancel;
        let is_dropped = select! {
            send(receiver, event) -> sent => sent.is_err(),
            recv(cancel.cancelled()) -> _ => return self.is_behind = true,
            recv(self.core.stopping.receiver()) -> _ => return self.is_behind = true,
        };
        if is_dropped {
            self.on_receiver_dropped();
        }
    }

    fn on_receiver_dropped(&mut self) {
        self.receiver = None;
        let (id, turn) = (self.request.id, self.turn);
        record!(
            Warn,
            "turnwise::events",
            "session {id}: the event receiver of turn {turn} was dropped; the turn goes on"
        );
    }

    /// Tells the worker how much it may send. Without this its turn may wait for ever, so it is repeated until the turn has
    /// ended.
    fn credit(&mut self, value: &str) {
        let (core, credit) = (&self.core, self.feed_credit());
        self.has_credit = true;
        while !core.stopping.is_set() {
            match core.engine.write(credit.call(&core.name(), value)) {
                Ok(_) | Err(EngineError::Replaced) => return,
                Err(_) if self.request.has_ended() => return,
                Err(_) => core.pause(),
            }
        }
    }

    fn feed_credit(&self) -> FeedCredit {
        FeedCredit { id: self.request.id, feed: self.request.request.to_string(), epoch: self.feed.epoch() }
    }

    /// Gives the result, behind the events that are still missing.
    fn finish(mut self) {
        let (result, kind) = self.ended.take().unwrap_or_else(|| (Err(self.request.unknown()), Kind::Unknown));
        let has_all = self.has_last || self.is_feed_over && !self.has_gap;
        // All events of a turn that has run may be missing.
        if (self.has_started || kind == Kind::Done) && !has_all {
            if !self.is_feed_over {
                self.give(truncated("the last events of the turn are missing"));
            }
            self.give(self.last_event(&result));
        }
        self.receiver = None;
        self.request.answer(result);
        if self.has_last {
            self.wait_for_end_of_feed();
        }
        self.core.feeds.remove(&self.request.request.to_string());
        self.end_credit();
    }

    /// The worker says that nothing follows, a moment after the last event.
    fn wait_for_end_of_feed(&mut self) {
        self.wait_for_more(Duration::MAX);
        while !self.is_feed_over {
            match self.deadline.receive(&self.messages) {
                Ok(FeedMessage::Batch(batch)) => self.on_batch(&batch),
                Ok(_) => {}
                // The time is over, or the client has ended.
                Err(_) => return,
            }
        }
    }

    /// Removes the credit. A worker that has more to send may wait for it, so it finds the feed closed first.
    fn end_credit(&mut self) {
        if self.feed.epoch() == 0 || self.core.stopping.is_set() {
            return;
        }
        if !self.is_feed_over {
            if !self.is_closed {
                self.credit("closed");
            }
            // Fails only if the client has stopped; then the credit ends with its lease.
            let _ = self.core.jobs.send(Job::EndCredit(self.core.end_of_credit(), self.feed_credit()));
        } else if self.has_credit {
            let _ = self.core.jobs.send(Job::EndCredit(Clock::System.now(), self.feed_credit()));
        }
    }

    /// The last event of a turn with this result.
    fn last_event(&self, result: &TurnResult) -> AgentEvent {
        let (session_id, turn_id) = (self.request.id, self.turn);
        match result {
            Ok(RunResult { text, usage, .. }) => {
                AgentEvent::RunCompleted { session_id, turn_id, result: text.clone(), usage: *usage }
            }
            Err(error) => AgentEvent::RunFailed { session_id, turn_id, error: text_of(error) },
        }
    }
}

pub(super) fn truncated(reason: &str) -> AgentEvent {
    AgentEvent::StreamTruncated { reason: reason.to_owned() }
}

fn text_of(error: &SessionError) -> String {
    match error.agent_error() {
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}
