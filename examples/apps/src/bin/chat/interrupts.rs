//! Ctrl-C, which stops the answer that is shown.

use std::sync::{Arc, Mutex, PoisonError};

use turnwise::{SessionId, SessionService, TurnHandle, TurnId, WeakService};
use turnwise_apps::ctrl_c::AtRest;

/// The turn that Ctrl-C interrupts.
#[derive(Clone, Default)]
pub(crate) struct Foreground(Arc<Mutex<Option<(SessionId, TurnId)>>>);

impl Foreground {
    /// Installs the handler of Ctrl-C.
    pub(crate) fn install(service: WeakService, at_rest: AtRest) -> Result<Self, ctrlc::Error> {
        let foreground = Self::default();
        let shown = foreground.clone();
        ctrlc::set_handler(move || match (shown.get(), service.upgrade()) {
            // This fails if the turn has ended. Then there is nothing to stop.
            (Some((session, turn)), Some(service)) => _ = service.interrupt_turn(session, turn),
            _ => at_rest.act(),
        })?;
        Ok(foreground)
    }

    /// Calls `shown`, during which Ctrl-C interrupts this turn and no other.
    pub(crate) fn during<T>(&self, turn: &TurnHandle, shown: impl FnOnce() -> T) -> T {
        self.set(Some((turn.session_id(), turn.turn_id())));
        let result = shown();
        self.set(None);
        result
    }

    fn get(&self) -> Option<(SessionId, TurnId)> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, turn: Option<(SessionId, TurnId)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = turn;
    }
}
