//! Waits on a session's own thread.
//!
//! An agent may call the service that hosts it: a sub-agent is a session like any other. Such a wait differs from one on
//! a thread of the host in three ways, all of them here:
//!
//! 1. The turn's running permit is given back meanwhile, so that a limit of one running turn does not make parent and
//!    child wait for each other.
//! 2. The wait also ends when the waiting turn is cancelled. What it waited for goes on.
//! 3. It is refused if the other side waits for this session already, however long the chain.
//!
//! # Who waits for whom
//!
//! Circles run through any number of sessions and may run through several services, so the edges are kept for the whole
//! process. An edge is looked for and added under one lock: of two sessions that turn to each other at the same time, the
//! second is refused, and only the second. There never is a circle, so following the edges ends. A session mostly has one;
//! it has two where it reads a turn's events by a callback, and the callback waits for something else.
//!
//! What this cannot see: a thread that the *agent* started; a `select!` of the agent's own over
//! [`TurnHandle::finished`](crate::TurnHandle::finished); and a target that waits for room in an event channel which the
//! waiting session was to read.

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

/// A live session among all of the process: ids may repeat from service to service, these do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WaitKey(u64);

impl WaitKey {
    pub(crate) fn new() -> Self {
        Self(crate::sync::unique_number())
    }
}

/// Why a wait brought nothing.
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
    /// As the error of a call about session `id`; `waiting` was started with it.
    pub(crate) fn into_session_error(self, id: SessionId, waiting: &Stopwatch) -> SessionError {
        match self {
            Self::TimedOut => SessionError::Timeout { id, waited: waiting.elapsed() },
            Self::Interrupted { waiter, reason } => SessionError::Interrupted { id: waiter, reason },
            Self::Reentrant { waiter } => SessionError::Reentrant { id: waiter },
        }
    }
}

thread_local! {
    /// Set while this thread is a session's.
    static OWN: RefCell<Option<Rc<Own>>> = const { RefCell::new(None) };
}

struct Own {
    id: SessionId,
    key: WaitKey,
    /// What the session runs: its permit, and the token that ends its waits.
    turn: Arc<TurnPermit>,
}

/// Makes this thread a session's until it is dropped.
pub(crate) struct CurrentSession {
    own: Rc<Own>,
}

impl CurrentSession {
    pub(crate) fn enter(id: SessionId, key: WaitKey, turn: Arc<TurnPermit>, build: CancelToken) -> Self {
        turn.begin_build(build);
        let own = Rc::new(Own { id, key, turn });
        OWN.with(|slot| *slot.borrow_mut() = Some(Rc::clone(&own)));
        Self { own }
    }

    /// Waits for a running permit and starts the turn with it. The returned guard gives the permit back.
    pub(crate) fn start_turn(&self, cancel: &CancelToken) -> Result<RunningPermit, Cancelled> {
        self.own.turn.start(cancel)?;
        Ok(RunningPermit { turn: Some(Arc::clone(&self.own.turn)) })
    }

    /// The turn is over: nothing of it ends a wait any more.
    pub(crate) fn end_turn(&self) {
        self.own.turn.end_turn();
    }
}

impl Drop for CurrentSession {
    fn drop(&mut self) {
        self.own.turn.end_turn();
        OWN.with(|slot| *slot.borrow_mut() = None);
    }
}

/// The running permit of the turn that the session thread runs. While a thread of the turn waits, the permit is lent.
///
/// [`release`](Self::release) or a drop ends the turn's run and gives the permit back.
#[must_use = "dropping it gives the permit back"]
#[derive(Debug)]
pub(crate) struct RunningPermit {
    /// `None` once the permit is given back.
    turn: Option<Arc<TurnPermit>>,
}

impl RunningPermit {
    /// Gives the permit back at the end of the turn.
    pub(crate) fn release(mut self) {
        self.release_once();
    }

    /// Gives the permit back between two interactions of a turn. `cancel`, the turn's own token, ends the agent's waits meanwhile.
    pub(crate) fn release_between_interactions(mut self, cancel: &CancelToken) {
        if let Some(turn) = self.turn.take() {
            turn.end_interaction(cancel);
        }
    }

