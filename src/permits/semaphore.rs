//! Counting semaphores. A permit gives itself back when it is dropped.
//!
//! # Why no wake-up is lost
//!
//! One atomic word holds the number of permits given out and whether a thread waits. So all changes of both have one
//! order:
//!
//! ```text
//! releasing thread                          waiting thread
//! held -= 1; does a thread wait? grant      set "a thread waits"; held < limit? take a permit
//! ```
//!
//! Either the permit comes back before the waiting thread sets the flag, and that thread then finds the permit. Or it
//! comes back after, and the releasing thread finds the flag. With two words, both threads could read before the other
//! has written.
//!
//! # Why no thread is overtaken
//!
//! A permit is taken from the queue's head, or by one compare-and-swap that succeeds only while no thread waits. Between
//! a release and its grant the permit is free, although threads wait for it:
//!
//! ```text
//! releasing thread                          thread that does not wait
//! held -= 1; a thread waits
//!                                           held < limit, but a thread waits: takes nothing
//!                                             grants the permit itself, and looks again
//! grants what is left
//! ```
//!
//! The second thread grants the permit instead of failing: there may be more free permits than waiting threads.

use std::collections::VecDeque;

use crate::cancel::CancelToken;
use crate::error::Cancelled;
use crate::sync::{bounded, never, select, Arc, AtomicUsize, Mutex, Ordering, Sender};
use crate::time::clock::Deadline;
use crate::wait::latch::Latch;

/// A limited number of permits, granted in arrival order.
#[derive(Debug)]
pub(crate) struct Semaphore {
    limit: usize,
    /// The number of permits given out, in units of [`ONE`], and [`HAS_WAITERS`].
    state: AtomicUsize,
    queue: Mutex<VecDeque<Sender<()>>>,
}

/// In a semaphore's state: a thread is queued. Changed under the lock of the queue only.
const HAS_WAITERS: usize = 1;
/// In a semaphore's state: one permit given out.
const ONE: usize = 2;

/// Why a permit cannot be taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// All permits are given out, this many.
    Exhausted(usize),
    /// A permit is free, but a thread waits for it. After [`grant_free_permits`](Semaphore::grant_free_permits) the
    /// thread has it, and another permit may be left.
    AwaitedByOthers,
}

/// A permit of a semaphore. [`release`](Self::release) or a drop gives it back.
#[must_use = "dropping it gives the permit back"]
#[derive(Debug)]
pub(crate) struct Permit {
    semaphore: Arc<Semaphore>,
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

