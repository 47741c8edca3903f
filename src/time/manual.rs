//! A clock that a test advances.
//!
//! # No deadline is missed
//!
//! Each waiting thread has an entry in the clock. It makes the entry, and compares it with the time, under the lock
//! that an advance takes. So either the entry exists before the advance, which fires it, or the thread finds its
//! deadline past when it makes the entry.
//!
//! # When an advance is over
//!
//! A fired entry stays until its owner drops it: a wait when its thread has left the wait, a turn's timeout when the
//! turn's token is set. Overdue entries are the work that an advance has left, and [`ManualClock::settle`] waits until
//! there are none.

// A test that cannot go on fails here with a message, instead of hanging.
#![allow(clippy::panic)]

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use crate::sync::{bounded, select, Arc, Instant, Receiver, RecvTimeoutError, Sender};
use crate::time::clock::Clock;
use crate::time::watched::Watched;

/// The time of day at which every clock starts, since the Unix epoch: in the year 2001, the same for all clocks.
const STARTED: Duration = Duration::from_secs(1_000_000_000);

/// The longest wait of a test, in real time. Under the model checker no schedule reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(if cfg!(turnwise_shuttle) { 86_400 } else { 60 });

/// A clock that stands still until it is advanced, for [`ServiceConfig::clock`](crate::ServiceConfig::clock).
///
/// A cheap handle: clones are the same clock, and several services may share it. A service measures on it *every
/// duration that it is given*: the timeouts of turns, the [sleeps](crate::TurnContext::sleep) of agents, and the
/// timeouts of waits. Such waits are [`TurnHandle::wait_timeout`](crate::TurnHandle::wait_timeout),
/// [`archive_wait`](crate::SessionService::archive_wait) and [`shutdown`](crate::EphemeralSessionService::shutdown). So
/// a wait with a timeout ends with its result or with an advance, never as real time passes.
/// [`within`](crate::testkit::within) guards a test against a hang, in real time.
///
/// # What an advance has done when it returns
///
/// - The clock shows the new time.
/// - Every due deadline has fired: each due wait will end, and each turn past its timeout will be told to stop.
///
/// It does not wait for any of that. [`settle`](Self::settle) does: after it the due waits are over, and the turns'
/// tokens are set. How long an agent takes to react is not known; wait for the turn, a [`Gate`](crate::testkit::Gate)
/// or an event.
///
/// # Before an advance
///
/// An advance affects only a deadline that exists already. The timeout of a turn counts from its admission, so it is
/// set when [`begin_turn`](crate::SessionService::begin_turn) or
/// [`begin_session`](crate::SessionService::begin_session) has returned. For a wait on another thread, such as an
/// agent's sleep, call [`wait_for_waiters`](Self::wait_for_waiters) first.
///
/// ```
/// use std::time::Duration;
/// use turnwise::testkit::ManualClock;
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
///
/// let clock = ManualClock::new();
/// let agent = agent_fn(|prompt, turn| {
///     turn.sleep(Duration::from_secs(3_600))?;
///     Ok(turn.finish(prompt))
/// });
/// let service = EphemeralSessionService::configure(agent).clock(clock.clone()).build()?;
/// let turn = service.begin_session(CreateSessionRequest::new("rested"))?;
/// clock.wait_for_waiters(1);
/// clock.advance(Duration::from_secs(3_600));
/// assert_eq!(turn.wait()?.text, "rested");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ManualClock {
    shared: Arc<Shared>,
}

struct Shared {
    started: Instant,
    state: Watched<State>,
}

struct State {
    now: Instant,
    next_number: u64,
    entries: BTreeMap<Key, Waiting>,
}

/// By time. The number distinguishes entries of the same instant.
type Key = (When, u64);

/// The variants are declared in the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum When {
    At(Instant),
    /// After every instant.
    Never,
}

