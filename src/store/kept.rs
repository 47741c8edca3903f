//! The records of sessions in use: which caller may write a session's record, and when.
//!
//! Three kinds of callers write a record: the session's thread after a turn, a caller that archives or deletes the session, and a caller
//! that resumes it. They must not work on different states of it. So a record in use has one [`RecordLease`], shared by all who work on
//! it, and the [`RecordTable`] has its entry.
//!
//! # Two kinds of leases
//!
//! A lease is *a session's* from the moment when it is certain that the session exists: a launch has found the record, or has found that
//! there is none and begins one. It stays so until the session's life is over ([`Owner`]). Meanwhile a caller that wants to create or
//! resume the session is refused, and a caller that archives or deletes it shares the lease.
//!
//! Any other lease is *undecided*: a caller looks whether there is a record, or changes one that no session uses. It says nothing about
//! the session, so no call fails because of it. A caller that meets it waits, for as long as the other takes with the disk:
//!
//! ```text
//! archive(id) of an id without a record     create(id)
//! reserves the lease: undecided             finds it: waits
//! finds no record: NotFound, releases       reserves, finds no record, begins one
//! ```
//!
//! A launch loads the record only after it has reserved the lease, and a session's life lets go of it only after its last save. So a
//! launch loads the last word of the session's life before.
//!
//! # What could not be written
//!
//! A history that could not be written after its turn is written with the next, and at the latest when the session ends. Where a session
//! is taken, its own thread [catches up](RecordLease::catch_up) between two turns, and ends only after that: a caller that asked for the
//! history first, to save it later, would undo a turn in between.

use std::collections::HashMap;
use std::ops::Deref;

use crate::error::SessionError;
use crate::ids::numbers::{LastNumbers, NumberRecord, Numbering};
use crate::model::{Session, SessionId};
use crate::panics::{contain, record, Contained};
use crate::service::{ArchiveMode, SessionSpec};
use crate::sync::{Arc, AtomicBool, AtomicU8, Condvar, Mutex, Ordering, Weak};

use super::error::{discard, Loggable, Panicked, StoreError};
use super::record::{StoredNumbers, StoredSession, StoredSummary};
use super::SessionStore;

/// The store, and the leases of the records in use.
pub(super) struct RecordTable {
    store: Contained<Box<dyn SessionStore>>,
    entries: Mutex<HashMap<SessionId, LeaseEntry>>,
    /// Notified when a lease is released, and when it becomes a session's.
    changed: Condvar,
}

/// A lease, and what others look at without sharing it: a share would keep the lease from its next user.
struct LeaseEntry {
    lease: Weak<RecordLease>,
    is_a_sessions: bool,
    standing: Arc<Standing>,
}

/// Whether the session may run turns. Beside the record, so that no caller that only looks waits for the disk.
struct Standing(AtomicU8);

const OPEN: u8 = 0;
const ARCHIVED: u8 = 1;
const DELETED: u8 = 2;

/// The right to write one session's record.
pub(super) struct RecordLease {
    id: SessionId,
    table: Arc<RecordTable>,
    /// Written under the record's lock.
    standing: Arc<Standing>,
    /// The caller that archived or deleted the session wants its turn to stop. Written before `standing`.
    is_interrupted: AtomicBool,
    /// A caller is about to register the session in the service below. A caller that does not find it there yet has to ask again.
    is_launching: AtomicBool,
    /// The agent runs; or it panicked while it ran, and its history may be half-done.
    is_agent_running: AtomicBool,
    /// Locked while the store works, which is foreign code: [`SessionStore`] says what it must not do.
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    /// What is kept, or will be. `None` until it is known.
    session: Option<StoredSession>,
    /// Something of the session is in the store.
    is_stored: bool,
    /// The store has `session` as it is here.
    is_current: bool,
    /// The agent's history is another than that of `session`, and could not be exported.
    is_behind_agent: bool,
    /// The session has been deleted: nothing of it is kept any more.
    is_deleted: bool,
}

/// How many turn numbers, and event numbers, a record reserves at a time. After a kill so many may be skipped.
const BLOCK: LastNumbers = LastNumbers { turn: 256, event: 1 << 20 };

