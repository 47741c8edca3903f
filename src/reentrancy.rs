//! Waits on a session thread.
//!
//! An agent may call the service that hosts it: a sub-agent is a session like any other. Such a wait differs in three
//! ways from a wait on a thread of the host. All three are here:
//!
//! 1. The turn gives its running permit back during the wait. Otherwise parent and child would wait for each other
//!    under a limit of one running turn.
//! 2. The cancellation of the waiting turn ends the wait. The target goes on.
//! 3. The wait is refused if the target already waits for this session, directly or through a chain of any length.
//!
//! # The wait-for graph
//!
//! A cycle may run through any number of sessions and several services, so one graph serves the whole process. A thread
//! checks for a cycle and adds its edge under one lock. If two sessions start to wait for each other at the same time,
//! only the second is refused.
//!
//! A session mostly has one edge. It has two where it reads a turn's events by a callback, and the callback waits for
//! something else.
//!
//! **Invariant.** The graph has no cycle, so a walk along its edges ends.
//!
//! The graph does not cover a thread that the *agent* started, nor a `select!` of the agent over
//! [`TurnHandle::finished`](crate::TurnHandle::finished). It does not cover a target that waits for room in an event
//! channel which the waiting session was to read.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::cancel::CancelToken;
use crate::error::{CancelReason, Cancelled, SessionError};
use crate::model::SessionId;
use crate::permits::turn_permit::{LentPermit, TurnPermit};
use crate::sync::{never, process_wide, select, thread_local, Arc, Mutex, Receiver, RecvTimeoutError, TryRecvError};
use crate::time::clock::{Deadline, Stopwatch};
use crate::wait::latch::Latch;
use crate::wait::polling;

/// The key of a live session, unique in the process. Session ids may repeat from service to service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WaitKey(u64);

impl WaitKey {
    pub(crate) fn new() -> Self {
        Self(crate::sync::unique_number())
    }
}

/// Why a wait ended without a value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WaitError {
    TimedOut,
    /// The waiting session's own turn was cancelled.
    Interrupted {
        waiter: SessionId,
        reason: CancelReason,
    },
    Reentrant {
        waiter: SessionId,
    },
}

impl WaitError {
    /// Converts this into the error of a call about session `id`. `waiting` was started with the wait.
    pub(crate) fn into_session_error(self, id: SessionId, waiting: &Stopwatch) -> SessionError {
        match self {
            Self::TimedOut => SessionError::Timeout { id, waited: waiting.elapsed() },
            Self::Interrupted { waiter, reason } => SessionError::Interrupted { id: waiter, reason },
            Self::Reentrant { waiter } => SessionError::Reentrant { id: waiter },
        }
    }
}

thread_local! {
    /// Set while this thread is a session thread.
    static THREAD_SESSION: RefCell<Option<Rc<ThreadSession>>> = const { RefCell::new(None) };
}

struct ThreadSession {
    id: SessionId,
    key: WaitKey,
    /// The permit of the turn that the session runs, and the token that ends its waits.
    turn: Arc<TurnPermit>,
}

/// Marks this thread as a session thread until it is dropped.
pub(crate) struct CurrentSession {
    session: Rc<ThreadSession>,
}

impl CurrentSession {
    pub(crate) fn enter(id: SessionId, key: WaitKey, turn: Arc<TurnPermit>, build: CancelToken) -> Self {
        turn.begin_build(build);
        let session = Rc::new(ThreadSession { id, key, turn });
        THREAD_SESSION.with(|slot| *slot.borrow_mut() = Some(Rc::clone(&session)));
        Self { session }
    }

    /// Waits for a running permit and starts the turn with it. The returned guard gives the permit back.
    pub(crate) fn start_turn(&self, cancel: &CancelToken) -> Result<RunningPermit, Cancelled> {
        self.session.turn.start(cancel)?;
        Ok(RunningPermit { turn: Some(Arc::clone(&self.session.turn)) })
    }

    /// Ends the turn: its token ends no later wait.
    pub(crate) fn end_turn(&self) {
        self.session.turn.end_turn();
    }
}

