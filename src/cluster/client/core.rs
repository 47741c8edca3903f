//! What the handles and the threads of a client share.

use std::time::Duration;

use uuid::Uuid;

use crate::cluster::engine::{unexpected, Call, Engine};
use crate::cluster::error::EngineError;
use crate::cluster::scripts;
use crate::cluster::wire::{Entry, Reply};
use crate::error::SessionError;
use crate::model::{RequestId, SessionId};
use crate::panics::record;
use crate::reentrancy::{self, WaitKey};
use crate::store::StoreError;
use crate::sync::{Arc, Instant, Mutex, Sender};
use crate::time::clock::Clock;
use crate::wait::latch::Latch;

use super::feed::Batch;
use super::feeds::Feeds;
use super::known::{Known, KnownSessions};
use super::requests::{Closed, Request, Requests};
use super::sender::{Job, PAUSE};
use super::steering::{Report, Steered};
use super::verdict::Ended;

pub(super) struct Core {
    pub(super) engine: Engine,
    /// The name of this incarnation. Another one follows when its lease has ended.
    name: Mutex<Arc<str>>,
    pub(super) requests: Requests,
    pub(super) known: KnownSessions,
    pub(super) feeds: Feeds,
    pub(super) steered: Steered,
    pub(super) jobs: Sender<Job>,
    /// Set when the last handle is dropped.
    pub(super) stopping: Latch,
}

impl Core {
    /// Makes the client known to the engine.
    pub(super) fn new(engine: Engine, jobs: Sender<Job>) -> Result<Self, EngineError> {
        let name = enrol(&engine)?;
        Ok(Self {
            engine,
            name: Mutex::new(name),
            requests: Requests::default(),
            known: KnownSessions::default(),
            feeds: Feeds::default(),
            steered: Steered::default(),
            jobs,
            stopping: Latch::new(),
        })
    }

