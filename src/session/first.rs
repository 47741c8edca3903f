//! The start of a session thread: the build, with the first turn or without one.

use crate::agent::{SessionAgentBuilder, SessionContext};
use crate::error::{BuildError, SessionError};
use crate::model::SessionId;
use crate::spans::SessionSpan;
use crate::sync::{Arc, Sender};
use crate::turn::handle::Answer;

use super::admission::{Admission, TokenSeal};
use super::handle::SessionHandle;
use super::restart::Blueprint;
use super::running::{Input, RunningTurn, Turn};

/// What the caller of a build waits for.
pub(crate) enum First {
    /// The first turn, already admitted.
    Turn(Turn),
    /// No turn: the caller waits for the build only.
    Open(Opening),
}

/// A build without a turn. A drop gives the guards back, then disconnects the reply.
pub(crate) struct Opening {
    pub(crate) guards: BuildGuards,
    pub(crate) reply: Sender<Result<SessionId, SessionError>>,
}

/// The guards of a build without a turn, first or by a restart, in the order in which they are given back.
#[derive(Debug)]
pub(crate) struct BuildGuards {
    seal: TokenSeal,
    admission: Admission,
}

/// The reply to the callers of a session that ends for a reason of its own: its build has failed, or another writer has
/// changed its record. They are the caller of the build or of the last turn, and those whose turns were queued behind it.
/// It is sent after the session has released everything.
///
/// If it is dropped instead, the callers of turns still get the error. The caller of an opening learns that the session
/// has ended.
#[must_use]
pub(crate) struct LastReply {
    first: FirstReply,
    queued: Vec<Answer>,
}

/// The reply to the caller of a build that failed, or of the last turn.
enum FirstReply {
    Turn(Answer),
    Open { reply: Sender<Result<SessionId, SessionError>>, error: SessionError },
}

impl LastReply {
    /// The reply to the last turn of a session, and to the turns that were queued behind it.
    pub(super) fn of_turns(last: Answer, queued: Vec<Answer>) -> Self {
        Self { first: FirstReply::Turn(last), queued }
    }

    /// Sends the error to the callers.
    pub(crate) fn send(self) {
        match self.first {
            FirstReply::Turn(answer) => answer.give(),
            FirstReply::Open { reply, error } => {
                // The receiver is disconnected if the caller has stopped waiting.
                let _ = reply.try_send(Err(error));
            }
        }
        self.queued.into_iter().for_each(Answer::give);
    }
}

/// A [`First`] that the session thread has picked up.
#[allow(clippy::large_enum_variant)] // One on the stack of its thread, for the length of the build.
pub(super) enum FirstStep {
    Turn(RunningTurn, Input),
    Open(Opening),
}

impl BuildGuards {
    pub(crate) fn new(seal: TokenSeal, admission: Admission) -> Self {
        Self { seal, admission }
    }

    /// Marks the build as picked up by the session thread.
    pub(super) fn pick_up(&mut self) {
        self.admission.pick_up();
    }

    /// Gives both guards back after a build that failed: no cancellation reaches the build any more, and the gate shows
    /// no turn.
    fn give_back(self) {
        self.seal.seal();
        self.admission.give_back();
    }

    /// Gives both guards back, and ends the build in the same step. A turn that is queued behind the build is admitted.
    pub(super) fn end_build(self) {
        self.seal.seal();
        self.admission.end_build();
    }

    /// Gives both guards back after a restart whose build has failed. In the same step the session is faulted again.
    pub(super) fn fail_restart(self, error: SessionError) {
        self.seal.seal();
        self.admission.fail_restart(error);
    }
}

impl FirstStep {
    pub(super) fn take_up(first: First, handle: &SessionHandle, session: &SessionSpan) -> Self {
        match first {
            First::Turn(turn) => {
                let (turn, input) = RunningTurn::take_up(turn, handle, session);
                Self::Turn(turn, input)
            }
            First::Open(mut opening) => {
                opening.guards.pick_up();
                Self::Open(opening)
            }
        }
    }

    /// Builds the agent. Events that it emits on this thread during the build belong to the first turn, and what it
    /// records belongs to that turn's span.
    pub(super) fn build<B: SessionAgentBuilder>(
        &mut self,
        blueprint: &mut Blueprint<B>,
        context: SessionContext,
        session: &SessionSpan,
    ) -> Result<B::Agent, BuildError> {
        let _entered = match &*self {
            Self::Turn(turn, _) => turn.context().events().span().enter(),
            Self::Open(_) => session.enter(),
        };
        let building = match &*self {
            Self::Turn(turn, _) => Some(context.events().while_building(Arc::clone(turn.context().events()))),
            Self::Open(_) => None,
        };
        let built = blueprint.build(context);
        if let Some(building) = building {
            building.end();
        }
        built
    }

    /// Ends a build that failed. The session stays `Building` until it has ended, so that an interrupt still finds a
    /// turn whose last event waits for room.
    ///
    /// Queued turns get the same error, since no turn of this session will run.
    pub(super) fn fail(self, error: SessionError, handle: &SessionHandle) -> LastReply {
        match self {
            Self::Turn(mut turn, _) => {
                let result = Err(error.clone());
                turn.end_call();
                turn.end_steering();
                turn.announce_end(&result);
                // Before the end of the turn, which would admit the next one.
                let queued = handle.end_queue(&error);
                LastReply { first: FirstReply::Turn(turn.end_but_answer(result)), queued }
            }
            Self::Open(Opening { guards, reply }) => {
                let queued = handle.end_queue(&error);
                guards.give_back();
                LastReply { first: FirstReply::Open { reply, error }, queued }
            }
        }
    }

    /// Ends a build that succeeded: the session is open. Returns the first turn, which has yet to run.
    pub(super) fn succeed(self, handle: &SessionHandle) -> Option<(RunningTurn, Input)> {
        match self {
            Self::Turn(turn, input) => {
                handle.end_build();
                Some((turn, input))
            }
            Self::Open(Opening { guards, reply }) => {
                guards.end_build();
                let id = handle.id();
                let result = if handle.is_open() { Ok(id) } else { Err(SessionError::NotFound { id }) };
                // The receiver is disconnected if the caller has stopped waiting.
                let _ = reply.try_send(result);
                None
            }
        }
    }
}