impl Drop for CurrentSession {
    fn drop(&mut self) {
        self.session.turn.end_turn();
        THREAD_SESSION.with(|slot| *slot.borrow_mut() = None);
    }
}

/// The running permit of the turn that the session thread runs. The permit is lent while a thread of the turn waits.
///
/// [`release`](Self::release) or a drop ends the turn's run and gives the permit back.
#[must_use = "dropping it gives the permit back"]
#[derive(Debug)]
pub(crate) struct RunningPermit {
    /// `None` once the turn rests between two interactions.
    turn: Option<Arc<TurnPermit>>,
}

impl RunningPermit {
    /// Gives the permit back at the end of the turn.
    pub(crate) fn release(self) {
        // The drop gives it back, on every other way out too.
        drop(self);
    }

    /// Gives the permit back between two interactions of a turn. Until the next one, `cancel`, the turn's own token,
    /// ends the agent's waits.
    pub(crate) fn release_between_interactions(mut self, cancel: &CancelToken) {
        if let Some(turn) = self.turn.take() {
            turn.end_interaction(cancel);
        }
    }
}

impl Drop for RunningPermit {
    fn drop(&mut self) {
        if let Some(turn) = &self.turn {
            turn.end_turn();
        }
    }
}

/// Whether this thread is a session thread.
pub(crate) fn is_session_thread() -> bool {
    THREAD_SESSION.try_with(|slot| slot.borrow().is_some()).unwrap_or(false)
}

/// Whether this thread is the thread of the session with this key.
pub(crate) fn is_thread_of(key: WaitKey) -> bool {
    thread_session().is_some_and(|session| session.key == key)
}

/// Gives the running turn's permit back until the guard is dropped. The drop waits for a permit again.
pub(crate) fn lend_permit(until: &Deadline) -> Option<LentPermit> {
    thread_session().and_then(|session| session.turn.lend(until.clone()))
}

/// Gives a turn's running permit back until the guard is dropped. On a session thread that is the permit of the
/// session's own turn, on any other thread that of `turn`.
pub(crate) fn lend_permit_of(turn: &Arc<TurnPermit>) -> Option<LentPermit> {
    match thread_session() {
        Some(session) => session.turn.lend(Deadline::never()),
        None => turn.lend(Deadline::never()),
    }
}

/// The running permit of a turn while one of its threads waits for room.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PermitDuringWait {
    /// The turn lends it, and takes one again after the wait.
    Lent,
    /// The turn gives it back, because its agent does not run: before its call, or after it.
    GivenBack,
}

/// Gives a turn's running permit back for a wait. See [`lend_permit_of`].
pub(crate) fn release_permit_of(turn: &Arc<TurnPermit>, during_wait: PermitDuringWait) -> Option<LentPermit> {
    match during_wait {
        PermitDuringWait::Lent => lend_permit_of(turn),
        PermitDuringWait::GivenBack => {
            turn.stop();
            None
        }
    }
}

/// Refuses a call that would make this thread's session wait for itself through session `target`. Checks the edges that
/// exist now.
pub(crate) fn refuse_cycle(target: WaitKey) -> Result<(), WaitError> {
    match thread_session() {
        Some(session) if leads_to(&WAITS.lock(), target, session.key) => {
            Err(WaitError::Reentrant { waiter: session.id })
        }
        _ => Ok(()),
    }
}

/// Whether this thread's session runs a turn or a build that has been told to stop.
pub(crate) fn is_cancelled() -> bool {
    thread_session().and_then(|session| session.turn.cancel()).is_some_and(|cancel| cancel.is_cancelled())
}

/// Returns an error if this thread's session runs a turn or a build that has been told to stop. For loops that receive:
/// a loop that always finds a message never waits, so no wait of it can be ended.
pub(crate) fn check() -> Result<(), WaitError> {
    let Some(session) = thread_session() else { return Ok(()) };
    match session.turn.cancel().and_then(|cancel| cancel.reason()) {
        Some(reason) => Err(WaitError::Interrupted { waiter: session.id, reason }),
        None => Ok(()),
    }
}

