//! The bus of a session: numbers its events and pushes them to its subscribers.

use std::collections::VecDeque;
use std::iter;

use crate::cancel::CancelToken;
use crate::ids::numbers::Numbers;
use crate::model::{AgentEvent, SessionEvent, SessionId, TurnId};
use crate::permits::turn_permit::TurnPermit;
use crate::reentrancy::{self, PermitDuringWait};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::wait::latch::Latch;

use super::queue::{PushOutcome, Queue};

pub(crate) use super::queue::{Origin, Scope};

/// In `next`: there is a subscriber, or a history is kept.
const OBSERVED: u64 = 1;
/// In `next`: one event.
const ONE: u64 = 2;

/// Numbers a session's events and pushes them to its subscribers.
///
/// **Invariant.** While `OBSERVED` is set, `next` changes only under the lock of `state`. So an event that found it
/// unset has a lower number than every event of a later subscriber.
#[derive(Debug)]
pub(crate) struct Bus {
    session_id: SessionId,
    /// The next event's number, and `OBSERVED`.
    next: AtomicU64,
    /// The bound of the numbers that may be given out.
    numbers: Arc<Numbers>,
    earlier: EarlierLives,
    history_limit: usize,
    state: Mutex<State>,
    /// Set when the session is closed: no emitter waits for room any more.
    closed: Latch,
}

/// The event numbers of the session's earlier lives.
#[derive(Debug)]
struct EarlierLives {
    /// Numbers up to this one are not given out again.
    last: u64,
    /// How many of these numbers are known to have been events.
    known: u64,
}

#[derive(Debug, Default)]
struct State {
    queues: Vec<Arc<Queue>>,
    /// The last events, oldest first.
    history: VecDeque<SessionEvent>,
    /// No queue is added any more: the session has ended, or is being unloaded.
    takes_no_queue: bool,
    ended: bool,
}

impl Bus {
    /// Makes the bus of a session. Its earlier lives used numbers up to `after`, of which `known` are known to have
    /// been events. `numbers` bounds the numbers of this life.
    pub(crate) fn new(
        session_id: SessionId,
        history_limit: usize,
        after: u64,
        known: u64,
        numbers: Arc<Numbers>,
    ) -> Self {
        let observed = if history_limit > 0 { OBSERVED } else { 0 };
        let next = AtomicU64::new(((after + 1) * ONE) | observed);
        let earlier = EarlierLives { last: after, known };
        Self { session_id, next, numbers, earlier, history_limit, state: Mutex::default(), closed: Latch::new() }
    }

    /// The number of the last event, with or without subscribers; 0 for none.
    pub(crate) fn last_seq(&self) -> u64 {
        self.next.load(Ordering::SeqCst) / ONE - 1
    }

    pub(crate) fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// Adds `queue`: it gets every event from now on, and the past events that its subscription asks for. A queue that
    /// was added before stays as it is, also if it is disconnected by now. Returns `false` if the session has ended, or is
    /// being unloaded.
    pub(crate) fn attach(&self, queue: &Arc<Queue>) -> bool {
        let mut state = self.state.lock();
        if state.takes_no_queue {
            return false;
        }
        // A session without events would keep queues without a stream for ever.
        state.queues.retain(|other| !other.is_stream_dropped());
        if !state.queues.iter().any(|other| Arc::ptr_eq(other, queue)) && !queue.is_disconnected() {
            let next = self.next.fetch_or(OBSERVED, Ordering::SeqCst) / ONE;
            if let Some(from) = queue.from_seq.filter(|from| *from < next) {
                let oldest = state.history.front().map_or(next, |event| event.seq);
                let replayed = state.history.iter().filter(|event| event.seq >= from);
                queue.replay(replayed.cloned(), self.earlier.missed(from, oldest));
            }
            state.queues.push(Arc::clone(queue));
        }
        true
    }

    /// Counts an event if there is neither a subscriber nor a history. Otherwise returns `false` and does nothing.
    pub(crate) fn count_unobserved(&self) -> bool {
        self.count_all_unobserved(1).is_some()
    }

    /// As [`count_unobserved`](Self::count_unobserved), for the last events of a turn or interaction. Returns the number
    /// of the last one, which a caller will see.
    pub(crate) fn count_last_unobserved(&self, events: usize) -> Option<u64> {
        self.count_all_unobserved(events).map(|last| self.reserve(last))
    }

    /// The number of the last event, which a caller will see.
    pub(crate) fn boundary(&self) -> u64 {
        self.reserve(self.last_seq())
    }

    /// Reserves the numbers of events up to `last`, which no queue has. May wait for the disk.
    fn reserve(&self, last: u64) -> u64 {
        if last > self.numbers.last_event() {
            self.numbers.reserve_events(last);
        }
        last
    }

