//! What all turns of a session have around them.

use crate::inbox::queue::Inbox;
use crate::model::SessionId;
use crate::status::published::Published;
use crate::subscription::bus::Bus;
use crate::sync::Arc;
use crate::turn::counters::Counters;
use crate::wait::clock::Clock;

/// In one piece, so that one share of it is all that a turn needs.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) bus: Bus,
    pub(crate) published: Published,
    /// A piece of its own: it is handed out as an injector.
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Clock,
}

impl Environment {
    pub(crate) fn session_id(&self) -> SessionId {
        self.bus.session_id()
    }
}
