//! The handle of an accepted turn, and the slot by which the session thread gives the result to the caller.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use crate::cancel::CancelToken;
use crate::error::{CancelReason, SessionError};
use crate::model::{RunResult, SessionId, TurnId, TurnTimings};
use crate::panics::contain_and_log;
use crate::reentrancy::{OnBehalf, TurnRef, Wait, WaitError, WaitKey};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, Receiver};
use crate::time::clock::{Clock, Deadline};
use crate::wait::latch::Latch;

/// An accepted turn, running or queued. A caller can wait for its result, poll for it, or interrupt the turn.
///
/// Dropping the handle detaches: the turn goes on, its result is lost. Once the turn is over, every call returns the
/// same result again.
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
/// # On a session thread
/// An agent that waits for another session's turn gives its running permit back during the wait. The wait ends with
/// [`SessionError::Interrupted`] when the agent's own turn is cancelled. A wait in which the session would wait for
/// itself is refused with [`SessionError::Reentrant`]. On any other thread this holds for handles that were obtained
/// through a [`TurnService`](crate::TurnService), until the turn of that service ends.
#[must_use = "dropping it detaches from the turn: its result is lost"]
pub struct TurnHandle {
    session_id: SessionId,
    turn_id: TurnId,
    key: WaitKey,
    cancel: CancelToken,
    outcome: Arc<Outcome>,
    clock: Clock,
    /// The turn through whose service the handle was obtained. In a box, since few handles have one.
    waiting_turn: Option<Box<TurnRef>>,
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
        Self { session_id, turn_id, key, cancel, outcome, clock, waiting_turn: None }
    }

    /// The same handle, whose waits belong to a turn until that ends.
    pub(crate) fn on_behalf_of(self, turn: TurnRef) -> Self {
        Self { waiting_turn: Some(Box::new(turn)), ..self }
    }

    /// Makes this thread's waits those of the turn through whose service the handle was obtained.
    pub(crate) fn enter(&self) -> Option<OnBehalf> {
        self.waiting_turn.as_ref().and_then(|turn| turn.enter())
    }

    /// The id of the session that runs the turn.
    pub fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// The id of the turn.
    pub fn turn_id(&self) -> TurnId {
        self.turn_id
    }

    /// Tells this turn to stop. Never reaches another turn: after the end of this one it does nothing. A
    /// [queued](Self::is_queued) turn is withdrawn: it is answered at once, without being run.
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

    /// Whether the turn waits in the queue of its session, behind other turns. A turn is queued only if its request says
    /// so, with [`WhenBusy::Queue`](crate::WhenBusy::Queue) or [`WhenBusy::Interrupt`](crate::WhenBusy::Interrupt).
    ///
    /// ```
    /// # use std::time::Duration;
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, StartTurnRequest, WhenBusy};
    ///
    /// # let agent = agent_fn(|prompt, turn| match prompt.as_str() {
    /// #     "sleep" => Err(turn.sleep(Duration::MAX).unwrap_err().into()),
    /// #     _ => Ok(turn.finish(prompt)),
    /// # });
    /// # let service = EphemeralSessionService::new(agent, 8);
    /// let sleeping = service.begin_session(CreateSessionRequest::new("sleep"))?;
    /// let id = sleeping.session_id();
    /// let next = service.begin_turn(id, StartTurnRequest::new("next").when_busy(WhenBusy::Queue))?;
    /// assert!(next.is_queued());
    /// sleeping.interrupt();
    /// assert_eq!(next.wait()?.text, "next");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn is_queued(&self) -> bool {
        self.outcome.is_queued.load(Ordering::SeqCst)
    }

    /// Whether the result is there.
    pub fn is_finished(&self) -> bool {
        self.outcome.finished().is_set()
    }

    /// How the turn has spent its time; `None` until it has ended. [`TurnTimings`] says what each part is.
    ///
    /// [`wait`](Self::wait) consumes the handle. [`wait_timeout`](Self::wait_timeout), [`try_wait`](Self::try_wait) and a
    /// wait for [`finished`](Self::finished) keep it.
    ///
    /// ```
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
    /// let turn = service.begin_session(CreateSessionRequest::new("hello"))?;
    /// turn.finished().recv().unwrap_err(); // the end of the turn disconnects it
    /// assert!(!turn.timings().expect("the turn has ended").running.is_zero());
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn timings(&self) -> Option<TurnTimings> {
        self.outcome.timings()
    }

    /// Returns the result, if it is there: for frame loops.
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
    /// Inside: the error that the turn ended with.
    pub fn try_wait(&mut self) -> Option<Result<RunResult, SessionError>> {
        self.outcome.get()
    }

    /// Waits for the result, at most for `timeout`; `None` if it does not come in time.
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
    /// Inside: the error that the turn ended with. On a session thread also the error that ended the wait (see
    /// [`TurnHandle`]).
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

    /// Waits for the result.
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
    /// [`SessionError::Agent`] if the agent failed or was cancelled, [`SessionError::Faulted`] if it panicked,
    /// [`SessionError::Build`] if it could not be built. On a session thread also the error that ended the wait (see
    /// [`TurnHandle`]).
    ///
    /// # Blocking
    /// Until the turn ends. An agent that neither returns nor checks its cancel token makes this wait for ever. A
    /// caller that must not wait so long uses [`wait_timeout`](TurnHandle::wait_timeout).
    pub fn wait(self) -> Result<RunResult, SessionError> {
        self.wait_until(&Deadline::never()).map_err(|error| self.session_error(error))?;
        self.outcome.take().unwrap_or(Err(SessionError::NotFound { id: self.session_id }))
    }

    /// As [`wait`](Self::wait), with a wait that has been announced already.
    pub(crate) fn wait_announced(self, wait: Wait) -> Result<RunResult, SessionError> {
        let waited = wait.wait_for(self.outcome.finished(), &Deadline::never());
        waited.map_err(|error| self.session_error(error))?;
        self.outcome.take().unwrap_or(Err(SessionError::NotFound { id: self.session_id }))
    }

    /// Announces a wait for the turn, before the turn can ask for the session of this thread.
    pub(crate) fn announce_wait(&self) -> Result<Wait, SessionError> {
        Wait::on(self.key).map_err(|error| self.session_error(error))
    }

    /// The error of a wait without a deadline. None of these errors says how long the wait took.
    fn session_error(&self, error: WaitError) -> SessionError {
        error.into_session_error(self.session_id, &self.clock.stopwatch())
    }

    /// A channel that carries no message and disconnects at the end of the turn, to `select!` over many turns.
    ///
    /// For threads of the host; [`wait_any`](crate::wait_any) is for all threads. A session thread that waits for the
    /// channel directly keeps its running permit. Its own cancellation does not end the wait, and a cycle is not
    /// detected.
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
    ///     recv(slow.finished()) -> _ => unreachable!("it sleeps until it is interrupted"),
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

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn cancel_token(&self) -> &CancelToken {
        &self.cancel
    }

    pub(crate) fn deadline(&self, timeout: Duration) -> Deadline {
        self.clock.deadline(timeout)
    }

    pub(crate) fn wait_until(&self, deadline: &Deadline) -> Result<(), WaitError> {
        if self.is_finished() {
            return Ok(());
        }
        let _on_behalf = self.enter();
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

/// The slot for a turn's result and its timings. Both are stored before `finished` is set.
#[derive(Debug)]
pub(crate) struct Outcome {
    session_id: SessionId,
    slot: Mutex<Slot>,
    finished: Latch,
    /// Whether the turn waits in the queue of its session. Changed together with the queue.
    is_queued: AtomicBool,
}

#[derive(Debug, Default)]
struct Slot {
    result: Option<TurnResult>,
    timings: TurnTimings,
}

/// The obligation to give one result: the one stored by [`prepare`](Answer::prepare), or [`SessionError::NotFound`].
/// [`give`](Answer::give) gives it, and so does a drop, so that no caller waits for ever.
#[must_use = "dropping it answers the caller"]
#[derive(Debug)]
pub(crate) struct Answer {
    outcome: Arc<Outcome>,
}

impl Outcome {
    pub(crate) fn new(session_id: SessionId) -> (Answer, Arc<Self>) {
        let (slot, is_queued) = (Mutex::default(), AtomicBool::new(false));
        let outcome = Arc::new(Self { session_id, slot, finished: Latch::new(), is_queued });
        (Answer { outcome: Arc::clone(&outcome) }, outcome)
    }

    pub(crate) fn finished(&self) -> &Latch {
        &self.finished
    }

    /// A copy of the result, once the turn is over.
    pub(crate) fn get(&self) -> Option<TurnResult> {
        if !self.finished.is_set() {
            return None;
        }
        self.slot.lock().result.clone()
    }

    /// The timings, once the turn is over.
    fn timings(&self) -> Option<TurnTimings> {
        self.finished.is_set().then(|| self.slot.lock().timings)
    }

    /// The result itself, once the turn is over: for the last call.
    pub(crate) fn take(&self) -> Option<TurnResult> {
        if !self.finished.is_set() {
            return None;
        }
        self.slot.lock().result.take()
    }
}

impl Answer {
    /// Says whether the turn waits in the queue of its session.
    pub(crate) fn set_queued(&self, is_queued: bool) {
        self.outcome.is_queued.store(is_queued, Ordering::SeqCst);
    }

    /// Stores how long the turn was queued.
    pub(crate) fn set_queued_for(&self, queued: Duration) {
        self.outcome.slot.lock().timings.queued = queued;
    }

    /// Stores the result that the caller will get. Call it once.
    pub(crate) fn prepare(&self, result: TurnResult) {
        self.prepare_with_calls(result, TurnTimings::default());
    }

    /// As [`prepare`](Self::prepare), for a turn that was picked up, with the times of its calls.
    pub(crate) fn prepare_with_calls(&self, result: TurnResult, calls: TurnTimings) {
        let mut slot = self.outcome.slot.lock();
        slot.result = Some(result);
        slot.timings = TurnTimings { queued: slot.timings.queued, ..calls };
    }

    /// Gives the result to the caller.
    pub(crate) fn give(self) {
        // The drop gives it, on every other way out too.
        drop(self);
    }
}

/// The result of a detached turn is dropped with the last share, on any thread. It may hold an error of the agent,
/// whose drop may panic.
impl Drop for Outcome {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.take() {
            contain_and_log("the drop of a turn's error", move || drop(error));
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let id = self.outcome.session_id;
        self.outcome.slot.lock().result.get_or_insert(Err(SessionError::NotFound { id }));
        self.outcome.finished.set();
    }
}
