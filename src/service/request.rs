//! What callers ask for.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::ids::numbers::Numbering;
use crate::model::{AgentEvent, Brief, Session, SessionId, SkillId};
use crate::sync::{Arc, Sender};

/// What kind of session. The builder gets it, with the id filled in.
///
/// ```
/// use turnwise::{agent_fn, EphemeralSessionService, Message, SessionService, SessionSpec};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
/// let spec = SessionSpec::new().model("small").system_prompt("Be brief.").max_tokens(200).label("user", "ada");
/// let id = service.open_session(spec)?;
/// let history = service.export_session(id)?;
/// assert_eq!(history.messages(), [Message::system("Be brief.")]);
/// let other = service.open_session(SessionSpec::new().resume(history.fork()))?; // with the same past
/// assert_ne!(other, id);
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct SessionSpec {
    /// Its id. `None`: that of the session it resumes, or a fresh one.
    pub session_id: Option<SessionId>,
    /// Which model, in the builder's own words.
    pub model: String,
    /// What the assistant is to be.
    pub system_prompt: Option<String>,
    /// How much a model call may write, in tokens.
    pub max_tokens: Option<u32>,
    /// The history to go on from. It counts as that of [`session_id`](Self::session_id), where both are given.
    pub resume: Option<Session>,
    /// What to find the session by in [`SessionService::list`](crate::SessionService::list).
    pub labels: BTreeMap<String, String>,
    /// Whether the agent may begin with another history than the one that it resumes: it compacts, or rolls back. Services that keep
    /// sessions refuse an agent that does so without this word, since its next turn would replace what is kept; the word is kept too.
    pub rewrites_history: bool,
    /// Whatever else the builder wants to know.
    pub extension: Option<Arc<dyn Any + Send + Sync>>,
    /// Where its turns and events begin to count.
    pub(crate) numbering: Numbering,
}

impl SessionSpec {
    /// A session with nothing said about it. The same as `default()`.
    pub fn new() -> Self {
        Self::default()
    }

    /// With this id.
    #[must_use]
    pub fn session_id(mut self, id: SessionId) -> Self {
        self.session_id = Some(id);
        self
    }

    /// With this model.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = model.into();
        self
    }

    /// With this system prompt.
    #[must_use]
    pub fn system_prompt(mut self, prompt: impl Into<String>) -> Self {
        self.system_prompt = Some(prompt.into());
        self
    }

    /// With this limit on what a model call may write, in tokens.
    #[must_use]
    pub fn max_tokens(mut self, max_tokens: u32) -> Self {
        self.max_tokens = Some(max_tokens);
        self
    }

    /// Going on from this history.
    #[must_use]
    pub fn resume(mut self, session: Session) -> Self {
        self.resume = Some(session);
        self
    }

    /// With these labels and no others.
    #[must_use]
    pub fn labels(mut self, labels: BTreeMap<String, String>) -> Self {
        self.labels = labels;
        self
    }

    /// With this label as well.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Sets whether the agent may begin with another history than the one that it resumes.
    ///
    /// ```
    /// # #[cfg(feature = "store")] {
    /// use std::time::Duration;
    /// use turnwise::store::{FileStore, PersistentSessionService};
    /// use turnwise::{agent_fn, builder_fn, Session, SessionAgentBuilder, SessionService, SessionSpec, StartTurnRequest};
    ///
    /// // Agents that keep the last four messages only.
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

    /// The history that the agent begins with: the one to [resume](Self::resume), or an empty one under the session's id. Every builder
    /// of an agent with a history begins here.
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

    /// With this for the builder.
    #[must_use]
    pub fn extension(mut self, extension: Arc<dyn Any + Send + Sync>) -> Self {
        self.extension = Some(extension);
        self
    }

    /// What is there for the builder, if it is of this type.
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
            .finish()
    }
}

