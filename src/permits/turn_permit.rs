//! The running permit of a session's turn, shared by every thread of the turn.
//!
//! A turn runs under one permit of the service's `max_running_turns`. A thread of the turn may wait for room for an
//! event, a sleep, another session, or capacity for one. It must not keep the permit during that wait: the reader of the
//! event may be a turn that needs it.
//!
//! # One permit, and a count of waits
//!
//! The first wait gives the permit back. The last wait takes a permit again, in arrival order, and counts as a wait
//! until it has one. A wait that ends while others go on returns at once. So no thread asks for a second permit of its
//! own turn:
//!
//! ```text
//! thread A                                  thread B
//! its wait is the last: asks for a permit   begins a wait (2 waits)
//! is granted one; 2 waits: gives it back    ...
//! goes on without (1 wait)                  its wait is the last: asks for a permit
//! ```
//!
//! If A stopped counting before it asks, B could begin and end a wait in between. B's wait would be the last too, and B
//! would ask for a second permit. With a limit of 1 the turn would then wait for itself.
//!
//! **Invariants.**
//! - The permit is held only while no thread of the turn waits. A turn may compute without a permit while another of
//!   its threads waits.
//! - A wait that outlives its turn changes nothing in the next turn: each wait carries the number of its run. A wait
//!   that begins on behalf of a turn that has ended lends nothing, and no token ends it.
//! - Liveness comes before the limit. A cancelled turn takes a permit beyond the limit, and so does a turn whose timed
//!   wait for another session, or for capacity, is over. Such a turn may be the one that has to stop the others.
//!
//! It also measures how long the turn waits for permits, and for the input that its threads ask for
//! ([`WaitTimes`]).
//!
//! It does not choose which turn gets a permit: the [`semaphore`](super::semaphore) does.

use std::time::Duration;

use crate::cancel::CancelToken;
use crate::error::Cancelled;
use crate::model::TurnId;
use crate::permits::semaphore::{Permit, Semaphore};
use crate::sync::{Arc, AtomicBool, Instant, Mutex, Ordering};
use crate::time::clock::{Clock, Deadline};
use crate::wait::latch::Latch;

use super::wait_times::{WaitTimes, Waited};

/// The permit of a session's turn, and the token that ends its waits, for all threads of the turn. One for each
/// session.
#[derive(Debug)]
pub(crate) struct TurnPermit {
    running: Arc<Semaphore>,
    clock: Clock,
    /// Whether `times` may have changed since the last call of the agent has ended.
    has_waited: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The token of the turn or of the build. `None` between turns: a wait of the agent's code then, such as in its
    /// drop, is not ended by a turn's token.
    cancel: Option<CancelToken>,
    /// The turn that the session runs. `None` during a build and between turns.
    turn: Option<TurnId>,
    /// Incremented by every start and every end of a run.
    run: u64,
    is_running: bool,
    permit: Option<Permit>,
    waits: usize,
    times: WaitTimes,
    /// Set when the run ends. Made by its first wait.
    over: Option<Arc<Latch>>,
}

/// A wait of one thread for the host's input. A drop ends it.
#[must_use = "dropping it ends the wait"]
pub(crate) struct InputWait<'a> {
    turn: &'a TurnPermit,
    run: u64,
}

/// A wait of one thread, during which its turn holds no permit. [`end_wait`](Self::end_wait) or a drop ends it.
#[must_use = "dropping it ends the wait"]
pub(crate) struct LentPermit {
    turn: Arc<TurnPermit>,
    run: u64,
    /// Set when the run ends, so that a helper thread does not wait for a permit of a turn that has ended.
    over: Arc<Latch>,
    until: Deadline,
}

impl TurnPermit {
    pub(crate) fn new(running: Arc<Semaphore>, clock: Clock) -> Arc<Self> {
        Arc::new(Self { running, clock, has_waited: AtomicBool::new(false), state: Mutex::default() })
    }

    /// Sets the token of a build. A build takes no permit.
    pub(crate) fn begin_build(&self, cancel: CancelToken) {
        let last = self.state.lock().cancel.replace(cancel);
        drop(last);
    }

