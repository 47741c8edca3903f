//! The records of sessions in use: which caller may write a session's record, and when.
//!
//! Three kinds of callers write a record: the session thread after a turn, a caller that archives or deletes the
//! session, and a caller that resumes it. They must not work on different states of it. So a record in use has one
//! [`RecordLease`], which its callers share, and an entry in the [`RecordTable`].
//!
//! # Two kinds of leases
//!
//! A lease *belongs to a session* as soon as the session certainly exists: a launch has found the record, or has found
//! none and begins one. It does so until the session's life is over ([`Owner`]). Meanwhile a create or a resume of the
//! session is refused, and an archive or a delete shares the lease.
//!
//! Any other lease is *undecided*. Its caller checks whether there is a record, or changes a record that no session
//! uses. Or a session's life is over, and a caller that shared its lease has not released it yet. An undecided lease
//! says nothing about the session, so no call fails because of it. A caller that finds one waits until it is released.
//! A turn lends its running permit for that wait. The holder may be a turn too, which takes its permit back before it
//! releases the lease. Without the loan the two would wait for each other.
//!
//! ```text
//! archive(id) of an id without a record     create(id)
//! reserves the lease: undecided             finds it: waits
//! finds no record: NotFound, releases       reserves, finds no record, begins one
//! ```
//!
//! A launch loads the record only after it has reserved the lease. A session's life releases the lease only after its
//! last save. So a launch loads the final record of the session's last life.
//!
//! # Failed saves
//!
//! A history that could not be saved after its turn is saved with the next turn, at the latest when the session ends.
//! Before a take, the session thread [catches up](RecordLease::catch_up) between two turns, and the session ends only
//! after that. A caller that exported the history first and saved it later would undo a turn in between.

use std::collections::HashMap;
use std::ops::Deref;

use crate::error::SessionError;
use crate::ids::numbers::{LastNumbers, NumberRecord, Numbering};
use crate::model::{Session, SessionId};
use crate::panics::{contain, contain_and_log, record, Contained};
use crate::reentrancy;
use crate::service::{ArchiveMode, SessionSpec};
use crate::sync::{Arc, AtomicBool, AtomicU8, Mutex, Ordering, Weak};
use crate::time::clock::{Clock, Deadline};
use crate::wait::latch::Latch;

use super::error::{discard, Loggable, Panicked, StoreError};
use super::record::{StoredNumbers, StoredSession, StoredSummary};
use super::SessionStore;

/// The store, and the leases of the records in use.
pub(super) struct RecordTable {
    store: Contained<Box<dyn SessionStore>>,
    leases: Mutex<Leases>,
}

#[derive(Default)]
struct Leases {
    entries: HashMap<SessionId, LeaseEntry>,
    /// Set when a lease is released, or becomes a session's. `None` while no caller waits for that.
    changed: Option<Arc<Latch>>,
}

/// A lease, and the state that callers read without a share of it. A share would keep the lease from its next user.
struct LeaseEntry {
    lease: Weak<RecordLease>,
    belongs_to_session: bool,
    standing: Arc<Standing>,
}

/// The state that a caller reads without a share of the lease: whether the session may run turns, and whether it is
/// being launched. It is outside the record's lock, so that readers do not wait for the disk.
pub(super) struct Standing {
    /// Written under the record's lock.
    state: AtomicU8,
    /// The caller that archived or deleted the session also cancels its turn. Written before `state`.
    is_interrupted: AtomicBool,
    /// A launch will register the session in the ephemeral service. A caller that does not find it there has to try
    /// again.
    is_launching: AtomicBool,
}

const OPEN: u8 = 0;
const ARCHIVED: u8 = 1;
const DELETED: u8 = 2;

/// The right to write one session's record.
pub(super) struct RecordLease {
    id: SessionId,
    table: Arc<RecordTable>,
    standing: Arc<Standing>,
    /// The agent runs, or it panicked while it ran. Then its history may be inconsistent.
    is_agent_running: AtomicBool,
    /// Locked during calls of the store, which is foreign code: [`SessionStore`] says what it must not do.
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    /// The session as stored, or as it will be. `None` until it is known.
    session: Option<StoredSession>,
    /// The store has a record of the session.
    is_stored: bool,
    /// The store has `session` in its current state.
    is_current: bool,
    /// The agent's history differs from that of `session`, and could not be exported.
    is_behind_agent: bool,
    /// The session has been deleted: nothing of it is saved any more.
    is_deleted: bool,
    /// The session's life is over, and its exact numbers are in `session`.
    is_over: bool,
}

