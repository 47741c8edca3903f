//! A turn in progress: admitted on the caller's thread, then picked up by the session thread.
//!
//! **Invariant.** The guards of a turn move as one value, with the command, from the caller to the session thread. So
//! every exit from a turn gives back all of them.

use std::fmt;

use crate::cancel::CancelToken;
use crate::context::turn::TurnContext;
use crate::error::SessionError;
use crate::model::{AgentEvent, Brief, RunResult, SkillId, StopReason, ToolResult, TurnId, TurnTimings};
use crate::panics::{contain, contain_and_log};
use crate::permits::wait_times::Waited;
use crate::reentrancy::RunningPermit;
use crate::spans::{CallerSpan, SessionSpan, TurnSpan};
use crate::status::history::Commit;
use crate::sync::{Arc, Instant, Sender};
use crate::timers::TimerGuard;
use crate::turn::events::TurnEvents;
use crate::turn::handle::{Answer, TurnResult};

use super::admission::{Admission, TokenSeal};
use super::handle::SessionHandle;

/// An admitted turn on its way to the session thread, which turns it into a [`RunningTurn`].
///
/// The guards are the last field: a turn that never runs drops its event sender before it gives them back.
#[derive(Debug)]
pub(crate) struct Turn {
    /// Whether another process has given the number out.
    pub(crate) is_numbered: bool,
    pub(crate) input: Input,
    pub(crate) tool_results: Vec<ToolResult>,
    pub(crate) event_tx: Option<Sender<AgentEvent>>,
    pub(crate) turn_id: TurnId,
    pub(crate) cancel: CancelToken,
    pub(crate) caller: CallerSpan,
    pub(crate) guards: TurnGuards,
}

/// The agent's input in a turn, apart from the context.
pub(crate) struct Input {
    pub(crate) prompt: String,
    pub(crate) skills: Option<Vec<SkillId>>,
    pub(crate) host_mode: bool,
}

/// The guards of an admitted turn.
///
/// **The order of the fields is the order in which a turn gives them back.** [`give_back`](Self::give_back) follows it,
/// and so does a drop on every other exit:
///
/// 1. The deadline is disarmed: it does not cancel a later turn.
/// 2. The token is sealed: a later interrupt has no effect. The active entry stays until the admission is given back, so
///    that an interrupt of the session finds a turn at any time between two queued turns.
/// 3. The running permit is released to the next waiting turn.
/// 4. The admission passes to the next queued turn, together with the active entry. If no turn is queued, the entry is
///    cleared and the gate opens.
/// 5. The caller gets the result, and can start the next turn at once.
///
/// A turn with a context drops it before all of these: its event channel disconnects first.
#[derive(Debug)]
pub(crate) struct TurnGuards {
    deadline: Option<TimerGuard>,
    seal: TokenSeal,
    /// `None` before the turn runs, and between two interactions of host mode.
    permit: Option<RunningPermit>,
    admission: Admission,
    answer: Answer,
}

/// A turn that the session thread has picked up.
///
/// The context is the first field: the event channel disconnects before the turn gives its [guards](TurnGuards) back.
pub(crate) struct RunningTurn {
    context: TurnContext,
    guards: TurnGuards,
    /// The beginning of the agent's call; for the first call, the admission. `None` between two calls.
    since: Option<Instant>,
    /// The times of the agent's calls so far.
    timings: TurnTimings,
    /// What the end of the turn does to the committed history, or the end of a prompt or interaction in host mode.
    commit: Commit,
}

impl RunningTurn {
    /// Picks up an admitted turn, and emits its first event.
    pub(crate) fn take_up(turn: Turn, handle: &SessionHandle, session: &SessionSpan) -> (Self, Input) {
        let Turn { is_numbered, input, tool_results, event_tx, turn_id, cancel, caller, mut guards } = turn;
        guards.pick_up();
        let shared = handle.shared();
        let since = Some(guards.admission.at());
        shared.counters.turns_started.add_one();
        let span = TurnSpan::new(session, handle.id(), turn_id, caller);
        let events = TurnEvents::new(Arc::clone(shared), turn_id, event_tx, cancel, span);
        let service = Arc::clone(handle.service());
        let context = TurnContext::new(events, is_numbered, tool_results, service, guards.deadline_at());
        context.events().emit_library_event(|| AgentEvent::RunStarted {
            session_id: context.session_id(),
            turn_id: context.turn_id(),
            prompt: input.prompt.clone(),
        });
        (Self { context, guards, since, timings: TurnTimings::default(), commit: Commit::Advance }, input)
    }

    pub(crate) fn context(&self) -> &TurnContext {
        &self.context
    }

    /// Stores the running permit, which is released at its place in the order of the end.
    pub(crate) fn set_permit(&mut self, permit: RunningPermit) {
        self.guards.set_permit(permit);
    }

    /// Begins an interaction of host mode, which `cancel` cancels without the turn.
    pub(crate) fn begin_interaction(&mut self, cancel: CancelToken) {
        self.since = Some(self.context.events().shared().clock.now());
        self.context.begin_interaction(cancel);
    }

    /// Ends the time of the agent's call.
    pub(crate) fn end_call(&mut self) {
        if let Some(since) = self.since.take() {
            let shared = self.context.events().shared();
            let now = shared.clock.now();
            let Waited { permit, input } = shared.permit.end_call(now);
            shared.set_last_use(now);
            self.timings.add_call(now.saturating_duration_since(since), permit, input);
        }
    }

    /// Sets whether the end of the agent's call is committed.
    pub(crate) fn set_commit(&mut self, commit: Commit) {
        self.commit = commit;
    }

