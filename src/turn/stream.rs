//! A turn's events as an iterator.

use std::time::Duration;

use crate::error::SessionError;
use crate::model::{AgentEvent, RunResult};
use crate::reentrancy::{self, Wait, WaitError};
use crate::sync::{Receiver, RecvTimeoutError, TryRecvError};
use crate::time::clock::Deadline;
use crate::turn::handle::TurnHandle;

/// The events of one turn, in order, until it ends. Then [`wait`](TurnStream::wait) returns its result.
///
/// The stream holds up to [`TurnStream::CAPACITY`] unread events; the turn waits while the stream is full. Dropping the
/// stream detaches from the turn, which goes on.
///
/// A session thread must not wait for that session in another way while the stream is unread. The session may be
/// waiting for room in the stream, and such a cycle is not detected.
///
/// ```
/// use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, SessionService};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| {
///     for word in prompt.split(' ') {
///         turn.emit(AgentEvent::TextDelta { delta: word.to_uppercase() })?;
///     }
///     Ok(turn.finish("done"))
/// }), 1);
/// let mut stream = service.stream_session(CreateSessionRequest::new("one two"))?;
/// let mut words = Vec::new();
/// for event in &mut stream {
///     if let AgentEvent::TextDelta { delta } = event {
///         words.push(delta);
///     }
/// }
/// assert_eq!(words, ["ONE", "TWO"]);
/// assert_eq!(stream.wait()?.text, "done");
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[must_use = "dropping it detaches from the turn: its result is lost"]
#[derive(Debug)]
pub struct TurnStream {
    handle: TurnHandle,
    events: Receiver<AgentEvent>,
}

impl TurnStream {
    /// The number of unread events that a stream holds.
    pub const CAPACITY: usize = 256;

    pub(crate) fn new(handle: TurnHandle, events: Receiver<AgentEvent>) -> Self {
        Self { handle, events }
    }

    pub(crate) fn map_handle(self, map: impl FnOnce(TurnHandle) -> TurnHandle) -> Self {
        Self { handle: map(self.handle), events: self.events }
    }

    /// Drops the events, and returns the handle.
    pub(crate) fn into_handle(self) -> TurnHandle {
        self.handle
    }

    /// The turn's handle.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// # let agent = agent_fn(|prompt, turn| {
    /// #     turn.sleep(Duration::MAX)?;
    /// #     Ok(turn.finish(prompt))
    /// # });
    /// # let service = EphemeralSessionService::new(agent, 8);
    /// let mut stream = service.stream_session(CreateSessionRequest::new("sleep until you are told to stop"))?;
    /// assert!(stream.next().is_some()); // RunStarted
    /// stream.handle().interrupt();
    /// assert!(matches!(stream.by_ref().last(), Some(AgentEvent::RunFailed { .. })));
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn handle(&self) -> &TurnHandle {
        &self.handle
    }

    /// Returns the next event, if there is one now: for frame loops of the host. An agent that polls another session's
    /// turn keeps its running permit, which that turn may need. Such an agent waits with
    /// [`recv_timeout`](Self::recv_timeout).
    ///
    /// # Errors
    /// [`TryRecvError::Empty`] if there is no event yet, [`TryRecvError::Disconnected`] once the turn is over and the
    /// session free for the next one.
    ///
    /// ```
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// use turnwise::crossbeam_channel::TryRecvError;
    ///
    /// # let service = EphemeralSessionService::new(agent_fn(|_, turn| Ok(turn.finish("done"))), 1);
    /// let stream = service.stream_session(CreateSessionRequest::new("hello"))?;
    /// loop {
    ///     match stream.try_recv() {
    ///         Ok(event) => println!("{event:?}"),
    ///         Err(TryRecvError::Empty) => std::thread::yield_now(), // here the next frame would be drawn
    ///         Err(TryRecvError::Disconnected) => break,
    ///     }
    /// }
    /// assert_eq!(stream.wait()?.text, "done"); // does not wait any more
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn try_recv(&self) -> Result<AgentEvent, TryRecvError> {
        match self.events.try_recv() {
            Err(TryRecvError::Disconnected) if !self.handle.is_finished() => Err(TryRecvError::Empty),
            result => result,
        }
    }