    fn release_once(&mut self) {
        if let Some(turn) = self.turn.take() {
            turn.end_turn();
        }
    }
}

impl Drop for RunningPermit {
    fn drop(&mut self) {
        self.release_once();
    }
}

/// Whether this thread is a session's.
pub(crate) fn is_a_sessions() -> bool {
    OWN.try_with(|slot| slot.borrow().is_some()).unwrap_or(false)
}

/// Whether this thread belongs to the session with this key.
pub(crate) fn is_own(key: WaitKey) -> bool {
    own().is_some_and(|own| own.key == key)
}

/// Gives the running turn's permit back until the guard is dropped, which waits for one again.
pub(crate) fn lend_permit(until: &Deadline) -> Option<LentPermit> {
    own().and_then(|own| own.turn.lend(until.clone()))
}

/// Gives back the permit of what this thread runs until the guard is dropped: that of its own session's turn, on a session's thread; on
/// any other that of the turn that it says it is a thread of.
pub(crate) fn lend_permit_of(turn: &Arc<TurnPermit>) -> Option<LentPermit> {
    match own() {
        Some(own) => own.turn.lend(Deadline::never()),
        None => turn.lend(Deadline::never()),
    }
}

/// Refuses what would have this thread's session wait for itself by way of session `target`, as things are.
pub(crate) fn refuse_circle(target: WaitKey) -> Result<(), WaitError> {
    match own() {
        Some(own) if leads_to(&WAITS.lock(), target, own.key) => Err(WaitError::Reentrant { waiter: own.id }),
        _ => Ok(()),
    }
}

/// Whether this thread's session is at a turn, or its build, that has been told to stop.
pub(crate) fn is_cancelled() -> bool {
    own().and_then(|own| own.turn.cancel()).is_some_and(|cancel| cancel.is_cancelled())
}

/// An error where this thread's session is at a turn, or its build, that has been told to stop. For loops that receive: one
/// that always finds something does not come to wait, and no wait of it is there to be ended.
pub(crate) fn check() -> Result<(), WaitError> {
    let Some(own) = own() else { return Ok(()) };
    match own.turn.cancel().and_then(|cancel| cancel.reason()) {
        Some(reason) => Err(WaitError::Interrupted { waiter: own.id, reason }),
        None => Ok(()),
    }
}

/// What may end a wait of this thread: the token of its session's turn or build, where it is a session's and at one.
pub(crate) fn current_cancel() -> Option<CancelToken> {
    own().and_then(|own| own.turn.cancel())
}

/// A wait for a session, from before the session is asked for anything until its answer is there. Once this is had, the
/// answer can be waited for: no circle can close any more.
#[must_use]
pub(crate) struct Wait {
    /// On a session's own thread: who waits, and its edge.
    own: Option<(Rc<Own>, Edge)>,
}

impl Wait {
    /// Announces a wait for session `target`.
    pub(crate) fn on(target: WaitKey) -> Result<Self, WaitError> {
        match own() {
            None => Ok(Self { own: None }),
            Some(own) => Edge::add(&own, target).map(|edge| Self { own: Some((own, edge)) }),
        }
    }

    /// Ends the wait: this thread does not wait for the session any more.
    pub(crate) fn end(self) {
        if let Some((_, edge)) = self.own {
            edge.remove();
        }
    }

    /// As [`receive`](Self::receive), but the own turn's cancellation does not end it: for who has cancelled that itself.
    pub(crate) fn receive_regardless<T>(
        self,
        channel: &Receiver<T>,
        deadline: &Deadline,
    ) -> Result<Option<T>, WaitError> {
        let _permit = lend_permit(deadline);
        receive_until(channel, deadline)
    }

    /// Waits until the session has set this latch.
    pub(crate) fn wait_for(self, latch: &Latch, deadline: &Deadline) -> Result<(), WaitError> {
        if latch.is_set() {
            return Ok(());
        }
        // On a session's own thread its permit may be what the other waits for: it is given back at once. And whoever has little
        // time has none for polling.
        let may_poll = self.own.is_none() && deadline.is_farther_than(polling::FOR_AN_ANSWER);
        if may_poll && polling::answer_comes_soon(|| latch.is_set()) {
            return Ok(());
        }
        if self.own.is_none() && deadline.is_never() {
            latch.wait();
            return Ok(());
        }
        self.receive(latch.receiver(), deadline).map(drop)
    }

