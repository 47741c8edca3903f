//! The contract between a host program and a service that hosts its sessions: the trait [`SessionService`], its
//! requests and its answers. It implements no service.

mod forward;
mod request;
mod restart;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

pub(crate) use forward::forward_session_service;
pub use request::{CreateSessionRequest, RefusedTurn, SessionQuery, SessionSpec, StartTurnRequest, WhenBusy};
pub use restart::RestartPolicy;
pub use view::{ServiceStats, SessionInfo, SessionState, SessionSummary, SessionUsage, SessionView, ShutdownReport};

use crate::comms::CommsRuntime;
use crate::error::SessionError;
use crate::inbox::injector::{InteractionSubscription, SubscribableInjector};
use crate::model::{
    AgentEvent, InputId, InputResponse, InteractionContent, InteractionId, PendingInput, RunResult, Session, SessionId,
    TurnId,
};
use crate::subscription::queue::Scope;
use crate::subscription::stream::EventStream;
use crate::subscription::Subscription;
use crate::sync::{bounded, Arc, Weak};
use crate::time::clock::Clock;
use crate::turn::handle::TurnHandle;
use crate::turn::stream::TurnStream;

/// What an archive does with the running turn and the queued ones.
///
/// ```
/// # use std::time::Duration;
/// use turnwise::{agent_fn, ArchiveMode, CancelReason, CreateSessionRequest, EphemeralSessionService, SessionService};
///
/// # let agent = agent_fn(|prompt, turn| {
/// #     turn.sleep(Duration::MAX)?;
/// #     Ok(turn.finish(prompt))
/// # });
/// let service = EphemeralSessionService::new(agent, 1);
/// let turn = service.begin_session(CreateSessionRequest::new("sleep until you are told to stop"))?;
/// service.archive_with(turn.session_id(), ArchiveMode::Interrupt)?;
/// assert_eq!(turn.wait().unwrap_err().cancel_reason(), Some(CancelReason::Archived));
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum ArchiveMode {
    /// The turns may finish, and their callers get the results.
    Drain,
    /// The running turn is cancelled. The queued turns are answered as cancelled at once, without being run.
    Interrupt,
}