/// What a turn is to do. None of it outlives the turn.
///
/// Not `Clone`: a kept copy of `event_tx` would keep its receiver open after the turn.
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
    /// What the user says; passed to the agent as it is, empty or not.
    pub prompt: String,
    /// Where the turn's events go. The channel disconnects when the turn ends.
    ///
    /// A full bounded channel makes the turn wait. So do not pass one and then wait for the turn on the thread that should
    /// be reading: that thread waits for itself. [`stream_turn`](crate::SessionService::stream_turn) and
    /// [`start_turn_with`](crate::SessionService::start_turn_with) read on the calling thread and cannot go wrong that way.
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
    /// Whether the session stays with its inbox when the prompt is done: *host mode*.
    ///
    /// Then the session waits for interactions, from [injectors](crate::SessionService::event_injector) and from peers, and
    /// runs one after the other ([`SessionAgent::run_interaction`](crate::SessionAgent::run_interaction)). One that fails is
    /// reported, and the session goes on. Meanwhile it can be exported between interactions, holds no running permit while
    /// it waits, and admits no other turn.
    ///
    /// The turn ends with `Ok` when the session is dismissed, or archived with
    /// [`ArchiveMode::Drain`](crate::ArchiveMode::Drain), or taken: usage, turns and tool calls are those of the prompt and
    /// all interactions that ended well, the answer is the last one. It ends as cancelled by an interrupt, a timeout or a shutdown. Where the
    /// prompt itself fails, there is no host mode.
    ///
    /// However the turn ends, an interaction that still waits in the inbox and is followed fails then, and leaves the inbox: the next turn
    /// in host mode may never come, and its sender can send it again. One that no subscription follows stays for the next turn.
    pub host_mode: bool,
    /// Skills for this turn only; `None` leaves them to the agent.
    pub skill_references: Option<Vec<SkillId>>,
    /// How long the turn may take, from its admission; then it is cancelled with
    /// [`CancelReason::DeadlineExceeded`](crate::CancelReason::DeadlineExceeded), whether anybody waits for it or not.
    pub timeout: Option<Duration>,
}

impl StartTurnRequest {
    /// A turn with this prompt.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), ..Self::default() }
    }

    /// With this prompt.
    #[must_use]
    pub fn prompt(mut self, prompt: impl Into<String>) -> Self {
        self.prompt = prompt.into();
        self
    }

    /// With its events sent here.
    #[must_use]
    pub fn event_tx(mut self, event_tx: Sender<AgentEvent>) -> Self {
        self.event_tx = Some(event_tx);
        self
    }

    /// In host mode, or not.
    #[must_use]
    pub fn host_mode(mut self, host_mode: bool) -> Self {
        self.host_mode = host_mode;
        self
    }

    /// With these skills.
    #[must_use]
    pub fn skill_references(mut self, skills: Vec<SkillId>) -> Self {
        self.skill_references = Some(skills);
        self
    }

    /// With this much time.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
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
            .finish()
    }
}

/// A session and its first turn.
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
    /// What kind of session.
    pub session: SessionSpec,
    /// Its first turn.
    pub turn: StartTurnRequest,
}

impl CreateSessionRequest {
    /// A session with nothing said about it, whose first turn has this prompt.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { session: SessionSpec::default(), turn: StartTurnRequest::new(prompt) }
    }

    /// With this kind of session.
    #[must_use]
    pub fn session(mut self, session: SessionSpec) -> Self {
        self.session = session;
        self
    }

    /// With this first turn.
    #[must_use]
    pub fn turn(mut self, turn: StartTurnRequest) -> Self {
        self.turn = turn;
        self
    }

    /// With this prompt for the first turn.
    #[must_use]
    pub fn prompt(mut self, prompt: impl Into<String>) -> Self {
        self.turn = self.turn.prompt(prompt);
        self
    }

    /// With the first turn's events sent here. See [`StartTurnRequest::event_tx`].
    #[must_use]
    pub fn event_tx(mut self, event_tx: Sender<AgentEvent>) -> Self {
        self.turn = self.turn.event_tx(event_tx);
        self
    }

    /// With the first turn in host mode, or not. See [`StartTurnRequest::host_mode`].
    #[must_use]
    pub fn host_mode(mut self, host_mode: bool) -> Self {
        self.turn = self.turn.host_mode(host_mode);
        self
    }

    /// With these skills for the first turn.
    #[must_use]
    pub fn skill_references(mut self, skills: Vec<SkillId>) -> Self {
        self.turn = self.turn.skill_references(skills);
        self
    }

    /// With this much time for the build and the first turn together.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.turn = self.turn.timeout(timeout);
        self
    }
}

/// Which sessions to list. Default: all.
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
    /// At most so many.
    pub limit: Option<usize>,
    /// Without the first so many of those that match. Costs as much as they are; prefer `after` for pages.
    pub offset: Option<usize>,
    /// Only those created after this session. It may have been archived since the last page: the list goes on behind it. A service
    /// remembers the last 16,384 sessions that ended; a kept session is known until it is deleted.
    pub after: Option<SessionId>,
    /// Only those that have all these labels with these values.
    pub labels: BTreeMap<String, String>,
}

impl SessionQuery {
    /// All sessions. The same as `default()`.
    pub fn new() -> Self {
        Self::default()
    }

    /// At most `limit`.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Without the first `offset`.
    #[must_use]
    pub fn offset(mut self, offset: usize) -> Self {
        self.offset = Some(offset);
        self
    }

    /// Only those created after session `id`.
    #[must_use]
    pub fn after(mut self, id: SessionId) -> Self {
        self.after = Some(id);
        self
    }

    /// Only those with all these labels.
    #[must_use]
    pub fn labels(mut self, labels: BTreeMap<String, String>) -> Self {
        self.labels = labels;
        self
    }

    /// Only those with this label as well.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }
}
