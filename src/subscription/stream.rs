//! The stream that a subscriber reads.

use std::fmt;
use std::time::Duration;

use crate::model::SessionEvent;
use crate::reentrancy::{self, TurnRef, Wait, WaitError, WaitKey};
use crate::sync::{Arc, Ordering, Receiver, RecvTimeoutError, TryRecvError, Weak};
use crate::time::clock::{Clock, Deadline};

use super::queue::{LostEvents, Queue, Scope, SharedState};
use super::Subscription;

/// The events of a session, or of all sessions of a service, from the subscription on.
///
/// The stream ends when its sessions have ended and every event is read. As an iterator it waits for the next event.
/// [`try_recv`](Self::try_recv) and [`recv_timeout`](Self::recv_timeout) are for loops that must not wait, or not for
/// long, and [`events`](Self::events) is for a `select!`. Dropping the stream ends the subscription, also for receivers
/// cloned from it.
///
/// The [`seq`](SessionEvent::seq) of one session's events rises by one. A missing number is a dropped event, which
/// [`dropped`](Self::dropped) counts.
///
/// ```
/// use std::time::Duration;
/// use turnwise::{agent_fn, AgentEvent, EphemeralSessionService, SessionService, SessionSpec, StartTurnRequest};
/// use turnwise::Subscription;
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
/// let id = service.open_session(SessionSpec::new())?;
/// let events = service.subscribe(id, Subscription::new())?;
/// assert!(events.try_recv().is_err()); // nothing yet
/// service.start_turn(id, StartTurnRequest::new("hello"))?;
/// assert!(matches!(events.recv_timeout(Duration::from_secs(60))?.event, AgentEvent::RunStarted { .. }));
/// service.archive(id)?; // the stream ends with its session
/// assert_eq!(events.count(), 1); // RunCompleted
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it ends the subscription"]
pub struct EventStream {
    events: Receiver<SessionEvent>,
    shared: Arc<SharedState>,
    /// Weak, because the stream ends when the last owner drops the queue.
    queue: Weak<Queue>,
    /// The session, if the stream is that of one session.
    session: Option<WaitKey>,
    clock: Clock,
    /// The turn through whose service the stream was obtained.
    waiting_turn: Option<TurnRef>,
}

impl EventStream {
    /// Makes a stream, and the queue for the sessions whose events it carries.
    ///
    /// `lost` counts the events that the stream misses, besides the stream's own count.
    pub(crate) fn new(options: Subscription, scope: Scope, clock: Clock, lost: Arc<LostEvents>) -> (Arc<Queue>, Self) {
        let (queue, events) = Queue::new(&options, scope, lost);
        let shared = Arc::clone(&queue.shared);
        let stream = Self { events, shared, queue: Arc::downgrade(&queue), session: None, clock, waiting_turn: None };
        (queue, stream)
    }

    /// Sets the one session whose events the stream carries.
    pub(crate) fn of_session(mut self, key: WaitKey) -> Self {
        self.session = Some(key);
        self
    }

    /// The same stream, whose waits belong to a turn until that ends.
    pub(crate) fn on_behalf_of(mut self, turn: TurnRef) -> Self {
        self.waiting_turn = Some(turn);
        self
    }

    /// The number of events that this subscriber has missed: dropped for lack of room, or lost before its subscription.
    ///
    /// ```
    /// use turnwise::{agent_fn, EphemeralSessionService, SessionService, SessionSpec, StartTurnRequest, Subscription};
    ///
    /// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
    /// let id = service.open_session(SessionSpec::new())?;
    /// let events = service.subscribe(id, Subscription::new().capacity(1))?; // the oldest event is dropped
    /// service.start_turn(id, StartTurnRequest::new("hello"))?;
    /// assert_eq!(events.dropped(), 1); // RunStarted
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn dropped(&self) -> u64 {
        // ORDERING: Relaxed; a figure for people, from which nothing follows.
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Returns the next event, if there is one now. Does not wait.
    ///
    /// ```
    /// use turnwise::{agent_fn, EphemeralSessionService, SessionService, SessionSpec, StartTurnRequest, Subscription};
    ///
    /// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
    /// let id = service.open_session(SessionSpec::new())?;
    /// let events = service.subscribe(id, Subscription::new())?;
    /// service.start_turn(id, StartTurnRequest::new("hello"))?;
    /// let mut seen = 0;
    /// while let Ok(event) = events.try_recv() { // all events until now
    ///     seen += 1;
    ///     println!("{:?}", event.event);
    /// }
    /// assert_eq!(seen, 2); // RunStarted, RunCompleted
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`TryRecvError::Empty`] if there is no event yet, [`TryRecvError::Disconnected`] if there will be none.
    pub fn try_recv(&self) -> Result<SessionEvent, TryRecvError> {
        let event = self.events.try_recv();
        self.shared.notify_room();
        event
    }