/// Hosts sessions. This crate's implementations are [`EphemeralSessionService`](crate::EphemeralSessionService) and, with
/// the feature `store`, `PersistentSessionService`, which also saves its sessions.
///
/// Every method may be called from any thread, at any time. It may be called on a session thread too, so that agents
/// can use other sessions as sub-agents; [`TurnHandle`] describes the differences there. A blocking call that is
/// interrupted on a session thread names the waiting session, not the target. To find the target again, begin with
/// [`begin_session`](Self::begin_session), which returns the id first.
///
/// ```
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionError, SessionService};
///
/// /// Depends on neither the agent's type nor the service's.
/// fn ask(service: &dyn SessionService, prompt: &str) -> Result<String, SessionError> {
///     let result = service.create_session(CreateSessionRequest::new(prompt))?;
///     service.archive(result.session_id)?;
///     Ok(result.text)
/// }
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt.to_uppercase()))), 8);
/// assert_eq!(ask(&service, "hello")?, "HELLO");
/// # Ok::<(), SessionError>(())
/// ```
///
/// # Errors
/// An unknown id is [`SessionError::NotFound`] in every method. After a shutdown, new sessions and turns fail with
/// [`SessionError::ShuttingDown`], whatever their ids.
pub trait SessionService: Send + Sync {
    /// Creates a session, runs its first turn and returns the result.
    ///
    /// ```
    /// # use turnwise::{agent_fn, AgentError, CreateSessionRequest, EphemeralSessionService};
    /// # use turnwise::{SessionService, SessionState};
    /// let agent = agent_fn(|prompt, turn| match prompt.as_str() {
    ///     "" => Err(AgentError::Config("nothing was asked".into())),
    ///     _ => Ok(turn.finish(prompt)),
    /// });
    /// let service = EphemeralSessionService::new(agent, 8);
    /// assert_eq!(service.create_session(CreateSessionRequest::new("hello"))?.text, "hello");
    ///
    /// let failed = service.create_session(CreateSessionRequest::new("")).unwrap_err();
    /// let id = failed.session_id().expect("its turn has failed, but the session is there");
    /// assert_eq!(service.read(id)?.state.state, SessionState::Idle);
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`begin_session`](Self::begin_session) and [`TurnHandle::wait`]. After a failed *turn* the session
    /// still exists; [`SessionError::session_id`] names it. After a failed *build* ([`SessionError::Build`]) it does
    /// not.
    ///
    /// # Blocking
    /// Until the agent is built and the turn has ended.
    fn create_session(&self, request: CreateSessionRequest) -> Result<RunResult, SessionError> {
        self.begin_session(request)?.wait()
    }

    /// Runs a turn of a session and returns the result.
    ///
    /// ```
    /// # use turnwise::{agent_fn, EphemeralSessionService, SessionService, SessionSpec, StartTurnRequest};
    /// # let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt.to_uppercase())));
    /// # let service = EphemeralSessionService::new(agent, 8);
    /// let id = service.open_session(SessionSpec::new())?;
    /// assert_eq!(service.start_turn(id, StartTurnRequest::new("one"))?.text, "ONE");
    /// assert_eq!(service.start_turn(id, StartTurnRequest::new("two"))?.text, "TWO");
    /// assert_eq!(service.read(id)?.state.turns, 2);
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`begin_turn`](Self::begin_turn) and [`TurnHandle::wait`]. [`SessionError::Reentrant`] on a session
    /// thread, where session `id` waits for this session.
    ///
    /// # Blocking
    /// Until the turn has ended. A busy session is an error at once, unless the request [says
    /// otherwise](StartTurnRequest::when_busy). Then this also waits for the turns before it.
    fn start_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<RunResult, SessionError> {
        self.begin_turn(id, request)?.wait()
    }

    /// As [`create_session`](Self::create_session), and calls `on_event` on the calling thread for each event of the
    /// turn. Replaces the request's own `event_tx`.
    ///
    /// ```
    /// # use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// let service = EphemeralSessionService::new(agent_fn(|_, turn| {
    ///     for delta in ["the answer ", "is yes"] {
    ///         turn.emit(AgentEvent::TextDelta { delta: delta.into() })?;
    ///     }
    ///     Ok(turn.finish("yes"))
    /// }), 8);
    /// let mut shown = String::new();
    /// let result = service.create_session_with(CreateSessionRequest::new("is it?"), &mut |event| {
    ///     if let AgentEvent::TextDelta { delta } = event {
    ///         shown.push_str(&delta); // on this thread, so nothing has to be shared
    ///     }
    /// })?;
    /// assert_eq!((shown.as_str(), result.text.as_str()), ("the answer is yes", "yes"));
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`create_session`](Self::create_session).
    ///
    /// # Blocking
    /// Until the turn has ended. The turn blocks while `on_event` is 256 events behind.
    fn create_session_with(
        &self,
        request: CreateSessionRequest,
        on_event: &mut dyn FnMut(AgentEvent),
    ) -> Result<RunResult, SessionError> {
        let mut stream = self.stream_session(request)?;
        stream.by_ref().for_each(on_event);
        stream.wait()
    }

    /// As [`start_turn`](Self::start_turn), and calls `on_event` on the calling thread for each event of the turn.
    /// Replaces the request's own `event_tx`.
    ///
    /// ```
    /// # use turnwise::{agent_fn, EphemeralSessionService, SessionService, SessionSpec, StartTurnRequest};
    /// # let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
    /// let id = service.open_session(SessionSpec::new())?;
    /// let mut events = 0;
    /// service.start_turn_with(id, StartTurnRequest::new("hello"), &mut |_| events += 1)?;
    /// assert_eq!(events, 2); // RunStarted, RunCompleted
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`start_turn`](Self::start_turn).
    ///
    /// # Blocking
    /// Until the turn has ended. The turn blocks while `on_event` is 256 events behind.
    fn start_turn_with(
        &self,
        id: SessionId,
        request: StartTurnRequest,
        on_event: &mut dyn FnMut(AgentEvent),
    ) -> Result<RunResult, SessionError> {
        let mut stream = self.stream_turn(id, request)?;
        stream.by_ref().for_each(on_event);
        stream.wait()
    }

    /// Archives a session; the running turn and the queued ones may finish. The same as [`archive_with`](Self::archive_with) with
    /// [`ArchiveMode::Drain`].
    ///
    /// ```
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionQuery, SessionService};
    /// # let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
    /// let id = service.create_session(CreateSessionRequest::new("hello"))?.session_id;
    /// service.archive(id)?;
    /// assert!(service.list(SessionQuery::new())?.is_empty());
    /// assert_eq!(service.archive(id).unwrap_err().code(), "SESSION_NOT_FOUND");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::NotFound`].
    ///
    /// # Blocking
    /// Does not block.
    fn archive(&self, id: SessionId) -> Result<(), SessionError> {
        self.archive_with(id, ArchiveMode::Drain)
    }

    /// Exports the session's history, as of the end of the running turn if there is one. A faulted session's history is what
    /// its agent has left, which may have a part of the turn that panicked. A [`restart`](Self::restart) begins before that
    /// turn.
    ///
    /// ```
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, Message, SessionService, SessionSpec};
    /// # let service = EphemeralSessionService::new(agent_fn(|_, turn| Ok(turn.finish("Leaves."))), 8);
    /// let id = service.create_session(CreateSessionRequest::new("What falls in autumn?"))?.session_id;
    /// let history = service.export_session(id)?;
    /// assert_eq!(history.messages(), [Message::user("What falls in autumn?"), Message::assistant("Leaves.")]);
    /// // The session goes on. Another one may resume from a fork of its history.
    /// service.open_session(SessionSpec::new().resume(history.fork()))?;
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::NotFound`]. On a session thread also [`SessionError::Reentrant`], where session `id` waits for
    /// this session; and [`SessionError::Interrupted`], where this session's turn is cancelled.
    ///
    /// # Blocking
    /// Until the running turn or the build ends; not for queued turns. In host mode, until the current interaction ends; an interaction that
    /// waits for its running permit counts as current.
    fn export_session(&self, id: SessionId) -> Result<Session, SessionError>;

    /// Creates a session that builds its agent and runs its first turn; returns before either is done.
    ///
    /// Until the build is done, the session is [`SessionState::Building`]. Other callers get [`SessionError::Busy`].
    /// An interrupt cancels the first turn, which then fails without being run. An archive or a shutdown ends the
    /// session after the build. A failed build is the handle's result.
    ///
    /// ```
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// # let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
    /// let turn = service.begin_session(CreateSessionRequest::new("hello"))?;
    /// let id = turn.session_id(); // known before there is an agent
    /// assert!(service.read(id).is_ok());
    /// assert_eq!(turn.wait()?.session_id, id);
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::AlreadyExists`], [`SessionError::CapacityExceeded`], [`SessionError::InvalidReservation`],
    /// [`SessionError::ShuttingDown`], and [`SessionError::Spawn`] where the system refuses a thread. After any of them
    /// no session remains, and a reservation of the request is given back.
    ///
    /// # Blocking
    /// Does not block.
    fn begin_session(&self, request: CreateSessionRequest) -> Result<TurnHandle, SessionError>;

    /// Admits a turn of a session and returns at once. No other turn can run before it, unless the request says that it
    /// may [queue](WhenBusy::Queue).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use turnwise::{agent_fn, EphemeralSessionService, SessionService, SessionSpec, StartTurnRequest};
    /// # let agent = agent_fn(|prompt, turn| {
    /// #     turn.sleep(Duration::MAX)?;
    /// #     Ok(turn.finish(prompt))
    /// # });
    /// # let service = EphemeralSessionService::new(agent, 8);
    /// let id = service.open_session(SessionSpec::new())?;
    /// let turn = service.begin_turn(id, StartTurnRequest::new("sleep until you are told to stop"))?;
    /// let refused = service.begin_turn(id, StartTurnRequest::new("me too")).unwrap_err();
    /// assert_eq!(refused.code(), "SESSION_BUSY"); // the request does not say that its turn may queue
    /// turn.interrupt();
    /// assert!(turn.wait().is_err());
    /// assert!(service.begin_turn(id, StartTurnRequest::new("now?")).is_ok());
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::Busy`] while another turn runs or the session builds, and [`SessionError::QueueFull`] where the
    /// request may queue; [`SessionError::Faulted`] after a panic, [`SessionError::NotFound`],
    /// [`SessionError::ShuttingDown`]; [`SessionError::Spawn`] where the request has a timeout and the system refuses
    /// the deadline thread.
    ///
    /// # Blocking
    /// Does not block. With [`WhenBusy::Interrupt`] it runs the cancel hooks of the superseded turn on this thread.
    fn begin_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<TurnHandle, SessionError>;

    /// As [`begin_turn`](Self::begin_turn), and returns a refused request inside the error, to try it again.
    ///
    /// The provided implementation copies the request before it calls `begin_turn`.
    ///
    /// # Errors
    /// Those of [`begin_turn`](Self::begin_turn), with the request.
    ///
    /// # Blocking
    /// As [`begin_turn`](Self::begin_turn).
    #[allow(clippy::result_large_err)] // The request is returned to a caller that has it on its stack already.
    fn try_begin_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<TurnHandle, RefusedTurn> {
        let spare = request.spare();
        self.begin_turn(id, request).map_err(|error| RefusedTurn::new(error, spare))
    }

    /// As [`begin_session`](Self::begin_session), and returns the turn's events as an iterator. Replaces the request's
    /// own `event_tx`.
    ///
    /// ```
    /// # use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// # let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
    /// let mut stream = service.stream_session(CreateSessionRequest::new("hello"))?;
    /// assert!(matches!(stream.next(), Some(AgentEvent::RunStarted { .. })));
    /// assert!(matches!(stream.next(), Some(AgentEvent::RunCompleted { .. })));
    /// assert!(stream.next().is_none());
    /// assert_eq!(stream.wait()?.text, "hello");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`begin_session`](Self::begin_session).
    ///
    /// # Blocking
    /// Does not block; iterating does.
    fn stream_session(&self, mut request: CreateSessionRequest) -> Result<TurnStream, SessionError> {
        let (event_tx, events) = bounded(TurnStream::CAPACITY);
        request.turn.event_tx = Some(event_tx);
        self.begin_session(request).map(|handle| TurnStream::new(handle, events))
    }

    /// As [`begin_turn`](Self::begin_turn), and returns the turn's events as an iterator. Replaces the request's own
    /// `event_tx`.
    ///
    /// ```
    /// # use turnwise::{agent_fn, AgentEvent, EphemeralSessionService, SessionService, SessionSpec, StartTurnRequest};
    /// # let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
    /// let id = service.open_session(SessionSpec::new())?;
    /// for event in service.stream_turn(id, StartTurnRequest::new("hello"))? {
    ///     match event {
    ///         AgentEvent::RunStarted { prompt, .. } => assert_eq!(prompt, "hello"),
    ///         AgentEvent::RunCompleted { result, .. } => assert_eq!(result, "hello"),
    ///         other => println!("{other:?}"),
    ///     }
    /// }
    /// service.start_turn(id, StartTurnRequest::new("the stream has ended: the session is free"))?;
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`begin_turn`](Self::begin_turn).
    ///
    /// # Blocking
    /// Does not block; iterating does.
    fn stream_turn(&self, id: SessionId, mut request: StartTurnRequest) -> Result<TurnStream, SessionError> {
        let (event_tx, events) = bounded(TurnStream::CAPACITY);
        request.event_tx = Some(event_tx);
        self.begin_turn(id, request).map(|handle| TurnStream::new(handle, events))
    }

    /// Cancels the running turn of a session; the session stays usable.
    ///
    /// The turn's [`TurnContext`](crate::TurnContext) reports the cancellation. The turn ends when the agent returns.
    /// [Queued](WhenBusy) turns are not cancelled: the next of them runs afterwards.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use turnwise::{agent_fn, CancelReason, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// # let agent = agent_fn(|prompt, turn| {
    /// #     turn.sleep(Duration::MAX)?;
    /// #     Ok(turn.finish(prompt))
    /// # });
    /// # let service = EphemeralSessionService::new(agent, 8);
    /// let turn = service.begin_session(CreateSessionRequest::new("sleep until you are told to stop"))?;
    /// let id = turn.session_id();
    /// service.interrupt(id)?;
    /// assert_eq!(turn.wait().unwrap_err().cancel_reason(), Some(CancelReason::Interrupted));
    /// assert_eq!(service.interrupt(id).unwrap_err().code(), "SESSION_NOT_RUNNING");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::NotRunning`] where no turn runs, [`SessionError::NotFound`].
    ///
    /// # Blocking
    /// Does not wait for the turn. Runs the agent's cancel hooks on this thread.
    fn interrupt(&self, id: SessionId) -> Result<(), SessionError>;

    /// Cancels the turn with this id, and never the next one. A [queued](WhenBusy) turn is withdrawn: it is answered as
    /// cancelled at once, without being run.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, StartTurnRequest};
    /// # let agent = agent_fn(|prompt, turn| {
    /// #     turn.sleep(Duration::MAX)?;
    /// #     Ok(turn.finish(prompt))
    /// # });
    /// # let service = EphemeralSessionService::new(agent, 8);
    /// let first = service.begin_session(CreateSessionRequest::new("sleep until you are told to stop"))?;
    /// let (id, number) = (first.session_id(), first.turn_id());
    /// service.interrupt_turn(id, number)?;
    /// assert!(first.wait().is_err());
    /// let second = service.begin_turn(id, StartTurnRequest::new("sleep again"))?;
    /// assert!(service.interrupt_turn(id, number).is_err()); // too late, and no harm to the second
    /// assert!(!second.is_finished());
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::NotRunning`] where that turn has ended or has not been accepted yet,
    /// [`SessionError::NotFound`].
    ///
    /// # Blocking
    /// As [`interrupt`](Self::interrupt).
    fn interrupt_turn(&self, id: SessionId, turn: TurnId) -> Result<(), SessionError>;

    /// Cancels one interaction, queued or running; host mode goes on with the next.
    ///
    /// A queued interaction leaves the inbox and fails at once, without being run. A running one is cancelled through
    /// the [token](crate::TurnContext::cancel_token) of its context, as a turn is; the agent decides how it ends.
    ///
    /// Interactions that the agent has taken with [`drain_inbox`](crate::TurnContext::drain_inbox) belong to its turn,
    /// and cannot be cancelled one by one. Neither can messages that still wait in an injector or a comms runtime of
    /// the agent's own.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, EventSource, SessionService};
    ///
    /// let agent = agent_fn(|prompt, turn| match prompt.as_str() {
    ///     "sleep" => Err(turn.sleep(Duration::MAX).unwrap_err().into()),
    ///     _ => Ok(turn.finish(prompt)),
    /// });
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let hosting = service.begin_session(CreateSessionRequest::new("hello").host_mode(true))?;
    /// let id = hosting.session_id();
    /// let injector = service.event_injector(id).expect("the session is there");
    /// let slow = injector.inject_with_subscription("sleep".into(), EventSource::Rpc)?;
    /// let next = injector.inject_with_subscription("and now?".into(), EventSource::Rpc)?;
    /// service.interrupt_interaction(id, slow.id)?;
    /// assert!(matches!(slow.last(), Some(AgentEvent::InteractionFailed { .. })));
    /// assert!(matches!(next.last(), Some(AgentEvent::InteractionComplete { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::NotFound`]; [`SessionError::NotRunning`] where the interaction is neither queued nor running.
    /// The provided implementation always returns [`SessionError::NotRunning`], for services that do not support the
    /// call.
    ///
    /// # Blocking
    /// Does not wait for the interaction. Runs its cancel hooks on this thread.
    fn interrupt_interaction(&self, id: SessionId, interaction: InteractionId) -> Result<(), SessionError> {
        let _ = interaction;
        Err(SessionError::NotRunning { id })
    }

    /// Responds to an input request of a session's turn. The first response wins. See
    /// [`TurnContext::request_input`](crate::TurnContext::request_input).
    ///
    /// It works from the thread that reads the turn's events, from another session's turn and from a frame loop, and
    /// also in a closed session whose turn has not ended. With [`max_running_turns`], the turn may wait for a running
    /// permit after the response.
    ///
    /// [`max_running_turns`]: crate::ServiceConfig::max_running_turns
    ///
    /// # Errors
    /// - [`SessionError::NotFound`] if there is no such session.
    /// - [`SessionError::InputNotPending`] if the request has ended, or never existed. Also after an interrupt of its turn
    ///   has returned, and for every response but the first.
    /// - [`SessionError::InvalidAnswer`] if the request has options and the answer is none of them. It is still pending.
    ///
    /// The provided implementation always returns [`SessionError::InputNotPending`], for services that do not support
    /// the call.
    ///
    /// # Blocking
    /// Never waits for the turn.
    fn respond(&self, id: SessionId, input: InputId, response: InputResponse) -> Result<(), SessionError> {
        let _ = response;
        Err(SessionError::InputNotPending { id, input })
    }

    /// Returns the input requests of a session's turn that have no answer yet, oldest first.
    ///
    /// ```
    /// use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, InputRequest, InputResponse};
    /// use turnwise::{SessionService, SessionState};
    ///
    /// let agent = agent_fn(|_, turn| Ok(turn.finish(turn.request_input(InputRequest::new("question", "Your name?"))?)));
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let mut stream = service.stream_session(CreateSessionRequest::new("greet me"))?;
    /// let id = stream.handle().session_id();
    /// stream.find(|event| matches!(event, AgentEvent::InputRequested { .. }));
    /// assert_eq!(service.read(id)?.state.state, SessionState::Waiting);
    /// let pending = service.pending_inputs(id)?;
    /// assert_eq!(pending[0].request.message, "Your name?");
    /// service.respond(id, pending[0].id, InputResponse::Answer("Ada".into()))?;
    /// assert_eq!(stream.wait()?.text, "Ada");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::NotFound`] if there is no such session. The provided implementation returns an empty list.
    ///
    /// # Blocking
    /// Never waits for a turn.
    fn pending_inputs(&self, id: SessionId) -> Result<Vec<PendingInput>, SessionError> {
        let _ = id;
        Ok(Vec::new())
    }

    /// Sends a message to the turn that is admitted now, and to no later one: to `turn`, or to whichever turn is
    /// admitted if `turn` is `None`.
    ///
    /// The agent takes the message with [`drain_inbox`](crate::TurnContext::drain_inbox) or
    /// [`wait_inbox`](crate::TurnContext::wait_inbox); its [sender](crate::InboxInteraction#structfield.from) is `steering`. A message that
    /// the turn has not taken when it ends fails, and its subscription gets one
    /// [`InteractionFailed`](AgentEvent::InteractionFailed). A message that it has taken ends as the turn does. In host
    /// mode the session runs the message as the next interaction, if no running one takes it.
    ///
    /// The turn takes messages from its admission, also during the build of its agent, until its agent has returned. A
    /// message for a turn that is still queued is refused. The message goes through the session's own inbox, also if the
    /// agent has an [injector](crate::SessionAgent::event_injector) of its own.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, InteractionContent};
    /// use turnwise::SessionService;
    ///
    /// let agent = agent_fn(|prompt, turn| {
    ///     let more = turn.wait_inbox(Duration::MAX)?; // stands for long work with a look at the inbox now and then
    ///     Ok(turn.finish(format!("{prompt}, {}", more.map(|more| more.text()).unwrap_or_default())))
    /// });
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let turn = service.begin_session(CreateSessionRequest::new("how far is it?"))?;
    /// let note = service.steer(turn.session_id(), Some(turn.turn_id()), InteractionContent::message("in metres"))?;
    /// assert_eq!(turn.wait()?.text, "how far is it?, in metres");
    /// assert!(matches!(note.last(), Some(AgentEvent::InteractionComplete { .. }))); // the turn has taken it
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// - [`SessionError::NotRunning`] if that turn is not admitted: it is queued, it has ended, its agent has returned, or
    ///   no turn is admitted at all.
    /// - [`SessionError::InboxFull`] if the inbox has no room.
    /// - [`SessionError::NotFound`] if there is no such session, or it is closed. [`SessionError::Faulted`].
    ///
    /// The provided implementation always returns [`SessionError::NotRunning`], for services that do not support the
    /// call.
    ///
    /// # Blocking
    /// Never waits for the turn.
    fn steer(
        &self,
        id: SessionId,
        turn: Option<TurnId>,
        content: InteractionContent,
    ) -> Result<InteractionSubscription, SessionError> {
        let _ = (turn, content);
        Err(SessionError::NotRunning { id })
    }

    /// Returns the state and figures of a session, all from one instant.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// # let agent = agent_fn(|prompt, turn| {
    /// #     turn.sleep(Duration::MAX)?;
    /// #     Ok(turn.finish(prompt))
    /// # });
    /// # let service = EphemeralSessionService::new(agent, 8);
    /// let turn = service.begin_session(CreateSessionRequest::new("sleep until you are told to stop"))?;
    /// let state = service.read(turn.session_id())?.state; // the turn still runs
    /// assert!(state.is_active);
    /// assert_eq!((state.turns, state.message_count), (1, 0));
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::NotFound`].
    ///
    /// # Blocking
    /// Does not block, whatever the session is doing.
    fn read(&self, id: SessionId) -> Result<SessionView, SessionError>;

    /// Returns the session's history as of the last finished turn, without waiting for a turn.
    ///
    /// That is the *committed* history: the one after the last turn or interaction that did not panic, failed and
    /// cancelled ones included, or after the build. A running turn is not part of it, and neither is a turn that
    /// panicked. In host mode the prompt and each interaction count as they end. An agent that reads its own session gets
    /// the history before its turn. [`export_session`](Self::export_session) waits for the running turn instead.
    ///
    /// The history shares its messages with the session: the call copies none.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, StartTurnRequest};
    /// # let agent = agent_fn(|prompt, turn| match prompt.as_str() {
    /// #     "think for an hour" => Err(turn.sleep(Duration::MAX).unwrap_err().into()),
    /// #     _ => Ok(turn.finish(prompt)),
    /// # });
    /// # let service = EphemeralSessionService::new(agent, 8);
    /// let id = service.create_session(CreateSessionRequest::new("hello"))?.session_id;
    /// let turn = service.begin_turn(id, StartTurnRequest::new("think for an hour"))?;
    /// let history = service.history(id)?; // at once, though the turn runs
    /// assert_eq!(history.messages().len(), 2); // "hello" and its answer
    /// # turn.interrupt();
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::NotFound`]. A service that stores sessions also returns the history of a stored session that is
    /// not live, and that of an archived one; [`SessionError::Store`] if the store cannot read it.
    ///
    /// # Blocking
    /// Does not block, whatever the session is doing. A service that stores sessions reads the whole history of a session
    /// that is not live from the disk, and waits meanwhile for a call that archives, takes, deletes or resumes it.
    fn history(&self, id: SessionId) -> Result<Session, SessionError> {
        self.history_at(id).map(|(history, _)| history)
    }

    /// Returns the [`history`](Self::history), and the number of the event at its boundary. Both are from one instant.
    ///
    /// A client that shows the history, and then the events from the next number on, shows nothing twice and misses
    /// nothing:
    ///
    /// ```
    /// use turnwise::{agent_fn, AgentEvent, EphemeralSessionService, SessionService, SessionSpec, StartTurnRequest};
    /// use turnwise::Subscription;
    ///
    /// let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt.to_uppercase())));
    /// let service = EphemeralSessionService::configure(agent).event_history(1_024).build()?;
    /// let id = service.open_session(SessionSpec::new())?;
    /// service.start_turn(id, StartTurnRequest::new("one"))?;
    ///
    /// let (history, seq) = service.history_at(id)?;
    /// service.start_turn(id, StartTurnRequest::new("two"))?; // between the two calls of the client
    /// let mut events = service.subscribe(id, Subscription::new().from_seq(seq + 1))?;
    ///
    /// assert_eq!(history.last_assistant_text().as_deref(), Some("ONE"));
    /// let next = events.next().expect("the session is open");
    /// assert!(matches!(next.event, AgentEvent::RunStarted { prompt, .. } if prompt == "two"));
    /// assert_eq!(events.dropped(), 0); // the session still had every event
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # The boundary
    /// - Every event of a turn that the history holds has this number or a lower one, its
    ///   [`RunCompleted`](AgentEvent::RunCompleted) or [`RunFailed`](AgentEvent::RunFailed) too. Every event of a later
    ///   turn has a higher number, and so has every event of a turn that panicked since.
    /// - History and boundary advance before the turn's last event reaches a receiver or subscriber. A client that has got
    ///   that event finds the turn in the history.
    /// - In host mode the boundary advances with the last event of the prompt and of each interaction. The turn's terminal
    ///   event follows later. It repeats the result of the last of them, so a client shows a terminal event only of a turn
    ///   whose [`RunStarted`](AgentEvent::RunStarted) it has seen.
    /// - An event that belongs to [no turn](crate::EventSender) is on one side of the boundary or the other. It is not
    ///   part of a history.
    /// - A session without events has the boundary 0.
    ///
    /// The session keeps as many events as its [`event_history`](crate::ServiceConfig::event_history). A subscription from
    /// the next number on counts the events that the session has no more as [`dropped`](EventStream::dropped). Then the
    /// client calls `history_at` again.
    ///
    /// A stored session that is not live has the boundary at which its next life begins to count. It has no events to
    /// follow until it is live again.
    ///
    /// # Errors
    /// Those of [`history`](Self::history).
    ///
    /// # Blocking
    /// As [`history`](Self::history).
    fn history_at(&self, id: SessionId) -> Result<(Session, u64), SessionError>;

    /// Lists the sessions, oldest first. One session's state and figures are from one instant; different sessions may
    /// be from different instants.
    ///
    /// ```
    /// # use turnwise::{agent_fn, EphemeralSessionService, SessionQuery, SessionService, SessionSpec};
    /// # let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
    /// let (first, second) = (service.open_session(SessionSpec::new())?, service.open_session(SessionSpec::new())?);
    /// let sessions = service.list(SessionQuery::new())?;
    /// for session in &sessions {
    ///     println!("{}  {:8}  {} messages", session.session_id.short(), session.state, session.message_count);
    /// }
    /// assert_eq!(sessions.iter().map(|one| one.session_id).collect::<Vec<_>>(), [first, second]);
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::NotFound`] where [`SessionQuery::after`] names a session that the service does not know, or has
    /// forgotten: see that field.
    ///
    /// # Blocking
    /// Does not block, whatever the sessions are doing.
    fn list(&self, query: SessionQuery) -> Result<Vec<SessionSummary>, SessionError>;

    /// Replaces the labels of a session, which queries match and lists show. A service that stores sessions saves them,
    /// also for a session that is not live.
    ///
    /// ```
    /// # use turnwise::{agent_fn, EphemeralSessionService, SessionQuery, SessionService, SessionSpec};
    /// use std::collections::BTreeMap;
    ///
    /// # let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
    /// let id = service.open_session(SessionSpec::new().label("user", "ada"))?;
    /// service.set_labels(id, BTreeMap::from([("user".into(), "ada".into()), ("topic".into(), "maps".into())]))?;
    /// assert_eq!(service.read(id)?.labels["topic"], "maps");
    /// assert_eq!(service.list(SessionQuery::new().label("topic", "maps"))?.len(), 1);
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::NotFound`] if there is no such session, or it is closed; [`SessionError::Archived`] instead if it is
    /// stored. [`SessionError::Store`] if the labels could not be saved; then they are as before.
    ///
    /// # Blocking
    /// Never waits for a turn. A service that stores sessions waits for the store.
    fn set_labels(&self, id: SessionId, labels: BTreeMap<String, String>) -> Result<(), SessionError>;

    /// Archives a session. It disappears from `read`, `list` and `begin_turn` at once, and ends when its running turn
    /// and the queued ones have ended.
    ///
    /// Its capacity is released when it has ended: see [`archive_wait`](Self::archive_wait). Until then a second call
    /// with [`ArchiveMode::Interrupt`] cancels a turn that was allowed to finish.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use turnwise::{agent_fn, CancelReason, CreateSessionRequest, EphemeralSessionService};
    /// use turnwise::{ArchiveMode, SessionService};
    ///
    /// # let agent = agent_fn(|prompt, turn| {
    /// #     turn.sleep(Duration::MAX)?;
    /// #     Ok(turn.finish(prompt))
    /// # });
    /// # let service = EphemeralSessionService::new(agent, 8);
    /// let turn = service.begin_session(CreateSessionRequest::new("sleep until you are told to stop"))?;
    /// let id = turn.session_id();
    /// service.archive_with(id, ArchiveMode::Drain)?; // the turn may finish
    /// assert!(service.read(id).is_err());
    /// service.archive_with(id, ArchiveMode::Interrupt)?; // changed: cancel it
    /// assert_eq!(turn.wait().unwrap_err().cancel_reason(), Some(CancelReason::Archived));
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::NotFound`], also for a second call with [`ArchiveMode::Drain`].
    ///
    /// # Blocking
    /// Does not wait for the turn. With [`ArchiveMode::Interrupt`] it runs the agent's cancel hooks on this thread.
    fn archive_with(&self, id: SessionId, mode: ArchiveMode) -> Result<(), SessionError>;

    /// Returns the injector of a session: of its own inbox, or the agent's own where it [has
    /// one](crate::SessionAgent::event_injector). `None` where there is no such session. While the session is being
    /// built, it is the injector of its own inbox.
    ///
    /// ```
    /// # use turnwise::{agent_fn, EphemeralSessionService, EventSource, SessionId, SessionService, SessionSpec};
    /// # use turnwise::StartTurnRequest;
    /// let agent = agent_fn(|_, turn| Ok(turn.finish(turn.drain_inbox().len().to_string())));
    /// let service = EphemeralSessionService::new(agent, 8);
    /// let id = service.open_session(SessionSpec::new())?;
    /// let injector = service.event_injector(id).expect("the session is there");
    /// injector.inject("the parcel has come".into(), EventSource::Webhook)?;
    /// assert_eq!(service.start_turn(id, StartTurnRequest::new("any news?"))?.text, "1");
    /// assert!(service.event_injector(SessionId::new()).is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Blocking
    /// Does not block.
    fn event_injector(&self, id: SessionId) -> Option<Arc<dyn SubscribableInjector>>;

    /// Returns the session's connection to its peers. `None` where there is no such session, it is still being built,
    /// or its agent has none.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use turnwise::{builder_fn, AgentError, CommsRuntime, EphemeralSessionService, InteractionContent, LocalComms};
    /// # use turnwise::{LocalPeer, RunResult, Session, SessionAgent, SessionService, SessionSpec, TurnContext};
    /// # struct Member { peer: LocalPeer, history: Session }
    /// # impl SessionAgent for Member {
    /// #     fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
    /// #         Ok(turn.finish(prompt))
    /// #     }
    /// #     fn session_clone(&self) -> Session {
    /// #         self.history.clone()
    /// #     }
    /// #     fn comms_runtime(&self) -> Option<Arc<dyn CommsRuntime>> {
    /// #         Some(self.peer.runtime())
    /// #     }
    /// # }
    /// let comms = LocalComms::new();
    /// let network = comms.clone();
    /// let service = EphemeralSessionService::new(builder_fn(move |spec, _| {
    ///     let peer = network.join("alice").map_err(AgentError::other)?;
    ///     Ok(Member { peer, history: spec.history() })
    /// }), 8);
    /// let id = service.open_session(SessionSpec::new())?;
    /// let host = comms.join("host")?;
    /// let line = service.comms_runtime(id).expect("its agent has one");
    /// line.send("host", InteractionContent::message("in alice's name"))?;
    /// assert_eq!(host.inbox().expect("a local peer has one").recv()?.from, "alice");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Blocking
    /// Does not block.
    fn comms_runtime(&self, id: SessionId) -> Option<Arc<dyn CommsRuntime>>;

    /// Subscribes to a session: to every event from now on, of whatever turn. There may be any number of subscribers.
    /// They may subscribe before the first turn (see [`open_session`](Self::open_session)) or during one. The stream
    /// ends when the session has ended.
    ///
    /// A turn's last event arrives before the session is free for the next turn: a moment before, or longer if the turn's
    /// own receiver has no room for it. A caller that starts turns must wait for the [`TurnHandle`], not for the event, or
    /// it sometimes gets [`SessionError::Busy`].
    ///
    /// ```
    /// # use turnwise::{agent_fn, EphemeralSessionService, SessionService, SessionSpec};
    /// # use turnwise::{StartTurnRequest, Subscription};
    /// # let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
    /// let id = service.open_session(SessionSpec::new())?;
    /// let events = service.subscribe(id, Subscription::new())?;
    /// service.start_turn(id, StartTurnRequest::new("hello"))?;
    /// service.start_turn(id, StartTurnRequest::new("again"))?;
    /// service.archive(id)?;
    /// assert_eq!(events.count(), 4); // RunStarted and RunCompleted of two turns, then the stream ends
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::NotFound`].
    ///
    /// # Blocking
    /// Does not block; reading the stream does.
    fn subscribe(&self, id: SessionId, options: Subscription) -> Result<EventStream, SessionError>;

    /// Creates a session without running a turn.
    ///
    /// ```
    /// # use turnwise::{agent_fn, EphemeralSessionService, SessionService, SessionSpec, SessionState};
    /// # let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
    /// let id = service.open_session(SessionSpec::new().label("user", "ada"))?;
    /// let state = service.read(id)?.state;
    /// assert_eq!((state.state, state.turns), (SessionState::Idle, 0));
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`begin_session`](Self::begin_session); [`SessionError::Build`] where the build failed;
    /// [`SessionError::NotFound`] or [`SessionError::ShuttingDown`] where the session was archived or shut down
    /// meanwhile. [`SessionError::Interrupted`] on a session thread whose turn is cancelled; the new session is
    /// archived then. After any error no session remains.
    ///
    /// # Blocking
    /// Until the agent is built.
    fn open_session(&self, spec: SessionSpec) -> Result<SessionId, SessionError>;

    /// As [`export_session`](Self::export_session), but waits no longer than `timeout`.
    ///
    /// ```
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// use std::time::Duration;
    ///
    /// # let agent = agent_fn(|prompt, turn| {
    /// #     turn.sleep(Duration::MAX)?;
    /// #     Ok(turn.finish(prompt))
    /// # });
    /// # let service = EphemeralSessionService::new(agent, 8);
    /// let turn = service.begin_session(CreateSessionRequest::new("sleep until you are told to stop"))?;
    /// let error = service.export_session_timeout(turn.session_id(), Duration::from_millis(1)).unwrap_err();
    /// assert_eq!(error.code(), "SESSION_TIMEOUT");
    /// turn.interrupt();
    /// assert!(service.export_session_timeout(turn.session_id(), Duration::from_secs(60)).is_ok());
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`export_session`](Self::export_session), and [`SessionError::Timeout`].
    ///
    /// # Blocking
    /// As long as [`export_session`](Self::export_session), at most for `timeout`.
    fn export_session_timeout(&self, id: SessionId, timeout: Duration) -> Result<Session, SessionError>;

    /// Archives a session ([`ArchiveMode::Drain`], unless it is archived already) and waits until it has ended: its
    /// agent is dropped, its thread holds nothing of it, its capacity and its id are free.
    ///
    /// ```
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// use std::time::Duration;
    ///
    /// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
    /// let first = service.create_session(CreateSessionRequest::new("hello"))?;
    /// let refused = service.create_session(CreateSessionRequest::new("me too")).unwrap_err();
    /// assert_eq!(refused.code(), "CAPACITY_EXCEEDED");
    /// service.archive_wait(first.session_id, Duration::from_secs(60))?;
    /// assert!(service.create_session(CreateSessionRequest::new("now?")).is_ok());
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::Timeout`] where it has not ended in time; it stays archived. [`SessionError::NotFound`] where
    /// the id is unknown or forgotten (the last 16,384 sessions to end are remembered). On a session thread also
    /// [`SessionError::Reentrant`], where session `id` waits for this session, or is this session: nothing is archived
    /// then; and [`SessionError::Interrupted`], where this session's turn is cancelled: session `id` stays archived.
    ///
    /// # Blocking
    /// Until the session has ended, at most for `timeout`.
    fn archive_wait(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError>;

    /// Waits until the session is idle at some instant of the call: no turn is admitted, and no agent is being built. A
    /// turn in host mode is admitted until it ends. When the call returns, another caller may have begun the next turn.
    ///
    /// A stored session that is not live is idle.
    ///
    /// ```
    /// # use turnwise::{agent_fn, EphemeralSessionService, SessionService, SessionSpec, StartTurnRequest};
    /// use std::time::Duration;
    ///
    /// # let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
    /// let id = service.open_session(SessionSpec::new())?;
    /// drop(service.begin_turn(id, StartTurnRequest::new("hello"))?); // detached: there is no handle to wait for
    /// service.wait_idle(id, Duration::from_secs(60))?;
    /// assert_eq!(service.read(id)?.state.last_assistant_text.as_deref(), Some("hello"));
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::Timeout`]. [`SessionError::NotFound`] if the session is closed, also if that happens during the
    /// wait; [`SessionError::Archived`] instead if it is stored. [`SessionError::Faulted`] if its agent has panicked,
    /// also during the wait. On a session thread also [`SessionError::Reentrant`], where session `id` waits for this
    /// session, or is this session; and [`SessionError::Interrupted`], where this session's turn is cancelled.
    ///
    /// # Blocking
    /// Until the session is idle, at most for `timeout`.
    fn wait_idle(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError>;

    /// Restarts a faulted session: its agent is dropped and built again, on the session's own thread, from the last
    /// committed history. That is the history after the last turn or interaction that did not panic; failed ones count.
    /// The turn that panicked is not run again.
    ///
    /// The session keeps its id, its labels, its capacity, its subscribers and the numbers of its turns and events.
    /// Injectors of its inbox work again once the call has succeeded. The builder gets the specification of the session's
    /// start, with the history as [`resume`](SessionSpec#structfield.resume) and the labels that the session has now.
    ///
    /// From the call on the session is [`Building`](SessionState::Building). A turn is refused as [`SessionError::Busy`],
    /// or [queues](WhenBusy) behind the build. Exports and takes wait for the build. An archive or a shutdown cancels it.
    /// [`ServiceConfig::restart_faulted`](crate::ServiceConfig::restart_faulted) lets sessions restart by themselves.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, SessionState};
    /// use turnwise::StartTurnRequest;
    ///
    /// let agent = agent_fn(|prompt, turn| match prompt.as_str() {
    ///     "boom" => panic!("a bug in a tool"),
    ///     _ => Ok(turn.finish(prompt)),
    /// });
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let id = service.create_session(CreateSessionRequest::new("hello"))?.session_id;
    /// assert!(service.start_turn(id, StartTurnRequest::new("boom")).is_err());
    /// assert_eq!(service.read(id)?.state.state, SessionState::Faulted);
    ///
    /// service.restart(id, Duration::from_secs(60))?;
    /// let third = service.start_turn(id, StartTurnRequest::new("again"))?;
    /// assert_eq!((third.turn_id.get(), service.read(id)?.state.message_count), (3, 4)); // "boom" left nothing
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// - [`SessionError::NotFaulted`] if the session is idle, or stored and not live.
    /// - [`SessionError::Busy`] if it runs a turn, or builds its agent already, by another restart for example.
    /// - [`SessionError::Build`] if the build fails or panics. The session stays faulted, without an agent, and turns that
    ///   were queued meanwhile get the same error. Exports return the committed history, and another restart may follow.
    ///   In a service that stores sessions an agent that does not resume the history is [`SessionError::Store`].
    /// - [`SessionError::Timeout`] if the build takes longer. It goes on, and [`wait_idle`](Self::wait_idle) waits for it.
    /// - [`SessionError::NotFound`], [`SessionError::Archived`] or [`SessionError::ShuttingDown`] if there is no such open
    ///   session, or it is closed meanwhile.
    /// - On a session thread also [`SessionError::Reentrant`], where session `id` waits for this session, or is this
    ///   session: nothing is restarted then. [`SessionError::Interrupted`], where this session's turn is cancelled: the
    ///   build goes on.
    ///
    /// The provided implementation always returns [`SessionError::NotFaulted`], for services that do not support the call.
    ///
    /// # Blocking
    /// Until the old agent is dropped and the new one is built, at most for `timeout`. [`Duration::ZERO`] only begins the
    /// restart.
    fn restart(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        let _ = timeout;
        Err(SessionError::NotFaulted { id })
    }

    /// Exports a session and archives it, with no turn in between, so the returned history is final. A session in host
    /// mode leaves it between two interactions, and its turn ends with `Ok`.
    ///
    /// ```
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, SessionSpec};
    /// use std::time::Duration;
    ///
    /// # let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
    /// let id = service.create_session(CreateSessionRequest::new("hello"))?.session_id;
    /// let history = service.take_session(id, Duration::from_secs(60))?;
    /// assert!(service.read(id).is_err()); // only `history` holds it now
    /// assert_eq!(service.open_session(SessionSpec::new().resume(history))?, id);
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`export_session_timeout`](Self::export_session_timeout). After an error the session is unchanged.
    ///
    /// # Blocking
    /// Until no turn runs and none is queued, and then until the session has ended, so that it can be resumed under its id; at most for
    /// `timeout` in all. If the timeout passes in the second phase, the call still returns the history.
    fn take_session(&self, id: SessionId, timeout: Duration) -> Result<Session, SessionError>;
}

