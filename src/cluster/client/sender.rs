//! The thread that sends what must not hold up a caller: interrupts, and questions about requests. It has the timers of
//! the client too.
//!
//! It asks for one request of each session with open requests in every quarter of a lease. The step that answers also
//! finds out whether the session's worker is gone, and tells all clients then. So a turn whose worker is lost is answered
//! although no worker is left. Questions wait in a list of their own, behind every other job: thousands of them hold up no
//! interrupt.
//!
//! Interrupts and the ends of feeds are repeated until the engine has answered, whatever the error, unless the engine is
//! another one. When the last handle is dropped, those that were asked for before are still sent, up to the first failure.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use crate::cluster::engine::Call;
use crate::cluster::error::EngineError;
use crate::cluster::messages::reason_word;
use crate::cluster::scripts;
use crate::cluster::store::RedisStore;
use crate::error::CancelReason;
use crate::model::{InteractionId, SessionId, TurnId};
use crate::panics::record;
use crate::store::SessionStore;
use crate::sync::{Arc, Instant, Receiver, Weak};
use crate::time::clock::Clock;
use crate::turn::handle::Outcome as Slot;

use super::core::{Core, Outcome};
use super::requests::Request;

/// What the thread has to do.
pub(super) enum Job {
    Interrupt(Interrupt),
    /// Ask what has become of a request.
    Ask(Weak<Request>),
    /// Ask for all accepted requests.
    AskForAll,
    /// Cancel a turn at an instant, if it has not ended.
    Deadline(Instant, Weak<Request>),
    /// End a message at an instant, if its end has not been reported.
    EndSteering(Instant, InteractionId),
    /// Remove a feed of a session.
    Unfollow(FeedCredit),
    /// Remove the credit of a feed at an instant. A worker that waits for it has seen by then that it is closed.
    EndCredit(Instant, FeedCredit),
    /// Look at an instant whether a turn still waits in the queue of its session.
    LookForQueue(QueueLook),
    /// Remove a new session whose caller got an error, once it is built. It is archived already.
    Withdraw(SessionId, Arc<Slot>),
    /// The last handle was dropped.
    Stop,
}

/// A look for a queued turn. Each comes after twice the time of the one before, so that a turn shows as queued for at most
/// twice as long as it was, and a quarter of a lease.
pub(super) struct QueueLook {
    request: Weak<Request>,
    turn: TurnId,
    at: Instant,
    pause: Duration,
}

/// An interrupt of an accepted turn whose token was cancelled.
pub(super) struct Interrupt {
    pub(super) request: Arc<Request>,
    pub(super) turn: TurnId,
    pub(super) reason: CancelReason,
}

/// The credit of a feed in one epoch.
pub(super) struct FeedCredit {
    pub(super) id: SessionId,
    pub(super) feed: String,
    /// 0 if no worker has sent anything: then no epoch is known.
    pub(super) epoch: u64,
}

/// How long a call waits that has failed after its repeats, because the engine is away.
pub(super) const PAUSE: Duration = Duration::from_millis(500);
/// The same for a call that the engine refuses.
const LONG_PAUSE: Duration = Duration::from_secs(5);
/// How many jobs run before the next question, if there are that many.
const JOBS_BEFORE_A_QUESTION: usize = 64;

struct SenderThread<'a> {
    core: &'a Core,
    /// By their instants, and by a number that makes them different.
    timers: BTreeMap<(Instant, u64), Job>,
    next_timer: u64,
    /// The requests to ask for.
    to_ask: VecDeque<Weak<Request>>,
    /// How many jobs have run since the last question.
    jobs: usize,
    next_sweep: Instant,
}

pub(super) fn run(core: &Core, jobs: &Receiver<Job>) {
    let mut thread = SenderThread::new(core);
    while !core.stopping.is_set() {
        thread.run_due();
        thread.run_next(jobs);
    }
    core.close(super::requests::Closed::Stopped);
    thread.send_rest(jobs);
    core.give_up_lease();
}

fn sweep_period(core: &Core) -> Duration {
    core.engine.config().lease / 4
}

impl<'a> SenderThread<'a> {
    fn new(core: &'a Core) -> Self {
        let next_sweep = Clock::System.now() + sweep_period(core);
        Self { core, timers: BTreeMap::new(), next_timer: 0, to_ask: VecDeque::new(), jobs: 0, next_sweep }
    }

