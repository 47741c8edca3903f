//! What a session's thread is asked to do.
//!
//! **Invariant.** Every command answers when it is dropped, run or not: a turn by its [`Answer`], an export by its channel
//! disconnecting, a takeover by its latch. So nobody waits for a command that a dying queue took with it.

use crate::error::SessionError;
use crate::model::{Session, SkillId};
use crate::sync::{Arc, Mutex, Sender};
use crate::turn::context::TurnContext;
use crate::turn::outcome::Answer;
use crate::wait::deadline::DeadlineGuard;
use crate::wait::latch::Latch;

use super::handle::{ActiveEntry, Admission};

#[derive(Debug)]
pub(crate) enum Command {
    /// Run a turn that has been admitted.
    Turn(Box<Turn>),
    /// Hand out the history.
    Export(Sender<Result<Session, SessionError>>),
    /// Hand out the history and end, with no turn in between.
    Take(Takeover),
    /// Look again: an admission was given up.
    Wake,
}

/// An admitted turn on its way to the session's thread.
///
/// The order of the fields is the order in which a turn that is never run gives things back; see
/// [`RunningTurn`](super::running::RunningTurn) for one that is.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) prompt: String,
    pub(crate) skills: Option<Vec<SkillId>>,
    pub(crate) context: TurnContext,
    pub(crate) deadline: Option<DeadlineGuard>,
    pub(crate) active: ActiveEntry,
    pub(crate) admission: Admission,
    pub(crate) answer: Answer,
}

/// An attempt to take a session, seen from its caller and from the session's thread.
#[derive(Debug)]
pub(crate) struct TakeSlot {
    state: Mutex<TakeState>,
    decided: Latch,
}

#[derive(Debug)]
enum TakeState {
    Waiting,
    /// The caller has stopped waiting: the session stays as it is.
    GivenUp,
    Done(Result<Session, SessionError>),
}

/// The session thread's end of a [`TakeSlot`]. Dropped without a decision it leaves the caller with none.
#[derive(Debug)]
pub(crate) struct Takeover(Arc<TakeSlot>);

impl TakeSlot {
    pub(crate) fn new() -> (Takeover, Arc<Self>) {
        let slot = Arc::new(Self { state: Mutex::new(TakeState::Waiting), decided: Latch::new() });
        (Takeover(Arc::clone(&slot)), slot)
    }

    pub(crate) fn decided(&self) -> &Latch {
        &self.decided
    }

    /// What was decided; if nothing was, nothing will be.
    pub(crate) fn give_up(&self) -> Option<Result<Session, SessionError>> {
        match std::mem::replace(&mut *self.state.lock(), TakeState::GivenUp) {
            TakeState::Done(result) => Some(result),
            TakeState::Waiting | TakeState::GivenUp => None,
        }
    }
}

impl Takeover {
    /// Whether nobody waits for this any more.
    pub(crate) fn is_given_up(&self) -> bool {
        matches!(*self.0.state.lock(), TakeState::GivenUp)
    }

    /// Decides: `close` and the delivery of `session` happen both or not at all. Whether it is decided; if not, the turn
    /// that is on its way comes first.
    pub(crate) fn decide(&self, session: Result<Session, SessionError>, close: impl FnOnce() -> bool) -> bool {
        let mut state = self.0.state.lock();
        match *state {
            TakeState::Waiting if session.is_err() || close() => {
                *state = TakeState::Done(session);
                true
            }
            TakeState::Waiting => false,
            TakeState::GivenUp | TakeState::Done(_) => true,
        }
    }
}

impl Drop for Takeover {
    fn drop(&mut self) {
        self.0.decided.set();
    }
}
