//! Agents that run the scripts of a test.

use std::collections::BTreeMap;
use std::fmt;

use crate::agent::{agent_fn, SessionAgent, SessionAgentBuilder, SessionContext};
use crate::error::AgentError;
use crate::service::SessionSpec;
use crate::sync::Arc;
use crate::testkit::{Gate, Script};

/// Makes a builder of agents with a script for each prompt. For a prompt without a script, the agent answers with the
/// prompt.
///
/// The agents keep their history as [`agent_fn`]'s do. In host mode an interaction's text is the prompt.
///
/// ```
/// use turnwise::testkit::{scripted, Script};
/// use turnwise::{CreateSessionRequest, EphemeralSessionService, SessionService, StartTurnRequest};
///
/// let agent = scripted()
///     .on("ping", Script::new().reply("pong"))
///     .otherwise(|prompt| match prompt.strip_prefix("say ") {
///         Some(word) => Script::new().say(word),
///         None => Script::new(),
///     });
/// let service = EphemeralSessionService::new(agent, 1);
/// let first = service.create_session(CreateSessionRequest::new("ping"))?;
/// assert_eq!(first.text, "pong");
/// let mut ask = |prompt| service.start_turn(first.session_id, StartTurnRequest::new(prompt)).map(|result| result.text);
/// assert_eq!((ask("say it")?, ask("echo")?), ("it".to_owned(), "echo".to_owned()));
/// # Ok::<(), turnwise::SessionError>(())
/// ```
pub fn scripted() -> Scripted {
    Scripted { build_steps: Vec::new(), scripts: BTreeMap::new(), otherwise: Arc::new(|_| Script::new()) }
}

/// The builder that [`scripted`] makes.
///
/// ```
/// use turnwise::testkit::{scripted, Script, Scripted};
/// use turnwise::{AgentError, EphemeralSessionService, SessionService, SessionSpec};
///
/// let agent: Scripted = scripted()
///     .on("ping", Script::new().reply("pong"))
///     .build_calls(|spec, _| match spec.model.as_str() {
///         "" => Err(AgentError::Config("no model is set".into())),
///         _ => Ok(()),
///     });
/// let service = EphemeralSessionService::new(agent, 1);
/// assert!(service.open_session(SessionSpec::new()).is_err());
/// assert!(service.open_session(SessionSpec::new().model("small")).is_ok());
/// ```
#[derive(Clone)]
#[must_use]
pub struct Scripted {
    build_steps: Vec<BuildStep>,
    scripts: BTreeMap<String, Script>,
    otherwise: Arc<dyn Fn(&str) -> Script + Send + Sync>,
}

#[derive(Clone)]
enum BuildStep {
    WaitAt(Gate),
    WaitAtIgnoringCancel(Gate),
    Call(BuildCall),
    Fail(AgentError),
    Panic(String),
}

type BuildCall = Arc<dyn Fn(&SessionSpec, &SessionContext) -> Result<(), AgentError> + Send + Sync>;

impl Scripted {
    /// Sets the script for exactly this prompt.
    pub fn on(mut self, prompt: impl Into<String>, script: Script) -> Self {
        self.scripts.insert(prompt.into(), script);
        self
    }

    /// Sets the function that makes the script for a prompt without a script of its own. It is called on the session
    /// thread.
    pub fn otherwise(mut self, scripts: impl Fn(&str) -> Script + Send + Sync + 'static) -> Self {
        self.otherwise = Arc::new(scripts);
        self
    }

    /// Adds a build step that waits at the gate until the test lets it pass, or the session's first turn is cancelled:
    /// a slow build. The steps of a build run in the order in which they were added.
    ///
    /// ```
    /// use turnwise::testkit::{scripted, Gate};
    /// use turnwise::{CreateSessionRequest, EphemeralSessionService, SessionService, SessionState};
    ///
    /// let gate = Gate::new();
    /// let service = EphemeralSessionService::new(scripted().build_waits_at(&gate), 1);
    /// let turn = service.begin_session(CreateSessionRequest::new("hello"))?;
    /// gate.wait_arrived(1);
    /// assert_eq!(service.read(turn.session_id())?.state.state, SessionState::Building);
    /// gate.open();
    /// assert_eq!(turn.wait()?.text, "hello");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn build_waits_at(self, gate: &Gate) -> Self {
        self.add_build_step(BuildStep::WaitAt(gate.clone()))
    }

    /// As [`build_waits_at`](Self::build_waits_at), but ignores cancellation: a build that does not check its token.
    pub fn build_waits_at_ignoring_cancel(self, gate: &Gate) -> Self {
        self.add_build_step(BuildStep::WaitAtIgnoringCancel(gate.clone()))
    }

    /// Adds a build step that calls `call` on the session thread: to emit events, or to choose which builds fail.
    pub fn build_calls(
        self,
        call: impl Fn(&SessionSpec, &SessionContext) -> Result<(), AgentError> + Send + Sync + 'static,
    ) -> Self {
        self.add_build_step(BuildStep::Call(Arc::new(call)))
    }

    /// Makes every build fail.
    pub fn build_fails(self, error: AgentError) -> Self {
        self.add_build_step(BuildStep::Fail(error))
    }

    /// Makes every build panic.
    pub fn build_panics(self, message: impl Into<String>) -> Self {
        self.add_build_step(BuildStep::Panic(message.into()))
    }

    fn add_build_step(mut self, step: BuildStep) -> Self {
        self.build_steps.push(step);
        self
    }

    fn script(&self, prompt: &str) -> Script {
        self.scripts.get(prompt).cloned().unwrap_or_else(|| (self.otherwise)(prompt))
    }
}

impl BuildStep {
    fn run(&self, spec: &SessionSpec, context: &SessionContext) -> Result<(), AgentError> {
        match self {
            Self::WaitAt(gate) => Ok(gate.pass(context.cancel_token())?),
            Self::WaitAtIgnoringCancel(gate) => {
                gate.pass_regardless();
                Ok(())
            }
            Self::Call(call) => call(spec, context),
            Self::Fail(error) => Err(error.clone()),
            Self::Panic(message) => panic!("{message}"),
        }
    }
}

impl SessionAgentBuilder for Scripted {
    type Agent = Box<dyn SessionAgent>;

    fn build_agent(&self, spec: &SessionSpec, context: &SessionContext) -> Result<Self::Agent, AgentError> {
        self.build_steps.iter().try_for_each(|step| step.run(spec, context))?;
        let scripts = self.clone();
        let agent = agent_fn(move |prompt, turn| scripts.script(&prompt).run(prompt, turn));
        Ok(Box::new(agent.build_agent(spec, context)?))
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scripted")
            .field("build_steps", &self.build_steps)
            .field("scripts", &self.scripts)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for BuildStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WaitAt(gate) => f.debug_tuple("WaitAt").field(gate).finish(),
            Self::WaitAtIgnoringCancel(gate) => f.debug_tuple("WaitAtIgnoringCancel").field(gate).finish(),
            Self::Call(_) => f.write_str("Call(..)"),
            Self::Fail(error) => f.debug_tuple("Fail").field(error).finish(),
            Self::Panic(message) => f.debug_tuple("Panic").field(message).finish(),
        }
    }
}
