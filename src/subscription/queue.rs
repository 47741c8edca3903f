//! The queue of one subscriber: the events that its [`EventStream`](super::stream::EventStream) has yet to return.
//!
//! An *emitter* is a thread that emits an event of a session. It is the session thread, or another thread to which the
//! agent has given its turn's context or an [`EventSender`](crate::EventSender). A subscription to one session has a
//! queue for the emitters of that session. A subscription to all sessions has one queue for the emitters of all
//! sessions.
//!
//! # Push first, wait afterwards
//!
//! The channel in a queue is unbounded, so a push never waits. This module enforces the capacity instead. An emitter
//! emits an event in three steps:
//!
//! 1. It locks the [bus](super::bus) of the session, gives the event its number, and pushes the event into every queue.
//!    One lock over all of this gives all subscribers the same order.
//! 2. It unlocks the bus.
//! 3. With [`Overflow::Block`], it waits until each queue is within its limit again. It holds no lock during the wait.
//!
//! So the event is already in the queue while its emitter waits, and the queue is above its limit. If the emitter
//! waited before the push, it would wait with the lock of the bus or without it. With the lock it would stop every
//! other emitter and every new subscriber of the session. Without the lock a later event could enter first:
//!
//! ```text
//! emitter A                       emitter B                      subscriber
//! number 7; no room: waits
//!                                                                reads an event
//!                                 number 8; room: pushes 8
//! room at last: pushes 7                                         reads 8 before 7  ✗
//! ```
//!
//! A queue also has a lock of its own. Several sessions push into the queue of a subscription to all sessions, each
//! under the lock of its own bus.
//!
//! # The limit
//!
//! The limit of a queue is its capacity, plus the replayed events that are still in it. An event *has room* if the
//! queue is below its limit. [`Overflow`] says what happens to an event without room. Only with [`Overflow::Block`] is
//! it pushed all the same, so that the queue is above its limit. These events are above the limit:
//!
//! - one event of each emitter that waits; if several interactions end together, one event for each of them
//! - the event of an emitter whose wait has ended early, because its turn is cancelled or the session is closed
//! - an event of the library whose emitter does not wait: the last event of a turn, and any event after a cancellation
//!   or after the close
//!
//! The library emits a few events in a turn, so these are few. An agent may emit any number. Where its emitter would
//! not wait, after a cancellation or after the close, an agent's event without room is dropped. Otherwise the queue
//! would grow without bound.
//!
//! # The wait
//!
//! All emitters that wait at a queue wait for the same condition: the whole queue is within its limit. It is not enough
//! that an emitter's own event has been read. A read through the stream sends one wake-up, which wakes one emitter.
//! That emitter ends its wait and passes the wake-up on to the next one. A read from the channel itself sends no
//! wake-up, so an emitter also [checks again](Queue::wait_for_room) by itself.
//!
//! # The end
//!
//! The buses and the service own the queue, and with it the only sender of the channel. A bus drops the queue when its
//! session ends. The service keeps the queues of subscriptions to all sessions until it takes no new sessions. An
//! emitter that waits keeps its queue meanwhile. After the last drop, the stream returns the events that are left, then
//! ends. With [`Overflow::Disconnect`] the first event without room ends the stream in the same way.
//!
//! The queue owns a second receiver of the channel, to count the unread events and to remove the oldest. Because of
//! that receiver a send never fails, even after the drop of the stream. The emitters learn of that drop by
//! [`SharedState::stream_dropped`] instead.

use std::time::Duration;

use crate::cancel::CancelToken;
use crate::model::SessionEvent;
use crate::sync::{never, select, unbounded, Arc, AtomicU64, AtomicUsize, Mutex, Ordering, Receiver, Sender};
use crate::wait::latch::Latch;
use crate::wait::signal::Signal;

use super::{Overflow, Subscription};

/// The part of a queue that the emitters use. The bus of each session whose events it takes owns it. For a subscription
/// to all sessions the service owns it too. The stream has a weak reference only: a strong one would keep the sender,
/// and the stream would never end.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(super) scope: Scope,
    overflow: Overflow,
    pub(super) from_seq: Option<u64>,
    /// Locked for a push, under the lock of the bus, and for a check of the limit. Never locked during a wait.
    emitter_side: Mutex<EmitterSide>,
    /// A second receiver of the same channel, to count the unread events and to remove the oldest.
    unread_events: Receiver<SessionEvent>,
    pub(super) shared: Arc<SharedState>,
}

