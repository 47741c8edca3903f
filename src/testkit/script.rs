//! The steps of a scripted agent in a turn.

use std::fmt;
use std::time::Duration;

use crate::context::turn::TurnContext;
use crate::error::AgentError;
use crate::model::{AgentEvent, InputRequest, RunResult, SessionSnapshot, Usage};
use crate::sync::Arc;
use crate::testkit::Gate;

/// The steps of an agent in one turn, run in the order in which they were added.
///
/// After the last step the agent answers with the [`reply`](Self::reply), else with all text that it
/// [said](Self::say), else with the prompt. A step that fails or is cancelled ends the turn with its error. A script
/// may run any number of times.
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
    WaitAtIgnoringCancel(Gate),
    UntilCancelled,
    Sleep(Duration),
    Publish(SessionSnapshot),
    DrainInbox,
    WaitInbox(Duration),
    RequestInput(InputRequest),
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
    /// Makes an empty script: the answer is the prompt.
    pub fn new() -> Self {
        Self::default()
    }

    /// Emits an event.
    pub fn emit(self, event: AgentEvent) -> Self {
        self.then(Step::Emit(event))
    }

    /// Emits a piece of the answer as a [`TextDelta`](AgentEvent::TextDelta), and appends it to the answer.
    pub fn say(self, text: impl Into<String>) -> Self {
        self.then(Step::Say(text.into()))
    }

    /// Waits at the gate until the test lets the turn pass, or the turn is cancelled.
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

    /// Waits at the gate until the test lets the turn pass, even if the turn is cancelled: an agent that ignores its
    /// token. If the test never lets it pass, the thread waits for ever.
    pub fn wait_at_ignoring_cancel(self, gate: &Gate) -> Self {
        self.then(Step::WaitAtIgnoringCancel(gate.clone()))
    }

    /// Waits until the turn is cancelled, and fails with that.
    pub fn until_cancelled(self) -> Self {
        self.then(Step::UntilCancelled)
    }

    /// [Sleeps](TurnContext::sleep) on the service's clock.
    pub fn sleep(self, duration: Duration) -> Self {
        self.then(Step::Sleep(duration))
    }

    /// [Publishes](TurnContext::publish) a snapshot.
    pub fn publish(self, snapshot: SessionSnapshot) -> Self {
        self.then(Step::Publish(snapshot))
    }

    /// [Drains](TurnContext::drain_inbox) the session's inbox, and says the text of each message.
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

    /// [Waits](TurnContext::wait_inbox) for a message in the session's inbox, and says its text. Says nothing if there is
    /// none in time. With a [`ManualClock`](crate::testkit::ManualClock) the test decides when the timeout passes.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::testkit::{scripted, Script};
    /// use turnwise::{CreateSessionRequest, EphemeralSessionService, InteractionContent, SessionService};
    ///
    /// let script = Script::new().say("go ").wait_inbox(Duration::MAX);
    /// let service = EphemeralSessionService::new(scripted().on("drive", script), 1);
    /// let turn = service.begin_session(CreateSessionRequest::new("drive"))?;
    /// let _note = service.steer(turn.session_id(), Some(turn.turn_id()), InteractionContent::message("left"))?;
    /// assert_eq!(turn.wait()?.text, "go left");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn wait_inbox(self, timeout: Duration) -> Self {
        self.then(Step::WaitInbox(timeout))
    }

    /// [Requests input](TurnContext::request_input) of the host, and says the answer. A declined request and a timeout
    /// end the turn with their error. With a [`ManualClock`](crate::testkit::ManualClock) the test decides when the
    /// request's timeout passes.
    ///
    /// ```
    /// use turnwise::testkit::{scripted, Script};
    /// use turnwise::{CreateSessionRequest, EphemeralSessionService, AgentEvent, InputRequest, InputResponse};
    /// use turnwise::SessionService;
    ///
    /// let script = Script::new().request_input(InputRequest::new("question", "Which colour?"));
    /// let service = EphemeralSessionService::new(scripted().on("paint", script), 1);
    /// let mut stream = service.stream_session(CreateSessionRequest::new("paint"))?;
    /// let id = stream.handle().session_id();
    /// stream.find(|event| matches!(event, AgentEvent::InputRequested { .. }));
    /// let input = service.pending_inputs(id)?[0].id;
    /// service.respond(id, input, InputResponse::Answer("red".into()))?;
    /// assert_eq!(stream.wait()?.text, "red");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn request_input(self, request: InputRequest) -> Self {
        self.then(Step::RequestInput(request))
    }

    /// Calls `call` on the session thread; its error ends the turn.
    pub fn call(self, call: impl Fn(&TurnContext) -> Result<(), AgentError> + Send + Sync + 'static) -> Self {
        self.then(Step::Call(Arc::new(call)))
    }

    /// Sets the answer, returned after the last step.
    pub fn reply(self, text: impl Into<String>) -> Self {
        self.then(Step::Reply(text.into()))
    }

    /// As [`reply`](Self::reply), with the text that `reply` returns; its error ends the turn.
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

    /// Adds to the tokens that the result reports.
    pub fn usage(self, usage: Usage) -> Self {
        self.then(Step::Usage(usage))
    }

    /// Adds to the number of tool calls that the result reports.
    pub fn tool_calls(self, calls: u32) -> Self {
        self.then(Step::ToolCalls(calls))
    }

    /// Fails the turn at this step.
    pub fn fail(self, error: AgentError) -> Self {
        self.then(Step::Fail(error))
    }

    /// Panics at this step with this message; the session is faulted.
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

    /// Runs the script in a turn.
    pub(super) fn run(&self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let mut draft = Draft::default();
        self.steps.iter().try_for_each(|step| step.run(turn, &mut draft))?;
        let text = draft.reply.or(draft.said_text).unwrap_or(prompt);
        Ok(turn.finish(text).with_usage(draft.usage).with_tool_calls(draft.tool_calls))
    }
}

