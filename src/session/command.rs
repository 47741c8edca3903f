//! The commands of a session thread.
//!
//! **Invariant.** Every command answers when it is dropped, run or not: a turn by the answer among its
//! [guards](super::running::TurnGuards), a restart or an unload by its reply, a request for the history by its latch.
//! So no caller waits for a command that was dropped with its queue.

use std::fmt;

use crate::error::SessionError;
use crate::model::Session;
use crate::panics::contain_and_log;
use crate::sync::{Arc, Mutex};
use crate::wait::latch::Latch;

use super::restart::AdmittedRestart;
use super::running::Turn;
use super::unload::UnloadRequest;

#[derive(Debug)]
pub(crate) enum Command {
    /// Runs a turn that has been admitted.
    Turn(Turn),
    /// Builds the agent of a faulted session again.
    Restart(AdmittedRestart),
    /// Exports the history.
    Export(HistoryRequest),
    /// Exports the history and ends the session, with no turn in between.
    Take(HistoryRequest),
    /// Unloads the session if nothing uses it.
    Unload(UnloadRequest),
    /// Makes the session thread check the gate: an admission was given back, or the session is closed.
    Wake,
}

impl Command {
    /// Whether this is the request that `reply` belongs to.
    pub(crate) fn is_answered_to(&self, reply: &HistoryReply) -> bool {
        match self {
            Self::Export(request) | Self::Take(request) => std::ptr::eq(&*request.reply, reply),
            Self::Turn(_) | Self::Restart(_) | Self::Unload(_) | Self::Wake => false,
        }
    }
}

/// The caller's end of a request for a session's history. [`HistoryRequest`] is the session thread's end.
#[derive(Debug)]
pub(crate) struct HistoryReply {
    state: Mutex<ReplyState>,
    decided: Latch,
}

#[derive(Debug)]
enum ReplyState {
    Waiting,
    /// The caller has stopped waiting. The session thread skips the request.
    GivenUp,
    Done(Result<Session, SessionError>),
}

/// The condition of a take. The session thread checks it between two turns, with the history that it would hand over.
/// An error goes to the taker, and the session stays.
pub(crate) type TakeCondition = Box<dyn Fn(&Session) -> Result<(), SessionError> + Send + Sync>;

/// The history of a session that ends with the take, and whether the session thread held nothing of it in time. If it
/// did, the taker can resume the history.
pub(crate) type Taken = (Session, Result<(), SessionError>);

/// The session thread's end of a [`HistoryReply`]. If it is dropped undecided, the caller gets no decision.
pub(crate) struct HistoryRequest {
    reply: Arc<HistoryReply>,
    condition: Option<TakeCondition>,
}

impl HistoryReply {
    pub(crate) fn new() -> (HistoryRequest, Arc<Self>) {
        let reply = Arc::new(Self { state: Mutex::new(ReplyState::Waiting), decided: Latch::new() });
        (HistoryRequest { reply: Arc::clone(&reply), condition: None }, reply)
    }

    /// Set when the request is decided, or never will be.
    pub(crate) fn decided(&self) -> &Latch {
        &self.decided
    }

    /// Stops waiting. Returns the decision, or `None` if there will be none.
    pub(crate) fn give_up(&self) -> Option<Result<Session, SessionError>> {
        match std::mem::replace(&mut *self.state.lock(), ReplyState::GivenUp) {
            ReplyState::Done(result) => Some(result),
            ReplyState::Waiting | ReplyState::GivenUp => None,
        }
    }
}

impl HistoryRequest {
    pub(crate) fn on_condition(mut self, condition: Option<TakeCondition>) -> Self {
        self.condition = condition;
        self
    }

    pub(crate) fn meet_condition(&self, history: &Session) -> Result<(), SessionError> {
        self.condition.as_ref().map_or(Ok(()), |condition| condition(history))
    }

    /// Whether the caller has stopped waiting.
    pub(crate) fn is_given_up(&self) -> bool {
        matches!(*self.reply.state.lock(), ReplyState::GivenUp)
    }

    /// Delivers `history` if the caller still waits and `commit` returns true: both or neither. An error needs no
    /// commit. Returns false if `commit` has refused.
    pub(crate) fn decide(&self, history: Result<Session, SessionError>, commit: impl FnOnce() -> bool) -> bool {
        let (is_decided, unused) = {
            let mut state = self.reply.state.lock();
            match *state {
                ReplyState::Waiting if history.is_err() || commit() => {
                    *state = ReplyState::Done(history);
                    (true, None)
                }
                ReplyState::Waiting => (false, Some(history)),
                ReplyState::GivenUp | ReplyState::Done(_) => (true, Some(history)),
            }
        };
        // The result may hold an error of the agent or of a store, so it is dropped with no lock held.
        contain_and_log("the drop of a history's error", move || drop(unused));
        is_decided
    }
}

impl fmt::Debug for HistoryRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HistoryRequest").field("reply", &self.reply).finish_non_exhaustive()
    }
}

impl Drop for HistoryRequest {
    fn drop(&mut self) {
        self.reply.decided.set();
    }
}
