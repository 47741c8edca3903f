//! The restart of a faulted session: its agent is built again, from the committed history.
//!
//! # A fault, and a restart after it
//!
//! A caller begins a restart with one exchange at the gate: FAULTED becomes BUILDING and RUNNING. It is an admission as
//! that of a turn. It has an entry with a cancel token, it passes to the session thread with a command, and its end hands
//! over to the next queued turn:
//!
//! ```text
//! the session thread                         a caller of restart
//! the agent panics
//! store the message; gate: set FAULTED
//! close the inbox; withdraw the queue
//! end the turn: clear the entry and RUNNING
//! answer the caller of the turn
//!                                            lock the admissions
//!                                              gate: FAULTED becomes BUILDING and RUNNING
//!                                              store the token of the build
//!                                            unlock; send the command
//! drop the old agent; build the new one
//! publish; reopen the inbox
//! lock the admissions
//!   a turn is queued? pass the admission on
//!   none: clear the entry, BUILDING and RUNNING
//! unlock
//! reply                                      Ok
//! ```
//!
//! - **The exchange is one step, under the lock of the admissions.** Of several restarts one succeeds. From then on the
//!   session is busy, and turns queue behind the build. With FAULTED cleared first, a turn could be admitted that the
//!   panicked agent runs. With BUILDING set first, the session would be both faulted and building.
//! - **The faulted turn may not have ended yet.** Its error reaches callers of queued turns first, and a policy restarts
//!   at the fault itself. Then the exchange finds RUNNING set, and the restart waits beside the queue. The end of the
//!   faulted turn passes the admission to it, before any queued turn. In between, RUNNING stays set and the entry is that
//!   of the faulted turn. Without this, a caller that has just learned of the fault would find the session busy with it.
//! - **A build that fails ends in one step too.** Under the lock the queue is taken, BUILDING and RUNNING are cleared and
//!   FAULTED is set. A turn that is accepted before is withdrawn with the build's error, a later one is refused.
//! - **The old agent is dropped before the new one is built.** It may hold a name or a port that the new one needs.
//! - **The inbox reopens before the build ends at the gate.** A caller that finds the session idle can inject. A close of
//!   the session in the meantime is final: the inbox stays closed.
//!
//! # Close
//!
//! A close that cancels finds the token of the build in the entry. A draining close cancels the build too, unless a turn
//! is queued that needs the agent. A close that comes while the restart still waits for the faulted turn finds the token
//! of that turn. So the session thread reads the gate again after the restart has its entry, and builds no agent in a
//! closed session without queued turns:
//!
//! ```text
//! the end of the faulted turn                close(Interrupt)
//! lock; store the token of the build         gate: set CLOSED
//! unlock                                     lock; copy the token; unlock
//! gate: is CLOSED set?                       cancel it
//! ```
//!
//! If the thread finds CLOSED unset, the close gets the lock after the token of the build is stored, and cancels it.

use std::collections::VecDeque;

use crate::agent::{SessionAgentBuilder, SessionContext};
use crate::cancel::CancelToken;
use crate::error::{BuildError, SessionError};
use crate::model::{Labels, Session};
use crate::panics::{contain, contain_and_log};
use crate::service::{RestartPolicy, SessionSpec};
use crate::sync::{Arc, Instant, Sender};
use crate::time::clock::Clock;

use super::admission::{Admission, TokenSeal};
use super::first::BuildGuards;
use super::handle::SessionHandle;

/// A restart that has begun. It waits for the end of the faulted turn, or passes to the session thread.
#[derive(Debug)]
pub(super) struct Restart {
    cancel: CancelToken,
    reply: Option<Sender<Result<(), SessionError>>>,
}

/// A restart on its way to the session thread. A drop gives the guards back, then disconnects the reply.
#[derive(Debug)]
pub(crate) struct AdmittedRestart {
    pub(super) guards: BuildGuards,
    pub(super) cancel: CancelToken,
    /// `None` for the restart by a policy.
    pub(super) reply: Option<Sender<Result<(), SessionError>>>,
}

/// The parts from which a session's agent is built, kept for restarts. The history to resume is not among them.
pub(super) struct Blueprint<B> {
    builder: Arc<B>,
    spec: Box<SessionSpec>,
}

/// The restarts that a policy still allows in one session.
pub(super) struct RestartLimit {
    policy: Option<RestartPolicy>,
    /// The instants of the restarts within the policy's time, oldest first.
    recent: VecDeque<Instant>,
}

impl SessionHandle {
    /// Begins the restart of a faulted session. `reply` gets the result, and disconnects without one if the session ends
    /// before.
    pub(crate) fn begin_restart(
        self: &Arc<Self>,
        reply: Option<Sender<Result<(), SessionError>>>,
    ) -> Result<(), SessionError> {
        self.admit_restart(Restart { cancel: CancelToken::new(), reply })
    }
}

impl Restart {
    /// The token of the build.
    pub(super) fn cancel(&self) -> &CancelToken {
        &self.cancel
    }

    pub(super) fn admitted(self, seal: TokenSeal, admission: Admission) -> AdmittedRestart {
        let Self { cancel, reply } = self;
        AdmittedRestart { guards: BuildGuards::new(seal, admission), cancel, reply }
    }
}

#[cfg(turnwise_loom)]
impl AdmittedRestart {
    /// The token of the build.
    pub(crate) fn cancel(&self) -> &CancelToken {
        &self.cancel
    }
}

impl<B: SessionAgentBuilder> Blueprint<B> {
    pub(super) fn new(builder: Arc<B>, spec: Box<SessionSpec>) -> Self {
        Self { builder, spec }
    }

    /// Builds an agent. The specification loses the history that it resumes: a later build gets a newer one.
    pub(super) fn build(&mut self, context: SessionContext) -> Result<B::Agent, BuildError> {
        let built = contain(|| self.builder.build_agent(&self.spec, &context));
        drop(context);
        self.spec.resume = None;
        built.map_err(BuildError::Panicked)?.map_err(BuildError::Agent)
    }

    /// Builds an agent that resumes this history, in a session with these labels.
    pub(super) fn build_again(
        &mut self,
        history: Session,
        labels: Labels,
        context: SessionContext,
    ) -> Result<B::Agent, BuildError> {
        self.spec.resume = Some(history);
        self.spec.labels = labels.into();
        self.build(context)
    }

    /// Drops the parts one by one. The host's values may panic when dropped.
    pub(super) fn release(self) {
        let Self { builder, spec } = self;
        contain_and_log("the drop of a builder", move || drop(builder));
        contain_and_log("the drop of a session's specification", move || drop(spec));
    }
}

impl RestartLimit {
    pub(super) fn new(policy: Option<RestartPolicy>) -> Self {
        Self { policy, recent: VecDeque::new() }
    }

    /// Whether the policy allows a restart now.
    pub(super) fn allows(&mut self, clock: &Clock) -> bool {
        let Some(RestartPolicy { max, within }) = self.policy else { return false };
        let now = clock.now();
        while self.recent.front().is_some_and(|at| now.saturating_duration_since(*at) >= within) {
            self.recent.pop_front();
        }
        self.recent.len() < usize::try_from(max).unwrap_or(usize::MAX)
    }

    /// Counts a restart by the policy.
    pub(super) fn count(&mut self, clock: &Clock) {
        self.recent.push_back(clock.now());
    }
}
