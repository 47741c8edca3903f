//! The context that an agent borrows for the length of a turn.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::cancel::CancelToken;
use crate::error::{Cancelled, InputError, SessionError};
#[cfg(feature = "store")]
use crate::ids::numbers::LastNumbers;
use crate::inbox::queue::Found;
use crate::model::{
    AgentEvent, InboxInteraction, InputRequest, RunResult, SessionId, SessionSnapshot, StopReason, ToolResult, TurnId,
};
use crate::reentrancy::{self, TurnRef};
use crate::service::WeakService;
use crate::sync::{select, Arc, Instant, OnceLock, Receiver, RecvTimeoutError, TryRecvError};
use crate::time::clock::{Clock, Deadline};
use crate::turn::any::wait_for_any;
use crate::turn::events::TurnEvents;
use crate::turn::handle::TurnHandle;
use crate::turn::input;

use super::sub_session::SubSessions;

/// The turn that an agent is running: its ids, its cancel token, its events, and the session's inbox.
///
/// It is `Sync`, and scoped threads may borrow it, for tools that run in parallel. It cannot be kept: the borrow ends
/// when [`run_turn`](crate::SessionAgent::run_turn) returns.
///
/// The turn gives its running permit back while one of its threads waits for room for an event,
/// [sleeps](Self::sleep), [receives](Self::recv), waits for [input](Self::request_input) or for a
/// [message](Self::wait_inbox), or runs [without a permit](Self::without_permit). It also does so
/// while the session thread waits for another session, or any of its threads does through [`service`](Self::service).
/// The last wait to end takes a permit again, in arrival order.
///
/// ```
/// use turnwise::{AgentError, AgentEvent, RunResult, TurnContext};
///
/// fn count_down(prompt: &str, turn: &TurnContext) -> Result<RunResult, AgentError> {
///     let from: u32 = prompt.parse().map_err(|error: std::num::ParseIntError| AgentError::other(error))?;
///     for number in (1..=from).rev() {
///         turn.emit(AgentEvent::TextDelta { delta: format!("{number} ") })?; // ends here if interrupted
///     }
///     Ok(turn.finish("lift-off"))
/// }
/// ```
///
/// ```compile_fail
/// use turnwise::{AgentError, RunResult, TurnContext};
///
/// /// A context outlives no turn: this does not compile.
/// fn keep(turn: &TurnContext) -> std::thread::JoinHandle<bool> {
///     std::thread::spawn(|| turn.is_cancelled())
/// }
/// ```
pub struct TurnContext {
    /// Shared with the build of the first turn's agent, which emits too.
    events: Arc<TurnEvents>,
    /// Whether another process has begun the turn, and has given its number out.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    is_numbered: bool,
    /// The token of the interaction that runs in host mode, if one does.
    interaction: Option<CancelToken>,
    tool_results: Vec<ToolResult>,
    /// The instant at which the turn's timeout cancels it.
    deadline: Option<Instant>,
    /// The service that hosts the session.
    service: Arc<WeakService>,
    /// Made by the first sub-session.
    sub_sessions: OnceLock<SubSessions>,
    /// Set if another process has begun the turn.
    #[cfg(feature = "redis")]
    remote: OnceLock<Remote>,
}

/// The process that has begun a turn, as its worker sees it.
#[cfg(feature = "redis")]
pub(crate) struct Remote {
    pub(crate) epoch: u64,
    pub(crate) host: Arc<dyn input::RemoteHost>,
}

/// What a turn hands to a system outside, so that this system can refuse the calls of an older holder of the session.
///
/// A worker of a cluster that was frozen may wake up and go on with a turn that was given up long ago. It cannot save
/// anything, but a tool of its agent may still call out. A system that keeps the highest `epoch` it has seen for the
/// session, and refuses calls with a lower one, is safe from that. One epoch has at most one turn at a time.
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Fence {
    /// The session.
    pub session: SessionId,
    /// Rises whenever the session moves to a worker. No two sessions have the same epoch.
    pub epoch: u64,
    /// The turn.
    pub turn: TurnId,
}

