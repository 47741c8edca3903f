//! The leases: all writers of a session's record change one copy of it, one writer at a time.
//!
//! # Ownership
//!
//! A record in use has one [`RecordLease`]. The lease owns the only copy of the record that is changed and saved, under
//! a mutex. Every writer has a share of the lease (an `Arc`). It locks the mutex, changes the copy and saves it. If
//! each writer loaded a copy of its own, the later save would undo the earlier one. The writers are:
//!
//! - the session thread: it saves the history after the build of a new session, and after every turn and interaction.
//!   At the end of the life it repeats a failed save, and saves the exact numbers of turns and events.
//! - any thread that needs the next block of numbers, and saves its bounds: a launching caller, a caller that admits a
//!   turn, or an emitter
//! - a caller that archives, takes or deletes the session
//!
//! The [`RecordTable`] finds the lease of an id, without a share of its own. A lease whose last share is dropped is
//! *free*. The next caller makes a new lease and loads the record from the store.
//!
//! # Launches and lives
//!
//! A *launch* is the start of a life. A create, a begin or an open launches a new session. A resume launches a stored
//! session, and so does a turn of a stored session that is not live. A launch reserves the lease, looks for the record,
//! and registers the session in the ephemeral service.
//!
//! A launch loads the record only after it has reserved the lease. A life keeps its lease until its last save. So every
//! life begins with the last save of the life before. If a launch loaded the record first, it could resume an old
//! history:
//!
//! ```text
//! the life that ends                  the next launch
//!                                     loads the record, without turn 4
//! saves turn 4; frees the lease
//!                                     reserves the lease; turn 5 runs without turn 4
//!                                     saves turn 5; the record has lost turn 4  ✗
//! ```
//!
//! # Leases of sessions, and undecided leases
//!
//! A lease *belongs to a session* once its launch has found the record, or has found none and begins one. The session
//! may not be registered yet, and its build may fail. The lease belongs to the session until the life is over or the
//! launch has failed ([`Owner`]). Meanwhile another launch of the id is refused, and a caller that archives, takes or
//! deletes the session shares the lease. A take also needs an open session. It is refused while the launch has yet to
//! register the session, and while the session ends.
//!
//! Any other lease that is not free is *undecided*:
//!
//! 1. A launch has reserved it, and looks for the record.
//! 2. A caller has reserved it to archive, take or delete a session that is not live.
//! 3. The life of its session is over, and a caller still has a share. Its archive, take, delete or open has not
//!    returned.
//!
//! An undecided lease does not tell whether there is a session, so no call fails because of it. A caller that needs the
//! lease waits until it is free, or belongs to a session. The wait has no timeout. It fails only if the waiting thread
//! runs a turn, and that turn is cancelled.
//!
//! ```text
//! archive(id) of an id without a record      create(id)
//! reserves the lease: it is undecided
//! looks for the record                       finds an undecided lease: waits
//! finds none; drops its share; NotFound
//!                                            reserves the free lease, finds no record, begins one
//! ```
//!
//! Without the wait, the create would fail with `AlreadyExists`, and the archive with `NotFound`. No order of the two
//! calls explains both errors.
//!
//! A turn lends its running permit during the wait. Another turn may hold the share, and may need a permit before it
//! can drop it. Without the loan the two turns would wait for each other.
//!
//! # Failed saves and failed exports
//!
//! After a failed *save* the lease has the new history, and the store has an older one or the new one: a save may fail
//! after it was written. So the next save by any writer repeats the failed one first, with the same revision, which
//! changes nothing if it was written. A save with another revision would conflict with it. Then it saves what has
//! changed since. After a failed *export* only the agent has the new history ([`CurrentRecord::is_behind_agent`]). Only
//! the session thread can export it again, between two turns or at the end of the life.
//!
//! The next turn repeats both. So does a take or an unload, and the end of the life at the latest. A failure at the end
//! is logged, because no caller waits for it. After a panic in a turn nothing is exported any more, since the agent's
//! history may be inconsistent.
//!
//! A take or an unload of a live session [catches up](RecordLease::catch_up) on the session thread, between two turns.
//! The session ends only if that succeeds. If the caller exported the history and saved it later, a turn could end in
//! between. The save would then undo that turn.
//!
//! # Other services on the same store
//!
//! A lease excludes the writers of one service. Two services that share a store exclude each other by the revision of
//! the record, a compare-and-set:
//!
//! ```text
//! service A                              service B
//! loads revision 1
//!                                        loads revision 1
//! saves: sees 1, writes 2
//!                                        its turn ends; saves: sees 1, finds 2: Conflict
//!                                        ends the session unsaved; the turn fails with the error
//!                                        its next turn loads revision 2
//! ```
//!
//! From the conflict on the lease is *lost*: no writer saves it, neither in a queued turn nor at the end of the life. The
//! session thread reads [`Loss`], closes the session, and answers the last turn and the queued ones with the error, after
//! id, capacity and lease are free. An archive loads the record again and archives that, since an archive does not depend
//! on the history.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;