    fn count_all_unobserved(&self, events: usize) -> Option<u64> {
        let events = events as u64 * ONE;
        let mut next = self.next.load(Ordering::SeqCst);
        while next & OBSERVED == 0 {
            match self.next.compare_exchange_weak(next, next + events, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Some((next + events) / ONE - 1),
                Err(other) => next = other,
            }
        }
        None
    }

    /// Pushes an event to every subscriber, then waits for room where a subscriber asks for that.
    ///
    /// `cancel` ends the wait; the event is in the queue all the same. The turn gives its running permit back during
    /// the wait, as for its own event channel and for the same reason. A thread that is not a session thread counts as
    /// a thread of this session's turn.
    pub(crate) fn publish(
        &self,
        turn_id: Option<TurnId>,
        event: AgentEvent,
        origin: Origin,
        cancel: Option<&CancelToken>,
        (permit, during_wait): (&Arc<TurnPermit>, PermitDuringWait),
    ) {
        let (above_limit, ()) = self.push_all(turn_id, iter::once(event), origin, |_| ());
        self.wait_for_room(&above_limit, cancel, (permit, during_wait));
    }

    /// Pushes the last events of a turn or interaction to every subscriber, and calls `commit` with the number of the
    /// last one. That call comes before a subscriber gets any of them, under the lock of this bus.
    ///
    /// Waits for no subscriber. Returns the queues that are above their limits, and the value of `commit`.
    pub(crate) fn publish_last<T>(
        &self,
        turn_id: TurnId,
        events: impl ExactSizeIterator<Item = AgentEvent>,
        commit: impl FnOnce(u64) -> T,
    ) -> (Vec<Arc<Queue>>, T) {
        self.push_all(Some(turn_id), events, Origin::Library, commit)
    }

    /// Waits for room in the queues that a push has left above their limits.
    pub(crate) fn wait_for_room(
        &self,
        above_limit: &[Arc<Queue>],
        cancel: Option<&CancelToken>,
        (permit, during_wait): (&Arc<TurnPermit>, PermitDuringWait),
    ) {
        if above_limit.is_empty() || self.closed.is_set() {
            return;
        }
        let _permit = reentrancy::release_permit_of(permit, during_wait);
        for queue in above_limit {
            queue.wait_for_room(&self.closed, cancel);
        }
    }

    /// Pushes events to every subscriber, after `commit` is called with the number of the last one. Returns the queues
    /// that are above their limits, for the emitter to wait.
    fn push_all<T>(
        &self,
        turn_id: Option<TurnId>,
        events: impl ExactSizeIterator<Item = AgentEvent>,
        origin: Origin,
        commit: impl FnOnce(u64) -> T,
    ) -> (Vec<Arc<Queue>>, T) {
        let mut above_limit = Vec::new();
        let count = events.len() as u64;
        let mut state = loop {
            let state = self.state.lock();
            let last = self.next.load(Ordering::SeqCst) / ONE + count - 1;
            // `count_unobserved` may take these numbers at the same time, and leave some beyond the bound. Then no queue
            // sees them.
            if last <= self.numbers.last_event() {
                break state;
            }
            drop(state);
            // With no lock held, since this may wait for the disk.
            self.numbers.reserve_events(last);
        };
        let first = self.next.fetch_add(count * ONE, Ordering::SeqCst) / ONE;
        let committed = commit(first + count - 1);
        for (seq, event) in (first..).zip(events) {
            let event = SessionEvent { session_id: self.session_id, turn_id, seq, event };
            self.push(&mut state, event, origin, &mut above_limit);
        }
        if state.queues.is_empty() && self.history_limit == 0 {
            self.next.fetch_and(!OBSERVED, Ordering::SeqCst);
        }
        (above_limit, committed)
    }

    /// Pushes an event into every queue, and adds the queues that are above their limits.
    fn push(&self, state: &mut State, event: SessionEvent, origin: Origin, above_limit: &mut Vec<Arc<Queue>>) {
        let mut event = Some(event);
        if self.history_limit > 0 && !state.ended {
            if state.history.len() == self.history_limit {
                state.history.pop_front();
            }
            state.history.extend(event.clone());
        }
        let mut left = state.queues.len();
        state.queues.retain(|queue| {
            left -= 1;
            let own = if left == 0 { event.take() } else { event.clone() };
            let Some(own) = own else { return true };
            match queue.push(own, origin, &self.closed) {
                PushOutcome::Done => true,
                PushOutcome::PushedAboveLimit => {
                    above_limit.push(Arc::clone(queue));
                    true
                }
                PushOutcome::Disconnected => false,
            }
        });
    }

