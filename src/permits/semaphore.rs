//! Counting semaphores whose permits give themselves back.
//!
//! # Why no wake-up is lost
//!
//! How many permits are out and whether anybody waits are one atomic word, so there is one order of all that happens to it:
//!
//! ```text
//! returning thread                          waiting thread
//! held -= 1; did somebody wait? hand over   somebody waits; held < limit? take it
//! ```
//!
//! Either the permit comes back before the waiter says that it waits, and then the waiter sees it; or after, and then the
//! returning thread sees the waiter. With two words, one for each, both could look before the other has written.

use std::collections::VecDeque;

use crate::cancel::CancelToken;
use crate::error::Cancelled;
use crate::sync::{bounded, never, select, Arc, AtomicUsize, Mutex, Ordering, Sender};
use crate::time::clock::Deadline;
use crate::wait::latch::Latch;

/// So many permits, given out one at a time, first come first served.
#[derive(Debug)]
pub(crate) struct Semaphore {
    limit: usize,
    /// How many permits are out, in units of [`ONE`], and [`WAITED_FOR`].
    state: AtomicUsize,
    queue: Mutex<VecDeque<Sender<()>>>,
}

/// In a semaphore's state: there is somebody in the queue. Changed under its lock only.
const WAITED_FOR: usize = 1;
/// In a semaphore's state: one permit that is out.
const ONE: usize = 2;

/// One of a semaphore's permits, until [`release`](Self::release) or a drop gives it back.
#[must_use = "dropping it gives the permit back"]
#[derive(Debug)]
pub(crate) struct Permit {
    /// `None` once the permit is given back.
    semaphore: Option<Arc<Semaphore>>,
}

impl Semaphore {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, state: AtomicUsize::new(0), queue: Mutex::new(VecDeque::new()) })
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn held(&self) -> usize {
        self.state.load(Ordering::SeqCst) / ONE
    }

    /// A permit, if one is free now, whoever waits. Otherwise how many are out: the limit.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Result<Permit, usize> {
        self.count_one().map(|()| Permit::of(self))
    }

    /// A permit, as soon as one is free and nobody has waited longer; or the end of the wait by `cancel`.
    pub(crate) fn acquire(self: &Arc<Self>, cancel: &CancelToken) -> Result<Permit, Cancelled> {
        loop {
            cancel.check()?;
            if let Some(permit) = self.wait_in_queue(cancel, &Deadline::never(), None) {
                return Ok(permit);
            }
        }
    }

    /// As [`acquire`](Self::acquire), but where `cancel` or `deadline` ends the wait, a permit beyond the limit. It counts
    /// like any other: no thread gets one until so many have come back. `None` where the permit is not needed any more, which `over`
    /// says.
    pub(crate) fn acquire_or_exceed(
        self: &Arc<Self>,
        cancel: &CancelToken,
        deadline: &Deadline,
        over: &Latch,
    ) -> Option<Permit> {
        let in_time = if cancel.is_cancelled() { None } else { self.wait_in_queue(cancel, deadline, Some(over)) };
        if in_time.is_some() || over.is_set() {
            return in_time;
        }
        self.state.fetch_add(ONE, Ordering::SeqCst);
        Some(Permit::of(self))
    }

    /// `None` where the token fired, the time was up, or the permit was not needed any more, before there was one.
    fn wait_in_queue(
        self: &Arc<Self>,
        cancel: &CancelToken,
        deadline: &Deadline,
        over: Option<&Latch>,
    ) -> Option<Permit> {
        if self.state.load(Ordering::SeqCst) & WAITED_FOR == 0 {
            if let Ok(permit) = self.try_acquire() {
                return Some(permit);
            }
        }
        let (grant, granted) = bounded(1);
        {
            let mut queue = self.queue.lock();
            queue.push_back(grant.clone());
            self.state.fetch_or(WAITED_FOR, Ordering::SeqCst);
        }
        self.hand_over();
        let alarm = deadline.alarm();
        let over = over.map_or_else(never, |over| over.receiver().clone());
        select! {
            recv(over) -> _ => {}
            recv(granted) -> _ => return Some(Permit::of(self)),
            recv(cancel.cancelled()) -> _ => {}
            recv(alarm.rings()) -> _ => {}
        }
        // Granted in the same instant, the permit is ours all the same.
        (!self.leave_queue(&grant)).then(|| Permit::of(self))
    }

    #[cfg(test)]
    pub(crate) fn is_waited_for(&self) -> bool {
        !self.queue.lock().is_empty()
    }

    /// Gives free permits to the longest waiting.
    fn hand_over(&self) {
        while let Some(grant) = self.count_one_for_the_first() {
            // Never full: one grant for each place. Gone where the waiter has left since; then it has seen that its place was
            // gone, and taken the permit.
            let _ = grant.try_send(());
        }
    }

    fn count_one_for_the_first(&self) -> Option<Sender<()>> {
        let mut queue = self.queue.lock();
        if queue.is_empty() || self.count_one().is_err() {
            return None;
        }
        let first = queue.pop_front();
        self.note_if_empty(&queue);
        first
    }

    /// Whether this waiter was still in the queue.
    fn leave_queue(&self, grant: &Sender<()>) -> bool {
        let mut queue = self.queue.lock();
        let place = queue.iter().position(|other| other.same_channel(grant));
        let left = place.and_then(|place| queue.remove(place));
        self.note_if_empty(&queue);
        left.is_some()
    }

    fn note_if_empty(&self, queue: &VecDeque<Sender<()>>) {
        if queue.is_empty() {
            self.state.fetch_and(!WAITED_FOR, Ordering::SeqCst);
        }
    }

    fn count_one(&self) -> Result<(), usize> {
        let one_more = |state| (state / ONE < self.limit).then_some(state + ONE);
        self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).map(drop).map_err(|state| state / ONE)
    }
}

