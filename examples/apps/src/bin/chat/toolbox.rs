//! The builder of agents, and the toolbox of an agent: it runs the calls of the model, if the user allows them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use turnwise::{AgentError, AgentEvent, Cancelled, SessionAgentBuilder, SessionContext, SessionSpec, TurnContext};

use crate::agent::Chat;
use crate::calls::ToolCall;
use crate::consent::Consent;
use crate::options::Options;
use crate::request::Dialect;
use crate::tools::Tool;

pub(crate) struct ChatBuilder {
    pub(crate) options: Arc<Options>,
    pub(crate) dialect: Arc<Dialect>,
}

impl SessionAgentBuilder for ChatBuilder {
    type Agent = Chat;

    fn build_agent(&self, spec: &SessionSpec, _: &SessionContext) -> Result<Chat, AgentError> {
        let toolbox = Toolbox { consent: Consent::new(Arc::clone(&self.options)) };
        Ok(Chat::new(spec, &self.options, &self.dialect, toolbox))
    }
}

/// The answer of a tool. The error is a text for the model too.
type ToolAnswer = Result<String, String>;

pub(crate) struct Toolbox {
    consent: Consent,
}

impl Toolbox {
    /// The answer of a call, which may be a refusal, and the time that the tool took.
    pub(crate) fn answer(&mut self, call: &ToolCall, turn: &TurnContext) -> Result<(ToolAnswer, Duration), Cancelled> {
        // An incomplete call does not run. Its result gives the reason to the model.
        let tool = match call.arguments().and_then(|args| Tool::new(&call.name, args)) {
            Ok(tool) => tool,
            Err(error) => return Ok((Err(error), Duration::ZERO)),
        };
        if let Some(change) = tool.change() {
            if let Some(refusal) = self.consent.refusal(&call.name, &change, turn)? {
                return Ok((Err(refusal), Duration::ZERO));
            }
        }
        turn.emit(AgentEvent::ToolExecutionStarted { id: call.id.clone(), name: call.name.clone() })?;
        let begun = Instant::now();
        let answer = tool.run();
        Ok((answer, begun.elapsed()))
    }
}
