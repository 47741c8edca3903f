//! Channels for model checking: the part of crossbeam's interface that this crate uses, with one lock per channel.
//!
//! Their primitives come from the parent module (`super`). So the same file is checked against crossbeam on real
//! threads, runs whole services under shuttle, and single protocols under loom. `arms` contains the waiting, for one
//! channel or several.
//!
//! A channel without capacity carries no message here: the crate uses such channels only for their disconnection.

// Public in the crate's interface where this replaces crossbeam.
#![allow(unreachable_pub, missing_docs, clippy::len_without_is_empty)]
// The loom models do not use all of it.
#![cfg_attr(turnwise_loom, allow(dead_code))]

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

use super::arms::{Arms, RecvArm, SendArm};
use super::raw::{current, Thread};
use super::{Instant, Mutex};

/// See `crossbeam_channel::Sender`.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// See `crossbeam_channel::Receiver`.
pub struct Receiver<T> {
    source: Source<T>,
}

enum Source<T> {
    Channel(Arc<Shared<T>>),
    /// One message, at a given time.
    At(Arc<Timer<T>>),
    Never,
}

struct Timer<T> {
    due: Instant,
    message: fn(Instant) -> T,
    taken: Mutex<bool>,
}

struct Shared<T> {
    capacity: Option<usize>,
    state: Mutex<State<T>>,
}

struct State<T> {
    items: VecDeque<T>,
    senders: usize,
    receivers: usize,
    waiting: Vec<Thread>,
}

/// A channel with room for `capacity` messages.
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    channel(Some(capacity))
}

/// A channel with room for all messages.
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    channel(None)
}

/// A channel that never becomes ready.
pub fn never<T>() -> Receiver<T> {
    Receiver { source: Source::Never }
}

/// A channel that gets one message, at `due`.
pub fn at(due: Instant) -> Receiver<Instant> {
    let timer = Timer { due, message: |due| due, taken: Mutex::new(false) };
    Receiver { source: Source::At(Arc::new(timer)) }
}

fn channel<T>(capacity: Option<usize>) -> (Sender<T>, Receiver<T>) {
    let state = State { items: VecDeque::new(), senders: 1, receivers: 1, waiting: Vec::new() };
    let shared = Arc::new(Shared { capacity, state: Mutex::new(state) });
    (Sender { shared: Arc::clone(&shared) }, Receiver { source: Source::Channel(shared) })
}

impl<T> Shared<T> {
    /// Changes the state, and wakes the threads that wait for a change. `None` if nothing was changed.
    fn change<R>(&self, change: impl FnOnce(&mut State<T>) -> Option<R>) -> Option<R> {
        let (result, waiting) = {
            let mut state = self.state.lock();
            let result = change(&mut state)?;
            (result, std::mem::take(&mut state.waiting))
        };
        for thread in waiting {
            thread.unpark();
        }
        Some(result)
    }

    /// Registers this thread to be woken by the next change.
    fn register(&self) {
        let mut state = self.state.lock();
        let own = current();
        if !state.waiting.iter().any(|other| other.id() == own.id()) {
            state.waiting.push(own);
        }
    }

    fn unregister(&self) {
        let own = current().id();
        self.state.lock().waiting.retain(|other| other.id() != own);
    }
}

impl<T> Sender<T> {
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        let mut refused = None;
        self.shared.change(|state| {
            if state.receivers == 0 {
                refused = Some(TrySendError::Disconnected(message));
                return None;
            }
            if self.shared.capacity.is_some_and(|capacity| state.items.len() >= capacity) {
                refused = Some(TrySendError::Full(message));
                return None;
            }
            state.items.push_back(message);
            Some(())
        });
        refused.map_or(Ok(()), Err)
    }

    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        let mut arm = self.arm_send(message);
        let mut arms = self.arm_set();
        arms.add(&mut arm);
        arms.wait();
        arm.finish()
    }

    pub(super) fn register(&self) {
        self.shared.register();
    }

    pub(super) fn unregister(&self) {
        self.shared.unregister();
    }

    pub fn len(&self) -> usize {
        self.shared.state.lock().items.len()
    }

    pub fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    pub(crate) fn arm_send(&self, message: T) -> SendArm<'_, T> {
        SendArm::new(self, message)
    }

    pub(crate) fn arm_set<'a>(&self) -> Arms<'a> {
        Arms::none()
    }
}