impl TurnContext {
    pub(crate) fn new(
        events: TurnEvents,
        is_numbered: bool,
        tool_results: Vec<ToolResult>,
        service: Arc<WeakService>,
        deadline: Option<Instant>,
    ) -> Self {
        let sub_sessions = OnceLock::new();
        Self {
            events: Arc::new(events),
            is_numbered,
            interaction: None,
            tool_results,
            deadline,
            service,
            sub_sessions,
            #[cfg(feature = "redis")]
            remote: OnceLock::new(),
        }
    }

    /// Begins an interaction of host mode, which `cancel` ends alone.
    pub(crate) fn begin_interaction(&mut self, cancel: CancelToken) {
        self.interaction = Some(cancel);
    }

    /// Ends the interaction: the token is that of the whole turn again.
    pub(crate) fn end_interaction(&mut self) {
        if let Some(cancel) = self.interaction.take() {
            self.events.cancel_token().end_child(&cancel);
        }
    }

    /// The id of the session that runs the turn.
    pub fn session_id(&self) -> SessionId {
        self.events.shared().session_id()
    }

    /// The id of the turn.
    pub fn turn_id(&self) -> TurnId {
        self.events.turn_id()
    }

    /// The fence of a turn that a worker of a cluster runs; `None` in every other service.
    ///
    /// ```
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let agent = agent_fn(|_, turn| {
    ///     let key = match turn.fence() {
    ///         Some(fence) => format!("{}/{}/{}", fence.session, fence.epoch, fence.turn),
    ///         None => "one process".to_owned(),
    ///     };
    ///     Ok(turn.finish(key))
    /// });
    /// let service = EphemeralSessionService::new(agent, 1);
    /// assert_eq!(service.create_session(CreateSessionRequest::new("pay"))?.text, "one process");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn fence(&self) -> Option<Fence> {
        let remote = self.remote.get()?;
        Some(Fence { session: self.session_id(), epoch: remote.epoch, turn: self.turn_id() })
    }

    /// The turn's span, with the session's id and the turn's id as fields. On the session thread it is entered while the
    /// agent's code runs. Another thread of the turn enters it itself.
    ///
    /// ```
    /// use std::thread;
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let agent = agent_fn(|prompt, turn| {
    ///     tracing::info!("in the turn's span");
    ///     thread::scope(|scope| {
    ///         scope.spawn(|| turn.span().in_scope(|| tracing::info!("in the turn's span too")));
    ///     });
    ///     Ok(turn.finish(prompt))
    /// });
    /// let service = EphemeralSessionService::new(agent, 1);
    /// service.create_session(CreateSessionRequest::new("hello"))?;
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    #[cfg(feature = "tracing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
    pub fn span(&self) -> &tracing::Span {
        self.events.span().span()
    }

    /// The results of tools that the host has run, as
    /// [the request](crate::StartTurnRequest::tool_results) has them.
    pub fn tool_results(&self) -> &[ToolResult] {
        &self.tool_results
    }

    /// Sends an event to the caller's event receiver, if there is one, then to the subscribers of the turn's
    /// interactions, and to the session's subscribers.
    ///
    /// A dropped receiver is no error: the turn goes on without it.
    ///
    /// ```
    /// use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let agent = agent_fn(|prompt, turn| {
    ///     let call = AgentEvent::ToolExecutionStarted { id: "1".into(), name: "search".into() };
    ///     turn.emit(call)?; // an error only where the turn is to stop
    ///     Ok(turn.finish(prompt))
    /// });
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let mut stream = service.stream_session(CreateSessionRequest::new("find it"))?;
    /// assert!(stream.any(|event| matches!(event, AgentEvent::ToolExecutionStarted { name, .. } if name == "search")));
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`Cancelled`] if the turn has been told to stop; then no receiver got the event.
    ///
    /// # Blocking
    /// Waits for room if the receiver's channel is bounded and full, then for subscribers with
    /// [`Overflow::Block`](crate::Overflow::Block). A cancel ends either wait.
    pub fn emit(&self, event: AgentEvent) -> Result<(), Cancelled> {
        self.events.emit(event, self.cancel_token())
    }

    /// Returns an error if the turn has been told to stop. For loops.
    ///
    /// ```
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let agent = agent_fn(|_, turn| loop {
    ///     turn.check()?; // the only way out of this loop
    ///     std::thread::yield_now();
    /// });
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let turn = service.begin_session(CreateSessionRequest::new("think it over"))?;
    /// turn.interrupt();
    /// assert!(turn.wait().unwrap_err().cancel_reason().is_some());
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`Cancelled`], with the reason.
    pub fn check(&self) -> Result<(), Cancelled> {
        self.cancel_token().check()
    }

    /// Whether the turn has been told to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancel_token().is_cancelled()
    }

    /// The turn's cancel token: for helper threads, for `select!`, and for hooks. In host mode it is that of the
    /// interaction, which fires when the interaction or the whole turn is told to stop.
    ///
    /// ```
    /// use std::thread;
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let agent = agent_fn(|_, turn| {
    ///     let [one, other] = thread::scope(|scope| {
    ///         let tool = || turn.cancel_token().check().map(|()| 21); // a longer tool checks again and again
    ///         [scope.spawn(tool), scope.spawn(tool)].map(|tool| tool.join().expect("tools do not panic"))
    ///     });
    ///     Ok(turn.finish((one? + other?).to_string()))
    /// });
    /// let service = EphemeralSessionService::new(agent, 1);
    /// assert_eq!(service.create_session(CreateSessionRequest::new("What is it?"))?.text, "42");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn cancel_token(&self) -> &CancelToken {
        self.interaction.as_ref().unwrap_or_else(|| self.events.cancel_token())
    }

    /// Sleeps, on the service's clock.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::{AgentError, TurnContext};
    ///
    /// /// Tries again, a little later each time; an interrupt ends the wait at once.
    /// fn patiently<T>(turn: &TurnContext, call: impl Fn() -> Result<T, AgentError>) -> Result<T, AgentError> {
    ///     let mut pause = Duration::from_millis(1);
    ///     loop {
    ///         match call() {
    ///             Err(error) if error.is_retryable() => turn.sleep(pause)?,
    ///             result => return result,
    ///         }
    ///         pause *= 2;
    ///     }
    /// }
    /// # use std::sync::atomic::{AtomicU32, Ordering};
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, LlmFailure, SessionService};
    /// # let service = EphemeralSessionService::new(agent_fn(|prompt, turn| {
    /// #     let calls = AtomicU32::new(0);
    /// #     let text = patiently(turn, || match calls.fetch_add(1, Ordering::Relaxed) {
    /// #         2.. => Ok(prompt.clone()),
    /// #         _ => {
    /// #             let provider = "acme".into();
    /// #             Err(AgentError::Llm { provider, reason: LlmFailure::Network, message: String::new() })
    /// #         }
    /// #     })?;
    /// #     Ok(turn.finish(text))
    /// # }), 1);
    /// # assert_eq!(service.create_session(CreateSessionRequest::new("hello"))?.text, "hello");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`Cancelled`] as soon as the turn is told to stop.
    ///
    /// # Blocking
    /// For `duration`, or until the turn is cancelled. A duration past the last representable instant waits for the
    /// cancel alone. The turn gives its running permit back during the sleep. Afterwards it waits for one if
    /// [`max_running_turns`](crate::ServiceConfig::max_running_turns) turns run.
    pub fn sleep(&self, duration: Duration) -> Result<(), Cancelled> {
        self.events.shared().sleep(duration, self.cancel_token())
    }

    /// Asks the host, and waits for its response: for an approval, a choice, a text, or for work that only the host can
    /// do. Any number of the turn's threads may ask at a time.
    ///
    /// The request is pending before [`AgentEvent::InputRequested`] is emitted. The host responds by
    /// [`respond`](crate::SessionService::respond), from any thread. The first response wins. The session's state is
    /// [`Waiting`](crate::SessionState::Waiting) meanwhile. Afterwards the turn emits [`AgentEvent::InputResolved`].
    ///
    /// ```
    /// use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, InputRequest, InputResponse};
    /// use turnwise::SessionService;
    ///
    /// let agent = agent_fn(|prompt, turn| {
    ///     let request = InputRequest::new("permission", format!("Run '{prompt}'?"));
    ///     let answer = turn.request_input(request.option("yes", "Run it").option("no", "Do not run it"))?;
    ///     Ok(turn.finish(if answer == "yes" { "done" } else { "not done" }))
    /// });
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let mut stream = service.stream_session(CreateSessionRequest::new("rm notes.txt"))?;
    /// let id = stream.handle().session_id();
    /// while let Some(event) = stream.next() {
    ///     if let AgentEvent::InputRequested { input_id, .. } = event {
    ///         service.respond(id, input_id, InputResponse::Answer("no".into()))?;
    ///     }
    /// }
    /// assert_eq!(stream.wait()?.text, "not done");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// - [`InputError::Cancelled`] if the turn is told to stop before a response was accepted, also while the event
    ///   waits for room. An answer that was accepted before is returned.
    /// - [`InputError::Declined`] if the host declined.
    /// - [`InputError::TimedOut`] if the request's timeout passed. The turn goes on.
    ///
    /// # Blocking
    /// Until the host responds, at most for the request's timeout; then as [`emit`](Self::emit) does, for the two
    /// events. The turn gives its running permit back during the wait, and takes one again, in arrival order, before
    /// this returns. The turn's own deadline goes on.
    pub fn request_input(&self, request: InputRequest) -> Result<String, InputError> {
        input::request(&self.events, self.cancel_token(), request, self.remote())
    }

    /// Receives from a channel of the agent's own; `None` once it is disconnected.
    ///
    /// ```
    /// use turnwise::crossbeam_channel::Receiver;
    /// use turnwise::{AgentError, RunResult, TurnContext};
    ///
    /// /// Answers with all lines of a channel that another thread of the program fills.
    /// fn collect(lines: &Receiver<String>, turn: &TurnContext) -> Result<RunResult, AgentError> {
    ///     let mut text = String::new();
    ///     while let Some(line) = turn.recv(lines)? {
    ///         text += &line;
    ///     }
    ///     Ok(turn.finish(text))
    /// }
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// # let (sender, lines) = turnwise::crossbeam_channel::unbounded();
    /// # ["one, ", "two"].map(|line| sender.send(line.to_owned()).unwrap());
    /// # drop(sender);
    /// # let service = EphemeralSessionService::new(agent_fn(move |_, turn| collect(&lines, turn)), 1);
    /// # assert_eq!(service.create_session(CreateSessionRequest::new("read"))?.text, "one, two");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`Cancelled`] if the turn has been told to stop, before the call or during the wait. No message is lost: the
    /// channel keeps it, or the call returns it although the turn is cancelled meanwhile.
    ///
    /// # Blocking
    /// Until there is a message, the channel is disconnected, or the turn is cancelled. The turn gives its running
    /// permit back during the wait, on whichever of its threads that is, as during a [`sleep`](Self::sleep).
    pub fn recv<T>(&self, from: &Receiver<T>) -> Result<Option<T>, Cancelled> {
        self.receive(from, &Deadline::never()).map(Result::ok)
    }

    /// As [`recv`](Self::recv), but waits no longer than `timeout`, on the service's clock.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::crossbeam_channel::{never, Receiver, RecvTimeoutError};
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let agent = agent_fn(|_, turn| {
    ///     let replies: Receiver<String> = never(); // stands for a peer that is silent
    ///     match turn.recv_timeout(&replies, Duration::from_millis(1))? {
    ///         Ok(reply) => Ok(turn.finish(reply)),
    ///         Err(RecvTimeoutError::Timeout) => Ok(turn.finish("no reply")),
    ///         Err(RecvTimeoutError::Disconnected) => Ok(turn.finish("no peer")),
    ///     }
    /// });
    /// let service = EphemeralSessionService::new(agent, 1);
    /// assert_eq!(service.create_session(CreateSessionRequest::new("ask"))?.text, "no reply");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`Cancelled`], as [`recv`](Self::recv). Inside: [`RecvTimeoutError::Timeout`] if no message arrives in time,
    /// [`RecvTimeoutError::Disconnected`] if none can arrive.
    ///
    /// # Blocking
    /// As [`recv`](Self::recv), at most for `timeout`. Afterwards the turn waits for a running permit again.
    pub fn recv_timeout<T>(
        &self,
        from: &Receiver<T>,
        timeout: Duration,
    ) -> Result<Result<T, RecvTimeoutError>, Cancelled> {
        self.receive(from, &self.clock().deadline(timeout))
    }

    fn receive<T>(&self, from: &Receiver<T>, deadline: &Deadline) -> Result<Result<T, RecvTimeoutError>, Cancelled> {
        let cancel = self.cancel_token();
        cancel.check()?;
        // Without a wait there is no reason to lend the permit.
        match from.try_recv() {
            Ok(message) => return Ok(Ok(message)),
            Err(TryRecvError::Disconnected) => return Ok(Err(RecvTimeoutError::Disconnected)),
            Err(TryRecvError::Empty) => {}
        }
        self.without_permit(|| {
            let alarm = deadline.alarm();
            select! {
                recv(from) -> message => Ok(message.map_err(|_| RecvTimeoutError::Disconnected)),
                recv(cancel.cancelled()) -> _ => cancel.check().map(|()| Err(RecvTimeoutError::Disconnected)),
                recv(alarm.receiver()) -> _ => Ok(Err(RecvTimeoutError::Timeout)),
            }
        })
    }

    /// Runs `wait` without the turn's running permit: for a wait that the library does not know, such as a lock, a child
    /// process or a socket. Such waits may nest, and several threads of the turn may be in one.
    ///
    /// ```
    /// use std::thread;
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let agent = agent_fn(|prompt, turn| {
    ///     let tool = thread::spawn(move || prompt.to_uppercase());
    ///     let text = turn.without_permit(|| tool.join()).expect("the tool does not panic");
    ///     Ok(turn.finish(text))
    /// });
    /// let service = EphemeralSessionService::configure(agent).max_running_turns(1).build()?;
    /// assert_eq!(service.create_session(CreateSessionRequest::new("hello"))?.text, "HELLO");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Blocking
    /// As long as `wait`. A cancel does not end `wait`, which has to observe the [token](Self::cancel_token) itself or
    /// set a [hook](CancelToken::on_cancel). Afterwards, also if `wait` panics, the turn waits for a running permit if
    /// [`max_running_turns`](crate::ServiceConfig::max_running_turns) turns run. A cancel ends this second wait.
    pub fn without_permit<T>(&self, wait: impl FnOnce() -> T) -> T {
        // Dropped on every way out, an unwind included: the turn holds a permit again afterwards.
        let _permit = reentrancy::lend_permit_of(&self.events.shared().permit);
        wait()
    }

    /// The time of day at which the turn's [timeout](crate::StartTurnRequest#structfield.timeout) cancels it: what
    /// [`now`](Self::now) returns after the [remaining](Self::remaining) time. `None` for a turn without a timeout.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let agent = agent_fn(|_, turn| {
    ///     let in_time = turn.deadline().is_none_or(|deadline| turn.now() < deadline);
    ///     Ok(turn.finish(if in_time { "in time" } else { "late" }))
    /// });
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let request = CreateSessionRequest::new("hello").timeout(Duration::from_secs(60));
    /// assert_eq!(service.create_session(request)?.text, "in time");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn deadline(&self) -> Option<SystemTime> {
        self.now().checked_add(self.remaining()?)
    }

    /// The time that is left until the turn's timeout cancels it. `None` for a turn without a timeout. It is measured
    /// on a monotonic clock: it never rises, and a change of the time of day has no effect on it. In host mode it is
    /// that of the whole turn.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::TurnContext;
    ///
    /// /// The timeout of each of the `calls` that the turn still has to make.
    /// fn fair_share(turn: &TurnContext, calls: u32) -> Duration {
    ///     turn.remaining().map_or(Duration::from_secs(60), |left| left / calls)
    /// }
    /// # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// # let agent = agent_fn(|_, turn| Ok(turn.finish(format!("{}", fair_share(turn, 2) <= Duration::from_secs(5)))));
    /// # let service = EphemeralSessionService::new(agent, 1);
    /// # let request = CreateSessionRequest::new("hello").timeout(Duration::from_secs(10));
    /// # assert_eq!(service.create_session(request)?.text, "true");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|at| self.clock().until(at))
    }

    /// The time of day, on the service's clock. An agent that takes the time from here can be tested with a clock that
    /// the test advances.
    pub fn now(&self) -> SystemTime {
        self.clock().system_time()
    }

    /// As [`wait_any`](crate::wait_any), on whichever thread of the turn: until one of these turns has ended.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, SubSession};
    ///
    /// // Asks several sub-agents, and answers with what is first.
    /// let agent = agent_fn(|prompt, turn| {
    ///     if prompt == "slow" {
    ///         turn.sleep(Duration::MAX)?;
    ///     } else if prompt == "ask" {
    ///         let asked = ["slow", "quick"].map(|prompt| turn.sub_session(CreateSessionRequest::new(prompt)));
    ///         let asked = asked.into_iter().collect::<Result<Vec<_>, _>>()?;
    ///         let handles: Vec<_> = asked.iter().map(SubSession::handle).collect();
    ///         let first = turn.wait_any(&handles, None)?.expect("there is no timeout");
    ///         return Ok(turn.finish(format!("{first} was first"))); // the others are interrupted here
    ///     }
    ///     Ok(turn.finish(prompt))
    /// });
    /// let service = EphemeralSessionService::new(agent, 8);
    /// assert_eq!(service.create_session(CreateSessionRequest::new("ask"))?.text, "1 was first");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::Interrupted`] if this turn is cancelled before one of those has ended, and
    /// [`SessionError::Reentrant`] if one of their sessions waits for this one.
    ///
    /// # Blocking
    /// Until one of the turns ends, at most for `timeout`, on the service's clock. This turn gives its running permit
    /// back during the wait. It does not read the events of the turns: one whose
    /// [stream](crate::TurnStream) is full waits for its reader.
    pub fn wait_any(&self, handles: &[&TurnHandle], timeout: Option<Duration>) -> Result<Option<usize>, SessionError> {
        let _on_behalf = self.turn_ref().enter();
        wait_for_any(handles, timeout, self.clock())
    }

    fn clock(&self) -> &Clock {
        &self.events.shared().clock
    }

    /// The turn, for waits on its behalf.
    pub(super) fn turn_ref(&self) -> TurnRef {
        let shared = self.events.shared();
        TurnRef::new(shared.session_id(), shared.key, self.turn_id(), &shared.permit)
    }

    pub(super) fn weak_service(&self) -> &WeakService {
        &self.service
    }

    #[cfg(feature = "redis")]
    pub(crate) fn is_numbered(&self) -> bool {
        self.is_numbered
    }

    /// Connects the turn with the process that has begun it. Only the first call has an effect.
    #[cfg(feature = "redis")]
    pub(crate) fn set_remote(&self, remote: Remote) {
        self.remote.get_or_init(|| remote);
    }

    #[cfg(feature = "redis")]
    fn remote(&self) -> Option<&dyn input::RemoteHost> {
        self.remote.get().map(|remote| &*remote.host)
    }

    #[cfg(not(feature = "redis"))]
    fn remote(&self) -> Option<&dyn input::RemoteHost> {
        None
    }

    pub(super) fn sub_sessions(&self) -> &OnceLock<SubSessions> {
        &self.sub_sessions
    }

    /// Publishes a snapshot, from which `read` and `list` answer until the end of the turn or the next call. Shows
    /// progress.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, Message, Session};
    /// use turnwise::{SessionService, SessionSnapshot};
    ///
    /// let agent = agent_fn(|prompt, turn| {
    ///     let mut so_far = Session::new();
    ///     so_far.push_batch([Message::user(prompt), Message::assistant("Let me see.")]);
    ///     turn.publish(SessionSnapshot::from(&so_far));
    ///     turn.emit(AgentEvent::TurnStarted { turn_number: 2 })?;
    ///     turn.sleep(Duration::MAX)?; // stands for something that takes long
    ///     Ok(turn.finish("It is 42."))
    /// });
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let mut stream = service.stream_session(CreateSessionRequest::new("What is it?"))?;
    /// stream.find(|event| matches!(event, AgentEvent::TurnStarted { .. }));
    /// let state = service.read(stream.handle().session_id())?.state; // while the turn goes on
    /// assert_eq!(state.last_assistant_text.as_deref(), Some("Let me see."));
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn publish(&self, snapshot: SessionSnapshot) {
        self.events.shared().published.publish(snapshot);
    }

    /// Takes the messages in the session's inbox, oldest first. Never waits.
    ///
    /// The taken messages end with the agent's turn, or in host mode with the interaction. Each is then reported as
    /// complete with the answer, or as failed with the error. Until then its subscriber gets the turn's events. Messages
    /// that [steer](crate::SessionService::steer) this turn are among them. A
    /// [`Dismiss`](crate::InteractionContent::Dismiss) among them ends host mode, as if the session had taken it
    /// itself.
    ///
    /// ```
    /// use turnwise::{agent_fn, AgentEvent, EphemeralSessionService, EventSource, SessionService, SessionSpec};
    /// use turnwise::StartTurnRequest;
    ///
    /// let agent = agent_fn(|_, turn| {
    ///     let inbox = turn.drain_inbox();
    ///     let heard: Vec<String> = inbox.iter().map(|one| format!("{}: {}", one.from, one.text())).collect();
    ///     Ok(turn.finish(heard.join("\n")))
    /// });
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let id = service.open_session(SessionSpec::new())?;
    /// let injector = service.event_injector(id).expect("the session is there");
    /// let note = injector.inject_with_subscription("use metres".into(), EventSource::Stdin)?;
    /// assert_eq!(service.start_turn(id, StartTurnRequest::new("how far is it?"))?.text, "stdin: use metres");
    /// assert!(matches!(note.last(), Some(AgentEvent::InteractionComplete { .. }))); // the turn has taken it
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn drain_inbox(&self) -> Vec<InboxInteraction> {
        let taken = self.events.shared().inbox.take_all();
        taken.into_iter().map(|incoming| self.events.interactions().add(incoming)).collect()
    }

    /// Waits for a message in the session's inbox, and takes the oldest one. `None` if there is none in time. In a closed
    /// session, which gets no more messages, it is `None` at once: a loop checks
    /// [`is_inbox_closed`](Self::is_inbox_closed).
    ///
    /// The message ends as those of [`drain_inbox`](Self::drain_inbox) do. Several threads of the turn may wait. Each
    /// message goes to one of them. A turn keeps a small record of each message that it has taken until it ends, and
    /// passes its events to all of their senders.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, InteractionContent, SessionService};
    ///
    /// // Counts until it is told what to do.
    /// let agent = agent_fn(|_, turn| {
    ///     let mut count = 0;
    ///     loop {
    ///         count += 1;
    ///         match turn.wait_inbox(Duration::from_millis(1))? {
    ///             Some(message) if message.text() == "enough" => return Ok(turn.finish(format!("stopped at {count}"))),
    ///             None if turn.is_inbox_closed() => return Ok(turn.finish(format!("{count}, and nothing more to hear"))),
    ///             Some(_) | None => {}
    ///         }
    ///     }
    /// });
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let turn = service.begin_session(CreateSessionRequest::new("count"))?;
    /// let enough = service.steer(turn.session_id(), None, InteractionContent::message("enough"))?;
    /// assert!(turn.wait()?.text.starts_with("stopped at "));
    /// # drop(enough);
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`Cancelled`] if the turn has been told to stop, before the call or during the wait. No message is lost: it stays
    /// in the inbox, or the call returns it although the turn is cancelled meanwhile.
    ///
    /// # Blocking
    /// Until there is a message, the session is closed, or the turn is cancelled, at most for `timeout`, on the service's
    /// clock. The turn gives its running permit back during the wait, on whichever of its threads that is, as during a
    /// [`sleep`](Self::sleep). Afterwards it waits for a permit again.
    pub fn wait_inbox(&self, timeout: Duration) -> Result<Option<InboxInteraction>, Cancelled> {
        let cancel = self.cancel_token();
        cancel.check()?;
        let message = match self.events.shared().inbox.find() {
            Found::Message(message) => Some(message),
            Found::Closed => None,
            Found::Nothing(_) if timeout.is_zero() => None,
            Found::Nothing(wait) => {
                let deadline = self.clock().deadline(timeout);
                self.without_permit(|| wait.wait(cancel, &deadline))?
            }
        };
        Ok(message.map(|message| self.events.interactions().add(message)))
    }

    /// Whether the session's inbox is closed, because the session is archived or shut down and only its last turns still
    /// run. It gets no more messages.
    pub fn is_inbox_closed(&self) -> bool {
        self.events.shared().inbox.is_closed()
    }

    /// Makes the result of this turn with this answer; the `with_` methods of [`RunResult`] add to it. Its
    /// [`stop_reason`](RunResult::stop_reason) is [`Cancelled`](StopReason::Cancelled) if the turn has been told to
    /// stop.
    ///
    /// ```
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, Usage};
    ///
    /// let agent = agent_fn(|prompt, turn| {
    ///     let usage = Usage { input_tokens: 3, output_tokens: 1, ..Usage::default() };
    ///     Ok(turn.finish(prompt).with_usage(usage).with_tool_calls(2))
    /// });
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let result = service.create_session(CreateSessionRequest::new("hello"))?;
    /// assert_eq!((result.usage.total_tokens(), result.tool_calls), (4, 2));
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn finish(&self, text: impl Into<String>) -> RunResult {
        self.mark_if_cancelled(RunResult::new(self.session_id(), self.turn_id(), text))
    }

    /// Marks the result of a turn that has been told to stop, unless the agent set a stop reason itself.
    pub(crate) fn mark_if_cancelled(&self, mut result: RunResult) -> RunResult {
        if result.stop_reason == StopReason::EndTurn && self.is_cancelled() {
            result.stop_reason = StopReason::Cancelled;
        }
        result
    }

    /// The numbers of this turn and of the session's last event.
    #[cfg(feature = "store")]
    pub(crate) fn last_numbers(&self) -> LastNumbers {
        LastNumbers { turn: self.turn_id().get(), event: self.events.shared().bus.last_seq() }
    }

    pub(crate) fn events(&self) -> &Arc<TurnEvents> {
        &self.events
    }
}

impl fmt::Debug for TurnContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnContext")
            .field("session_id", &self.session_id())
            .field("turn_id", &self.turn_id())
            .field("cancelled", &self.cancel_token().reason())
            .finish_non_exhaustive()
    }
}
