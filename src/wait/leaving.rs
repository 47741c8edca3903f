//! Threads that have nothing left to do but to go, until they are joined.
//!
//! Nobody is made to wait for one of them: each says when the last of its code has run, and whoever comes by then joins it. Its
//! handle is out of the list by then, so as not to hold a lock meanwhile; somebody else who looks into the list just then, to
//! see every thread off, must not conclude that it is gone: so it stays counted until it is joined.

use crate::sync::{Arc, JoinHandle, ThreadId};
use crate::wait::clock::Deadline;
use crate::wait::latch::Latch;

/// A thread, and what is to be known of it.
#[derive(Debug)]
pub(crate) struct Thread<T> {
    pub(crate) of: T,
    pub(crate) handle: JoinHandle<()>,
    /// Set by the last of the thread's code; see [`set_when_gone`](crate::wait::latch::set_when_gone).
    pub(crate) gone: Arc<Latch>,
}

/// Those that are leaving.
#[derive(Debug)]
pub(crate) struct Leaving<T> {
    threads: Vec<Thread<T>>,
    /// Those that somebody joins just now.
    batches: Vec<Arc<Batch<T>>>,
}

#[derive(Debug)]
struct Batch<T> {
    threads: Vec<T>,
    joined: Latch,
}

/// Threads whose code has run, out of the list: to be joined with no lock held.
#[must_use]
pub(crate) struct Gone<T> {
    handles: Vec<JoinHandle<()>>,
    batch: Arc<Batch<T>>,
}

/// Threads that somebody else joins.
#[must_use]
pub(crate) struct Joining<T>(Vec<Arc<Batch<T>>>);

impl<T> Default for Leaving<T> {
    fn default() -> Self {
        Self { threads: Vec::new(), batches: Vec::new() }
    }
}

impl<T> Thread<T> {
    pub(crate) fn id(&self) -> ThreadId {
        self.handle.thread().id()
    }
}

impl<T> Leaving<T> {
    pub(crate) fn add(&mut self, threads: impl IntoIterator<Item = Thread<T>>) {
        self.threads.extend(threads);
    }

    /// Those whose last code has not run, as far as this list knows.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Thread<T>> {
        self.threads.iter()
    }

    /// How many have not been joined.
    pub(crate) fn count(&self) -> usize {
        let joining = self.batches.iter().filter(|batch| !batch.joined.is_set());
        self.threads.len() + joining.map(|batch| batch.threads.len()).sum::<usize>()
    }

    /// Takes those out that have gone; `None` where there are none.
    pub(crate) fn take_gone(&mut self) -> Option<Gone<T>> {
        let (gone, threads): (Vec<_>, _) = self.threads.drain(..).partition(|thread| thread.gone.is_set());
        self.threads = threads;
        if gone.is_empty() {
            return None;
        }
        let (threads, handles) = gone.into_iter().map(|thread| (thread.of, thread.handle)).unzip();
        let batch = Arc::new(Batch { threads, joined: Latch::new() });
        self.batches.retain(|batch| !batch.joined.is_set());
        self.batches.push(Arc::clone(&batch));
        Some(Gone { handles, batch })
    }

    /// Those that are being joined, by whomever.
    pub(crate) fn joining(&self) -> Joining<T> {
        Joining(self.batches.clone())
    }
}

impl<T> Gone<T> {
    pub(crate) fn join(self) {
        for handle in self.handles {
            // A thread that panicked has been reported by the panic hook; there is nothing else to learn from it.
            let _ = handle.join();
        }
        self.batch.joined.set();
    }
}

impl<T: Clone> Joining<T> {
    /// Waits until they are joined. Those that are not, in time.
    pub(crate) fn wait(&self, deadline: &Deadline) -> Vec<T> {
        let late = self.0.iter().filter(|batch| {
            // Disconnected or not in time: the latch knows.
            let _ = deadline.receive(batch.joined.receiver());
            !batch.joined.is_set()
        });
        late.flat_map(|batch| batch.threads.iter().cloned()).collect()
    }
}
