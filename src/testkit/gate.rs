//! Points that a test stops others at.

use std::fmt;
use std::time::Duration;

use crate::cancel::CancelToken;
use crate::error::Cancelled;
use crate::sync::{never, select, Arc};
use crate::testkit::PATIENCE;
use crate::time::clock::Clock;
use crate::time::watched::Watched;

/// A point that agents, or any other threads, stop at until the test lets them go on; and that the test can wait at until
/// somebody has come.
///
/// So a test knows where a turn is when it interrupts, reads or archives it, without a sleep: the turn cannot be past the
/// gate, and once [`wait_arrived`](Self::wait_arrived) returns it is not before it either. A cheap handle: clones are the
/// same gate. Closed to begin with.
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
    /// How many may pass, though it is closed.
    allowed: usize,
    arrived: usize,
    waiting: usize,
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self { state: Arc::new(Watched::new(State::default())) }
    }

    /// Lets everybody through, from now on and for good.
    ///
    /// # Blocking
    /// Does not block.
    pub fn open(&self) {
        self.state.change(|state| state.open = true);
    }

    /// Lets so many through, of those who wait now or come later; which of them is not said.
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
    /// gate.wait_arrived(2); // it has made the first step, and not the second
    /// assert_eq!((gate.waiting(), turn.is_finished()), (1, false));
    /// gate.let_through(1);
    /// assert!(turn.wait().is_ok());
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Blocking
    /// Does not block.
    pub fn let_through(&self, how_many: usize) {
        self.state.change(|state| state.allowed = state.allowed.saturating_add(how_many));
    }

    /// Waits to be let through, or for the turn to be told to stop.
    ///
    /// # Errors
    /// [`Cancelled`] where the turn has been told to stop, also where the gate is open.
    ///
    /// # Blocking
    /// Until then. The turn keeps its running permit, as it does while it works.
    pub fn pass(&self, cancel: &CancelToken) -> Result<(), Cancelled> {
        self.wait_at(Some(cancel))
    }

    /// Waits to be let through, and for nothing else: for agents that do not heed their token, and for threads that have
    /// none.
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
    /// Until then, for ever if it comes to that.
    pub fn pass_regardless(&self) {
        // There is no token that could end it.
        let _ = self.wait_at(None);
    }

    /// How many have ever come to the gate.
    pub fn arrived(&self) -> usize {
        self.state.look(|state| state.arrived)
    }

    /// How many wait at the gate now.
    pub fn waiting(&self) -> usize {
        self.state.look(|state| state.waiting)
    }

    /// Waits until so many have come to the gate, ever: those who have left it again count too.
    ///
    /// # Panics
    /// If they have not come after [`PATIENCE`].
    ///
    /// # Blocking
    /// Until then, in real time.
    #[track_caller]
    pub fn wait_arrived(&self, how_many: usize) {
        self.wait_arrived_within(PATIENCE, how_many);
    }

    #[track_caller]
    fn wait_arrived_within(&self, limit: Duration, how_many: usize) {
        let have_come = |state: &State| (state.arrived >= how_many).then_some(());
        if self.state.wait(&Clock::System.deadline(limit), have_come).is_none() {
            panic!("expected {how_many} to come to the gate within {limit:?}, found {self:?}");
        }
    }

    fn wait_at(&self, cancel: Option<&CancelToken>) -> Result<(), Cancelled> {
        let _visit = Visit::begin(self);
        let cancelled = cancel.map_or_else(never, |cancel| cancel.cancelled().clone());
        loop {
            // Asked first: where both have happened, what a turn sees does not depend on luck.
            cancel.map_or(Ok(()), CancelToken::check)?;
            match self.state.take(State::let_one_through) {
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
    fn let_one_through(&mut self) -> Option<()> {
        if !self.open {
            self.allowed = self.allowed.checked_sub(1)?;
        }
        Some(())
    }
}

/// Somebody at the gate.
struct Visit<'a>(&'a Gate);

impl<'a> Visit<'a> {
    fn begin(gate: &'a Gate) -> Self {
        gate.state.change(|state| {
            state.arrived += 1;
            state.waiting += 1;
        });
        Self(gate)
    }
}

impl Drop for Visit<'_> {
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
        self.state.look(|state| {
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
    #[should_panic = "expected 2 to come to the gate within 5ms, found Gate { open: true, arrived: 1, waiting: 0, .. }"]
    fn nobody_is_waited_for_for_ever() {
        let gate = Gate::new();
        gate.open();
        gate.pass_regardless();
        gate.wait_arrived(1);
        gate.wait_arrived_within(Duration::from_millis(5), 2);
    }
}
