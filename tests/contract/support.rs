//! Agents with a script, gates, and a watchdog.

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

/// Longer than anything here takes on a loaded machine.
pub(crate) const LONG: Duration = Duration::from_secs(120);
/// For waits that are meant to run out.
pub(crate) const SHORT: Duration = Duration::from_millis(5);

/// Runs a test's body; one that hangs fails with a message.
#[track_caller]
pub(crate) fn run(body: impl FnOnce() + Send + 'static) {
    within(2 * LONG, body);
}

/// What the test and its agents share.
pub(crate) struct Stage {
    /// Every turn that has reached its script's waiting point.
    pub(crate) entered: Receiver<(SessionId, TurnId)>,
    gate: Gate,
}

impl Stage {
    /// Waits until some turn is at its waiting point, and says which.
    #[track_caller]
    pub(crate) fn wait_entered(&self) -> (SessionId, TurnId) {
        self.entered.recv_timeout(LONG).expect("a turn enters")
    }

    /// Lets one waiting turn finish with the text "released".
    pub(crate) fn release(&self) {
        self.gate.let_through(1);
    }
}

/// A test that is over keeps no deaf agent's thread.
impl Drop for Stage {
    fn drop(&mut self) {
        self.gate.open();
    }
}

/// Makes agents that do what their prompts say:
///
/// | Prompt | What happens |
/// |---|---|
/// | `hold` | waits to be released or cancelled |
/// | `deaf` | waits to be released, and does not look at its token |
/// | `fail` | fails |
/// | `panic` | panics with the message `scripted` |
/// | `emit N` | emits N events |
/// | `cost N` | uses N input tokens and one tool |
/// | `drain` | waits to be released, then answers with what is in the inbox |
/// | `flood` | emits until it is cancelled |
/// | anything | is the answer |
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

/// The `number`th scripted event.
pub(crate) fn delta(number: usize) -> AgentEvent {
    AgentEvent::TextDelta { delta: number.to_string() }
}

/// What [`scripted`] makes.
pub(crate) type Service = EphemeralSessionService<Scripted>;

/// A service of scripted agents.
pub(crate) fn scripted(max_sessions: usize) -> (Service, Stage) {
    scripted_with(|config| config.max_sessions(max_sessions))
}

/// A service of scripted agents, set up by `configure`.
pub(crate) fn scripted_with(
    configure: impl FnOnce(ServiceConfig<Scripted>) -> ServiceConfig<Scripted>,
) -> (Service, Stage) {
    let (enter, entered) = unbounded();
    let gate = Gate::new();
    let config = with_idle_threads(EphemeralSessionService::configure(agents(enter, gate.clone())));
    (configure(config).build().expect("the settings work"), Stage { entered, gate })
}

/// The contract holds with threads that wait for another session, and without: the environment may say how many.
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

/// What a turn is to do, with the service at hand.
pub(crate) type Job = Box<dyn FnOnce(&dyn SessionService, &TurnContext) -> Result<String, AgentError> + Send>;

/// Builds agents that run the job with the name that their prompt says; without one they echo.
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

/// Sessions whose turns run closures that the test makes up.
pub(crate) struct Jobs {
    pub(crate) service: EphemeralSessionService<JobBuilder>,
    next: Arc<Mutex<Vec<(String, Job)>>>,
    /// Of each session what emits events outside of its turns, in the order of their builds.
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

    /// Has session `id` run `job` in a turn called `name`.
    pub(crate) fn begin(
        &self,
        id: SessionId,
        name: &str,
        job: impl FnOnce(&dyn SessionService, &TurnContext) -> Result<String, AgentError> + Send + 'static,
    ) -> TurnHandle {
        self.prepare(name, job);
        self.service.begin_turn(id, turn(name)).unwrap()
    }

    /// Keeps `job` for whoever starts a turn called `name`.
    pub(crate) fn prepare(
        &self,
        name: &str,
        job: impl FnOnce(&dyn SessionService, &TurnContext) -> Result<String, AgentError> + Send + 'static,
    ) {
        self.next.lock().unwrap().push((name.to_owned(), Box::new(job)));
    }
}

/// Asserts that a turn was cancelled, and for this reason.
#[track_caller]
pub(crate) fn assert_cancelled(result: Result<RunResult, SessionError>, reason: CancelReason) {
    match result {
        Err(SessionError::Agent { source: AgentError::Cancelled { reason: is }, .. }) if is == reason => {}
        other => panic!("expected a turn cancelled because {reason}, got {other:?}"),
    }
}

/// Asserts that a value matches a pattern, and shows it where it does not.
macro_rules! assert_matches {
    ($value:expr, $($pattern:tt)+) => {
        match $value {
            $($pattern)+ => {}
            other => panic!("expected {}, got {other:?}", stringify!($($pattern)+)),
        }
    };
}
pub(crate) use assert_matches;

/// Asserts that no thread of this process has a name that begins like this.
#[cfg(target_os = "linux")]
#[track_caller]
pub(crate) fn assert_no_threads(prefix: &str) {
    assert_at_most_threads(0, prefix);
}

/// Asserts that no more threads of this process than `most` have a name that begins like this.
#[cfg(target_os = "linux")]
#[track_caller]
pub(crate) fn assert_at_most_threads(most: usize, prefix: &str) {
    // A thread that has been joined may be listed for another moment: the system wakes who joins it, then buries it.
    let started = std::time::Instant::now();
    while threads_named(prefix) > most {
        assert!(started.elapsed() < LONG / 10, "{} threads called {prefix} are left", threads_named(prefix));
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

/// Records what the whole process logs from now on.
pub(crate) fn record_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Recorder).expect("no other logger");
        log::set_max_level(log::LevelFilter::Trace);
    });
}

/// What was logged so far about `subject`, at this level.
pub(crate) fn logged(level: log::Level, subject: &str) -> Vec<String> {
    let records = RECORDS.lock().unwrap();
    let about = records.iter().filter(|(is, text)| *is == level && text.contains(subject));
    about.map(|(_, text)| text.clone()).collect()
}
