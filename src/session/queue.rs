//! A turn in the queue of its session: accepted, but not admitted.
//!
//! **Invariant.** A queued turn leaves the queue once: by its admission, which makes it a [`Turn`], or by a withdrawal,
//! which answers it. Its answer is a field, so a queued turn that is dropped is answered too.

use crate::cancel::{CancelHook, CancelToken};
use crate::error::{CancelReason, Cancelled, SessionError};
use crate::model::{AgentEvent, SessionId, ToolResult, TurnId};
use crate::spans::CallerSpan;
use crate::sync::{Instant, Sender};
use crate::timers::TimerGuard;
use crate::turn::handle::{Answer, TurnResult};
use crate::turn::shared::SessionShared;

use super::admission::{Admission, TokenSeal};
use super::running::{Input, Turn, TurnGuards};

/// A turn without a number and without an admission.
///
/// The answer is the last field: a turn that never runs drops its event sender first, then disarms its deadline.
#[derive(Debug)]
pub(crate) struct NewTurn {
    /// The number that another process has given to the turn.
    pub(crate) number: Option<TurnId>,
    pub(crate) input: Input,
    pub(crate) tool_results: Vec<ToolResult>,
    pub(crate) event_tx: Option<Sender<AgentEvent>>,
    pub(crate) cancel: CancelToken,
    pub(crate) deadline: Option<TimerGuard>,
    pub(crate) caller: CallerSpan,
    pub(crate) answer: Answer,
}

/// An accepted turn that waits for the turns before it.
#[derive(Debug)]
pub(super) struct QueuedTurn {
    pub(super) turn_id: TurnId,
    pub(super) accepted_at: Instant,
    pub(super) turn: NewTurn,
    /// Withdraws the turn when its token is cancelled. `None` until the caller has armed it.
    pub(super) hook: Option<CancelHook>,
}

impl NewTurn {
    /// Joins the turn with its number and its admission.
    pub(crate) fn admitted(self, turn_id: TurnId, (seal, admission): (TokenSeal, Admission)) -> Turn {
        let Self { number, input, tool_results, event_tx, cancel, deadline, caller, answer } = self;
        let guards = TurnGuards::new(deadline, seal, admission, answer);
        Turn { is_numbered: number.is_some(), input, tool_results, event_tx, turn_id, cancel, caller, guards }
    }
}

impl QueuedTurn {
    /// Makes its handle say that it is queued no more.
    pub(super) fn mark_unqueued(&self) {
        self.turn.answer.set_queued(false);
    }

    /// Joins the turn with its admission at `now`. No lock is held: the hook's guard waits for a hook that runs.
    pub(super) fn admitted(self, guards: (TokenSeal, Admission), now: Instant, shared: &SessionShared) -> Turn {
        self.end_wait(now, shared);
        let Self { turn_id, turn, hook, .. } = self;
        drop(hook);
        turn.admitted(turn_id, guards)
    }

    /// Withdraws a turn of session `id` as cancelled: for the reason in its token, or for `reason`. No lock is held.
    pub(super) fn cancel(mut self, id: SessionId, reason: CancelReason, shared: &SessionShared) {
        let cancel = self.turn.cancel.clone();
        // Before the cancellation, which would run it.
        drop(self.hook.take());
        drop(cancel.cancel(reason));
        let reason = cancel.reason().unwrap_or(reason);
        let source = Cancelled { reason }.into();
        self.withdraw(Err(SessionError::Agent { id, source }), shared).give();
    }

    /// Withdraws the turn with this result. The caller holds no lock, and gives the answer. By then the turn's event
    /// channel has disconnected, without an event.
    pub(super) fn withdraw(self, result: TurnResult, shared: &SessionShared) -> Answer {
        self.end_wait(shared.clock.now(), shared);
        let NewTurn { event_tx, cancel, deadline, answer, .. } = self.turn;
        drop(self.hook);
        cancel.seal();
        drop(event_tx);
        if let Some(deadline) = deadline {
            deadline.disarm();
        }
        shared.counters.turns_withdrawn.add_one();
        answer.prepare(result);
        answer
    }

    /// Stores how long the turn was queued, and adds it to the statistics.
    fn end_wait(&self, now: Instant, shared: &SessionShared) {
        let queued = now.saturating_duration_since(self.accepted_at);
        self.turn.answer.set_queued_for(queued);
        shared.counters.times.add_queued(queued);
    }
}