/// How many turn numbers, and event numbers, a record reserves at a time. After a kill up to that many are skipped.
const BLOCK: LastNumbers = LastNumbers { turn: 256, event: 1 << 20 };

impl RecordTable {
    pub(super) fn new(store: Box<dyn SessionStore>) -> Arc<Self> {
        let store = Contained::new("the drop of a store", store);
        Arc::new(Self { store, leases: Mutex::default() })
    }

    /// The lease of a session that is live, or is being launched.
    pub(super) fn find(&self, id: SessionId) -> Option<Arc<RecordLease>> {
        let leases = self.leases.lock();
        leases.entries.get(&id).filter(|entry| entry.belongs_to_session).and_then(|entry| entry.lease.upgrade())
    }

    /// The error for a session whose lease is in use: it is archived, deleted, or busy.
    pub(super) fn refusal(&self, id: SessionId) -> SessionError {
        match self.standing(id) {
            Some(ARCHIVED) => SessionError::Archived { id },
            Some(DELETED) => SessionError::NotFound { id },
            _ => SessionError::Busy { id, turn: None },
        }
    }

    /// Whether the session's lease is in use, and the session is archived. For callers that only read.
    pub(super) fn is_archived(&self, id: SessionId) -> bool {
        self.standing(id) == Some(ARCHIVED)
    }

    /// Whether the session's lease is in use, and the session is deleted. For callers that only read.
    pub(super) fn is_deleted(&self, id: SessionId) -> bool {
        self.standing(id) == Some(DELETED)
    }

    fn standing(&self, id: SessionId) -> Option<u8> {
        let leases = self.leases.lock();
        let entry = leases.entries.get(&id).filter(|entry| entry.lease.strong_count() > 0);
        entry.map(|entry| entry.standing.state())
    }

    /// Reserves the lease to launch a session; `None` if the lease is a session's.
    pub(super) fn reserve_launch(self: &Arc<Self>, id: SessionId) -> Result<Option<Launching>, SessionError> {
        let lease = self.reserve_as(id, true)?;
        Ok(lease.map(|lease| Launching { owner: Arc::new(Owner(lease)) }))
    }

    /// Reserves the lease to change a session's record; `None` if the lease is a session's.
    pub(super) fn reserve(self: &Arc<Self>, id: SessionId) -> Result<Option<Arc<RecordLease>>, SessionError> {
        self.reserve_as(id, false)
    }

    /// Waits while the lease is undecided. On a session thread the turn lends its permit meanwhile, since the holder of
    /// the lease may need one before it releases the lease. The turn's cancellation ends the wait.
    fn reserve_as(self: &Arc<Self>, id: SessionId, to_launch: bool) -> Result<Option<Arc<RecordLease>>, SessionError> {
        loop {
            let changed = {
                let mut leases = self.leases.lock();
                // An entry without shares is that of a lease that is being dropped.
                match leases.entries.get(&id).filter(|entry| entry.lease.strong_count() > 0) {
                    None => return Ok(Some(self.insert(&mut leases, id, to_launch))),
                    Some(entry) if entry.belongs_to_session => return Ok(None),
                    Some(_) => Arc::clone(leases.changed.get_or_insert_with(|| Arc::new(Latch::new()))),
                }
            };
            let waited = reentrancy::receive(changed.receiver(), &Deadline::never());
            waited.map_err(|error| error.into_session_error(id, &Clock::System.stopwatch()))?;
        }
    }

    fn insert(self: &Arc<Self>, leases: &mut Leases, id: SessionId, to_launch: bool) -> Arc<RecordLease> {
        let standing = Arc::new(Standing {
            state: AtomicU8::new(OPEN),
            is_interrupted: AtomicBool::new(false),
            is_launching: AtomicBool::new(to_launch),
        });
        let lease = Arc::new(RecordLease {
            id,
            table: Arc::clone(self),
            standing: Arc::clone(&standing),
            is_agent_running: AtomicBool::new(false),
            record: Mutex::default(),
        });
        let entry = LeaseEntry { lease: Arc::downgrade(&lease), belongs_to_session: false, standing };
        leases.entries.insert(id, entry);
        lease
    }

    /// Changes the leases, and wakes the callers that wait for a change.
    fn change(&self, change: impl FnOnce(&mut HashMap<SessionId, LeaseEntry>)) {
        let changed = {
            let mut leases = self.leases.lock();
            change(&mut leases.entries);
            leases.changed.take()
        };
        if let Some(changed) = changed {
            changed.set();
        }
    }

