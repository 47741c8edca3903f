//! Host mode: a turn that stays, and takes interactions as they come.

use std::convert::Infallible;

use crate::cancel::CancelToken;
use crate::error::Cancelled;
use crate::model::{InboxInteraction, RunResult, StopReason};
use crate::sync::{never, Receiver};

use super::running::RunningTurn;

/// A turn in host mode, between two interactions.
pub(super) struct Hosting {
    pub(super) turn: RunningTurn,
    /// What the turn has come to so far.
    pub(super) result: RunResult,
    pub(super) sources: HostSources,
}

impl Hosting {
    /// Adds what an interaction has come to: figures add up, the rest is that of the last one.
    pub(super) fn add(&mut self, latest: RunResult) {
        let sum = &self.result;
        // An interaction that was interrupted alone says nothing of the turn.
        let stop_reason = match latest.stop_reason {
            StopReason::Cancelled => sum.stop_reason,
            reason => reason,
        };
        self.result = RunResult {
            stop_reason,
            usage: sum.usage + latest.usage,
            turns: sum.turns.saturating_add(latest.turns),
            tool_calls: sum.tool_calls.saturating_add(latest.tool_calls),
            ..latest
        };
    }

    /// A token for the next interaction, which the turn's own cancels too.
    pub(super) fn token_of_next(&self) -> CancelToken {
        self.turn.context().cancel_token().begin_child()
    }

    /// Whether the turn is over, and how: told to stop, or not needed any more.
    pub(super) fn end(&self, session_is_closed: bool) -> Option<Result<(), Cancelled>> {
        let context = self.turn.context();
        match context.check() {
            Err(cancelled) => Some(Err(cancelled)),
            Ok(()) if session_is_closed || context.events().interactions().is_dismissed() => Some(Ok(())),
            Ok(()) => None,
        }
    }
}

/// What a session's thread waits for in host mode, beside commands and the inbox.
pub(super) struct HostSources {
    /// From the session's peers. `never()` where the agent has none, and once they are gone.
    pub(super) comms: Receiver<InboxInteraction>,
    pub(super) cancelled: Receiver<Infallible>,
}

impl HostSources {
    /// Those of a session that is not in host mode.
    pub(super) fn none() -> Self {
        Self { comms: never(), cancelled: never() }
    }
}