/// The token that may end a wait of this thread: that of its session's turn or build. `None` on other threads and
/// between turns.
pub(crate) fn current_cancel() -> Option<CancelToken> {
    thread_session().and_then(|session| session.turn.cancel())
}

/// A wait for a session. It begins before the session is asked for anything, and ends when the answer is there. While
/// it exists no cycle can form, so the thread may wait for the answer.
#[must_use]
pub(crate) struct Wait {
    /// On a session thread: the waiting session and its edge.
    session: Option<(Rc<ThreadSession>, Edge)>,
}

impl Wait {
    /// Announces a wait for session `target`.
    pub(crate) fn on(target: WaitKey) -> Result<Self, WaitError> {
        match thread_session() {
            None => Ok(Self { session: None }),
            Some(session) => Edge::add(&session, target).map(|edge| Self { session: Some((session, edge)) }),
        }
    }

    /// Ends the wait for the session.
    pub(crate) fn end(self) {
        if let Some((_, edge)) = self.session {
            edge.remove();
        }
    }

    /// As [`receive`](Self::receive), but the cancellation of the session's own turn does not end the wait. For a
    /// thread that has itself cancelled that turn.
    pub(crate) fn receive_ignoring_cancel<T>(
        self,
        channel: &Receiver<T>,
        deadline: &Deadline,
    ) -> Result<Option<T>, WaitError> {
        let _permit = lend_permit(deadline);
        receive_until(channel, deadline)
    }

    /// Waits until the session sets this latch.
    pub(crate) fn wait_for(self, latch: &Latch, deadline: &Deadline) -> Result<(), WaitError> {
        if latch.is_set() {
            return Ok(());
        }
        // A session thread gives its permit back at once, since the target may need it. A thread with a near deadline
        // has no time for polling.
        let may_poll = self.session.is_none() && deadline.leaves_more_than(polling::ANSWER_POLL);
        if may_poll && polling::poll_for_answer(|| latch.is_set()) {
            return Ok(());
        }
        if self.session.is_none() && deadline.is_never() {
            latch.wait();
            return Ok(());
        }
        self.receive(latch.receiver(), deadline).map(drop)
    }

    /// Receives the session's answer from `channel`; `None` once it is disconnected.
    ///
    /// On a thread of the host this is a receive with a deadline. For a session thread see the head of this module.
    pub(crate) fn receive<T>(self, channel: &Receiver<T>, deadline: &Deadline) -> Result<Option<T>, WaitError> {
        match self.session {
            None => receive_until(channel, deadline),
            Some((session, edge)) => {
                if let Some(ready) = receive_now(channel) {
                    return Ok(ready);
                }
                let permit = session.turn.lend(deadline.clone());
                let received = session.receive(channel, deadline);
                // The edge is removed first: a wait for a permit is not a wait for the target.
                edge.remove();
                if let Some(permit) = permit {
                    permit.end_wait();
                }
                received
            }
        }
    }
}

/// Receives from `channel`, which no particular session serves; `None` once it is disconnected.
pub(crate) fn receive<T>(channel: &Receiver<T>, deadline: &Deadline) -> Result<Option<T>, WaitError> {
    match thread_session() {
        None => receive_until(channel, deadline),
        Some(session) => {
            let _permit = session.turn.lend(deadline.clone());
            session.receive(channel, deadline)
        }
    }
}

/// Returns the message that is there `now`, even if a wait would be refused. Otherwise waits; `wait` returns `None` at
/// the end of the channel.
pub(crate) fn receive_now_or_wait<T>(
    now: Result<T, TryRecvError>,
    wait: impl FnOnce() -> Result<Option<T>, WaitError>,
) -> Result<T, RecvTimeoutError> {
    match now {
        Ok(value) => Ok(value),
        Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
        Err(TryRecvError::Empty) => match wait() {
            Ok(value) => value.ok_or(RecvTimeoutError::Disconnected),
            Err(_) => Err(RecvTimeoutError::Timeout),
        },
    }
}

fn thread_session() -> Option<Rc<ThreadSession>> {
    // The slot has been dropped: the thread exits, and is not a session thread any more.
    THREAD_SESSION.try_with(|slot| slot.borrow().clone()).ok().flatten()
}

