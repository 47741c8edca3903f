//! Group commit: several callers share one write to the disk.
//!
//! A caller adds its item to the batch that is being collected, then waits for the write lock. The first caller to get
//! the lock takes the whole batch, writes it, and stores the results in it. Each of the others gets the lock later,
//! finds the results of its batch, and releases the lock.
//!
//! **Invariant.** A batch is taken only under the write lock, and has its results before the lock is released. So a
//! batch without results, seen under the lock, is the one that is being collected.

use crate::sync::{Arc, Mutex};

/// Items to write, and the write lock.
#[derive(Debug)]
pub(crate) struct Batches<T, R> {
    collecting: Mutex<Batch<T, R>>,
    /// Held during a write to the disk.
    writing: Mutex<()>,
}

#[derive(Debug)]
struct Batch<T, R> {
    items: Vec<T>,
    results: Arc<Mutex<Option<Vec<R>>>>,
}

impl<T, R: Clone> Batches<T, R> {
    pub(crate) fn new() -> Self {
        Self { collecting: Mutex::new(Batch::new()), writing: Mutex::new(()) }
    }

    /// Writes an item, alone or with others. `write` returns one result for each item, in order. Returns `None` if it
    /// returns too few.
    pub(crate) fn write(&self, item: T, write: impl FnOnce(&[T]) -> Vec<R>) -> Option<R> {
        let (index, results) = {
            let mut batch = self.collecting.lock();
            batch.items.push(item);
            (batch.items.len() - 1, Arc::clone(&batch.results))
        };
        let writing = self.writing.lock();
        if results.lock().is_none() {
            let batch = std::mem::replace(&mut *self.collecting.lock(), Batch::new());
            let written = write(&batch.items);
            *results.lock() = Some(written);
        }
        drop(writing);
        let results = results.lock();
        results.as_ref().and_then(|results| results.get(index).cloned())
    }

    /// Runs a write that is not part of a batch, under the write lock.
    pub(crate) fn alone<O>(&self, write: impl FnOnce() -> O) -> O {
        let _writing = self.writing.lock();
        write()
    }
}

impl<T, R> Batch<T, R> {
    fn new() -> Self {
        Self { items: Vec::new(), results: Arc::new(Mutex::new(None)) }
    }
}
