//! Host mode: a turn that continues after its prompt and runs the interactions that arrive.

use std::convert::Infallible;

use crate::cancel::CancelToken;
use crate::error::Cancelled;
use crate::model::{InboxInteraction, RunResult, StopReason};
use crate::sync::{never, Receiver};

use super::running::RunningTurn;

/// A turn in host mode, between two interactions.
pub(super) struct Hosting {
    pub(super) turn: RunningTurn,
    /// The result of the turn so far.
    pub(super) result: RunResult,
    pub(super) sources: HostSources,
}

impl Hosting {
    /// Adds the result of an interaction: figures are summed, the rest is that of the latest one.
    pub(super) fn add(&mut self, latest: RunResult) {
        let sum = &self.result;
        // An interrupt of one interaction does not concern the turn.
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

    /// A token for the next interaction. The turn's own token cancels it too.
    pub(super) fn token_of_next(&self) -> CancelToken {
        self.turn.context().cancel_token().begin_child()
    }

    /// Gives up a token of [`token_of_next`](Self::token_of_next): no interaction has begun with it. Otherwise the turn's
    /// token would collect one child for each wake-up without an interaction.
    pub(super) fn discard_token(&self, cancel: &CancelToken) {
        self.turn.context().cancel_token().end_child(cancel);
    }

    /// Whether and how the turn ends: with an error if it is cancelled, with success if it is closed or dismissed.
    pub(super) fn end(&self, session_is_closed: bool) -> Option<Result<(), Cancelled>> {
        let context = self.turn.context();
        match context.check() {
            Err(cancelled) => Some(Err(cancelled)),
            Ok(()) if session_is_closed || context.events().interactions().is_dismissed() => Some(Ok(())),
            Ok(()) => None,
        }
    }
}

/// What the session thread waits for in host mode, beside commands and the inbox.
pub(super) struct HostSources {
    /// Interactions from peers. `never()` if the agent has no comms inbox, and once that is disconnected.
    pub(super) comms: Receiver<InboxInteraction>,
    pub(super) cancelled: Receiver<Infallible>,
}

impl HostSources {
    /// The sources of a session that is not in host mode: never ready.
    pub(super) fn none() -> Self {
        Self { comms: never(), cancelled: never() }
    }
}