    /// Waits for the next event, at most for `timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::crossbeam_channel::RecvTimeoutError;
    /// use turnwise::{agent_fn, EphemeralSessionService, SessionService, SessionSpec, Subscription};
    ///
    /// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
    /// let id = service.open_session(SessionSpec::new())?;
    /// let events = service.subscribe(id, Subscription::new())?;
    /// assert_eq!(events.recv_timeout(Duration::from_millis(1)).unwrap_err(), RecvTimeoutError::Timeout);
    /// service.archive(id)?;
    /// assert_eq!(events.recv_timeout(Duration::from_secs(60)).unwrap_err(), RecvTimeoutError::Disconnected);
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`RecvTimeoutError::Timeout`] if there is no event yet, [`RecvTimeoutError::Disconnected`] if there will be
    /// none. On a session thread a wait that is ended or refused (see [`TurnHandle`](crate::TurnHandle)) returns
    /// `Timeout` at once. After a timeout such a loop must check whether its own turn is to stop.
    ///
    /// # Blocking
    /// Until there is an event or the stream has ended, at most for `timeout`.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<SessionEvent, RecvTimeoutError> {
        reentrancy::receive_now_or_wait(self.try_recv(), || self.recv_until(&self.clock.deadline(timeout)))
    }

    /// The channel of the events, for a `select!`.
    ///
    /// An emitter that waits for room ([`Overflow::Block`](crate::Overflow::Block)) notices a read here within 10
    /// milliseconds, and any other read at once. On a session thread a wait here keeps the turn's running permit, and a
    /// cancel of the turn does not end it.
    ///
    /// ```
    /// use turnwise::crossbeam_channel::{never, select, Receiver};
    /// use turnwise::{agent_fn, EphemeralSessionService, SessionService, SessionSpec, StartTurnRequest, Subscription};
    ///
    /// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
    /// let id = service.open_session(SessionSpec::new())?;
    /// let stream = service.subscribe(id, Subscription::new())?;
    /// service.start_turn(id, StartTurnRequest::new("hello"))?;
    /// let keys: Receiver<char> = never(); // stands for a channel of the host's own
    /// let seq = select! {
    ///     recv(stream.events()) -> event => event.ok().map(|event| event.seq),
    ///     recv(keys) -> _ => None,
    /// };
    /// assert_eq!(seq, Some(1));
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn events(&self) -> &Receiver<SessionEvent> {
        &self.events
    }

    pub(crate) fn recv_until(&self, deadline: &Deadline) -> Result<Option<SessionEvent>, WaitError> {
        let _on_behalf = self.waiting_turn.as_ref().and_then(TurnRef::enter);
        reentrancy::check()?;
        let event = match self.events.try_recv() {
            Ok(event) => Ok(Some(event)),
            Err(TryRecvError::Disconnected) => Ok(None),
            Err(TryRecvError::Empty) => match self.session {
                Some(key) => Wait::on(key).and_then(|wait| wait.receive(&self.events, deadline)),
                None => reentrancy::receive(&self.events, deadline),
            },
        };
        self.shared.notify_room();
        event
    }
}

/// Waits for the next event, or the end of the stream. On a session thread the iteration also ends when the session's
/// own turn is cancelled, or if the other session waits for this one.
impl Iterator for EventStream {
    type Item = SessionEvent;

    fn next(&mut self) -> Option<SessionEvent> {
        self.recv_until(&Deadline::never()).ok().flatten()
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.shared.stream_dropped.set();
        if let Some(queue) = self.queue.upgrade() {
            queue.disconnect();
        }
        // A receiver that was cloned from the stream must not read on as if the stream existed.
        while self.events.try_recv().is_ok() {}
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream")
            .field("unread", &self.events.len())
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}