    /// Waits for a permit and starts a run of `turn` with it.
    pub(crate) fn start(&self, turn: TurnId, cancel: &CancelToken) -> Result<(), Cancelled> {
        let (permit, waited) = self.acquire_first(cancel);
        let last = {
            let mut state = self.state.lock();
            let times = WaitTimes::after_first_permit(waited);
            let permit = match permit {
                Ok(permit) => Some(permit),
                Err(cancelled) => {
                    state.times = times;
                    return Err(cancelled);
                }
            };
            let run = state.run + 1;
            let cancel = Some(cancel.clone());
            let turn = Some(turn);
            let next = State { cancel, turn, run, is_running: true, permit, waits: 0, times, over: None };
            std::mem::replace(&mut *state, next)
        };
        drop(last);
        Ok(())
    }

    /// Waits for the first permit of a run. Returns the time that the wait took; zero, without a look at the clock, if
    /// a permit is free.
    fn acquire_first(&self, cancel: &CancelToken) -> (Result<Permit, Cancelled>, Duration) {
        if !cancel.is_cancelled() {
            if let Ok(permit) = self.running.try_acquire() {
                return (Ok(permit), Duration::ZERO);
            }
        }
        self.note_wait();
        let waiting = self.clock.stopwatch();
        (self.running.acquire(cancel), waiting.elapsed())
    }

    /// Ends the agent's call at `now`. Returns the time that it has spent in waits.
    pub(crate) fn end_call(&self, now: Instant) -> Waited {
        // ORDERING: Relaxed. The waits of this thread come before, and so do those of threads that it has joined. A
        // wait of any other thread may be missed: the call does not wait for it.
        if self.has_waited.load(Ordering::Relaxed) {
            self.has_waited.store(false, Ordering::Relaxed);
            self.state.lock().times.end_call(now)
        } else {
            Waited::default()
        }
    }

    /// Makes the end of the agent's call look at the times.
    fn note_wait(&self) {
        // ORDERING: Relaxed; see `end_call`.
        self.has_waited.store(true, Ordering::Relaxed);
    }

    /// Begins a wait for input, until the guard is dropped.
    pub(crate) fn begin_input(&self) -> InputWait<'_> {
        self.note_wait();
        let now = self.clock.now();
        let mut state = self.state.lock();
        state.times.begin_input(now);
        InputWait { turn: self, run: state.run }
    }

    /// Ends the run, if there is one, and gives its permit back. The token stays, since the turn goes on.
    pub(crate) fn stop(&self) {
        let ended = self.state.lock().end_run();
        ended.release();
    }

    /// Ends the run of an interaction. Until the next one, `cancel`, the turn's own token, ends a wait.
    pub(crate) fn end_interaction(&self, cancel: &CancelToken) {
        let (ended, last) = {
            let mut state = self.state.lock();
            let last = state.cancel.replace(cancel.clone());
            (state.end_run(), last)
        };
        ended.release();
        drop(last);
    }

    /// Ends the run at the end of the turn, and drops the token. The last share of the token is then the caller's,
    /// whose thread frees it.
    pub(crate) fn end_turn(&self) {
        let (ended, last) = {
            let mut state = self.state.lock();
            let last = state.cancel.take();
            state.turn = None;
            (state.end_run(), last)
        };
        ended.release();
        drop(last);
    }

    /// Whether `turn` has begun and not ended.
    pub(crate) fn is_of(&self, turn: TurnId) -> bool {
        self.cancel(Some(turn)).is_some()
    }

    /// The token that ends a wait, unless its turn has ended. `only` is the turn that waits; `None` means the turn or
    /// the build that is in progress.
    pub(crate) fn cancel(&self, only: Option<TurnId>) -> Option<CancelToken> {
        let cancel = {
            let state = self.state.lock();
            if state.is_of(only) {
                state.cancel.clone()
            } else {
                None
            }
        };
        cancel.filter(|cancel| !cancel.is_sealed())
    }

    /// Begins a wait and gives the permit back. `None` if no run is in progress, so that there is no permit to lend.
    /// `only` is as in [`cancel`](Self::cancel).
    ///
    /// `until` is the deadline of a timed wait for another session, or for the capacity that other sessions hold. No
    /// other deadline allows a permit beyond the limit.
    pub(crate) fn lend(self: &Arc<Self>, only: Option<TurnId>, until: Deadline) -> Option<LentPermit> {
        let (run, over, permit) = {
            let mut state = self.state.lock();
            if !state.is_running || !state.is_of(only) {
                return None;
            }
            state.waits += 1;
            let over = Arc::clone(state.over.get_or_insert_with(|| Arc::new(Latch::new())));
            (state.run, over, state.permit.take())
        };
        if let Some(permit) = permit {
            permit.release();
        }
        Some(LentPermit { turn: Arc::clone(self), run, over, until })
    }

    /// Changes the times of run `run`, if it is in progress.
    fn change_times(&self, run: u64, change: impl FnOnce(&mut WaitTimes, Instant)) {
        self.note_wait();
        let now = self.clock.now();
        let mut state = self.state.lock();
        if state.run == run {
            change(&mut state.times, now);
        }
    }
}