    /// Runs the next job, or asks the next question. Returns when a timer is due, too.
    fn run_next(&mut self, jobs: &Receiver<Job>) {
        if self.jobs < JOBS_BEFORE_A_QUESTION {
            if let Ok(job) = jobs.try_recv() {
                self.jobs += 1;
                return self.run(job);
            }
        }
        self.jobs = 0;
        if let Some(request) = self.to_ask.pop_front() {
            return self.ask(&request);
        }
        let first = self.timers.first_key_value().map(|((at, _), _)| *at);
        let until = first.map_or(self.next_sweep, |first| first.min(self.next_sweep));
        if let Ok(job) = Clock::System.deadline_at(Some(until)).receive(jobs) {
            self.run(job);
        }
    }

    /// Runs the timers that are due, and begins the sweep if it is.
    fn run_due(&mut self) {
        let now = Clock::System.now();
        while let Some(timer) = self.timers.first_entry().filter(|timer| timer.key().0 <= now) {
            match timer.remove() {
                Job::Deadline(_, request) => {
                    if let Some(request) = request.upgrade() {
                        // Its hook sends an interrupt to this thread.
                        request.cancel.cancel_and_run_hooks(CancelReason::DeadlineExceeded);
                    }
                }
                Job::EndSteering(_, message) => self.core.steered.give_up(message),
                Job::EndCredit(_, credit) => self.end_credit(credit),
                Job::LookForQueue(look) => self.look_for_queue(look),
                other => self.run(other),
            }
        }
        if now >= self.next_sweep {
            self.next_sweep = now + sweep_period(self.core);
            self.sweep(now);
        }
    }

    fn sweep(&mut self, now: Instant) {
        // The timer of a turn that has ended would stay until its instant.
        self.timers.retain(|_, job| match job {
            Job::Deadline(_, request) => request.upgrade().is_some_and(|request| request.is_open()),
            _ => true,
        });
        // Otherwise the last sweep is not through yet.
        if self.to_ask.is_empty() {
            let mut sessions = HashSet::new();
            let accepted = self.core.requests.accepted().into_iter();
            let of_each = accepted.filter(|request| request.since < now && sessions.insert(request.id));
            self.to_ask = of_each.map(|request| Arc::downgrade(&request)).collect();
        }
    }

    fn run(&mut self, job: Job) {
        match job {
            Job::Interrupt(interrupt) => self.interrupt(interrupt),
            Job::Ask(request) => self.to_ask.push_back(request),
            // Those that the list has are accepted too.
            Job::AskForAll => self.to_ask = self.core.requests.accepted().iter().map(Arc::downgrade).collect(),
            Job::Deadline(at, _) | Job::EndSteering(at, _) | Job::EndCredit(at, _) => self.run_at(at, job),
            Job::LookForQueue(QueueLook { at, .. }) => self.run_at(at, job),
            Job::Unfollow(feed) => self.unfollow(feed),
            Job::Withdraw(id, outcome) => self.withdraw(id, outcome),
            Job::Stop => {}
        }
    }

    fn run_at(&mut self, at: Instant, job: Job) {
        self.timers.insert((at, self.next_timer), job);
        self.next_timer += 1;
    }

    /// Repeats a job that has failed.
    fn repeat(&mut self, job: Job, error: &EngineError) {
        let pause = match error {
            EngineError::Replaced => return,
            error if error.is_passing() => PAUSE,
            error => {
                record!(Warn, "turnwise::cluster", "a call of the client has failed: {}", error.code());
                LONG_PAUSE
            }
        };
        self.run_at(Clock::System.now() + pause, job);
    }

    fn interrupt(&mut self, interrupt: Interrupt) {
        // The drop of the last handle answers the request although the turn goes on. It sets `stopping` first, so an answer
        // that is seen here without that is the end of the turn.
        if !interrupt.request.is_open() && !self.core.stopping.is_set() {
            return;
        }
        if let Err(error) = self.core.engine.write(interrupt.call()) {
            self.repeat(Job::Interrupt(interrupt), &error);
        }
    }

    fn ask(&mut self, weak: &Weak<Request>) {
        let Some(request) = weak.upgrade().filter(|request| request.is_open()) else { return };
        let core = self.core;
        match core.outcome(request.id, request.request, true) {
            Ok(Outcome::Running(_)) => {}
            Ok(Outcome::Ended(ended)) => {
                if let Some(request) = core.requests.take(request.request) {
                    request.end(&ended);
                }
            }
            // The engine has lost it, or has forgotten it since its end.
            Ok(Outcome::NeverSeen) => {
                if let Some(request) = core.requests.take(request.request) {
                    request.fail(request.unknown());
                }
            }
            Err(error) => self.repeat(Job::Ask(Weak::clone(weak)), &error),
        }
    }

