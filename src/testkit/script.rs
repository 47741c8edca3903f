//! What a scripted agent does in a turn.

use std::fmt;
use std::time::Duration;

use crate::error::AgentError;
use crate::model::{AgentEvent, RunResult, SessionSnapshot, Usage};
use crate::sync::Arc;
use crate::testkit::Gate;
use crate::turn::context::TurnContext;

/// What an agent does in one turn, step by step, in the order in which it was written.
///
/// At its end the turn is answered: with the [`reply`](Self::reply), else with all that was [said](Self::say), else with the
/// prompt. A step that fails, or is told to stop, ends the turn with its error. A script may be played any number of times.
///
/// ```
/// use turnwise::testkit::{scripted, Script};
/// use turnwise::{AgentError, CreateSessionRequest, EphemeralSessionService, SessionService};
///
/// let agent = scripted()
///     .on("greet", Script::new().say("hello ").say("world"))
///     .on("try", Script::new().fail(AgentError::Config("no key".into())));
/// let service = EphemeralSessionService::new(agent, 2);
/// assert_eq!(service.create_session(CreateSessionRequest::new("greet"))?.text, "hello world");
/// assert!(service.create_session(CreateSessionRequest::new("try")).is_err());
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Script {
    steps: Vec<Step>,
}

#[derive(Clone)]
enum Step {
    Emit(AgentEvent),
    Say(String),
    WaitAt(Gate),
    WaitRegardlessAt(Gate),
    UntilCancelled,
    Sleep(Duration),
    Publish(SessionSnapshot),
    DrainInbox,
    Call(Call),
    Reply(String),
    ReplyWith(Reply),
    Usage(Usage),
    ToolCalls(u32),
    Fail(AgentError),
    Panic(String),
}

type Call = Arc<dyn Fn(&TurnContext) -> Result<(), AgentError> + Send + Sync>;
type Reply = Arc<dyn Fn(&TurnContext) -> Result<String, AgentError> + Send + Sync>;

impl Script {
    /// An empty script: the answer is the prompt.
    pub fn new() -> Self {
        Self::default()
    }

    /// Emits an event.
    pub fn emit(self, event: AgentEvent) -> Self {
        self.then(Step::Emit(event))
    }

    /// Says a piece of the answer: emits it as a [`TextDelta`](AgentEvent::TextDelta), and keeps it for the end.
    pub fn say(self, text: impl Into<String>) -> Self {
        self.then(Step::Say(text.into()))
    }

    /// Stops at the gate until the test lets it through, or the turn is told to stop.
    ///
    /// ```
    /// use turnwise::testkit::{scripted, Gate, Script};
    /// use turnwise::{CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let gate = Gate::new();
    /// let agent = scripted().on("think", Script::new().wait_at(&gate).reply("aha"));
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let turn = service.begin_session(CreateSessionRequest::new("think"))?;
    /// gate.wait_arrived(1);
    /// assert!(service.read(turn.session_id())?.state.is_active);
    /// gate.open();
    /// assert_eq!(turn.wait()?.text, "aha");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn wait_at(self, gate: &Gate) -> Self {
        self.then(Step::WaitAt(gate.clone()))
    }

    /// Stops at the gate until the test lets it through, whatever the turn is told: an agent that is deaf. A test that
    /// forgets about it keeps a thread for good.
    pub fn wait_at_ignoring_cancel(self, gate: &Gate) -> Self {
        self.then(Step::WaitRegardlessAt(gate.clone()))
    }

    /// Waits until the turn is told to stop, and fails with that.
    pub fn until_cancelled(self) -> Self {
        self.then(Step::UntilCancelled)
    }

    /// [Sleeps](TurnContext::sleep), on the service's clock.
    pub fn sleep(self, duration: Duration) -> Self {
        self.then(Step::Sleep(duration))
    }

    /// [Shows](TurnContext::publish) progress.
    pub fn publish(self, snapshot: SessionSnapshot) -> Self {
        self.then(Step::Publish(snapshot))
    }

    /// [Takes](TurnContext::drain_inbox) what is in the session's inbox, and says the text of each.
    ///
    /// ```
    /// use turnwise::testkit::{scripted, Script};
    /// use turnwise::{EphemeralSessionService, EventSource, SessionService, SessionSpec, StartTurnRequest};
    ///
    /// let service = EphemeralSessionService::new(scripted().on("any news?", Script::new().drain_inbox()), 1);
    /// let id = service.open_session(SessionSpec::new())?;
    /// service.event_injector(id).unwrap().inject("rain".into(), EventSource::Webhook)?;
    /// assert_eq!(service.start_turn(id, StartTurnRequest::new("any news?"))?.text, "rain");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn drain_inbox(self) -> Self {
        self.then(Step::DrainInbox)
    }

    /// Calls `call` on the session's thread, for whatever else there is to do; its error ends the turn.
    pub fn call(self, call: impl Fn(&TurnContext) -> Result<(), AgentError> + Send + Sync + 'static) -> Self {
        self.then(Step::Call(Arc::new(call)))
    }

    /// Answers with this, when the script is at its end.
    pub fn reply(self, text: impl Into<String>) -> Self {
        self.then(Step::Reply(text.into()))
    }

    /// As [`reply`](Self::reply), with what `reply` makes of the turn; its error ends the turn.
    ///
    /// ```
    /// use turnwise::testkit::{scripted, Script};
    /// use turnwise::{CreateSessionRequest, EphemeralSessionService, SessionService, Usage};
    ///
    /// let script = Script::new()
    ///     .reply_with(|turn| Ok(format!("this is turn {}", turn.turn_id())))
    ///     .usage(Usage { input_tokens: 10, output_tokens: 4, ..Usage::default() })
    ///     .tool_calls(1);
    /// let service = EphemeralSessionService::new(scripted().on("which?", script), 1);
    /// let result = service.create_session(CreateSessionRequest::new("which?"))?;
    /// assert_eq!(result.text, "this is turn 1");
    /// assert_eq!((result.usage.total_tokens(), result.tool_calls), (14, 1));
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn reply_with(
        self,
        reply: impl Fn(&TurnContext) -> Result<String, AgentError> + Send + Sync + 'static,
    ) -> Self {
        self.then(Step::ReplyWith(Arc::new(reply)))
    }

    /// Uses so many tokens, added up over the script.
    pub fn usage(self, usage: Usage) -> Self {
        self.then(Step::Usage(usage))
    }

    /// Calls so many tools, as the result has it; added up over the script.
    pub fn tool_calls(self, calls: u32) -> Self {
        self.then(Step::ToolCalls(calls))
    }

    /// Fails, here and now.
    pub fn fail(self, error: AgentError) -> Self {
        self.then(Step::Fail(error))
    }

    /// Panics, here and now, with this message; the session is faulted.
    ///
    /// ```
    /// use turnwise::testkit::{scripted, Script};
    /// use turnwise::{CreateSessionRequest, EphemeralSessionService, SessionService, SessionState};
    ///
    /// let service = EphemeralSessionService::new(scripted().on("trip", Script::new().panic("oh")), 1);
    /// let error = service.create_session(CreateSessionRequest::new("trip")).unwrap_err();
    /// assert_eq!(error.code(), "SESSION_FAULTED");
    /// let state = service.read(error.session_id().unwrap())?.state.state;
    /// assert_eq!(state, SessionState::Faulted);
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn panic(self, message: impl Into<String>) -> Self {
        self.then(Step::Panic(message.into()))
    }

    fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Plays the script in a turn.
    pub(super) fn play(&self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let mut answer = Answer::default();
        self.steps.iter().try_for_each(|step| step.play(turn, &mut answer))?;
        let text = answer.reply.or(answer.said).unwrap_or(prompt);
        Ok(turn.finish(text).with_usage(answer.usage).with_tool_calls(answer.tool_calls))
    }
}