#[derive(Debug)]
struct EmitterSide {
    /// `None` after a disconnection: the stream was dropped, or too slow for [`Overflow::Disconnect`].
    sender: Option<Sender<SessionEvent>>,
    /// The limit of unread events, apart from replayed ones. The head of this module lists what may be above it.
    capacity: usize,
    /// The number of events ever pushed.
    pushed: usize,
    /// The number of replayed events.
    replayed: usize,
    /// The value of `pushed` after the last replayed event.
    pushed_after_replay: usize,
}

/// The state that the stream shares with the emitters.
#[derive(Debug)]
pub(crate) struct SharedState {
    /// The number of events that the subscriber has missed. Written by emitters and by a replay.
    pub(super) dropped: AtomicU64,
    /// The same for all streams of the service.
    lost: Arc<LostEvents>,
    /// The number of emitters that wait for room.
    waiting: AtomicUsize,
    /// The wake-up for one of the emitters that wait. The stream sends it after a read, and an emitter at the end of
    /// its wait.
    room: Signal,
    /// Set when the stream is dropped. The channel does not show that: see the head of this module.
    pub(super) stream_dropped: Latch,
}

/// The number of events that all subscribers of a service have missed.
#[derive(Debug, Default)]
pub(crate) struct LostEvents(AtomicU64);

/// The sessions whose events a queue takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    OneSession,
    AllSessions,
}

/// The origin of an event. It decides what [`Overflow::Block`] does with an event without room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The agent. The event is pushed and its emitter waits, or, after the close of the session, it is dropped.
    Agent,
    /// The agent, in a turn that has been told to stop. The event is dropped. Its emitter does not wait, so the queue
    /// would otherwise grow without bound.
    CancelledAgent,
    /// The library. The event is always pushed: there are few of them.
    Library,
}

/// The result of a push.
pub(super) enum PushOutcome {
    /// The event is in the queue, or it is dropped and counted. The emitter does not wait.
    Done,
    /// The event is in the queue, which is above its limit now. The emitter should wait.
    PushedAboveLimit,
    /// The event is not in the queue, which takes no events any more. The stream is dropped, or it returns the events
    /// in the queue and then ends ([`Overflow::Disconnect`]). The bus drops the queue.
    Disconnected,
}

impl Queue {
    /// Makes the queue of a subscription, and the receiver for its stream.
    pub(super) fn new(
        options: &Subscription,
        scope: Scope,
        lost: Arc<LostEvents>,
    ) -> (Arc<Self>, Receiver<SessionEvent>) {
        let (sender, events) = unbounded();
        let shared = Arc::new(SharedState {
            dropped: AtomicU64::new(0),
            lost,
            waiting: AtomicUsize::new(0),
            room: Signal::new(),
            stream_dropped: Latch::new(),
        });
        let queue = Self {
            scope,
            overflow: options.overflow,
            from_seq: options.from_seq,
            emitter_side: Mutex::new(EmitterSide {
                sender: Some(sender),
                capacity: options.capacity,
                pushed: 0,
                replayed: 0,
                pushed_after_replay: 0,
            }),
            unread_events: events.clone(),
            shared,
        };
        (Arc::new(queue), events)
    }

    /// Drops the sender when the stream is dropped, so that receivers that were cloned from the stream see the end.
    pub(super) fn disconnect(&self) {
        let sender = self.emitter_side.lock().sender.take();
        drop(sender);
    }

    /// Whether it takes no events any more: its stream was dropped, or was too slow for [`Overflow::Disconnect`].
    pub(super) fn is_disconnected(&self) -> bool {
        self.emitter_side.lock().sender.is_none()
    }

    pub(super) fn is_stream_dropped(&self) -> bool {
        self.shared.stream_dropped.is_set()
    }

    /// Pushes past events, which take no room: the limit rises by their number. Counts `missed` more events as dropped,
    /// because the session has them no more.
    pub(super) fn replay(&self, events: impl Iterator<Item = SessionEvent>, missed: u64) {
        self.shared.add_dropped(missed);
        let mut emitter_side = self.emitter_side.lock();
        for event in events {
            emitter_side.send(event);
            emitter_side.replayed += 1;
            emitter_side.pushed_after_replay = emitter_side.pushed;
        }
    }

