//! One session's events on their way to its subscribers.

use std::collections::VecDeque;

use crate::cancel::CancelToken;
use crate::ids::numbers::Numbers;
use crate::model::{AgentEvent, SessionEvent, SessionId, TurnId};
use crate::permits::turn_permit::TurnPermit;
use crate::reentrancy;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::wait::latch::Latch;

use super::queue::{Pushed, Queue};

pub(crate) use super::queue::Origin;

/// In `next`: somebody listens, or a history is kept.
const HEARD: u64 = 1;
/// In `next`: one event.
const ONE: u64 = 2;

/// Numbers a session's events and hands them to whoever listens.
///
/// **Invariant.** While `HEARD` is set, `next` changes under the lock of `state` only. So an event that found it unset has a
/// number lower than all that a later subscriber gets.
#[derive(Debug)]
pub(crate) struct Bus {
    session_id: SessionId,
    /// The next event's number, and `HEARD`.
    next: AtomicU64,
    /// How far events may be numbered.
    numbers: Arc<Numbers>,
    past: Past,
    history_limit: usize,
    state: Mutex<State>,
    /// Set when the session is closed: nobody waits for room any more.
    closed: Latch,
}

/// The events of the session's lives before.
#[derive(Debug)]
struct Past {
    /// The numbers up to this one are not given out any more.
    last: u64,
    /// How many of them are known to have been events.
    known: u64,
}

#[derive(Debug, Default)]
struct State {
    queues: Vec<Arc<Queue>>,
    /// The last events, latest last.
    history: VecDeque<SessionEvent>,
    ended: bool,
}

impl Bus {
    /// The bus of a session whose lives before had numbers up to `after`, of which `known` are known to have been events. With `numbers`
    /// for how far this life may go.
    pub(crate) fn new(
        session_id: SessionId,
        history_limit: usize,
        after: u64,
        known: u64,
        numbers: Arc<Numbers>,
    ) -> Self {
        let heard = if history_limit > 0 { HEARD } else { 0 };
        let next = AtomicU64::new(((after + 1) * ONE) | heard);
        let past = Past { last: after, known };
        Self { session_id, next, numbers, past, history_limit, state: Mutex::default(), closed: Latch::new() }
    }

    /// The number of the last event, heard or not; 0 where there is none.
    pub(crate) fn last_seq(&self) -> u64 {
        self.next.load(Ordering::SeqCst) / ONE - 1
    }

    pub(crate) fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// Has `queue` get everything from now on, and what it wants of the past. Whether the session still has anything to
    /// tell. A queue that is there already stays as it is.
    pub(crate) fn attach(&self, queue: &Arc<Queue>) -> bool {
        let mut state = self.state.lock();
        if state.ended {
            return false;
        }
        // A session where nothing happens would keep them for ever.
        state.queues.retain(|other| !other.is_gone());
        if !state.queues.iter().any(|other| Arc::ptr_eq(other, queue)) {
            let next = self.next.fetch_or(HEARD, Ordering::SeqCst) / ONE;
            if let Some(from) = queue.from_seq.filter(|from| *from < next) {
                let oldest = state.history.front().map_or(next, |event| event.seq);
                let replayed = state.history.iter().filter(|event| event.seq >= from);
                queue.replay(replayed.cloned(), self.past.missed(from, oldest));
            }
            state.queues.push(Arc::clone(queue));
        }
        true
    }

    /// Counts an event that nobody listens to. `false`, and nothing done, if somebody does.
    pub(crate) fn pass_unheard(&self) -> bool {
        let mut next = self.next.load(Ordering::SeqCst);
        while next & HEARD == 0 {
            match self.next.compare_exchange_weak(next, next + ONE, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(other) => next = other,
            }
        }
        false
    }

    /// Hands an event to whoever listens, and waits for room where a subscriber wants that.
    ///
    /// `cancel` ends the waiting; the event has been handed over all the same. The turn whose thread waits does without its running permit
    /// meanwhile, as it does for its own event channel, and for the same reason. A thread that is no session's counts as one of this
    /// session's turn.
    pub(crate) fn publish(
        &self,
        turn_id: Option<TurnId>,
        event: AgentEvent,
        origin: Origin,
        cancel: Option<&CancelToken>,
        permit: &Arc<TurnPermit>,
    ) {
        let full = self.push(turn_id, event, origin);
        if full.is_empty() || self.closed.is_set() {
            return;
        }
        let _permit = match origin {
            Origin::Agent | Origin::LateAgent => reentrancy::lend_permit_of(permit),
            // The agent does not run: there is no permit yet, or no more need of one.
            Origin::Library => {
                permit.stop();
                None
            }
        };
        for queue in full {
            queue.wait_for_room(&self.closed, cancel);
        }
    }

