//! The requests that callers pass to a service. Plain data: the service checks and applies it.

use std::any::Any;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::error::SessionError;
use crate::ids::numbers::Numbering;
use crate::model::{AgentEvent, Brief, CallbackPending, Session, SessionId, SkillId, ToolResult, TurnId};
use crate::permits::reservation::{Reservation, SharedReservation};
use crate::sync::{Arc, Sender};

/// The specification of a session. The service passes it to the builder, with the id filled in.
///
/// ```
/// use turnwise::{agent_fn, EphemeralSessionService, Message, SessionService, SessionSpec};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
/// let spec = SessionSpec::new().model("small").system_prompt("Be brief.").max_tokens(200).label("user", "ada");
/// let id = service.open_session(spec)?;
/// let history = service.export_session(id)?;
/// assert_eq!(history.messages(), [Message::system("Be brief.")]);
/// let other = service.open_session(SessionSpec::new().resume(history.fork()))?; // with the same history
/// assert_ne!(other, id);
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct SessionSpec {
    /// The session's id. `None` selects the id of the resumed history, or a fresh one.
    pub session_id: Option<SessionId>,
    /// The model, in the builder's own terms.
    pub model: String,
    /// The system prompt.
    pub system_prompt: Option<String>,
    /// The maximum output of a model call, in tokens.
    pub max_tokens: Option<u32>,
    /// The history to resume. Where [`session_id`](Self::session_id) is set too, the history takes that id.
    pub resume: Option<Session>,
    /// Labels by which [`SessionService::list`](crate::SessionService::list) finds the session.
    pub labels: BTreeMap<String, String>,
    /// Whether the agent may begin with another history than the resumed one, because it compacts or rolls back.
    /// Without this flag a service that stores sessions refuses such an agent, since its next turn would overwrite the
    /// stored history. The flag is stored too.
    pub rewrites_history: bool,
    /// Any other data for the builder.
    pub extension: Option<Arc<dyn Any + Send + Sync>>,
    /// The first numbers of the session's turns and events.
    pub(crate) numbering: Numbering,
    /// The callback that the resumed session waits for.
    pub(crate) callback: Option<CallbackPending>,
    /// The unit of capacity for the session. A create takes it out before it calls the builder.
    pub(crate) reservation: Option<SharedReservation>,
}

impl SessionSpec {
    /// A specification with defaults. The same as `default()`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the session's id.
    #[must_use]
    pub fn session_id(mut self, id: SessionId) -> Self {
        self.session_id = Some(id);
        self
    }

