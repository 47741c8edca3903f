//! The session threads of a service, tracked so that a shutdown can wait for all of them.
//!
//! A session has a thread of its own while it lives. Up to `idle_threads` threads whose session has ended wait for another one, which is
//! cheaper than a new thread.
//!
//! No caller waits for a session that ends by itself, but its thread has to be joined: only then is it certain that none of its
//! code runs any more, thread-local destructors included. So a thread that ends leaves its handle behind, and the next thread or caller that
//! comes here joins the exited ones. It waits for none of them: each thread sets a latch by the last of its code ([`set_on_exit`]). A
//! thread that blocks in a thread-local destructor stays in the list, and delays no other.
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

/// How long a thread without a session waits for another one: by the system's clock, whatever the service's is. That it ends
/// changes nothing that anybody sees.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What a thread does for one session.
type Life = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
pub(crate) struct Threads {
    /// How many may wait for another session.
    max_idle: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By a number of their own; sorted, so that what is done for all of them is done in the same order every time.
    running: BTreeMap<u64, TrackedThread<Served>>,
    /// Those that wait for another session, last come first served: the ones that have not waited long are the warmest.
    idle: Vec<(u64, Sender<Life>)>,
    ending: ExitingThreads<Served>,
    next_number: u64,
    /// Whether nobody is to wait for another session any more.
    closed: bool,
}

/// Whom a thread serves, or has served last.
type Served = (WaitKey, SessionId);

/// What a new thread is called and how large its stack is.
pub(crate) struct ThreadSpec {
    pub(crate) name: String,
    pub(crate) stack_size: Option<usize>,
}

impl Threads {
    pub(crate) fn new(max_idle: usize) -> Arc<Self> {
        Arc::new(Self { max_idle, state: Mutex::default() })
    }

    /// Runs `life` on a thread of its own: one that waits for a session, or a new one.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        session: (WaitKey, SessionId),
        spec: ThreadSpec,
        life: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        self.join_exited();
        let life: Life = Box::new(life);
        match self.take_idle(session) {
            Some(idle) => {
                // It waits for exactly this, and for as long as it takes.
                drop(idle.send(life));
                Ok(())
            }
            None => self.spawn_new(session, spec, life),
        }
    }

    fn take_idle(&self, session: (WaitKey, SessionId)) -> Option<Sender<Life>> {
        let mut state = self.state.lock();
        let (number, idle) = state.idle.pop()?;
        if let Some(thread) = state.running.get_mut(&number) {
            thread.owner = session;
        }
        Some(idle)
    }

    fn spawn_new(self: &Arc<Self>, session: (WaitKey, SessionId), spec: ThreadSpec, life: Life) -> io::Result<()> {
        let mut builder = Builder::new().name(spec.name);
        if let Some(bytes) = spec.stack_size {
            builder = builder.stack_size(bytes);
        }
        // Kept here too: where there is no thread, `life` is dropped with its user's values, and not under the lock.
        let life = Arc::new(Mutex::new(Some(life)));
        let exited = Arc::new(Latch::new());
        let (threads, first, own_exited) = (Arc::clone(self), Arc::clone(&life), Arc::clone(&exited));
        let spawned = room_for_a_thread().and_then(|()| {
            // Locked over the spawn, so that a thread that ends at once finds its own handle.
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

    /// Waits for another session for thread `number`; `None` where it is to end.
    fn next_life(&self, number: u64) -> Option<Life> {
        let (sender, next) = bounded(1);
        {
            let mut state = self.state.lock();
            if state.closed || state.idle.len() >= self.max_idle {
                return None;
            }
            state.idle.push((number, sender));
        }
        // Who archives one session often creates the next at once.
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
                    // Taken in the same instant: the session is on its way.
                    None => next.recv().ok(),
                }
            }
        }
    }

    /// Has threads end that wait for another session, now and from now on. Waits for none.
    pub(crate) fn close(&self) {
        let idle = {
            let mut state = self.state.lock();
            state.closed = true;
            std::mem::take(&mut state.idle)
        };
        drop(idle);
    }

    /// Waits until `deadline` for every thread to go, but for those of `except` and for this one, and joins them. Returns
    /// whose have not exited. May be called by several threads at once; [`close`](Self::close) comes first.
    pub(crate) fn join_all_but(&self, except: &HashSet<WaitKey>, deadline: &Deadline) -> Vec<SessionId> {
        let own = current().id();
        let leaving: Vec<(SessionId, Arc<Latch>)> = {
            let state = self.state.lock();
            let running = state.running.values().filter(|thread| !except.contains(&thread.owner.0));
            let leaving = running.chain(state.ending.iter()).filter(|thread| thread.id() != own);
            leaving.map(|thread| (thread.owner.1, Arc::clone(&thread.exited))).collect()
        };
        let late = leaving.into_iter().filter(|(_, exited)| {
            // Disconnected or not in time: the latch knows.
            let _ = deadline.receive(exited.receiver());
            !exited.is_set()
        });
        let mut late: Vec<SessionId> = late.map(|(session, _)| session).collect();
        self.join_exited();
        let joining = self.state.lock().ending.joining();
        late.extend(joining.wait(deadline).into_iter().map(|(_, session)| session));
        late
    }

    /// How many there are.
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

/// Notes the end of a thread, also where a panic ends it: then it serves nobody else.
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
