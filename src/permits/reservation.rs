//! Reservations: units of a service's capacity that a host holds for later creates.

use std::fmt;

use crate::permits::semaphore::{Permit, Semaphore};
use crate::sync::{Arc, Mutex};

/// One unit of a service's capacity, held for a later create. Made by
/// [`EphemeralSessionService::reserve`](crate::EphemeralSessionService::reserve).
///
/// [`SessionSpec::reservation`](crate::SessionSpec::reservation) passes it to the create or open that spends it. That
/// call does not fail with [`CapacityExceeded`](crate::SessionError::CapacityExceeded). A drop gives the unit back:
/// on any thread, also inside of a builder or a cancel hook, and also after a shutdown.
///
/// A reservation is no session. It has no id and no thread, and it keeps no service alive.
///
/// ```
/// use std::time::Duration;
/// use turnwise::{agent_fn, EphemeralSessionService, SessionError, SessionService, SessionSpec};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
/// let reservation = service.reserve(Duration::ZERO)?; // does not wait
/// let refused = service.open_session(SessionSpec::new()).unwrap_err();
/// assert!(matches!(refused, SessionError::CapacityExceeded { active: 1, max: 1 }));
/// assert_eq!(service.stats().sessions, 0); // it is no session
///
/// drop(reservation); // gives the unit back
/// service.open_session(SessionSpec::new())?;
/// # Ok::<(), SessionError>(())
/// ```
///
/// A reservation is spent once, so it is not `Clone`:
///
/// ```compile_fail,E0382
/// # use turnwise::{Reservation, SessionSpec};
/// # fn example(reservation: Reservation) {
/// let one = SessionSpec::new().reservation(reservation);
/// let two = SessionSpec::new().reservation(reservation); // moved already
/// # }
/// ```
///
/// ```
/// # use turnwise::{Reservation, SessionSpec};
/// # fn example(reservation: Reservation, other: Reservation) {
/// let one = SessionSpec::new().reservation(reservation);
/// let two = SessionSpec::new().reservation(other);
/// # }
/// ```
#[must_use = "dropping it gives the capacity back"]
pub struct Reservation {
    permit: Permit,
}

impl Reservation {
    pub(crate) fn new(permit: Permit) -> Self {
        Self { permit }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").finish_non_exhaustive()
    }
}

/// The reservation in a specification. The clones of the specification share it, and the first create takes it out.
#[derive(Clone, Debug)]
pub(crate) struct SharedReservation(Arc<Mutex<Option<Reservation>>>);

impl SharedReservation {
    pub(crate) fn new(reservation: Reservation) -> Self {
        Self(Arc::new(Mutex::new(Some(reservation))))
    }

    /// Takes the unit out, if it is not spent and belongs to `capacity`. A reservation of another service stays.
    pub(crate) fn take(&self, capacity: &Arc<Semaphore>) -> Option<Permit> {
        let taken = self.0.lock().take_if(|reservation| reservation.permit.is_of(capacity));
        taken.map(|reservation| reservation.permit)
    }
}
