//! What a worker knows of the sessions that the engine has given to it. Its store, its agents and its attendants share it.
//!
//! **Invariant.** A session is in the table from its assignment until the local life has ended. While it is there, its
//! record is written only with the fence of the assignment. A session that was given up stays in the table, *released*,
//! until no local agent can save it any more: every save is then a conflict.

use std::collections::HashMap;

use crate::error::SessionError;
use crate::model::{SessionId, TurnId};
use crate::store::{TurnEnd, TurnOutcome};
use crate::sync::{bounded, Arc, AtomicU64, Mutex, Ordering, Receiver, Sender};

use super::super::messages::{Failure, Verdict};

/// The sessions of a worker.
#[derive(Default)]
pub(super) struct Hosting {
    sessions: Mutex<HashMap<SessionId, Arc<Hosted>>>,
}

/// A session that was given to this worker.
pub(super) struct Hosted {
    pub(super) id: SessionId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None` after the release.
    owner: Option<Owner>,
    /// The last one, also after the release. What is answered or given up then is so under it.
    assigned: Option<Owner>,
    /// The number that the next turn has at the engine; 0 if none is about to begin.
    next_turn: u64,
    turn: Option<HostedTurn>,
    /// The last local turn, if the engine has not given it out. It may have the number of `turn`.
    own_turn: Option<TurnId>,
    /// The turns in flight that were begun here, in this epoch. None of them is begun again.
    begun: Vec<u64>,
    /// The highest turn of this epoch that was in flight when one of them was to be begun.
    highest: u64,
    /// What clients have granted to the feeds that run.
    grants: Vec<Arc<Grant>>,
}

/// The credit that a client has given to a feed.
pub(super) struct Grant {
    /// The feed and its epoch, with a colon between them.
    feed: String,
    /// The sum of costs up to which the client takes events.
    sum: AtomicU64,
    changed: Sender<()>,
}

/// The fence: the incarnation of the worker, and the session's epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) wid: Arc<str>,
    pub(super) epoch: Arc<str>,
}

/// The turn in flight that runs here, and is not answered yet.
struct HostedTurn {
    id: TurnId,
    request: Arc<str>,
    /// In host mode a turn goes on after its prompt has run.
    is_hosting: bool,
    /// What the agent has returned.
    verdict: Option<Verdict>,
    /// What is left in flight after the answer.
    left: Option<bool>,
}

/// A turn that the next save of its session ends.
pub(super) struct Ending {
    pub(super) request: Arc<str>,
    pub(super) verdict: Verdict,
}

impl Hosting {
    pub(super) fn find(&self, id: SessionId) -> Option<Arc<Hosted>> {
        self.sessions.lock().get(&id).cloned()
    }

    /// The session, which is added if it is new.
    pub(super) fn enter(&self, id: SessionId) -> Arc<Hosted> {
        let new = || Arc::new(Hosted { id, state: Mutex::default() });
        Arc::clone(self.sessions.lock().entry(id).or_insert_with(new))
    }

    /// Removes a session whose local life has ended.
    pub(super) fn remove(&self, id: SessionId) {
        self.sessions.lock().remove(&id);
    }

    pub(super) fn all(&self) -> Vec<Arc<Hosted>> {
        self.sessions.lock().values().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.lock().len()
    }
}

impl Grant {
    pub(super) fn sum(&self) -> u64 {
        self.sum.load(Ordering::SeqCst)
    }
}

impl Hosted {
    /// A session that is in no table.
    pub(super) fn of(id: SessionId, owner: Owner) -> Self {
        Self { id, state: Mutex::new(State { assigned: Some(owner), ..State::default() }) }
    }

    pub(super) fn owner(&self) -> Option<Owner> {
        self.state.lock().owner.clone()
    }

    pub(super) fn set_owner(&self, owner: Owner) {
        let mut state = self.state.lock();
        if state.assigned.as_ref() != Some(&owner) {
            state.begun.clear();
            state.highest = 0;
        }
        state.assigned = Some(owner.clone());
        state.owner = Some(owner);
    }

    /// The fence of the last assignment.
    pub(super) fn assigned(&self) -> Option<Owner> {
        self.state.lock().assigned.clone()
    }

    /// From now on every save of the session is a conflict.
    pub(super) fn release(&self) {
        let mut state = self.state.lock();
        state.turn = None;
        state.owner = None;
    }

    /// The session is this worker's again, in the same epoch: its local life has ended.
    pub(super) fn restore(&self, owner: Option<Owner>) {
        self.state.lock().owner = owner;
    }

    /// Notes that these turns are in flight. Returns whether the first of them was begun here before.
    pub(super) fn was_begun(&self, in_flight: &[u64]) -> bool {
        let mut state = self.state.lock();
        state.begun.retain(|number| in_flight.contains(number));
        state.highest = in_flight.iter().copied().fold(state.highest, u64::max);
        in_flight.first().is_some_and(|first| state.begun.contains(first))
    }

    /// Whether the session is this worker's under this fence, and the turn is above all that were in flight before.
    pub(super) fn is_new(&self, owner: &Owner, turn: u64) -> bool {
        let state = self.state.lock();
        state.owner.as_ref() == Some(owner) && turn > state.highest
    }

    pub(super) fn next_turn(&self) -> u64 {
        self.state.lock().next_turn
    }

    /// Notes the turn that is about to begin here.
    pub(super) fn begin_turn(&self, id: TurnId, request: Arc<str>, is_hosting: bool) {
        let mut state = self.state.lock();
        state.next_turn = id.get();
        state.begun.push(id.get());
        state.turn = Some(HostedTurn { id, request, is_hosting, verdict: None, left: None });
    }

    /// Notes that a local turn runs which the engine has not given out, or with `None` one that it has.
    pub(super) fn note_own_turn(&self, turn: Option<TurnId>) {
        self.state.lock().own_turn = turn;
    }

    /// Notes what the agent has returned from its call, before the call's history is saved.
    pub(super) fn set_verdict(&self, turn: TurnId, verdict: Verdict) {
        if let Some(own) = self.state.lock().turn.as_mut().filter(|own| own.id == turn) {
            own.verdict = Some(verdict);
        }
    }

    /// The turn that a save at its end answers. `None` if it is answered already, was not given out, or goes on in host
    /// mode.
    pub(super) fn ending(&self, end: TurnEnd) -> Option<Ending> {
        let state = self.state.lock();
        if state.own_turn == Some(end.turn_id) {
            return None;
        }
        let own = state.turn.as_ref().filter(|own| own.id == end.turn_id && own.left.is_none())?;
        if own.is_hosting && end.outcome != TurnOutcome::Faulted {
            return None;
        }
        let panicked = || Err(Failure::new(&SessionError::Faulted { id: self.id, message: "it panicked".into() }));
        Some(Ending { request: Arc::clone(&own.request), verdict: own.verdict.clone().unwrap_or_else(panicked) })
    }

    /// Notes that the turn is answered.
    pub(super) fn set_answered(&self, turn: TurnId, left: bool) {
        if let Some(own) = self.state.lock().turn.as_mut().filter(|own| own.id == turn) {
            own.left = Some(left);
        }
    }

    /// Ends the turn. Returns whether turns are left in flight, if a save has answered it.
    pub(super) fn end_turn(&self) -> Option<bool> {
        let mut state = self.state.lock();
        state.next_turn = 0;
        state.turn.take().and_then(|own| own.left)
    }

    /// Whether a save has answered this turn.
    pub(super) fn is_answered(&self, turn: TurnId) -> bool {
        self.state.lock().turn.as_ref().is_none_or(|own| own.id != turn || own.left.is_some())
    }

    /// Adds a feed. It is removed by [`end_grant`](Self::end_grant). The receiver tells of every change, also of one that is no
    /// sum.
    pub(super) fn add_grant(&self, feed: String) -> (Arc<Grant>, Receiver<()>) {
        let (changed, changes) = bounded(1);
        let grant = Arc::new(Grant { feed, sum: AtomicU64::new(0), changed });
        self.state.lock().grants.push(Arc::clone(&grant));
        (grant, changes)
    }

    pub(super) fn end_grant(&self, grant: &Arc<Grant>) {
        self.state.lock().grants.retain(|other| !Arc::ptr_eq(other, grant));
    }

    /// A client takes events of a feed up to a sum of costs, or no more if this is no number.
    pub(super) fn grant(&self, feed: &[u8], sum: &[u8]) {
        let sum = std::str::from_utf8(sum).ok().and_then(|sum| sum.parse().ok());
        for grant in self.state.lock().grants.iter().filter(|grant| grant.feed.as_bytes() == feed) {
            if let Some(sum) = sum {
                grant.sum.fetch_max(sum, Ordering::SeqCst);
            }
            // If it is full the feed looks anyway, and behind the change.
            let _ = grant.changed.try_send(());
        }
    }
}
