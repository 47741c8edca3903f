//! A turn from the moment that the session's thread takes it up.

use std::fmt;

use crate::error::SessionError;
use crate::model::{AgentEvent, RunResult, StopReason};
use crate::panics::{contain, contain_and_log};
use crate::sync::Arc;
use crate::turn::context::TurnContext;
use crate::turn::environment::Environment;
use crate::turn::events::TurnEvents;
use crate::turn::outcome::{Answer, TurnResult};
use crate::wait::cancel::CancelToken;
use crate::wait::deadline::DeadlineGuard;
use crate::wait::own_thread::RunningPermit;

use super::command::{Input, Turn};
use super::handle::{ActiveEntry, Admission};

/// A turn in the hands of the session's thread.
///
/// **The order of the fields is the order in which the turn gives things back**, on every way out: the event channel
/// disconnects, the deadline is taken back, the token is sealed and no interrupt finds it any more, the running permit goes
/// to the next, the gate opens, and then the caller gets the result.
pub(crate) struct RunningTurn {
    context: TurnContext,
    _deadline: Option<DeadlineGuard>,
    _active: ActiveEntry,
    permit: Option<RunningPermit>,
    _admission: Admission,
    answer: Answer,
}

impl RunningTurn {
    /// Takes up an admitted turn: its first event is out when this returns.
    pub(crate) fn take_up(turn: Turn, environment: &Arc<Environment>) -> (Self, Input) {
        let Turn { input, event_tx, turn_id, cancel, deadline, active, mut admission, answer } = turn;
        admission.pick_up();
        environment.counters.turns_started.add_one();
        let context = TurnContext::new(TurnEvents::new(Arc::clone(environment), turn_id, event_tx, cancel));
        context.events().emit_own(|| AgentEvent::RunStarted {
            session_id: context.session_id(),
            turn_id: context.turn_id(),
            prompt: input.prompt.clone(),
        });
        let running =
            Self { context, _deadline: deadline, _active: active, permit: None, _admission: admission, answer };
        (running, input)
    }

    pub(crate) fn context(&self) -> &TurnContext {
        &self.context
    }

    /// Keeps the running permit until the right place in the order of the end.
    pub(crate) fn hold(&mut self, permit: RunningPermit) {
        self.permit = Some(permit);
    }

    /// Begins an interaction of host mode, which `cancel` ends alone.
    pub(crate) fn begin_interaction(&mut self, cancel: CancelToken) {
        self.context.begin_interaction(cancel);
    }

    /// Ends the interaction: what comes is of the whole turn again.
    pub(crate) fn end_interaction(&mut self) {
        self.context.end_interaction();
    }

    /// Gives the running permit back: nothing runs until the next is held. The turn's own token ends a wait meanwhile.
    pub(crate) fn rest(&mut self) {
        if let Some(permit) = self.permit.take() {
            permit.rest(self.context.events().cancel_token());
        }
    }

    /// Reports what the interactions have come to that the agent has taken on.
    pub(crate) fn settle(&self, result: &TurnResult) {
        let events = self.context.events();
        if events.interactions().are_none() {
            return;
        }
        match result {
            Ok(result) => events.settle(Ok(&result.text)),
            // The agent's own words: whoever follows knows which interaction it is about.
            Err(error @ SessionError::Agent { source, .. }) => events.settle(Err(&text_of(source, error.code()))),
            Err(error) => events.settle(Err(&text_of(error, error.code()))),
        }
    }

    /// Says how the turn ends, by its terminal event. An error that is put into words is still the agent's code at work.
    pub(crate) fn announce_end(&self, result: &TurnResult) {
        self.count(result);
        self.context.events().emit_last(|| self.terminal_event(result));
    }

    /// Ends the turn: everything is given back, then the caller has the result.
    pub(crate) fn end(self, result: TurnResult) {
        let answer = self.end_but_answer(result);
        // Where nobody holds the turn's handle any more the result goes with it, with whatever the agent put in.
        contain_and_log("the drop of a turn's result", move || drop(answer));
    }

    /// Ends the turn, but leaves the caller waiting until the answer is dropped.
    pub(crate) fn end_but_answer(self, result: TurnResult) -> Answer {
        let answer = self.answer;
        answer.prepare(result);
        answer
        // The other fields go here, in their order.
    }

    fn count(&self, result: &TurnResult) {
        let counters = &self.context.events().environment().counters;
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
            Err(error) => AgentEvent::RunFailed { session_id, turn_id, error: text_of(error, error.code()) },
        }
    }
}

/// An error of the agent may be of any type, with a `Display` that is its own. Where that panics, `code` has to do.
fn text_of(error: &impl fmt::Display, code: &str) -> String {
    contain(|| error.to_string()).unwrap_or_else(|_| code.to_owned())
}
