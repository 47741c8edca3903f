//! What services answer with.

use std::fmt;
use std::time::SystemTime;

use crate::model::{Brief, Labels, SessionId, Usage};
use crate::sync::Arc;

/// What a session is at.
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
    /// Its agent is being built.
    Building,
    /// It waits for a turn.
    Idle,
    /// It runs a turn.
    Running,
    /// Its agent has panicked: it can be read, exported and archived, but runs no more turns.
    Faulted,
    /// It has ended and is kept: it can be read and exported, but runs no more turns. Only services that keep sessions show it.
    Archived,
}

/// In lower case: `building`, `idle`, `running`, `faulted`, `archived`. Heeds a width, for tables.
impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Building => "building",
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Faulted => "faulted",
            Self::Archived => "archived",
        })
    }
}

/// One line of a list.
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
    /// Which session.
    pub session_id: SessionId,
    /// When the conversation began.
    pub created_at: SystemTime,
    /// When it last changed.
    pub updated_at: SystemTime,
    /// Messages in it.
    pub message_count: usize,
    /// The number of the last admitted turn, 0 for none: its id is [`TurnId::new`](crate::TurnId::new) of this number. Where a turn runs, it
    /// is that one. Of a kept session it counts over all its lives, and may skip numbers after a process that was killed.
    #[cfg_attr(feature = "serde", serde(default))]
    pub turns: u64,
    /// Tokens used so far.
    pub total_tokens: u64,
    /// Whether it builds or runs a turn.
    pub is_active: bool,
    /// What it is at.
    pub state: SessionState,
    /// Whether it has a thread. Only services that keep sessions list others, which their next turn resumes.
    #[cfg_attr(feature = "serde", serde(default))]
    pub is_live: bool,
    /// Its labels.
    pub labels: Labels,
}

/// What one session shows of itself.
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
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SessionView {
    /// What it is at.
    pub state: SessionInfo,
    /// What it has cost.
    pub billing: SessionUsage,
}

impl SessionView {
    /// Which session.
    pub fn session_id(&self) -> SessionId {
        self.state.session_id
    }
}

/// What a session is at.
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
    /// Which session.
    pub session_id: SessionId,
    /// When the conversation began.
    pub created_at: SystemTime,
    /// When it last changed.
    pub updated_at: SystemTime,
    /// Messages in it.
    pub message_count: usize,
    /// The number of the last admitted turn, 0 for none: its id is [`TurnId::new`](crate::TurnId::new) of this number. Where a turn runs, it
    /// is that one. Of a kept session it counts over all its lives, and may skip numbers after a process that was killed.
    #[cfg_attr(feature = "serde", serde(default))]
    pub turns: u64,
    /// Whether it builds or runs a turn.
    pub is_active: bool,
    /// What it is at.
    pub state: SessionState,
    /// What the assistant said last, shared with the session.
    pub last_assistant_text: Option<Arc<str>>,
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
            .finish()
    }
}

/// What a session has cost.
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
    /// Tokens used so far.
    pub total_tokens: u64,
    /// The same, by kind.
    pub usage: Usage,
}

/// What a shutdown came to.
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
    /// Sessions that had not ended when the call began, and have.
    pub joined: usize,
    /// Sessions that have not ended in time: their agents neither return nor heed their cancel token, or have left
    /// thread-local values behind that block as they are dropped. Where the time was very short, also sessions that have ended, and
    /// whose threads are just about to. Call again to wait for them longer.
    pub stuck: Vec<SessionId>,
}

/// Figures of a service. Each is true for some instant of the call, not all for the same.
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
    /// Sessions that hold capacity: live ones, and archived ones that have not ended yet.
    pub sessions: usize,
    /// How many there may be.
    pub max_sessions: usize,
    /// Threads that the service has: one for each session, those of [`sessions`](Self::sessions) and of such as have ended just
    /// now; up to [`idle_threads`](crate::ServiceConfig::idle_threads) that wait for a session; and one for deadlines, from
    /// the first request with a timeout on, and one for each cancel hook that a deadline has set off and that runs. With none left none of the agents' code runs any more, thread-local destructors
    /// included.
    #[cfg_attr(feature = "serde", serde(default))]
    pub threads: usize,
    /// Turns that their agents run now. One that waits for a running permit, or for another session, is not counted.
    pub running_turns: usize,
    /// Sessions ever created, failed builds included.
    pub sessions_created: u64,
    /// Turns that were ever taken up by their sessions' threads. Each ends as one of the next four.
    pub turns_started: u64,
    /// Turns that ended well, and had not been told to stop.
    pub turns_completed: u64,
    /// Turns that failed, those whose session could not be built included.
    pub turns_failed: u64,
    /// Turns that had been told to stop when their agent returned, whether it answered or failed, and turns that were stopped before
    /// they ran.
    pub turns_cancelled: u64,
    /// Turns whose agent panicked.
    pub faults: u64,
    /// Events that a turn's own receiver missed because it was full when the turn was cancelled. What subscribers missed
    /// is counted by [`EventStream::dropped`](crate::EventStream::dropped).
    pub events_dropped: u64,
}

impl ServiceStats {
    /// Turns that have ended, in whatever way; at most `u64::MAX`, whatever the figures are.
    pub const fn turns_ended(&self) -> u64 {
        let answered = self.turns_completed.saturating_add(self.turns_failed);
        answered.saturating_add(self.turns_cancelled).saturating_add(self.faults)
    }
}