    /// Sets the model.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = model.into();
        self
    }

    /// Sets the system prompt.
    #[must_use]
    pub fn system_prompt(mut self, prompt: impl Into<String>) -> Self {
        self.system_prompt = Some(prompt.into());
        self
    }

    /// Sets the maximum output of a model call, in tokens.
    #[must_use]
    pub fn max_tokens(mut self, max_tokens: u32) -> Self {
        self.max_tokens = Some(max_tokens);
        self
    }

    /// Sets the history to resume.
    #[must_use]
    pub fn resume(mut self, session: Session) -> Self {
        self.resume = Some(session);
        self
    }

    /// Sets the labels, replacing all earlier ones.
    #[must_use]
    pub fn labels(mut self, labels: BTreeMap<String, String>) -> Self {
        self.labels = labels;
        self
    }

    /// Adds a label, or replaces its value.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Sets whether the agent may begin with another history than the resumed one.
    ///
    /// ```
    /// # #[cfg(feature = "store")] {
    /// use std::time::Duration;
    /// use turnwise::store::{FileStore, PersistentSessionService};
    /// use turnwise::{agent_fn, builder_fn, Session, SessionAgentBuilder, SessionService, SessionSpec, StartTurnRequest};
    ///
    /// // Agents that keep only the last four messages.
    /// let builder = builder_fn(|spec: &SessionSpec, session| {
    ///     let mut recent = Session::with_id(session.session_id());
    ///     recent.push_batch(spec.history().last_n(4).iter().cloned());
    ///     let spec = SessionSpec::new().resume(recent);
    ///     agent_fn(|prompt, turn| Ok(turn.finish(prompt))).build_agent(&spec, session)
    /// });
    /// let service = PersistentSessionService::new(builder, 1, FileStore::in_memory()?);
    /// let id = service.open_session(SessionSpec::new().rewrites_history(true))?;
    /// for prompt in ["one", "two", "three"] {
    ///     service.start_turn(id, StartTurnRequest::new(prompt))?;
    /// }
    /// service.unload(id, Duration::from_secs(5))?;
    /// service.start_turn(id, StartTurnRequest::new("four"))?; // resumes
    /// assert_eq!(service.export_session(id)?.messages().len(), 6);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn rewrites_history(mut self, rewrites_history: bool) -> Self {
        self.rewrites_history = rewrites_history;
        self
    }

    /// The history that the agent begins with: the one to [resume](Self::resume), or an empty one with the session's
    /// id. Every builder of an agent with a history should start from it.
    ///
    /// ```
    /// use turnwise::{Message, Session, SessionSpec};
    ///
    /// let mut session = Session::new();
    /// session.push(Message::user("hello"));
    /// assert_eq!(SessionSpec::new().resume(session).history().messages().len(), 1);
    /// assert!(SessionSpec::new().history().messages().is_empty());
    /// ```
    pub fn history(&self) -> Session {
        let new = || Session::with_id(self.session_id.unwrap_or_else(SessionId::new));
        self.resume.clone().unwrap_or_else(new)
    }

    /// Sets the reservation that the create or open spends, so that it does not fail for want of capacity.
    ///
    /// Clones of the specification share one reservation. The first create or open takes it out of all of them, and
    /// gives it back if it fails. A later one fails with
    /// [`SessionError::InvalidReservation`](crate::SessionError::InvalidReservation). So does a create of another
    /// service than the one that made the reservation; it leaves the reservation to the other clones. The builder gets
    /// the specification without the reservation.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, SessionSpec};
    ///
    /// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
    /// let spec = SessionSpec::new().reservation(service.reserve(Duration::from_secs(5))?);
    /// let request = CreateSessionRequest::new("hello").session(spec.clone());
    /// let id = service.create_session(request)?.session_id;
    ///
    /// service.archive_wait(id, Duration::from_secs(5))?;
    /// let spent = service.open_session(spec).unwrap_err(); // the clone has nothing left
    /// assert_eq!(spent.code(), "INVALID_RESERVATION");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    #[must_use]
    pub fn reservation(mut self, reservation: Reservation) -> Self {
        self.reservation = Some(SharedReservation::new(reservation));
        self
    }

    /// Sets the extension, other data for the builder.
    #[must_use]
    pub fn extension(mut self, extension: Arc<dyn Any + Send + Sync>) -> Self {
        self.extension = Some(extension);
        self
    }

    /// Returns the extension, if it is of type `T`.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use turnwise::SessionSpec;
    ///
    /// struct Role(&'static str);
    ///
    /// let spec = SessionSpec::new().extension(Arc::new(Role("critic")));
    /// assert_eq!(spec.extension_as::<Role>().map(|role| role.0), Some("critic"));
    /// assert!(spec.extension_as::<String>().is_none());
    /// ```
    pub fn extension_as<T: Any>(&self) -> Option<&T> {
        self.extension.as_deref()?.downcast_ref()
    }
}

impl fmt::Debug for SessionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionSpec")
            .field("session_id", &self.session_id)
            .field("model", &self.model)
            .field("system_prompt", &self.system_prompt.as_deref().map(Brief))
            .field("max_tokens", &self.max_tokens)
            .field("resume", &self.resume)
            .field("labels", &self.labels)
            .field("extension", &self.extension.is_some())
            .field("reservation", &self.reservation.is_some())
            .finish()
    }
}

/// What happens to a turn whose session is busy: building its agent, or running another turn. On an idle session all of
/// them start the turn at once.
///
/// ```
/// use std::time::Duration;
/// use turnwise::{agent_fn, CancelReason, CreateSessionRequest, EphemeralSessionService, SessionService};
/// use turnwise::{StartTurnRequest, WhenBusy};
///
/// let agent = agent_fn(|prompt, turn| match prompt.as_str() {
///     "sleep" => Err(turn.sleep(Duration::MAX).unwrap_err().into()),
///     _ => Ok(turn.finish(prompt)),
/// });
/// let service = EphemeralSessionService::new(agent, 1);
/// let sleeping = service.begin_session(CreateSessionRequest::new("sleep"))?;
/// let id = sleeping.session_id();
/// let request = StartTurnRequest::new("hello");
/// assert_eq!(service.start_turn(id, request).unwrap_err().code(), "SESSION_BUSY"); // the default
///
/// let later = service.begin_turn(id, StartTurnRequest::new("later").when_busy(WhenBusy::Queue))?;
/// let now = service.start_turn(id, StartTurnRequest::new("now").when_busy(WhenBusy::Interrupt))?;
/// assert_eq!(now.text, "now");
/// assert_eq!(sleeping.wait().unwrap_err().cancel_reason(), Some(CancelReason::Superseded));
/// assert_eq!(later.wait()?.text, "later");
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum WhenBusy {
    /// The request is refused with [`SessionError::Busy`].
    #[default]
    Refuse,
    /// The turn waits in the session's queue, behind all turns that are there. Behind a turn in host mode it waits until
    /// host mode ends.
    Queue,
    /// The turn goes to the head of the session's queue, and the admitted turn is cancelled with
    /// [`CancelReason::Superseded`](crate::CancelReason::Superseded), whether it runs, waits, or is in host mode. Other
    /// queued turns stay in the queue, in their order. A turn that is queued itself is not superseded: of several such
    /// requests, the latest is served first.
    ///
    /// If the queue is full, nothing is cancelled. A build is not cancelled either, since the new turn needs the agent: a
    /// first turn that is superseded in its build is cancelled when the build has ended.
    Interrupt,
}