struct Waiting {
    kind: Kind,
    /// Taken when the entry fires.
    alarm: Option<Sender<Instant>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A thread that waits for this deadline, among other things.
    Wait,
    /// Work that is due at this deadline.
    Work,
}

/// An entry of a clock. Dropping it says that the due work is done, or is not needed any more.
#[must_use]
pub(crate) struct Entry {
    clock: Arc<Shared>,
    key: Key,
}

impl ManualClock {
    /// Makes a clock at which no time has passed.
    pub fn new() -> Self {
        let now = Instant::now();
        let state = State { now, next_number: 0, entries: BTreeMap::new() };
        Self { shared: Arc::new(Shared { started: now, state: Watched::new(state) }) }
    }

    /// The clock's time as an instant, for agents and tests that measure time themselves.
    pub fn now(&self) -> Instant {
        self.shared.state.read(|state| state.now)
    }

    /// The time by which the clock has been advanced since it was made.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::testkit::ManualClock;
    ///
    /// let clock = ManualClock::new();
    /// let begun = clock.now();
    /// clock.advance(Duration::from_secs(90));
    /// assert_eq!(clock.elapsed(), Duration::from_secs(90));
    /// assert_eq!(clock.now() - begun, Duration::from_secs(90));
    /// ```
    pub fn elapsed(&self) -> Duration {
        self.now() - self.shared.started
    }