    fn set_belongs_to_session(&self, lease: &RecordLease, belongs_to_session: bool) {
        self.change(|entries| {
            if let Some(entry) = entries.get_mut(&lease.id).filter(|entry| entry.is_of(lease)) {
                entry.belongs_to_session = belongs_to_session;
            }
        });
    }

    pub(super) fn load(&self, id: SessionId) -> Result<Option<StoredSession>, SessionError> {
        self.call(|store| store.load(id)).map_err(|error| error.about(id))
    }

    pub(super) fn summary(&self, id: SessionId) -> Result<Option<StoredSummary>, SessionError> {
        self.call(|store| store.summary(id)).map_err(|error| error.about(id))
    }

    pub(super) fn summaries(&self) -> Result<Vec<Result<StoredSummary, StoreError>>, SessionError> {
        let failed = |error| SessionError::Store { id: None, source: Arc::new(error) };
        self.call(SessionStore::summaries).map_err(failed)
    }

    /// Calls the store, which is foreign code.
    fn call<T>(&self, request: impl FnOnce(&dyn SessionStore) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let answer = contain(|| request(&**self.store));
        answer.unwrap_or_else(|message| Err(StoreError::failed(Panicked { of: "the store", message })))
    }
}

impl LeaseEntry {
    fn is_of(&self, lease: &RecordLease) -> bool {
        std::ptr::eq(self.lease.as_ptr(), lease)
    }
}

impl Standing {
    fn state(&self) -> u8 {
        // ORDERING: Acquire, with the Release of the store. That an archive or its concurrent launch sees the other is
        // by the registry's lock: an archive sets this first and reads the registry next, a launch registers first and
        // reads this next.
        self.state.load(Ordering::Acquire)
    }

    fn set_state(&self, state: u8) {
        self.state.store(state, Ordering::Release);
    }

    /// Whether the session is archived or deleted, and so runs no turn.
    pub(super) fn is_closed(&self) -> bool {
        self.state() != OPEN
    }

    pub(super) fn is_launching(&self) -> bool {
        // ORDERING: Acquire, with the Release of `end_launch`: a caller that sees the launch over sees that it has
        // registered.
        self.is_launching.load(Ordering::Acquire)
    }

    fn end_launch(&self) {
        self.is_launching.store(false, Ordering::Release);
    }

    /// The mode of the archive or delete. Valid only after [`is_closed`](Self::is_closed) has returned true.
    pub(super) fn archive_mode(&self) -> ArchiveMode {
        // ORDERING: Acquire, with the Release of the store; it comes before that of `state`.
        match self.is_interrupted.load(Ordering::Acquire) {
            true => ArchiveMode::Interrupt,
            false => ArchiveMode::Drain,
        }
    }
}

impl RecordLease {
    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    /// Begins the record of a new session.
    fn begin(&self, session: StoredSession) {
        self.record.lock().session = Some(session);
    }

    /// The record of a session that may run turns.
    pub(super) fn stored(&self) -> Result<StoredSession, SessionError> {
        let id = self.id;
        let mut record = self.record.lock();
        match &self.loaded(&mut record)?.session {
            Some(session) if session.archived => Err(SessionError::Archived { id }),
            Some(session) => Ok(session.clone()),
            None => Err(SessionError::NotFound { id }),
        }
    }