impl<T> Receiver<T> {
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        match &self.source {
            Source::Never => Err(TryRecvError::Empty),
            Source::At(timer) => timer.try_recv(),
            Source::Channel(shared) => {
                let mut error = TryRecvError::Empty;
                let message = shared.change(|state| {
                    if state.items.is_empty() && state.senders == 0 {
                        error = TryRecvError::Disconnected;
                    }
                    state.items.pop_front()
                });
                message.ok_or(error)
            }
        }
    }

    /// Whether a receive would not wait.
    pub(super) fn is_ready(&self) -> bool {
        match &self.source {
            Source::Never => false,
            Source::At(timer) => !*timer.taken.lock() && timer.due <= Instant::now(),
            Source::Channel(shared) => {
                let state = shared.state.lock();
                !state.items.is_empty() || state.senders == 0
            }
        }
    }

    pub fn recv(&self) -> Result<T, RecvError> {
        let mut arm = self.arm_recv();
        let mut arms = self.arm_set();
        arms.add(&mut arm);
        arms.wait();
        arm.finish()
    }

    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        let mut arm = self.arm_recv();
        let mut arms = self.arm_set();
        arms.add(&mut arm);
        if !arms.wait_until(deadline) {
            return Err(RecvTimeoutError::Timeout);
        }
        arm.finish().map_err(|RecvError| RecvTimeoutError::Disconnected)
    }

    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        match Instant::now().checked_add(timeout) {
            Some(deadline) => self.recv_deadline(deadline),
            None => self.recv().map_err(|RecvError| RecvTimeoutError::Disconnected),
        }
    }

    /// When a message will arrive without a sender.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.source {
            Source::At(timer) => (!*timer.taken.lock()).then_some(timer.due),
            Source::Channel(_) | Source::Never => None,
        }
    }

    pub(super) fn register(&self) {
        if let Source::Channel(shared) = &self.source {
            shared.register();
        }
    }

    pub(super) fn unregister(&self) {
        if let Source::Channel(shared) = &self.source {
            shared.unregister();
        }
    }

    pub fn len(&self) -> usize {
        match &self.source {
            Source::Channel(shared) => shared.state.lock().items.len(),
            Source::At(_) | Source::Never => 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn try_iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| self.try_recv().ok())
    }

    pub(crate) fn arm_recv(&self) -> RecvArm<'_, T> {
        RecvArm::new(self)
    }

    pub(crate) fn arm_set<'a>(&self) -> Arms<'a> {
        Arms::none()
    }
}

impl<T> Timer<T> {
    fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut taken = self.taken.lock();
        if *taken || Instant::now() < self.due {
            return Err(TryRecvError::Empty);
        }
        *taken = true;
        Ok((self.message)(self.due))
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.state.lock().senders += 1;
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.change(|state| {
            state.senders -= 1;
            (state.senders == 0).then_some(())
        });
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        let source = match &self.source {
            Source::Channel(shared) => {
                shared.state.lock().receivers += 1;
                Source::Channel(Arc::clone(shared))
            }
            Source::At(timer) => Source::At(Arc::clone(timer)),
            Source::Never => Source::Never,
        };
        Self { source }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if let Source::Channel(shared) = &self.source {
            let unread = shared.change(|state| {
                state.receivers -= 1;
                // Crossbeam's bounded channels keep unread messages until the last sender is dropped.
                let drops_unread = shared.capacity.is_none();
                (state.receivers == 0).then(|| {
                    if drops_unread {
                        std::mem::take(&mut state.items)
                    } else {
                        VecDeque::new()
                    }
                })
            });
            // Dropped after the lock is released: these are users' values.
            drop(unread);
        }
    }
}

/// The iterator over a receiver's messages, by value.
#[derive(Debug)]
pub struct IntoIter<T>(Receiver<T>);

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<T> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter(self)
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("Sender { .. }")
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("Receiver { .. }")
    }
}
