//! The descriptor of a service, and the notices of ended turns.
//!
//! The descriptor is readable while a *source* is ready: the events of the service, a stream, a subscription, or the
//! list of notices. The thread in `watcher.rs` marks a source as ready. A reader that empties it clears the mark, and
//! has the watcher watch it again:
//!
//! ```text
//! watcher                                 reader
//! the channel is ready
//! lock; mark; raise the descriptor; unlock
//!                                         takes the last event, sees an empty channel
//!  (an event arrives)                     lock; clear the mark; lower the descriptor; unlock; "watch it again"
//! selects again: the channel is ready, so it marks the source again
//! ```
//!
//! The reader may see the channel as empty just before an event arrives. The watcher then finds the channel ready when
//! it watches it again, because it looks for a level and not for a change. So no event is left without the descriptor
//! being raised. The other way round, the descriptor may be raised for a channel that a reader has emptied meanwhile.
//! Then the next read finds nothing and lowers it.
//!
//! Only this module reads and writes the descriptor, under its lock. A host only polls it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{unbounded, Receiver, Sender};
use parking_lot::Mutex;

use super::signals;
use super::turn::Turn;
use super::watcher::{self, Control, Watched};
use crate::codes::Failure;

/// The number of a source. Never used twice.
pub(super) type SourceId = u64;

/// The source of the notices.
const NOTICES: SourceId = 0;

