//! Waits of turns.
//!
//! An agent may call the service that hosts it: a sub-agent is a session like any other. Such a wait differs in three
//! ways from a wait of the host. All three are here:
//!
//! 1. The turn gives its running permit back during the wait. Otherwise parent and child would wait for each other
//!    under a limit of one running turn.
//! 2. The cancellation of the waiting turn ends the wait. The target goes on.
//! 3. The wait is refused if the target already waits for this session, directly or through a chain of any length.
//!
//! # The waiter of a thread
//!
//! Every call here asks the thread for its [`Waiter`], the session that waits. It has one in two cases:
//!
//! - The thread is a session thread. Its waits belong to what its session runs now: a turn or a build.
//! - The thread waits on behalf of a turn: it called through that turn's service, or waits with a handle or a stream
//!   obtained there. [`TurnRef::enter`] sets the waiter around each of these calls. It knows the turn by its number, so
//!   that such a wait belongs to no later turn of the session.
//!
//! A session thread keeps its own waiter in the second case too: it is its own session that does not go on.
//!
//! # The wait-for graph
//!
//! A cycle may run through any number of sessions and several services, so one graph serves the whole process. A thread
//! checks for a cycle and adds its edge under one lock. If two sessions start to wait for each other at the same time,
//! only the second is refused.
//!
//! A session mostly has one edge. It has several where several of its threads wait, where a thread waits for any of
//! several turns, and where it reads a turn's events by a callback that waits for something else. Edges are counted: two
//! threads may wait for the same session, and the end of one wait leaves the other's edge.
//!
//! A wait on behalf of a turn may outlive the turn, on a thread that the agent has left behind. From then on it is a
//! wait of the host. So its edge has the turn's token, and counts only until the token is sealed.
//!
//! **Invariant.** The edges that count have no cycle. A walk visits each session once, so it ends in any case.
//!
//! The graph does not cover other waits on a thread that the *agent* started, nor a `select!` of the agent over
//! [`TurnHandle::finished`](crate::TurnHandle::finished). It does not cover a target that waits for room in an event
//! channel which the waiting session was to read.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::rc::Rc;

use crate::cancel::CancelToken;
use crate::error::{CancelReason, Cancelled, SessionError};
use crate::model::{SessionId, TurnId};
use crate::permits::turn_permit::{LentPermit, TurnPermit};
use crate::sync::{
    never, process_wide, select, thread_local, Arc, Mutex, Receiver, RecvTimeoutError, Select, TryRecvError, Weak,
};
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
    /// Set while this thread is a session thread, or waits on behalf of a turn.
    static WAITER: RefCell<Option<Rc<Waiter>>> = const { RefCell::new(None) };
}

/// The session that a thread's waits belong to.
struct Waiter {
    id: SessionId,
    key: WaitKey,
    /// The permit of the turn that the session runs, and the token that ends its waits.
    permit: Arc<TurnPermit>,
    /// The turn that the waits belong to. `None` on the session thread: that which the session runs now.
    turn: Option<TurnId>,
}

/// A turn on whose behalf any thread may wait. Weak: it keeps nothing of the turn, and refers to no later one.
#[derive(Clone, Debug)]
pub(crate) struct TurnRef {
    id: SessionId,
    key: WaitKey,
    turn: TurnId,
    permit: Weak<TurnPermit>,
}

/// Makes this thread's waits those of a turn, until it is dropped.
#[must_use = "the waits of this thread belong to the turn until it is dropped"]
pub(crate) struct OnBehalf {
    /// Keeps this value on its thread.
    _waiter: Rc<Waiter>,
}

impl TurnRef {
    pub(crate) fn new(id: SessionId, key: WaitKey, turn: TurnId, permit: &Arc<TurnPermit>) -> Self {
        Self { id, key, turn, permit: Arc::downgrade(permit) }
    }

