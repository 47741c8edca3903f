//! A throttle for wake-ups.
//!
//! To wake a thread costs the waking thread a few microseconds. The operating system puts the woken thread on the
//! processor where it ran before, or on that of the waking thread. A caller that begins a turn on each of ten thousand
//! sessions would wake threads for a long time. Most of them would wait behind one another for one processor while the
//! others idle. The whole burst took up to half again as long.
//!
//! So only a limited number of wake-ups of one calling thread are *in flight*: sent, and not reported as arrived.
//! Later ones are queued. Each thread that arrives sends the next before it does anything else, so all processors share
//! the work of waking.
//!
//! The queue holds signals, not threads: a session thread waits in a `select!`, which a [`Signal`] wakes as any channel
//! does.
//!
//! Each calling thread has its own [`WakeupThrottle`], so the wake-ups of one caller never wait behind those of
//! another. In a large burst the last sessions are woken later than without the throttle, and other calls for those
//! sessions wait too. The whole burst finishes earlier.
//!
//! # The limit
//!
//! A channel sends a signal under a lock that the woken thread needs next. Where the woken thread preempts the sender,
//! it waits for the sender, and the sender waits for a processor behind all other woken threads. So the limit is low,
//! [`MIN_IN_FLIGHT`], while turns are short.
//!
//! While turns compute for long, a low limit leaves a processor idle: the few threads in flight may all wait for
//! another processor. Arrivals are rare then. So each arrival that comes late after the one before raises the limit by
//! one, up to [`MAX_IN_FLIGHT`], and each other arrival lowers it by one. A larger step makes the next arrival late,
//! since the thread is busy with the wake-ups that it sends.
//!
//! The figures are a compromise of three workloads: 10,000 short turns (`benches/w09_one_turn_each.rs`), 1,000 turns
//! that block (`benches/w10_blocking_turns.rs`), and 2,000 turns that compute for up to 2 ms.
//!
//! # Why no wake-up is lost
//!
//! Every state change is under the throttle's lock:
//!
//! ```text
//! send:    in_flight < limit?  yes: in_flight + 1, notify               no: queue the signal
//! arrived: in_flight - 1; while in_flight < limit and the queue is not empty: in_flight + 1, notify the next
//! ```
//!
//! A waiting thread is notified at most once for each of its waits ([`work_queue`](crate::wait::work_queue)). It
//! reports its arrival exactly once for that, whichever arm of its `select!` was ready. So `in_flight` is always the
//! number of sends less the number of arrivals less the length of the queue. It follows:
//!
//! - While the queue is not empty, `in_flight` is at least [`MIN_IN_FLIGHT`]: an arrival that would leave less sends the
//!   next. So at least that many threads are notified, have not arrived, and need only a processor to arrive. Each of
//!   them goes on with the queue.
//! - When all threads have arrived, sends and arrivals are equal, so `in_flight` is the negative length of the queue.
//!   With the first point it follows that the queue is empty.
//!
//! A thread may arrive by itself, before its signal is sent or even before `send` counts it. Then `in_flight` is one
//! too low until `send` counts it, and the later signal wakes the thread once for nothing. A thread that does not
//! report its arrival would stay in flight for ever. After some of those the caller wakes no session any more.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use crate::sync::{thread_local, Arc, Instant, Mutex, Sender, WAKEUPS_IN_FLIGHT};
use crate::wait::signal::{notify, Signal};

const MIN_IN_FLIGHT: isize = WAKEUPS_IN_FLIGHT[0];
const MAX_IN_FLIGHT: isize = WAKEUPS_IN_FLIGHT[1];
/// An arrival so long after the one before says that turns compute for long.
const LATE: Duration = Duration::from_micros(50);
/// The wake-ups that one thread sends.
#[derive(Debug)]
pub(crate) struct WakeupThrottle {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Negative while a thread has arrived that `send` has not counted yet.
    in_flight: isize,
    limit: isize,
    last_arrival: Option<Instant>,
    /// Keeps its largest capacity: 16 bytes for each signal.
    queue: VecDeque<Sender<()>>,
}

thread_local! {
        /// Made by the first wake-up that this thread sends.
    static OWN: RefCell<Option<Arc<WakeupThrottle>>> = const { RefCell::new(None) };
}

