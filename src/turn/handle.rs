//! What a caller holds while a turn runs, and how the result gets there from the session thread.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use crate::cancel::CancelToken;
use crate::error::{CancelReason, SessionError};
use crate::model::{RunResult, SessionId, TurnId};
use crate::panics::contain_and_log;
use crate::reentrancy::{Wait, WaitError, WaitKey};
use crate::sync::{Arc, Mutex, Receiver};
use crate::time::clock::{Clock, Deadline};
use crate::wait::latch::Latch;

/// A turn that has been admitted: wait for its result, look whether it is there, or interrupt it.
///
/// Dropping the handle detaches: the turn goes on, its result is lost. Answers repeat: once the turn is over, every way of
/// asking gives the same result again.
///
/// ```
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt.to_uppercase()))), 2);
/// let first = service.begin_session(CreateSessionRequest::new("one"))?;
/// let second = service.begin_session(CreateSessionRequest::new("two"))?; // the two run side by side
/// assert_eq!(first.wait()?.text, "ONE");
/// assert_eq!(second.wait()?.text, "TWO");
/// # Ok::<(), turnwise::SessionError>(())
/// ```
///
/// # On a session's own thread
/// An agent that waits for another session's turn gives its running permit back meanwhile, stops waiting with
/// [`SessionError::Interrupted`] when its own turn is cancelled, and is refused with [`SessionError::Reentrant`] what
/// would have it wait for itself.
#[must_use = "dropping it detaches from the turn: its result is lost"]
pub struct TurnHandle {
    session_id: SessionId,
    turn_id: TurnId,
    key: WaitKey,
    cancel: CancelToken,
    outcome: Arc<Outcome>,
    clock: Clock,
}

impl TurnHandle {
    pub(crate) fn new(
        session_id: SessionId,
        turn_id: TurnId,
        key: WaitKey,
        cancel: CancelToken,
        outcome: Arc<Outcome>,
        clock: Clock,
    ) -> Self {
        Self { session_id, turn_id, key, cancel, outcome, clock }
    }

    /// The session that runs.
    pub fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// The turn that runs.
    pub fn turn_id(&self) -> TurnId {
        self.turn_id
    }

    /// Tells this turn to stop. Never reaches another one: once this turn is over it does nothing.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use turnwise::{agent_fn, CancelReason, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// # use turnwise::StartTurnRequest;
    /// let agent = agent_fn(|prompt, turn| match prompt.as_str() {
    ///     "sleep" => Err(turn.sleep(Duration::MAX).unwrap_err().into()),
    ///     _ => Ok(turn.finish(prompt)),
    /// });
    /// let service = EphemeralSessionService::new(agent, 8);
    /// let turn = service.begin_session(CreateSessionRequest::new("sleep"))?;
    /// let id = turn.session_id();
    /// turn.interrupt();
    /// assert_eq!(turn.wait().unwrap_err().cancel_reason(), Some(CancelReason::Interrupted));
    /// assert_eq!(service.start_turn(id, StartTurnRequest::new("go on"))?.text, "go on");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Blocking
    /// Does not wait for the turn. Runs the agent's cancel hooks on this thread.
    pub fn interrupt(&self) {
        self.cancel.cancel_and_run_hooks(CancelReason::Interrupted);
    }

    /// Whether the result is there.
    pub fn is_finished(&self) -> bool {
        self.outcome.finished().is_set()
    }

    /// The result, if it is there: for frame loops.
    ///
    /// ```
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// # let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
    /// let mut turn = service.begin_session(CreateSessionRequest::new("hello"))?;
    /// let result = loop {
    ///     match turn.try_wait() {
    ///         Some(result) => break result?,
    ///         None => std::thread::yield_now(), // here the next frame would be drawn
    ///     }
    /// };
    /// assert_eq!(result.text, "hello");
    /// assert!(turn.is_finished());
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// Inside: what the turn ended with.
    pub fn try_wait(&mut self) -> Option<Result<RunResult, SessionError>> {
        self.outcome.get()
    }

