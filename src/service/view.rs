//! The answers of a service: states, views, lists, reports and figures. Plain data, without locks or references to a
//! session.

use std::fmt;
use std::time::SystemTime;

use crate::model::{Brief, CallbackPending, Labels, SessionId, TurnTimings, Usage};
use crate::sync::Arc;

/// The state of a session.
///
/// ```
/// use turnwise::{agent_fn, EphemeralSessionService, SessionService, SessionSpec, SessionState};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
/// let id = service.open_session(SessionSpec::new())?;
/// let state = service.read(id)?.state.state;
/// assert_eq!(state, SessionState::Idle);
/// assert_eq!(format!("[{state:<8}]"), "[idle    ]");
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum SessionState {
    /// The agent is being built, for the first time or by a [restart](crate::SessionService::restart).
    Building,
    /// The session waits for a turn.
    Idle,
    /// The session runs a turn.
    Running,
    /// The session runs a turn that has asked its host for input, and has no answer yet. See
    /// [`TurnContext::request_input`](crate::TurnContext::request_input).
    Waiting,
    /// The agent has panicked. The session can be read, exported, archived and
    /// [restarted](crate::SessionService::restart). Until then it runs no more turns.
    Faulted,
    /// The session has ended, and its record is stored. It can be read and exported, but runs no more turns. Only
    /// services that store sessions report it.
    Archived,
}

/// The state in lower case: `building`, `idle`, `running`, `waiting`, `faulted`, `archived`. Supports a width, for tables.
impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Building => "building",
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Faulted => "faulted",
            Self::Archived => "archived",
        })
    }
}

/// One session in a list.
///
/// ```
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionQuery, SessionService, SessionState};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
/// service.create_session(CreateSessionRequest::new("hello"))?;
/// let lines = service.list(SessionQuery::new())?;
/// assert_eq!((lines[0].turns, lines[0].message_count), (1, 2));
/// assert_eq!((lines[0].state, lines[0].is_active), (SessionState::Idle, false));
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SessionSummary {
    /// The session's id.
    pub session_id: SessionId,
    /// When the history began.
    pub created_at: SystemTime,
    /// When the history last changed.
    pub updated_at: SystemTime,
    /// The number of messages in the history.
    pub message_count: usize,
    /// The number of the last accepted turn, which may be running or queued; 0 for none. The turn's id is
    /// [`TurnId::new`](crate::TurnId::new) of this number. In a stored session the number continues across unloads and
    /// restarts, and may skip values after the process was killed.
    #[cfg_attr(feature = "serde", serde(default))]
    pub turns: u64,
    /// The tokens used so far.
    pub total_tokens: u64,
    /// Whether the session is building or running a turn.
    pub is_active: bool,
    /// The number of turns that wait in the session's queue.
    #[cfg_attr(feature = "serde", serde(default))]
    pub queued_turns: usize,
    /// The state.
    pub state: SessionState,
    /// Whether the session has a thread. Only services that store sessions list sessions without one; their next turn
    /// resumes them.
    #[cfg_attr(feature = "serde", serde(default))]
    pub is_live: bool,
    /// The session's labels.
    pub labels: Labels,
}

/// The answer of [`read`](crate::SessionService::read).
///
/// ```
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, SessionView};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
/// let id = service.create_session(CreateSessionRequest::new("hello"))?.session_id;
/// let view: SessionView = service.read(id)?;
/// assert_eq!(view.session_id(), id);
/// assert_eq!(view.state.message_count, 2);
/// assert_eq!(view.billing.total_tokens, 0); // this agent calls no model
/// assert!(view.model.is_empty() && view.labels.is_empty()); // the request has set none
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SessionView {
    /// The state and figures.
    pub state: SessionInfo,
    /// The tokens used.
    pub billing: SessionUsage,
    /// The model of the session's [specification](crate::SessionSpec#structfield.model), empty if it has none.
    #[cfg_attr(feature = "serde", serde(default))]
    pub model: Arc<str>,
    /// The session's labels: those of its specification, or those that were [set](crate::SessionService::set_labels)
    /// last.
    #[cfg_attr(feature = "serde", serde(default))]
    pub labels: Labels,
}

impl SessionView {
    /// The session's id.
    pub fn session_id(&self) -> SessionId {
        self.state.session_id
    }
}

