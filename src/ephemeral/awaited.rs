//! A turn that is begun by a thread which will wait for it.

use crate::error::SessionError;
use crate::model::{AgentEvent, RunResult};
use crate::sync::{bounded, Sender};
use crate::turn::handle::TurnHandle;
use crate::turn::stream::TurnStream;
use crate::wait::own_thread::Wait;

/// A turn that has been begun, with its wait announced.
#[must_use = "the wait is over when it is dropped"]
pub(crate) struct Awaited {
    pub(super) turn: TurnHandle,
    pub(super) wait: Wait,
}

impl Awaited {
    pub(crate) fn wait(self) -> Result<RunResult, SessionError> {
        self.turn.wait_announced(self.wait)
    }
}

/// Passes a turn's events on as they come; then its result. `begin` gets what to put into the request.
///
/// The wait stays announced while `on_event` runs: this thread will come back to it, whatever happens.
pub(crate) fn follow(
    begin: impl FnOnce(Sender<AgentEvent>) -> Result<Awaited, SessionError>,
    on_event: &mut dyn FnMut(AgentEvent),
) -> Result<RunResult, SessionError> {
    let (event_tx, events) = bounded(TurnStream::CAPACITY);
    let Awaited { turn, wait } = begin(event_tx)?;
    let mut stream = TurnStream::new(turn, events);
    stream.by_ref().for_each(on_event);
    drop(wait);
    stream.wait()
}