impl Permit {
    /// A permit that the semaphore has counted.
    fn of(semaphore: &Arc<Semaphore>) -> Self {
        Self { semaphore: Some(Arc::clone(semaphore)) }
    }

    /// Gives the permit back: to the longest waiting, if there is one.
    pub(crate) fn release(mut self) {
        self.release_once();
    }

    fn release_once(&mut self) {
        let Some(semaphore) = self.semaphore.take() else { return };
        let before = semaphore.state.fetch_sub(ONE, Ordering::SeqCst);
        if before & WAITED_FOR != 0 {
            semaphore.hand_over();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.release_once();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::CancelReason;

    #[test]
    fn permits_come_back_to_the_longest_waiting() {
        let semaphore = Semaphore::new(1);
        let held = semaphore.try_acquire().unwrap();
        assert_eq!(semaphore.try_acquire().unwrap_err(), 1);
        let (order, served) = bounded(2);
        std::thread::scope(|scope| {
            for waiter in 0..2 {
                let (semaphore, order) = (&semaphore, order.clone());
                scope.spawn(move || {
                    let permit = semaphore.acquire(&CancelToken::new()).unwrap();
                    order.send(waiter).unwrap();
                    permit.release();
                });
                while semaphore.queue.lock().len() <= waiter {
                    std::thread::yield_now();
                }
            }
            held.release();
        });
        assert_eq!(served.try_iter().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(semaphore.held(), 0);
    }

    #[test]
    fn a_cancelled_wait_leaves_neither_a_place_nor_a_permit_behind() {
        let semaphore = Semaphore::new(1);
        for _ in 0..1_000 {
            let held = semaphore.try_acquire().unwrap();
            let token = CancelToken::new();
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| semaphore.acquire(&token).is_ok());
                scope.spawn(|| token.cancel_and_run_hooks(CancelReason::Interrupted));
                held.release();
                waiter.join().unwrap();
            });
            assert_eq!(semaphore.state.load(Ordering::SeqCst), 0);
        }
    }
}