/// The throttle of the calling thread.
pub(crate) fn own_throttle() -> Arc<WakeupThrottle> {
    let own = OWN.try_with(|slot| Arc::clone(slot.borrow_mut().get_or_insert_with(WakeupThrottle::new)));
    // The slot is dropped while the thread exits. The thread sends few wake-ups then.
    own.unwrap_or_else(|_| WakeupThrottle::new())
}

impl WakeupThrottle {
    fn new() -> Arc<Self> {
        let state = State { in_flight: 0, limit: MIN_IN_FLIGHT, last_arrival: None, queue: VecDeque::new() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Sends a wake-up through `signal`, now or when another woken thread arrives. The woken thread must report its
    /// [arrival](Self::arrived) once.
    pub(crate) fn send(&self, signal: &Signal) {
        // Before the lock: the first use makes the channel.
        let sender = signal.sender();
        {
            let mut state = self.state.lock();
            if state.in_flight >= state.limit {
                state.queue.push_back(sender.clone());
                return;
            }
            state.in_flight += 1;
        }
        notify(sender);
    }

    /// Reports that a thread runs that was notified through this throttle, and sends the next queued wake-ups.
    pub(crate) fn arrived(&self) {
        let now = Instant::now();
        let next = {
            let mut state = self.state.lock();
            state.in_flight -= 1;
            state.move_limit(now);
            // An arrival makes room for one, and for another where it raises the limit.
            [state.next(), state.next()]
        };
        next.iter().flatten().for_each(notify);
    }

    /// Whether every notified thread has arrived.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.in_flight == 0 && state.queue.is_empty()
    }
}

impl State {
    fn move_limit(&mut self, now: Instant) {
        let last = self.last_arrival.replace(now);
        let is_late = last.is_some_and(|last| now.saturating_duration_since(last) > LATE);
        let limit = if is_late { self.limit + 1 } else { self.limit - 1 };
        self.limit = limit.clamp(MIN_IN_FLIGHT, MAX_IN_FLIGHT);
    }

    /// The next queued wake-up that may be in flight, counted.
    fn next(&mut self) -> Option<Sender<()>> {
        if self.in_flight >= self.limit {
            return None;
        }
        let next = self.queue.pop_front()?;
        self.in_flight += 1;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::work_queue::WorkQueue;

    #[test]
    fn the_wake_ups_of_one_thread_do_not_wait_behind_those_of_another() {
        // As many as may be in flight, and one more. No thread arrives.
        let throttle = own_throttle();
        let signals: Vec<_> = (0..=MIN_IN_FLIGHT).map(|_| Signal::new()).collect();
        signals.iter().for_each(|signal| throttle.send(signal));
        let (last, sent) = signals.split_last().unwrap();
        assert!(sent.iter().all(|signal| signal.receiver().try_recv().is_ok()));
        assert!(last.receiver().try_recv().is_err());
        for number in 0..100 {
            let queue: WorkQueue<usize> = WorkQueue::new();
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| queue.wait_and_pop());
                std::thread::yield_now();
                scope.spawn(|| queue.push(number).unwrap());
                assert_eq!(waiter.join().unwrap(), number);
            });
        }
        throttle.arrived();
        assert!(last.receiver().try_recv().is_ok());
        (0..MIN_IN_FLIGHT).for_each(|_| throttle.arrived());
        assert!(throttle.is_idle());
    }

    #[test]
    fn late_arrivals_raise_the_limit_and_others_lower_it() {
        let mut state = State { in_flight: 0, limit: MIN_IN_FLIGHT, last_arrival: None, queue: VecDeque::new() };
        let mut now = Instant::now();
        for _ in 0..100 {
            now = now.checked_add(2 * LATE).unwrap();
            state.move_limit(now);
        }
        assert_eq!(state.limit, MAX_IN_FLIGHT);
        (0..100).for_each(|_| state.move_limit(now));
        assert_eq!(state.limit, MIN_IN_FLIGHT);
    }

    #[test]
    fn a_thread_that_arrives_before_it_is_counted_leaves_the_count_right() {
        let throttle = own_throttle();
        throttle.arrived();
        throttle.send(&Signal::new());
        assert!(throttle.is_idle());
    }
}
