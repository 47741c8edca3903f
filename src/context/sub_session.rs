//! Child sessions that end with the turn that made them.
//!
//! # What ends a child
//!
//! | What happens | Where the child is found | What it gets |
//! |---|---|---|
//! | the parent's turn is cancelled | among the children of the turn's token | its first turn is cancelled, for the same reason |
//! | its [`SubSession`] is dropped | by its id | archived with an interrupt |
//! | the agent's call ends, and the `SubSession` was leaked | in [`SubSessions`] | the same |
//!
//! A child is entered in both places after its turn has begun. A cancel in between finds neither, so the token is asked
//! once more when the child is entered: see [`CancelToken::adopt`].

use std::fmt;
use std::time::Duration;

use crate::cancel::CancelToken;
use crate::error::SessionError;
use crate::model::{AgentEvent, RunResult, SessionId};
use crate::panics::{contain_and_log, record};
use crate::service::{ArchiveMode, CreateSessionRequest, SessionService};
use crate::sync::Mutex;
use crate::turn::handle::TurnHandle;
use crate::turn::stream::TurnStream;

use super::turn::TurnContext;

/// A child session of a turn, whose first turn has begun; made by [`TurnContext::sub_session`].
///
/// The child ends with the value: a drop interrupts and archives it, also while the parent panics. Nothing of it
/// outlives the parent's turn, unless it is [detached](Self::detach). A value that is leaked ends with the parent's
/// turn, in host mode with the interaction. A drop does not wait for the child, whose cancel hooks run on the dropping
/// thread. The child's capacity is free once its thread is done; [`close`](Self::close) waits for that. In a service
/// that stores sessions the child stays archived, and the drop may wait for the disk.
///
/// As an iterator it returns the events of the child's first turn. A child whose events are not read waits once
/// [`TurnStream::CAPACITY`] of them are unread.
///
/// ```
/// use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, SessionService};
///
/// let agent = agent_fn(|prompt, turn| {
///     if prompt != "delegate" {
///         turn.emit(AgentEvent::TextDelta { delta: "hm".into() })?;
///         return Ok(turn.finish(prompt.to_uppercase()));
///     }
///     let mut child = turn.sub_session(CreateSessionRequest::new("hello"))?;
///     for event in &mut child {
///         if let AgentEvent::TextDelta { .. } = event {
///             turn.emit(event)?; // the parent's caller sees what the child says
///         }
///     }
///     Ok(turn.finish(child.wait()?.text))
/// });
/// let service = EphemeralSessionService::configure(agent).max_running_turns(1).build()?;
/// assert_eq!(service.create_session(CreateSessionRequest::new("delegate"))?.text, "HELLO");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail
/// use turnwise::{AgentError, CreateSessionRequest, SubSession, TurnContext};
///
/// /// A sub-session outlives no turn: this does not compile.
/// fn keep(turn: &TurnContext) -> Result<SubSession<'static>, AgentError> {
///     Ok(turn.sub_session(CreateSessionRequest::new("hello"))?)
/// }
/// ```
#[must_use = "dropping it interrupts and archives the child"]
#[derive(Debug)]
pub struct SubSession<'turn> {
    /// The first field: the child is told to stop before its events have no reader any more.
    child: ChildGuard<'turn>,
    stream: TurnStream,
}