    /// Whether the session itself has a subscriber. A subscriber to all sessions does not count.
    pub(crate) fn has_subscriber(&self) -> bool {
        self.state.lock().has_subscriber()
    }

    /// Runs `close` if the session itself has no subscriber. If `close` returns true, no queue is added any more: a
    /// subscriber that comes later is refused, and does not get a stream that ends at once.
    pub(crate) fn close_if_unsubscribed(&self, close: impl FnOnce() -> bool) -> bool {
        let mut state = self.state.lock();
        let is_closed = !state.has_subscriber() && close();
        state.takes_no_queue |= is_closed;
        is_closed
    }

    /// Ends the waits for room: the session is closed.
    pub(crate) fn close(&self) {
        self.closed.set();
    }

    /// Ends the bus with its session: each stream returns the events in its queue, then ends.
    pub(crate) fn end(&self) {
        self.closed.set();
        let (queues, history) = {
            let mut state = self.state.lock();
            state.takes_no_queue = true;
            state.ended = true;
            self.next.fetch_and(!OBSERVED, Ordering::SeqCst);
            (std::mem::take(&mut state.queues), std::mem::take(&mut state.history))
        };
        drop((queues, history));
    }
}

impl State {
    fn has_subscriber(&self) -> bool {
        let mut own = self.queues.iter().filter(|queue| queue.scope == Scope::OneSession);
        own.any(|queue| !queue.is_stream_dropped() && !queue.is_disconnected())
    }
}

impl EarlierLives {
    /// The number of events from number `from` on that the session has not any more; `oldest` is the number of the
    /// oldest event that it has. The unused numbers after a life that did not end in order are no events.
    fn missed(&self, from: u64, oldest: u64) -> u64 {
        let before = (self.known + 1).saturating_sub(from.max(1));
        let since = oldest.saturating_sub(from.max(self.last + 1));
        before + since
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::EventStream;
    use super::super::{Overflow, Subscription};
    use super::*;
    use crate::ids::numbers::Numbering;
    use crate::permits::semaphore::Semaphore;
    use crate::time::clock::Clock;

    #[test]
    fn c64_numbers_left_unused_by_a_killed_life_are_not_missed_events() {
        let killed = EarlierLives { last: 1_000, known: 7 };
        assert_eq!(killed.missed(8, 1_001), 0);
        assert_eq!(killed.missed(3, 1_001), 5);
        assert_eq!(killed.missed(0, 1_003), 7 + 2);
        assert_eq!(killed.missed(900, 1_003), 2);
        let in_order = EarlierLives { last: 7, known: 7 };
        assert_eq!(in_order.missed(7, 10), 1 + 2);
        assert_eq!(EarlierLives { last: 0, known: 0 }.missed(1, 1), 0);
    }

    #[test]
    fn a_queue_that_was_disconnected_is_not_added_again() {
        let bus = Bus::new(SessionId::new(), 1, 0, 0, Numbers::new(Numbering::default()));
        let publish = || {
            let event = AgentEvent::TextDelta { delta: String::new() };
            drop(bus.publish_last(TurnId::new(1), iter::once(event), |_| ()));
        };
        publish();
        publish();
        let options = Subscription::new().from_seq(1).capacity(1).overflow(Overflow::Disconnect);
        let (queue, stream) = EventStream::new(options, Scope::OneSession, Clock::System, Arc::default());
        assert!(bus.attach(&queue));
        publish();
        publish();
        assert!(queue.is_disconnected() && bus.attach(&queue));
        // The first event is the one that it has missed, and counts once.
        assert_eq!((stream.dropped(), stream.map(|event| event.seq).collect::<Vec<_>>()), (1, vec![2, 3]));
        assert!(bus.state.lock().queues.is_empty());
    }

    #[test]
    fn dropped_streams_leave_no_queue_behind() {
        let bus = Bus::new(SessionId::new(), 0, 0, 0, Numbers::new(Numbering::default()));
        for _ in 0..100 {
            let (queue, stream) =
                EventStream::new(Subscription::new(), Scope::OneSession, Clock::System, Arc::default());
            let receiver = stream.events().clone();
            assert!(bus.attach(&queue));
            drop(queue);
            drop(stream);
            // At once, without waiting for an event.
            assert!(receiver.try_recv().unwrap_err().is_disconnected());
            assert_eq!(bus.state.lock().queues.len(), 1);
        }
        assert!(!bus.count_unobserved());
        let permit = TurnPermit::new(Semaphore::new(1), Clock::System);
        bus.publish(
            None,
            AgentEvent::TextDelta { delta: String::new() },
            Origin::Agent,
            None,
            (&permit, PermitDuringWait::Lent),
        );
        assert!(bus.state.lock().queues.is_empty());
        assert!(bus.count_unobserved());
    }
}
