//! Subscriptions to sessions: a thread for each passes the events of the session's feed to the stream.
//!
//! The feed outlives the worker: the next one goes on with it, in a new epoch. It ends with the session. A client with a
//! new name asks for a new feed, from the event behind the last one that it has seen.

use std::time::Duration;

use uuid::Uuid;

use crate::cluster::engine::{unexpected, Call};
use crate::cluster::error::EngineError;
use crate::cluster::messages::FeedOptions;
use crate::cluster::scripts;
use crate::error::SessionError;
use crate::model::{SessionEvent, SessionId};
use crate::subscription::queue::{Origin, PushOutcome, Queue, Scope};
use crate::subscription::stream::EventStream;
use crate::subscription::Subscription;
use crate::sync::{room_for_a_thread, select, unbounded, Arc, Builder, Receiver};
use crate::time::clock::Clock;

use super::core::{engine_failed, Core};
use super::feed::{Batch, Feed, Received};
use super::feeds::Reader;
use super::known::Known;
use super::sender::{FeedCredit, Job};
use super::turn_events::truncated;

/// A message to the thread of a subscription.
pub(super) enum FollowMessage {
    Batch(Batch),
    /// The client has a new name.
    Renamed,
}

struct Follower {
    core: Arc<Core>,
    id: SessionId,
    /// Keeps the key of the stream's waits.
    _known: Arc<Known>,
    queue: Arc<Queue>,
    messages: Receiver<FollowMessage>,
    name: String,
    feed: Feed,
    /// Whether the client has had a new name since the last events: some may be lost.
    is_renamed: bool,
    /// The number of the last event that was seen.
    last_seq: Option<u64>,
    /// Where the stream begins.
    from_seq: Option<u64>,
}

impl Core {
    pub(super) fn subscribe(
        self: &Arc<Self>,
        id: SessionId,
        options: Subscription,
    ) -> Result<EventStream, SessionError> {
        let known = self.known.get(id);
        let (key, from_seq) = (self.wait_key(&known, id), options.from_seq);
        let (queue, stream) = EventStream::new(options, Scope::OneSession, Clock::System, Arc::default());
        let (reader, messages) = unbounded();
        let name = Uuid::now_v7().to_string();
        if !self.feeds.enter(name.clone(), Reader::Session(reader)) {
            return Err(engine_failed(Some(id), EngineError::Replaced));
        }
        let follower = Follower {
            core: Arc::clone(self),
            id,
            _known: known,
            queue,
            messages,
            name,
            feed: Feed::default(),
            is_renamed: false,
            last_seq: None,
            from_seq,
        };
        follower.follow()?;
        let builder = Builder::new().name("turnwise-follow".into());
        // A follower that is dropped removes its feed.
        let spawned = room_for_a_thread().and_then(|()| builder.spawn(move || follower.run()));
        spawned.map_err(|source| SessionError::Spawn { source: Arc::new(source) })?;
        Ok(stream.of_session(key))
    }
}

impl Follower {
    /// Asks for the feed.
    fn follow(&self) -> Result<(), SessionError> {
        let (core, id) = (&self.core, self.id);
        let options = FeedOptions { from_seq: self.last_seq.map(|seq| seq + 1).or(self.from_seq) };
        let options = serde_json::to_vec(&options)
            .map_err(|_| engine_failed(Some(id), EngineError::failed("options that have no JSON")))?;
        let call = Call::new(&scripts::FOLLOW).arg(id.to_string()).arg(core.name().as_bytes());
        let answer = core.engine.write(call.arg(self.name.as_str()).arg(options));
        let answer = answer.map_err(|error| engine_failed(Some(id), error))?;
        match answer.words().as_deref() {
            Some([b"ok"]) => Ok(()),
            Some([b"missing"]) => Err(SessionError::NotFound { id }),
            Some([b"archived"]) => Err(SessionError::Archived { id }),
            _ => Err(engine_failed(Some(id), unexpected(&scripts::FOLLOW))),
        }
    }

    fn run(mut self) {
        let mut is_over = false;
        while !is_over {
            is_over = select! {
                recv(self.messages) -> message => match message {
                    Ok(FollowMessage::Batch(batch)) => self.on_batch(&batch),
                    Ok(FollowMessage::Renamed) => self.on_renamed(),
                    Err(_) => true,
                },
                recv(self.queue.stream_dropped().receiver()) -> _ => true,
                recv(self.core.stopping.receiver()) -> _ => true,
                default(self.look_period()) => self.is_session_over(),
            };
        }
    }

