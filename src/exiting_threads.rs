//! Threads whose work is done, until they are joined.
//!
//! A host that unloads the code that it runs has to know that a thread is gone, thread-local destructors included. No thread waits for that,
//! except a shutdown: each thread sets a latch by the last of its code, and the next caller that comes by joins those whose latch is set.
//! A caller joins with no lock held, so it takes the handles out of the list first. Meanwhile another caller that looks into the list, to
//! wait for every thread, must not conclude that these are gone. So a thread stays counted until it is joined.

use std::cell::RefCell;

use crate::sync::{thread_local, Arc, JoinHandle, ThreadId};
use crate::time::clock::Deadline;
use crate::wait::latch::Latch;

/// A thread that will be joined, while it works and after.
#[derive(Debug)]
pub(crate) struct TrackedThread<T> {
    /// What the thread works for.
    pub(crate) of: T,
    pub(crate) handle: JoinHandle<()>,
    /// Set by the last of the thread's code; see [`set_on_exit`].
    pub(crate) exited: Arc<Latch>,
}

/// The threads that have ended their work and are not joined.
#[derive(Debug)]
pub(crate) struct ExitingThreads<T> {
    threads: Vec<TrackedThread<T>>,
    /// The threads that another caller is joining.
    batches: Vec<Arc<Batch<T>>>,
}

#[derive(Debug)]
struct Batch<T> {
    threads: Vec<T>,
    joined: Latch,
}

/// Threads whose last code has run, taken out of the list: to be joined with no lock held.
#[must_use]
pub(crate) struct ExitedThreads<T> {
    handles: Vec<JoinHandle<()>>,
    batch: Arc<Batch<T>>,
}

/// Threads that another caller is joining.
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

    /// Those whose last code has not run, as far as this list knows.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &TrackedThread<T>> {
        self.threads.iter()
    }

    /// How many have not been joined.
    pub(crate) fn count(&self) -> usize {
        let joining = self.batches.iter().filter(|batch| !batch.joined.is_set());
        self.threads.len() + joining.map(|batch| batch.threads.len()).sum::<usize>()
    }

    /// Takes those out that have gone; `None` where there are none.
    pub(crate) fn take_exited(&mut self) -> Option<ExitedThreads<T>> {
        let (gone, threads): (Vec<_>, _) = self.threads.drain(..).partition(|thread| thread.exited.is_set());
        self.threads = threads;
        if gone.is_empty() {
            return None;
        }
        let (threads, handles) = gone.into_iter().map(|thread| (thread.of, thread.handle)).unzip();
        let batch = Arc::new(Batch { threads, joined: Latch::new() });
        self.batches.retain(|batch| !batch.joined.is_set());
        self.batches.push(Arc::clone(&batch));
        Some(ExitedThreads { handles, batch })
    }

    /// Those that are being joined, by whomever.
    pub(crate) fn joining(&self) -> Joining<T> {
        Joining(self.batches.clone())
    }
}

impl<T> ExitedThreads<T> {
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

/// Sets a latch when it is dropped: when its thread exits, also by a panic.
struct SetOnDrop(Arc<Latch>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

thread_local! {
    /// The first thread-local value of a thread, and so the last to be dropped.
    static EXITED: RefCell<Option<SetOnDrop>> = const { RefCell::new(None) };
}

/// Sets a latch by the last of the calling thread's code: the drop of its first thread-local value, which is the last that the
/// standard library drops. To be called before the thread does anything else.
pub(crate) fn set_on_exit(latch: Arc<Latch>) {
    EXITED.with(|slot| *slot.borrow_mut() = Some(SetOnDrop(latch)));
}