impl TurnContext {
    /// Creates a child session and begins its first turn: a sub-agent that ends with this turn.
    ///
    /// - It is interrupted when this turn is, for the same reason.
    /// - It has at most the time that [remains](Self::remaining) to this turn, whatever its own timeout.
    /// - It is archived when the [`SubSession`] is dropped.
    ///
    /// In host mode "this turn" is the interaction. Any thread of the turn may call it, also with one running permit.
    ///
    /// ```
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionQuery, SessionService};
    ///
    /// let agent = agent_fn(|prompt, turn| {
    ///     let Some((left, right)) = prompt.split_once(" + ") else { return Ok(turn.finish(prompt)) };
    ///     let parts = [left, right].map(|part| turn.sub_session(CreateSessionRequest::new(part)));
    ///     let mut sum = 0;
    ///     for part in parts {
    ///         sum += part?.wait()?.text.parse::<i64>().expect("a number");
    ///     }
    ///     Ok(turn.finish(sum.to_string()))
    /// });
    /// let service = EphemeralSessionService::configure(agent).max_running_turns(1).build()?;
    /// assert_eq!(service.create_session(CreateSessionRequest::new("1 + 2 + 3 + 4"))?.text, "10");
    /// assert_eq!(service.list(SessionQuery::new())?.len(), 1); // the parent
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`begin_session`](SessionService::begin_session): [`SessionError::CapacityExceeded`] at once if there is
    /// no room. [`SessionError::Interrupted`] if this turn has been told to stop; no child remains then.
    /// [`SessionError::ShuttingDown`] if the host has dropped its last handle.
    ///
    /// # Blocking
    /// Does not wait for the child.
    pub fn sub_session(&self, mut request: CreateSessionRequest) -> Result<SubSession<'_>, SessionError> {
        self.check_sub_session()?;
        let service = self.service().ok_or(SessionError::ShuttingDown)?;
        if let Some(left) = self.remaining() {
            request.turn.timeout = Some(request.turn.timeout.map_or(left, |timeout| timeout.min(left)));
        }
        let stream = service.stream_session(request)?;
        let child = ChildGuard::enter(self, stream.handle());
        // A cancel may have come in between; then the child is dropped here.
        self.check_sub_session()?;
        Ok(SubSession { child, stream })
    }

    fn check_sub_session(&self) -> Result<(), SessionError> {
        let interrupted = |reason| SessionError::Interrupted { id: self.session_id(), reason };
        self.cancel_token().reason().map_or(Ok(()), |reason| Err(interrupted(reason)))
    }

    /// Closes the sub-sessions that are left when the agent's call has ended: those whose values were leaked.
    pub(crate) fn close_sub_sessions(&self) {
        if let Some(sub_sessions) = self.sub_sessions().get() {
            for child in sub_sessions.take_all() {
                self.close_child(&child);
            }
        }
    }

    /// Interrupts and archives a child, without waiting for it.
    fn close_child(&self, child: &Child) {
        // A cancel of the parent sets the parent's token first, so the child may be closed before the cancel reaches it.
        if let Some(reason) = child.parent.reason() {
            child.cancel.cancel_and_run_hooks(reason);
        }
        child.parent.disown(&child.cancel);
        // The service that is gone has closed its sessions.
        let Some(service) = self.weak_service().upgrade() else { return };
        contain_and_log("the archive of a sub-session", move || {
            match service.archive_with(child.id, ArchiveMode::Interrupt) {
                // It has ended already.
                Ok(()) | Err(SessionError::NotFound { .. } | SessionError::Archived { .. }) => {}
                Err(error) => {
                    record!(Warn, "turnwise::session", "sub-session {}: not archived: {}", child.id, error.code());
                }
            }
        });
    }
}