    /// The record, loaded from the store on first use.
    fn loaded<'a>(&self, record: &'a mut Record) -> Result<&'a mut Record, SessionError> {
        if record.session.is_none() && !record.is_deleted {
            if let Some(session) = self.table.load(self.id)? {
                self.standing.set_state(if session.archived { ARCHIVED } else { OPEN });
                *record = Record { session: Some(session), is_stored: true, is_current: true, ..Record::default() };
            }
        }
        Ok(record)
    }

    pub(super) fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// Whether the store has a record of the session.
    pub(super) fn is_stored(&self) -> bool {
        self.record.lock().is_stored
    }

    /// Repeats a save that has failed, if there is one. `newest` exports the agent's history, between two turns.
    pub(super) fn catch_up(&self, newest: impl FnOnce() -> Result<Session, StoreError>) -> Result<(), StoreError> {
        let mut record = self.record.lock();
        if record.is_behind_agent && !self.is_agent_running() {
            // With no lock held, because this calls the agent.
            drop(record);
            return self.save_history(newest()?, None);
        }
        if record.is_current || !record.is_stored {
            return Ok(());
        }
        self.save_again(&mut record)
    }

    /// Saves the history after a turn, and `used` with it. If that fails, the save of the next turn includes this one.
    pub(super) fn save_history(&self, history: Session, used: Option<LastNumbers>) -> Result<(), StoreError> {
        let mut record = self.record.lock();
        let Record { session: Some(session), is_current, is_behind_agent, is_deleted: false, .. } = &mut *record else {
            return Ok(());
        };
        *is_behind_agent = false;
        let history = history.owned_by(self.id);
        if *is_current && session.history == history {
            return Ok(());
        }
        session.history = history;
        if let Some(used) = used {
            session.numbers.note_used(used, BLOCK);
        }
        self.save_again(&mut record)
    }

    fn save_again(&self, record: &mut Record) -> Result<(), StoreError> {
        let Record { session: Some(session), is_stored, is_current, is_deleted: false, .. } = record else {
            return Ok(());
        };
        *is_current = false;
        self.table.call(|store| store.save(session))?;
        (*is_stored, *is_current) = (true, true);
        Ok(())
    }

    /// Records that the agent's history has changed and could not be exported.
    pub(super) fn note_behind_agent(&self) {
        self.record.lock().is_behind_agent = true;
    }

    /// Whether the agent runs, or panicked while it ran.
    pub(super) fn is_agent_running(&self) -> bool {
        // ORDERING: Relaxed; only the session thread writes and reads it.
        self.is_agent_running.load(Ordering::Relaxed)
    }

    pub(super) fn set_agent_running(&self, is_running: bool) {
        self.is_agent_running.store(is_running, Ordering::Relaxed);
    }

    /// Archives the session in the store. Returns false if it was archived before.
    pub(super) fn archive(&self, mode: ArchiveMode) -> Result<bool, SessionError> {
        let mut record = self.record.lock();
        let Record { session: Some(session), is_stored, is_current, is_deleted: false, .. } =
            self.loaded(&mut record)?
        else {
            return Err(SessionError::NotFound { id: self.id });
        };
        if session.archived {
            self.close(ARCHIVED, mode);
            return Ok(false);
        }
        session.archived = true;
        // A session without a record is saved as archived when its agent is built.
        if *is_stored {
            let saved = self.table.call(|store| store.save(session));
            saved.map_err(|error| {
                // The store may have written the record, so the open state must be saved again.
                (session.archived, *is_current) = (false, false);
                error.about(self.id)
            })?;
            *is_current = true;
        }
        self.close(ARCHIVED, mode);
        Ok(true)
    }

    fn close(&self, standing: u8, mode: ArchiveMode) {
        if mode == ArchiveMode::Interrupt {
            self.standing.is_interrupted.store(true, Ordering::Release);
        }
        self.standing.set_state(standing);
    }

    /// Deletes the session from the store. Returns whether there was a session.
    pub(super) fn delete(&self) -> Result<bool, SessionError> {
        let mut record = self.record.lock();
        let was_stored = self.table.call(|store| store.delete(self.id)).map_err(|error| error.about(self.id))?;
        let is_there = was_stored || (record.session.is_some() && !record.is_deleted);
        if is_there {
            record.is_deleted = true;
            self.close(DELETED, ArchiveMode::Interrupt);
        }
        Ok(is_there)
    }
}

impl RecordLease {
    /// Releases a share of the lease. After the last share the next caller can reserve the lease.
    pub(super) fn release(self: Arc<Self>) {
        drop(self);
    }

    /// Deletes the record, if any, of a session that was not `begun`. A failure is only logged, because no caller
    /// waits.
    pub(super) fn withdraw(&self, begun: &str) {
        if let Err(error) = self.delete() {
            let (id, code) = (self.id, error.code());
            record!(Warn, "turnwise::store", "session {id}: it was not {begun}, and may be in the store: {code}");
            contain_and_log("the drop of a store's error", move || drop(error));
        }
    }
}

/// A session's share of its lease, from its launch to the end of its life. The ephemeral service holds it, with the
/// session's numbers.
pub(super) struct Owner(Arc<RecordLease>);

