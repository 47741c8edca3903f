//! The sessions that hold capacity, in the order of their creation.
//!
//! A session is in the registry from its registration until its thread holds nothing of it. The registry does not decide
//! whether callers see the session. Its own gate hides a closed session, so a close is one atomic operation.
//!
//! **Invariants.**
//! - The lock is held for look-ups and changes of the map only, never during a wait or a call of user code.
//! - An entry without a handle is a gap, left by a session that has ended. Removing an entry from the middle would move
//!   all later entries, under the write lock. So gaps stay until they are a fraction of the map, and are removed
//!   together. A gap at the end is removed at once. Gaps are never counted, found or listed.

use std::collections::{BTreeMap, HashMap, VecDeque};

use indexmap::IndexMap;

use crate::error::SessionError;
use crate::model::{Labels, SessionId, SessionSnapshot, TurnId};
use crate::permits::semaphore::{Permit, Semaphore, Unavailable};
use crate::service::{SessionQuery, SessionSummary};
use crate::session::handle::{summarize, SessionHandle};
use crate::status::slab::{Status, StatusSlab};
use crate::sync::{Arc, RwLock};
use crate::wait::latch::Latch;

/// How many ended sessions are remembered, for `archive_wait` and as cursors of `list`.
const REMEMBERED: usize = 16_384;
/// Gaps are removed when there are more than this, plus one for every eighth entry.
const FEW_GAPS: usize = 32;

#[derive(Debug)]
pub(crate) struct Registry {
    sessions: RwLock<Sessions>,
    statuses: StatusSlab,
    /// Set once the registry is shut down. It ends the waits for capacity.
    shutdown: Latch,
}

#[derive(Debug, Default)]
struct Sessions {
    entries: IndexMap<SessionId, Slot>,
    gaps: usize,
    shut_down: bool,
    /// How many sessions were ever registered.
    registered: u64,
    /// Set by the next registration, and by the shutdown, after which there are no more.
    next_registration: Option<Arc<Latch>>,
    ended: Ended,
}

/// A slot in the order of creation; a gap if the session has ended.
#[derive(Debug)]
struct Slot {
    /// The number of the session among all that were ever registered. It rises along the map.
    number: u64,
    entry: Option<Entry>,
}

/// The sessions that ended last, with their numbers.
#[derive(Debug, Default)]
struct Ended {
    /// Latest last.
    order: VecDeque<(SessionId, u64)>,
    /// The latest number of each id.
    numbers: HashMap<SessionId, u64>,
}