use crate::error::SessionError;
use crate::ids::numbers::{LastNumbers, Loss, NumberRecord, Numbering};
use crate::model::{CallbackPending, HistoryChange, Message, Session, SessionId};
use crate::panics::{contain, contain_and_log, record, Contained};
use crate::reentrancy;
use crate::service::{ArchiveMode, SessionSpec};
use crate::sync::{Arc, AtomicBool, AtomicU8, Mutex, Ordering, Weak};
use crate::time::clock::{Clock, Deadline};
use crate::wait::latch::Latch;

use super::error::{discard, Loggable, Panicked, StoreError};
use super::record::{StoredNumbers, StoredSession, StoredSummary};
use super::save::{Change, Revision, Save, TurnEnd};
use super::SessionStore;

/// The store, and the leases of the records in use. A service has one table.
pub(super) struct RecordTable {
    store: Contained<Box<dyn SessionStore>>,
    leases: Mutex<Leases>,
}

#[derive(Default)]
struct Leases {
    entries: HashMap<SessionId, LeaseEntry>,
    /// Set at the next change: a lease becomes free, begins to belong to a session, or ceases to. `None` while no
    /// caller waits.
    changed: Option<Arc<Latch>>,
}

/// A lease in the table, and the state that callers read without a share of it.
struct LeaseEntry {
    /// Weak: a share in the table would keep the lease from ever being free.
    lease: Weak<RecordLease>,
    /// If false, the lease is undecided.
    belongs_to_session: bool,
    standing: Arc<Standing>,
}

/// The state that a caller reads without a share of the lease: whether the session is archived or deleted, and whether
/// it is being launched. It is outside the record's lock, so that readers do not wait for the disk.
pub(super) struct Standing {
    /// `OPEN`, `ARCHIVED` or `DELETED`. Written under the record's lock.
    state: AtomicU8,
    /// The caller that archived or deleted the session also cancels its turn. Written before `state`.
    is_interrupted: AtomicBool,
    /// Set when a launch reserves the lease. Cleared after the session is registered in the ephemeral service, or when
    /// it never will be. While this is set, a session that is not found there may still become live.
    is_launching: AtomicBool,
}

/// Neither archived nor deleted, or not loaded yet.
const OPEN: u8 = 0;
const ARCHIVED: u8 = 1;
const DELETED: u8 = 2;

/// The right to write one session's record, with the only copy of it that is changed and saved. Each `Arc` is a share.
///
/// A session has two shares: one with its numbers ([`Owner`]) and one with its agent. A caller has a share for the
/// length of a call.
pub(super) struct RecordLease {
    id: SessionId,
    table: Arc<RecordTable>,
    standing: Arc<Standing>,
    /// The agent runs, or it panicked while it ran. Then its history may be inconsistent.
    is_agent_running: AtomicBool,
    /// Set when the store answers a save of the session with a conflict.
    loss: Arc<Loss>,
    /// Locked during calls of the store, so that saves come in the order of the changes. The store is foreign code:
    /// [`SessionStore`] says what it must not do.
    record: Mutex<CurrentRecord>,
}

/// The copy of the record in memory, and how the store and the agent differ from it.
#[derive(Default)]
struct CurrentRecord {
    /// The session as stored, or as the next save will store it. `None` before the record is loaded or begun.
    session: Option<StoredSession>,
    /// The last state that the store is known to have.
    confirmed: Option<Confirmed>,
    /// A save that has failed. The store may have written it, so the next save repeats it first.
    unconfirmed: Option<Attempt>,
    /// The store has a record of the session, or had one before a delete.
    is_stored: bool,
    /// The store has `session` as it is here. False before the first save, and after a failed one.
    is_current: bool,
    /// The agent has a newer history than `session`, and its export has failed.
    is_behind_agent: bool,
    /// The session has been deleted: nothing of it is saved any more.
    is_deleted: bool,
    /// The session's life is over, and its exact numbers are in `session`.
    is_over: bool,
}

