//! Threads that are called up, more of them than are woken at a time.

use super::{explore, join, spawn};
use crate::sync::Arc;
use crate::wait::mailbox::mailbox;
use crate::wait::waking::own_calls;

/// So many that in a model, where one is woken at a time, notes are kept of several.
const WAITERS: usize = 4;
const ROUNDS: usize = 2;

#[test]
fn all_who_are_called_up_arrive_whoever_else_wakes_them() {
    explore(|| {
        let (senders, waiters): (Vec<_>, Vec<_>) = (0..WAITERS)
            .map(|_| {
                let (sender, receiver) = mailbox();
                let waiter = spawn(move || (0..2 * ROUNDS).map(|_| receiver.receive()).collect::<Vec<usize>>());
                (Arc::new(sender), waiter)
            })
            .unzip();
        // Unparks them as it likes, so that some arrive unwoken, and others find their note taken.
        let threads: Vec<_> = waiters.iter().map(|waiter| waiter.thread().clone()).collect();
        let meddler = spawn(move || threads.iter().chain(&threads).for_each(|thread| thread.unpark()));
        let calling = [0, 1].map(|caller| {
            let senders = senders.clone();
            spawn(move || {
                for round in 0..ROUNDS {
                    senders.iter().for_each(|sender| sender.send(2 * round + caller));
                }
                own_calls()
            })
        });
        let calls = calling.map(join);
        join(meddler);
        for waiter in waiters {
            // Were one left asleep, this would wait for ever.
            let mut received = join(waiter);
            received.sort_unstable();
            assert_eq!(received, (0..2 * ROUNDS).collect::<Vec<_>>());
        }
        assert!(calls.iter().all(|calls| calls.are_none()), "a call is counted for good");
    });
}
