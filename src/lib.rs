//! Hosts stateful, turn-based agents in programs that block: one OS thread per session, no async runtime.

mod agent;
mod ephemeral;
mod error;
mod model;
mod panics;
mod service;
mod session;
mod sync;
mod turn;
mod wait;

pub use agent::{
    agent_fn, builder_fn, AgentFn, FnAgent, SessionAgent, SessionAgentBuilder, SessionContext,
};
pub use ephemeral::{EphemeralSessionService, ServiceConfig};
pub use error::{AgentError, BuildError, CancelReason, Cancelled, ConfigError, LlmFailure, SessionError};
pub use model::{
    AgentEvent, AssistantBlock, BudgetType, InteractionId, InvalidId, Message, RunResult, Session, SessionEvent,
    SessionId, SessionSnapshot, SkillId, StopReason, ToolResult, TurnId, Usage,
};
pub use service::{
    ArchiveMode, CreateSessionRequest, ServiceStats, SessionInfo, SessionQuery, SessionService, SessionSpec,
    SessionState, SessionSummary, SessionUsage, SessionView, ShutdownReport, StartTurnRequest, WeakService,
};
pub use turn::context::TurnContext;
pub use turn::events::EventSender;
pub use turn::handle::TurnHandle;
pub use turn::stream::TurnStream;
pub use wait::cancel::{CancelHook, CancelToken};

/// The channels that events come through: receivers fit into a `select!` of the host's own.
pub use crossbeam_channel;