    /// Waits for the next event, at most for `timeout`: for loops that have other work too.
    ///
    /// ```
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// use std::time::Duration;
    /// use turnwise::crossbeam_channel::RecvTimeoutError;
    ///
    /// # let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
    /// let stream = service.stream_session(CreateSessionRequest::new("hello"))?;
    /// let mut events = 0;
    /// loop {
    ///     match stream.recv_timeout(Duration::from_millis(100)) {
    ///         Ok(_event) => events += 1,
    ///         Err(RecvTimeoutError::Timeout) => println!("still at it"),
    ///         Err(RecvTimeoutError::Disconnected) => break,
    ///     }
    /// }
    /// assert_eq!(events, 2); // RunStarted, RunCompleted
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`RecvTimeoutError::Timeout`] if there is no event yet, [`RecvTimeoutError::Disconnected`] once the turn is over
    /// and the session free for the next one.
    ///
    /// On a session thread a wait that is ended or refused (see [`TurnHandle`]) returns `Timeout` at once. After a
    /// timeout such a loop must check whether its own turn is to stop
    /// ([`TurnContext::check`](crate::TurnContext::check)). Otherwise it repeats without waiting.
    ///
    /// # Blocking
    /// Until there is an event or the turn has ended, at most for `timeout`.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<AgentEvent, RecvTimeoutError> {
        reentrancy::receive_now_or_wait(self.try_recv(), || self.recv_until(&self.handle.deadline(timeout)))
    }

    /// Waits for the next event; `None` once the turn is over.
    fn recv_until(&self, deadline: &Deadline) -> Result<Option<AgentEvent>, WaitError> {
        let _on_behalf = self.handle.enter();
        reentrancy::check()?;
        let event = Wait::on(self.handle.key())?.receive(&self.events, deadline)?;
        if event.is_none() {
            // The channel disconnects a moment before the session is free. After the end a caller may start the next
            // turn.
            self.handle.wait_until(deadline)?;
        }
        Ok(event)
    }

    /// Returns the turn's result, if it is there. Unread events are kept. For frame loops, after
    /// [`try_recv`](Self::try_recv) has shown the end.
    ///
    /// ```
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// # let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
    /// let mut stream = service.stream_session(CreateSessionRequest::new("hello"))?;
    /// let result = loop {
    ///     if let Some(result) = stream.try_wait() {
    ///         break result?;
    ///     }
    ///     std::thread::yield_now(); // here the next frame would be drawn
    /// };
    /// assert_eq!(result.text, "hello");
    /// assert_eq!(stream.count(), 2); // its events are still there
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// Inside: the error that the turn ended with.
    pub fn try_wait(&mut self) -> Option<Result<RunResult, SessionError>> {
        self.handle.try_wait()
    }

    /// The channel of the events, for a `select!`.
    ///
    /// It disconnects a moment before the session is free for the next turn, so call [`wait`](Self::wait) first. For
    /// threads of the host; [`TurnHandle::finished`] describes what a session thread lacks here.
    ///
    /// ```
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// use turnwise::crossbeam_channel::{never, select, Receiver};
    ///
    /// # let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
    /// let keys: Receiver<char> = never(); // stands for a channel of the host's own
    /// let stream = service.stream_session(CreateSessionRequest::new("hello"))?;
    /// loop {
    ///     select! {
    ///         recv(stream.events()) -> event => match event {
    ///             Ok(event) => println!("{event:?}"),
    ///             Err(_) => break,
    ///         },
    ///         recv(keys) -> _ => stream.handle().interrupt(),
    ///     }
    /// }
    /// assert_eq!(stream.wait()?.text, "hello");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn events(&self) -> &Receiver<AgentEvent> {
        &self.events
    }

    /// Waits for the turn's result. Unread events are discarded.
    ///
    /// ```
    /// # use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// # let agent = agent_fn(|prompt, turn| {
    /// #     turn.emit(AgentEvent::TextDelta { delta: "hm".into() })?;
    /// #     Ok(turn.finish(prompt))
    /// # });
    /// # let service = EphemeralSessionService::new(agent, 8);
    /// let mut stream = service.stream_session(CreateSessionRequest::new("hello"))?;
    /// let first_piece = stream.find_map(|event| match event {
    ///     AgentEvent::TextDelta { delta } => Some(delta),
    ///     _ => None,
    /// });
    /// assert_eq!(first_piece.as_deref(), Some("hm"));
    /// assert_eq!(stream.wait()?.text, "hello"); // whatever the other events are
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`TurnHandle::wait`].
    ///
    /// # Blocking
    /// Until the turn ends.
    pub fn wait(mut self) -> Result<RunResult, SessionError> {
        self.by_ref().for_each(drop);
        self.handle.wait()
    }
}

/// Waits for the next event, or for the end of the turn, when the session is free for the next one. On a session thread
/// the cancellation of its own turn ends the iteration early.
impl Iterator for TurnStream {
    type Item = AgentEvent;

    fn next(&mut self) -> Option<AgentEvent> {
        self.recv_until(&Deadline::never()).ok().flatten()
    }
}
