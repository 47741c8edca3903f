//! Scripted agents, gates, a watchdog, and assertions.

use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::{unbounded, Receiver, Sender};
use turnwise::testkit::{self, within, Gate, Script, Scripted};
use turnwise::{
    agent_fn, AgentError, AgentEvent, CancelReason, CreateSessionRequest, EphemeralSessionService, EventSender,
    RunResult, ServiceConfig, SessionAgent, SessionAgentBuilder, SessionContext, SessionError, SessionId,
    SessionService, SessionSpec, StartTurnRequest, TurnContext, TurnHandle, TurnId, Usage,
};

/// The limit of waits that have to succeed: longer than any of them takes on a loaded machine.
pub(crate) const LONG: Duration = Duration::from_secs(120);
/// The limit of waits that are expected to time out.
pub(crate) const SHORT: Duration = Duration::from_millis(5);

/// Runs the body of a test under a watchdog, which fails a hanging body with a message.
#[track_caller]
pub(crate) fn run(body: impl FnOnce() + Send + 'static) {
    within(2 * LONG, body);
}

/// The test's control over its scripted agents.
pub(crate) struct Stage {
    /// The session and turn ids of each scripted turn that has entered: its next step waits, or emits without end.
    pub(crate) entered: Receiver<(SessionId, TurnId)>,
    gate: Gate,
}

impl Stage {
    /// Waits until a turn has entered, and returns its ids.
    #[track_caller]
    pub(crate) fn wait_entered(&self) -> (SessionId, TurnId) {
        self.entered.recv_timeout(LONG).expect("a turn enters")
    }

    /// Lets one waiting turn finish with the text "released".
    pub(crate) fn release(&self) {
        self.gate.let_through(1);
    }
}

/// Opens the gate, so that the end of a test leaves no turn waiting at it.
impl Drop for Stage {
    fn drop(&mut self) {
        self.gate.open();
    }
}

/// Builds agents that act by their prompts:
///
/// | Prompt | What happens |
/// |---|---|
/// | `hold` | waits to be released or cancelled |
/// | `deaf` | waits to be released, and ignores its cancel token |
/// | `fail` | fails |
/// | `panic` | panics with the message `scripted` |
/// | `emit N` | emits N events |
/// | `cost N` | uses N input tokens and one tool |
/// | `drain` | waits to be released, then answers with the texts in its inbox |
/// | `flood` | emits until it is cancelled |
/// | any other | answers with the prompt |
fn agents(enter: Sender<(SessionId, TurnId)>, gate: Gate) -> Scripted {
    testkit::scripted().otherwise(move |prompt| {
        let enter = enter.clone();
        let entering = Script::new().call(move |turn| {
            enter.send((turn.session_id(), turn.turn_id())).expect("the test is listening");
            Ok(())
        });
        match prompt.split_once(' ').unwrap_or((prompt, "")) {
            ("hold", _) => entering.wait_at(&gate).reply("released"),
            ("deaf", _) => entering.wait_at_ignoring_cancel(&gate).reply("released"),
            ("fail", _) => Script::new().fail(AgentError::Internal("scripted".into())),
            ("panic", _) => Script::new().panic("scripted"),
            ("emit", count) => {
                let count = count.parse().expect("emit takes a number");
                (0..count).fold(Script::new(), |script, number| script.emit(delta(number))).reply("emitted")
            }
            ("cost", tokens) => {
                let input_tokens = tokens.parse().expect("cost takes a number");
                Script::new().usage(Usage { input_tokens, ..Usage::default() }).tool_calls(1)
            }
            ("drain", _) => entering.wait_at_ignoring_cancel(&gate).reply_with(drain),
            ("flood", _) => entering.call(|turn| Ok((0..).try_for_each(|number| turn.emit(delta(number)))?)),
            _ => Script::new(),
        }
    })
}