/// A handle that does not keep its service alive, for agents that use the service that hosts them.
///
/// An agent with a strong handle would keep its service alive for ever: the service ends with its last handle.
///
/// ```
/// use turnwise::{agent_fn, EphemeralSessionService};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
/// let weak = service.downgrade();
/// assert!(weak.upgrade().is_some());
/// drop(service); // the last handle
/// assert!(weak.upgrade().is_none());
/// ```
#[derive(Clone)]
pub struct WeakService {
    service: Weak<dyn SessionService>,
}

impl WeakService {
    pub(crate) fn new(service: Weak<dyn SessionService>) -> Self {
        Self { service }
    }

    /// A handle of no service.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self::new(Weak::<&dyn SessionService>::new())
    }

    /// Returns the service while a handle to it exists. Drop the result soon: it keeps the service alive.
    pub fn upgrade(&self) -> Option<Arc<dyn SessionService>> {
        self.service.upgrade()
    }
}

impl fmt::Debug for WeakService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakService").field("alive", &(self.service.strong_count() > 0)).finish()
    }
}

/// Controls the life of a service and follows all of its sessions, for programs that hold services with different agent
/// types behind `Box<dyn ServiceControl>` or `Arc<dyn ServiceControl>`.
///
/// ```
/// use std::time::Duration;
/// use turnwise::{agent_fn, EphemeralSessionService, ServiceControl, SessionService, SessionSpec};
///
/// let echo = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 4);
/// let count = EphemeralSessionService::new(agent_fn(|_, turn| Ok(turn.finish(turn.turn_id().to_string()))), 4);
/// let services: [Box<dyn ServiceControl>; 2] = [Box::new(echo), Box::new(count)];
/// for service in services {
///     service.open_session(SessionSpec::new())?;
///     assert!(service.shutdown(Duration::from_secs(5)).stuck.is_empty());
///     assert_eq!(service.stats().threads, 0);
/// }
/// # Ok::<(), turnwise::SessionError>(())
/// ```
pub trait ServiceControl: SessionService {
    /// As [`EphemeralSessionService::stats`](crate::EphemeralSessionService::stats).
    fn stats(&self) -> ServiceStats;

