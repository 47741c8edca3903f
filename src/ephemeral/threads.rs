//! The session threads of a service, so that a shutdown can see every one of them off.
//!
//! The system keeps a thread's stack until somebody joins the thread, and nobody waits for a session that ends by itself.
//! So the ending threads join each other: the last thing that one does is to leave its own join handle behind and to join
//! the thread whose handle it found there. At most one ended thread is unjoined at any time, and joining it joins all.
//!
//! **Invariant.** Every thread's handle is in [`Threads::state`], as `running` or as `last`, or in the hands of the one who
//! joins it.

use std::collections::{HashMap, HashSet};
use std::io;

use crate::sync::{Arc, Builder, JoinHandle, Mutex};
use crate::wait::own_thread::WaitKey;

#[derive(Debug, Default)]
pub(crate) struct Threads {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: HashMap<WaitKey, JoinHandle<()>>,
    /// The thread that ended last; it joins the one before it.
    last: Option<JoinHandle<()>>,
}

impl Threads {
    /// Runs `life` on a thread of its own.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        key: WaitKey,
        name: String,
        stack_size: Option<usize>,
        life: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let mut builder = Builder::new().name(name);
        if let Some(bytes) = stack_size {
            builder = builder.stack_size(bytes);
        }
        let threads = Arc::clone(self);
        // Over the spawn, so that a thread that ends at once finds its own handle.
        let mut state = self.state.lock();
        let thread = builder.spawn(move || {
            let end = LeaveOnDrop { threads, key };
            life();
            drop(end);
        })?;
        state.running.insert(key, thread);
        Ok(())
    }

    /// Joins every thread but those of `except`. The others have ended, or have nothing left to do but that.
    pub(crate) fn join_all_but(&self, except: &HashSet<WaitKey>) {
        let ending: Vec<JoinHandle<()>> = {
            let mut state = self.state.lock();
            let keys: Vec<WaitKey> = state.running.keys().filter(|key| !except.contains(key)).copied().collect();
            let ending: Vec<_> = keys.iter().filter_map(|key| state.running.remove(key)).collect();
            ending.into_iter().chain(state.last.take()).collect()
        };
        ending.into_iter().for_each(join);
    }
}

/// Ends a thread's membership, also where a panic ends the thread.
struct LeaveOnDrop {
    threads: Arc<Threads>,
    key: WaitKey,
}

impl Drop for LeaveOnDrop {
    fn drop(&mut self) {
        let before = {
            let mut state = self.threads.state.lock();
            // Gone already where a shutdown is joining this thread.
            let Some(own) = state.running.remove(&self.key) else { return };
            state.last.replace(own)
        };
        if let Some(before) = before {
            join(before);
        }
    }
}

fn join(thread: JoinHandle<()>) {
    // A thread that panicked has been reported by the panic hook; there is nothing else to learn from it.
    let _ = thread.join();
}