    /// Ends the interaction: later events belong to the whole turn again.
    pub(crate) fn end_interaction(&mut self) {
        self.context.end_interaction();
    }

    /// Releases the running permit until the next interaction runs. Meanwhile the turn's own token cancels the agent's
    /// waits.
    pub(crate) fn release_permit(&mut self) {
        self.guards.release_permit(self.context.events().cancel_token());
    }

    /// Takes no more messages that steer the turn: the agent is not called again. The ones that it has not taken fail.
    pub(crate) fn end_steering(&self) {
        self.context.events().shared().inbox.end_steering(self.context.turn_id());
    }

    /// Reports the result of the interactions that the agent has accepted. The turn ends after this.
    pub(crate) fn settle(&self, result: &TurnResult) {
        if !self.context.events().interactions().is_empty() {
            self.settle_with(result, Commit::Stay);
        }
    }

    /// Reports the result of the interactions that the agent has accepted, and commits the prompt or interaction that
    /// has ended in host mode. The turn goes on.
    pub(crate) fn settle_in_host_mode(&self, result: &TurnResult) {
        self.settle_with(result, self.commit);
    }

    fn settle_with(&self, result: &TurnResult, commit: Commit) {
        let events = self.context.events();
        match result {
            Ok(result) => events.settle(Ok(&result.text), commit),
            // The agent's text without the prefix: the subscriber knows which interaction it follows.
            Err(error @ SessionError::Agent { source, .. }) => {
                events.settle(Err(&self.text_of(source, error.code())), commit);
            }
            Err(error) => events.settle(Err(&self.text_of(error, error.code())), commit),
        }
    }

    /// Counts the result, commits the turn and emits the terminal event. Formatting an error may run the agent's code.
    pub(crate) fn announce_end(&self, result: &TurnResult) {
        self.count(result);
        self.context.events().emit_last(|| self.terminal_event(result), self.commit);
    }

    /// Ends the turn: gives all guards back, then delivers the result to the caller.
    pub(crate) fn end(self, result: TurnResult) {
        let answer = self.end_but_answer(result);
        // If the turn's handle is dropped, the result is dropped here, with the agent's values in it.
        contain_and_log("the drop of a turn's result", move || answer.give());
    }

    /// Ends the turn without the answer, for which the caller still waits.
    pub(crate) fn end_but_answer(self, result: TurnResult) -> Answer {
        self.guards.prepare_answer(result, self.timings);
        // The event channel disconnects.
        drop(self.context);
        self.guards.give_back()
    }

    fn count(&self, result: &TurnResult) {
        let counters = &self.context.events().shared().counters;
        // First, so that a reader of the statistics that sees the turn ended sees its times.
        counters.times.add_calls(&self.timings);
        match result {
            Ok(RunResult { stop_reason: StopReason::Cancelled, .. }) => &counters.turns_cancelled,
            Ok(_) => &counters.turns_completed,
            Err(SessionError::Faulted { .. }) => &counters.faults,
            Err(_) if self.context.is_cancelled() => &counters.turns_cancelled,
            Err(_) => &counters.turns_failed,
        }
        .add_one();
    }

    fn terminal_event(&self, result: &TurnResult) -> AgentEvent {
        let (session_id, turn_id) = (self.context.session_id(), self.context.turn_id());
        match result {
            Ok(RunResult { text, usage, .. }) => {
                AgentEvent::RunCompleted { session_id, turn_id, result: text.clone(), usage: *usage }
            }
            Err(error) => AgentEvent::RunFailed { session_id, turn_id, error: self.text_of(error, error.code()) },
        }
    }

    /// The text of an error. An agent's error may be of any type, and its `Display` may panic: then `code` stands in.
    fn text_of(&self, error: &impl fmt::Display, code: &str) -> String {
        let _entered = self.context.events().span().enter();
        contain(|| error.to_string()).unwrap_or_else(|_| code.to_owned())
    }
}

impl TurnGuards {
    pub(crate) fn new(deadline: Option<TimerGuard>, seal: TokenSeal, admission: Admission, answer: Answer) -> Self {
        Self { deadline, seal, permit: None, admission, answer }
    }

    /// Marks the turn as picked up by the session thread.
    pub(super) fn pick_up(&mut self) {
        self.admission.pick_up();
    }

    /// The instant at which the turn's timeout cancels it.
    fn deadline_at(&self) -> Option<Instant> {
        self.deadline.as_ref().map(TimerGuard::at)
    }

    /// Stores the running permit until its place in the order of the end.
    pub(super) fn set_permit(&mut self, permit: RunningPermit) {
        self.permit = Some(permit);
    }

    /// Releases the running permit between two interactions. Meanwhile `cancel`, the turn's own token, cancels the
    /// agent's waits.
    pub(super) fn release_permit(&mut self, cancel: &CancelToken) {
        if let Some(permit) = self.permit.take() {
            permit.release_between_interactions(cancel);
        }
    }

    /// Sets the result that the caller will get, and the times of the agent's calls.
    pub(super) fn prepare_answer(&self, result: TurnResult, calls: TurnTimings) {
        self.answer.prepare_with_calls(result, calls);
    }

    /// Gives back all guards but the answer, for which the caller still waits.
    pub(super) fn give_back(self) -> Answer {
        // Moved out one by one: if one of them unwinds, the remaining fields are dropped in their order.
        if let Some(deadline) = self.deadline {
            deadline.disarm();
        }
        self.seal.seal();
        if let Some(permit) = self.permit {
            permit.release();
        }
        self.admission.give_back();
        self.answer
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("prompt", &Brief(&self.prompt)).finish_non_exhaustive()
    }
}