/// A state of the record that the store has.
struct Confirmed {
    revision: Revision,
    /// A share, which shows what was added since.
    history: Session,
}

/// A save that may have to be repeated.
#[derive(Clone)]
struct Attempt {
    session: StoredSession,
    next: Revision,
    turn: Option<TurnEnd>,
}

/// The history of a record, for a caller that only reads.
pub(super) struct RecordedHistory {
    pub(super) history: Session,
    /// The last event number that the record has reserved.
    pub(super) last_event: u64,
    /// Whether the life of this lease is over, so that the number is exact.
    pub(super) is_over: bool,
}

/// What an archive has done.
pub(super) struct Archived {
    /// Whether the session was archived by this call.
    pub(super) was_open: bool,
    /// The history of the record, if another writer had changed that.
    pub(super) reloaded: Option<Session>,
}

/// How many turn numbers, and event numbers, a record reserves at a time. After a kill up to that many are skipped.
const BLOCK: LastNumbers = LastNumbers { turn: 256, event: 1 << 20 };

impl RecordTable {
    pub(super) fn new(store: Box<dyn SessionStore>) -> Arc<Self> {
        let store = Contained::new("the drop of a store", store);
        Arc::new(Self { store, leases: Mutex::default() })
    }

    /// A share of the lease, if it belongs to a session: one that is live, or is being launched.
    pub(super) fn find(&self, id: SessionId) -> Option<Arc<RecordLease>> {
        let leases = self.leases.lock();
        leases.entries.get(&id).filter(|entry| entry.belongs_to_session).and_then(|entry| entry.lease.upgrade())
    }

    /// The error of a call that finds the lease with a session: that session is archived, deleted, or busy.
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

    /// Whether a launch of the session has yet to register it.
    pub(super) fn is_launching(&self, id: SessionId) -> bool {
        self.read_standing(id, Standing::is_launching) == Some(true)
    }

    fn standing(&self, id: SessionId) -> Option<u8> {
        self.read_standing(id, Standing::state)
    }

    fn read_standing<T>(&self, id: SessionId, read: impl FnOnce(&Standing) -> T) -> Option<T> {
        let leases = self.leases.lock();
        let entry = leases.entries.get(&id).filter(|entry| entry.lease.strong_count() > 0);
        entry.map(|entry| read(&entry.standing))
    }

    /// Reserves the lease to launch a session; `None` if the lease belongs to a session. Waits as
    /// [`reserve`](Self::reserve).
    pub(super) fn reserve_launch(self: &Arc<Self>, id: SessionId) -> Result<Option<LaunchClaim>, SessionError> {
        let lease = self.reserve_as(id, true)?;
        Ok(lease.map(|lease| LaunchClaim { owner: Arc::new(Owner(lease)) }))
    }

    /// Reserves the lease to change the record of a session that is not live; `None` if the lease belongs to a session.
    /// Waits while the lease is undecided.
    pub(super) fn reserve(self: &Arc<Self>, id: SessionId) -> Result<Option<Arc<RecordLease>>, SessionError> {
        self.reserve_as(id, false)
    }

