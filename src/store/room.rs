//! Sessions that the service unloads by itself, and the callers that meet one.
//!
//! # Which session is unloaded to make room
//!
//! The one that has been idle for longest. The list of candidates is made by one look at all live sessions, in the order
//! of their last use, and serves the callers one after the other until it is empty. A candidate that was used meanwhile is
//! skipped. All others have not been used since, and every session that is not in the list was used later. So the first
//! candidate is the one that has been idle for longest, without a look at all sessions for each caller. (A session that
//! was in use without a turn, by a stream say, is a candidate from the next list on.)
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
//! reserves the lease, and takes the unit of capacity as a reservation. Another caller may be faster for the unit that a
//! session has given back. Then the caller unloads the next session.
//!
//! # A session that is being unloaded
//!
//! A caller that finds no open session may have met one that the service unloads at this moment. It waits for the end,
//! and looks again. It must not fail: without the unload it would have found the session. The end comes with the release of
//! id, capacity and lease, in the order that [`Registration`](crate::ephemeral::core::Registration) states.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use crate::agent::SessionAgentBuilder;
use crate::ephemeral::wrapped::{Life, Look};
use crate::error::SessionError;
use crate::model::SessionId;
use crate::permits::reservation::Reservation;
use crate::session::unload::UnloadDecision;
use crate::sync::{yield_now, Instant, Mutex};

use super::launch::Launched;
use super::service::Inner;

/// The sessions that could be unloaded when they were looked at, longest idle first.
#[derive(Debug, Default)]
pub(super) struct Candidates(Mutex<VecDeque<(Instant, SessionId)>>);

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
    /// service makes no room; the session then takes a free unit itself. No session is unloaded for a stored session that
    /// cannot be resumed.
    pub(super) fn make_room(&self, stored: Option<SessionId>) -> Result<Option<Reservation>, SessionError> {
        if !self.live.unload_settings().when_full {
            return Ok(None);
        }
        let (mut unsaved, mut last_look) = (HashSet::new(), None);
        loop {
            let full = match self.live.reserve(Duration::ZERO) {
                Err(full @ SessionError::CapacityExceeded { .. }) => full,
                reserved => return reserved.map(Some),
            };
            if let Some(id) = stored {
                self.check_resumable(id)?;
            }
            if let Some(life) = self.unload_longest_idle(&mut unsaved)? {
                life.wait_until_ended(&self.live.stopwatch(), Duration::MAX)?;
                continue;
            }
            let Look { unloading, states, .. } = self.live.look();
            if let Some(life) = unloading {
                life.wait_until_ended(&self.live.stopwatch(), Duration::MAX)?;
            } else if last_look.as_ref() == Some(&states) {
                return Err(full);
            } else {
                last_look = Some(states);
                yield_now();
            }
        }
    }

    /// Waits for one unit of the capacity. See [`PersistentSessionService::reserve`](super::PersistentSessionService).
    pub(super) fn reserve(&self, timeout: Duration) -> Result<Reservation, SessionError> {
        if !self.live.unload_settings().when_full {
            return self.live.reserve(timeout);
        }
        // A session that becomes idle from here on finds this thread among the waiters, and gives way by itself.
        let unload_one = || drop(self.unload_longest_idle(&mut HashSet::new()));
        self.live.reserve_with(timeout, unload_one)
    }

    /// Unloads the session that has been idle for longest, and does not wait for its end. `None` if no session can be
    /// unloaded. `unsaved` has the sessions that could not be saved: asked again, they would refuse again.
    fn unload_longest_idle(&self, unsaved: &mut HashSet<SessionId>) -> Result<Option<Life>, SessionError> {
        loop {
            let look = || {
                let unused = self.live.look().unused.into_iter();
                unused.filter(|(_, id)| !unsaved.contains(id)).collect()
            };
            let Some((last_use, id)) = self.candidates.next(look) else { return Ok(None) };
            let is_candidate = !unsaved.contains(&id) && self.live.unused_since(id) == Some(last_use);
            let Some(life) = self.live.life(id).filter(|_| is_candidate) else { continue };
            match life.unload()? {
                Some(UnloadDecision::Unloaded) => return Ok(Some(life)),
                Some(UnloadDecision::Unsaved) => drop(unsaved.insert(id)),
                // In use since, or unloaded for another caller.
                Some(UnloadDecision::InUse) | None => {}
            }
        }
    }

    /// Waits for the end of a session that is being unloaded. Returns whether there was one. A session that is archived or
    /// deleted meanwhile is not waited for: it is not resumed.
    pub(super) fn wait_for_unload(&self, id: SessionId, timeout: Duration) -> Result<bool, SessionError> {
        if self.table.is_archived(id) || self.table.is_deleted(id) {
            return Ok(false);
        }
        match self.live.life(id).filter(Life::is_unloading) {
            Some(life) => life.wait_until_ended(&self.live.stopwatch(), timeout).map(|()| true),
            None => Ok(false),
        }
    }

    /// Reserves the record of a stored session, and makes room for it. `None` if the caller should look again for the live
    /// session. `room` is the room that an earlier attempt has made.
    pub(super) fn launch_stored_with_room(
        &self,
        id: SessionId,
        room: &mut Option<Reservation>,
    ) -> Result<Option<Launched<'_, B>>, SessionError> {
        if self.wait_for_unload(id, Duration::MAX)? {
            return Ok(None);
        }
        if room.is_none() {
            *room = self.make_room(Some(id))?;
        }
        match self.launch_stored(id) {
            // An unload frees the lease before it frees the id.
            Ok(launched) if self.wait_for_unload(id, Duration::MAX)? => {
                drop(launched);
                Ok(None)
            }
            Ok((spec, launch)) => {
                let spec = match room.take() {
                    Some(room) => spec.reservation(room),
                    None => spec,
                };
                Ok(Some((spec, launch)))
            }
            Err(SessionError::Busy { .. }) if self.unloads() && self.is_in_motion(id) => {
                yield_now();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the lease of a session was in use by a life that has become open, is being unloaded, or has ended.
    fn is_in_motion(&self, id: SessionId) -> bool {
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