    /// The result, if it comes in time; `None` otherwise.
    ///
    /// ```
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// use std::time::Duration;
    ///
    /// # let agent = agent_fn(|prompt, turn| {
    /// #     turn.sleep(Duration::MAX)?;
    /// #     Ok(turn.finish(prompt))
    /// # });
    /// # let service = EphemeralSessionService::new(agent, 8);
    /// let mut turn = service.begin_session(CreateSessionRequest::new("sleep until you are told to stop"))?;
    /// if turn.wait_timeout(Duration::from_millis(1)).is_none() {
    ///     turn.interrupt(); // it has had its time
    /// }
    /// let result = turn.wait_timeout(Duration::from_secs(60)).expect("it heeds its token");
    /// assert!(result.unwrap_err().cancel_reason().is_some());
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// Inside: what the turn ended with; on a session's own thread also what ended the wait (see [`TurnHandle`]).
    ///
    /// # Blocking
    /// Until the turn ends, at most for `timeout`.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<Result<RunResult, SessionError>> {
        let waiting = self.clock.stopwatch();
        match self.wait_until(&waiting.deadline(timeout)) {
            Ok(()) => self.outcome.get(),
            Err(WaitError::TimedOut) => None,
            Err(error) => Some(Err(error.into_session_error(self.session_id, &waiting))),
        }
    }

    /// The result.
    ///
    /// ```
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionError, SessionService};
    /// let service = EphemeralSessionService::new(agent_fn(|_, _| panic!("out of ideas")), 8);
    /// let turn = service.begin_session(CreateSessionRequest::new("hello"))?;
    /// match turn.wait() {
    ///     Err(SessionError::Faulted { message, .. }) => assert_eq!(&*message, "out of ideas"),
    ///     other => unreachable!("{other:?}"),
    /// }
    /// # Ok::<(), SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::Agent`] where the agent failed or was cancelled, [`SessionError::Faulted`] where it panicked,
    /// [`SessionError::Build`] where it could not be built; on a session's own thread also what ended the wait (see
    /// [`TurnHandle`]).
    ///
    /// # Blocking
    /// Until the turn ends. An agent that neither returns nor heeds its cancel token makes this wait for ever; a caller
    /// who cannot afford that uses [`wait_timeout`](TurnHandle::wait_timeout).
    pub fn wait(self) -> Result<RunResult, SessionError> {
        self.wait_until(&Deadline::never()).map_err(|error| self.cut_short(error))?;
        self.outcome.take().unwrap_or(Err(SessionError::NotFound { id: self.session_id }))
    }

    /// As [`wait`](Self::wait), with a wait that has been announced already.
    pub(crate) fn wait_announced(self, wait: Wait) -> Result<RunResult, SessionError> {
        let waited = wait.wait_for(self.outcome.finished(), &Deadline::never());
        waited.map_err(|error| self.cut_short(error))?;
        self.outcome.take().unwrap_or(Err(SessionError::NotFound { id: self.session_id }))
    }

    /// Announces a wait for the turn, before the turn can ask for the session of this thread.
    pub(crate) fn announce_wait(&self) -> Result<Wait, SessionError> {
        Wait::on(self.key).map_err(|error| self.cut_short(error))
    }

    /// The error of a wait that no time ends: how long the wait took is in none of them.
    fn cut_short(&self, error: WaitError) -> SessionError {
        error.into_session_error(self.session_id, &self.clock.stopwatch())
    }

    /// A channel that carries nothing and disconnects at the end of the turn: to `select!` over many turns.
    ///
    /// For threads of the host. A session's own thread that waits for it directly keeps its running permit, is not ended by
    /// its own cancellation, and is not kept from waiting for itself.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// use turnwise::crossbeam_channel::select;
    ///
    /// let agent = agent_fn(|prompt, turn| match prompt.as_str() {
    ///     "sleep" => Err(turn.sleep(Duration::MAX).unwrap_err().into()),
    ///     _ => Ok(turn.finish(prompt)),
    /// });
    /// let service = EphemeralSessionService::new(agent, 8);
    /// let slow = service.begin_session(CreateSessionRequest::new("sleep"))?;
    /// let quick = service.begin_session(CreateSessionRequest::new("hello"))?;
    /// select! {
    ///     recv(slow.finished()) -> _ => unreachable!("nobody wakes it"),
    ///     recv(quick.finished()) -> _ => {}
    /// }
    /// assert_eq!(quick.wait()?.text, "hello"); // does not wait any more
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn finished(&self) -> &Receiver<Infallible> {
        self.outcome.finished().receiver()
    }

    pub(crate) fn key(&self) -> WaitKey {
        self.key
    }

    pub(crate) fn deadline(&self, timeout: Duration) -> Deadline {
        self.clock.deadline(timeout)
    }

    pub(crate) fn wait_until(&self, deadline: &Deadline) -> Result<(), WaitError> {
        if self.is_finished() {
            return Ok(());
        }
        Wait::on(self.key)?.wait_for(self.outcome.finished(), deadline)
    }
}

impl fmt::Debug for TurnHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnHandle")
            .field("session_id", &self.session_id)
            .field("turn_id", &self.turn_id)
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

pub(crate) type TurnResult = Result<RunResult, SessionError>;

/// The slot for a turn's result. The result is put in before `finished` is set.
#[derive(Debug)]
pub(crate) struct Outcome {
    session_id: SessionId,
    result: Mutex<Option<TurnResult>>,
    finished: Latch,
}

/// The duty to give one result: what [`prepare`](Answer::prepare) put in, or that the session is gone. [`give`](Answer::give) gives
/// it, and so does a drop, so that no caller is left waiting.
#[must_use = "dropping it answers the caller"]
#[derive(Debug)]
pub(crate) struct Answer {
    /// `None` once the result is given.
    outcome: Option<Arc<Outcome>>,
}

impl Outcome {
    pub(crate) fn new(session_id: SessionId) -> (Answer, Arc<Self>) {
        let outcome = Arc::new(Self { session_id, result: Mutex::new(None), finished: Latch::new() });
        (Answer { outcome: Some(Arc::clone(&outcome)) }, outcome)
    }

    pub(crate) fn finished(&self) -> &Latch {
        &self.finished
    }

    /// A copy of the result, once it is there.
    pub(crate) fn get(&self) -> Option<TurnResult> {
        if !self.finished.is_set() {
            return None;
        }
        self.result.lock().clone()
    }

    /// The result itself, once it is there: for the last call.
    pub(crate) fn take(&self) -> Option<TurnResult> {
        if !self.finished.is_set() {
            return None;
        }
        self.result.lock().take()
    }
}

impl Answer {
    /// Decides what the caller will get. To be called once.
    pub(crate) fn prepare(&self, result: TurnResult) {
        if let Some(outcome) = &self.outcome {
            *outcome.result.lock() = Some(result);
        }
    }

    /// Gives the result to the caller.
    pub(crate) fn give(mut self) {
        self.give_once();
    }

    fn give_once(&mut self) {
        let Some(outcome) = self.outcome.take() else { return };
        let id = outcome.session_id;
        outcome.result.lock().get_or_insert(Err(SessionError::NotFound { id }));
        outcome.finished.set();
    }
}

/// The result of a turn that no caller waits for is dropped with the last share, on any thread: it may hold an error of the agent.
impl Drop for Outcome {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.take() {
            contain_and_log("the drop of a turn's error", move || drop(error));
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.give_once();
    }
}
