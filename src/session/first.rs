//! How a session's thread begins: the build, with the first turn or without one.

use crate::agent::{SessionAgent, SessionAgentBuilder, SessionContext};
use crate::error::{BuildError, SessionError};
use crate::model::SessionId;
use crate::panics::{contain, contain_and_log};
use crate::service::SessionSpec;
use crate::sync::{Arc, Sender};
use crate::turn::environment::Environment;
use crate::turn::outcome::Answer;

use super::command::{Input, Turn};
use super::handle::{ActiveEntry, Admission};
use super::running::RunningTurn;
use super::thread::SessionThread;

/// What comes with the build.
pub(crate) enum First {
    /// The first turn, admitted already.
    Turn(Turn),
    /// Nothing: the caller waits for the build alone.
    Open(Opening),
}

/// A build without a turn. In the order in which it is given back.
pub(crate) struct Opening {
    pub(crate) active: ActiveEntry,
    pub(crate) admission: Admission,
    pub(crate) reply: Sender<Result<SessionId, SessionError>>,
}

/// What a failed build still owes its caller, once nothing is left of the session. Dropping it pays.
pub(crate) enum Owed {
    Turn { _answer: Answer },
    Open { reply: Sender<Result<SessionId, SessionError>>, error: SessionError },
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Self::Open { reply, error } = self {
            // Nobody listens where the caller has stopped waiting.
            let _ = reply.try_send(Err(error.clone()));
        }
    }
}

/// [`First`], once the thread has taken it up.
#[allow(clippy::large_enum_variant)] // One on the stack of its thread, for the length of the build.
pub(super) enum FirstStep {
    Turn(RunningTurn, Input),
    Open(Opening),
}

impl FirstStep {
    pub(super) fn take_up(first: First, environment: &Arc<Environment>) -> Self {
        match first {
            First::Turn(turn) => {
                let (turn, input) = RunningTurn::take_up(turn, environment);
                Self::Turn(turn, input)
            }
            First::Open(mut opening) => {
                opening.admission.pick_up();
                Self::Open(opening)
            }
        }
    }

    /// Builds the agent; what it emits meanwhile on this thread is part of the first turn.
    pub(super) fn build<B: SessionAgentBuilder>(
        &mut self,
        builder: Arc<B>,
        spec: SessionSpec,
        context: SessionContext,
    ) -> Result<B::Agent, BuildError> {
        let building = match self {
            Self::Turn(turn, _) => Some(context.events().while_building(Arc::clone(turn.context().events()))),
            Self::Open(_) => None,
        };
        let built = contain(|| builder.build_agent(&spec, &context));
        drop(building);
        // A user's values, so they may panic: the agent is there all the same, and outlives them.
        contain_and_log("the drop of a builder", move || drop(builder));
        contain_and_log("the drop of a session's specification", move || drop(spec));
        drop(context);
        built.map_err(BuildError::Panicked)?.map_err(BuildError::Agent)
    }

    /// Until the session is gone it is `Building`, so that an interrupt still finds a turn whose last event has no room.
    pub(super) fn fail(self, error: SessionError) -> Owed {
        match self {
            Self::Turn(turn, _) => {
                let result = Err(error);
                turn.announce_end(&result);
                Owed::Turn { _answer: turn.end_but_answer(result) }
            }
            Self::Open(Opening { active, admission, reply }) => {
                drop(active);
                drop(admission);
                Owed::Open { reply, error }
            }
        }
    }

    /// The build is over: the session is open, and runs the first turn where there is one.
    pub(super) fn succeed<A: SessionAgent>(self, thread: &mut SessionThread<A>) {
        match self {
            Self::Turn(turn, input) => {
                thread.handle.gate().end_build();
                thread.run_turn(turn, input);
            }
            Self::Open(Opening { active, admission, reply }) => {
                drop(active);
                // Before the build is over: afterwards the gate would show a turn that there is not.
                drop(admission);
                thread.handle.gate().end_build();
                let id = thread.handle.id();
                let result = if thread.handle.is_open() { Ok(id) } else { Err(SessionError::NotFound { id }) };
                // Nobody listens where the caller has stopped waiting.
                let _ = reply.try_send(result);
            }
        }
    }
}
