//! Counting semaphores whose permits give themselves back.
//!
//! # Why no wake-up is lost
//!
//! A permit that comes back is counted first, then the queue is looked at; a waiter counts itself into the queue first,
//! then looks for a permit once more. All four steps are sequentially consistent, so at least one side sees the other:
//!
//! ```text
//! returning thread              waiting thread
//! held -= 1                     waiting += 1
//! waiting > 0 ? hand over       held < limit ? take it and leave the queue
//! ```

use std::collections::VecDeque;

use crate::error::Cancelled;
use crate::sync::{at_or_never, bounded, select, Arc, AtomicUsize, Instant, Mutex, Ordering, Sender};
use crate::wait::cancel::CancelToken;

/// So many permits, given out one at a time, first come first served.
#[derive(Debug)]
pub(crate) struct Semaphore {
    limit: usize,
    held: AtomicUsize,
    /// As many as there are in `queue`; changed under its lock, read without.
    waiting: AtomicUsize,
    queue: Mutex<VecDeque<Sender<()>>>,
}

/// One of a semaphore's permits. Dropping it gives it back.
#[must_use = "dropping it gives the permit back"]
#[derive(Debug)]
pub(crate) struct Permit {
    semaphore: Arc<Semaphore>,
}

impl Semaphore {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            held: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            queue: Mutex::new(VecDeque::new()),
        })
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// A permit, if one is free now. Otherwise how many are out: the limit.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Result<Permit, usize> {
        self.count_one().map(|()| Permit { semaphore: Arc::clone(self) })
    }

    /// A permit, as soon as one is free and nobody has waited longer; or the end of the wait by `cancel`.
    pub(crate) fn acquire(self: &Arc<Self>, cancel: &CancelToken) -> Result<Permit, Cancelled> {
        loop {
            cancel.check()?;
            if let Some(permit) = self.wait_in_queue(cancel, None) {
                return Ok(permit);
            }
        }
    }

    /// As [`acquire`](Self::acquire), but where `cancel` or `deadline` ends the wait, a permit beyond the limit. It counts
    /// like any other: nobody else gets one until so many have come back.
    pub(crate) fn acquire_or_exceed(self: &Arc<Self>, cancel: &CancelToken, deadline: Option<Instant>) -> Permit {
        let in_time = if cancel.is_cancelled() { None } else { self.wait_in_queue(cancel, deadline) };
        in_time.unwrap_or_else(|| {
            self.held.fetch_add(1, Ordering::SeqCst);
            Permit { semaphore: Arc::clone(self) }
        })
    }

    /// `None` where the token fired, or the time was up, before there was one.
    fn wait_in_queue(self: &Arc<Self>, cancel: &CancelToken, deadline: Option<Instant>) -> Option<Permit> {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            if let Ok(permit) = self.try_acquire() {
                return Some(permit);
            }
        }
        let (grant, granted) = bounded(1);
        {
            let mut queue = self.queue.lock();
            queue.push_back(grant.clone());
            self.waiting.store(queue.len(), Ordering::SeqCst);
        }
        self.hand_over();
        select! {
            recv(granted) -> _ => return Some(Permit { semaphore: Arc::clone(self) }),
            recv(cancel.cancelled()) -> _ => {}
            recv(at_or_never(deadline)) -> _ => {}
        }
        // Granted in the same instant, the permit is ours all the same.
        (!self.leave_queue(&grant)).then(|| Permit { semaphore: Arc::clone(self) })
    }

    /// Gives free permits to the longest waiting.
    fn hand_over(&self) {
        while self.waiting.load(Ordering::SeqCst) > 0 {
            let Some(grant) = self.count_one_for_the_first() else { return };
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
        self.waiting.store(queue.len(), Ordering::SeqCst);
        first
    }

    /// Whether this waiter was still in the queue.
    fn leave_queue(&self, grant: &Sender<()>) -> bool {
        let mut queue = self.queue.lock();
        let place = queue.iter().position(|other| other.same_channel(grant));
        let left = place.and_then(|place| queue.remove(place));
        self.waiting.store(queue.len(), Ordering::SeqCst);
        left.is_some()
    }

    fn count_one(&self) -> Result<(), usize> {
        let one_more = |held| (held < self.limit).then_some(held + 1);
        self.held.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).map(|_| ())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.semaphore.held.fetch_sub(1, Ordering::SeqCst);
        self.semaphore.hand_over();
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
                    drop(permit);
                });
                while semaphore.waiting.load(Ordering::SeqCst) <= waiter {
                    std::thread::yield_now();
                }
            }
            drop(held);
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
                scope.spawn(|| drop(token.cancel(CancelReason::Interrupted)));
                drop(held);
                waiter.join().unwrap();
            });
            assert_eq!(semaphore.held(), 0);
            assert_eq!(semaphore.waiting.load(Ordering::SeqCst), 0);
        }
    }
}
