//! Threads that are being joined: out of everybody's lists, and not yet gone for certain.
//!
//! Whoever joins threads takes their handles out of a list first, so as not to hold its lock meanwhile. Somebody else who looks
//! into the list just then, to see every thread off, must not conclude that they are gone: the system may still run them.

use crate::sync::{Arc, JoinHandle};
use crate::wait::clock::Deadline;
use crate::wait::latch::Latch;

/// Who is being joined. To be kept under the same lock as the list that the handles come from.
#[derive(Debug)]
pub(crate) struct Joining<T> {
    batches: Vec<Arc<Batch<T>>>,
}

impl<T> Default for Joining<T> {
    fn default() -> Self {
        Self { batches: Vec::new() }
    }
}

/// Threads that somebody joins, and what is to be known of each.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    threads: Vec<T>,
    joined: Latch,
}

impl<T> Joining<T> {
    /// Notes threads whose handles are taken out of the list now.
    pub(crate) fn begin(&mut self, threads: Vec<T>) -> Arc<Batch<T>> {
        self.batches.retain(|batch| !batch.joined.is_set());
        let batch = Arc::new(Batch { threads, joined: Latch::new() });
        self.batches.push(Arc::clone(&batch));
        batch
    }

    /// What others are about to join.
    pub(crate) fn batches(&self) -> Vec<Arc<Batch<T>>> {
        self.batches.iter().filter(|batch| !batch.joined.is_set()).cloned().collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.batches().iter().map(|batch| batch.threads.len()).sum()
    }
}

impl<T> Batch<T> {
    /// Joins the threads, which are as good as gone.
    pub(crate) fn join(&self, handles: Vec<JoinHandle<()>>) {
        for handle in handles {
            // A thread that panicked has been reported by the panic hook; there is nothing else to learn from it.
            let _ = handle.join();
        }
        self.joined.set();
    }

    /// Waits until somebody else has joined them; those that are not joined in time.
    pub(crate) fn wait(&self, deadline: &Deadline) -> &[T] {
        // Disconnected or not in time: the latch knows.
        let _ = deadline.receive(self.joined.receiver());
        if self.joined.is_set() {
            &[]
        } else {
            &self.threads
        }
    }
}