    /// As [`publish`](Self::publish), but waits for no subscriber: the last event of a turn.
    pub(crate) fn publish_last(&self, turn_id: TurnId, event: AgentEvent) {
        drop(self.push(Some(turn_id), event, Origin::Library));
    }

    /// Returns the queues to wait for.
    fn push(&self, turn_id: Option<TurnId>, event: AgentEvent, origin: Origin) -> Vec<Arc<Queue>> {
        let mut full = Vec::new();
        let mut state = loop {
            let state = self.state.lock();
            let next = self.next.load(Ordering::SeqCst) / ONE;
            // An event that comes unheard may take that number still, and leave one beyond the bound; then no queue is there to see it.
            if next <= self.numbers.last_event() {
                break state;
            }
            drop(state);
            // With no lock held: this may wait for the disk.
            self.numbers.reserve_events(next);
        };
        let seq = self.next.fetch_add(ONE, Ordering::SeqCst) / ONE;
        let mut event = Some(SessionEvent { session_id: self.session_id, turn_id, seq, event });
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
                Pushed::Kept => true,
                Pushed::Full => {
                    full.push(Arc::clone(queue));
                    true
                }
                Pushed::Gone => false,
            }
        });
        if state.queues.is_empty() && self.history_limit == 0 {
            self.next.fetch_and(!HEARD, Ordering::SeqCst);
        }
        full
    }

    /// The session is closed: nobody waits for room any more.
    pub(crate) fn close(&self) {
        self.closed.set();
    }

    /// The session has ended: the streams end with what is in their queues.
    pub(crate) fn end(&self) {
        self.closed.set();
        let (queues, history) = {
            let mut state = self.state.lock();
            state.ended = true;
            self.next.fetch_and(!HEARD, Ordering::SeqCst);
            (std::mem::take(&mut state.queues), std::mem::take(&mut state.history))
        };
        drop((queues, history));
    }
}

impl Past {
    /// How many events from number `from` on are not to be had, where the oldest that is has number `oldest`. The jump of numbers behind a
    /// life that did not end in order is no events.
    fn missed(&self, from: u64, oldest: u64) -> u64 {
        let before = (self.known + 1).saturating_sub(from.max(1));
        let since = oldest.saturating_sub(from.max(self.last + 1));
        before + since
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::EventStream;
    use super::super::Subscription;
    use super::*;
    use crate::ids::numbers::Numbering;
    use crate::permits::semaphore::Semaphore;
    use crate::time::clock::Clock;

    #[test]
    fn c64_the_jump_behind_a_killed_life_is_no_missed_events() {
        let killed = Past { last: 1_000, known: 7 };
        assert_eq!(killed.missed(8, 1_001), 0);
        assert_eq!(killed.missed(3, 1_001), 5);
        assert_eq!(killed.missed(0, 1_003), 7 + 2);
        assert_eq!(killed.missed(900, 1_003), 2);
        let in_order = Past { last: 7, known: 7 };
        assert_eq!(in_order.missed(7, 10), 1 + 2);
        assert_eq!(Past { last: 0, known: 0 }.missed(1, 1), 0);
    }

    #[test]
    fn subscribers_that_have_gone_leave_nothing_behind() {
        let bus = Bus::new(SessionId::new(), 0, 0, 0, Numbers::new(Numbering::default()));
        for _ in 0..100 {
            let (queue, stream) = EventStream::new(Subscription::new(), Clock::System);
            let receiver = stream.events().clone();
            assert!(bus.attach(&queue));
            drop(queue);
            drop(stream);
            // At once, with no event to wait for.
            assert!(receiver.try_recv().unwrap_err().is_disconnected());
            assert_eq!(bus.state.lock().queues.len(), 1);
        }
        assert!(!bus.pass_unheard());
        let permit = TurnPermit::new(Semaphore::new(1));
        bus.publish(None, AgentEvent::TextDelta { delta: String::new() }, Origin::Agent, None, &permit);
        assert!(bus.state.lock().queues.is_empty());
        assert!(bus.pass_unheard());
    }
}