fn drain(turn: &TurnContext) -> Result<String, AgentError> {
    let drained: Vec<_> = turn.drain_inbox().iter().map(|interaction| interaction.text()).collect();
    turn.emit(delta(drained.len()))?;
    Ok(drained.join(", "))
}

/// The scripted event with this number.
pub(crate) fn delta(number: usize) -> AgentEvent {
    AgentEvent::TextDelta { delta: number.to_string() }
}

/// The service that [`scripted`] returns.
pub(crate) type Service = EphemeralSessionService<Scripted>;

/// A service of scripted agents.
pub(crate) fn scripted(max_sessions: usize) -> (Service, Stage) {
    scripted_with(|config| config.max_sessions(max_sessions))
}

/// A service of scripted agents, with the settings that `configure` makes.
pub(crate) fn scripted_with(
    configure: impl FnOnce(ServiceConfig<Scripted>) -> ServiceConfig<Scripted>,
) -> (Service, Stage) {
    let (enter, entered) = unbounded();
    let gate = Gate::new();
    let config = with_idle_threads(EphemeralSessionService::configure(agents(enter, gate.clone())));
    (configure(config).build().expect("the settings work"), Stage { entered, gate })
}

/// The contract holds with idle threads and without. `TURNWISE_IDLE_THREADS` sets their number.
fn with_idle_threads(config: ServiceConfig<Scripted>) -> ServiceConfig<Scripted> {
    match std::env::var("TURNWISE_IDLE_THREADS") {
        Ok(text) => config.idle_threads(text.parse().expect("a number")),
        Err(_) => config,
    }
}

pub(crate) fn create(prompt: &str) -> CreateSessionRequest {
    CreateSessionRequest::new(prompt)
}

pub(crate) fn turn(prompt: &str) -> StartTurnRequest {
    StartTurnRequest::new(prompt)
}

/// The body of a turn. It gets the service.
pub(crate) type Job = Box<dyn FnOnce(&dyn SessionService, &TurnContext) -> Result<String, AgentError> + Send>;

/// Builds agents that run the job that their prompt names. Without such a job they echo the prompt.
pub(crate) struct JobBuilder(Arc<Mutex<Vec<(String, Job)>>>, Arc<Mutex<Vec<EventSender>>>);

impl SessionAgentBuilder for JobBuilder {
    type Agent = Box<dyn SessionAgent>;

    fn build_agent(&self, spec: &SessionSpec, context: &SessionContext) -> Result<Self::Agent, AgentError> {
        let (jobs, service) = (Arc::clone(&self.0), context.service());
        self.1.lock().unwrap().push(context.events().clone());
        let agent = agent_fn(move |prompt, turn| {
            let job = {
                let mut jobs = jobs.lock().unwrap();
                let at = jobs.iter().position(|(name, _)| *name == prompt);
                at.map(|at| jobs.swap_remove(at).1)
            };
            let Some(job) = job else { return Ok(turn.finish(prompt)) };
            let service = service.upgrade().expect("the test has a handle");
            job(&service, turn).map(|text| turn.finish(text))
        });
        Ok(Box::new(agent.build_agent(spec, context)?))
    }
}

/// A service whose turns run closures of the test.
pub(crate) struct Jobs {
    pub(crate) service: EphemeralSessionService<JobBuilder>,
    next: Arc<Mutex<Vec<(String, Job)>>>,
    /// The senders for events outside of turns, one for each session, in the order of the builds.
    pub(crate) senders: Arc<Mutex<Vec<EventSender>>>,
}

impl Jobs {
    pub(crate) fn new(max_running_turns: usize) -> Self {
        Self::with(|config| config.max_running_turns(max_running_turns))
    }

    pub(crate) fn with(configure: impl FnOnce(ServiceConfig<JobBuilder>) -> ServiceConfig<JobBuilder>) -> Self {
        let (next, senders) = (Arc::default(), Arc::default());
        let config = EphemeralSessionService::configure(JobBuilder(Arc::clone(&next), Arc::clone(&senders)));
        Self { service: configure(config).build().unwrap(), next, senders }
    }

