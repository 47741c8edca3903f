//! Feeds: the threads that pass a session's events on to clients.
//!
//! A feed reads a channel of the local session and sends what is there in batches. A client gives *credit*: it takes events
//! up to a sum of costs. Without credit the feed stops reading, so the channel fills up, and the emitter waits as for any
//! slow reader. A client that is gone or wants no more ends the feed; the turn goes on.
//!
//! # The end of a feed's thread
//!
//! A thread that is told to [stop](Orders::stop) reads what is in the channel, drops the channel, and sends the rest as the
//! client gives credit for it. The channel and the credit bound that rest: some 400 events. A thread that is told to
//! [cut](Orders::cut) waits for no credit any more: what is left is missing. It counts these events, and sends their number,
//! so that the client reports them even if no event follows.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use crate::model::{AgentEvent, SessionEvent};
use crate::panics::record;
use crate::subscription::stream::EventStream;
use crate::sync::{select, Arc, Mutex, Receiver};
use crate::wait::latch::Latch;

use super::super::engine::{Call, Engine};
use super::super::messages::{cost, WINDOW};
use super::super::scripts;
use super::hosting::{Grant, Hosted, Owner};

/// The capacity of the channel that a feed reads.
pub(super) const EVENTS: usize = 256;
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
    /// The channel has no more events, and all of them are sent.
    Drained,
    /// The client is gone, or wants no more.
    Unwanted,
    /// The engine is away, or the rest was cut.
    Cut,
}

/// What the thread of a feed is told.
pub(super) struct Orders<'a> {
    /// Read no more.
    pub(super) stop: &'a Latch,
    /// Wait for no credit.
    pub(super) cut: &'a Latch,
    /// Send nothing before this is set.
    pub(super) before: Option<&'a Latch>,
    /// Set by the thread, once it has dropped the channel.
    pub(super) released: Option<&'a Latch>,
}

/// What a feed reads.
pub(super) trait Source {
    type Event: Serialize;

    /// The channel of the events, for a wait.
    fn channel(&self) -> &Receiver<Self::Event>;

    /// The next event, if there is one now.
    fn next(&self) -> Option<Self::Event>;
}

impl Source for Receiver<AgentEvent> {
    type Event = AgentEvent;

    fn channel(&self) -> &Self {
        self
    }

    fn next(&self) -> Option<AgentEvent> {
        self.try_recv().ok()
    }
}

impl Source for EventStream {
    type Event = SessionEvent;

    fn channel(&self) -> &Receiver<SessionEvent> {
        self.events()
    }

    fn next(&self) -> Option<SessionEvent> {
        self.try_recv().ok()
    }
}

/// What a feed has sent.
pub(super) struct Progress {
    next: u64,
    sent: u64,
    credit: u64,
    /// Whether the client was not told yet that events are missing.
    has_lost: bool,
}

/// The channel of a feed, and the events that were taken out of it and are in no batch yet.
struct Reader<S: Source> {
    source: S,
    taken: VecDeque<S::Event>,
}

/// The client's credit, as the thread of a feed waits for it.
struct Credit<'a> {
    hosted: &'a Hosted,
    grant: Arc<Grant>,
    changes: Receiver<()>,
    /// Whether the thread has asked for it.
    has_asked: bool,
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
        Self { next: 1, sent: 0, credit: WINDOW, has_lost: false }
    }

    /// Of a feed that sends none of its events.
    pub(super) fn of_lost_events() -> Self {
        Self { next: 2, ..Self::new() }
    }

    fn has_credit(&mut self, grant: &Grant) -> bool {
        self.credit = self.credit.max(grant.sum());
        self.sent < self.credit
    }
}

/// What a message says besides its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remark {
    /// More may follow.
    More,
    /// The events before this number that the client has not got are missing.
    Gap,
    /// Nothing follows.
    Last,
}

impl Feed {
    /// Passes events on until the channel disconnects, the client wants no more, or the orders end it.
    pub(super) fn run<S: Source>(&self, source: S, orders: &Orders<'_>, progress: &Mutex<Progress>) -> FeedEnd {
        let mut reader = Reader { source, taken: VecDeque::with_capacity(MOST_EVENTS) };
        let (grant, changes) = self.hosted.add_grant(format!("{}:{}", self.name, self.owner.epoch));
        let mut credit = Credit { hosted: &self.hosted, grant, changes, has_asked: false };
        let mut unsent = VecDeque::new();
        if orders.before.is_none_or(|before| wait_for(before, orders.stop)) {
            let has_lost = progress.lock().has_lost;
            if has_lost {
                // By the thread before this one. No event may follow that would show it.
                if let Err(end) = self.emit(Batch::default(), progress, Remark::Gap) {
                    return end;
                }
            }
            match self.pass_on(&mut reader, &mut credit, orders.stop, progress) {
                Ok(batch) => unsent.extend(batch),
                Err(end) => return end,
            }
        }
        // Before anything that is waited for: the session may be about to give way to another one.
        // Only what was in the channel: a feed that its client has removed may end while its turn emits.
        let mut left = (EVENTS + MOST_EVENTS) as u64;
        while left > 0 {
            let Some(batch) = reader.read() else { break };
            left = left.saturating_sub(batch.count);
            unsent.push_back(batch);
        }
        drop(reader);
        if let Some(released) = orders.released {
            released.set();
        }
        if let Some(before) = orders.before {
            wait_for(before, orders.cut);
        }
        self.send_rest(unsent, &mut credit, orders.cut, progress)
    }