impl RecordTable {
    pub(super) fn new(store: Box<dyn SessionStore>) -> Arc<Self> {
        let store = Contained::new("the drop of a store", store);
        Arc::new(Self { store, entries: Mutex::default(), changed: Condvar::new() })
    }

    /// The lease of a session that lives, or is being launched.
    pub(super) fn find(&self, id: SessionId) -> Option<Arc<RecordLease>> {
        self.entries.lock().get(&id).filter(|entry| entry.is_a_sessions).and_then(|entry| entry.lease.upgrade())
    }

    /// Why a session whose lease is in use cannot be had: it is archived, deleted, or busy.
    pub(super) fn refusal(&self, id: SessionId) -> SessionError {
        match self.standing(id) {
            Some(ARCHIVED) => SessionError::Archived { id },
            Some(DELETED) => SessionError::NotFound { id },
            _ => SessionError::Busy { id, turn: None },
        }
    }

    /// Whether the session's lease is in use, and it is archived. For callers that only look.
    pub(super) fn is_archived(&self, id: SessionId) -> bool {
        self.standing(id) == Some(ARCHIVED)
    }

    /// Whether the session's lease is in use, and it is deleted. For callers that only look.
    pub(super) fn is_deleted(&self, id: SessionId) -> bool {
        self.standing(id) == Some(DELETED)
    }

    fn standing(&self, id: SessionId) -> Option<u8> {
        let entries = self.entries.lock();
        entries.get(&id).filter(|entry| entry.lease.strong_count() > 0).map(|entry| entry.standing.get())
    }

    /// The right to launch a session; `None` where the lease is a session's.
    pub(super) fn reserve_launch(self: &Arc<Self>, id: SessionId) -> Option<Launching> {
        let lease = self.reserve_as(id, true)?;
        Some(Launching(Arc::new(Owner(lease))))
    }

    /// The right to change what is kept of a session; `None` where the lease is a session's.
    pub(super) fn reserve(self: &Arc<Self>, id: SessionId) -> Option<Arc<RecordLease>> {
        self.reserve_as(id, false)
    }

    /// Waits while the lease is undecided.
    fn reserve_as(self: &Arc<Self>, id: SessionId, to_launch: bool) -> Option<Arc<RecordLease>> {
        let mut entries = self.entries.lock();
        // An entry without shares is that of a lease which is just being dropped.
        while let Some(entry) = entries.get(&id).filter(|entry| entry.lease.strong_count() > 0) {
            if entry.is_a_sessions {
                return None;
            }
            self.changed.wait(&mut entries);
        }
        let standing = Arc::new(Standing(AtomicU8::new(OPEN)));
        let lease = Arc::new(RecordLease {
            id,
            table: Arc::clone(self),
            standing: Arc::clone(&standing),
            is_interrupted: AtomicBool::new(false),
            is_launching: AtomicBool::new(to_launch),
            is_agent_running: AtomicBool::new(false),
            record: Mutex::default(),
        });
        let entry = LeaseEntry { lease: Arc::downgrade(&lease), is_a_sessions: false, standing };
        entries.insert(id, entry);
        Some(lease)
    }

    fn set_a_sessions(&self, lease: &RecordLease, is_a_sessions: bool) {
        if let Some(entry) = self.entries.lock().get_mut(&lease.id).filter(|entry| entry.is_of(lease)) {
            entry.is_a_sessions = is_a_sessions;
        }
        self.changed.notify_all();
    }

    pub(super) fn load(&self, id: SessionId) -> Result<Option<StoredSession>, SessionError> {
        self.ask(|store| store.load(id)).map_err(|error| error.about(id))
    }

    pub(super) fn summary(&self, id: SessionId) -> Result<Option<StoredSummary>, SessionError> {
        self.ask(|store| store.summary(id)).map_err(|error| error.about(id))
    }

    pub(super) fn summaries(&self) -> Result<Vec<Result<StoredSummary, StoreError>>, SessionError> {
        let failed = |error| SessionError::Store { id: None, source: Arc::new(error) };
        self.ask(SessionStore::summaries).map_err(failed)
    }

