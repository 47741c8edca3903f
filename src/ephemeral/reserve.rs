//! Reservations: a wait for one unit of the capacity, and its use by a create.
//!
//! | Step | Thread | What it does |
//! |---|---|---|
//! | reserve | the caller | takes a unit, or waits for one in arrival order |
//! | claim | the caller that creates | takes the unit out of the specification and its clones, before anything else |
//! | register | the caller that creates | passes the unit to the session's registration |
//!
//! Each step owns the unit, so a drop at any point gives it back. The claim comes first, because a create may fail
//! while the host keeps a clone of the specification. The unit would stay in that clone otherwise.
//!
//! A create without a reservation never waits, and never overtakes a wait here. The
//! [semaphore](crate::permits::semaphore) explains how.
//!
//! # A wait and a shutdown
//!
//! A shutdown first marks the registry, then sets the latch that ends these waits. A wait that begins in between ends
//! by the latch. A wait that is granted a unit at that moment finds the mark, and gives the unit back.

use std::time::Duration;

use crate::cancel::CancelToken;
use crate::error::SessionError;
use crate::permits::reservation::Reservation;
use crate::permits::semaphore::Permit;
use crate::reentrancy::{self, WaitError};
use crate::service::SessionSpec;
use crate::time::clock::Deadline;

use super::core::Core;

impl Core {
    /// Waits for one unit of the capacity, in arrival order, at most for `timeout`. `in_queue` is called if it has to wait,
    /// once it has its place among the waiters.
    pub(super) fn reserve(&self, timeout: Duration, in_queue: impl FnOnce()) -> Result<Reservation, SessionError> {
        self.refuse_after_shutdown()?;
        let max = self.capacity.limit();
        let permit = match self.capacity.acquire_now() {
            Ok(permit) => permit,
            // Without any capacity no unit ever comes back.
            Err(active) if timeout.is_zero() || max == 0 => return Err(SessionError::CapacityExceeded { active, max }),
            Err(_) => self.wait_for_capacity(&self.clock().deadline(timeout), in_queue)?,
        };
        // The permit is dropped, and so given back, if the shutdown came first.
        self.refuse_after_shutdown()?;
        Ok(Reservation::new(permit))
    }

    fn wait_for_capacity(&self, deadline: &Deadline, in_queue: impl FnOnce()) -> Result<Permit, SessionError> {
        // A thread of the host has no turn that could be cancelled.
        let cancel = reentrancy::current_cancel().unwrap_or_else(CancelToken::new);
        // The sessions that hold the capacity may need the running permit to end.
        let lent = reentrancy::lend_permit(deadline);
        let granted = self.capacity.acquire_until(&cancel, deadline, self.registry.shutdown(), in_queue);
        if let Some(lent) = lent {
            lent.end_wait();
        }
        granted.ok_or_else(|| self.wait_failure())
    }

    /// Why a wait for capacity has ended without a unit.
    fn wait_failure(&self) -> SessionError {
        if let Err(error) = self.refuse_after_shutdown() {
            return error;
        }
        if let Err(WaitError::Interrupted { waiter, reason }) = reentrancy::check() {
            return SessionError::Interrupted { id: waiter, reason };
        }
        // What was free in the meantime went to threads that waited longer.
        let max = self.capacity.limit();
        SessionError::CapacityExceeded { active: max, max }
    }

    /// Takes the unit out of a specification with a reservation, and out of all clones of it.
    pub(super) fn claim_reservation(&self, spec: &mut SessionSpec) -> Result<Option<Permit>, SessionError> {
        let Some(reservation) = spec.reservation.take() else { return Ok(None) };
        match reservation.take(&self.capacity) {
            Some(permit) => Ok(Some(permit)),
            // After a shutdown every create fails alike.
            None => self.refuse_after_shutdown().and(Err(SessionError::InvalidReservation)),
        }
    }

    fn refuse_after_shutdown(&self) -> Result<(), SessionError> {
        if self.registry.is_shut_down() {
            return Err(SessionError::ShuttingDown);
        }
        Ok(())
    }
}