    /// The name under which the engine knows the client now.
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name.lock())
    }

    /// Takes a new name, after the lease of the last one has ended. What was sent to that one is lost.
    pub(super) fn rename(&self) -> Result<(), EngineError> {
        let name = enrol(&self.engine)?;
        *self.name.lock() = name;
        record!(Warn, "turnwise::cluster", "the lease of the client has ended: it has a new one");
        self.feeds.rename();
        self.steered.fail_all("the client was away: what has become of the message is not known");
        Ok(())
    }

    /// Prolongs the lease. `false` if it has ended.
    pub(super) fn renew(&self) -> Result<bool, EngineError> {
        let lease = self.engine.config().lease.as_millis().to_string();
        let call = Call::new(&scripts::RENEW).arg("c").arg(self.name().as_bytes()).arg(lease);
        let answer = self.engine.write(call)?;
        match answer.words().as_deref() {
            Some([b"ok"]) => Ok(true),
            Some([b"over"]) => Ok(false),
            _ => Err(unexpected(&scripts::RENEW)),
        }
    }

    /// Gives the lease up, and wakes the listener.
    pub(super) fn give_up_lease(&self) {
        let name = self.name();
        let wake = Call::new(&scripts::TELL).arg(name.as_bytes()).arg("").arg("taken").arg("").arg("1");
        let give_up = Call::new(&scripts::RENEW).arg("c").arg(name.as_bytes()).arg("1");
        // Without an answer of the engine the lease ends by itself. A second call would wait as long as the first.
        let is_away = self.engine.write(wake).is_err_and(|error| error.is_passing());
        if !is_away {
            let _ = self.engine.write(give_up);
        }
    }

    /// Takes an entry of the client's stream in.
    pub(super) fn receive(&self, entry: Entry) {
        match entry.as_slice() {
            [kind, ..] if kind == b"verdict" => {
                let Some((request, id, ended)) = Ended::read(&entry) else { return };
                match self.requests.take(request) {
                    Some(request) => request.end(&ended),
                    None => self.known.get(id).note_answers(ended.answers),
                }
            }
            [kind, feed, ..] if kind == b"events" => {
                let feed = String::from_utf8_lossy(feed).into_owned();
                if let Some(batch) = Batch::read(entry) {
                    self.feeds.pass(&feed, batch);
                }
            }
            [kind, request, _, what, _, body, rest @ ..] if kind == b"steered" => {
                let number = rest.get(1).and_then(|number| super::feed::number(number));
                let report = Report { number, what, body };
                self.steered.receive(request, &report, &self.jobs, self.engine.config().lease);
            }
            _ => {}
        }
    }

    /// Asks the engine for all accepted requests: their verdicts may be lost.
    pub(super) fn ask_for_all(&self) {
        // Fails only if the client has stopped.
        let _ = self.jobs.send(Job::AskForAll);
    }

    pub(super) fn ask_for(&self, request: &Arc<Request>) {
        // Fails only if the client has stopped.
        let _ = self.jobs.send(Job::Ask(Arc::downgrade(request)));
    }

    /// The key of waits for a session.
    pub(super) fn key_of(&self, id: SessionId) -> WaitKey {
        self.wait_key(&self.known.get(id), id)
    }

    /// The same. On a thread of the session itself, in a worker of this process, it is the key of that life: a wait of the
    /// session for itself is refused.
    pub(super) fn wait_key(&self, known: &Known, id: SessionId) -> WaitKey {
        reentrancy::waiter_key(id).unwrap_or(known.key)
    }

    /// Waits before a call is repeated that has failed. The end of the client ends the wait.
    pub(super) fn pause(&self) {
        // The result does not matter: the caller looks at the latch.
        let _ = Clock::System.deadline(PAUSE).receive(self.stopping.receiver());
    }

    /// When the credit of a feed may be removed that is closed now. A worker which waits for it looks every second.
    pub(super) fn end_of_credit(&self) -> Instant {
        Clock::System.now() + self.engine.config().lease * 2
    }

    /// Answers the accepted requests of this age as unknown, after the engine was away for as long.
    pub(super) fn give_up(&self, now: Instant, age: Duration) {
        let is_old = |request: &Request| now.saturating_duration_since(request.since) >= age;
        for request in self.requests.take_accepted(is_old) {
            request.fail(request.unknown());
        }
    }

    /// Ends everything, since no handle is left or the engine is another one.
    pub(super) fn close(&self, closed: Closed) {
        for request in self.requests.close(closed) {
            // The caller of a request that was not accepted gets its own error.
            let error = match closed {
                Closed::Stopped => request.unknown(),
                Closed::Replaced => closed.error(request.id),
            };
            request.fail(error);
        }
        self.feeds.close();
        self.steered.fail_all("the client has ended");
    }

    /// What has become of a request. A client that passes its name is told of the end of a turn in flight.
    pub(super) fn outcome(
        &self,
        id: SessionId,
        request: RequestId,
        is_to_be_told: bool,
    ) -> Result<Outcome, EngineError> {
        let mut call = Call::new(&scripts::OUTCOME).arg(id.to_string()).arg(request.to_string());
        if is_to_be_told {
            call = call.arg(self.name().as_bytes());
        }
        let answer = self.engine.write(call)?;
        let invalid = || unexpected(&scripts::OUTCOME);
        match answer.words().as_deref() {
            Some([b"answered", turn, kind, body, answers]) => {
                Ended::new(turn, kind, body, answers).map(Outcome::Ended).ok_or_else(invalid)
            }
            Some([b"running", turn]) => super::feed::number(turn).map(Outcome::Running).ok_or_else(invalid),
            Some([b"tombstone"]) => Ok(Outcome::NeverSeen),
            _ => Err(invalid()),
        }
    }
}

/// What has become of a request.
pub(super) enum Outcome {
    Ended(Ended),
    /// The turn with this number is in flight; 0 for a build.
    Running(u64),
    NeverSeen,
}

/// Makes a client known under a fresh name.
fn enrol(engine: &Engine) -> Result<Arc<str>, EngineError> {
    let name = Uuid::now_v7().to_string();
    let lease = engine.config().lease.as_millis().to_string();
    let answer = engine.write(Call::new(&scripts::ENROL).arg("c").arg(name.as_str()).arg(lease))?;
    if !answer.is_list_of("ok") {
        return Err(unexpected(&scripts::ENROL));
    }
    Ok(name.into())
}

/// The error of a call that the engine does not answer, or answers with an error.
pub(super) fn engine_failed(id: Option<SessionId>, error: EngineError) -> SessionError {
    SessionError::Store { id, source: Arc::new(error) }
}

/// The same, for an error that a store has passed on.
pub(super) fn store_failed(id: Option<SessionId>, error: StoreError) -> SessionError {
    let engine_error = match &error {
        StoreError::Failed(source) => source.downcast_ref::<EngineError>().cloned(),
        _ => None,
    };
    match engine_error {
        Some(error) => engine_failed(id, error),
        None => SessionError::Store { id, source: Arc::new(error) },
    }
}

/// A text in an answer.
pub(super) fn text(reply: &Reply) -> &[u8] {
    reply.text().unwrap_or_default()
}