    /// Calls the store, which is foreign code.
    fn ask<T>(&self, question: impl FnOnce(&dyn SessionStore) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let answer = contain(|| question(&**self.store));
        answer.unwrap_or_else(|message| Err(StoreError::failed(Panicked { of: "the store", message })))
    }
}

impl LeaseEntry {
    fn is_of(&self, lease: &RecordLease) -> bool {
        std::ptr::eq(self.lease.as_ptr(), lease)
    }
}

impl Standing {
    fn get(&self) -> u8 {
        // ORDERING: Acquire, with the Release of the store. That `archive` and a launch see one of the other is by the registry's
        // lock: `archive` sets this first and looks there next, a launch registers first and looks here next.
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, standing: u8) {
        self.0.store(standing, Ordering::Release);
    }
}

impl RecordLease {
    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    /// Begins the record of a session that is new.
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

    /// The record, loaded from the store where it has not been yet.
    fn loaded<'a>(&self, record: &'a mut Record) -> Result<&'a mut Record, SessionError> {
        if record.session.is_none() && !record.is_deleted {
            if let Some(session) = self.table.load(self.id)? {
                self.standing.set(if session.archived { ARCHIVED } else { OPEN });
                *record = Record { session: Some(session), is_stored: true, is_current: true, ..Record::default() };
            }
        }
        Ok(record)
    }

    /// Whether the session is archived or deleted: it is to run no turn.
    pub(super) fn is_closed(&self) -> bool {
        self.standing.get() != OPEN
    }

    pub(super) fn is_launching(&self) -> bool {
        // ORDERING: Acquire, with the Release below: a caller that sees the launch over sees that it has registered.
        self.is_launching.load(Ordering::Acquire)
    }

    /// How the caller that archived or deleted the session wants it to end. To be asked once [`is_closed`](Self::is_closed) says so.
    pub(super) fn archive_mode(&self) -> ArchiveMode {
        // ORDERING: Acquire, with the Release of the store; it comes before that of `standing`.
        match self.is_interrupted.load(Ordering::Acquire) {
            true => ArchiveMode::Interrupt,
            false => ArchiveMode::Drain,
        }
    }

    /// Whether something of the session is in the store.
    pub(super) fn is_stored(&self) -> bool {
        self.record.lock().is_stored
    }

    /// Saves what could not be saved when it happened, if there is anything like that. `newest` exports the agent's history, between two
    /// turns.
    pub(super) fn catch_up(&self, newest: impl FnOnce() -> Result<Session, StoreError>) -> Result<(), StoreError> {
        let mut record = self.record.lock();
        if record.is_behind_agent && !self.is_agent_running() {
            // With no lock held: the agent is asked.
            drop(record);
            return self.save_history(newest()?, None);
        }
        if record.is_current || !record.is_stored {
            return Ok(());
        }
        self.save_again(&mut record)
    }

    /// Saves the history after a turn, and `used` with it. Where that fails, the next turn tries again, with both histories together.
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
            session.numbers.note_used(used);
        }
        self.save_again(&mut record)
    }

    fn save_again(&self, record: &mut Record) -> Result<(), StoreError> {
        let Record { session: Some(session), is_stored, is_current, is_deleted: false, .. } = record else {
            return Ok(());
        };
        *is_current = false;
        self.table.ask(|store| store.save(session))?;
        (*is_stored, *is_current) = (true, true);
        Ok(())
    }

    /// Notes that the agent's history has changed and could not be exported.
    pub(super) fn note_behind_agent(&self) {
        self.record.lock().is_behind_agent = true;
    }

    /// Whether the agent runs, or panicked while it ran.
    pub(super) fn is_agent_running(&self) -> bool {
        // ORDERING: Relaxed; the agent's own thread writes and reads it.
        self.is_agent_running.load(Ordering::Relaxed)
    }

    pub(super) fn set_agent_running(&self, is_running: bool) {
        self.is_agent_running.store(is_running, Ordering::Relaxed);
    }

    /// Archives the session in the store. Whether it was not archived before.
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
        // Otherwise it is saved with the rest, once the agent is built.
        if *is_stored {
            let saved = self.table.ask(|store| store.save(session));
            saved.map_err(|error| {
                // The store may have written it, and is to have the truth again.
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
            self.is_interrupted.store(true, Ordering::Release);
        }
        self.standing.set(standing);
    }

    /// Takes the session out of the store, for good. Whether there was anything to take.
    pub(super) fn delete(&self) -> Result<bool, SessionError> {
        let mut record = self.record.lock();
        let was_stored = self.table.ask(|store| store.delete(self.id)).map_err(|error| error.about(self.id))?;
        let is_there = was_stored || (record.session.is_some() && !record.is_deleted);
        if is_there {
            record.is_deleted = true;
            self.close(DELETED, ArchiveMode::Interrupt);
        }
        Ok(is_there)
    }
}

