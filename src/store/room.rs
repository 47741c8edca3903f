//! Sessions that the service unloads by itself, and the callers that meet one.
//!
//! # Which session is unloaded to make room
//!
//! The one that has been idle for longest. The list of candidates is made by one look at all live sessions, in the
//! order of their last use, and serves the callers one after the other until it is empty. A candidate that was used
//! meanwhile is skipped. All others have not been used since, and every session that is not in the list was used later.
//! So the first candidate is the one that has been idle for longest, without a look at all sessions for each caller. (A
//! session that was in use without a turn, by a stream say, is a candidate from the next list on.)
//!
//! A candidate is taken out of the list, so that two callers do not wait for one session.
//!
//! # When there is no room
//!
//! Without a candidate the caller waits for a session that is being unloaded already. Its capacity may go to another
//! caller; that caller's last session may be idle by then. A caller fails only if there was an instant at which the
//! capacity was used up, and every session was in use. One look does not tell, because sessions come into use and
//! become idle during the look: another caller may end a turn of a session that was looked at, and begin a turn of one
//! that was not. So the caller looks twice, and fails if both looks have found the same.
//!
//! # Room before the record
//!
//! A launch holds the lease of its record, and other callers wait for the launch. So a caller makes room before it
//! reserves the lease, and takes the unit of capacity as a reservation. Another caller may be faster for the unit that
//! a session has given back. Then the caller unloads the next session.
//!
//! A look that finds no candidate is repeated a limited number of times, since sessions that are used all the time
//! would otherwise keep a caller busy for ever. A service may also limit the wait for an end: a worker of a cluster does,
//! since the drop of one agent must not hold up others.
//!
//! # One caller resumes a session
//!
//! A caller that resumes a session may wait for room. Meanwhile it holds a unit of capacity, and the session is neither
//! live nor free. A second caller of the same session must not make room for it too, nor fail for want of it. So it
//! waits until the first one has registered the session or has failed, and looks again ([`Resumes`]).
//!
//! # A session that is being unloaded
//!
//! A caller that finds no open session may have met one that the service unloads at this moment. It waits for the end,
//! and looks again. It must not fail: without the unload it would have found the session. The end comes with the
//! release of id, capacity and lease, in the order that [`Registration`](crate::ephemeral::core::Registration) states.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use crate::agent::SessionAgentBuilder;
use crate::ephemeral::wrapped::{Life, Look};
use crate::error::SessionError;
use crate::model::SessionId;
use crate::permits::reservation::Reservation;
use crate::reentrancy;
use crate::session::unload::UnloadDecision;
use crate::sync::{yield_now, Arc, Instant, Mutex};
use crate::time::clock::Stopwatch;
use crate::wait::latch::Latch;

use super::launch::Launched;
use super::service::Inner;

/// The sessions that could be unloaded when they were looked at, longest idle first.
#[derive(Debug, Default)]
pub(super) struct Candidates(Mutex<VecDeque<(Instant, SessionId)>>);

/// The stored sessions that a caller resumes at this moment, in a service that unloads sessions. The latch is set when
/// the caller has registered the session, or has failed.
#[derive(Debug, Default)]
pub(super) struct Resumes(Mutex<HashMap<SessionId, Arc<Latch>>>);

/// The right to resume a session. A drop lets the callers that wait look again.
#[must_use = "dropping it lets other callers resume the session"]
pub(super) struct Resume<'a> {
    resumes: &'a Resumes,
    id: SessionId,
}

impl Resumes {
    /// The right to resume the session, or the latch of the caller that has it.
    fn begin(&self, id: SessionId) -> Result<Resume<'_>, Arc<Latch>> {
        let mut resumes = self.0.lock();
        match resumes.get(&id) {
            Some(other) => Err(Arc::clone(other)),
            None => {
                resumes.insert(id, Arc::new(Latch::new()));
                Ok(Resume { resumes: self, id })
            }
        }
    }
}

impl Drop for Resume<'_> {
    fn drop(&mut self) {
        let over = self.resumes.0.lock().remove(&self.id);
        if let Some(over) = over {
            over.set();
        }
    }
}