    /// Receives what the session answers on `channel`; `None` once it is disconnected.
    ///
    /// On a thread of the host this is a receive with a deadline. On a session's own thread see the head of this module.
    pub(crate) fn receive<T>(self, channel: &Receiver<T>, deadline: &Deadline) -> Result<Option<T>, WaitError> {
        match self.own {
            None => receive_until(channel, deadline),
            Some((own, edge)) => {
                if let Some(ready) = receive_now(channel) {
                    return Ok(ready);
                }
                let permit = own.turn.lend(deadline.clone());
                let received = own.receive(channel, deadline);
                // The edge goes first: a wait for a permit is no wait for the target any more.
                edge.remove();
                if let Some(permit) = permit {
                    permit.end_wait();
                }
                received
            }
        }
    }
}

/// Receives from `channel`, which no session in particular serves; `None` once it is disconnected.
pub(crate) fn receive<T>(channel: &Receiver<T>, deadline: &Deadline) -> Result<Option<T>, WaitError> {
    match own() {
        None => receive_until(channel, deadline),
        Some(own) => {
            let _permit = own.turn.lend(deadline.clone());
            own.receive(channel, deadline)
        }
    }
}

/// What is there `now`, whatever may become of a wait; else what a wait brings, which is `None` at the end.
pub(crate) fn now_or_in_time<T>(
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

fn own() -> Option<Rc<Own>> {
    // Where the slot is gone, the thread is on its way out, and no session's any more.
    OWN.try_with(|slot| slot.borrow().clone()).ok().flatten()
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

impl Own {
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
            recv(alarm.rings()) -> _ => Err(WaitError::TimedOut),
        }
    }
}

process_wide! {
    /// From each waiting session to those that it waits for. Never a circle: an edge that would close one is not added.
    static WAITS: Mutex<BTreeSet<(WaitKey, WaitKey)>> = Mutex::new(BTreeSet::new());
}

/// An entry of [`WAITS`], until [`remove`](Self::remove) or a drop takes it out.
struct Edge {
    /// `None` where an outer wait for the same target has made the entry already, or the entry is out.
    entry: Option<(WaitKey, WaitKey)>,
}

impl Edge {
    fn add(own: &Own, target: WaitKey) -> Result<Self, WaitError> {
        let mut waits = WAITS.lock();
        if leads_to(&waits, target, own.key) {
            return Err(WaitError::Reentrant { waiter: own.id });
        }
        let entry = (own.key, target);
        Ok(Self { entry: waits.insert(entry).then_some(entry) })
    }

    /// Takes the entry out: the waiting session does not wait for the target any more.
    fn remove(mut self) {
        self.remove_once();
    }

    fn remove_once(&mut self) {
        if let Some(entry) = self.entry.take() {
            WAITS.lock().remove(&entry);
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.remove_once();
    }
}

/// Whether `from` is `to`, or waits for it, at once or in the end.
fn leads_to(waits: &BTreeSet<(WaitKey, WaitKey)>, from: WaitKey, to: WaitKey) -> bool {
    // In a loop, because chains may be longer than a stack is deep; and each session once, however many ways lead to it.
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
    fn chains_may_be_longer_than_a_stack_is_deep() {
        let waits = (0..100_000).map(|number| (key(number), key(number + 1))).collect();
        assert!(leads_to(&waits, key(0), key(100_000)));
        assert!(!leads_to(&waits, key(1), key(0)));
        assert!(leads_to(&waits, key(7), key(7)));
    }

    #[test]
    fn sessions_to_which_many_ways_lead_are_looked_at_once() {
        // Two in each layer, each of which waits for both of the next: there are 2^60 ways down.
        let edges = |number| [number / 2 * 2 + 2, number / 2 * 2 + 3].map(|next| (key(number), key(next)));
        let waits = (0..120).flat_map(edges).collect();
        assert!(!leads_to(&waits, key(0), key(1)));
        assert!(leads_to(&waits, key(0), key(121)));
    }
}
