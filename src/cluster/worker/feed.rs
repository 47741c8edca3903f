//! Feeds: the threads that pass a session's events on to clients.
//!
//! A feed reads a channel of the local session and sends what is there in batches. A client gives *credit*: it takes events
//! up to a sum of costs. Without credit the feed stops reading, so the channel fills up, and the emitter waits as for any
//! slow reader. A client that is gone or wants no more ends the feed; the turn goes on.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use crate::panics::record;
use crate::sync::{select, Arc, Mutex, Receiver};
use crate::wait::latch::Latch;

use super::super::engine::{Call, Engine};
use super::super::messages::{cost, WINDOW};
use super::super::scripts;
use super::hosting::{Grant, Hosted, Owner};

/// How many events one message has at most, and how many bytes it has after which no event is added.
const MOST_EVENTS: usize = 64;
const MOST_BYTES: usize = 64 << 10;
/// How often a feed without credit asks for it, in case that the message of it was lost.
const ASK_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Feed {
    pub(super) engine: Engine,
    pub(super) hosted: Arc<Hosted>,
    pub(super) owner: Owner,
    pub(super) name: String,
    pub(super) cid: String,
}

/// How a feed has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FeedEnd {
    /// The channel has no more events.
    Drained,
    /// The client is gone, or wants no more.
    Unwanted,
    /// The engine is away, or the session is given up.
    Cut,
}

/// What a feed has sent.
pub(super) struct Progress {
    next: u64,
    sent: u64,
    credit: u64,
}

/// Events that go in one message.
#[derive(Default)]
struct Batch {
    json: Vec<u8>,
    count: u64,
    cost: u64,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { next: 1, sent: 0, credit: WINDOW }
    }

    pub(super) fn is_first(&self) -> bool {
        self.next == 1
    }

    fn has_credit(&mut self, grant: &Grant) -> bool {
        self.credit = self.credit.max(grant.sum());
        self.sent < self.credit
    }
}

impl Feed {
    /// Passes events on until the channel disconnects, the client wants no more, or `over` is set and the channel is empty.
    /// `next` reads the channel without a wait.
    pub(super) fn run<T: Serialize>(
        &self,
        events: &Receiver<T>,
        next: impl Fn() -> Option<T>,
        over: &Latch,
        progress: &Mutex<Progress>,
    ) -> FeedEnd {
        let (grant, granted) = self.hosted.add_grant(format!("{}:{}", self.name, self.owner.epoch));
        let end = self.pass_on(events, next, over, progress, (&grant, &granted));
        self.hosted.end_grant(&grant);
        end
    }

    fn pass_on<T: Serialize>(
        &self,
        events: &Receiver<T>,
        next: impl Fn() -> Option<T>,
        over: &Latch,
        progress: &Mutex<Progress>,
        (grant, granted): (&Grant, &Receiver<()>),
    ) -> FeedEnd {
        let mut taken = VecDeque::with_capacity(MOST_EVENTS);
        loop {
            if taken.is_empty() {
                // Without a wait first: if both are ready, `select!` picks either.
                let first = match next() {
                    Some(event) => Some(event),
                    None => select! {
                        recv(events) -> event => event.ok(),
                        recv(over.receiver()) -> _ => return FeedEnd::Cut,
                    },
                };
                let Some(first) = first else { return FeedEnd::Drained };
                taken.push_back(first);
            }
            // At once, before any of them becomes JSON. So an emitter that waits for room is woken once, and fills all of it.
            taken.extend(std::iter::from_fn(&next).take(MOST_EVENTS - taken.len()));
            let mut batch = Batch::default();
            while batch.json.len() < MOST_BYTES {
                let Some(event) = taken.pop_front() else { break };
                batch.push(&event);
            }
            while !progress.lock().has_credit(grant) {
                select! {
                    recv(granted) -> _ => {}
                    recv(over.receiver()) -> _ => {
                        // The numbers tell the client that these are missing.
                        let unsent = taken.len() + std::iter::from_fn(&next).count();
                        progress.lock().next += batch.count + unsent as u64;
                        return FeedEnd::Cut;
                    }
                    default(ASK_AGAIN) => (),
                }
                if !progress.lock().has_credit(grant) {
                    // Without events it only reads the credit, and whether the client wants no more.
                    if let Err(end) = self.emit(Batch::default(), progress, false) {
                        return end;
                    }
                }
            }
            if let Err(end) = self.emit(batch, progress, false) {
                return end;
            }
        }
    }

    /// Tells the client that no more events follow.
    pub(super) fn end(&self, progress: &Mutex<Progress>) {
        let _ = self.emit(Batch::default(), progress, true);
    }

    /// Sends a message.
    fn emit(&self, batch: Batch, progress: &Mutex<Progress>, is_last: bool) -> Result<(), FeedEnd> {
        let Batch { mut json, count, cost } = batch;
        json.push(if json.is_empty() { b'[' } else { b' ' });
        json.push(b']');
        // Held over the call: the thread of the last life may still send.
        let mut progress = progress.lock();
        let call = Call::new(&scripts::EMIT).arg(self.cid.as_str()).arg(self.name.as_str()).arg(&*self.owner.epoch);
        let call = call.arg(progress.next.to_string()).arg(count.to_string());
        let answer = match self.engine.write(call.arg(if is_last { "1" } else { "0" }).arg(json)) {
            Ok(answer) => answer,
            Err(error) => {
                drop(progress);
                let (id, code) = (self.hosted.id, error.code());
                record!(Warn, "turnwise::cluster", "session {id}: events are lost: {code}");
                return Err(FeedEnd::Cut);
            }
        };
        let words = answer.words();
        let Some([b"ok", credit]) = words.as_deref() else { return Err(FeedEnd::Unwanted) };
        progress.next += count;
        progress.sent += cost;
        let granted = std::str::from_utf8(credit).ok().and_then(|credit| credit.parse().ok());
        progress.credit = progress.credit.max(granted.unwrap_or(0));
        Ok(())
    }
}

impl Batch {
    fn push<T: Serialize>(&mut self, event: &T) {
        // The events have no maps with other keys than texts, so this does not fail.
        let Ok(json) = serde_json::to_vec(event) else { return };
        self.json.push(if self.json.is_empty() { b'[' } else { b',' });
        self.json.extend_from_slice(&json);
        self.count += 1;
        self.cost += cost(json.len());
    }
}