    /// The time of day on this clock: that of a fixed start, the same for every clock, and the time since then. It is
    /// what [`TurnContext::now`](crate::TurnContext::now) returns.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::testkit::ManualClock;
    ///
    /// let clock = ManualClock::new();
    /// let begun = clock.system_time();
    /// clock.advance(Duration::from_secs(90));
    /// assert_eq!(clock.system_time(), begun + Duration::from_secs(90));
    /// ```
    pub fn system_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + STARTED + self.elapsed()
    }

    /// Advances the clock. See [`ManualClock`] for what is done when this returns.
    ///
    /// # Panics
    /// If the new time is past what an [`Instant`] can hold, at least hundreds of years from now.
    ///
    /// # Blocking
    /// Does not block.
    #[track_caller]
    pub fn advance(&self, by: Duration) {
        let due = self.shared.state.change(|state| {
            let now = state.now.checked_add(by)?;
            state.now = now;
            let overdue = state.entries.range_mut(..=(When::At(now), u64::MAX));
            Some((now, overdue.filter_map(|(_, waiting)| waiting.alarm.take()).collect::<Vec<_>>()))
        });
        let Some((now, due)) = due else {
            panic!("the clock cannot be advanced by {by:?}: that is past the end of time")
        };
        for sender in due {
            // Each entry fires once, and its channel has room for one message.
            let _ = sender.try_send(now);
        }
    }

    /// Waits until the work of an advance is done: threads have left their due waits, and turns past their timeout have
    /// been told to stop. It does not wait until agents have reacted.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::testkit::{scripted, ManualClock, Script};
    /// use turnwise::{CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// const MINUTE: Duration = Duration::from_secs(60);
    ///
    /// let clock = ManualClock::new();
    /// let agent = scripted().on("think", Script::new().until_cancelled());
    /// let service = EphemeralSessionService::configure(agent).clock(clock.clone()).build()?;
    /// let turn = service.begin_session(CreateSessionRequest::new("think").timeout(2 * MINUTE))?;
    /// clock.advance(MINUTE);
    /// clock.settle();
    /// assert!(!turn.is_finished()); // not because it was too early to look, but because it has a minute left
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If that takes longer than a minute of real time, for example because due work waits for the caller.
    ///
    /// # Blocking
    /// Until that work is done, at most a minute of real time. A hook on the thread that serves timeouts must not call
    /// this: it may wait for itself.
    #[track_caller]
    pub fn settle(&self) {
        self.settle_within(PATIENCE);
    }

    #[track_caller]
    pub(crate) fn settle_within(&self, limit: Duration) {
        let settled = |state: &State| (state.overdue() == 0).then_some(());
        if self.shared.state.wait(&Clock::System.deadline(limit), settled).is_none() {
            let left = self.shared.state.read(State::overdue);
            panic!("the clock has not settled within {limit:?}: {left} due entries are not done");
        }
    }

    /// The number of threads that wait for this clock, among other things: sleeping agents, and waits with a timeout. A
    /// thread whose deadline has passed does not count, nor does the timeout of a turn.
    pub fn waiters(&self) -> usize {
        self.shared.state.read(State::waiters)
    }

    /// Waits until at least `threads` threads wait for this clock; see [`waiters`](Self::waiters).
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::testkit::{scripted, ManualClock, Script};
    /// use turnwise::{CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let clock = ManualClock::new();
    /// let agent = scripted().on("rest", Script::new().sleep(Duration::from_secs(60)).reply("rested"));
    /// let service = EphemeralSessionService::configure(agent).clock(clock.clone()).build()?;
    /// let turn = service.begin_session(CreateSessionRequest::new("rest"))?;
    /// clock.wait_for_waiters(1); // its sleep has begun, so it ends 60 seconds from now
    /// clock.advance(Duration::from_secs(60));
    /// assert_eq!(turn.wait()?.text, "rested");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If there are fewer after a minute of real time.
    ///
    /// # Blocking
    /// Until there are as many, at most a minute of real time.
    #[track_caller]
    pub fn wait_for_waiters(&self, threads: usize) {
        self.wait_for_waiters_within(PATIENCE, threads);
    }

    #[track_caller]
    fn wait_for_waiters_within(&self, limit: Duration, threads: usize) {
        let enough = |state: &State| (state.waiters() >= threads).then_some(());
        if self.shared.state.wait(&Clock::System.deadline(limit), enough).is_none() {
            let waiters = self.waiters();
            panic!("expected {threads} threads to wait for the clock within {limit:?}, found {waiters}");
        }
    }

    /// An entry for a thread that waits until `at`, and the channel that becomes ready then.
    pub(crate) fn wait_entry(&self, at: Option<Instant>) -> (Entry, Receiver<Instant>) {
        let (sender, fired) = bounded(1);
        (self.insert_entry(at, Kind::Wait, Some(sender)), fired)
    }

    /// An entry for a thread that has work to do at `at`, and the channel that becomes ready then.
    pub(crate) fn work_alarm_entry(&self, at: Option<Instant>) -> (Entry, Receiver<Instant>) {
        let (sender, fired) = bounded(1);
        (self.insert_entry(at, Kind::Work, Some(sender)), fired)
    }

    /// An entry for work that is due at `at`, on any thread.
    pub(crate) fn work_entry(&self, at: Option<Instant>) -> Entry {
        self.insert_entry(at, Kind::Work, None)
    }

    fn insert_entry(&self, at: Option<Instant>, kind: Kind, sender: Option<Sender<Instant>>) -> Entry {
        let when = at.map_or(When::Never, When::At);
        let (key, late) = self.shared.state.change(|state| {
            let key = (when, state.next_number);
            state.next_number += 1;
            let (alarm, late) = if state.is_overdue(when) { (None, sender) } else { (sender, None) };
            state.entries.insert(key, Waiting { kind, alarm });
            (key, late.map(|sender| (sender, state.now)))
        });
        if let Some((sender, now)) = late {
            let _ = sender.try_send(now);
        }
        Entry { clock: Arc::clone(&self.shared), key }
    }

    /// A receive with a deadline. A message that is already there is received even after the deadline.
    pub(crate) fn receive<T>(&self, channel: &Receiver<T>, at: Option<Instant>) -> Result<T, RecvTimeoutError> {
        match channel.try_recv() {
            Ok(value) => return Ok(value),
            Err(error) if error.is_disconnected() => return Err(RecvTimeoutError::Disconnected),
            Err(_) => {}
        }
        let (_entry, fired) = self.wait_entry(at);
        select! {
            recv(channel) -> value => value.map_err(|_| RecvTimeoutError::Disconnected),
            recv(fired) -> _ => channel.try_recv().map_err(|error| {
                if error.is_disconnected() { RecvTimeoutError::Disconnected } else { RecvTimeoutError::Timeout }
            }),
        }
    }
}

