//! The sessions that are live, or about to be, and what is kept of each: who may write a session's record, and when.
//!
//! A record is written by three: by the session's thread after a turn, by whoever archives or deletes the session, and by
//! whoever resumes it. They must not work on different states of it. So there is one [`Kept`] for each session that anybody
//! works on, and at most one: it is put into the [`Keeper`]'s table by whoever launches the session or changes a cold record,
//! and is gone when the last who holds it has let go. The session's agent holds it until it is dropped, which is before the
//! session's id is free in the service below. So whoever gets to load a record ([`reserve`](Keeper::reserve), then
//! [`stored`](Kept::stored)) loads the last word of the session's life before.
//!
//! What could not be written when a turn had come to it is written with the next, and at the latest when the session ends. Where it is
//! taken, its own thread [catches up](Kept::catch_up) between two turns, and lets go only after that: whoever had asked for the
//! history first, to save it later, would undo a turn in between.

use std::collections::hash_map::{Entry, HashMap};
use std::ops::Deref;

use crate::error::SessionError;
use crate::model::{Session, SessionId};
use crate::panics::contain;
use crate::service::ArchiveMode;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, Weak};

use super::error::StoreError;
use super::record::{StoredSession, StoredSummary};
use super::SessionStore;

/// The store, and who works on what in it.
pub(super) struct Keeper {
    store: Box<dyn SessionStore>,
    at_work: Mutex<HashMap<SessionId, Weak<Kept>>>,
}

/// One session that is being worked on.
pub(super) struct Kept {
    id: SessionId,
    keeper: Arc<Keeper>,
    /// Beside the record, so that nobody who only looks waits for the disk. Written under the record's lock.
    is_archived: AtomicBool,
    /// Who has archived or deleted it wants its turn to stop. Written before `is_archived`.
    is_interrupted: AtomicBool,
    /// Somebody is about to register it in the service below. So who does not find it there has not seen the last of it.
    is_launching: AtomicBool,
    /// Locked while the store works: its user's code, which is why [`SessionStore`] says what it must not do.
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    /// What is kept, or will be. `None` until it is known.
    session: Option<StoredSession>,
    /// Something of the session is in the store.
    is_stored: bool,
    /// What is in the store is this.
    is_current: bool,
    /// The session has been deleted: nothing of it is kept any more.
    is_deleted: bool,
}

impl Keeper {
    pub(super) fn new(store: Box<dyn SessionStore>) -> Arc<Self> {
        Arc::new(Self { store, at_work: Mutex::default() })
    }

    /// Whoever works on this session.
    pub(super) fn find(&self, id: SessionId) -> Option<Arc<Kept>> {
        self.at_work.lock().get(&id).and_then(Weak::upgrade)
    }

    /// The right to launch a session that nobody works on.
    pub(super) fn reserve_launch(self: &Arc<Self>, id: SessionId) -> Option<Launching> {
        self.reserve_as(id, true).map(Launching)
    }

    /// The right to change what is kept of a session that nobody works on.
    pub(super) fn reserve(self: &Arc<Self>, id: SessionId) -> Option<Arc<Kept>> {
        self.reserve_as(id, false)
    }

    fn reserve_as(self: &Arc<Self>, id: SessionId, to_launch: bool) -> Option<Arc<Kept>> {
        let kept = || {
            Arc::new(Kept {
                id,
                keeper: Arc::clone(self),
                is_archived: AtomicBool::new(false),
                is_interrupted: AtomicBool::new(false),
                is_launching: AtomicBool::new(to_launch),
                record: Mutex::default(),
            })
        };
        match self.at_work.lock().entry(id) {
            Entry::Occupied(taken) if taken.get().strong_count() > 0 => None,
            // Let go of just now, by the last who had it.
            Entry::Occupied(mut gone) => {
                let kept = kept();
                gone.insert(Arc::downgrade(&kept));
                Some(kept)
            }
            Entry::Vacant(free) => {
                let kept = kept();
                free.insert(Arc::downgrade(&kept));
                Some(kept)
            }
        }
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

    /// A store may be anybody's code.
    fn ask<T>(&self, question: impl FnOnce(&dyn SessionStore) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let answer = contain(|| question(&*self.store));
        answer.unwrap_or_else(|message| Err(StoreError::failed(format!("the store panicked: {message}"))))
    }
}

impl Kept {
    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    /// What there will be to keep, of a session that is new.
    pub(super) fn begin(&self, session: StoredSession) {
        self.record.lock().session = Some(session);
    }

    /// What is in the store, of a session that may run turns.
    pub(super) fn stored(&self) -> Result<StoredSession, SessionError> {
        let mut record = self.record.lock();
        let session = self.loaded(&mut record)?.session.as_ref();
        session.filter(|session| !session.archived).cloned().ok_or(SessionError::NotFound { id: self.id })
    }

