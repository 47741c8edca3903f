//! A clock that a test moves by hand.
//!
//! # Nothing due is missed
//!
//! Whoever waits has an entry in the clock, made and looked at under the lock that the clock is advanced under. So a wait
//! either has its entry before the advance, which rings it, or it finds its time up when it makes the entry.
//!
//! # When is an advance over?
//!
//! An entry stays, though it has rung, until its owner drops it: a wait when its thread has left it, a turn's timeout when
//! the turn's token is set. What is overdue and still there is what is left to do, which is what [`ManualClock::settle`]
//! waits for.

// A test that cannot go on fails here, with a message, rather than to hang.
#![allow(clippy::panic)]

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::sync::{bounded, select, Arc, Instant, Receiver, RecvTimeoutError, Sender};
use crate::time::clock::Clock;
use crate::time::watched::Watched;

/// How long the waits of a test last at most, in real time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A clock that stands still until it is advanced, for [`ServiceConfig::clock`](crate::ServiceConfig::clock).
///
/// A cheap handle: clones are the same clock, and several services may share it. A service measures on it *every duration
/// that it is given*: the timeouts of turns, what agents [sleep](crate::TurnContext::sleep), and the timeouts of waits, such
/// as those of [`TurnHandle::wait_timeout`](crate::TurnHandle::wait_timeout),
/// [`archive_wait`](crate::SessionService::archive_wait) and [`shutdown`](crate::EphemeralSessionService::shutdown). So a wait
/// with a timeout ends with what it waits for, or with an advance, and never by itself; what guards a test against a hang
/// is [`within`](crate::testkit::within), in real time.
///
/// # What an advance has done when it returns
///
/// - The clock shows the new time.
/// - Whatever is due has rung: every wait whose time is up will end, and every turn whose time is up will be told to stop.
///
/// It does not wait for any of that. [`settle`](Self::settle) does: after it, waits that were due are over, and the turns' tokens are
/// set. What an agent then makes of it takes the time that it takes; wait for the turn, a [`Gate`](crate::testkit::Gate) or an event.
///
/// # Before an advance
///
/// Only who waits already has a time that can come. The timeout of a turn counts from its admission, so it is set when
/// [`begin_turn`](crate::SessionService::begin_turn) or [`begin_session`](crate::SessionService::begin_session) has
/// returned. For a wait on another thread, an agent's sleep above all, [`wait_for_waiters`](Self::wait_for_waiters) makes certain.
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

/// By time; the number tells entries of the same instant apart.
type Key = (When, u64);

/// The order of the variants is that of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum When {
    At(Instant),
    /// Past the end of time.
    Never,
}

struct Waiting {
    kind: Kind,
    /// Taken when it rings.
    rings: Option<Sender<Instant>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A thread that waits for its time, among other things.
    Wait,
    /// What is to be done at some time.
    Duty,
}

/// A place in a clock. Dropping it says that what was due is done, or is not to be done any more.
#[must_use]
pub(crate) struct Entry {
    clock: Arc<Shared>,
    key: Key,
}

impl ManualClock {
    /// A clock that shows no time passed.
    pub fn new() -> Self {
        let now = Instant::now();
        let state = State { now, next_number: 0, entries: BTreeMap::new() };
        Self { shared: Arc::new(Shared { started: now, state: Watched::new(state) }) }
    }

    /// What the clock shows, as an instant: for agents and tests that measure time themselves.
    pub fn now(&self) -> Instant {
        self.shared.state.look(|state| state.now)
    }

    /// By how much the clock was advanced since it was made.
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

    /// Moves the clock forward. See [`ManualClock`] for what is done when this returns.
    ///
    /// # Panics
    /// Where that is past what an [`Instant`] can hold, hundreds of years from now at the least.
    ///
    /// # Blocking
    /// Does not block.
    #[track_caller]
    pub fn advance(&self, by: Duration) {
        let due = self.shared.state.change(|state| {
            let now = state.now.checked_add(by)?;
            state.now = now;
            let overdue = state.entries.range_mut(..=(When::At(now), u64::MAX));
            Some((now, overdue.filter_map(|(_, waiting)| waiting.rings.take()).collect::<Vec<_>>()))
        });
        let Some((now, due)) = due else {
            panic!("the clock cannot be advanced by {by:?}: that is past the end of time")
        };
        for bell in due {
            // One message for one place: never full.
            let _ = bell.try_send(now);
        }
    }

    /// Waits until all is done that an advance had to set off: threads whose wait was due have left it, and turns whose
    /// timeout was due have been told to stop. Not until agents have taken note.
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
    /// If that takes longer than a minute of real time: something that is due waits for the caller.
    ///
    /// # Blocking
    /// Until then. In a hook that runs on the thread that watches timeouts it may wait for itself.
    #[track_caller]
    pub fn settle(&self) {
        self.settle_within(PATIENCE);
    }

    #[track_caller]
    pub(crate) fn settle_within(&self, limit: Duration) {
        let settled = |state: &State| (state.overdue() == 0).then_some(());
        if self.shared.state.wait(&Clock::System.deadline(limit), settled).is_none() {
            let left = self.shared.state.look(State::overdue);
            panic!("the clock has not settled within {limit:?}: what was due and is not done: {left}");
        }
    }

    /// How many threads wait, among other things, for this clock to come to some time: sleeping agents, and waits with a
    /// timeout. Those whose time has come do not count any more, nor do the timeouts of turns.
    pub fn waiters(&self) -> usize {
        self.shared.state.look(State::waiters)
    }