impl Candidates {
    /// The next candidate. `look` returns all of them, and is called if the list is empty.
    fn next(&self, look: impl FnOnce() -> Vec<(Instant, SessionId)>) -> Option<(Instant, SessionId)> {
        let next = self.0.lock().pop_front();
        if next.is_some() {
            return next;
        }
        // With no lock held: it looks at every live session.
        let mut found = look();
        found.sort_unstable();
        let mut list = self.0.lock();
        list.extend(found);
        list.pop_front()
    }
}

impl<B: SessionAgentBuilder> Inner<B> {
    /// Whether the service unloads sessions by itself, so that a caller may meet such an end.
    pub(super) fn unloads(&self) -> bool {
        self.live.unload_settings().is_on()
    }

    /// One unit of the capacity for a session that becomes live: a free one, or that of an idle session. `None` if the
    /// service makes no room; the session then takes a free unit itself. `check` is called before a session is
    /// unloaded, and its error ends the call.
    pub(super) fn make_room(
        &self,
        check: impl Fn() -> Result<(), SessionError>,
    ) -> Result<Option<Reservation>, SessionError> {
        /// How many looks without a candidate a caller makes while other callers use the sessions.
        const MAX_LOOKS: usize = 100;
        if !self.live.unload_settings().when_full {
            return Ok(None);
        }
        let (waiting, mut looks) = (self.live.stopwatch(), 0);
        let patience = self.live.unload_settings().patience();
        let (mut refused, mut last_look) = (HashSet::new(), None);
        loop {
            let full = match self.live.reserve(Duration::ZERO) {
                Err(full @ SessionError::CapacityExceeded { .. }) => full,
                reserved => return reserved.map(Some),
            };
            check()?;
            if let Some(life) = self.unload_longest_idle(&mut refused)? {
                match life.wait_until_ended(&waiting, patience) {
                    Err(SessionError::Timeout { .. }) => return Err(full),
                    waited => is_over(waited)?,
                };
                continue;
            }
            let Look { unloading, states, .. } = self.live.look();
            if let Some(life) = unloading {
                let waited = life.wait_until_ended(&waiting, patience);
                if !matches!(waited, Err(SessionError::Timeout { .. })) && is_over(waited)? {
                    continue;
                }
                return Err(full);
            }
            looks += 1;
            if looks == MAX_LOOKS || last_look.as_ref() == Some(&states) {
                return Err(full);
            }
            last_look = Some(states);
            self.live.check_cancelled(&waiting)?;
            yield_now();
        }
    }

    /// Waits for one unit of the capacity. See [`PersistentSessionService::reserve`](super::PersistentSessionService).
    pub(super) fn reserve(&self, timeout: Duration) -> Result<Reservation, SessionError> {
        if !self.live.unload_settings().when_full {
            return self.live.reserve(timeout);
        }
        // Only wakes the session: it finds this thread among the waiters, and unloads itself. So does every session
        // whose turn ends from here on.
        self.live.reserve_with(timeout, || {
            if let Some(life) = self.longest_idle(&HashSet::new()) {
                life.wake();
            }
        })
    }

