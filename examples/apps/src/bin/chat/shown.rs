//! The turn in front, and what happens while it is shown.

use std::time::Instant;

use turnwise::crossbeam_channel::{never, select, Receiver};
use turnwise::{AgentEvent, TurnHandle, TurnStream};

use crate::keyboard::Keyboard;
use crate::keys::Key;

/// The turn in front.
pub(crate) struct Shown<'a> {
    pub(crate) turn: &'a TurnHandle,
    /// Disconnected at the end of the turn.
    events: Receiver<AgentEvent>,
    /// Whether the turn has no receiver of events.
    pub(crate) is_silent: bool,
}

/// What happens while a turn is shown.
pub(crate) enum Happened {
    Event(AgentEvent),
    Key(Key),
    KeyboardClosed,
    Time,
    Ended,
}

impl<'a> Shown<'a> {
    /// A turn with its events.
    pub(crate) fn stream(stream: &'a TurnStream) -> Self {
        Self { turn: stream.handle(), events: stream.events().clone(), is_silent: false }
    }

    /// A turn without a receiver of events.
    pub(crate) fn silent(turn: &'a TurnHandle) -> Self {
        Self { turn, events: never(), is_silent: true }
    }

    /// Waits for what happens next.
    pub(crate) fn next(&self, keyboard: Option<&Keyboard>, ticks: &Receiver<Instant>) -> Happened {
        let (not_ended, no_keys) = (never(), never());
        let ended = if self.is_silent { self.turn.finished() } else { &not_ended };
        let keys = keyboard.map_or(&no_keys, |keyboard| &keyboard.pressed);
        select! {
            recv(self.events) -> event => event.map_or(Happened::Ended, Happened::Event),
            recv(ended) -> _ => Happened::Ended,
            recv(keys) -> key => key.map_or(Happened::KeyboardClosed, Happened::Key),
            recv(ticks) -> _ => Happened::Time,
        }
    }
}