    pub(crate) fn open(&self) -> SessionId {
        self.service.open_session(SessionSpec::new()).unwrap()
    }

    /// Begins a turn of session `id` with the prompt `name`. The turn runs `job`.
    pub(crate) fn begin(
        &self,
        id: SessionId,
        name: &str,
        job: impl FnOnce(&dyn SessionService, &TurnContext) -> Result<String, AgentError> + Send + 'static,
    ) -> TurnHandle {
        self.prepare(name, job);
        self.service.begin_turn(id, turn(name)).unwrap()
    }

    /// Begins a turn of session `id` that waits at `gate` and then answers with `text`. Returns once it is at the gate,
    /// the first turn there.
    pub(crate) fn hold(&self, id: SessionId, gate: &Gate, text: &'static str) -> TurnHandle {
        let at = gate.clone();
        let held = self.begin(id, text, move |_, turn| {
            at.pass(turn.cancel_token())?;
            Ok(text.into())
        });
        gate.wait_arrived(1);
        held
    }

    /// Stores `job` for the next turn with the prompt `name`.
    pub(crate) fn prepare(
        &self,
        name: &str,
        job: impl FnOnce(&dyn SessionService, &TurnContext) -> Result<String, AgentError> + Send + 'static,
    ) {
        self.next.lock().unwrap().push((name.to_owned(), Box::new(job)));
    }
}

/// Asserts that a turn was cancelled for this reason.
#[track_caller]
pub(crate) fn assert_cancelled(result: Result<RunResult, SessionError>, reason: CancelReason) {
    match result {
        Err(SessionError::Agent { source: AgentError::Cancelled { reason: is }, .. }) if is == reason => {}
        other => panic!("expected a turn cancelled because {reason}, got {other:?}"),
    }
}

/// Asserts that a value matches a pattern. A failure shows the value.
macro_rules! assert_matches {
    ($value:expr, $($pattern:tt)+) => {
        match $value {
            $($pattern)+ => {}
            other => panic!("expected {}, got {other:?}", stringify!($($pattern)+)),
        }
    };
}
pub(crate) use assert_matches;

/// Asserts that no thread of this process has a name with this prefix.
#[cfg(target_os = "linux")]
#[track_caller]
pub(crate) fn assert_no_threads(prefix: &str) {
    assert_at_most_threads(0, prefix);
}

/// Asserts that at most `most` threads of this process have a name with this prefix.
#[cfg(target_os = "linux")]
#[track_caller]
pub(crate) fn assert_at_most_threads(most: usize, prefix: &str) {
    // A joined thread may be listed a moment longer: the system wakes the joining thread before it removes the entry.
    let started = std::time::Instant::now();
    while threads_named(prefix) > most {
        assert!(started.elapsed() < LONG / 10, "{} threads named {prefix} have not ended", threads_named(prefix));
        thread::yield_now();
    }
}

#[cfg(target_os = "linux")]
fn threads_named(prefix: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
    let names = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with(prefix)).count()
}

static RECORDS: Mutex<Vec<(log::Level, String)>> = Mutex::new(Vec::new());

struct Recorder;

impl log::Log for Recorder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = format!("{} {}", record.target(), record.args());
        RECORDS.lock().unwrap().push((record.level(), text));
    }

    fn flush(&self) {}
}

/// Keeps every log record of the process from now on.
pub(crate) fn record_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Recorder).expect("no other logger");
        log::set_max_level(log::LevelFilter::Trace);
    });
}

/// The records so far of this level whose text contains `subject`.
pub(crate) fn logged(level: log::Level, subject: &str) -> Vec<String> {
    let records = RECORDS.lock().unwrap();
    let about = records.iter().filter(|(is, text)| *is == level && text.contains(subject));
    about.map(|(_, text)| text.clone()).collect()
}
