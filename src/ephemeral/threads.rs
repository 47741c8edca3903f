//! The session threads of a service, tracked so that a shutdown can wait for all of them.
//!
//! A live session has a thread to itself. After its session has ended, a thread may wait for another session, which is
//! cheaper than a new thread. Up to `idle_threads` threads wait.
//!
//! No caller waits for a session that ends by itself, but its thread must be joined. Only then is it certain that none
//! of its code runs any more, thread-local destructors included. So a thread that ends adds its join handle to a list,
//! and the next thread or caller that uses the list joins the exited threads. It does not wait: each thread sets a
//! latch by the last of its code ([`set_on_exit`]). A thread that blocks in a thread-local destructor stays in the
//! list, and delays no other.
//!
//! **Invariant.** Every thread is in [`Threads::state`]: as running, as ending, or as being joined.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::time::Duration;

use crate::exiting_threads::{set_on_exit, ExitingThreads, TrackedThread};
use crate::model::SessionId;
use crate::panics::contain_and_log;
use crate::reentrancy::WaitKey;
use crate::sync::{bounded, current, room_for_a_thread, Arc, Builder, Mutex, Sender};
use crate::time::clock::Deadline;
use crate::wait::latch::Latch;
use crate::wait::polling;

/// How long a thread waits for another session, always by the system's clock. The end of an idle thread has no effect
/// that a caller could observe.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The work of a thread for one session.
type Life = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
pub(crate) struct Threads {
    /// How many threads may wait for another session.
    max_idle: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By thread number; sorted, so that operations on all threads take the same order every time.
    running: BTreeMap<u64, TrackedThread<Owner>>,
    /// The threads that wait for another session. The last to arrive is used first, since its caches are the warmest.
    idle: Vec<(u64, Sender<Life>)>,
    ending: ExitingThreads<Owner>,
    next_number: u64,
    /// Whether no thread may wait for another session any more.
    closed: bool,
}

/// The session that a thread serves, or has served last.
type Owner = (WaitKey, SessionId);

/// The name and the stack size of a new thread.
pub(crate) struct ThreadSpec {
    pub(crate) name: String,
    pub(crate) stack_size: Option<usize>,
}

impl Threads {
    pub(crate) fn new(max_idle: usize) -> Arc<Self> {
        Arc::new(Self { max_idle, state: Mutex::default() })
    }

    /// Runs `life` on an idle thread, or on a new one.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        session: Owner,
        spec: ThreadSpec,
        life: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        self.join_exited();
        let life: Life = Box::new(life);
        match self.take_idle(session) {
            Some(idle) => {
                // The idle thread waits for this message for as long as it takes.
                drop(idle.send(life));
                Ok(())
            }
            None => self.spawn_new(session, spec, life),
        }
    }

    fn take_idle(&self, session: Owner) -> Option<Sender<Life>> {
        let mut state = self.state.lock();
        let (number, idle) = state.idle.pop()?;
        if let Some(thread) = state.running.get_mut(&number) {
            thread.owner = session;
        }
        Some(idle)
    }

    fn spawn_new(self: &Arc<Self>, session: Owner, spec: ThreadSpec, life: Life) -> io::Result<()> {
        let mut builder = Builder::new().name(spec.name);
        if let Some(bytes) = spec.stack_size {
            builder = builder.stack_size(bytes);
        }
        // Shared with this call: if there is no thread, `life` is dropped here, with the user's values, outside the
        // lock.
        let life = Arc::new(Mutex::new(Some(life)));
        let exited = Arc::new(Latch::new());
        let (threads, first, own_exited) = (Arc::clone(self), Arc::clone(&life), Arc::clone(&exited));
        let spawned = room_for_a_thread().and_then(|()| {
            // Locked during the spawn, so that a thread that ends at once finds its own handle.
            let mut state = self.state.lock();
            let number = state.next_number;
            let spawned = builder.spawn(move || {
                set_on_exit(own_exited);
                let end = EndOnDrop { threads, number };
                let mut life = first.lock().take();
                drop(first);
                while let Some(this) = life {
                    this();
                    life = end.threads.next_life(number);
                }
            });
            spawned.map(|handle| {
                state.next_number += 1;
                drop(state.running.insert(number, TrackedThread { owner: session, handle, exited }));
            })
        });
        contain_and_log("the drop of a session that got no thread", move || drop(life));
        spawned
    }

    /// Waits for another session for thread `number`. Returns `None` if the thread must end.
    fn next_life(&self, number: u64) -> Option<Life> {
        let (sender, next) = bounded(1);
        {
            let mut state = self.state.lock();
            if state.closed || state.idle.len() >= self.max_idle {
                return None;
            }
            state.idle.push((number, sender));
        }
        // A caller that archives one session often creates the next at once.
        polling::poll_for_work(|| !next.is_empty());
        match next.recv_timeout(KEEP_ALIVE) {
            Ok(life) => Some(life),
            Err(error) if error.is_disconnected() => None,
            Err(_) => {
                let place = {
                    let mut state = self.state.lock();
                    let place = state.idle.iter().position(|(other, _)| *other == number);
                    place.map(|place| state.idle.remove(place))
                };
                match place {
                    Some(_) => None,
                    // Taken at the moment of the timeout: the session will arrive.
                    None => next.recv().ok(),
                }
            }
        }
    }

    /// Ends the threads that wait for another session, now and from now on, without waiting for them.
    pub(crate) fn close(&self) {
        let idle = {
            let mut state = self.state.lock();
            state.closed = true;
            std::mem::take(&mut state.idle)
        };
        drop(idle);
    }

    /// Waits until `deadline` for every thread to exit, except those of `except` and this one, and joins them. Returns
    /// the sessions of the threads that have not exited. Call [`close`](Self::close) first. Several threads may call
    /// this at once.
    pub(crate) fn join_all_but(&self, except: &HashSet<WaitKey>, deadline: &Deadline) -> Vec<SessionId> {
        let own = current().id();
        let leaving: Vec<(SessionId, Arc<Latch>)> = {
            let state = self.state.lock();
            let running = state.running.values().filter(|thread| !except.contains(&thread.owner.0));
            let leaving = running.chain(state.ending.iter()).filter(|thread| thread.id() != own);
            leaving.map(|thread| (thread.owner.1, Arc::clone(&thread.exited))).collect()
        };
        let late = leaving.into_iter().filter(|(_, exited)| {
            // The latch has the outcome, also if the wait timed out.
            let _ = deadline.receive(exited.receiver());
            !exited.is_set()
        });
        let mut late: Vec<SessionId> = late.map(|(session, _)| session).collect();
        self.join_exited();
        let joining = self.state.lock().ending.joining();
        late.extend(joining.wait(deadline).into_iter().map(|(_, session)| session));
        late
    }

    /// How many threads there are.
    pub(crate) fn count(&self) -> usize {
        self.join_exited();
        let state = self.state.lock();
        state.running.len() + state.ending.count()
    }

    /// Joins the threads that have exited, without waiting for any.
    fn join_exited(&self) {
        let exited = self.state.lock().ending.take_exited();
        if let Some(exited) = exited {
            exited.join();
        }
    }
}

/// Records the end of a thread. If a panic ends it, it serves no other session.
struct EndOnDrop {
    threads: Arc<Threads>,
    number: u64,
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        {
            let mut state = self.threads.state.lock();
            let own = state.running.remove(&self.number);
            state.ending.add(own);
        }
        self.threads.join_exited();
    }
}