/// The state and figures of a session.
///
/// ```
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionInfo, SessionService, TurnId};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt.to_uppercase()))), 1);
/// let result = service.create_session(CreateSessionRequest::new("hello"))?;
/// let info: SessionInfo = service.read(result.session_id)?.state;
/// assert_eq!(info.last_assistant_text.as_deref(), Some("HELLO"));
/// assert_eq!(TurnId::new(info.turns), result.turn_id);
/// assert!(!info.is_active);
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SessionInfo {
    /// The session's id.
    pub session_id: SessionId,
    /// When the history began.
    pub created_at: SystemTime,
    /// When the history last changed.
    pub updated_at: SystemTime,
    /// The number of messages in the history.
    pub message_count: usize,
    /// The number of the last accepted turn, which may be running or queued; 0 for none. The turn's id is
    /// [`TurnId::new`](crate::TurnId::new) of this number. In a stored session the number continues across unloads and
    /// restarts, and may skip values after the process was killed.
    #[cfg_attr(feature = "serde", serde(default))]
    pub turns: u64,
    /// Whether the session is building or running a turn.
    pub is_active: bool,
    /// The state.
    pub state: SessionState,
    /// The last assistant text, shared with the session.
    pub last_assistant_text: Option<Arc<str>>,
    /// The number of input requests that have no answer yet. [`pending_inputs`](crate::SessionService::pending_inputs)
    /// returns them.
    #[cfg_attr(feature = "serde", serde(default))]
    pub pending_inputs: usize,
    /// The number of turns that wait in the session's queue. [`turns`](Self::turns) counts them.
    #[cfg_attr(feature = "serde", serde(default))]
    pub queued_turns: usize,
    /// The tool that the host must run, if the session's most recent turn ended with
    /// [`AgentError::CallbackPending`](crate::AgentError::CallbackPending). The next turn that ends otherwise clears it.
    /// A stored session keeps it.
    #[cfg_attr(feature = "serde", serde(default))]
    pub callback_pending: Option<CallbackPending>,
    /// When the admitted turn was admitted, on the service's clock; `None` if there is none. A turn that was queued is
    /// admitted when it leaves the queue, and a first turn when its session is created.
    #[cfg_attr(feature = "serde", serde(default))]
    pub turn_started_at: Option<SystemTime>,
    /// The number of the session's last event, with subscribers or without; 0 for none. The other fields are of this
    /// moment or a later one. So a client that shows them, and then [subscribes](crate::SessionService::subscribe)
    /// [from](crate::Subscription::from_seq) the number after this one, misses no event, as far as the session's
    /// [history of events](crate::ServiceConfig::event_history) reaches.
    #[cfg_attr(feature = "serde", serde(default))]
    pub last_seq: u64,
}

impl fmt::Debug for SessionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionInfo")
            .field("session_id", &self.session_id)
            .field("created_at", &self.created_at)
            .field("updated_at", &self.updated_at)
            .field("message_count", &self.message_count)
            .field("turns", &self.turns)
            .field("is_active", &self.is_active)
            .field("state", &self.state)
            .field("last_assistant_text", &self.last_assistant_text.as_deref().map(Brief))
            .field("pending_inputs", &self.pending_inputs)
            .field("queued_turns", &self.queued_turns)
            .field("callback_pending", &self.callback_pending)
            .field("turn_started_at", &self.turn_started_at)
            .field("last_seq", &self.last_seq)
            .finish()
    }
}

/// The tokens that a session has used.
///
/// ```
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, StartTurnRequest, Usage};
///
/// let usage = Usage { input_tokens: 10, output_tokens: 2, ..Usage::default() };
/// let agent = agent_fn(move |prompt, turn| Ok(turn.finish(prompt).with_usage(usage)));
/// let service = EphemeralSessionService::new(agent, 1);
/// let id = service.create_session(CreateSessionRequest::new("hello"))?.session_id;
/// service.start_turn(id, StartTurnRequest::new("again"))?;
/// let billing = service.read(id)?.billing;
/// assert_eq!((billing.total_tokens, billing.usage.output_tokens), (24, 4));
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SessionUsage {
    /// The tokens used so far.
    pub total_tokens: u64,
    /// The tokens used so far, by kind.
    pub usage: Usage,
}

/// The result of a shutdown.
///
/// ```
/// use std::time::Duration;
/// use turnwise::{agent_fn, EphemeralSessionService, SessionService, SessionSpec};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 2);
/// service.open_session(SessionSpec::new())?;
/// let report = service.shutdown(Duration::from_secs(60));
/// assert_eq!(report.joined, 1);
/// assert!(report.stuck.is_empty(), "these do not heed their tokens: {:?}", report.stuck);
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ShutdownReport {
    /// The number of sessions that had not ended when the call began, and have ended since.
    pub joined: usize,
    /// The sessions that have not ended in time. Their agents neither return nor check their cancel token, or have
    /// left thread-local values whose drop blocks. After a very short timeout the list may also have sessions that
    /// have ended, but whose threads have not. Call again to wait longer.
    pub stuck: Vec<SessionId>,
}

