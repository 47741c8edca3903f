//! The queue between a session and one subscriber.

use std::time::Duration;

use crate::cancel::CancelToken;
use crate::model::SessionEvent;
use crate::sync::{never, select, unbounded, Arc, AtomicU64, AtomicUsize, Mutex, Ordering, Receiver, Sender};
use crate::wait::latch::Latch;
use crate::wait::signal::Signal;

use super::{Overflow, Subscription};

/// The emitting side. Sessions hold it; when the last one lets go, the stream ends.
#[derive(Debug)]
pub(crate) struct Queue {
    overflow: Overflow,
    pub(super) from_seq: Option<u64>,
    end: Mutex<SendingEnd>,
    /// Another receiver of the same channel: to count what is in it, and to drop the oldest.
    oldest: Receiver<SessionEvent>,
    pub(super) reader: Arc<Reader>,
}

#[derive(Debug)]
struct SendingEnd {
    /// `None` once the subscriber was too slow for [`Overflow::Disconnect`].
    sender: Option<Sender<SessionEvent>>,
    /// How many events have room, beside those that were replayed. More are in the queue only where somebody waits for that
    /// to change.
    capacity: usize,
    /// How many events were ever put in.
    put_in: usize,
    /// How many of them were replayed, and how many were in when the last of those was.
    replayed: usize,
    replayed_by: usize,
}

/// What the emitting side knows of the one that reads.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(super) dropped: AtomicU64,
    /// Threads that wait for room.
    waiting: AtomicUsize,
    /// Sent when an event has been read while an emitter waits for room.
    room: Signal,
    /// Set when the stream is dropped.
    pub(super) gone: Latch,
}

/// Whose event: the library's own are few, and have room in a queue that would make its emitter wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Agent,
    /// The agent's, in a turn that has been told to stop and waits for nothing any more: it may be one of many.
    LateAgent,
    Library,
}

/// What has become of an event, or of the queue.
pub(super) enum Pushed {
    Kept,
    /// There was no room, and whoever emits should wait for it.
    Full,
    /// Nobody listens any more.
    Gone,
}

impl Queue {
    /// The queue of a subscription, and the channel that its reader reads.
    pub(super) fn new(options: &Subscription) -> (Arc<Self>, Receiver<SessionEvent>) {
        let (sender, events) = unbounded();
        let reader = Arc::new(Reader {
            dropped: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            room: Signal::new(),
            gone: Latch::new(),
        });
        let queue = Self {
            overflow: options.overflow,
            from_seq: options.from_seq,
            end: Mutex::new(SendingEnd {
                sender: Some(sender),
                capacity: options.capacity,
                put_in: 0,
                replayed: 0,
                replayed_by: 0,
            }),
            oldest: events.clone(),
            reader,
        };
        (Arc::new(queue), events)
    }

    /// Nobody listens any more: whoever still has a receiver sees the end.
    pub(super) fn cut(&self) {
        let sender = self.end.lock().sender.take();
        drop(sender);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.reader.gone.is_set()
    }

    /// Puts events in that happened before, on top of the room that there is; `missed` more are not to be had.
    pub(super) fn replay(&self, events: impl Iterator<Item = SessionEvent>, missed: u64) {
        // ORDERING: Relaxed, for `dropped` everywhere; a figure for people, nothing is concluded from it.
        self.reader.dropped.fetch_add(missed, Ordering::Relaxed);
        let mut end = self.end.lock();
        for event in events {
            end.put_in(event);
            end.replayed += 1;
            end.replayed_by = end.put_in;
        }
    }

    /// Puts an event in, or does what is to be done where there is no room. Never waits.
    pub(super) fn push(&self, event: SessionEvent, origin: Origin, session_closed: &Latch) -> Pushed {
        let mut end = self.end.lock();
        if end.sender.is_none() || self.is_gone() {
            return Pushed::Gone;
        }
        let unread = self.oldest.len();
        let has_room = unread < end.limit(unread);
        match self.overflow {
            _ if has_room => {}
            Overflow::Block if origin == Origin::Library => {}
            Overflow::Block if origin == Origin::Agent && !session_closed.is_set() => {}
            Overflow::Block | Overflow::DropNewest => {
                self.drop_one();
                return Pushed::Kept;
            }
            Overflow::DropOldest => {
                // Where the reader has just taken it, there is room.
                if self.oldest.try_recv().is_ok() {
                    self.drop_one();
                }
            }
            Overflow::Disconnect => {
                end.sender = None;
                return Pushed::Gone;
            }
        }
        end.put_in(event);
        if self.overflow == Overflow::Block && !has_room {
            Pushed::Full
        } else {
            Pushed::Kept
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

    /// Waits until the queue is back under its limit, or the stream is dropped, or the session is closed, or `cancel` fires.
    ///
    /// Reading through the stream wakes the waiter at once. Reading from its channel directly does not: crossbeam tells
    /// nobody of a receive from an unbounded channel. For that the waiter looks again by itself, less and less often. By the system's clock, whatever the service's is: a look
    /// changes nothing that anybody sees.
    pub(super) fn wait_for_room(&self, session_closed: &Latch, cancel: Option<&CancelToken>) {
        const FIRST_LOOK: Duration = Duration::from_micros(50);
        const LAST_LOOK: Duration = Duration::from_millis(10);
        let cancelled = cancel.map_or_else(never, |cancel| cancel.cancelled().clone());
        let over = || self.is_gone() || session_closed.is_set() || cancel.is_some_and(CancelToken::is_cancelled);
        // Counted before the look at the queue: a reader that makes room after the look sees somebody to wake.
        self.reader.waiting.fetch_add(1, Ordering::SeqCst);
        let mut look_again = FIRST_LOOK;
        while self.is_full() && !over() {
            select! {
                recv(self.reader.room.receiver()) -> _ => {}
                recv(self.reader.gone.receiver()) -> _ => {}
                recv(session_closed.receiver()) -> _ => {}
                recv(cancelled) -> _ => {}
                default(look_again) => look_again = LAST_LOOK.min(2 * look_again),
            }
        }
        self.reader.waiting.fetch_sub(1, Ordering::SeqCst);
        // Others may wait for the same room.
        self.reader.has_read();
    }
}

impl SendingEnd {
    fn put_in(&mut self, event: SessionEvent) {
        if let Some(sender) = &self.sender {
            self.put_in += 1;
            drop(sender.send(event));
        }
    }

    /// How many events may be in the queue, of which so many have not been read: as many as have room, and what is left of
    /// those that were replayed. (Where several sessions have, that may be counted too high until all of them are read.)
    fn limit(&self, unread: usize) -> usize {
        let read = self.put_in.saturating_sub(unread);
        self.capacity.saturating_add(self.replayed.min(self.replayed_by.saturating_sub(read)))
    }
}

impl Reader {
    /// Wakes one of the emitters that wait for room, if there are any.
    pub(super) fn has_read(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.room.notify();
        }
    }
}
