//! What an agent is lent for the length of a turn.

use std::fmt;
use std::time::Duration;

use crate::error::Cancelled;
use crate::model::{AgentEvent, InboxInteraction, RunResult, SessionId, SessionSnapshot, TurnId};
use crate::sync::Arc;
use crate::turn::events::TurnEvents;
use crate::wait::cancel::CancelToken;

/// The turn that an agent is running: who it is, whether it should stop, where its events go.
///
/// It is `Sync` and may be lent to scoped threads, for tools that run in parallel. It cannot be kept: when
/// [`run_turn`](crate::SessionAgent::run_turn) returns, the loan is over.
///
/// Only the session's own thread can lend the turn's running permit while it waits: where
/// [`max_running_turns`](crate::ServiceConfig::max_running_turns) is set, use sub-agents from there, not from scoped threads.
///
/// ```
/// use turnwise::{AgentError, AgentEvent, RunResult, TurnContext};
///
/// fn count_down(prompt: &str, turn: &TurnContext) -> Result<RunResult, AgentError> {
///     let from: u32 = prompt.parse().map_err(|error: std::num::ParseIntError| AgentError::other(error))?;
///     for number in (1..=from).rev() {
///         turn.emit(AgentEvent::TextDelta { delta: format!("{number} ") })?; // ends here if interrupted
///     }
///     Ok(turn.finish("lift-off"))
/// }
/// ```
///
/// ```compile_fail
/// use turnwise::{AgentError, RunResult, TurnContext};
///
/// /// A context outlives no turn: this does not compile.
/// fn keep(turn: &TurnContext) -> std::thread::JoinHandle<bool> {
///     std::thread::spawn(|| turn.is_cancelled())
/// }
/// ```
pub struct TurnContext {
    /// Shared with whoever emits while the first turn's agent is built.
    events: Arc<TurnEvents>,
}

impl TurnContext {
    pub(crate) fn new(events: TurnEvents) -> Self {
        Self { events: Arc::new(events) }
    }

    /// The session that runs.
    pub fn session_id(&self) -> SessionId {
        self.events.environment().session_id()
    }

    /// The turn that runs.
    pub fn turn_id(&self) -> TurnId {
        self.events.turn_id()
    }

    /// Sends an event to the caller's event receiver, if there is one, then to the session's subscribers, and to whoever
    /// follows an interaction that the turn works on.
    ///
    /// A receiver that has been dropped is no error: the turn goes on without it.
    ///
    /// # Errors
    /// [`Cancelled`] if the turn has been told to stop; nobody got the event.
    ///
    /// # Blocking
    /// Waits for room where the receiver's channel is bounded and full, then for subscribers that want that
    /// ([`Overflow::Block`](crate::Overflow::Block)). A cancel ends either wait.
    pub fn emit(&self, event: AgentEvent) -> Result<(), Cancelled> {
        self.events.emit(event)
    }

    /// An error if the turn has been told to stop: for loops.
    ///
    /// # Errors
    /// [`Cancelled`], with the reason.
    pub fn check(&self) -> Result<(), Cancelled> {
        self.cancel_token().check()
    }

    /// Whether the turn has been told to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancel_token().is_cancelled()
    }

    /// The turn's token: for helper threads, as an arm of `select!`, and for hooks.
    pub fn cancel_token(&self) -> &CancelToken {
        self.events.cancel_token()
    }

    /// Sleeps, on the service's clock.
    ///
    /// # Errors
    /// [`Cancelled`] as soon as the turn is told to stop.
    ///
    /// # Blocking
    /// For `duration`, or until the turn is cancelled. A duration past the end of time waits for the cancel alone.
    pub fn sleep(&self, duration: Duration) -> Result<(), Cancelled> {
        self.cancel_token().sleep_until(&self.events.environment().clock.deadline(duration))
    }

    /// Shows progress: what `read` and `list` answer with until the end of the turn, or the next call.
    pub fn publish(&self, snapshot: SessionSnapshot) {
        self.events.environment().published.publish(snapshot);
    }

    /// Takes what is in the session's inbox, oldest first: what injectors have put there. Never waits.
    ///
    /// What was taken is settled with what the agent is doing: when the turn ends, or in host mode the interaction, each of
    /// them is reported as complete with its answer, or as failed with its error. Until then whoever follows one of them
    /// gets the turn's events. A [`Dismiss`](crate::InteractionContent::Dismiss) among them ends host mode, as if the
    /// session had taken it itself.
    pub fn drain_inbox(&self) -> Vec<InboxInteraction> {
        let taken = self.events.environment().inbox.take_all();
        taken.into_iter().map(|incoming| self.events.interactions().take_on(incoming)).collect()
    }

    /// A result of this turn with this answer; add to it with the `with_` methods of [`RunResult`].
    pub fn finish(&self, text: impl Into<String>) -> RunResult {
        RunResult::new(self.session_id(), self.turn_id(), text)
    }

    pub(crate) fn events(&self) -> &Arc<TurnEvents> {
        &self.events
    }
}

impl fmt::Debug for TurnContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnContext")
            .field("session_id", &self.session_id())
            .field("turn_id", &self.turn_id())
            .field("cancelled", &self.cancel_token().reason())
            .finish_non_exhaustive()
    }
}