/// The request of a turn. Nothing of it outlives the turn.
///
/// Not `Clone`: a copy of `event_tx` would keep the receiver connected after the turn.
///
/// ```
/// use std::time::Duration;
/// use turnwise::{agent_fn, EphemeralSessionService, SessionService, SessionSpec, StartTurnRequest};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt.to_uppercase()))), 1);
/// let id = service.open_session(SessionSpec::new())?;
/// let request = StartTurnRequest::new("sum it up")
///     .skill_references(vec!["office/summary".into()])
///     .timeout(Duration::from_secs(60));
/// assert_eq!(service.start_turn(id, request)?.text, "SUM IT UP");
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Default)]
#[non_exhaustive]
pub struct StartTurnRequest {
    /// The user's prompt, passed to the agent unchanged, empty or not.
    pub prompt: String,
    /// The sender for the turn's events. The channel disconnects when the turn ends.
    ///
    /// A full bounded channel blocks the turn. So do not pass one and then wait for the turn on the thread that reads
    /// the events: that thread would wait for itself. [`stream_turn`](crate::SessionService::stream_turn) and
    /// [`start_turn_with`](crate::SessionService::start_turn_with) read on the calling thread and cannot deadlock that
    /// way.
    ///
    /// ```
    /// use turnwise::crossbeam_channel::unbounded;
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
    /// let (event_tx, events) = unbounded();
    /// let turn = service.begin_session(CreateSessionRequest::new("hello").event_tx(event_tx))?;
    /// for event in events {
    ///     println!("{event:?}"); // RunStarted, RunCompleted
    /// }
    /// assert_eq!(turn.wait()?.text, "hello");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub event_tx: Option<Sender<AgentEvent>>,
    /// Whether the turn enters *host mode* when the prompt is done.
    ///
    /// In host mode the session waits for interactions, from [injectors](crate::SessionService::event_injector) and
    /// from peers, and runs them one at a time
    /// ([`SessionAgent::run_interaction`](crate::SessionAgent::run_interaction)). A failed interaction is reported,
    /// and the session goes on. Meanwhile the session can be exported between interactions. It holds no running permit
    /// while it waits, and admits no other turn.
    ///
    /// The turn ends with `Ok` when the session is dismissed, archived with
    /// [`ArchiveMode::Drain`](crate::ArchiveMode::Drain), or taken. The result's usage, turns and tool calls are the
    /// sums over the prompt and all successful interactions; its answer is the last one. An interrupt, a timeout or a
    /// shutdown ends the turn as cancelled. If the prompt itself fails, host mode does not begin.
    ///
    /// At the turn's end, an interaction that still waits in the inbox and has a subscription fails and leaves the
    /// inbox. Its sender can send it again; the next turn in host mode may never come. An interaction without a
    /// subscription stays for the next turn.
    pub host_mode: bool,
    /// The skills for this turn only; `None` leaves the choice to the agent.
    pub skill_references: Option<Vec<SkillId>>,
    /// The maximum duration of the turn, from its acceptance; the time in the queue counts. Then the turn is cancelled with
    /// [`CancelReason::DeadlineExceeded`](crate::CancelReason::DeadlineExceeded), whether a caller waits for it or
    /// not.
    pub timeout: Option<Duration>,
    /// The results of tools that the host has run for an earlier turn. The agent reads them with
    /// [`TurnContext::tool_results`](crate::TurnContext::tool_results).
    pub tool_results: Vec<ToolResult>,
    /// What happens if the session is busy. Default: the request is refused.
    pub when_busy: WhenBusy,
    /// The number of the turn, if another process has given it out.
    pub(crate) number: Option<TurnId>,
}

