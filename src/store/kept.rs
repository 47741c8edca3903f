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

use std::collections::HashMap;
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
    at_work: Mutex<HashMap<SessionId, AtWork>>,
}

/// Who works on a session; and what others look at without a share in that: whoever has one keeps them from the record.
struct AtWork {
    kept: Weak<Kept>,
    is_archived: Arc<AtomicBool>,
}

/// One session that is being worked on.
pub(super) struct Kept {
    id: SessionId,
    keeper: Arc<Keeper>,
    /// Beside the record, so that nobody who only looks waits for the disk. Written under the record's lock.
    is_archived: Arc<AtomicBool>,
    /// Who has archived or deleted it wants its turn to stop. Written before `is_archived`.
    is_interrupted: AtomicBool,
    /// Somebody is about to register it in the service below. So who does not find it there has not seen the last of it.
    is_launching: AtomicBool,
    /// The agent is at work; or has panicked at it, and what it has come to is anybody's guess.
    is_agent_at_work: AtomicBool,
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
    /// The agent has come to something else than this, and could not say to what.
    is_behind_agent: bool,
    /// The session has been deleted: nothing of it is kept any more.
    is_deleted: bool,
}

impl Keeper {
    pub(super) fn new(store: Box<dyn SessionStore>) -> Arc<Self> {
        Arc::new(Self { store, at_work: Mutex::default() })
    }

    /// Whoever works on this session.
    pub(super) fn find(&self, id: SessionId) -> Option<Arc<Kept>> {
        self.at_work.lock().get(&id).and_then(|at_work| at_work.kept.upgrade())
    }

    /// Whether somebody works on this session, and it is archived. For those who only look.
    pub(super) fn is_archived(&self, id: SessionId) -> bool {
        let at_work = self.at_work.lock();
        at_work.get(&id).is_some_and(|at_work| at_work.kept.strong_count() > 0 && is_set(&at_work.is_archived))
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
        let mut at_work = self.at_work.lock();
        // Where there is an entry all the same, the last who had it is just letting go.
        if at_work.get(&id).is_some_and(|taken| taken.kept.strong_count() > 0) {
            return None;
        }
        let is_archived = Arc::new(AtomicBool::new(false));
        let kept = Arc::new(Kept {
            id,
            keeper: Arc::clone(self),
            is_archived: Arc::clone(&is_archived),
            is_interrupted: AtomicBool::new(false),
            is_launching: AtomicBool::new(to_launch),
            is_agent_at_work: AtomicBool::new(false),
            record: Mutex::default(),
        });
        at_work.insert(id, AtWork { kept: Arc::downgrade(&kept), is_archived });
        Some(kept)
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

fn is_set(is_archived: &AtomicBool) -> bool {
    // ORDERING: Acquire, with the Release of the store. That `archive` and a launch see one of the other is by the registry's
    // lock: `archive` sets this first and looks there next, a launch registers first and looks here next.
    is_archived.load(Ordering::Acquire)
}

impl Kept {
    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    /// What there will be to keep, of a session that is new. Not where somebody has just deleted what was under its id.
    pub(super) fn begin(&self, session: StoredSession) -> Result<(), SessionError> {
        let mut record = self.record.lock();
        if record.is_deleted {
            return Err(SessionError::Busy { id: self.id });
        }
        record.session = Some(session);
        Ok(())
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
                *record = Record { session: Some(session), is_stored: true, is_current: true, ..Record::default() };
            }
        }
        Ok(record)
    }

    pub(super) fn is_archived(&self) -> bool {
        is_set(&self.is_archived)
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

    /// Keeps what could not be kept when it happened, if there is anything like that. `newest` is what the agent has come to,
    /// between two turns.
    pub(super) fn catch_up(&self, newest: impl FnOnce() -> Result<Session, StoreError>) -> Result<(), StoreError> {
        let mut record = self.record.lock();
        if record.is_behind_agent && !self.is_agent_at_work() {
            // With no lock held: the agent is asked.
            drop(record);
            return self.keep(newest()?);
        }
        if record.is_current || !record.is_stored {
            return Ok(());
        }
        self.save_again(&mut record)
    }

    /// Keeps what a turn has come to. Where that fails, the next turn tries again, with all that has come together.
    pub(super) fn keep(&self, history: Session) -> Result<(), StoreError> {
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
        self.save_again(&mut record)
    }

    fn save_again(&self, record: &mut Record) -> Result<(), StoreError> {
        let Record { session: Some(session), is_stored, is_current, is_deleted: false, .. } = record else {
            return Ok(());
        };
        *is_current = false;
        self.keeper.ask(|store| store.save(session))?;
        (*is_stored, *is_current) = (true, true);
        Ok(())
    }

    /// The agent has come to something, and cannot say to what.
    pub(super) fn note_behind_agent(&self) {
        self.record.lock().is_behind_agent = true;
    }

    /// The agent is at work, or has panicked at it.
    pub(super) fn is_agent_at_work(&self) -> bool {
        // ORDERING: Relaxed; the agent's own thread writes and reads it.
        self.is_agent_at_work.load(Ordering::Relaxed)
    }

    pub(super) fn set_agent_at_work(&self, is_at_work: bool) {
        self.is_agent_at_work.store(is_at_work, Ordering::Relaxed);
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
            self.note_archived(mode);
            return Ok(false);
        }
        session.archived = true;
        // Otherwise it is saved with the rest, once the agent is built.
        if *is_stored {
            let saved = self.keeper.ask(|store| store.save(session));
            saved.map_err(|error| {
                // It may have written it, and is to have the truth again.
                (session.archived, *is_current) = (false, false);
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
        if at_work.get(&self.id).is_some_and(|entry| std::ptr::eq(entry.kept.as_ptr(), self)) {
            at_work.remove(&self.id);
        }
    }
}
