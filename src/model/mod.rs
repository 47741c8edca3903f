//! The crate's data types. Plain data: no behaviour here blocks or locks.

mod brief;
mod event;
mod id;
mod input;
mod interaction;
mod labels;
mod messages;
mod result;
mod snapshot;
mod timings;
mod transcript;

pub(crate) use brief::Brief;
pub use event::{AgentEvent, BudgetType, SessionEvent};
#[cfg(feature = "redis")]
pub use id::RequestId;
pub use id::{InteractionId, InvalidId, SessionId, SkillId, TurnId};
pub use input::{CallbackPending, InputId, InputOption, InputOutcome, InputRequest, InputResponse, PendingInput};
pub use interaction::{EventSource, InboxInteraction, InteractionContent, ResponseStatus};
pub use labels::Labels;
pub use result::{RunResult, StopReason, Usage};
pub use snapshot::SessionSnapshot;
pub use timings::TurnTimings;
#[cfg(feature = "store")]
pub(crate) use transcript::HistoryChange;
pub use transcript::{AssistantBlock, Message, Session, ToolResult};