impl Drop for InputWait<'_> {
    fn drop(&mut self) {
        self.turn.change_times(self.run, WaitTimes::end_input);
    }
}

/// The permit and the latch of a run that has ended.
#[must_use]
struct EndedRun {
    permit: Option<Permit>,
    over: Option<Arc<Latch>>,
}

impl EndedRun {
    /// Ends the helper threads' waits for a permit, and gives the permit back. The caller holds no lock.
    fn release(self) {
        let Self { permit, over } = self;
        if let Some(over) = over {
            over.set();
        }
        if let Some(permit) = permit {
            permit.release();
        }
    }
}

impl State {
    fn is_of(&self, only: Option<TurnId>) -> bool {
        only.is_none() || only == self.turn
    }

    fn end_run(&mut self) -> EndedRun {
        if self.is_running {
            self.run += 1;
            (self.is_running, self.waits) = (false, 0);
        }
        EndedRun { permit: self.permit.take(), over: self.over.take() }
    }

    /// Ends a wait of run `run`, unless it is the run's last. For the last it returns the token for the wait for a
    /// permit.
    fn end_wait_beside_others(&mut self, run: u64) -> Option<CancelToken> {
        if self.run != run {
            return None;
        }
        if self.waits > 1 {
            self.waits -= 1;
            return None;
        }
        // A run always has a token.
        Some(self.cancel.clone().unwrap_or_else(CancelToken::new))
    }

    /// Ends a wait of run `run` that was the last when it asked for `permit`. Returns the permit if it is not needed
    /// any more.
    fn end_wait(&mut self, run: u64, permit: Permit) -> Option<Permit> {
        if self.run != run {
            return Some(permit);
        }
        self.waits -= 1;
        if self.waits > 0 {
            return Some(permit);
        }
        self.permit = Some(permit);
        None
    }
}

impl LentPermit {
    /// Ends the wait. The turn's last wait waits for a permit, which the turn holds again when this returns.
    pub(crate) fn end_wait(self) {
        // The drop ends it, on every other way out too.
        drop(self);
    }

    /// Takes a permit again. `None` if the run has ended.
    fn acquire_again(&self, cancel: &CancelToken) -> Option<Permit> {
        let Self { turn, run, over, until } = self;
        if !cancel.is_cancelled() {
            if let Ok(permit) = turn.running.try_acquire() {
                return Some(permit);
            }
        }
        turn.change_times(*run, WaitTimes::begin_permit);
        let permit = turn.running.acquire_or_exceed(cancel, until, over);
        turn.change_times(*run, WaitTimes::end_permit);
        permit
    }
}