    /// Makes this thread's waits those of the turn. `None` if that changes nothing: the turn has ended, or the thread
    /// has a waiter already.
    pub(crate) fn enter(&self) -> Option<OnBehalf> {
        if WAITER.try_with(|slot| slot.borrow().is_some()).unwrap_or(true) {
            return None;
        }
        let permit = self.permit.upgrade().filter(|permit| permit.is_of(self.turn))?;
        let waiter = Rc::new(Waiter { id: self.id, key: self.key, permit, turn: Some(self.turn) });
        WAITER.with(|slot| *slot.borrow_mut() = Some(Rc::clone(&waiter)));
        Some(OnBehalf { _waiter: waiter })
    }
}

impl Drop for OnBehalf {
    fn drop(&mut self) {
        WAITER.with(|slot| *slot.borrow_mut() = None);
    }
}

/// Marks this thread as a session thread until it is dropped.
pub(crate) struct CurrentSession {
    session: Rc<Waiter>,
}

impl CurrentSession {
    pub(crate) fn enter(id: SessionId, key: WaitKey, permit: Arc<TurnPermit>, build: CancelToken) -> Self {
        permit.begin_build(build);
        let session = Rc::new(Waiter { id, key, permit, turn: None });
        WAITER.with(|slot| *slot.borrow_mut() = Some(Rc::clone(&session)));
        Self { session }
    }

    /// Sets the token of another build.
    pub(crate) fn begin_build(&self, cancel: CancelToken) {
        self.session.permit.begin_build(cancel);
    }

    /// Waits for a running permit and starts the turn with it. The returned guard gives the permit back.
    pub(crate) fn start_turn(&self, turn: TurnId, cancel: &CancelToken) -> Result<RunningPermit, Cancelled> {
        self.session.permit.start(turn, cancel)?;
        Ok(RunningPermit { turn: Some(Arc::clone(&self.session.permit)) })
    }

    /// Ends the turn: its token ends no later wait.
    pub(crate) fn end_turn(&self) {
        self.session.permit.end_turn();
    }
}