impl SubSession<'_> {
    /// The child's id.
    pub fn session_id(&self) -> SessionId {
        self.child.id
    }

    /// The handle of the child's first turn: to interrupt it, to poll for its result, or to
    /// [wait for any](TurnContext::wait_any) of several.
    pub fn handle(&self) -> &TurnHandle {
        self.stream.handle()
    }

    /// Waits for the result of the child's first turn, and archives the child. Unread events are discarded.
    ///
    /// # Errors
    /// Those of [`TurnHandle::wait`]. [`SessionError::Interrupted`] if the parent's turn is cancelled, also where the
    /// child has reacted to that first.
    ///
    /// # Blocking
    /// Until the child's turn ends, or the parent's turn is cancelled. The parent gives its running permit back during
    /// the wait.
    pub fn wait(self) -> Result<RunResult, SessionError> {
        let Self { child, stream } = self;
        let context = child.context;
        let result = stream.wait();
        drop(child);
        match result {
            // The child was told to stop with its parent, and has ended before the parent's own wait.
            Err(error) if error.cancel_reason().is_some() => Err(context.check_sub_session().err().unwrap_or(error)),
            result => result,
        }
    }

    /// Interrupts and archives the child, and waits until it has ended: its capacity and its id are free.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let agent = agent_fn(|prompt, turn| {
    ///     if prompt == "sleep" {
    ///         turn.sleep(Duration::MAX)?;
    ///     } else {
    ///         turn.sub_session(CreateSessionRequest::new("sleep"))?.close(Duration::from_secs(60))?;
    ///         turn.sub_session(CreateSessionRequest::new("sleep"))?.close(Duration::from_secs(60))?; // there is room
    ///     }
    ///     Ok(turn.finish(prompt))
    /// });
    /// let service = EphemeralSessionService::new(agent, 2);
    /// assert!(service.create_session(CreateSessionRequest::new("twice")).is_ok());
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`archive_wait`](SessionService::archive_wait): [`SessionError::Timeout`] if the child has not ended in
    /// time, and [`SessionError::Interrupted`] if the parent's turn is cancelled. The child is archived in any case.
    ///
    /// # Blocking
    /// Until the child has ended, at most for `timeout`.
    pub fn close(self, timeout: Duration) -> Result<(), SessionError> {
        let Self { child, stream } = self;
        let (context, id) = (child.context, child.id);
        drop(child);
        let ended = context.service().map_or(Ok(()), |service| service.archive_wait(id, timeout));
        drop(stream);
        ended
    }

    /// Detaches the child: it goes on when the parent's turn ends, as any other session, and a cancel of the parent does
    /// not reach it. Its deadline stays. Its events have no receiver any more; [subscribe](SessionService::subscribe) to
    /// follow it.
    ///
    /// ```
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionQuery, SessionService};
    ///
    /// let agent = agent_fn(|prompt, turn| {
    ///     if prompt == "parent" {
    ///         drop(turn.sub_session(CreateSessionRequest::new("child"))?.detach());
    ///     }
    ///     Ok(turn.finish(prompt))
    /// });
    /// let service = EphemeralSessionService::new(agent, 8);
    /// service.create_session(CreateSessionRequest::new("parent"))?;
    /// assert_eq!(service.list(SessionQuery::new())?.len(), 2);
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn detach(self) -> TurnHandle {
        let Self { child, stream } = self;
        child.detach();
        stream.into_handle()
    }
}

/// Waits for the next event of the child's first turn, or for its end. The cancellation of the parent's turn ends the
/// iteration early.
impl Iterator for SubSession<'_> {
    type Item = AgentEvent;

    fn next(&mut self) -> Option<AgentEvent> {
        self.stream.next()
    }
}

/// The children of a turn that are neither closed nor detached.
#[derive(Debug, Default)]
pub(crate) struct SubSessions {
    open: Mutex<Vec<Child>>,
}

#[derive(Debug)]
struct Child {
    id: SessionId,
    /// The token of the child's first turn.
    cancel: CancelToken,
    /// The token that it fires with.
    parent: CancelToken,
}

impl SubSessions {
    fn take(&self, id: SessionId) -> Option<Child> {
        let mut open = self.open.lock();
        let position = open.iter().position(|child| child.id == id)?;
        Some(open.swap_remove(position))
    }

    fn take_all(&self) -> Vec<Child> {
        std::mem::take(&mut *self.open.lock())
    }
}

/// Closes a child when it is dropped.
struct ChildGuard<'turn> {
    context: &'turn TurnContext,
    id: SessionId,
}

impl<'turn> ChildGuard<'turn> {
    /// Enters a child whose turn has begun. If the parent's turn is cancelled already, the child's turn is too.
    fn enter(context: &'turn TurnContext, turn: &TurnHandle) -> Self {
        let (id, parent, cancel) = (turn.session_id(), context.cancel_token(), turn.cancel_token());
        let sub_sessions = context.sub_sessions().get_or_init(SubSessions::default);
        sub_sessions.open.lock().push(Child { id, cancel: cancel.clone(), parent: parent.clone() });
        parent.adopt(cancel);
        Self { context, id }
    }

    fn take(&self) -> Option<Child> {
        self.context.sub_sessions().get().and_then(|sub_sessions| sub_sessions.take(self.id))
    }

    /// Leaves the child to itself.
    fn detach(self) {
        if let Some(child) = self.take() {
            child.parent.disown(&child.cancel);
        }
    }
}

impl Drop for ChildGuard<'_> {
    fn drop(&mut self) {
        // `None` once it is detached.
        if let Some(child) = self.take() {
            self.context.close_child(&child);
        }
    }
}

impl fmt::Debug for ChildGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChildGuard").field(&self.id).finish()
    }
}
