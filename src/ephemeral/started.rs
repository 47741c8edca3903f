//! A started turn on a thread that waits for it.

use crate::error::SessionError;
use crate::model::{AgentEvent, RunResult};
use crate::reentrancy::Wait;
use crate::sync::{bounded, Receiver, Sender};
use crate::turn::handle::TurnHandle;
use crate::turn::stream::TurnStream;

/// A started turn, and the wait for it, which was announced before the start.
#[must_use = "the wait is over when it is dropped"]
pub(crate) struct TurnWithWait {
    pub(super) turn: TurnHandle,
    pub(super) wait: Wait,
}

impl TurnWithWait {
    /// Waits for the turn's result.
    pub(crate) fn wait(self) -> Result<RunResult, SessionError> {
        self.turn.wait_announced(self.wait)
    }

    /// Passes each event of the turn to `on_event`, then waits for the result. `events` is the receiver of the sender
    /// in the turn's request.
    ///
    /// The wait stays announced while `on_event` runs, because this thread will wait again afterwards.
    pub(crate) fn follow(
        self,
        events: Receiver<AgentEvent>,
        on_event: &mut dyn FnMut(AgentEvent),
    ) -> Result<RunResult, SessionError> {
        let Self { turn, wait } = self;
        let mut stream = TurnStream::new(turn, events);
        stream.by_ref().for_each(on_event);
        // The stream announces its own wait.
        wait.end();
        stream.wait()
    }
}

/// The channel for the events of a turn that is [followed](TurnWithWait::follow).
pub(crate) fn event_channel() -> (Sender<AgentEvent>, Receiver<AgentEvent>) {
    bounded(TurnStream::CAPACITY)
}
