//! The queue between a session and one subscriber.

use std::time::Duration;

use crate::cancel::CancelToken;
use crate::model::SessionEvent;
use crate::sync::{never, select, unbounded, Arc, AtomicU64, AtomicUsize, Mutex, Ordering, Receiver, Sender};
use crate::wait::latch::Latch;
use crate::wait::signal::Signal;

use super::{Overflow, Subscription};

/// The emitting side. The sessions hold it; the stream ends when the last session drops it.
#[derive(Debug)]
pub(crate) struct Queue {
    overflow: Overflow,
    pub(super) from_seq: Option<u64>,
    end: Mutex<SendingEnd>,
    /// A second receiver of the same channel, to count its events and to drop the oldest.
    oldest: Receiver<SessionEvent>,
    pub(super) reader: Arc<Reader>,
}

#[derive(Debug)]
struct SendingEnd {
    /// `None` after a disconnection: the stream was dropped, or too slow for [`Overflow::Disconnect`].
    sender: Option<Sender<SessionEvent>>,
    /// The number of events that have room, beside replayed ones. Only [`Overflow::Block`] exceeds it: by events whose
    /// emitters wait for room, and by a turn's last event.
    capacity: usize,
    /// The number of events ever pushed.
    pushed: usize,
    /// The number of replayed events, and the value of `pushed` after the last of them.
    replayed: usize,
    pushed_after_replay: usize,
}

/// The state of the reading side that the emitting side uses.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(super) dropped: AtomicU64,
    /// The number of threads that wait for room.
    waiting: AtomicUsize,
    /// Sent when an event is read while an emitter waits for room.
    room: Signal,
    /// Set when the stream is dropped.
    pub(super) stream_dropped: Latch,
}

/// The origin of an event. The library's own events are few, and have room in a queue with [`Overflow::Block`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Agent,
    /// The agent's, in a turn that has been told to stop, so the emitter waits no more. There may be many.
    CancelledAgent,
    Library,
}

/// The result of a push.
pub(super) enum PushOutcome {
    Done,
    /// The queue had no room, and the emitter should wait for it.
    Full,
    /// The queue has no reader any more.
    Disconnected,
}

impl Queue {
    /// Makes the queue of a subscription, and the channel for its reader.
    pub(super) fn new(options: &Subscription) -> (Arc<Self>, Receiver<SessionEvent>) {
        let (sender, events) = unbounded();
        let reader = Arc::new(Reader {
            dropped: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            room: Signal::new(),
            stream_dropped: Latch::new(),
        });
        let queue = Self {
            overflow: options.overflow,
            from_seq: options.from_seq,
            end: Mutex::new(SendingEnd {
                sender: Some(sender),
                capacity: options.capacity,
                pushed: 0,
                replayed: 0,
                pushed_after_replay: 0,
            }),
            oldest: events.clone(),
            reader,
        };
        (Arc::new(queue), events)
    }

    /// Disconnects the queue: receivers that were cloned from the stream see the end.
    pub(super) fn disconnect(&self) {
        let sender = self.end.lock().sender.take();
        drop(sender);
    }

    pub(super) fn is_stream_dropped(&self) -> bool {
        self.reader.stream_dropped.is_set()
    }

    /// Pushes past events, beyond the capacity. `missed` more events are lost, and counted as dropped.
    pub(super) fn replay(&self, events: impl Iterator<Item = SessionEvent>, missed: u64) {
        // ORDERING: Relaxed, for `dropped` everywhere: a figure for people, from which nothing follows.
        self.reader.dropped.fetch_add(missed, Ordering::Relaxed);
        let mut end = self.end.lock();
        for event in events {
            end.send(event);
            end.replayed += 1;
            end.pushed_after_replay = end.pushed;
        }
    }

    /// Pushes an event, or handles the overflow. Never waits.
    pub(super) fn push(&self, event: SessionEvent, origin: Origin, session_closed: &Latch) -> PushOutcome {
        let mut end = self.end.lock();
        if end.sender.is_none() || self.is_stream_dropped() {
            return PushOutcome::Disconnected;
        }
        let unread = self.oldest.len();
        let has_room = unread < end.limit(unread);
        match self.overflow {
            _ if has_room => {}
            Overflow::Block if origin == Origin::Library => {}
            Overflow::Block if origin == Origin::Agent && !session_closed.is_set() => {}
            Overflow::Block | Overflow::DropNewest => {
                self.drop_one();
                return PushOutcome::Done;
            }
            Overflow::DropOldest => {
                // If the reader has just taken it, there is room.
                if self.oldest.try_recv().is_ok() {
                    self.drop_one();
                }
            }
            Overflow::Disconnect => {
                end.sender = None;
                return PushOutcome::Disconnected;
            }
        }
        end.send(event);
        if self.overflow == Overflow::Block && !has_room {
            PushOutcome::Full
        } else {
            PushOutcome::Done
        }
    }

    fn drop_one(&self) {
        // ORDERING: see `replay`.
        self.reader.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        let end = self.end.lock();
        let unread = self.oldest.len();
        unread > end.limit(unread)
    }

    /// Waits until the queue is within its limit, the stream is dropped, the session is closed, or `cancel` fires.
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
        // Counted before the check of the queue: a reader that makes room after the check then finds a thread to wake.
        self.reader.waiting.fetch_add(1, Ordering::SeqCst);
        let mut look_again = FIRST_LOOK;
        while self.is_full() && !over() {
            select! {
                recv(self.reader.room.receiver()) -> _ => {}
                recv(self.reader.stream_dropped.receiver()) -> _ => {}
                recv(session_closed.receiver()) -> _ => {}
                recv(cancelled) -> _ => {}
                default(look_again) => look_again = LAST_LOOK.min(2 * look_again),
            }
        }
        self.reader.waiting.fetch_sub(1, Ordering::SeqCst);
        // Other emitters may wait for the same room.
        self.reader.notify_room();
    }
}

impl SendingEnd {
    fn send(&mut self, event: SessionEvent) {
        if let Some(sender) = &self.sender {
            self.pushed += 1;
            drop(sender.send(event));
        }
    }

    /// The number of events that may be in the queue while `unread` are in it: the capacity, and the replayed events
    /// that are still unread. Where several sessions have replayed events, this may be too high until all of them are
    /// read.
    fn limit(&self, unread: usize) -> usize {
        let read = self.pushed.saturating_sub(unread);
        self.capacity.saturating_add(self.replayed.min(self.pushed_after_replay.saturating_sub(read)))
    }
}

impl Reader {
    /// Wakes one of the emitters that wait for room, if there are any.
    pub(super) fn notify_room(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.room.notify();
        }
    }
}