    /// Passes events on until the channel disconnects, or `stop` is set. Returns those that the client has no credit for.
    fn pass_on<S: Source>(
        &self,
        reader: &mut Reader<S>,
        credit: &mut Credit<'_>,
        stop: &Latch,
        progress: &Mutex<Progress>,
    ) -> Result<Option<Batch>, FeedEnd> {
        while let Some(batch) = reader.wait(stop) {
            if !self.wait_for_credit(credit, stop, progress)? {
                return Ok(Some(batch));
            }
            self.emit(batch, progress, Remark::More)?;
        }
        Ok(None)
    }

    /// Sends what was read, as the client gives credit, until `cut` is set.
    fn send_rest(
        &self,
        mut unsent: VecDeque<Batch>,
        credit: &mut Credit<'_>,
        cut: &Latch,
        progress: &Mutex<Progress>,
    ) -> FeedEnd {
        while !unsent.is_empty() {
            match self.wait_for_credit(credit, cut, progress) {
                Ok(true) => {}
                Ok(false) => {
                    progress.lock().next += unsent.iter().map(|batch| batch.count).sum::<u64>();
                    let told = self.emit(Batch::default(), progress, Remark::Gap);
                    return told.err().unwrap_or(FeedEnd::Cut);
                }
                Err(end) => return end,
            }
            if let Some(Err(end)) = unsent.pop_front().map(|batch| self.emit(batch, progress, Remark::More)) {
                return end;
            }
        }
        FeedEnd::Drained
    }

    /// Waits until the client takes more. Returns `false` if `until` is set before.
    fn wait_for_credit(
        &self,
        credit: &mut Credit<'_>,
        until: &Latch,
        progress: &Mutex<Progress>,
    ) -> Result<bool, FeedEnd> {
        while !progress.lock().has_credit(&credit.grant) {
            if until.is_set() {
                return Ok(false);
            }
            // Credit that came before this thread was added was passed to no thread.
            if std::mem::replace(&mut credit.has_asked, true) {
                select! {
                    recv(credit.changes) -> _ => {}
                    recv(until.receiver()) -> _ => continue,
                    default(ASK_AGAIN) => (),
                }
                if progress.lock().has_credit(&credit.grant) {
                    break;
                }
            }
            // It has no events, and only reads the credit: its message may be lost, or the client may want no more.
            self.emit(Batch::default(), progress, Remark::More)?;
        }
        Ok(true)
    }

    /// Tells the client that no more events follow.
    pub(super) fn end(&self, progress: &Mutex<Progress>) {
        let _ = self.emit(Batch::default(), progress, Remark::Last);
    }

    /// Sends a message.
    fn emit(&self, batch: Batch, progress: &Mutex<Progress>, remark: Remark) -> Result<(), FeedEnd> {
        let Batch { mut json, count, cost } = batch;
        json.push(if json.is_empty() { b'[' } else { b' ' });
        json.push(b']');
        let remark = match remark {
            Remark::More => "0",
            Remark::Gap => "gap",
            Remark::Last => "1",
        };
        // Held over the call: a thread that was cut does not wait for the one before it.
        let mut progress = progress.lock();
        let call = Call::new(&scripts::EMIT).arg(self.cid.as_str()).arg(self.name.as_str()).arg(&*self.owner.epoch);
        let call = call.arg(progress.next.to_string()).arg(count.to_string());
        let answer = match self.engine.write(call.arg(remark).arg(json)) {
            Ok(answer) => answer,
            Err(error) => {
                // Whether the client has these is not known, and the channel may have more. The next message shows the
                // client that something is missing: an event, or the gap that the next thread sends.
                progress.next += count + 1;
                progress.has_lost = true;
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
        progress.has_lost = false;
        let granted = std::str::from_utf8(credit).ok().and_then(|credit| credit.parse().ok());
        progress.credit = progress.credit.max(granted.unwrap_or(0));
        Ok(())
    }
}

/// Waits for a latch. Returns `false` if the other one is set before.
fn wait_for(latch: &Latch, until: &Latch) -> bool {
    select! {
        recv(latch.receiver()) -> _ => {}
        recv(until.receiver()) -> _ => {}
    }
    latch.is_set()
}

impl<S: Source> Reader<S> {
    /// What is in the channel, if anything is.
    fn read(&mut self) -> Option<Batch> {
        // At once, before any of them becomes JSON. So an emitter that waits for room is woken once, and fills all of it.
        let (source, room) = (&self.source, MOST_EVENTS - self.taken.len());
        self.taken.extend(std::iter::from_fn(|| source.next()).take(room));
        let mut batch = Batch::default();
        while batch.json.len() < MOST_BYTES {
            let Some(event) = self.taken.pop_front() else { break };
            batch.push(&event);
        }
        (batch.count > 0).then_some(batch)
    }

    /// Waits for the next events. `None` at the end of the channel, or once it is empty and `stop` is set.
    fn wait(&mut self, stop: &Latch) -> Option<Batch> {
        // Without a wait first: if both are ready, `select!` picks either.
        if let Some(batch) = self.read() {
            return Some(batch);
        }
        let first = select! {
            recv(self.source.channel()) -> event => event.ok(),
            recv(stop.receiver()) -> _ => None,
        };
        self.taken.push_back(first?);
        self.read()
    }
}

impl Drop for Credit<'_> {
    fn drop(&mut self) {
        self.hosted.end_grant(&self.grant);
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