impl State {
    fn is_overdue(&self, when: When) -> bool {
        when <= When::At(self.now)
    }

    fn overdue(&self) -> usize {
        self.entries.range(..=(When::At(self.now), u64::MAX)).count()
    }

    fn waiters(&self) -> usize {
        self.entries.iter().filter(|((when, _), entry)| entry.kind == Kind::Wait && !self.is_overdue(*when)).count()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let taken = self.clock.state.change(|state| state.entries.remove(&self.key));
        drop(taken);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (elapsed, waiters) = (self.elapsed(), self.waiters());
        f.debug_struct("ManualClock").field("elapsed", &elapsed).field("waiters", &waiters).finish()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entry").field(&self.key).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const SHORT: Duration = Duration::from_millis(5);

    fn at(clock: &ManualClock, after: Duration) -> Option<Instant> {
        clock.now().checked_add(after)
    }

    #[test]
    fn an_entry_fires_whether_it_is_made_before_or_after_the_advance() {
        let clock = ManualClock::new();
        let time = at(&clock, SECOND);
        let (_early, fired) = clock.wait_entry(time);
        let (_later, silent) = clock.wait_entry(at(&clock, 2 * SECOND));
        let (_never, deaf) = clock.wait_entry(None);
        assert!(fired.try_recv().is_err());
        clock.advance(SECOND);
        assert_eq!(fired.try_recv(), Ok(clock.now()));
        let (_late, at_once) = clock.wait_entry(time);
        assert_eq!(at_once.try_recv(), Ok(clock.now()));
        assert!(silent.try_recv().is_err() && deaf.try_recv().is_err());
        assert_eq!(clock.waiters(), 2);
    }

    #[test]
    fn a_clock_has_settled_when_all_due_work_is_done() {
        let clock = ManualClock::new();
        let (work, time) = (clock.work_entry(at(&clock, SECOND)), at(&clock, 2 * SECOND));
        let (wait, _rings) = clock.wait_entry(time);
        clock.settle();
        clock.advance(SECOND);
        let unsettled =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| clock.settle_within(SHORT))).unwrap_err();
        let message = unsettled.downcast::<String>().unwrap();
        assert_eq!(*message, "the clock has not settled within 5ms: 1 due entries are not done");
        drop(work);
        clock.settle();
        drop(wait);
        assert!(clock.shared.state.read(|state| state.entries.is_empty()));
    }

    #[test]
    #[should_panic = "expected 1 threads to wait for the clock within 5ms, found 0"]
    fn a_wait_for_waiters_fails_after_its_limit() {
        let clock = ManualClock::new();
        let _work = clock.work_entry(at(&clock, SECOND));
        clock.wait_for_waiters_within(SHORT, 1);
    }

    #[test]
    #[should_panic = "past the end of time"]
    fn an_advance_past_the_last_instant_panics() {
        ManualClock::new().advance(Duration::MAX);
    }

    #[test]
    fn a_message_that_is_there_is_received_after_the_deadline() {
        let clock = ManualClock::new();
        let (sender, receiver) = bounded(1);
        assert_eq!(clock.receive(&receiver, Some(clock.now())), Err(RecvTimeoutError::Timeout));
        sender.send(1).unwrap();
        assert_eq!(clock.receive(&receiver, Some(clock.now())), Ok(1));
        drop(sender);
        assert_eq!(clock.receive(&receiver, Some(clock.now())), Err(RecvTimeoutError::Disconnected));
        assert!(clock.shared.state.read(|state| state.entries.is_empty()));
    }
}