impl StartTurnRequest {
    /// Sets the number of the turn, which another process has given out.
    #[cfg(feature = "redis")]
    pub(crate) fn number(mut self, number: TurnId) -> Self {
        self.number = Some(number);
        self
    }

    /// A request with this prompt, and defaults otherwise.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), ..Self::default() }
    }

    /// Sets the prompt.
    #[must_use]
    pub fn prompt(mut self, prompt: impl Into<String>) -> Self {
        self.prompt = prompt.into();
        self
    }

    /// Sets the sender for the turn's events.
    #[must_use]
    pub fn event_tx(mut self, event_tx: Sender<AgentEvent>) -> Self {
        self.event_tx = Some(event_tx);
        self
    }

    /// Sets whether the turn enters host mode.
    #[must_use]
    pub fn host_mode(mut self, host_mode: bool) -> Self {
        self.host_mode = host_mode;
        self
    }

    /// Sets the skills for the turn.
    #[must_use]
    pub fn skill_references(mut self, skills: Vec<SkillId>) -> Self {
        self.skill_references = Some(skills);
        self
    }

    /// Sets the maximum duration of the turn.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets what happens if the session is busy. The first turn of a new session never is.
    #[must_use]
    pub fn when_busy(mut self, when_busy: WhenBusy) -> Self {
        self.when_busy = when_busy;
        self
    }

    /// Sets the results of tools that the host has run, for a session with a
    /// [pending callback](crate::SessionInfo::callback_pending).
    ///
    /// ```
    /// use turnwise::{agent_fn, AgentError, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// use turnwise::{StartTurnRequest, ToolResult};
    ///
    /// let agent = agent_fn(|_, turn| match turn.tool_results() {
    ///     [] => Err(AgentError::CallbackPending { tool_name: "clock".into(), args: "{}".into() }),
    ///     [result, ..] => Ok(turn.finish(format!("It is {}.", result.content))),
    /// });
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let id = service.create_session(CreateSessionRequest::new("How late is it?")).unwrap_err().session_id().unwrap();
    /// let callback = service.read(id)?.state.callback_pending.unwrap();
    /// assert_eq!(callback.tool_name, "clock");
    /// let result = ToolResult { tool_use_id: "1".into(), content: "noon".into(), is_error: false };
    /// let request = StartTurnRequest::new("").tool_results(vec![result]);
    /// assert_eq!(service.start_turn(id, request)?.text, "It is noon.");
    /// assert_eq!(service.read(id)?.state.callback_pending, None);
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    #[must_use]
    pub fn tool_results(mut self, results: Vec<ToolResult>) -> Self {
        self.tool_results = results;
        self
    }

    /// A copy, to return it if the request is refused. It has to be dropped once the request is accepted: its sender
    /// keeps the receiver of the events connected.
    pub(crate) fn spare(&self) -> Self {
        Self {
            prompt: self.prompt.clone(),
            event_tx: self.event_tx.clone(),
            host_mode: self.host_mode,
            skill_references: self.skill_references.clone(),
            timeout: self.timeout,
            tool_results: self.tool_results.clone(),
            when_busy: self.when_busy,
            number: self.number,
        }
    }
}

impl fmt::Debug for StartTurnRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartTurnRequest")
            .field("prompt", &Brief(&self.prompt))
            .field("event_tx", &self.event_tx.is_some())
            .field("host_mode", &self.host_mode)
            .field("skill_references", &self.skill_references)
            .field("timeout", &self.timeout)
            .field("tool_results", &self.tool_results)
            .field("when_busy", &self.when_busy)
            .finish()
    }
}

/// A request that was refused, and why. Returned by [`try_begin_turn`](crate::SessionService::try_begin_turn), so that
/// the request can be tried again.
///
/// ```
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, StartTurnRequest};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
/// let first = service.begin_session(CreateSessionRequest::new("one"))?;
/// let id = first.session_id();
/// let mut request = StartTurnRequest::new("two");
/// let second = loop {
///     match service.try_begin_turn(id, request) {
///         Ok(turn) => break turn,
///         Err(refused) if refused.error.code() == "SESSION_BUSY" => request = refused.request,
///         Err(refused) => return Err(refused.into()),
///     }
/// };
/// assert_eq!(second.wait()?.text, "two");
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct RefusedTurn {
    /// Why the request was refused.
    pub error: SessionError,
    /// The request, unchanged.
    pub request: StartTurnRequest,
}