    /// Waits until at least so many threads wait for this clock; see [`waiters`](Self::waiters).
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
    /// clock.wait_for_waiters(1); // its sleep has begun, so its end is 60 seconds from now
    /// clock.advance(Duration::from_secs(60));
    /// assert_eq!(turn.wait()?.text, "rested");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If they do not come within a minute of real time.
    ///
    /// # Blocking
    /// Until then.
    #[track_caller]
    pub fn wait_for_waiters(&self, threads: usize) {
        self.wait_for_waiters_within(PATIENCE, threads);
    }

    #[track_caller]
    fn wait_for_waiters_within(&self, limit: Duration, threads: usize) {
        let are_there = |state: &State| (state.waiters() >= threads).then_some(());
        if self.shared.state.wait(&Clock::System.deadline(limit), are_there).is_none() {
            let waiters = self.waiters();
            panic!("expected {threads} threads to wait for the clock within {limit:?}, found {waiters}");
        }
    }

    /// An entry for somebody who waits until `at`, and what rings then.
    pub(crate) fn wait_entry(&self, at: Option<Instant>) -> (Entry, Receiver<Instant>) {
        let (bell, rings) = bounded(1);
        (self.enter(at, Kind::Wait, Some(bell)), rings)
    }

    /// An entry for somebody who has something to do at `at`, and what rings then.
    pub(crate) fn watch_entry(&self, at: Option<Instant>) -> (Entry, Receiver<Instant>) {
        let (bell, rings) = bounded(1);
        (self.enter(at, Kind::Duty, Some(bell)), rings)
    }

    /// An entry for something to be done at `at`, whoever is going to do it.
    pub(crate) fn duty_entry(&self, at: Option<Instant>) -> Entry {
        self.enter(at, Kind::Duty, None)
    }

    fn enter(&self, at: Option<Instant>, kind: Kind, bell: Option<Sender<Instant>>) -> Entry {
        let when = at.map_or(When::Never, When::At);
        let (key, late) = self.shared.state.change(|state| {
            let key = (when, state.next_number);
            state.next_number += 1;
            let (rings, late) = if state.is_overdue(when) { (None, bell) } else { (bell, None) };
            state.entries.insert(key, Waiting { kind, rings });
            (key, late.map(|bell| (bell, state.now)))
        });
        if let Some((bell, now)) = late {
            let _ = bell.try_send(now);
        }
        Entry { clock: Arc::clone(&self.shared), key }
    }

    /// As a receive with a deadline: what is there already is received, also where its time is up.
    pub(crate) fn receive<T>(&self, channel: &Receiver<T>, at: Option<Instant>) -> Result<T, RecvTimeoutError> {
        match channel.try_recv() {
            Ok(value) => return Ok(value),
            Err(error) if error.is_disconnected() => return Err(RecvTimeoutError::Disconnected),
            Err(_) => {}
        }
        let (_entry, rings) = self.wait_entry(at);
        select! {
            recv(channel) -> value => value.map_err(|_| RecvTimeoutError::Disconnected),
            recv(rings) -> _ => channel.try_recv().map_err(|error| {
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
    fn what_is_due_rings_whether_it_was_there_before_the_advance_or_comes_after_it() {
        let clock = ManualClock::new();
        let time = at(&clock, SECOND);
        let (_early, rings) = clock.wait_entry(time);
        let (_later, silent) = clock.wait_entry(at(&clock, 2 * SECOND));
        let (_never, deaf) = clock.wait_entry(None);
        assert!(rings.try_recv().is_err());
        clock.advance(SECOND);
        assert_eq!(rings.try_recv(), Ok(clock.now()));
        let (_late, at_once) = clock.wait_entry(time);
        assert_eq!(at_once.try_recv(), Ok(clock.now()));
        assert!(silent.try_recv().is_err() && deaf.try_recv().is_err());
        assert_eq!(clock.waiters(), 2);
    }

    #[test]
    fn a_clock_has_settled_when_all_that_was_due_is_done() {
        let clock = ManualClock::new();
        let (duty, time) = (clock.duty_entry(at(&clock, SECOND)), at(&clock, 2 * SECOND));
        let (wait, _rings) = clock.wait_entry(time);
        clock.settle();
        clock.advance(SECOND);
        let unsettled =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| clock.settle_within(SHORT))).unwrap_err();
        let message = unsettled.downcast::<String>().unwrap();
        assert_eq!(*message, "the clock has not settled within 5ms: what was due and is not done: 1");
        drop(duty);
        clock.settle();
        drop(wait);
        assert!(clock.shared.state.look(|state| state.entries.is_empty()));
    }

    #[test]
    #[should_panic = "expected 1 threads to wait for the clock within 5ms, found 0"]
    fn nobody_is_waited_for_for_ever() {
        let clock = ManualClock::new();
        let _duty = clock.duty_entry(at(&clock, SECOND));
        clock.wait_for_waiters_within(SHORT, 1);
    }

    #[test]
    #[should_panic = "past the end of time"]
    fn time_has_an_end() {
        ManualClock::new().advance(Duration::MAX);
    }

    #[test]
    fn what_has_come_is_received_however_late_it_is() {
        let clock = ManualClock::new();
        let (sender, receiver) = bounded(1);
        assert_eq!(clock.receive(&receiver, Some(clock.now())), Err(RecvTimeoutError::Timeout));
        sender.send(1).unwrap();
        assert_eq!(clock.receive(&receiver, Some(clock.now())), Ok(1));
        drop(sender);
        assert_eq!(clock.receive(&receiver, Some(clock.now())), Err(RecvTimeoutError::Disconnected));
        assert!(clock.shared.state.look(|state| state.entries.is_empty()));
    }
}