/// The answer of a script so far.
#[derive(Default)]
struct Draft {
    reply: Option<String>,
    said_text: Option<String>,
    usage: Usage,
    tool_calls: u32,
}

impl Draft {
    fn say(&mut self, text: &str, turn: &TurnContext) -> Result<(), AgentError> {
        turn.emit(AgentEvent::TextDelta { delta: text.to_owned() })?;
        self.said_text.get_or_insert_with(String::new).push_str(text);
        Ok(())
    }
}

impl Step {
    fn run(&self, turn: &TurnContext, draft: &mut Draft) -> Result<(), AgentError> {
        match self {
            Self::Emit(event) => turn.emit(event.clone())?,
            Self::Say(text) => draft.say(text, turn)?,
            Self::WaitAt(gate) => gate.pass(turn.cancel_token())?,
            Self::WaitAtIgnoringCancel(gate) => gate.pass_regardless(),
            Self::UntilCancelled => {
                // The channel carries no value: disconnected means cancelled.
                let _ = turn.cancel_token().cancelled().recv();
                turn.check()?;
            }
            Self::Sleep(duration) => turn.sleep(*duration)?,
            Self::Publish(snapshot) => turn.publish(snapshot.clone()),
            Self::DrainInbox => turn.drain_inbox().iter().try_for_each(|one| draft.say(&one.text(), turn))?,
            Self::WaitInbox(timeout) => {
                turn.wait_inbox(*timeout)?.iter().try_for_each(|one| draft.say(&one.text(), turn))?;
            }
            Self::RequestInput(request) => draft.say(&turn.request_input(request.clone())?, turn)?,
            Self::Call(call) => call(turn)?,
            Self::Reply(text) => draft.reply = Some(text.clone()),
            Self::ReplyWith(reply) => draft.reply = Some(reply(turn)?),
            Self::Usage(usage) => draft.usage += *usage,
            Self::ToolCalls(calls) => draft.tool_calls = draft.tool_calls.saturating_add(*calls),
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
            Self::WaitAtIgnoringCancel(gate) => f.debug_tuple("WaitAtIgnoringCancel").field(gate).finish(),
            Self::UntilCancelled => f.write_str("UntilCancelled"),
            Self::Sleep(duration) => f.debug_tuple("Sleep").field(duration).finish(),
            Self::Publish(snapshot) => f.debug_tuple("Publish").field(snapshot).finish(),
            Self::DrainInbox => f.write_str("DrainInbox"),
            Self::WaitInbox(timeout) => f.debug_tuple("WaitInbox").field(timeout).finish(),
            Self::RequestInput(request) => f.debug_tuple("RequestInput").field(request).finish(),
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