/// `Some(None)` if the channel is disconnected, `None` if a receiver would have to wait.
fn receive_now<T>(channel: &Receiver<T>) -> Option<Option<T>> {
    match channel.try_recv() {
        Ok(value) => Some(Some(value)),
        Err(error) => error.is_disconnected().then_some(None),
    }
}

fn receive_until<T>(channel: &Receiver<T>, deadline: &Deadline) -> Result<Option<T>, WaitError> {
    match deadline.receive(channel) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_timeout() => Err(WaitError::TimedOut),
        Err(_) => Ok(None),
    }
}

impl ThreadSession {
    fn receive<T>(&self, channel: &Receiver<T>, deadline: &Deadline) -> Result<Option<T>, WaitError> {
        let cancel = self.turn.cancel();
        let cancelled = cancel.as_ref().map_or_else(never, |cancel| cancel.cancelled().clone());
        let alarm = deadline.alarm();
        select! {
            recv(channel) -> value => Ok(value.ok()),
            recv(cancelled) -> _ => match cancel.and_then(|cancel| cancel.reason()) {
                Some(reason) => Err(WaitError::Interrupted { waiter: self.id, reason }),
                None => Ok(None),
            },
            recv(alarm.receiver()) -> _ => Err(WaitError::TimedOut),
        }
    }
}

process_wide! {
    /// The edges, from each waiting session to its target. An edge that would close a cycle is not added.
    static WAITS: Mutex<BTreeSet<(WaitKey, WaitKey)>> = Mutex::new(BTreeSet::new());
}

/// An edge in [`WAITS`]. [`remove`](Self::remove) or a drop removes it.
struct Edge {
    /// `None` where an outer wait for the same target added the edge.
    entry: Option<(WaitKey, WaitKey)>,
}

impl Edge {
    fn add(session: &ThreadSession, target: WaitKey) -> Result<Self, WaitError> {
        let mut waits = WAITS.lock();
        if leads_to(&waits, target, session.key) {
            return Err(WaitError::Reentrant { waiter: session.id });
        }
        let entry = (session.key, target);
        Ok(Self { entry: waits.insert(entry).then_some(entry) })
    }

    /// Removes the edge: the session does not wait for the target any more.
    fn remove(self) {
        // The drop removes it, on every other way out too.
        drop(self);
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if let Some(entry) = self.entry {
            WAITS.lock().remove(&entry);
        }
    }
}

/// Whether `from` is `to`, or waits for it, directly or through other sessions.
fn leads_to(waits: &BTreeSet<(WaitKey, WaitKey)>, from: WaitKey, to: WaitKey) -> bool {
    // A loop, since a chain may be longer than the stack is deep. Each session is visited once, however many paths lead
    // to it.
    let (mut seen, mut left) = (BTreeSet::from([from]), vec![from]);
    while let Some(session) = left.pop() {
        if session == to {
            return true;
        }
        let next = waits.range((session, WaitKey(0))..=(session, WaitKey(u64::MAX))).map(|(_, next)| *next);
        left.extend(next.filter(|next| seen.insert(*next)));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> WaitKey {
        WaitKey(number)
    }

    #[test]
    fn a_chain_may_be_longer_than_the_stack_is_deep() {
        let waits = (0..100_000).map(|number| (key(number), key(number + 1))).collect();
        assert!(leads_to(&waits, key(0), key(100_000)));
        assert!(!leads_to(&waits, key(1), key(0)));
        assert!(leads_to(&waits, key(7), key(7)));
    }

    #[test]
    fn a_session_on_many_paths_is_visited_once() {
        // Two sessions in each layer, each waiting for both of the next layer: there are 2^60 paths.
        let edges = |number| [number / 2 * 2 + 2, number / 2 * 2 + 3].map(|next| (key(number), key(next)));
        let waits = (0..120).flat_map(edges).collect();
        assert!(!leads_to(&waits, key(0), key(1)));
        assert!(leads_to(&waits, key(0), key(121)));
    }
}
