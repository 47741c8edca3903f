//! Session-wide subscriptions: everything that happens in a session, for whoever asks, numbered.
//!
//! Unlike the event channel of one turn, a subscription outlives turns, and there may be several at once. Each has a queue of
//! its own and says what happens when that is full.
//!
//! # One order
//!
//! An event gets its number and goes into every queue under one lock of its session, which nobody holds while waiting. So
//! all subscribers see the same order, and a number that is missing is one that was dropped. Waiting for room in a queue
//! ([`Overflow::Block`]) comes afterwards, with no lock held:
//!
//! ```text
//! thread A                         thread B
//! lock; seq 7 into the queue       (waits for the lock)
//! unlock; queue full: wait         lock; seq 8 into the queue   ← 8 could never be in front of 7
//!                                  unlock; queue full: wait
//! ```
//!
//! With nobody listening an event is one atomic operation, which counts it.

pub(crate) mod bus;
pub(crate) mod global;
pub(crate) mod queue;
pub(crate) mod stream;

/// How somebody wants to listen to a session. The default: 1,024 events of room, the oldest make place, from now on.
///
/// ```
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, Overflow, SessionService, Subscription};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
/// let events = service.subscribe_all(Subscription::new().capacity(64).overflow(Overflow::DropNewest));
/// service.create_session(CreateSessionRequest::new("hello"))?;
/// drop(service);
/// for event in events {
///     println!("{} {:?} {:?}", event.seq, event.turn_id, event.event); // RunStarted, RunCompleted
/// }
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Subscription {
    pub(crate) capacity: usize,
    pub(crate) overflow: Overflow,
    pub(crate) from_seq: Option<u64>,
}

/// What happens to an event for which a subscriber's queue has no room.
///
/// ```
/// use turnwise::{agent_fn, AgentEvent, EphemeralSessionService, Overflow, SessionService, SessionSpec};
/// use turnwise::{StartTurnRequest, Subscription};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
/// let id = service.open_session(SessionSpec::new())?;
/// let oldest = service.subscribe(id, Subscription::new().capacity(1).overflow(Overflow::DropNewest))?;
/// let newest = service.subscribe(id, Subscription::new().capacity(1).overflow(Overflow::DropOldest))?;
/// service.start_turn(id, StartTurnRequest::new("hello"))?;
/// assert!(matches!(oldest.try_recv()?.event, AgentEvent::RunStarted { .. }));
/// assert!(matches!(newest.try_recv()?.event, AgentEvent::RunCompleted { .. }));
/// assert_eq!((oldest.dropped(), newest.dropped()), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overflow {
    /// Whoever emits it waits until there is room, or its turn is cancelled, or the stream is dropped: no event is lost.
    /// (The event itself is in the queue by then, so a queue may hold one more for each emitting thread. A turn's last event
    /// does not wait.)
    ///
    /// Once the session is closed nobody waits any more: what an agent emits then and has no room is dropped. So is what it
    /// emits through an [`EventSender`](crate::EventSender) in a turn that has been told to stop.
    ///
    /// A program that starts turns and reads their events on one and the same thread waits for itself this way.
    Block,
    /// It is dropped.
    DropNewest,
    /// The oldest in the queue is dropped in its place.
    #[default]
    DropOldest,
    /// The subscription is over: the stream gives what is in the queue, then ends. Events from then on are not counted as
    /// dropped.
    Disconnect,
}

impl Subscription {
    /// How many events a queue has room for where nothing else is said.
    pub const CAPACITY: usize = 1_024;

    /// The default.
    pub fn new() -> Self {
        Self { capacity: Self::CAPACITY, overflow: Overflow::default(), from_seq: None }
    }

    /// With room for so many events that have not been read, but at least for one.
    pub fn capacity(mut self, events: usize) -> Self {
        self.capacity = events.max(1);
        self
    }

    /// With this for events that have no room.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Beginning with the event of this number, as far as the session still has it: see
    /// [`ServiceConfig::event_history`](crate::ServiceConfig::event_history). Those that it has not any more count as dropped, those of
    /// a kept session's earlier lives too; numbers that a killed process has left unused do not. The first event has number 1.
    /// A number that has not been given out yet is the same as none. What is replayed takes no room of the queue. Every
    /// session has numbers of its own: for [`subscribe_all`](crate::EphemeralSessionService::subscribe_all) it means the same
    /// number in each.
    ///
    /// ```
    /// use turnwise::{agent_fn, EphemeralSessionService, SessionService, SessionSpec, StartTurnRequest, Subscription};
    ///
    /// let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
    /// let service = EphemeralSessionService::configure(agent).event_history(16).build()?;
    /// let id = service.open_session(SessionSpec::new())?;
    /// let mut events = service.subscribe(id, Subscription::new())?;
    /// service.start_turn(id, StartTurnRequest::new("hello"))?;
    /// let last = events.next().expect("RunStarted").seq;
    /// drop(events); // the line is cut, and comes back
    /// let mut again = service.subscribe(id, Subscription::new().from_seq(last + 1))?;
    /// assert_eq!(again.next().map(|event| event.seq), Some(last + 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_seq(mut self, seq: u64) -> Self {
        self.from_seq = Some(seq);
        self
    }
}

impl Default for Subscription {
    fn default() -> Self {
        Self::new()
    }
}
