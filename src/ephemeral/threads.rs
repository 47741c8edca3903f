//! The session threads of a service, so that a shutdown can see every one of them off.
//!
//! Nobody waits for a session that ends by itself, but its thread has to be joined: only then is it certain that none of its
//! code runs any more, thread-local destructors included. So a thread that ends leaves its handle behind, and the next to
//! start or to end joins those that have gone. It never waits for one: each thread says when it is as good as gone, by the
//! drop of its first thread-local value, which is the last that the standard library drops. One whose own thread-local
//! values block as they go stays in the list, and in nobody's way.
//!
//! **Invariant.** Every thread's handle is in [`Threads::state`], as running or as ending, or in the hands of one who joins it.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io;

use crate::panics::contain_and_log;
use crate::sync::{current, thread_local, Arc, Builder, Instant, JoinHandle, Mutex, ThreadId};
use crate::wait::latch::Latch;
use crate::wait::own_thread::WaitKey;

#[derive(Debug, Default)]
pub(crate) struct Threads {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: HashMap<WaitKey, Thread>,
    /// Those that have nothing left to do but to go.
    ending: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    handle: JoinHandle<()>,
    /// Set by the last of the thread's code.
    gone: Arc<Latch>,
}

/// What a thread is called and how large its stack is.
pub(crate) struct ThreadSpec {
    pub(crate) name: String,
    pub(crate) stack_size: Option<usize>,
}

impl Threads {
    /// Runs `life` on a thread of its own.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        key: WaitKey,
        spec: ThreadSpec,
        life: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        self.join_gone();
        let mut builder = Builder::new().name(spec.name);
        if let Some(bytes) = spec.stack_size {
            builder = builder.stack_size(bytes);
        }
        // Kept here too: where there is no thread, `life` is dropped with its user's values, and not under the lock.
        let life = Arc::new(Mutex::new(Some(life)));
        let gone = Arc::new(Latch::new());
        let on_thread = {
            let (threads, life, gone) = (Arc::clone(self), Arc::clone(&life), Arc::clone(&gone));
            move || {
                GONE.with(|slot| *slot.borrow_mut() = Some(SetOnDrop(gone)));
                let end = EndOnDrop { threads, key };
                let own_life = life.lock().take();
                drop(life);
                if let Some(life) = own_life {
                    life();
                }
                drop(end);
            }
        };
        let spawned = {
            // Locked over the spawn, so that a thread that ends at once finds its own handle.
            let mut state = self.state.lock();
            let spawned = builder.spawn(on_thread);
            spawned.map(|handle| drop(state.running.insert(key, Thread { handle, gone })))
        };
        contain_and_log("the drop of a session that got no thread", move || drop(life));
        spawned
    }

    /// Joins every thread but those of `except`, and this one. Those others have ended their sessions; one that has not gone
    /// by `deadline` is left to the next call.
    pub(crate) fn join_all_but(&self, except: &HashSet<WaitKey>, deadline: Instant) {
        let own = current().id();
        let leaving: Vec<Thread> = {
            let mut state = self.state.lock();
            let running = state.running.iter().filter(|(key, thread)| !except.contains(key) && !thread.is(own));
            let keys: Vec<WaitKey> = running.map(|(key, _)| *key).collect();
            let (own, mut leaving): (Vec<_>, Vec<_>) = state.ending.drain(..).partition(|thread| thread.is(own));
            state.ending = own;
            leaving.extend(keys.iter().filter_map(|key| state.running.remove(key)));
            leaving
        };
        for thread in leaving {
            // Disconnected or not in time: the latch knows.
            let _ = thread.gone.receiver().recv_deadline(deadline);
            if thread.gone.is_set() {
                thread.join();
            } else {
                self.state.lock().ending.push(thread);
            }
        }
    }

    /// Joins the threads that have gone, without waiting for any.
    fn join_gone(&self) {
        let gone: Vec<Thread> = {
            let mut state = self.state.lock();
            if state.ending.is_empty() {
                return;
            }
            let (gone, ending) = state.ending.drain(..).partition(|thread| thread.gone.is_set());
            state.ending = ending;
            gone
        };
        gone.into_iter().for_each(Thread::join);
    }
}

impl Thread {
    fn is(&self, id: ThreadId) -> bool {
        self.handle.thread().id() == id
    }

    fn join(self) {
        // A thread that panicked has been reported by the panic hook; there is nothing else to learn from it.
        let _ = self.handle.join();
    }
}

thread_local! {
    /// The first thread-local value of a session's thread, and so the last to be dropped.
    static GONE: RefCell<Option<SetOnDrop>> = const { RefCell::new(None) };
}

struct SetOnDrop(Arc<Latch>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Notes the end of a thread, also where a panic ends it.
struct EndOnDrop {
    threads: Arc<Threads>,
    key: WaitKey,
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        {
            let mut state = self.threads.state.lock();
            // Not there where a shutdown is about to join this thread.
            let own = state.running.remove(&self.key);
            state.ending.extend(own);
        }
        self.threads.join_gone();
    }
}