/// What a script has come to.
#[derive(Default)]
struct Answer {
    reply: Option<String>,
    said: Option<String>,
    usage: Usage,
    tool_calls: u32,
}

impl Answer {
    fn say(&mut self, text: &str, turn: &TurnContext) -> Result<(), AgentError> {
        turn.emit(AgentEvent::TextDelta { delta: text.to_owned() })?;
        self.said.get_or_insert_with(String::new).push_str(text);
        Ok(())
    }
}

impl Step {
    fn play(&self, turn: &TurnContext, answer: &mut Answer) -> Result<(), AgentError> {
        match self {
            Self::Emit(event) => turn.emit(event.clone())?,
            Self::Say(text) => answer.say(text, turn)?,
            Self::WaitAt(gate) => gate.pass(turn.cancel_token())?,
            Self::WaitRegardlessAt(gate) => gate.pass_regardless(),
            Self::UntilCancelled => {
                // It never carries anything: disconnected means cancelled.
                let _ = turn.cancel_token().cancelled().recv();
                turn.check()?;
            }
            Self::Sleep(duration) => turn.sleep(*duration)?,
            Self::Publish(snapshot) => turn.publish(snapshot.clone()),
            Self::DrainInbox => turn.drain_inbox().iter().try_for_each(|one| answer.say(&one.text(), turn))?,
            Self::Call(call) => call(turn)?,
            Self::Reply(text) => answer.reply = Some(text.clone()),
            Self::ReplyWith(reply) => answer.reply = Some(reply(turn)?),
            Self::Usage(usage) => answer.usage += *usage,
            Self::ToolCalls(calls) => answer.tool_calls = answer.tool_calls.saturating_add(*calls),
            Self::Fail(error) => return Err(error.clone()),
            Self::Panic(message) => panic!("{message}"),
        }
        Ok(())
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Emit(event) => f.debug_tuple("Emit").field(event).finish(),
            Self::Say(text) => f.debug_tuple("Say").field(text).finish(),
            Self::WaitAt(gate) => f.debug_tuple("WaitAt").field(gate).finish(),
            Self::WaitRegardlessAt(gate) => f.debug_tuple("WaitRegardlessAt").field(gate).finish(),
            Self::UntilCancelled => f.write_str("UntilCancelled"),
            Self::Sleep(duration) => f.debug_tuple("Sleep").field(duration).finish(),
            Self::Publish(snapshot) => f.debug_tuple("Publish").field(snapshot).finish(),
            Self::DrainInbox => f.write_str("DrainInbox"),
            Self::Call(_) => f.write_str("Call(..)"),
            Self::Reply(text) => f.debug_tuple("Reply").field(text).finish(),
            Self::ReplyWith(_) => f.write_str("ReplyWith(..)"),
            Self::Usage(usage) => f.debug_tuple("Usage").field(usage).finish(),
            Self::ToolCalls(calls) => f.debug_tuple("ToolCalls").field(calls).finish(),
            Self::Fail(error) => f.debug_tuple("Fail").field(error).finish(),
            Self::Panic(message) => f.debug_tuple("Panic").field(message).finish(),
        }
    }
}