impl Drop for CurrentSession {
    fn drop(&mut self) {
        self.session.permit.end_turn();
        WAITER.with(|slot| *slot.borrow_mut() = None);
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

/// Whether this thread's waits belong to a session.
pub(crate) fn has_waiter() -> bool {
    waiter().is_some()
}

/// Whether this thread's waits belong to the session with this key.
pub(crate) fn is_waiter(key: WaitKey) -> bool {
    waiter().is_some_and(|waiter| waiter.key == key)
}

/// The key of the session that this thread's waits belong to, if it has this id.
#[cfg(feature = "redis")]
pub(crate) fn waiter_key(id: SessionId) -> Option<WaitKey> {
    waiter().filter(|waiter| waiter.id == id).map(|waiter| waiter.key)
}

/// Gives the running turn's permit back until the guard is dropped. The drop waits for a permit again.
pub(crate) fn lend_permit(until: &Deadline) -> Option<LentPermit> {
    waiter().and_then(|waiter| waiter.lend(until))
}

/// Gives a turn's running permit back until the guard is dropped. On a thread with a waiter that is the waiter's permit,
/// on any other thread that of `turn`.
pub(crate) fn lend_permit_of(turn: &Arc<TurnPermit>) -> Option<LentPermit> {
    match waiter() {
        Some(waiter) => waiter.lend(&Deadline::never()),
        None => turn.lend(None, Deadline::never()),
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
    match waiter() {
        Some(waiter) => WAITS.lock().refuse_cycle(&waiter, target),
        None => Ok(()),
    }
}

/// Whether this thread's session runs a turn or a build that has been told to stop.
pub(crate) fn is_cancelled() -> bool {
    current_cancel().is_some_and(|cancel| cancel.is_cancelled())
}

/// Returns an error if this thread's session runs a turn or a build that has been told to stop. For loops that receive:
/// a loop that always finds a message never waits, so no wait of it can be ended.
pub(crate) fn check() -> Result<(), WaitError> {
    let Some(waiter) = waiter() else { return Ok(()) };
    match waiter.cancel().and_then(|cancel| cancel.reason()) {
        Some(reason) => Err(WaitError::Interrupted { waiter: waiter.id, reason }),
        None => Ok(()),
    }
}

/// The token that may end a wait of this thread: that of its session's turn or build. `None` on threads of the host and
/// between turns.
pub(crate) fn current_cancel() -> Option<CancelToken> {
    waiter().and_then(|waiter| waiter.cancel())
}

/// A wait for a session. It begins before the session is asked for anything, and ends when the answer is there. While
/// it exists no cycle can form, so the thread may wait for the answer.
#[must_use]
pub(crate) struct Wait {
    /// Of a thread with a waiter: the waiting session and its edge.
    session: Option<(Rc<Waiter>, Edge)>,
}

impl Wait {
    /// Announces a wait for session `target`.
    pub(crate) fn on(target: WaitKey) -> Result<Self, WaitError> {
        match waiter() {
            None => Ok(Self { session: None }),
            Some(waiter) => Edge::add(&waiter, target).map(|edge| Self { session: Some((waiter, edge)) }),
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
        // A turn gives its permit back at once, since the target may need it. A thread with a near deadline has no time
        // for polling.
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
    /// On a thread of the host this is a receive with a deadline. For a wait of a turn see the head of this module.
    pub(crate) fn receive<T>(self, channel: &Receiver<T>, deadline: &Deadline) -> Result<Option<T>, WaitError> {
        match self.session {
            None => receive_until(channel, deadline),
            Some((waiter, edge)) => {
                if let Some(ready) = receive_now(channel) {
                    return Ok(ready);
                }
                let permit = waiter.lend(deadline);
                let received = waiter.receive(channel, deadline);
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

/// A wait for any of several sessions.
#[must_use]
pub(crate) struct WaitForAny {
    session: Option<(Rc<Waiter>, Vec<Edge>)>,
}

impl WaitForAny {
    /// Announces the waits for all `targets` in one step, or refuses all of them.
    pub(crate) fn on(targets: &[WaitKey]) -> Result<Self, WaitError> {
        match waiter() {
            None => Ok(Self { session: None }),
            Some(waiter) => Edge::add_all(&waiter, targets).map(|edges| Self { session: Some((waiter, edges)) }),
        }
    }

    /// Waits until `is_over` returns true. It may change when one of the `channels` disconnects.
    pub(crate) fn wait(
        self,
        channels: &[&Receiver<Infallible>],
        deadline: &Deadline,
        is_over: impl Fn() -> bool,
    ) -> Result<(), WaitError> {
        let Some((waiter, edges)) = self.session else {
            return if wait_for_any(channels, None, deadline, is_over) { Ok(()) } else { Err(WaitError::TimedOut) };
        };
        let (permit, cancel) = (waiter.lend(deadline), waiter.cancel());
        let reason = || cancel.as_ref().and_then(CancelToken::reason);
        let in_time = wait_for_any(channels, cancel.as_ref(), deadline, || is_over() || reason().is_some());
        let result = match reason() {
            _ if is_over() => Ok(()),
            Some(reason) => Err(WaitError::Interrupted { waiter: waiter.id, reason }),
            None if in_time => Ok(()),
            None => Err(WaitError::TimedOut),
        };
        // The edges are removed first, as in `Wait::receive`.
        edges.into_iter().for_each(Edge::remove);
        if let Some(permit) = permit {
            permit.end_wait();
        }
        result
    }
}

/// Waits until `is_over` returns true; `false` if the deadline comes first.
fn wait_for_any(
    channels: &[&Receiver<Infallible>],
    cancel: Option<&CancelToken>,
    deadline: &Deadline,
    is_over: impl Fn() -> bool,
) -> bool {
    let alarm = deadline.alarm();
    let mut select = Select::new();
    for channel in channels.iter().copied().chain(cancel.map(CancelToken::cancelled)) {
        select.recv(channel);
    }
    select.recv(alarm.receiver());
    while !is_over() {
        // It may return although no channel is ready.
        select.ready();
        if alarm.receiver().try_recv().is_ok() {
            return is_over();
        }
    }
    true
}

/// Receives from `channel`, which no particular session serves; `None` once it is disconnected.
pub(crate) fn receive<T>(channel: &Receiver<T>, deadline: &Deadline) -> Result<Option<T>, WaitError> {
    match waiter() {
        None => receive_until(channel, deadline),
        Some(waiter) => {
            let _permit = waiter.lend(deadline);
            waiter.receive(channel, deadline)
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

fn waiter() -> Option<Rc<Waiter>> {
    // The slot has been dropped: the thread exits, and is not a session thread any more.
    WAITER.try_with(|slot| slot.borrow().clone()).ok().flatten()
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

impl Waiter {
    /// The token that ends the waits, unless the turn has ended.
    fn cancel(&self) -> Option<CancelToken> {
        self.permit.cancel(self.turn)
    }

    /// Gives the turn's running permit back until the guard is dropped.
    fn lend(&self, until: &Deadline) -> Option<LentPermit> {
        self.permit.lend(self.turn, until.clone())
    }

    fn receive<T>(&self, channel: &Receiver<T>, deadline: &Deadline) -> Result<Option<T>, WaitError> {
        let cancel = self.cancel();
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
    static WAITS: Mutex<WaitGraph> = Mutex::new(WaitGraph::new());
}

#[derive(Default)]
struct WaitGraph {
    edges: BTreeMap<(WaitKey, WaitKey), EdgeCount>,
    next_number: u64,
}

/// The waits of one session for another one.
#[derive(Default)]
struct EdgeCount {
    /// The waits of the session thread.
    own: usize,
    /// The waits of other threads, by number, with the token of the turn. Such a wait counts until the turn has ended.
    on_behalf: Vec<(u64, CancelToken)>,
}

impl EdgeCount {
    fn counts(&self) -> bool {
        self.own > 0 || self.on_behalf.iter().any(|(_, turn)| !turn.is_sealed())
    }
}

/// An edge in [`WAITS`]. [`remove`](Self::remove) or a drop removes it.
struct Edge {
    /// `None` for a wait on behalf of a turn that has ended: it is a wait of the host.
    entry: Option<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    from: WaitKey,
    to: WaitKey,
    /// The number of a wait on behalf of a turn.
    number: Option<u64>,
}

impl Edge {
    fn add(waiter: &Waiter, target: WaitKey) -> Result<Self, WaitError> {
        let turn = waiter.cancel();
        let mut waits = WAITS.lock();
        waits.refuse_cycle(waiter, target)?;
        Ok(waits.insert(waiter, target, turn.as_ref()))
    }

    /// Adds an edge to each target, or none if one of them would close a cycle. Each edge begins at the waiter, so none
    /// of them closes a cycle with another.
    fn add_all(waiter: &Waiter, targets: &[WaitKey]) -> Result<Vec<Self>, WaitError> {
        let turn = waiter.cancel();
        let mut waits = WAITS.lock();
        targets.iter().try_for_each(|target| waits.refuse_cycle(waiter, *target))?;
        Ok(targets.iter().map(|target| waits.insert(waiter, *target, turn.as_ref())).collect())
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
            let turn = WAITS.lock().remove(entry);
            drop(turn);
        }
    }
}

impl WaitGraph {
    const fn new() -> Self {
        Self { edges: BTreeMap::new(), next_number: 0 }
    }

    fn refuse_cycle(&self, waiter: &Waiter, target: WaitKey) -> Result<(), WaitError> {
        if self.leads_to(target, waiter.key) {
            return Err(WaitError::Reentrant { waiter: waiter.id });
        }
        Ok(())
    }

    fn insert(&mut self, waiter: &Waiter, to: WaitKey, turn: Option<&CancelToken>) -> Edge {
        let from = waiter.key;
        let number = match (waiter.turn, turn) {
            (None, _) => None,
            (Some(_), None) => return Edge { entry: None },
            (Some(_), Some(_)) => Some(self.next_number),
        };
        let count = self.edges.entry((from, to)).or_default();
        match (number, turn) {
            (Some(number), Some(turn)) => count.on_behalf.push((number, turn.clone())),
            _ => count.own += 1,
        }
        self.next_number += 1;
        Edge { entry: Some(Entry { from, to, number }) }
    }

    /// Removes the edge of one wait. The turn's token is for the caller to drop, with no lock held.
    fn remove(&mut self, Entry { from, to, number }: Entry) -> Option<CancelToken> {
        let count = self.edges.get_mut(&(from, to))?;
        let turn = match number {
            None => {
                count.own -= 1;
                None
            }
            Some(number) => {
                let position = count.on_behalf.iter().position(|(other, _)| *other == number);
                position.map(|position| count.on_behalf.swap_remove(position).1)
            }
        };
        if count.own == 0 && count.on_behalf.is_empty() {
            self.edges.remove(&(from, to));
        }
        turn
    }

    /// Whether `from` is `to`, or waits for it, directly or through other sessions.
    fn leads_to(&self, from: WaitKey, to: WaitKey) -> bool {
        // A loop, since a chain may be longer than the stack is deep. Each session is visited once, however many paths
        // lead to it.
        let (mut seen, mut left) = (BTreeSet::from([from]), vec![from]);
        while let Some(session) = left.pop() {
            if session == to {
                return true;
            }
            let edges = self.edges.range((session, WaitKey(0))..=(session, WaitKey(u64::MAX)));
            let next = edges.filter(|(_, count)| count.counts()).map(|((_, next), _)| *next);
            left.extend(next.filter(|next| seen.insert(*next)));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permits::semaphore::Semaphore;
    use crate::time::clock::Clock;

    fn key(number: u64) -> WaitKey {
        WaitKey(number)
    }

    fn waiter(number: u64, turn: Option<u64>) -> Waiter {
        let permit = TurnPermit::new(Semaphore::new(1), Clock::System);
        Waiter { id: SessionId::new(), key: key(number), permit, turn: turn.map(TurnId::new) }
    }

    fn graph(edges: impl Iterator<Item = (WaitKey, WaitKey)>) -> WaitGraph {
        let edges = edges.map(|edge| (edge, EdgeCount { own: 1, on_behalf: Vec::new() })).collect();
        WaitGraph { edges, next_number: 0 }
    }

    #[test]
    fn a_chain_may_be_longer_than_the_stack_is_deep() {
        let waits = graph((0..100_000).map(|number| (key(number), key(number + 1))));
        assert!(waits.leads_to(key(0), key(100_000)));
        assert!(!waits.leads_to(key(1), key(0)));
        assert!(waits.leads_to(key(7), key(7)));
    }

    #[test]
    fn a_session_on_many_paths_is_visited_once() {
        // Two sessions in each layer, each waiting for both of the next layer: there are 2^60 paths.
        let edges = |number| [number / 2 * 2 + 2, number / 2 * 2 + 3].map(|next| (key(number), key(next)));
        let waits = graph((0..120).flat_map(edges));
        assert!(!waits.leads_to(key(0), key(1)));
        assert!(waits.leads_to(key(0), key(121)));
    }

    #[test]
    fn c33_edges_are_counted() {
        let (mut waits, from) = (WaitGraph::new(), waiter(1, None));
        let mut entry = || waits.insert(&from, key(2), None).entry.take().unwrap();
        let [first, second] = [entry(), entry()];
        waits.remove(first);
        assert!(waits.leads_to(key(1), key(2)));
        waits.remove(second);
        assert!(!waits.leads_to(key(1), key(2)) && waits.edges.is_empty());
    }

    #[test]
    fn c61_an_edge_on_behalf_of_a_turn_counts_until_the_turn_ends() {
        let (mut waits, of_turn, turn) = (WaitGraph::new(), waiter(1, Some(7)), CancelToken::new());
        let entry = waits.insert(&of_turn, key(2), Some(&turn)).entry.take().unwrap();
        assert!(waits.leads_to(key(1), key(2)));
        turn.seal();
        assert!(!waits.leads_to(key(1), key(2)));
        assert!(waits.remove(entry).is_some() && waits.edges.is_empty());
        // The turn has ended already: the host waits.
        assert!(waits.insert(&of_turn, key(2), None).entry.is_none());
    }
}