#[derive(Debug)]
struct Entry {
    handle: Arc<SessionHandle>,
    /// The handle's status and labels: a list reads only these two.
    status: Status,
    labels: Labels,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self { sessions: RwLock::default(), statuses: StatusSlab::default(), shutdown: Latch::new() }
    }

    /// The status of a session that is about to be built. Its earlier lives had `turns` turns. `first` is its first
    /// turn.
    pub(crate) fn new_status(&self, turns: u64, first: Option<TurnId>, snapshot: &SessionSnapshot) -> Status {
        self.statuses.building(turns, first, snapshot)
    }

    /// Takes the id and the capacity of a session: both or neither. `reserved` is the unit of capacity that was reserved
    /// for it.
    pub(crate) fn register(
        &self,
        handle: &Arc<SessionHandle>,
        capacity: &Arc<Semaphore>,
        mut reserved: Option<Permit>,
    ) -> Result<Permit, SessionError> {
        let (permit, waiters) = loop {
            {
                let mut sessions = self.sessions.write();
                if sessions.shut_down {
                    return Err(SessionError::ShuttingDown);
                }
                if sessions.contains(handle.id()) {
                    return Err(SessionError::AlreadyExists { id: handle.id() });
                }
                match reserved.take().map_or_else(|| capacity.try_acquire(), Ok) {
                    Ok(permit) => {
                        sessions.registered += 1;
                        sessions.insert(Arc::clone(handle));
                        break (permit, sessions.next_registration.take());
                    }
                    Err(Unavailable::Exhausted(active)) => {
                        return Err(SessionError::CapacityExceeded { active, max: capacity.limit() });
                    }
                    Err(Unavailable::AwaitedByOthers) => {}
                }
            }
            // With no lock held: it wakes the threads that wait for a reservation.
            capacity.grant_free_permits();
        };
        if let Some(waiters) = waiters {
            waiters.set();
        }
        Ok(permit)
    }

    /// Removes a session that has ended.
    pub(crate) fn remove(&self, id: SessionId) {
        let handle = self.sessions.write().remove(id);
        // This may be the last handle, so it is dropped with no lock held.
        drop(handle);
    }

    /// The session with this id, open or closed.
    pub(crate) fn find(&self, id: SessionId) -> Option<Arc<SessionHandle>> {
        self.sessions.read().find(id).cloned()
    }

    /// Whether a session with this id is among the last that have ended.
    pub(crate) fn has_ended(&self, id: SessionId) -> bool {
        self.sessions.read().ended.numbers.contains_key(&id)
    }

    /// Lists the open sessions that match `query`, oldest first.
    ///
    /// Each session is read under the lock, without cloning its handle. A session that changes at that moment is read
    /// again afterwards, because that read may have to wait.
    pub(crate) fn list(&self, query: &SessionQuery) -> Result<Vec<SessionSummary>, SessionError> {
        loop {
            if let Some(page) = self.page(query)? {
                return Ok(page);
            }
        }
    }

    /// Returns `None` if a session was closed between its two reads, so that another session belongs on the page.
    fn page(&self, query: &SessionQuery) -> Result<Option<Vec<SessionSummary>>, SessionError> {
        let limit = query.limit.unwrap_or(usize::MAX);
        let (mut page, mut changing) = (Vec::new(), Vec::new());
        {
            let sessions = self.sessions.read();
            let first = match query.after {
                None => 0,
                Some(id) => sessions.index_after(id).ok_or(SessionError::NotFound { id })?,
            };
            let entries = sessions.entries.get_range(first..).map(|entries| entries.iter());
            let matching = entries
                .into_iter()
                .flatten()
                .filter_map(|(id, slot)| Some((*id, slot.entry.as_ref()?)))
                .filter(|(_, entry)| entry.is_open() && entry.has_labels(&query.labels));
            page.reserve(limit.min(sessions.entries.len().saturating_sub(first)));
            for (id, entry) in matching.skip(query.offset.unwrap_or(0)) {
                let place = page.len() + changing.len();
                if place == limit {
                    break;
                }
                match entry.status.try_read() {
                    // Closed since the filter.
                    Some((gate, ..)) if gate.is_closed() => {}
                    Some((gate, queued, figures)) => page.push(summarize(id, gate, queued, figures, &entry.labels)),
                    None => changing.push((place, Arc::clone(&entry.handle), entry.labels.clone())),
                }
            }
        }
        let is_full = page.len() + changing.len() == limit;
        // Each is inserted at its position, less the earlier ones that have been closed meanwhile.
        let mut closed = 0;
        for (place, handle, labels) in changing {
            // The labels by which the query has found it.
            match handle.summary(&labels) {
                Some(summary) => page.insert(place - closed, summary),
                None => closed += 1,
            }
        }
        Ok((!is_full || closed == 0).then_some(page))
    }

    /// Sets the labels of an open session, for reads and lists at once. Returns whether there is one.
    pub(crate) fn set_labels(&self, id: SessionId, labels: Labels) -> bool {
        let last = {
            let mut sessions = self.sessions.write();
            let entry = sessions.entries.get_mut(&id).and_then(|slot| slot.entry.as_mut());
            let Some(entry) = entry.filter(|entry| entry.is_open()) else { return false };
            (entry.handle.set_labels(labels.clone()), std::mem::replace(&mut entry.labels, labels))
        };
        drop(last);
        true
    }

    /// How many sessions hold capacity, open or closed. Includes for a moment those that have just given it back.
    pub(crate) fn count(&self) -> usize {
        let sessions = self.sessions.read();
        sessions.entries.len() - sessions.gaps
    }

    /// The sessions that hold capacity, open or closed.
    pub(crate) fn all(&self) -> Vec<Arc<SessionHandle>> {
        self.sessions.read().handles()
    }

    /// Refuses all further registrations, and returns the sessions that hold capacity.
    pub(crate) fn shut_down(&self) -> Vec<Arc<SessionHandle>> {
        let (live, waiters) = {
            let mut sessions = self.sessions.write();
            sessions.shut_down = true;
            (sessions.handles(), sessions.next_registration.take())
        };
        if let Some(waiters) = waiters {
            waiters.set();
        }
        self.shutdown.set();
        live
    }

    /// The latch that a shutdown sets, after it has marked the registry.
    pub(crate) fn shutdown(&self) -> &Latch {
        &self.shutdown
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.sessions.read().shut_down
    }

    /// How many sessions were ever registered.
    pub(crate) fn registrations(&self) -> u64 {
        self.sessions.read().registered
    }

    /// Returns the count if it exceeds `seen`; otherwise a latch that the next registration sets, or no latch after a
    /// shutdown. Both are read under one lock, so that no registration is missed.
    pub(crate) fn registrations_after(&self, seen: u64) -> Result<u64, Option<Arc<Latch>>> {
        let mut sessions = self.sessions.write();
        if sessions.registered > seen {
            return Ok(sessions.registered);
        }
        if sessions.shut_down {
            return Err(None);
        }
        Err(Some(Arc::clone(sessions.next_registration.get_or_insert_with(|| Arc::new(Latch::new())))))
    }
}

