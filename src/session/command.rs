//! The commands of a session thread.
//!
//! **Invariant.** Every command answers when it is dropped, run or not: a turn by the answer among its [guards](super::running::TurnGuards), a
//! request for the history by its latch. So no caller waits for a command that a dying queue took with it.

use std::fmt;

use crate::error::SessionError;
use crate::model::Session;
use crate::panics::contain_and_log;
use crate::sync::{Arc, Mutex};
use crate::wait::latch::Latch;

use super::running::Turn;

#[derive(Debug)]
pub(crate) enum Command {
    /// Run a turn that has been admitted.
    Turn(Turn),
    /// Hand out the history.
    Export(HistoryRequest),
    /// Hand out the history and end, with no turn in between.
    Take(HistoryRequest),
    /// Look again: an admission was given up, or the session is closed.
    Wake,
}

/// A request for a session's history, as its caller holds it. See [`HistoryRequest`] for the other end.
#[derive(Debug)]
pub(crate) struct HistoryReply {
    state: Mutex<ReplyState>,
    decided: Latch,
}

#[derive(Debug)]
enum ReplyState {
    Waiting,
    /// The caller has stopped waiting: nothing is done for it any more.
    GivenUp,
    Done(Result<Session, SessionError>),
}

/// What has to be met before a session is taken: asked on its thread, between two turns, with the history that would be handed over.
/// An error is the taker's, and the session stays.
pub(crate) type TakeCondition = Box<dyn Fn(&Session) -> Result<(), SessionError> + Send + Sync>;

/// The history of a session that ends with it; and whether its thread held nothing of it any more, in time: so that the taker can
/// resume what it has.
pub(crate) type Taken = (Session, Result<(), SessionError>);

/// The session thread's end of a [`HistoryReply`]. Dropped without a decision it leaves the caller with none.
pub(crate) struct HistoryRequest {
    reply: Arc<HistoryReply>,
    condition: Option<TakeCondition>,
}

impl HistoryReply {
    pub(crate) fn new() -> (HistoryRequest, Arc<Self>) {
        let reply = Arc::new(Self { state: Mutex::new(ReplyState::Waiting), decided: Latch::new() });
        (HistoryRequest { reply: Arc::clone(&reply), condition: None }, reply)
    }

    /// Set when there is nothing more to wait for.
    pub(crate) fn decided(&self) -> &Latch {
        &self.decided
    }

    /// What was decided; if nothing was, nothing will be.
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

    /// Whether nobody waits for this any more.
    pub(crate) fn is_given_up(&self) -> bool {
        matches!(*self.reply.state.lock(), ReplyState::GivenUp)
    }

    /// Delivers `history` if the caller still waits, and if `commit` agrees: both or neither. A failure needs no commit.
    /// Whether it is decided; if not, `commit` has refused.
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
        // It may hold an error of the agent or of a store, and is dropped with no lock held.
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
