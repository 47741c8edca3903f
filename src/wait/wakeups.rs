//! A throttle for wake-ups.
//!
//! To wake a thread costs the waking thread a few microseconds, and the operating system puts the woken thread on the processor where it
//! ran before, or where it is woken from. A caller that begins a turn on each of ten thousand sessions would wake threads for a long
//! time, and most of them would wait behind one another for one processor while the others idle. All of it took up to half again as
//! long.
//!
//! So at most [`MAX_IN_FLIGHT`] wake-ups of one calling thread are *in flight*: sent, and not reported as arrived. Later ones are queued, and each
//! thread that arrives sends one of them before it does anything else. The waking becomes work that all processors share.
//!
//! What is queued is a signal, not a thread: a session's thread waits in a `select!`, which a [`Signal`] wakes as any channel does.
//!
//! Each calling thread has a [`WakeupThrottle`] of its own, so the wake-ups of one caller never wait behind those of another. Of a large
//! burst the last sessions are woken later than without the throttle, and other calls for those sessions wait with them. The time until
//! the whole burst is done gets shorter.
//!
//! # Why no wake-up is lost
//!
//! Every state change is under the throttle's lock:
//!
//! ```text
//! send:    MAX_IN_FLIGHT in flight?  no: in_flight + 1, notify       yes: queue the signal
//! arrived: a queued signal?          yes: notify it (in_flight stays)  no: in_flight - 1
//! ```
//!
//! A waiting thread is called up at most once for each of its waits ([`work_queue`](crate::wait::work_queue)), and it reports its arrival
//! exactly once for that, whichever arm of its `select!` it leaves by. So `in_flight` is always the number of calls less the number of
//! arrivals less the length of the queue. From that follows:
//!
//! - While the queue is not empty, `in_flight` is [`MAX_IN_FLIGHT`]: it falls only where the queue is empty. So at least that many threads
//!   have been called up, have not arrived, and need nothing but a processor to arrive. Each of them sends one queued wake-up.
//! - When all have arrived, calls and arrivals are equal, so `in_flight` is the negative length of the queue. Together with the first
//!   point the queue is empty.
//!
//! A thread may arrive by itself, before its signal is sent or even before `send` has counted it: then `in_flight` is low by one for that
//! moment, and its signal wakes it once for nothing later. A thread that did not report its arrival would be in flight for ever: after
//! [`MAX_IN_FLIGHT`] of those no session is woken any more.

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::sync::{thread_local, Arc, Mutex, Sender, MAX_WAKEUPS_IN_FLIGHT as MAX_IN_FLIGHT};
use crate::wait::signal::{notify, Signal};

/// The wake-ups that one thread sends.
#[derive(Debug)]
pub(crate) struct WakeupThrottle {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Negative while a thread has arrived that `send` has not counted yet.
    in_flight: isize,
    /// Keeps the capacity of its longest time: a pointer for each signal.
    queue: VecDeque<Sender<()>>,
}

thread_local! {
    /// Made by the first wake-up that this thread sends.
    static OWN: RefCell<Option<Arc<WakeupThrottle>>> = const { RefCell::new(None) };
}

/// The throttle of the calling thread.
pub(crate) fn own_throttle() -> Arc<WakeupThrottle> {
    let own = OWN.try_with(|slot| Arc::clone(slot.borrow_mut().get_or_insert_with(WakeupThrottle::new)));
    // The slot is gone while the thread exits. It sends few wake-ups then.
    own.unwrap_or_else(|_| WakeupThrottle::new())
}

impl WakeupThrottle {
    fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { in_flight: 0, queue: VecDeque::new() }) })
    }

    /// Sends a wake-up through `signal`, now or when another woken thread has arrived. The woken thread has to report its
    /// [arrival](Self::arrived) once.
    pub(crate) fn send(&self, signal: &Signal) {
        {
            let mut state = self.state.lock();
            if state.in_flight == MAX_IN_FLIGHT {
                state.queue.push_back(signal.sender().clone());
                return;
            }
            state.in_flight += 1;
        }
        signal.notify();
    }

    /// Reports that a thread runs that was called up through this throttle, and sends the next queued wake-up.
    pub(crate) fn arrived(&self) {
        let next = {
            let mut state = self.state.lock();
            let next = state.queue.pop_front();
            if next.is_none() {
                state.in_flight -= 1;
            }
            next
        };
        if let Some(sender) = next {
            notify(&sender);
        }
    }

    /// Whether every thread that was called up has arrived.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.in_flight == 0 && state.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::work_queue::WorkQueue;

    #[test]
    fn the_wake_ups_of_one_thread_do_not_wait_behind_those_of_another() {
        // As many as may be in flight, and one more; no thread arrives.
        let throttle = own_throttle();
        let signals: Vec<_> = (0..=MAX_IN_FLIGHT).map(|_| Signal::new()).collect();
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
        (0..MAX_IN_FLIGHT).for_each(|_| throttle.arrived());
        assert!(throttle.is_idle());
    }

    #[test]
    fn a_thread_that_arrives_before_it_is_counted_leaves_the_count_right() {
        let throttle = own_throttle();
        throttle.arrived();
        throttle.send(&Signal::new());
        assert!(throttle.is_idle());
    }
}