impl Entry {
    #[inline]
    fn is_open(&self) -> bool {
        !self.status.gate.state().is_closed()
    }

    #[inline]
    fn has_labels(&self, wanted: &BTreeMap<String, String>) -> bool {
        wanted.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }
}

impl Sessions {
    fn contains(&self, id: SessionId) -> bool {
        self.find(id).is_some()
    }

    /// The index behind session `id`, which is open, closed, or among the last that have ended.
    fn index_after(&self, id: SessionId) -> Option<usize> {
        if let Some((index, _, slot)) = self.entries.get_full(&id) {
            if slot.entry.is_some() {
                return Some(index + 1);
            }
        }
        let number = *self.ended.numbers.get(&id)?;
        Some(self.entries.partition_point(|_, slot| slot.number <= number))
    }

    fn find(&self, id: SessionId) -> Option<&Arc<SessionHandle>> {
        self.entries.get(&id)?.entry.as_ref().map(|entry| &entry.handle)
    }

    fn handles(&self) -> Vec<Arc<SessionHandle>> {
        let entries = self.entries.values().filter_map(|slot| slot.entry.as_ref());
        entries.map(|entry| Arc::clone(&entry.handle)).collect()
    }

    fn insert(&mut self, handle: Arc<SessionHandle>) {
        // A reused id is a new session: it belongs at the end, not in the gap of the old one.
        if self.entries.shift_remove(&handle.id()).is_some() {
            self.gaps -= 1;
        }
        let (status, labels) = (handle.status().clone(), handle.labels());
        let (id, number) = (handle.id(), self.registered);
        self.entries.insert(id, Slot { number, entry: Some(Entry { handle, status, labels }) });
    }

    fn remove(&mut self, id: SessionId) -> Option<Arc<SessionHandle>> {
        let slot = self.entries.get_mut(&id)?;
        let Entry { handle, .. } = slot.entry.take()?;
        let number = slot.number;
        self.gaps += 1;
        self.ended.add(id, number);
        while matches!(self.entries.last(), Some((_, Slot { entry: None, .. }))) {
            self.entries.pop();
            self.gaps -= 1;
        }
        if self.gaps > FEW_GAPS + self.entries.len() / 8 {
            self.entries.retain(|_, slot| slot.entry.is_some());
            self.gaps = 0;
        }
        Some(handle)
    }
}