    /// The record, with what is in the store where nobody has asked for that before.
    fn loaded<'a>(&self, record: &'a mut Record) -> Result<&'a mut Record, SessionError> {
        if record.session.is_none() && !record.is_deleted {
            if let Some(session) = self.keeper.load(self.id)? {
                self.is_archived.store(session.archived, Ordering::Release);
                *record = Record { session: Some(session), is_stored: true, is_current: true, is_deleted: false };
            }
        }
        Ok(record)
    }

    pub(super) fn is_archived(&self) -> bool {
        // ORDERING: Acquire, with the Release of the store. That `archive` and a launch see one of the other is by the registry's
        // lock: `archive` sets this first and looks there next, a launch registers first and looks here next.
        self.is_archived.load(Ordering::Acquire)
    }

    pub(super) fn is_launching(&self) -> bool {
        // ORDERING: Acquire, with the Release below: who sees that the launch is over sees that it has registered.
        self.is_launching.load(Ordering::Acquire)
    }

    /// How whoever has archived or deleted it wants it to end. To be asked once that is known.
    pub(super) fn archive_mode(&self) -> ArchiveMode {
        // ORDERING: Acquire, with the Release of the store; it comes before that of `is_archived`.
        match self.is_interrupted.load(Ordering::Acquire) {
            true => ArchiveMode::Interrupt,
            false => ArchiveMode::Drain,
        }
    }

    /// Whether something of the session is in the store.
    pub(super) fn is_stored(&self) -> bool {
        self.record.lock().is_stored
    }

    /// Keeps what could not be kept when it happened, if there is anything like that.
    pub(super) fn catch_up(&self) -> Result<(), StoreError> {
        match &mut *self.record.lock() {
            Record { session: Some(session), is_stored: true, is_current, is_deleted: false } if !*is_current => {
                self.keeper.ask(|store| store.save(session))?;
                *is_current = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Keeps what a turn has come to. Where that fails, the next turn tries again, with all that has come together.
    pub(super) fn keep(&self, history: Session) -> Result<(), StoreError> {
        let mut record = self.record.lock();
        let Record { session: Some(session), is_stored, is_current, is_deleted: false } = &mut *record else {
            return Ok(());
        };
        let history = history.owned_by(self.id);
        if *is_current && session.history == history {
            return Ok(());
        }
        session.history = history;
        *is_current = false;
        self.keeper.ask(|store| store.save(session))?;
        (*is_stored, *is_current) = (true, true);
        Ok(())
    }

    /// Archives the session in the store. Whether it was not archived before.
    pub(super) fn archive(&self, mode: ArchiveMode) -> Result<bool, SessionError> {
        let mut record = self.record.lock();
        let Record { session: Some(session), is_stored, is_current, is_deleted: false } = self.loaded(&mut record)?
        else {
            return Err(SessionError::NotFound { id: self.id });
        };
        if session.archived {
            self.note_archived(mode);
            return Ok(false);
        }
        session.archived = true;
        // Otherwise it is saved with the rest, once the agent is built.
        if *is_stored {
            let saved = self.keeper.ask(|store| store.save(session));
            saved.map_err(|error| {
                session.archived = false;
                error.about(self.id)
            })?;
            *is_current = true;
        }
        self.note_archived(mode);
        Ok(true)
    }

    fn note_archived(&self, mode: ArchiveMode) {
        if mode == ArchiveMode::Interrupt {
            self.is_interrupted.store(true, Ordering::Release);
        }
        self.is_archived.store(true, Ordering::Release);
    }

    /// Takes the session out of the store, for good. Whether there was anything to take.
    pub(super) fn delete(&self) -> Result<bool, SessionError> {
        let mut record = self.record.lock();
        let was_stored = self.keeper.ask(|store| store.delete(self.id)).map_err(|error| error.about(self.id))?;
        let is_there = was_stored || (record.session.is_some() && !record.is_deleted);
        if is_there {
            record.is_deleted = true;
            self.note_archived(ArchiveMode::Interrupt);
        }
        Ok(is_there)
    }
}

/// The right to launch a session, until it is registered in the service below, or will not be.
pub(super) struct Launching(Arc<Kept>);

impl Deref for Launching {
    type Target = Arc<Kept>;

    fn deref(&self) -> &Arc<Kept> {
        &self.0
    }
}

impl Drop for Launching {
    fn drop(&mut self) {
        self.0.is_launching.store(false, Ordering::Release);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut at_work = self.keeper.at_work.lock();
        // It may be another's by now: of whoever has found that this one is gone.
        if at_work.get(&self.id).is_some_and(|entry| std::ptr::eq(entry.as_ptr(), self)) {
            at_work.remove(&self.id);
        }
    }
}