/// A session's hold on its lease, from its launch to the end of its life.
pub(super) struct Owner(Arc<RecordLease>);

impl NumberRecord for Owner {
    fn reserve(&self, used: LastNumbers) -> Result<LastNumbers, SessionError> {
        let lease = &*self.0;
        let mut record = lease.record.lock();
        let Record { session: Some(session), is_stored, is_deleted, .. } = &mut *record else {
            return Ok(used);
        };
        let last = session.numbers;
        session.numbers.reserve(used, BLOCK);
        let reserved = session.numbers.reserved();
        // A record that is not there yet is written when the agent is built, with these numbers.
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
        let lease = &*self.0;
        let mut record = lease.record.lock();
        let Record { session: Some(session), is_stored: true, is_deleted: false, .. } = &mut *record else { return };
        // An archived session runs no more turns.
        if session.archived || !session.numbers.finish(used) {
            return;
        }
        if let Err(error) = lease.save_again(&mut record) {
            drop(record);
            record!(Warn, "turnwise::store", "session {}: its next numbers will jump: {}", lease.id, Loggable(&error));
            discard(error);
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.table.set_a_sessions(&self.0, false);
    }
}

/// The right to launch a session, until it is registered in the service below, or will not be.
pub(super) struct Launching(Arc<Owner>);

impl Launching {
    /// Begins the record of a session that is new: the lease is the session's from now on.
    pub(super) fn begin(&self, session: StoredSession) {
        self.0 .0.begin(session);
        self.0 .0.table.set_a_sessions(&self.0 .0, true);
    }

    /// Finds the record of a session that may run turns: the lease is the session's from now on.
    pub(super) fn resume(&self) -> Result<StoredSession, SessionError> {
        let stored = self.stored()?;
        stored.numbers.check(self.id()).map_err(|error| error.about(self.id()))?;
        self.0 .0.table.set_a_sessions(&self.0 .0, true);
        Ok(stored)
    }

    /// Has the session's turns and events count on from the record.
    pub(super) fn count_on(&self, spec: &mut SessionSpec) {
        let numbers =
            self.0 .0.record.lock().session.as_ref().map_or_else(StoredNumbers::default, |stored| stored.numbers);
        spec.numbering = Numbering {
            after: numbers.reserved(),
            known_events: numbers.events,
            record: Some(Arc::clone(&self.0) as Arc<dyn NumberRecord>),
        };
    }

    pub(super) fn share(&self) -> Arc<RecordLease> {
        Arc::clone(&self.0 .0)
    }
}

impl Deref for Launching {
    type Target = RecordLease;

    fn deref(&self) -> &RecordLease {
        &self.0 .0
    }
}

impl Drop for Launching {
    fn drop(&mut self) {
        self.is_launching.store(false, Ordering::Release);
    }
}

impl Drop for RecordLease {
    fn drop(&mut self) {
        {
            let mut entries = self.table.entries.lock();
            // It may be that of the next user by now, who has found that this one is gone.
            if entries.get(&self.id).is_some_and(|entry| entry.is_of(self)) {
                entries.remove(&self.id);
            }
        }
        self.table.changed.notify_all();
    }
}
