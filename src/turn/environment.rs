//! What all turns of a session have around them.

use std::time::Duration;

use crate::error::Cancelled;
use crate::ids::numbers::Numbers;
use crate::inbox::queue::Inbox;
use crate::model::SessionId;
use crate::status::published::Published;
use crate::subscription::bus::Bus;
use crate::sync::Arc;
use crate::turn::counters::Counters;
use crate::wait::cancel::CancelToken;
use crate::wait::clock::Clock;
use crate::wait::own_thread;
use crate::wait::turn_permit::TurnPermit;

/// In one piece, so that one share of it is all that a turn needs.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) bus: Bus,
    pub(crate) published: Published,
    /// A piece of its own: it is handed out as an injector.
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Clock,
    pub(crate) numbers: Arc<Numbers>,
    /// Lent by whichever thread of the turn waits.
    pub(crate) permit: Arc<TurnPermit>,
}

impl Environment {
    pub(crate) fn session_id(&self) -> SessionId {
        self.bus.session_id()
    }

    /// Sleeps on the service's clock, or until `cancel` fires. The session's turn lends its running permit meanwhile.
    pub(crate) fn sleep(&self, duration: Duration, cancel: &CancelToken) -> Result<(), Cancelled> {
        cancel.check()?;
        if duration.is_zero() {
            return Ok(());
        }
        let deadline = self.clock.deadline(duration);
        let permit = own_thread::lend_permit_of(&self.permit);
        // Disconnected or slept: the token knows, also of a cancel that comes while the permit is waited for.
        let _ = deadline.receive(cancel.cancelled());
        if let Some(permit) = permit {
            permit.end_wait();
        }
        cancel.check()
    }
}