impl NumberRecord for Owner {
    fn reserve(&self, used: LastNumbers) -> Result<LastNumbers, SessionError> {
        let lease = &*self.0;
        let mut record = lease.record.lock();
        let Record { session: Some(session), is_stored, is_deleted, is_over: false, .. } = &mut *record else {
            // An emitter after the end of the session: no subscriber sees its numbers.
            return Ok(used);
        };
        let last = session.numbers;
        session.numbers.reserve(used, BLOCK);
        let reserved = session.numbers.reserved();
        // A session without a record is saved when its agent is built, with these numbers.
        if *is_stored && !*is_deleted {
            if let Err(error) = lease.save_again(&mut record) {
                if let Some(session) = &mut record.session {
                    session.numbers = last;
                }
                return Err(error.about(lease.id));
            }
        }
        Ok(reserved)
    }

    fn finish(&self, used: LastNumbers) {
        self.save_last_numbers(used);
        self.release();
    }
}

impl Owner {
    /// Ends the session's claim on the lease, which is undecided from now on.
    fn release(&self) {
        self.0.table.set_belongs_to_session(&self.0, false);
    }

    fn save_last_numbers(&self, used: LastNumbers) {
        let lease = &*self.0;
        let mut record = lease.record.lock();
        let Record { session: Some(session), is_stored: true, is_deleted: false, is_over, .. } = &mut *record else {
            return;
        };
        *is_over = true;
        if !session.numbers.finish(used) {
            return;
        }
        if let Err(error) = lease.save_again(&mut record) {
            drop(record);
            record!(Warn, "turnwise::store", "session {}: its next numbers will jump: {}", lease.id, Loggable(&error));
            discard(error);
        }
    }
}

/// For a launch that does not lead to a life. After the orderly end of a life it changes nothing: until this drop the
/// owner's share keeps the lease from its next user.
impl Drop for Owner {
    fn drop(&mut self) {
        self.release();
    }
}

/// The right to launch a session.
pub(super) struct Launching {
    owner: Arc<Owner>,
}

/// A launch in progress. It holds no share of the lease, because the session may end while the launching caller still
/// waits.
pub(super) struct LaunchInProgress {
    standing: Arc<Standing>,
    /// Identifies the life that is launched: the session's id may have a later life when the caller asks.
    pub(super) record: Weak<dyn NumberRecord>,
}

impl Launching {
    fn lease(&self) -> &Arc<RecordLease> {
        &self.owner.0
    }

    /// Begins the record of a new session: the lease is the session's from now on.
    pub(super) fn begin(&self, session: StoredSession) {
        self.lease().begin(session);
        self.lease().table.set_belongs_to_session(self.lease(), true);
    }

    /// Loads the record of a session that may run turns: the lease is the session's from now on.
    pub(super) fn resume(&self) -> Result<StoredSession, SessionError> {
        let (lease, id) = (self.lease(), self.lease().id);
        let stored = lease.stored()?;
        stored.numbers.check(id).map_err(|error| error.about(id))?;
        lease.table.set_belongs_to_session(lease, true);
        Ok(stored)
    }

    /// Passes the lease to the session, whose turns and events are numbered from the record on.
    pub(super) fn leave_to(self, spec: &mut SessionSpec) -> (Arc<RecordLease>, LaunchInProgress) {
        let lease = Arc::clone(self.lease());
        let numbers = lease.record.lock().session.as_ref().map_or_else(StoredNumbers::default, |stored| stored.numbers);
        let owner: Arc<dyn NumberRecord> = self.owner;
        let launch = LaunchInProgress { standing: Arc::clone(&lease.standing), record: Arc::downgrade(&owner) };
        spec.numbering = Numbering { after: numbers.reserved(), known_events: numbers.events, record: Some(owner) };
        (lease, launch)
    }
}

impl LaunchInProgress {
    /// Ends the launch: the session is registered in the ephemeral service, or will not be.
    pub(super) fn end(self) {
        self.standing.end_launch();
    }
}

impl Deref for LaunchInProgress {
    type Target = Standing;

    fn deref(&self) -> &Standing {
        &self.standing
    }
}

impl Drop for LaunchInProgress {
    fn drop(&mut self) {
        self.standing.end_launch();
    }
}

impl Drop for RecordLease {
    fn drop(&mut self) {
        // For a lease that no launch has used up.
        self.standing.end_launch();
        let table = Arc::clone(&self.table);
        table.change(|entries| {
            // The entry may be that of the next user, which has found that this lease has no shares.
            if entries.get(&self.id).is_some_and(|entry| entry.is_of(self)) {
                entries.remove(&self.id);
            }
        });
    }
}
