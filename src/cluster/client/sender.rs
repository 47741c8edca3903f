//! The thread that sends what must not hold up a caller: interrupts, and questions about requests. It has the timers of
//! the client too.
//!
//! It asks for one request of each session with open requests in every quarter of a lease. The step that answers also
//! finds out whether the session's worker is gone, and tells all clients then. So a turn whose worker is lost is answered
//! although no worker is left.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use crate::cluster::engine::Call;
use crate::cluster::error::EngineError;
use crate::cluster::messages::reason_word;
use crate::cluster::scripts;
use crate::error::CancelReason;
use crate::model::{InteractionId, SessionId};
use crate::panics::record;
use crate::sync::{Arc, Instant, Receiver, Weak};
use crate::time::clock::Clock;

use super::core::{Core, Outcome};
use super::requests::Request;

/// What the thread has to do.
pub(super) enum Job {
    /// Interrupt an accepted turn whose token was cancelled.
    Interrupt(Arc<Request>),
    /// Ask what has become of a request.
    Ask(Weak<Request>),
    /// Cancel a turn at an instant, if it has not ended.
    Deadline(Instant, Weak<Request>),
    /// End a message at an instant, if its end has not been reported.
    EndSteering(Instant, InteractionId),
    /// Remove a feed of a session, of which the worker with this epoch was the last.
    Unfollow(SessionId, String, u64),
    /// The last handle was dropped.
    Stop,
}

/// How long a call waits that has failed after its repeats.
const PAUSE: Duration = Duration::from_millis(500);

struct SenderThread<'a> {
    core: &'a Core,
    /// By their instants, and by a number that makes them different.
    timers: BTreeMap<(Instant, u64), Job>,
    next_timer: u64,
    /// What the sweep asks for.
    to_ask: VecDeque<Weak<Request>>,
    next_sweep: Instant,
}

pub(super) fn run(core: &Core, jobs: &Receiver<Job>) {
    let next_sweep = Clock::System.now() + sweep_period(core);
    let mut thread = SenderThread { core, timers: BTreeMap::new(), next_timer: 0, to_ask: VecDeque::new(), next_sweep };
    while !core.stopping.is_set() {
        thread.run_due();
        if let Some(job) = thread.next_job(jobs) {
            thread.run(job);
        }
    }
    core.close(super::requests::Closed::Stopped);
    core.give_up_lease();
}

fn sweep_period(core: &Core) -> Duration {
    core.engine.config().lease / 4
}

impl SenderThread<'_> {
    /// The next job, or one of the sweep; `None` when a timer is due.
    fn next_job(&mut self, jobs: &Receiver<Job>) -> Option<Job> {
        if let Ok(job) = jobs.try_recv() {
            return Some(job);
        }
        if let Some(request) = self.to_ask.pop_front() {
            return Some(Job::Ask(request));
        }
        let first = self.timers.first_key_value().map(|((at, _), _)| *at);
        let until = first.map_or(self.next_sweep, |first| first.min(self.next_sweep));
        Clock::System.deadline_at(Some(until)).receive(jobs).ok()
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
                other => self.run(other),
            }
        }
        if now >= self.next_sweep {
            self.next_sweep = now + sweep_period(self.core);
            let mut sessions = HashSet::new();
            let accepted = self.core.requests.accepted().into_iter();
            let of_each = accepted.filter(|request| request.since < now && sessions.insert(request.id));
            self.to_ask = of_each.map(|request| Arc::downgrade(&request)).collect();
        }
    }

    fn run(&mut self, job: Job) {
        match job {
            Job::Interrupt(request) => self.interrupt(request),
            Job::Ask(request) => self.ask(&request),
            Job::Deadline(at, _) | Job::EndSteering(at, _) => self.run_at(at, job),
            Job::Unfollow(id, feed, epoch) => self.unfollow(id, feed, epoch),
            Job::Stop => {}
        }
    }

    fn run_at(&mut self, at: Instant, job: Job) {
        self.timers.insert((at, self.next_timer), job);
        self.next_timer += 1;
    }

    /// Repeats a job that the engine has not answered.
    fn repeat(&mut self, job: Job, error: &EngineError) {
        if error.is_passing() {
            self.run_at(Clock::System.now() + PAUSE, job);
        } else if *error != EngineError::Replaced {
            record!(Warn, "turnwise::cluster", "a call of the client has failed: {}", error.code());
        }
    }

    fn interrupt(&mut self, request: Arc<Request>) {
        let (Some(turn), Some(reason), true) = (request.accepted(), request.cancel.reason(), request.is_open()) else {
            return;
        };
        let call = Call::new(&scripts::INTERRUPT).arg(request.id.to_string()).arg(turn.to_string());
        // Every answer will do: a turn that is not in flight has ended.
        let own = format!("{}:{}", request.request, reason_word(reason));
        if let Err(error) = self.core.engine.write(call.arg(reason_word(reason)).arg(own)) {
            self.repeat(Job::Interrupt(request), &error);
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

    fn unfollow(&mut self, id: SessionId, feed: String, epoch: u64) {
        let (engine, name) = (&self.core.engine, self.core.name());
        let call = Call::new(&scripts::FOLLOW).arg(id.to_string()).arg(name.as_bytes()).arg(feed.as_str()).arg("");
        let removed = engine.write(call).and_then(|_| engine.write(end_of_credit(id, &name, &feed, epoch)));
        if let Err(error) = removed {
            self.repeat(Job::Unfollow(id, feed, epoch), &error);
        }
    }
}

/// Removes the credit of a feed that has ended.
pub(super) fn end_of_credit(id: SessionId, name: &str, feed: &str, epoch: u64) -> Call {
    Call::new(&scripts::CREDIT).arg(id.to_string()).arg(name).arg(format!("{feed}:{epoch}")).arg("")
}
