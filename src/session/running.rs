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
use crate::wait::own_thread::RunningPermit;

use super::command::{Input, Turn};
use super::guards::TurnGuards;

/// A turn that the session thread has taken up.
///
/// The context is the first field: the event channel disconnects before the turn gives its [guards](TurnGuards) back.
pub(crate) struct RunningTurn {
    context: TurnContext,
    guards: TurnGuards,
}

impl RunningTurn {
    /// Takes up an admitted turn: its first event is out when this returns.
    pub(crate) fn take_up(turn: Turn, environment: &Arc<Environment>) -> (Self, Input) {
        let Turn { input, event_tx, turn_id, cancel, mut guards } = turn;
        guards.pick_up();
        environment.counters.turns_started.add_one();
        let context = TurnContext::new(TurnEvents::new(Arc::clone(environment), turn_id, event_tx, cancel));
        context.events().emit_own(|| AgentEvent::RunStarted {
            session_id: context.session_id(),
            turn_id: context.turn_id(),
            prompt: input.prompt.clone(),
        });
        (Self { context, guards }, input)
    }

    pub(crate) fn context(&self) -> &TurnContext {
        &self.context
    }

    /// Keeps the running permit until the right place in the order of the end.
    pub(crate) fn set_permit(&mut self, permit: RunningPermit) {
        self.guards.set_permit(permit);
    }

    /// Begins an interaction of host mode, which `cancel` ends alone.
    pub(crate) fn begin_interaction(&mut self, cancel: CancelToken) {
        self.context.begin_interaction(cancel);
    }

    /// Ends the interaction: what comes is of the whole turn again.
    pub(crate) fn end_interaction(&mut self) {
        self.context.end_interaction();
    }

    /// Gives the running permit back until the next interaction runs. The turn's own token ends the agent's waits meanwhile.
    pub(crate) fn release_permit(&mut self) {
        self.guards.release_permit(self.context.events().cancel_token());
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
        // Where the turn's handle is gone, the result is dropped here, with what the agent has put in.
        contain_and_log("the drop of a turn's result", move || answer.give());
    }

    /// Ends the turn, but leaves the caller waiting for the answer.
    pub(crate) fn end_but_answer(self, result: TurnResult) -> Answer {
        self.guards.prepare_answer(result);
        // The event channel disconnects.
        drop(self.context);
        self.guards.give_back()
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