    /// Waits while the lease is undecided. On a session thread the turn lends its running permit meanwhile, and its
    /// cancellation ends the wait with an error.
    fn reserve_as(self: &Arc<Self>, id: SessionId, to_launch: bool) -> Result<Option<Arc<RecordLease>>, SessionError> {
        loop {
            let changed = {
                let mut leases = self.leases.lock();
                // An entry without shares is that of a free lease, which is just being dropped.
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
            loss: Arc::default(),
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

    pub(super) fn load(&self, id: SessionId) -> Result<Option<(StoredSession, Revision)>, SessionError> {
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
        // ORDERING: Acquire, with the Release of the store. An archive sets this and then reads the registry. A launch
        // registers and then reads this. The registry's lock orders the two, so at least one sees the other.
        self.state.load(Ordering::Acquire)
    }

    fn set_state(&self, state: u8) {
        self.state.store(state, Ordering::Release);
    }

    /// Whether the session is archived or deleted.
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

    /// The history of a session that has a record, archived or not, for a caller that only reads.
    pub(super) fn recorded_history(&self) -> Result<RecordedHistory, SessionError> {
        let mut record = self.record.lock();
        match self.loaded(&mut record)? {
            CurrentRecord { session: Some(session), is_stored: true, is_deleted: false, is_over, .. } => {
                let (history, last_event) = (session.history.clone(), session.numbers.reserved().event);
                Ok(RecordedHistory { history, last_event, is_over: *is_over })
            }
            _ => Err(SessionError::NotFound { id: self.id }),
        }
    }

    /// The record, loaded from the store on first use.
    fn loaded<'a>(&self, record: &'a mut CurrentRecord) -> Result<&'a mut CurrentRecord, SessionError> {
        if record.session.is_none() && !record.is_deleted {
            self.reload(record)?;
        }
        Ok(record)
    }

    /// Loads the record from the store. Without one there, `record` becomes that of no session.
    fn reload(&self, record: &mut CurrentRecord) -> Result<(), SessionError> {
        let loaded = self.table.load(self.id)?;
        *record = CurrentRecord::default();
        if let Some((session, revision)) = loaded {
            self.standing.set_state(if session.archived { ARCHIVED } else { OPEN });
            let history = session.history.clone();
            *record = CurrentRecord {
                session: Some(session),
                confirmed: Some(Confirmed { revision, history }),
                is_stored: true,
                is_current: true,
                ..CurrentRecord::default()
            };
        }
        Ok(())
    }

    pub(super) fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// Whether the store has a record of the session, or had one before a delete.
    pub(super) fn is_stored(&self) -> bool {
        self.record.lock().is_stored
    }

    /// Whether another writer has changed the session's record: nothing of the session is saved any more.
    pub(super) fn is_lost(&self) -> bool {
        self.loss.get().is_some()
    }

    /// Repeats the export and the save, or the save alone, if the last one has failed. `newest` exports the agent's
    /// history. For the session thread, between two turns or at the end.
    pub(super) fn catch_up(&self, newest: impl FnOnce() -> Result<Session, StoreError>) -> Result<(), StoreError> {
        let mut record = self.record.lock();
        if record.is_behind_agent && !self.is_agent_running() {
            // With no lock held, because this calls the agent.
            drop(record);
            return self.save_history(newest()?, None, None, None);
        }
        if record.is_current || !record.is_stored {
            return Ok(());
        }
        self.save_again(&mut record, None)
    }

    /// Saves the history after a turn, and `used` with it. If that fails, the next save includes this history. `turn` is
    /// the turn that has ended; without one, a history that has not changed is not saved.
    ///
    /// `callback` is the callback with which a turn has ended: `Some(None)` for a turn that has ended otherwise, `None`
    /// if no turn has ended. If the save fails, the turn has ended otherwise.
    pub(super) fn save_history(
        &self,
        history: Session,
        used: Option<LastNumbers>,
        callback: Option<Option<CallbackPending>>,
        turn: Option<TurnEnd>,
    ) -> Result<(), StoreError> {
        let mut record = self.record.lock();
        let CurrentRecord { session: Some(session), is_current, is_behind_agent, is_deleted: false, .. } = &mut *record
        else {
            return Ok(());
        };
        *is_behind_agent = false;
        let history = history.owned_by(self.id);
        let callback = callback.filter(|callback| *callback != session.callback_pending);
        if *is_current && turn.is_none() && session.history == history && callback.is_none() {
            return Ok(());
        }
        session.history = history;
        if let Some(callback) = callback {
            session.callback_pending = callback;
        }
        if let Some(used) = used {
            session.numbers.note_used(used, BLOCK);
        }
        let saved = self.save_again(&mut record, turn);
        if let (Err(_), Some(session)) = (&saved, &mut record.session) {
            session.callback_pending = None;
        }
        saved
    }

    /// Saves the record as it stands after a turn whose agent has panicked. Its history stays that of the turn before.
    pub(super) fn save_fault(&self, used: LastNumbers, turn: TurnEnd) -> Result<(), StoreError> {
        let mut record = self.record.lock();
        if let CurrentRecord { session: Some(session), is_stored: true, is_deleted: false, .. } = &mut *record {
            session.numbers.note_used(used, BLOCK);
            return self.save_again(&mut record, Some(turn));
        }
        Ok(())
    }

    /// Saves the record as it is in memory, unless another writer has changed the stored one.
    fn save_again(&self, record: &mut CurrentRecord, turn: Option<TurnEnd>) -> Result<(), StoreError> {
        if record.is_deleted || record.session.is_none() {
            return Ok(());
        }
        if self.is_lost() {
            return Err(StoreError::Conflict { id: self.id });
        }
        let saved = self.write(record, turn);
        if let Err(StoreError::Conflict { id }) = &saved {
            self.set_lost(*id);
        }
        saved
    }

    /// Writes the record as it is in memory. A save that has failed is repeated first: if the store has written it, the
    /// next one would conflict with it.
    fn write(&self, record: &mut CurrentRecord, turn: Option<TurnEnd>) -> Result<(), StoreError> {
        let Some(session) = record.session.clone() else { return Ok(()) };
        record.is_current = false;
        if let Some(attempt) = record.unconfirmed.take() {
            let is_newest = attempt.session == session && turn.is_none();
            self.attempt(record, attempt)?;
            if is_newest {
                record.is_current = true;
                return Ok(());
            }
        }
        self.attempt(record, Attempt { session, next: Revision::new(), turn })?;
        record.is_current = true;
        Ok(())
    }

    fn attempt(&self, record: &mut CurrentRecord, attempt: Attempt) -> Result<(), StoreError> {
        let Attempt { ref session, next, turn } = attempt;
        let (header, history) = (session.header(), &session.history);
        let change = record.confirmed.as_ref().map(|confirmed| history.change_since(&confirmed.history));
        let added: Vec<Message>;
        let change = match change {
            Some(HistoryChange::Appended { start }) => {
                added = history.iter_from(start).cloned().collect();
                Change::Appended(&added)
            }
            Some(HistoryChange::Rewritten) | None => Change::Rewritten(history),
        };
        let seen = record.confirmed.as_ref().map(|confirmed| confirmed.revision);
        let save = Save { header: &header, change, seen, next, turn };
        match self.table.call(|store| store.save(&save)) {
            Ok(()) => {
                record.confirmed = Some(Confirmed { revision: next, history: history.clone() });
                record.is_stored = true;
                Ok(())
            }
            Err(conflict @ StoreError::Conflict { .. }) => Err(conflict),
            Err(error) => {
                record.unconfirmed = Some(attempt);
                Err(error)
            }
        }
    }

    /// Ends the session unsaved: the store has a record that this life does not know.
    fn set_lost(&self, id: SessionId) {
        self.loss.set(StoreError::Conflict { id }.about(self.id));
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

    /// Archives the session in the store. If another writer has changed the record, that record is loaded and archived.
    pub(super) fn archive(&self, mode: ArchiveMode) -> Result<Archived, SessionError> {
        let mut record = self.record.lock();
        let was_open =
            self.change_setting(&mut record, |session| Ok(!std::mem::replace(&mut session.archived, true)))?;
        self.close(ARCHIVED, mode);
        let is_reloaded = self.is_lost();
        let reloaded = record.session.as_ref().filter(|_| is_reloaded).map(|session| session.history.clone());
        Ok(Archived { was_open, reloaded })
    }

    /// Replaces the labels, and saves them if the session is stored. If the save fails, they are as before. If another
    /// writer has changed the record, that record is loaded and gets the labels.
    pub(super) fn set_labels(&self, labels: &BTreeMap<String, String>) -> Result<(), SessionError> {
        let id = self.id;
        let changed = self.change_setting(&mut self.record.lock(), |session| {
            if session.archived {
                return Err(SessionError::Archived { id });
            }
            session.labels.clone_from(labels);
            Ok(true)
        });
        changed.map(drop)
    }

    /// Changes a part of the record that does not depend on the history, and saves it. So a conflict is no reason to
    /// fail: the record of the other writer is loaded, and changed in the same way. `change` returns whether there is
    /// anything to save.
    fn change_setting(
        &self,
        record: &mut CurrentRecord,
        change: impl Fn(&mut StoredSession) -> Result<bool, SessionError>,
    ) -> Result<bool, SessionError> {
        /// How often the change is tried while other writers change the record.
        const ATTEMPTS: usize = 16;
        if self.is_lost() && !record.is_deleted {
            self.reload(record)?;
        }
        let mut attempt = 1;
        loop {
            let CurrentRecord { session: Some(session), is_stored, is_deleted: false, .. } = self.loaded(record)?
            else {
                return Err(SessionError::NotFound { id: self.id });
            };
            let before = session.clone();
            let has_changed = change(session)?;
            // A session without a record is saved with the change when its agent is built.
            if !has_changed || !*is_stored {
                return Ok(has_changed);
            }
            match self.write(record, None) {
                Ok(()) => return Ok(true),
                Err(StoreError::Conflict { id }) if attempt < ATTEMPTS => {
                    self.set_lost(id);
                    self.reload(record)?;
                    attempt += 1;
                }
                Err(error) => {
                    // The store may have written the record, so the state from before must be saved again.
                    record.session = Some(before);
                    record.is_current = false;
                    return Err(error.about(self.id));
                }
            }
        }
    }

    /// Calls `with` with the record's labels, under the record's lock: of two calls that set labels, the later one is the
    /// last one also for `with`. An error if there is no record.
    pub(super) fn with_labels<T>(&self, with: impl FnOnce(&BTreeMap<String, String>) -> T) -> Result<T, SessionError> {
        let id = self.id;
        let mut record = self.record.lock();
        self.loaded(&mut record)?
            .session
            .as_ref()
            .map(|session| with(&session.labels))
            .ok_or(SessionError::NotFound { id })
    }

    /// Sets the state to `ARCHIVED` or `DELETED`. Called under the record's lock.
    fn close(&self, state: u8, mode: ArchiveMode) {
        if mode == ArchiveMode::Interrupt {
            self.standing.is_interrupted.store(true, Ordering::Release);
        }
        self.standing.set_state(state);
    }

    /// Deletes the session from the store, whichever writer has saved it last. Returns whether there was a session.
    pub(super) fn delete(&self) -> Result<bool, SessionError> {
        self.delete_by(|_, store| store.delete(self.id, None))
    }

    fn delete_by(
        &self,
        delete: impl FnOnce(&CurrentRecord, &dyn SessionStore) -> Result<bool, StoreError>,
    ) -> Result<bool, SessionError> {
        let mut record = self.record.lock();
        let was_stored = self.table.call(|store| delete(&record, store)).map_err(|error| error.about(self.id))?;
        let is_there = was_stored || (record.session.is_some() && !record.is_deleted);
        if is_there {
            record.is_deleted = true;
            self.close(DELETED, ArchiveMode::Interrupt);
        }
        Ok(is_there)
    }
}

impl RecordLease {
    /// Drops a share of the lease. After the last share the lease is free.
    pub(super) fn drop_share(self: Arc<Self>) {
        drop(self);
    }

    /// Deletes the record, if any, of a session that was not `begun`: the one that this lease has saved. A failure is only
    /// logged, because no caller waits.
    pub(super) fn withdraw(&self, begun: &str) {
        let own = |record: &CurrentRecord, store: &dyn SessionStore| {
            // The store may have written a save that has failed.
            let tried = record.unconfirmed.as_ref().map(|attempt| attempt.next);
            let confirmed = record.confirmed.as_ref().map(|confirmed| confirmed.revision);
            let mut deleted = Ok(false);
            for revision in [tried, confirmed].into_iter().flatten() {
                deleted = store.delete(self.id, Some(revision));
                if !matches!(deleted, Err(StoreError::Conflict { .. })) {
                    break;
                }
            }
            deleted
        };
        if let Err(error) = self.delete_by(own) {
            let (id, code) = (self.id, error.code());
            record!(Warn, "turnwise::store", "session {id}: it was not {begun}, and may be in the store: {code}");
            contain_and_log("the drop of a store's error", move || drop(error));
        }
    }
}

/// The share by which a lease belongs to a session, from its launch to the end of its life. The session holds it as the
/// record of its numbers.
pub(super) struct Owner(Arc<RecordLease>);

impl NumberRecord for Owner {
    fn reserve(&self, used: LastNumbers) -> Result<LastNumbers, SessionError> {
        let lease = &*self.0;
        let mut record = lease.record.lock();
        let CurrentRecord { session: Some(session), is_stored, is_deleted, is_over: false, .. } = &mut *record else {
            // An emitter after the end of the session: no subscriber sees its numbers.
            return Ok(used);
        };
        let last = session.numbers;
        session.numbers.reserve(used, BLOCK);
        let reserved = session.numbers.reserved();
        // A session without a record is saved when its agent is built, with these numbers.
        if *is_stored && !*is_deleted {
            if let Err(error) = lease.save_again(&mut record, None) {
                if let Some(session) = &mut record.session {
                    session.numbers = last;
                }
                return Err(error.about(lease.id));
            }
        }
        Ok(reserved)
    }

    fn catch_up(&self, history: Session) -> Result<(), SessionError> {
        self.0.catch_up(|| Ok(history)).map_err(|error| error.about(self.0.id))
    }

    fn finish(&self, used: LastNumbers) {
        self.save_last_numbers(used);
        self.end_claim();
    }
}

impl Owner {
    /// Ends the session's claim on the lease: it is undecided until its last share is dropped.
    fn end_claim(&self) {
        self.0.table.set_belongs_to_session(&self.0, false);
    }

    fn save_last_numbers(&self, used: LastNumbers) {
        let lease = &*self.0;
        let mut record = lease.record.lock();
        let CurrentRecord { session: Some(session), is_stored: true, is_deleted: false, is_over, .. } = &mut *record
        else {
            return;
        };
        *is_over = true;
        if lease.is_lost() || !session.numbers.finish(used) {
            return;
        }
        if let Err(error) = lease.save_again(&mut record, None) {
            drop(record);
            record!(Warn, "turnwise::store", "session {}: its next numbers will jump: {}", lease.id, Loggable(&error));
            discard(error);
        }
    }
}

/// Ends the claim of a launch that does not lead to a life. After [`finish`](NumberRecord::finish) it changes nothing.
/// It cannot end a later session's claim, because the lease is not free before this share is dropped.
impl Drop for Owner {
    fn drop(&mut self) {
        self.end_claim();
    }
}

/// The right to launch a session, from the reservation of the lease until [`leave_to`](Self::leave_to) passes it on. A
/// drop gives the right up.
pub(super) struct LaunchClaim {
    owner: Arc<Owner>,
}

/// A launch whose claim has passed to the session. It ends after the session is registered in the ephemeral service, or
/// when this is dropped.
///
/// It holds no share of the lease. The session may end while the launching caller still waits, and a share would keep
/// the lease from the next launch.
pub(super) struct LaunchInProgress {
    standing: Arc<Standing>,
    /// Identifies the life that is launched: the session's id may have a later life when the caller asks.
    pub(super) record: Weak<dyn NumberRecord>,
}

impl LaunchClaim {
    fn lease(&self) -> &Arc<RecordLease> {
        &self.owner.0
    }

    /// Begins the record of a new session: the lease belongs to the session from now on.
    pub(super) fn begin(&self, session: StoredSession) {
        self.lease().begin(session);
        self.lease().table.set_belongs_to_session(self.lease(), true);
    }

    /// Loads the record of a session that may run turns: the lease belongs to the session from now on.
    pub(super) fn resume(&self) -> Result<StoredSession, SessionError> {
        let (lease, id) = (self.lease(), self.lease().id);
        let stored = lease.stored()?;
        stored.numbers.check(id).map_err(|error| error.about(id))?;
        lease.table.set_belongs_to_session(lease, true);
        Ok(stored)
    }

    /// Passes the claim to the session, whose turns and events are numbered from the record on. Returns another share,
    /// for the agent.
    pub(super) fn leave_to(self, spec: &mut SessionSpec) -> (Arc<RecordLease>, LaunchInProgress) {
        let lease = Arc::clone(self.lease());
        let numbers = lease.record.lock().session.as_ref().map_or_else(StoredNumbers::default, |stored| stored.numbers);
        let owner: Arc<dyn NumberRecord> = self.owner;
        let launch = LaunchInProgress { standing: Arc::clone(&lease.standing), record: Arc::downgrade(&owner) };
        spec.numbering = Numbering {
            after: numbers.reserved(),
            known_events: numbers.events,
            record: Some(owner),
            loss: Some(Arc::clone(&lease.loss)),
        };
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
        // For a launch that ended with its claim, before `leave_to`.
        self.standing.end_launch();
        let table = Arc::clone(&self.table);
        table.change(|entries| {
            // The entry may be that of the next lease, whose caller has found this one free.
            if entries.get(&self.id).is_some_and(|entry| entry.is_of(self)) {
                entries.remove(&self.id);
            }
        });
    }
}