/// The figures of a service. Each is true at some instant of the call, but not all at the same one.
///
/// ```
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
/// service.create_session(CreateSessionRequest::new("hello"))?;
/// let stats = service.stats();
/// assert_eq!((stats.sessions, stats.max_sessions), (1, 8));
/// assert_eq!((stats.turns_started, stats.turns_completed, stats.turns_ended()), (1, 1, 1));
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ServiceStats {
    /// The number of sessions that hold capacity: live ones, and archived ones that have not ended. Capacity that is
    /// only [reserved](crate::Reservation) does not count.
    pub sessions: usize,
    /// The maximum of [`sessions`](Self::sessions).
    pub max_sessions: usize,
    /// The number of the service's threads:
    /// - one for each session, also for a session that has just ended;
    /// - up to [`idle_threads`](crate::ServiceConfig::idle_threads) that wait for a session;
    /// - one for deadlines, from the first request with a timeout on;
    /// - one for each cancel hook that a deadline has started and that still runs.
    ///
    /// At 0, no code of the agents runs any more, thread-local destructors included.
    #[cfg_attr(feature = "serde", serde(default))]
    pub threads: usize,
    /// The number of turns that hold a running permit. Not counted is a turn that waits for a permit, another session,
    /// capacity, an interaction, input or room for an event, or that [sleeps](crate::TurnContext::sleep). Such a turn's
    /// session is still [`Running`](SessionState::Running), or [`Waiting`](SessionState::Waiting).
    pub running_turns: usize,
    /// The number of turns that wait for a running permit, because
    /// [`max_running_turns`](crate::ServiceConfig::max_running_turns) turns hold one: before their agent is called, or at
    /// the end of a wait. They are not in [`running_turns`](Self::running_turns).
    #[cfg_attr(feature = "serde", serde(default))]
    pub permit_waiting_turns: usize,
    /// The number of turns that have asked their host for input, and have no answer yet.
    #[cfg_attr(feature = "serde", serde(default))]
    pub waiting_turns: usize,
    /// The number of sessions ever created, failed builds included.
    pub sessions_created: u64,
    /// The number of turns that session threads have taken up. Each ends in one of the next four counts.
    pub turns_started: u64,
    /// Turns that succeeded, and were not cancelled.
    pub turns_completed: u64,
    /// Turns that failed, also because the session's build failed.
    pub turns_failed: u64,
    /// Turns that were cancelled before their agent returned, whether it succeeded or failed, and turns that were
    /// cancelled before they ran.
    pub turns_cancelled: u64,
    /// Turns whose agent panicked.
    pub faults: u64,
    /// Restarts of faulted sessions that succeeded, by callers and by [policy](crate::RestartPolicy).
    #[cfg_attr(feature = "serde", serde(default))]
    pub restarts: u64,
    /// Sessions that the service has unloaded by itself, because they were idle or their room was needed; see
    /// `PersistentConfig`.
    #[cfg_attr(feature = "serde", serde(default))]
    pub unloads: u64,
    /// Queued turns that were answered without being taken up: interrupted, out of time, closed with their session, or
    /// behind a panic or a failed build. They count as neither started nor cancelled.
    #[cfg_attr(feature = "serde", serde(default))]
    pub turns_withdrawn: u64,
    /// Library events that a turn's own receiver missed, because it was full when the turn was cancelled.
    /// [`subscriber_events_dropped`](Self::subscriber_events_dropped) counts what subscribers missed.
    pub events_dropped: u64,
    /// Events that subscribers missed: the sum of [`EventStream::dropped`](crate::EventStream::dropped) over all streams,
    /// also those that exist no more.
    #[cfg_attr(feature = "serde", serde(default))]
    pub subscriber_events_dropped: u64,
    /// The sums of the [timings](crate::TurnHandle::timings) of turns. `queued` has every turn that has left the queue,
    /// admitted or withdrawn. The other three have every turn that has ended. Each sum saturates after 584 years.
    #[cfg_attr(feature = "serde", serde(default))]
    pub timings: TurnTimings,
}

impl ServiceStats {
    /// The number of turns that have ended, in any way; saturates at `u64::MAX`.
    pub const fn turns_ended(&self) -> u64 {
        let answered = self.turns_completed.saturating_add(self.turns_failed);
        answered.saturating_add(self.turns_cancelled).saturating_add(self.faults)
    }
}