    /// As [`EphemeralSessionService::shutdown_with`](crate::EphemeralSessionService::shutdown_with).
    ///
    /// # Blocking
    /// Until all sessions have ended, at most for `timeout`.
    fn shutdown_with(&self, mode: ArchiveMode, timeout: Duration) -> ShutdownReport;

    /// As [`EphemeralSessionService::shutdown`](crate::EphemeralSessionService::shutdown).
    ///
    /// # Blocking
    /// Until all sessions have ended, at most for `timeout`.
    fn shutdown(&self, timeout: Duration) -> ShutdownReport {
        self.shutdown_with(ArchiveMode::Interrupt, timeout)
    }

    /// A handle that does not keep the service alive.
    fn downgrade(&self) -> WeakService;

    /// As [`EphemeralSessionService::subscribe_all`](crate::EphemeralSessionService::subscribe_all).
    ///
    /// The provided implementation returns a stream that has ended, for services that do not support the call.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, ServiceControl, SessionService};
    /// use turnwise::Subscription;
    ///
    /// let echo = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 4);
    /// let service: Arc<dyn ServiceControl> = Arc::new(echo);
    /// let events = service.subscribe_all(Subscription::new());
    /// service.create_session(CreateSessionRequest::new("hello"))?;
    /// drop(service);
    /// assert_eq!(events.count(), 2); // RunStarted, RunCompleted
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Blocking
    /// Does not block; reading the stream does.
    fn subscribe_all(&self, options: Subscription) -> EventStream {
        // The stream ends with its queue.
        EventStream::new(options, Scope::AllSessions, Clock::System, Arc::default()).1
    }
}