/// The descriptor and its watcher.
#[derive(Debug)]
pub(super) struct Notifier {
    shared: Arc<Shared>,
    control: Mutex<Option<Sender<Control>>>,
    next_id: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The part that the watcher shares.
#[derive(Debug)]
pub(super) struct Shared {
    descriptor: Descriptor,
    state: Mutex<State>,
    /// Has a message while there may be a notice: for threads that wait for one.
    signal: (Sender<()>, Receiver<()>),
}

#[derive(Debug, Default)]
struct State {
    ready: HashSet<SourceId>,
    is_raised: bool,
    is_closed: bool,
    /// The turns that have ended, in the order in which the watcher saw it, each with the source of its end. The drop
    /// of the turn removes its entry, so that the list is no longer than that of the turns.
    notices: VecDeque<(SourceId, Weak<Turn>)>,
    /// The sources whose readiness is the end of a turn.
    ends: HashMap<SourceId, Weak<Turn>>,
}

/// A watched channel. The drop ends the watch.
#[derive(Debug)]
pub(super) struct Source {
    id: SourceId,
    /// Whether it becomes a notice.
    is_end: bool,
    notifier: Arc<Notifier>,
}

impl Notifier {
    /// Opens the descriptor and starts the watcher.
    pub(super) fn start() -> Result<Arc<Self>, Failure> {
        let shared = Arc::new(Shared {
            descriptor: Descriptor::open()?,
            state: Mutex::default(),
            signal: crossbeam_channel::bounded(1),
        });
        let (control, messages) = unbounded();
        let of_thread = Arc::clone(&shared);
        let _blocked = signals::block_all();
        let thread = Builder::new().name("turnwise-watch".into()).spawn(move || watcher::run(&messages, &of_thread))?;
        Ok(Arc::new(Self {
            shared,
            control: Mutex::new(Some(control)),
            next_id: AtomicU64::new(NOTICES + 1),
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// The descriptor to poll.
    pub(super) fn descriptor(&self) -> RawFd {
        self.shared.descriptor.number()
    }

    fn send(&self, message: Control) {
        if let Some(control) = &*self.control.lock() {
            // The watcher ends only when the sender is dropped.
            let _ = control.send(message);
        }
    }

    /// Watches a channel.
    pub(super) fn watch(self: &Arc<Self>, watched: Watched) -> Source {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.send(Control::Watch(id, watched));
        Source { id, is_end: false, notifier: Arc::clone(self) }
    }

    /// Watches for the end of a turn, which becomes a notice.
    pub(super) fn watch_end(self: &Arc<Self>, turn: &Arc<Turn>) -> Source {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.shared.state.lock().ends.insert(id, Arc::downgrade(turn));
        self.send(Control::Watch(id, Watched::Finished(turn.finished())));
        Source { id, is_end: true, notifier: Arc::clone(self) }
    }

    /// The oldest notice, which stays in the list. Notices of closed turns are removed.
    pub(super) fn first_notice(&self) -> Option<Arc<Turn>> {
        // Declared before the guard, so dropped after it: the drop of the last share of a turn takes the same lock.
        let mut rejected = Vec::new();
        let mut state = self.shared.state.lock();
        loop {
            let turn = state.notices.front()?.1.upgrade();
            match turn {
                Some(turn) if !turn.closed.is_set() => return Some(turn),
                turn => {
                    rejected.extend(turn);
                    self.shared.remove_first(&mut state);
                }
            }
        }
    }

    /// Removes the oldest notice.
    pub(super) fn remove_notice(&self) {
        self.shared.remove_first(&mut self.shared.state.lock());
    }

    /// The number of notices.
    #[cfg(test)]
    pub(super) fn notices(&self) -> usize {
        self.shared.state.lock().notices.len()
    }

    /// Waits until there are as many notices.
    #[cfg(test)]
    pub(super) fn wait_for_notices(&self, count: usize) {
        while self.notices() < count {
            std::thread::yield_now();
        }
    }

    /// Has a message while there may be a notice.
    pub(super) fn notice_signal(&self) -> &Receiver<()> {
        &self.shared.signal.1
    }

    /// Ends the watcher, and leaves the descriptor readable, so that a poll returns.
    pub(super) fn close(&self) {
        {
            let mut state = self.shared.state.lock();
            state.is_closed = true;
            self.shared.update(&mut state);
        }
        drop(self.control.lock().take());
    }

    /// Waits for the end of the watcher, which runs no code of the host, after [`close`](Self::close).
    pub(super) fn join(&self) {
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // It does not panic.
            let _ = thread.join();
        }
    }
}

impl Source {
    /// Called after a read. `is_empty`: whether the channel was empty afterwards.
    pub(super) fn after_read(&self, is_empty: bool) {
        if is_empty && self.notifier.shared.clear(self.id) {
            self.notifier.send(Control::Rearm(self.id));
        }
    }

    /// Watches another channel from now on.
    pub(super) fn watch_instead(&self, watched: Watched) {
        self.notifier.shared.clear(self.id);
        self.notifier.send(Control::Watch(self.id, watched));
    }

    /// Ends the watch: the channel has ended, and its reader knows.
    pub(super) fn end(&self) {
        self.notifier.shared.clear(self.id);
        self.notifier.send(Control::Forget(self.id));
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if self.is_end {
            let shared = &self.notifier.shared;
            let mut state = shared.state.lock();
            if state.ends.remove(&self.id).is_none() {
                // Hosts mostly close the oldest first, which is found at once.
                if let Some(index) = state.notices.iter().position(|(id, _)| *id == self.id) {
                    state.notices.remove(index);
                    shared.after_removal(&mut state);
                }
            }
        }
        self.end();
    }
}

impl Shared {
    /// Marks a source as ready. The end of a turn becomes a notice instead.
    pub(super) fn set_ready(&self, id: SourceId) {
        let mut state = self.state.lock();
        if let Some(turn) = state.ends.remove(&id) {
            state.notices.push_back((id, turn));
            state.ready.insert(NOTICES);
            // Full: the signal is there already.
            let _ = self.signal.0.try_send(());
        } else {
            state.ready.insert(id);
        }
        self.update(&mut state);
    }

    /// Marks a source as not ready. Returns whether it was.
    pub(super) fn clear(&self, id: SourceId) -> bool {
        let mut state = self.state.lock();
        let was_ready = state.ready.remove(&id);
        self.update(&mut state);
        was_ready
    }

    fn remove_first(&self, state: &mut State) {
        state.notices.pop_front();
        self.after_removal(state);
    }

    /// Takes the mark and the signal back with the last notice.
    fn after_removal(&self, state: &mut State) {
        if state.notices.is_empty() {
            state.ready.remove(&NOTICES);
            let _ = self.signal.1.try_recv();
            self.update(state);
        }
    }

    fn update(&self, state: &mut State) {
        let should_be_raised = state.is_closed || !state.ready.is_empty();
        if should_be_raised != state.is_raised {
            state.is_raised = should_be_raised;
            if should_be_raised {
                self.descriptor.raise()
            } else {
                self.descriptor.lower()
            }
        }
    }
}

/// A descriptor that is readable while it is raised. Close-on-exec and non-blocking.
#[derive(Debug)]
struct Descriptor {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    event: std::os::fd::OwnedFd,
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pipe: (std::os::fd::OwnedFd, std::os::fd::OwnedFd),
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Descriptor {
    fn open() -> Result<Self, Failure> {
        use rustix::event::{eventfd, EventfdFlags};
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(std::io::Error::from)?;
        Ok(Self { event })
    }

    fn number(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// The counter is 0 before and 1 afterwards, so the write neither blocks nor fails.
    fn raise(&self) {
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// The counter is 1 before, so the read neither blocks nor fails.
    fn lower(&self) {
        let _ = rustix::io::read(&self.event, &mut [0_u8; 8]);
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Descriptor {
    fn open() -> Result<Self, Failure> {
        use rustix::fs::{fcntl_getfl, fcntl_setfl, OFlags};
        use rustix::io::{fcntl_setfd, FdFlags};
        let prepare = || -> rustix::io::Result<_> {
            let (read, write) = rustix::pipe::pipe()?;
            for end in [&read, &write] {
                fcntl_setfd(end, FdFlags::CLOEXEC)?;
                fcntl_setfl(end, fcntl_getfl(end)? | OFlags::NONBLOCK)?;
            }
            Ok((read, write))
        };
        Ok(Self { pipe: prepare().map_err(std::io::Error::from)? })
    }

    fn number(&self) -> RawFd {
        self.pipe.0.as_raw_fd()
    }

    /// The pipe is empty before, so the write does not block.
    fn raise(&self) {
        let _ = rustix::io::write(&self.pipe.1, &[1]);
    }

    /// The pipe has one byte, so the read does not block.
    fn lower(&self) {
        let _ = rustix::io::read(&self.pipe.0, &mut [0_u8; 1]);
    }
}
