//! Session-wide subscriptions: the numbered events of a session, for any number of subscribers.
//!
//! The event channel of a turn ends with the turn. A subscription outlives turns, and a session may have several. Each
//! has its own queue, and states what happens when that queue is full.
//!
//! # One order
//!
//! An event gets its number and enters every queue under one lock of its session. No thread holds that lock while it
//! waits. So all subscribers see the same order, and a missing number is a dropped event. The wait for room in a queue
//! ([`Overflow::Block`]) comes afterwards, with no lock held:
//!
//! ```text
//! emitter A                        emitter B
//! lock; seq 7 into the queue       (waits for the lock)
//! unlock; above the limit: wait    lock; seq 8 into the queue   ← 8 could never be in front of 7
//!                                  unlock; above the limit: wait
//! ```
//!
//! Without subscribers and history an event costs one atomic operation, which counts it.

pub(crate) mod bus;
pub(crate) mod global;
pub(crate) mod queue;
pub(crate) mod stream;

/// The options of a subscription. The default: room for 1,024 events, the oldest is dropped for a new one, and only new
/// events.
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
    /// The emitter waits until there is room, its turn is cancelled, or the stream is dropped. No event is lost: it is
    /// already in the queue, so the queue may exceed its capacity by one event for each emitter. A turn's last
    /// event does not wait.
    ///
    /// After the session is closed no emitter waits: an agent's event without room is dropped. The same holds for an
    /// event that the agent emits through an [`EventSender`](crate::EventSender) in a turn that has been told to stop.
    ///
    /// A program that starts turns and reads their events on the same thread deadlocks this way.
    Block,
    /// The event is dropped.
    DropNewest,
    /// The oldest event in the queue is dropped instead.
    #[default]
    DropOldest,
    /// The subscription ends: the stream returns the events in the queue, then ends. Later events do not count as
    /// dropped.
    Disconnect,
}

impl Subscription {
    /// The default capacity of a queue, in events.
    pub const CAPACITY: usize = 1_024;

    /// Makes the default subscription.
    pub fn new() -> Self {
        Self { capacity: Self::CAPACITY, overflow: Overflow::default(), from_seq: None }
    }

    /// Sets the room for unread events, in events; at least one.
    pub fn capacity(mut self, events: usize) -> Self {
        self.capacity = events.max(1);
        self
    }

    /// Sets what happens to an event without room.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Starts with the event of this number, if the session still has it: see
    /// [`ServiceConfig::event_history`](crate::ServiceConfig::event_history). Earlier events that the session has not
    /// any more count as dropped, also those of a kept session's earlier lives. Numbers that a killed process left
    /// unused do not count.
    ///
    /// The first event has number 1. A number that has not been given out yet has no effect. Replayed events take no
    /// room of the queue. Every session has its own numbers: for
    /// [`subscribe_all`](crate::EphemeralSessionService::subscribe_all) the number applies to each session.
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
    /// drop(events); // the connection is lost, and made again
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