    /// How long a feed may be silent until the thread looks whether the session is still there.
    fn look_period(&self) -> Duration {
        self.core.engine.config().lease / 2
    }

    /// Returns whether the stream has ended.
    fn on_batch(&mut self, batch: &Batch) -> bool {
        let before = self.feed.epoch();
        let Some(received) = self.feed.receive::<SessionEvent>(batch) else { return false };
        if before > 0 && self.feed.epoch() > before {
            // The worker of that epoch has lost the session.
            let _ = self.core.jobs.send(Job::EndCredit(Clock::System.now(), self.credit_of(before)));
        }
        if received.is_truncated || self.misses_events(&received) {
            let (session_id, seq) = (self.id, self.last_seq.unwrap_or(0));
            let event = truncated("events of the session may be missing: see the numbers");
            if self.push(SessionEvent { session_id, turn_id: None, seq, event }) {
                return true;
            }
        }
        for (event, cost) in received.events {
            if self.last_seq.is_none_or(|last| event.seq > last) {
                self.last_seq = Some(event.seq);
                if self.push(event) {
                    return true;
                }
            }
            if let Some(sum) = self.feed.consume(cost) {
                if self.credit(sum) {
                    return true;
                }
            }
        }
        // Events that cannot be read take credit too.
        match self.feed.consume(0) {
            Some(sum) if self.credit(sum) => true,
            _ => received.is_last,
        }
    }

    /// Whether these are the first events since the client has a new name, and others were lost meanwhile.
    fn misses_events(&mut self, received: &Received<SessionEvent>) -> bool {
        let first = received.events.first().map(|(event, _)| event.seq);
        if first.is_none() && !received.is_last {
            return false;
        }
        std::mem::take(&mut self.is_renamed) && self.last_seq.zip(first).is_none_or(|(last, first)| first > last + 1)
    }

    fn credit_of(&self, epoch: u64) -> FeedCredit {
        FeedCredit { id: self.id, feed: self.name.clone(), epoch }
    }

    /// Gives an event to the stream, and waits for room if the subscription says so. Returns whether the stream has ended.
    fn push(&self, event: SessionEvent) -> bool {
        let stopping = &self.core.stopping;
        match self.queue.push(event, Origin::Agent, stopping) {
            PushOutcome::Done => false,
            PushOutcome::PushedAboveLimit => {
                self.queue.wait_for_room(stopping, None);
                stopping.is_set()
            }
            PushOutcome::Disconnected => true,
        }
    }

    /// Tells the worker how much it may send. Without this the feed may stop for ever. Returns whether the stream has ended
    /// meanwhile.
    fn credit(&self, sum: u64) -> bool {
        let (core, credit) = (&self.core, self.credit_of(self.feed.epoch()));
        while !core.stopping.is_set() && !self.queue.stream_dropped().is_set() {
            match core.engine.write(credit.call(&core.name(), &sum.to_string())) {
                Ok(_) => return false,
                Err(EngineError::Replaced) => return true,
                Err(_) => core.pause(),
            }
        }
        true
    }

    /// Asks for a new feed under the client's new name. Returns whether the stream has ended.
    fn on_renamed(&mut self) -> bool {
        let old = self.credit_of(self.feed.epoch());
        self.name = Uuid::now_v7().to_string();
        self.core.feeds.rename_feed(&old.feed, self.name.clone());
        let _ = self.core.jobs.send(Job::Unfollow(old));
        self.feed = Feed::default();
        self.is_renamed = true;
        loop {
            match self.follow() {
                Ok(()) => return false,
                Err(error) if is_passing(&error) && !self.core.stopping.is_set() => {}
                Err(_) => return true,
            }
        }
    }

    /// Whether the session is deleted, or archived and without a worker. What that has sent came before.
    fn is_session_over(&self) -> bool {
        match self.core.look(self.id) {
            Ok(None) => true,
            Ok(Some(look)) => look.is_archived && look.has_ended(),
            Err(_) => false,
        }
    }
}

/// Ends the stream, and removes the feed.
impl Drop for Follower {
    fn drop(&mut self) {
        self.queue.disconnect();
        self.core.feeds.remove(&self.name);
        // Fails only if the client has stopped; then the feed ends with its lease.
        let _ = self.core.jobs.send(Job::Unfollow(self.credit_of(self.feed.epoch())));
    }
}

fn is_passing(error: &SessionError) -> bool {
    match error {
        SessionError::Store { source, .. } => source.downcast_ref::<EngineError>().is_some_and(EngineError::is_passing),
        _ => false,
    }
}
