//! The thread that gives the events of one turn to their receiver, and the result behind them.
//!
//! The receiver is a channel of the host. It may be full for as long as the host likes, so no thread that serves other
//! turns sends to it. The events that wait here are bounded by the credit: the worker stops at the end of the window, and
//! its turn waits as a local one does.
//!
//! The result is given after the last event. If the end of the events does not come within one lease of the verdict, or
//! cannot come any more, a [`StreamTruncated`](AgentEvent::StreamTruncated) event stands for what is missing, and the last
//! event of the turn is made from the result.

use std::time::Duration;

use crate::cluster::engine::Call;
use crate::cluster::scripts;
use crate::error::SessionError;
use crate::model::{AgentEvent, RunResult, TurnId};
use crate::panics::record;
use crate::sync::{select, Arc, Receiver, Sender, TrySendError};
use crate::time::clock::{Clock, Deadline};
use crate::turn::handle::TurnResult;

use super::core::Core;
use super::feed::{Batch, Feed};
use super::requests::Request;
use super::sender::end_of_credit;
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
    has_last: bool,
    /// Whether the engine has a credit of this feed.
    has_credit: bool,
    /// Whether the worker was told that the client wants no more.
    is_closed: bool,
    ended: Option<TurnResult>,
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
                self.ended = Some(result);
                let may_send_more = match kind {
                    Kind::Done | Kind::Refused => true,
                    Kind::Withdrawn | Kind::Lost | Kind::Deleted | Kind::Unknown => false,
                };
                // A turn that was refused in the queue has no feed at all.
                let is_feed_known = kind == Kind::Done || self.feed.epoch() > 0;
                self.wait_for_more(if is_feed_known { Duration::MAX } else { UNKNOWN_FEED });
                return self.has_last || self.is_closed || !may_send_more;
            }
        }
        self.has_last && self.ended.is_some()
    }

    /// The worker may be gone, and then no event follows. It may be slow only as long as its lease lasts.
    fn wait_for_more(&mut self, at_most: Duration) {
        self.deadline = Clock::System.deadline(self.core.engine.config().lease.min(at_most));
    }

    fn on_batch(&mut self, batch: &Batch) {
        let Some(received) = self.feed.receive::<AgentEvent>(batch) else { return };
        self.request.set_queued(false);
        if received.is_truncated {
            self.give(truncated("events of the turn are missing"));
        }
        for (event, cost) in received.events {
            self.has_started |= matches!(event, AgentEvent::RunStarted { .. });
            self.has_last |= is_last(&event);
            self.give(event);
            if let Some(sum) = self.feed.consume(cost).filter(|_| !self.is_closed) {
                self.credit(&sum.to_string());
            }
        }
        if self.receiver.is_none() && !self.is_closed && !received.is_last {
            self.is_closed = true;
            self.credit("closed");
        }
        if received.is_last {
            self.has_last = true;
            // Disconnects the receiver, a moment before the session is free.
            self.receiver = None;
        }
        if self.ended.is_some() {
            // The receiver may have taken its time.
            self.wait_for_more(Duration::MAX);
        }
    }

    /// Gives an event to the receiver, and waits for room in it while the turn is not cancelled.
    fn give(&mut self, event: AgentEvent) {
        let Some(receiver) = &self.receiver else { return };
        let event = match receiver.try_send(event) {
            Ok(()) => return,
            Err(TrySendError::Full(event)) => event,
            Err(TrySendError::Disconnected(_)) => return self.on_receiver_dropped(),
        };
        let cancel = &self.request.cancel;
        if cancel.is_cancelled() || self.core.stopping.is_set() {
            return;
        }
        let is_dropped = select! {
            send(receiver, event) -> sent => sent.is_err(),
            recv(cancel.cancelled()) -> _ => false,
            recv(self.core.stopping.receiver()) -> _ => false,
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

    /// Tells the worker how much it may send. Without this its turn may wait for ever, so it is repeated while the turn
    /// is open.
    fn credit(&mut self, value: &str) {
        self.has_credit = true;
        let (core, request) = (&self.core, &self.request);
        loop {
            let field = format!("{}:{}", request.request, self.feed.epoch());
            let call = Call::new(&scripts::CREDIT).arg(request.id.to_string()).arg(core.name().as_bytes());
            match core.engine.write(call.arg(field).arg(value)) {
                Err(error) if error.is_passing() && request.is_open() && !core.stopping.is_set() => {}
                _ => return,
            }
        }
    }

    /// Gives the result, behind the events that are still missing.
    fn finish(mut self) {
        let result = self.ended.take().unwrap_or_else(|| Err(self.request.unknown()));
        if self.has_started && !self.has_last {
            self.give(truncated("the last events of the turn are missing"));
            self.give(self.last_event(&result));
        }
        self.receiver = None;
        let (core, request) = (&self.core, &self.request);
        let feed = request.request.to_string();
        core.feeds.remove(&feed);
        request.answer(result);
        if self.has_credit {
            // Without an answer of the engine the credit ends with the lease of the client.
            let _ = core.engine.write(end_of_credit(request.id, &core.name(), &feed, self.feed.epoch()));
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

fn is_last(event: &AgentEvent) -> bool {
    matches!(event, AgentEvent::RunCompleted { .. } | AgentEvent::RunFailed { .. })
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
