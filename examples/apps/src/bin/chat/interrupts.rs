//! Ctrl-C, which stops the answer that is shown.

use std::sync::{Arc, Mutex, PoisonError};

use turnwise::{RunResult, SessionError, SessionId, SessionService, TurnHandle, TurnId, TurnStream, WeakService};
use turnwise_apps::ctrl_c::AtRest;

use crate::show;

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

    /// Shows a turn until its end.
    pub(crate) fn show(&self, stream: TurnStream) -> Result<RunResult, SessionError> {
        let turn = stream.handle();
        self.during(turn.session_id(), turn.turn_id(), || show::show(stream))
    }

    /// Waits for a turn that was begun in the background.
    pub(crate) fn wait(&self, turn: TurnHandle) -> Result<RunResult, SessionError> {
        self.during(turn.session_id(), turn.turn_id(), || show::wait(turn))
    }

    fn during<T>(&self, session: SessionId, turn: TurnId, shown: impl FnOnce() -> T) -> T {
        self.set(Some((session, turn)));
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
