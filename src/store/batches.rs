//! Many who write share one write to the disk.
//!
//! Whoever has something to write puts it into the batch that is being collected, and waits for the right to write. The first to
//! get it takes that batch along, with all that has been put there meanwhile, and leaves the results with it. The others get
//! the right one after the other, see that theirs has been written, and give it on.
//!
//! A batch is taken by whoever has the right to write, and has its results before the right goes on. So one without results is
//! the one that is being collected still.

use crate::sync::{Arc, Mutex};

/// Things to write, and the right to write them.
#[derive(Debug)]
pub(crate) struct Batches<T, R> {
    collecting: Mutex<Batch<T, R>>,
    /// Held while the disk is written to.
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

    /// Writes an item, alone or with others; `write` gives a result for each, in order. `None` where it gives too few.
    pub(crate) fn write(&self, item: T, write: impl FnOnce(&[T]) -> Vec<R>) -> Option<R> {
        let (place, results) = {
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
        results.as_ref().and_then(|results| results.get(place).cloned())
    }

    /// Writes something that is no part of a batch.
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