impl Drop for LentPermit {
    fn drop(&mut self) {
        let Self { turn, run, .. } = &*self;
        let last = turn.state.lock().end_wait_beside_others(*run);
        let Some(cancel) = last else { return };
        let Some(permit) = self.acquire_again(&cancel) else { return };
        let surplus = turn.state.lock().end_wait(*run, permit);
        if let Some(surplus) = surplus {
            surplus.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::CancelReason;

    fn running() -> (Arc<Semaphore>, Arc<TurnPermit>, CancelToken) {
        let (semaphore, cancel) = (Semaphore::new(1), CancelToken::new());
        let turn = TurnPermit::new(Arc::clone(&semaphore), Clock::System);
        turn.start(TurnId::new(1), &cancel).unwrap();
        (semaphore, turn, cancel)
    }

    #[test]
    fn c60_only_the_last_of_nested_waits_takes_the_permit_again() {
        let (semaphore, turn, _cancel) = running();
        let outer = turn.lend(None, Deadline::never()).unwrap();
        assert_eq!(semaphore.held(), 0);
        let inner = turn.lend(None, Deadline::never()).unwrap();
        inner.end_wait();
        assert_eq!(semaphore.held(), 0);
        outer.end_wait();
        assert_eq!(semaphore.held(), 1);
        turn.stop();
        assert_eq!(semaphore.held(), 0);
        assert!(turn.lend(None, Deadline::never()).is_none());
    }

    #[test]
    fn c60_a_wait_that_outlives_its_run_changes_nothing_in_the_next() {
        let (semaphore, turn, cancel) = running();
        let late = turn.lend(None, Deadline::never()).unwrap();
        turn.stop();
        turn.start(TurnId::new(1), &cancel).unwrap();
        late.end_wait();
        assert_eq!(semaphore.held(), 1);
        turn.lend(None, Deadline::never()).unwrap().end_wait();
        assert_eq!(semaphore.held(), 1);
        turn.stop();
        assert_eq!(semaphore.held(), 0);
    }

    #[test]
    fn c60_a_wait_that_begins_during_the_permit_request_returns_the_permit() {
        let (semaphore, turn, _cancel) = running();
        let first = turn.lend(None, Deadline::never()).unwrap();
        let taken = semaphore.try_acquire().unwrap();
        std::thread::scope(|scope| {
            let asking = scope.spawn(move || first.end_wait());
            while semaphore.waiters() == 0 {
                std::thread::yield_now();
            }
            // A second thread of the turn begins and ends a wait before the first has its permit: it returns at once.
            turn.lend(None, Deadline::never()).unwrap().end_wait();
            let second = turn.lend(None, Deadline::never()).unwrap();
            taken.release();
            asking.join().unwrap();
            assert_eq!(semaphore.held(), 0);
            second.end_wait();
        });
        assert_eq!(semaphore.held(), 1);
    }

    #[test]
    fn c60_a_helper_does_not_wait_for_a_permit_of_an_ended_turn() {
        let (semaphore, turn, cancel) = running();
        let helper = turn.lend(None, Deadline::never()).unwrap();
        let taken = semaphore.try_acquire().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(move || helper.end_wait());
            while semaphore.waiters() == 0 {
                std::thread::yield_now();
            }
            turn.stop();
            cancel.seal();
            waiting.join().unwrap();
        });
        taken.release();
        assert_eq!(semaphore.held(), 0);
    }

    #[test]
    fn c60_a_cancelled_turn_exceeds_the_limit_at_the_end_of_its_wait() {
        let (semaphore, turn, cancel) = running();
        let wait = turn.lend(None, Deadline::never()).unwrap();
        let taken = semaphore.try_acquire().unwrap();
        cancel.cancel_and_run_hooks(CancelReason::Interrupted);
        wait.end_wait();
        assert_eq!(semaphore.held(), 2);
        taken.release();
    }

    #[test]
    fn c61_a_wait_on_behalf_of_an_ended_turn_lends_nothing() {
        let (semaphore, turn, cancel) = running();
        let [first, second] = [1, 2].map(TurnId::new);
        assert!(turn.is_of(first) && turn.cancel(Some(first)).is_some());
        assert!(!turn.is_of(second) && turn.lend(Some(second), Deadline::never()).is_none());
        turn.lend(Some(first), Deadline::never()).unwrap().end_wait();
        turn.end_turn();
        assert!(!turn.is_of(first) && turn.cancel(None).is_none());
        turn.start(second, &cancel).unwrap();
        assert!(turn.lend(Some(first), Deadline::never()).is_none());
        assert!(turn.cancel(Some(first)).is_none());
        assert_eq!(semaphore.held(), 1);
        turn.end_turn();
    }
}