    /// Removes a feed. Its worker may wait for credit, and learns that none comes.
    fn unfollow(&mut self, feed: FeedCredit) {
        match self.send_unfollow(&feed) {
            Ok(()) if feed.epoch > 0 => {
                let at = self.core.end_of_credit();
                self.run_at(at, Job::EndCredit(at, feed));
            }
            Ok(()) => {}
            Err(error) => self.repeat(Job::Unfollow(feed), &error),
        }
    }

    fn send_unfollow(&self, feed: &FeedCredit) -> Result<(), EngineError> {
        let (engine, name) = (&self.core.engine, self.core.name());
        let call = Call::new(&scripts::FOLLOW).arg(feed.id.to_string()).arg(name.as_bytes());
        engine.write(call.arg(feed.feed.as_str()).arg(""))?;
        if feed.epoch > 0 {
            engine.write(feed.call(&name, "closed"))?;
        }
        Ok(())
    }

    fn end_credit(&mut self, credit: FeedCredit) {
        if let Err(error) = self.core.engine.write(credit.call(&self.core.name(), "")) {
            self.repeat(Job::EndCredit(Clock::System.now(), credit), &error);
        }
    }

    fn look_for_queue(&mut self, look: QueueLook) {
        let Some(request) = look.request.upgrade().filter(|request| request.is_open()) else { return };
        match self.core.is_queued(request.id, look.turn) {
            Ok(false) => request.begin(),
            Ok(true) | Err(_) => {
                let next = look.next(sweep_period(self.core));
                self.run_at(next.at, Job::LookForQueue(next));
            }
        }
    }

    /// Deletes a session whose caller got an error instead of its id, unless it was made again by another caller.
    fn withdraw(&mut self, id: SessionId, outcome: Arc<Slot>) {
        let is_done = match outcome.get() {
            None => false,
            // There is no session.
            Some(Err(_)) => true,
            Some(Ok(_)) => self.delete_archived(id) || self.core.engine.is_replaced(),
        };
        if !is_done {
            self.run_at(Clock::System.now() + PAUSE, Job::Withdraw(id, outcome));
        }
    }

    /// Returns whether there is no such session any more.
    fn delete_archived(&self, id: SessionId) -> bool {
        let store = RedisStore::new(self.core.engine.clone());
        match store.load(id) {
            // It may have been saved meanwhile: then it is looked at again.
            Ok(Some((stored, revision))) if stored.archived => store.delete(id, Some(revision)).is_ok(),
            found => found.is_ok(),
        }
    }

    /// Sends what was asked for before the last handle was dropped. A failure ends that, so that the client ends.
    fn send_rest(&mut self, jobs: &Receiver<Job>) {
        let timers = std::mem::take(&mut self.timers).into_values();
        for job in timers.chain(jobs.try_iter()) {
            let sent = match job {
                Job::Interrupt(interrupt) => self.core.engine.write(interrupt.call()).map(drop),
                Job::Unfollow(feed) => self.send_unfollow(&feed),
                _ => Ok(()),
            };
            if sent.is_err() {
                return;
            }
        }
    }
}

impl QueueLook {
    const FIRST_PAUSE: Duration = Duration::from_millis(20);

    pub(super) fn first(request: Weak<Request>, turn: TurnId) -> Self {
        Self { request, turn, at: Clock::System.now() + Self::FIRST_PAUSE, pause: Self::FIRST_PAUSE }
    }

    fn next(self, max: Duration) -> Self {
        let pause = (self.pause * 2).min(max);
        Self { at: Clock::System.now() + pause, pause, ..self }
    }
}

impl Interrupt {
    fn call(&self) -> Call {
        let (request, reason) = (&self.request, reason_word(self.reason));
        let call = Call::new(&scripts::INTERRUPT).arg(request.id.to_string()).arg(self.turn.to_string());
        // Every answer will do: a turn that is not in flight has ended.
        call.arg(reason).arg(format!("{}:{reason}", request.request))
    }
}

impl FeedCredit {
    /// Tells the worker up to which sum of costs it may send; `closed` for no more. An empty value removes the credit.
    pub(super) fn call(&self, client: &str, value: &str) -> Call {
        let call = Call::new(&scripts::CREDIT).arg(self.id.to_string()).arg(client);
        call.arg(format!("{}:{}", self.feed, self.epoch)).arg(value)
    }
}