    /// Pushes an event, or handles the overflow. Never waits, because the caller holds the lock of its bus.
    pub(super) fn push(&self, event: SessionEvent, origin: Origin, session_closed: &Latch) -> PushOutcome {
        let mut emitter_side = self.emitter_side.lock();
        if emitter_side.sender.is_none() || self.is_stream_dropped() {
            return PushOutcome::Disconnected;
        }
        let unread = self.unread_events.len();
        let has_room = unread < emitter_side.limit(unread);
        match self.overflow {
            _ if has_room => {}
            Overflow::Block if origin == Origin::Library => {}
            Overflow::Block if origin == Origin::Agent && !session_closed.is_set() => {}
            Overflow::Block | Overflow::DropNewest => {
                self.shared.add_dropped(1);
                return PushOutcome::Done;
            }
            Overflow::DropOldest => {
                // If the subscriber has just read it, there is room.
                if self.unread_events.try_recv().is_ok() {
                    self.shared.add_dropped(1);
                }
            }
            Overflow::Disconnect => {
                emitter_side.sender = None;
                return PushOutcome::Disconnected;
            }
        }
        emitter_side.send(event);
        if self.overflow == Overflow::Block && !has_room {
            PushOutcome::PushedAboveLimit
        } else {
            PushOutcome::Done
        }
    }

    fn is_above_limit(&self) -> bool {
        let emitter_side = self.emitter_side.lock();
        let unread = self.unread_events.len();
        unread > emitter_side.limit(unread)
    }

    /// Waits until the whole queue is within its limit, the stream is dropped, the session is closed, or `cancel` is
    /// cancelled.
    ///
    /// A read through the stream wakes the emitter at once. A read from its channel directly does not, since crossbeam
    /// signals no receive from an unbounded channel. For that case the emitter checks again by itself, at growing
    /// intervals. They are measured on the system's clock, whatever the service's clock is, since a check changes
    /// nothing that a caller sees.
    pub(super) fn wait_for_room(&self, session_closed: &Latch, cancel: Option<&CancelToken>) {
        const FIRST_LOOK: Duration = Duration::from_micros(50);
        const LAST_LOOK: Duration = Duration::from_millis(10);
        let cancelled = cancel.map_or_else(never, |cancel| cancel.cancelled().clone());
        let over =
            || self.is_stream_dropped() || session_closed.is_set() || cancel.is_some_and(CancelToken::is_cancelled);
        // Counted before the check of the limit, so that a read after the check finds an emitter to wake.
        self.shared.waiting.fetch_add(1, Ordering::SeqCst);
        let mut look_again = FIRST_LOOK;
        while self.is_above_limit() && !over() {
            select! {
                recv(self.shared.room.receiver()) -> _ => {}
                recv(self.shared.stream_dropped.receiver()) -> _ => {}
                recv(session_closed.receiver()) -> _ => {}
                recv(cancelled) -> _ => {}
                default(look_again) => look_again = LAST_LOOK.min(2 * look_again),
            }
        }
        self.shared.waiting.fetch_sub(1, Ordering::SeqCst);
        // The wake-up has reached this emitter only, and others may wait for the same condition.
        self.shared.notify_room();
    }
}

impl EmitterSide {
    fn send(&mut self, event: SessionEvent) {
        if let Some(sender) = &self.sender {
            self.pushed += 1;
            drop(sender.send(event));
        }
    }

    /// The limit of the queue while `unread` events are in it: the capacity, and the replayed events that are still
    /// unread. Where several sessions have replayed events, this may be too high until all of them are read.
    fn limit(&self, unread: usize) -> usize {
        // Read by the subscriber, or dropped as the oldest.
        let removed = self.pushed.saturating_sub(unread);
        self.capacity.saturating_add(self.replayed.min(self.pushed_after_replay.saturating_sub(removed)))
    }
}

impl LostEvents {
    pub(crate) fn get(&self) -> u64 {
        // ORDERING: Relaxed; see `add_dropped`.
        self.0.load(Ordering::Relaxed)
    }
}

impl SharedState {
    fn add_dropped(&self, events: u64) {
        // ORDERING: Relaxed, for both counts everywhere: figures for people, from which nothing follows.
        self.dropped.fetch_add(events, Ordering::Relaxed);
        self.lost.0.fetch_add(events, Ordering::Relaxed);
    }

    /// Wakes one of the emitters that wait for room, if there are any.
    pub(super) fn notify_room(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.room.notify();
        }
    }
}
