//! Threads that have ended their work and are not joined yet.
//!
//! A host that unloads the code that it runs must know that a thread has exited, with its thread-local destructors.
//! Only a shutdown waits for that. Each thread sets a latch by the last of its code, and the next caller joins the
//! threads whose latch is set.
//!
//! **Invariant.** A thread counts until it is joined. A caller joins with no lock held, so it first takes the handles
//! out of the list. Another caller that waits for every thread may read the list at that moment. If it did not count
//! the threads that are being joined, it would conclude that they have exited.

use std::cell::RefCell;

use crate::sync::{thread_local, Arc, JoinHandle, ThreadId};
use crate::time::clock::Deadline;
use crate::wait::latch::Latch;

/// A thread that will be joined, while it works and after that.
#[derive(Debug)]
pub(crate) struct TrackedThread<T> {
    /// The owner that the thread works for.
    pub(crate) owner: T,
    pub(crate) handle: JoinHandle<()>,
    /// Set by the last of the thread's code; see [`set_on_exit`].
    pub(crate) exited: Arc<Latch>,
}

/// The threads that have ended their work and are not joined.
#[derive(Debug)]
pub(crate) struct ExitingThreads<T> {
    threads: Vec<TrackedThread<T>>,
    /// The threads that other callers are joining.
    batches: Vec<Arc<Batch<T>>>,
}

#[derive(Debug)]
struct Batch<T> {
    threads: Vec<T>,
    joined: Latch,
}

/// Threads whose last code has run, taken out of the list, to be joined with no lock held.
#[must_use]
pub(crate) struct ExitedThreads<T> {
    handles: Vec<JoinHandle<()>>,
    batch: Arc<Batch<T>>,
}

/// Threads that other callers are joining.
#[must_use]
pub(crate) struct Joining<T>(Vec<Arc<Batch<T>>>);

impl<T> Default for ExitingThreads<T> {
    fn default() -> Self {
        Self { threads: Vec::new(), batches: Vec::new() }
    }
}

impl<T> TrackedThread<T> {
    pub(crate) fn id(&self) -> ThreadId {
        self.handle.thread().id()
    }
}

impl<T> ExitingThreads<T> {
    pub(crate) fn add(&mut self, threads: impl IntoIterator<Item = TrackedThread<T>>) {
        self.threads.extend(threads);
    }

    /// The threads in the list. Their last code may not have run yet.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &TrackedThread<T>> {
        self.threads.iter()
    }

    /// The number of threads that are not joined.
    pub(crate) fn count(&self) -> usize {
        let joining = self.batches.iter().filter(|batch| !batch.joined.is_set());
        self.threads.len() + joining.map(|batch| batch.threads.len()).sum::<usize>()
    }

    /// Takes out the threads that have exited; `None` where there are none.
    pub(crate) fn take_exited(&mut self) -> Option<ExitedThreads<T>> {
        let (exited, threads): (Vec<_>, _) = self.threads.drain(..).partition(|thread| thread.exited.is_set());
        self.threads = threads;
        if exited.is_empty() {
            return None;
        }
        let (threads, handles) = exited.into_iter().map(|thread| (thread.owner, thread.handle)).unzip();
        let batch = Arc::new(Batch { threads, joined: Latch::new() });
        self.batches.retain(|batch| !batch.joined.is_set());
        self.batches.push(Arc::clone(&batch));
        Some(ExitedThreads { handles, batch })
    }

    /// The threads that other callers are joining.
    pub(crate) fn joining(&self) -> Joining<T> {
        Joining(self.batches.clone())
    }
}

impl<T> ExitedThreads<T> {
    pub(crate) fn join(self) {
        for handle in self.handles {
            // The panic hook has reported a panic of the thread; the result says nothing else.
            let _ = handle.join();
        }
        self.batch.joined.set();
    }
}

impl<T: Clone> Joining<T> {
    /// Waits until the threads are joined, or until the deadline. Returns the owners of the threads that are not joined
    /// by then.
    pub(crate) fn wait(&self, deadline: &Deadline) -> Vec<T> {
        let late = self.0.iter().filter(|batch| {
            // The result does not matter: the latch says whether the batch is joined.
            let _ = deadline.receive(batch.joined.receiver());
            !batch.joined.is_set()
        });
        late.flat_map(|batch| batch.threads.iter().cloned()).collect()
    }
}

/// Sets a latch when it is dropped: when its thread exits, also by a panic.
struct SetOnDrop(Arc<Latch>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

thread_local! {
    /// The first thread-local value of a thread, so the last to be dropped.
    static EXITED: RefCell<Option<SetOnDrop>> = const { RefCell::new(None) };
}

/// Sets a latch by the last of the calling thread's code: the drop of its first thread-local value, which the standard
/// library drops last. The thread calls this before it does anything else.
pub(crate) fn set_on_exit(latch: Arc<Latch>) {
    EXITED.with(|slot| *slot.borrow_mut() = Some(SetOnDrop(latch)));
}
