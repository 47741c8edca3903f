//! Gates: points at which a test holds other threads.

use std::fmt;
use std::time::Duration;

use crate::cancel::CancelToken;
use crate::error::Cancelled;
use crate::sync::{never, select, Arc};
use crate::testkit::PATIENCE;
use crate::time::clock::Clock;
use crate::time::watched::Watched;

/// A point at which agents, or any other threads, wait until the test lets them pass. The test can wait until threads
/// have arrived.
///
/// So a test knows where a turn is when it interrupts, reads or archives it, without a sleep. The turn cannot be past
/// the gate, and once [`wait_arrived`](Self::wait_arrived) returns it has reached it. A cheap handle: clones are the
/// same gate. A new gate is closed.
///
/// ```
/// use turnwise::testkit::Gate;
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, SessionState};
///
/// let gate = Gate::new();
/// let at = gate.clone();
/// let service = EphemeralSessionService::new(agent_fn(move |prompt, turn| {
///     at.pass(turn.cancel_token())?;
///     Ok(turn.finish(prompt))
/// }), 1);
/// let turn = service.begin_session(CreateSessionRequest::new("hello"))?;
/// gate.wait_arrived(1);
/// assert_eq!(service.read(turn.session_id())?.state.state, SessionState::Running);
/// gate.open();
/// assert_eq!(turn.wait()?.text, "hello");
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone)]
pub struct Gate {
    state: Arc<Watched<State>>,
}

#[derive(Debug, Default)]
struct State {
    open: bool,
    /// How many more arrivals may pass while the gate is closed.
    passes: usize,
    arrived: usize,
    waiting: usize,
}

impl Gate {
    /// Makes a closed gate.
    pub fn new() -> Self {
        Self { state: Arc::new(Watched::new(State::default())) }
    }

    /// Opens the gate: lets every waiting and later thread pass.
    ///
    /// # Blocking
    /// Does not block.
    pub fn open(&self) {
        self.state.change(|state| state.open = true);
    }

    /// Lets `how_many` threads pass, waiting or later ones. The order is unspecified.
    ///
    /// ```
    /// use turnwise::testkit::{scripted, Gate, Script};
    /// use turnwise::{CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let gate = Gate::new();
    /// let agent = scripted().on("two steps", Script::new().wait_at(&gate).wait_at(&gate));
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let turn = service.begin_session(CreateSessionRequest::new("two steps"))?;
    /// gate.let_through(1);
    /// gate.wait_arrived(2); // the turn is past the first step, and not past the second
    /// assert_eq!((gate.waiting(), turn.is_finished()), (1, false));
    /// gate.let_through(1);
    /// assert!(turn.wait().is_ok());
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Blocking
    /// Does not block.
    pub fn let_through(&self, how_many: usize) {
        self.state.change(|state| state.passes = state.passes.saturating_add(how_many));
    }

    /// Waits until the test lets the thread pass, or the turn is cancelled.
    ///
    /// # Errors
    /// [`Cancelled`] where the turn is cancelled, even if the gate is open.
    ///
    /// # Blocking
    /// Until the thread passes or the turn is cancelled. The turn keeps its running permit meanwhile.
    pub fn pass(&self, cancel: &CancelToken) -> Result<(), Cancelled> {
        self.wait_at(Some(cancel))
    }

    /// Waits until the test lets the thread pass, regardless of cancellation: for agents that ignore their token, and
    /// for threads that have none.
    ///
    /// ```
    /// use std::thread;
    /// use turnwise::testkit::Gate;
    ///
    /// let gate = Gate::new();
    /// let at = gate.clone();
    /// let helper = thread::spawn(move || at.pass_regardless());
    /// gate.wait_arrived(1);
    /// assert!(!helper.is_finished());
    /// gate.open();
    /// helper.join().unwrap();
    /// ```
    ///
    /// # Blocking
    /// Until the test opens the gate or lets the thread pass, which may be never.
    pub fn pass_regardless(&self) {
        // Without a token the wait cannot fail.
        let _ = self.wait_at(None);
    }

    /// Returns how many arrivals there were in all.
    pub fn arrived(&self) -> usize {
        self.state.read(|state| state.arrived)
    }

    /// Returns how many threads wait at the gate now.
    pub fn waiting(&self) -> usize {
        self.state.read(|state| state.waiting)
    }

    /// Waits until there were `how_many` arrivals in all, including threads that have left the gate.
    ///
    /// # Panics
    /// If there are fewer arrivals after [`PATIENCE`].
    ///
    /// # Blocking
    /// Until the arrivals, at most for [`PATIENCE`], in real time.
    #[track_caller]
    pub fn wait_arrived(&self, how_many: usize) {
        self.wait_arrived_within(PATIENCE, how_many);
    }

    #[track_caller]
    fn wait_arrived_within(&self, limit: Duration, how_many: usize) {
        let enough_arrived = |state: &State| (state.arrived >= how_many).then_some(());
        if self.state.wait(&Clock::System.deadline(limit), enough_arrived).is_none() {
            panic!("expected {how_many} arrivals at the gate within {limit:?}, found {self:?}");
        }
    }

    fn wait_at(&self, cancel: Option<&CancelToken>) -> Result<(), Cancelled> {
        let _waiting = WaitingThread::arrive(self);
        let cancelled = cancel.map_or_else(never, |cancel| cancel.cancelled().clone());
        loop {
            // Checked first: where the turn is cancelled and the gate is open, the result must not depend on chance.
            cancel.map_or(Ok(()), CancelToken::check)?;
            match self.state.take(State::take_pass) {
                Ok(()) => return Ok(()),
                Err(change) => select! {
                    recv(change.receiver()) -> _ => {}
                    recv(cancelled) -> _ => {}
                },
            }
        }
    }
}

impl State {
    fn take_pass(&mut self) -> Option<()> {
        if !self.open {
            self.passes = self.passes.checked_sub(1)?;
        }
        Some(())
    }
}

/// Counts a waiting thread as long as it lives.
struct WaitingThread<'a>(&'a Gate);

impl<'a> WaitingThread<'a> {
    fn arrive(gate: &'a Gate) -> Self {
        gate.state.change(|state| {
            state.arrived += 1;
            state.waiting += 1;
        });
        Self(gate)
    }
}

impl Drop for WaitingThread<'_> {
    fn drop(&mut self) {
        self.0.state.change(|state| state.waiting -= 1);
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.read(|state| {
            f.debug_struct("Gate")
                .field("open", &state.open)
                .field("arrived", &state.arrived)
                .field("waiting", &state.waiting)
                .finish_non_exhaustive()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic = "expected 2 arrivals at the gate within 5ms, found Gate { open: true, arrived: 1, waiting: 0, .. }"]
    fn waiting_for_arrivals_times_out() {
        let gate = Gate::new();
        gate.open();
        gate.pass_regardless();
        gate.wait_arrived(1);
        gate.wait_arrived_within(Duration::from_millis(5), 2);
    }
}
