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

use crate::model::SessionId;
use crate::panics::contain_and_log;
use crate::sync::{current, thread_local, Arc, Builder, Instant, JoinHandle, Mutex};
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
    session: SessionId,
    handle: JoinHandle<()>,
    /// Set by the last of the thread's code.
    gone: Arc<Latch>,
}

/// Whose a thread is, what it is called and how large its stack is.
pub(crate) struct ThreadSpec {
    pub(crate) session: SessionId,
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
            spawned.map(|handle| drop(state.running.insert(key, Thread { session: spec.session, handle, gone })))
        };
        contain_and_log("the drop of a session that got no thread", move || drop(life));
        spawned
    }

    /// Waits until `deadline` for every thread to go, but for those of `except` and for this one, and joins them. Returns
    /// whose have not gone. May be called by several threads at once.
    pub(crate) fn join_all_but(&self, except: &HashSet<WaitKey>, deadline: Instant) -> Vec<SessionId> {
        let own = current().id();
        let leaving: Vec<(SessionId, Arc<Latch>)> = {
            let state = self.state.lock();
            let running = state.running.iter().filter(|(key, _)| !except.contains(key)).map(|(_, thread)| thread);
            let leaving = running.chain(&state.ending).filter(|thread| thread.handle.thread().id() != own);
            leaving.map(|thread| (thread.session, Arc::clone(&thread.gone))).collect()
        };
        let late = leaving.into_iter().filter(|(_, gone)| {
            // Disconnected or not in time: the latch knows.
            let _ = gone.receiver().recv_deadline(deadline);
            !gone.is_set()
        });
        let late = late.map(|(session, _)| session).collect();
        self.join_gone();
        late
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
        for thread in gone {
            // A thread that panicked has been reported by the panic hook; there is nothing else to learn from it.
            let _ = thread.handle.join();
        }
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
            let own = state.running.remove(&self.key);
            state.ending.extend(own);
        }
        self.threads.join_gone();
    }
}