    /// Takes a permit if one is free and no thread waits: one compare-and-swap, also for a caller that holds a lock.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Result<Permit, Unavailable> {
        self.count_one_unless(HAS_WAITERS).map(|()| Permit::of(self)).map_err(|state| match state / ONE {
            held if held < self.limit => Unavailable::AwaitedByOthers,
            held => Unavailable::Exhausted(held),
        })
    }

    /// Takes a permit if more are free than threads wait for. Otherwise returns the number given out. Does not wait.
    pub(crate) fn acquire_now(self: &Arc<Self>) -> Result<Permit, usize> {
        loop {
            match self.try_acquire() {
                Ok(permit) => return Ok(permit),
                Err(Unavailable::Exhausted(held)) => return Err(held),
                Err(Unavailable::AwaitedByOthers) => self.grant_free_permits(),
            }
        }
    }

    /// Waits for a permit, in arrival order. Returns an error if `cancel` ends the wait.
    pub(crate) fn acquire(self: &Arc<Self>, cancel: &CancelToken) -> Result<Permit, Cancelled> {
        loop {
            cancel.check()?;
            if let Some(permit) = self.wait_in_queue(cancel, &Deadline::never(), None, || {}) {
                return Ok(permit);
            }
        }
    }

    /// Waits for a permit, in arrival order. `None` if `cancel`, `deadline` or `over` ends the wait. `in_queue` is called
    /// once this thread has its place among the [waiters](Self::waiters).
    pub(crate) fn acquire_until(
        self: &Arc<Self>,
        cancel: &CancelToken,
        deadline: &Deadline,
        over: &Latch,
        in_queue: impl FnOnce(),
    ) -> Option<Permit> {
        self.wait_in_queue(cancel, deadline, Some(over), in_queue)
    }

    /// As [`acquire`](Self::acquire), but if `cancel` or `deadline` ends the wait, it takes a permit beyond the limit.
    /// That permit counts like any other: no thread gets one until enough have come back. `None` if `over`
    /// ends the wait, since the permit is not needed any more.
    pub(crate) fn acquire_or_exceed(
        self: &Arc<Self>,
        cancel: &CancelToken,
        deadline: &Deadline,
        over: &Latch,
    ) -> Option<Permit> {
        let in_time =
            if cancel.is_cancelled() { None } else { self.wait_in_queue(cancel, deadline, Some(over), || {}) };
        if in_time.is_some() || over.is_set() {
            return in_time;
        }
        self.state.fetch_add(ONE, Ordering::SeqCst);
        Some(Permit::of(self))
    }

    /// `None` if `cancel`, `deadline` or `over` ended the wait before a permit was granted.
    fn wait_in_queue(
        self: &Arc<Self>,
        cancel: &CancelToken,
        deadline: &Deadline,
        over: Option<&Latch>,
        in_queue: impl FnOnce(),
    ) -> Option<Permit> {
        if let Ok(permit) = self.try_acquire() {
            return Some(permit);
        }
        let (grant, granted) = bounded(1);
        {
            let mut queue = self.queue.lock();
            queue.push_back(grant.clone());
            self.state.fetch_or(HAS_WAITERS, Ordering::SeqCst);
        }
        self.grant_free_permits();
        in_queue();
        let alarm = deadline.alarm();
        let over = over.map_or_else(never, |over| over.receiver().clone());
        select! {
            recv(over) -> _ => {}
            recv(granted) -> _ => return Some(Permit::of(self)),
            recv(cancel.cancelled()) -> _ => {}
            recv(alarm.receiver()) -> _ => {}
        }
        // A permit granted in the same instant belongs to this thread.
        (!self.leave_queue(&grant)).then(|| Permit::of(self))
    }

    /// Whether a thread waits for a permit. Does not lock.
    pub(crate) fn has_waiters(&self) -> bool {
        self.state.load(Ordering::SeqCst) & HAS_WAITERS != 0
    }

    /// How many threads wait for a permit.
    pub(crate) fn waiters(&self) -> usize {
        self.queue.lock().len()
    }

    /// Grants free permits to the threads that have waited longest.
    pub(crate) fn grant_free_permits(&self) {
        while let Some(grant) = self.count_one_for_first() {
            // Never full: each waiting thread gets one grant. Disconnected if the thread has left the wait. It then did
            // not find its entry in the queue, and has taken the permit.
            let _ = grant.try_send(());
        }
    }

    fn count_one_for_first(&self) -> Option<Sender<()>> {
        let mut queue = self.queue.lock();
        if queue.is_empty() || self.count_one_unless(0).is_err() {
            return None;
        }
        let first = queue.pop_front();
        self.clear_flag_if_empty(&queue);
        first
    }

    /// Removes this thread from the queue. Returns whether it was still there.
    fn leave_queue(&self, grant: &Sender<()>) -> bool {
        let mut queue = self.queue.lock();
        let position = queue.iter().position(|other| other.same_channel(grant));
        let left = position.and_then(|position| queue.remove(position));
        self.clear_flag_if_empty(&queue);
        left.is_some()
    }

    fn clear_flag_if_empty(&self, queue: &VecDeque<Sender<()>>) {
        if queue.is_empty() {
            self.state.fetch_and(!HAS_WAITERS, Ordering::SeqCst);
        }
    }

    /// Counts one more permit, if one is free and the state has none of `flags`. Otherwise returns the state.
    fn count_one_unless(&self, flags: usize) -> Result<(), usize> {
        let one_more = |state| (state / ONE < self.limit && state & flags == 0).then_some(state + ONE);
        self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).map(drop)
    }
}

impl Permit {
    /// A permit that the semaphore has counted already.
    fn of(semaphore: &Arc<Semaphore>) -> Self {
        Self { semaphore: Arc::clone(semaphore) }
    }

    /// Whether the permit is one of this semaphore.
    pub(crate) fn is_of(&self, semaphore: &Arc<Semaphore>) -> bool {
        Arc::ptr_eq(&self.semaphore, semaphore)
    }

    /// Gives the permit back. The thread that has waited longest gets it.
    pub(crate) fn release(self) {
        // The drop gives it back, on every other way out too.
        drop(self);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let before = self.semaphore.state.fetch_sub(ONE, Ordering::SeqCst);
        if before & HAS_WAITERS != 0 {
            self.semaphore.grant_free_permits();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::CancelReason;

    #[test]
    fn permits_are_granted_in_arrival_order() {
        let semaphore = Semaphore::new(1);
        let held = semaphore.try_acquire().unwrap();
        assert_eq!(semaphore.try_acquire().unwrap_err(), Unavailable::Exhausted(1));
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
    fn a_cancelled_wait_leaves_no_queue_entry_and_no_permit_behind() {
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