impl Ended {
    fn add(&mut self, id: SessionId, number: u64) {
        if self.order.len() == REMEMBERED {
            if let Some((oldest, number)) = self.order.pop_front() {
                // The same id may have ended again since.
                if self.numbers.get(&oldest) == Some(&number) {
                    self.numbers.remove(&oldest);
                }
            }
        }
        self.order.push_back((id, number));
        self.numbers.insert(id, number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::CancelToken;
    use crate::ids::numbers::Numbering;
    use crate::model::Session;
    use crate::permits::semaphore::Semaphore;
    use crate::session::handle::Profile;

    fn handle(id: SessionId) -> Arc<SessionHandle> {
        let snapshot = SessionSnapshot::from(&Session::with_id(id));
        let (labels, ids, counters, clock) = Default::default();
        let (status, running) = (StatusSlab::default().building(0, None, &snapshot), Semaphore::new(1));
        let numbering = Numbering::default();
        let profile = Profile {
            status,
            id,
            model: "".into(),
            labels,
            snapshot,
            history: Session::with_id(id),
            inbox_capacity: 0,
            event_history: 0,
            ids,
            counters,
            clock,
            numbering,
            callback: None,
            running,
            service: crate::service::WeakService::none(),
            turn_queue: 0,
            may_be_unloaded: false,
        };
        let (handle, seal, admission) = SessionHandle::new(profile, None, CancelToken::new());
        seal.seal();
        admission.give_back();
        handle
    }

    fn listed(registry: &Registry, query: &SessionQuery) -> Vec<SessionId> {
        registry.list(query).unwrap().iter().map(|summary| summary.session_id).collect()
    }

    #[test]
    fn order_and_pages_stand_through_any_removals() {
        let (registry, capacity) = (Registry::new(), Semaphore::new(3_000));
        let mut permits = Vec::new();
        let mut live = Vec::new();
        let mut seed = 7_u64;
        for _ in 0..3_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if !(seed >> 33).is_multiple_of(3) || live.is_empty() {
                let id = SessionId::new();
                permits.push(registry.register(&handle(id), &capacity, None).unwrap());
                live.push(id);
            } else {
                let id = live.remove((seed >> 40) as usize % live.len());
                registry.remove(id);
                permits.pop();
                assert!(registry.find(id).is_none());
                assert!(registry.has_ended(id));
            }
            let sessions = registry.sessions.read();
            assert_eq!(sessions.entries.len() - sessions.gaps, live.len());
            assert!(sessions.gaps <= FEW_GAPS + sessions.entries.len() / 8);
        }
        assert_eq!(listed(&registry, &SessionQuery::new()), live);
        let middle = live.len() / 2;
        let page = listed(&registry, &SessionQuery::new().after(live[middle]).limit(5));
        assert_eq!(page, live[middle + 1..middle + 6]);
        assert_eq!(listed(&registry, &SessionQuery::new().offset(live.len())), []);
    }

    #[test]
    fn a_reused_id_goes_to_the_end() {
        let (registry, capacity) = (Registry::new(), Semaphore::new(8));
        let ids: Vec<_> = (0..3).map(|_| SessionId::new()).collect();
        let mut permits: Vec<_> =
            ids.iter().map(|id| registry.register(&handle(*id), &capacity, None).unwrap()).collect();
        let again = registry.register(&handle(ids[0]), &capacity, None);
        assert!(matches!(again, Err(SessionError::AlreadyExists { .. })));
        registry.remove(ids[0]);
        assert_eq!(listed(&registry, &SessionQuery::new().after(ids[0])), [ids[1], ids[2]]);
        assert!(registry.list(&SessionQuery::new().after(SessionId::new())).is_err());
        permits.push(registry.register(&handle(ids[0]), &capacity, None).unwrap());
        assert_eq!(listed(&registry, &SessionQuery::new()), [ids[1], ids[2], ids[0]]);
        assert_eq!(registry.sessions.read().gaps, 0);
    }
}