impl RefusedTurn {
    pub(crate) fn new(error: SessionError, request: StartTurnRequest) -> Self {
        Self { error, request }
    }
}

impl fmt::Display for RefusedTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// The source behind the error whose text `Display` shows.
impl Error for RefusedTurn {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl From<RefusedTurn> for SessionError {
    fn from(RefusedTurn { error, request }: RefusedTurn) -> Self {
        drop(request);
        error
    }
}

/// The request of a session and its first turn.
///
/// ```
/// use std::time::Duration;
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, SessionSpec};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
/// let request = CreateSessionRequest::new("hello")
///     .session(SessionSpec::new().label("user", "ada"))
///     .timeout(Duration::from_secs(60)); // for the build and the first turn together
/// assert_eq!(service.create_session(request)?.text, "hello");
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct CreateSessionRequest {
    /// The specification of the session.
    pub session: SessionSpec,
    /// The session's first turn.
    pub turn: StartTurnRequest,
}

impl CreateSessionRequest {
    /// A request with a default session, whose first turn has this prompt.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { session: SessionSpec::default(), turn: StartTurnRequest::new(prompt) }
    }

    /// Sets the specification of the session.
    #[must_use]
    pub fn session(mut self, session: SessionSpec) -> Self {
        self.session = session;
        self
    }

    /// Sets the first turn.
    #[must_use]
    pub fn turn(mut self, turn: StartTurnRequest) -> Self {
        self.turn = turn;
        self
    }

    /// Sets the prompt of the first turn.
    #[must_use]
    pub fn prompt(mut self, prompt: impl Into<String>) -> Self {
        self.turn = self.turn.prompt(prompt);
        self
    }

    /// Sets the sender for the first turn's events. See [`StartTurnRequest::event_tx`].
    #[must_use]
    pub fn event_tx(mut self, event_tx: Sender<AgentEvent>) -> Self {
        self.turn = self.turn.event_tx(event_tx);
        self
    }

    /// Sets whether the first turn enters host mode. See [`StartTurnRequest::host_mode`].
    #[must_use]
    pub fn host_mode(mut self, host_mode: bool) -> Self {
        self.turn = self.turn.host_mode(host_mode);
        self
    }

    /// Sets the skills for the first turn.
    #[must_use]
    pub fn skill_references(mut self, skills: Vec<SkillId>) -> Self {
        self.turn = self.turn.skill_references(skills);
        self
    }

    /// Sets the maximum duration of the build and the first turn together.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.turn = self.turn.timeout(timeout);
        self
    }
}

/// The filter and page of a list. The default selects all sessions.
///
/// ```
/// use turnwise::{agent_fn, EphemeralSessionService, SessionQuery, SessionService, SessionSpec};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
/// for user in ["ada", "bob", "ada"] {
///     service.open_session(SessionSpec::new().label("user", user))?;
/// }
/// let of_ada = SessionQuery::new().label("user", "ada").limit(1);
/// let page = service.list(of_ada.clone())?;
/// let next = service.list(of_ada.after(page[0].session_id))?;
/// assert_eq!((page.len(), next.len()), (1, 1));
/// assert!(next[0].session_id > page[0].session_id); // oldest first
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct SessionQuery {
    /// The maximum number of sessions.
    pub limit: Option<usize>,
    /// The number of matching sessions to skip. Takes time proportional to that number; prefer `after` for pages.
    pub offset: Option<usize>,
    /// Selects the sessions created after this one. It may have been archived since the last page; the list continues
    /// behind it. A service remembers the last 16,384 sessions that ended; it knows a stored session until that is
    /// deleted.
    pub after: Option<SessionId>,
    /// Selects the sessions that have all these labels with these values.
    pub labels: BTreeMap<String, String>,
}

impl SessionQuery {
    /// A query for all sessions. The same as `default()`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the maximum number of sessions.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Sets the number of matching sessions to skip.
    #[must_use]
    pub fn offset(mut self, offset: usize) -> Self {
        self.offset = Some(offset);
        self
    }

    /// Selects the sessions created after session `id`.
    #[must_use]
    pub fn after(mut self, id: SessionId) -> Self {
        self.after = Some(id);
        self
    }

    /// Sets the labels to match, replacing all earlier ones.
    #[must_use]
    pub fn labels(mut self, labels: BTreeMap<String, String>) -> Self {
        self.labels = labels;
        self
    }

    /// Adds a label to match.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }
}