    /// Unloads the session that has been idle for longest, and does not wait for its end. `None` if no session can be
    /// unloaded. `refused` has the sessions that would refuse again.
    fn unload_longest_idle(&self, refused: &mut HashSet<SessionId>) -> Result<Option<Life>, SessionError> {
        while let Some(life) = self.longest_idle(refused) {
            match life.unload() {
                Ok(Some(UnloadDecision::Unloaded)) => return Ok(Some(life)),
                // It cannot be saved, or it waits for this thread's session.
                Ok(Some(UnloadDecision::Unsaved)) | Err(SessionError::Reentrant { .. }) => {
                    refused.insert(life.id());
                }
                // In use since, or unloaded for another caller.
                Ok(Some(UnloadDecision::InUse) | None) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The session that has been idle for longest, apart from those that have refused.
    fn longest_idle(&self, refused: &HashSet<SessionId>) -> Option<Life> {
        loop {
            let look = || {
                let unused = self.live.look().unused.into_iter();
                unused.filter(|(_, id)| !refused.contains(id)).collect()
            };
            let (last_use, id) = self.candidates.next(look)?;
            let is_candidate = |life: &Life| !refused.contains(&id) && life.unused_since() == Some(last_use);
            if let Some(life) = self.live.life(id).filter(is_candidate) {
                return Some(life);
            }
        }
    }

    /// Waits for the end of a session that is being unloaded. Returns whether there was one. A session that is archived
    /// or deleted meanwhile is not waited for: it is not resumed.
    pub(super) fn wait_for_unload(
        &self,
        id: SessionId,
        waiting: &Stopwatch,
        timeout: Duration,
    ) -> Result<bool, SessionError> {
        if self.table.is_archived(id) || self.table.is_deleted(id) {
            return Ok(false);
        }
        match self.live.life(id).filter(Life::is_unloading) {
            Some(life) => life.wait_until_ended(waiting, timeout).map(|()| true),
            None => Ok(false),
        }
    }

    /// Reserves the record of a stored session, and makes room for it. `None` if the caller should look again for the
    /// live session. `room` is the room that an earlier attempt has made.
    pub(super) fn launch_stored_with_room(
        &self,
        id: SessionId,
        room: &mut Option<Reservation>,
    ) -> Result<Option<Launched<'_, B>>, SessionError> {
        if !self.unloads() {
            return self.launch_stored(id).map(Some);
        }
        let waiting = self.live.stopwatch();
        let patience = self.live.unload_settings().patience();
        let resume = match self.resumes.begin(id) {
            Ok(resume) => resume,
            Err(other) => {
                let waited = reentrancy::receive(other.receiver(), &waiting.deadline(patience));
                waited.map_err(|error| ending(error.into_session_error(id, &waiting)))?;
                return Ok(None);
            }
        };
        // Another caller may have resumed it before this one had the right to.
        if self.is_open(id) || self.wait_for_unload(id, &waiting, patience).map_err(ending)? {
            return Ok(None);
        }
        if room.is_none() {
            *room = self.make_room(|| self.check_resumable(id))?;
        }
        let (mut spec, mut launch) = match self.launch_stored(id) {
            Ok(launched) => launched,
            Err(SessionError::Busy { .. }) if self.is_in_motion(id) => {
                yield_now();
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // An unload frees the lease before it frees the id.
        if let Some(life) = self.live.life(id).filter(Life::is_unloading) {
            // Before the wait: other callers wait for the launch, and one of them may have the permit that this one
            // needs.
            drop((spec, launch));
            life.wait_until_ended(&waiting, patience).map_err(ending)?;
            return Ok(None);
        }
        if let Some(room) = room.take() {
            spec = spec.reservation(room);
        }
        launch.keep(resume);
        Ok(Some((spec, launch)))
    }

    /// Whether the session is live and not closed.
    pub(super) fn is_open(&self, id: SessionId) -> bool {
        self.live.life(id).is_some_and(|life| life.is_open())
    }

    /// Whether the lease of a session was in use by a life that has become open, is being unloaded, or has ended.
    pub(super) fn is_in_motion(&self, id: SessionId) -> bool {
        match self.live.life(id) {
            Some(life) => life.is_open() || life.is_unloading(),
            None => !self.table.is_launching(id),
        }
    }

    fn check_resumable(&self, id: SessionId) -> Result<(), SessionError> {
        match self.table.summary(id)? {
            None => Err(SessionError::NotFound { id }),
            Some(summary) if summary.archived => Err(SessionError::Archived { id }),
            Some(_) => Ok(()),
        }
    }
}

/// The error of a wait for the end of a session that took too long.
fn ending(error: SessionError) -> SessionError {
    match error {
        SessionError::Timeout { id, waited } => SessionError::Ending { id, waited },
        error => error,
    }
}

/// Whether a wait for the end of a session is over. It was refused if that session waits for this thread's session.
fn is_over(waited: Result<(), SessionError>) -> Result<bool, SessionError> {
    match waited {
        Ok(()) => Ok(true),
        Err(SessionError::Reentrant { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