macro_rules! forward_service_control {
    ($($(#[$doc:meta])* $service:ty),*) => {$(
        $(#[$doc])*
        impl<S: ServiceControl + ?Sized> ServiceControl for $service {
            fn stats(&self) -> ServiceStats {
                (**self).stats()
            }

            fn shutdown_with(&self, mode: ArchiveMode, timeout: Duration) -> ShutdownReport {
                (**self).shutdown_with(mode, timeout)
            }

            fn downgrade(&self) -> WeakService {
                (**self).downgrade()
            }

            fn subscribe_all(&self, options: Subscription) -> EventStream {
                (**self).subscribe_all(options)
            }
        }
    )*};
}

forward_service_control! {
    /// Forwards to the referenced service.
    &S,
    /// Forwards to the boxed service.
    Box<S>,
    /// Forwards to the shared service.
    Arc<S>
}

/// A reference to a service is a service.
impl<S: SessionService + ?Sized> SessionService for &S {
    forward_session_service!(self => **self);
}

/// A boxed service is a service.
impl<S: SessionService + ?Sized> SessionService for Box<S> {
    forward_session_service!(self => **self);
}

/// A shared service is a service.
impl<S: SessionService + ?Sized> SessionService for Arc<S> {
    forward_session_service!(self => **self);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agent_fn, EphemeralSessionService};

    /// A service with none of the provided methods of [`ServiceControl`].
    struct Minimal(Box<dyn ServiceControl>);

    impl SessionService for Minimal {
        forward_session_service!(self => self.0);
    }

    impl ServiceControl for Minimal {
        fn stats(&self) -> ServiceStats {
            self.0.stats()
        }

        fn shutdown_with(&self, mode: ArchiveMode, timeout: Duration) -> ShutdownReport {
            self.0.shutdown_with(mode, timeout)
        }

        fn downgrade(&self) -> WeakService {
            self.0.downgrade()
        }
    }

    #[test]
    fn a_service_without_subscribe_all_returns_a_stream_that_has_ended() {
        let echo = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
        let service = Minimal(Box::new(echo));
        let events = service.subscribe_all(Subscription::new());
        service.create_session(CreateSessionRequest::new("x")).unwrap();
        assert!(events.try_recv().unwrap_err().is_disconnected());
    }
}
