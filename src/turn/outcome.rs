//! How a turn's result gets from the session's thread to whoever holds the turn's handle.

use crate::error::SessionError;
use crate::model::{RunResult, SessionId};
use crate::panics::contain_and_log;
use crate::sync::{Arc, Mutex};
use crate::wait::latch::Latch;

pub(crate) type TurnResult = Result<RunResult, SessionError>;

/// The place for one result. It is put there before `finished` is set, and stays until the last taker.
#[derive(Debug)]
pub(crate) struct Outcome {
    session_id: SessionId,
    result: Mutex<Option<TurnResult>>,
    finished: Latch,
}

/// The duty to give one result: what [`prepare`](Answer::prepare) put in, or that the session is gone. [`give`](Answer::give) gives
/// it, and so does a drop, so that no caller is left waiting.
#[must_use = "dropping it answers the caller"]
#[derive(Debug)]
pub(crate) struct Answer {
    /// `None` once the result is given.
    outcome: Option<Arc<Outcome>>,
}

impl Outcome {
    pub(crate) fn new(session_id: SessionId) -> (Answer, Arc<Self>) {
        let outcome = Arc::new(Self { session_id, result: Mutex::new(None), finished: Latch::new() });
        (Answer { outcome: Some(Arc::clone(&outcome)) }, outcome)
    }

    pub(crate) fn finished(&self) -> &Latch {
        &self.finished
    }

    /// A copy of the result, once it is there.
    pub(crate) fn get(&self) -> Option<TurnResult> {
        if !self.finished.is_set() {
            return None;
        }
        self.result.lock().clone()
    }

    /// The result itself, once it is there; for the last who asks.
    pub(crate) fn take(&self) -> Option<TurnResult> {
        if !self.finished.is_set() {
            return None;
        }
        self.result.lock().take()
    }
}

impl Answer {
    /// Decides what the caller will get. To be called once.
    pub(crate) fn prepare(&self, result: TurnResult) {
        if let Some(outcome) = &self.outcome {
            *outcome.result.lock() = Some(result);
        }
    }

    /// Gives the result to the caller.
    pub(crate) fn give(mut self) {
        self.give_once();
    }

    fn give_once(&mut self) {
        let Some(outcome) = self.outcome.take() else { return };
        let id = outcome.session_id;
        outcome.result.lock().get_or_insert(Err(SessionError::NotFound { id }));
        outcome.finished.set();
    }
}

/// The result of a turn that no caller waits for goes with the last share, on whatever thread: it may hold an error of the agent.
impl Drop for Outcome {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.take() {
            contain_and_log("the drop of a turn's error", move || drop(error));
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.give_once();
    }
}
