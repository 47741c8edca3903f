//! Agents that follow the scripts in their prompts, and record what happens to them.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::panic;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use turnwise::{
    AgentError, AgentEvent, CancelReason, Cancelled, EventSender, InboxInteraction, Message, RunResult, Session,
    SessionAgent, SessionAgentBuilder, SessionContext, SessionId, SessionSnapshot, SessionSpec, TurnContext, Usage,
};

use crate::answers::{Ending, Figures};
use crate::history::{Clock, Event, Stamp, Uid, What, Who};
use crate::plan::{Build, Script};
use crate::task::Task;

/// The name of the event of a message that an agent has added to its history.
pub(crate) const SAID: &str = "said";

/// The state that the threads and the agents of a run share.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) clock: Clock,
    /// The records of agents. An agent adds its records when it is dropped, so that recording disturbs the schedule
    /// little.
    pub(crate) witnessed: Mutex<Vec<(SessionId, Event)>>,
    /// Failures that do not depend on the rest of the history.
    pub(crate) wrongs: Mutex<Vec<String>>,
    /// The number of threads of the run that do not wait.
    pub(crate) busy_threads: AtomicUsize,
    /// The sessions whose ids the library has generated.
    pub(crate) fresh: Mutex<Vec<SessionId>>,
    /// The sessions whose agents wait for a cancel.
    pub(crate) holding: Mutex<Vec<SessionId>>,
    /// All messages of each session at its end, by the number of its create.
    pub(crate) whole: Mutex<HashMap<Uid, Vec<String>>>,
    running_turns: AtomicUsize,
    max_running_turns: usize,
    pub(crate) agents_built: AtomicUsize,
    pub(crate) agents_dropped: AtomicUsize,
}

/// The instructions to the builder in a session's specification.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub(crate) uid: Uid,
    pub(crate) build: Build,
    /// True if the library generates the session's id.
    pub(crate) fresh: bool,
}

impl Stage {
    pub(crate) fn new(threads: usize, max_running_turns: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            clock: Clock::default(),
            witnessed: Mutex::default(),
            wrongs: Mutex::default(),
            busy_threads: AtomicUsize::new(threads),
            fresh: Mutex::default(),
            holding: Mutex::default(),
            whole: Mutex::default(),
            running_turns: AtomicUsize::new(0),
            max_running_turns: max_running_turns.unwrap_or(usize::MAX),
            agents_built: AtomicUsize::new(0),
            agents_dropped: AtomicUsize::new(0),
        })
    }

    pub(crate) fn wrong(&self, what: impl Into<String>) {
        self.wrongs.lock().unwrap().push(what.into());
    }

    /// Counts the calling thread as waiting during `wait`.
    pub(crate) fn waiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.busy_threads.fetch_sub(1, Ordering::SeqCst);
        let waited = wait();
        self.busy_threads.fetch_add(1, Ordering::SeqCst);
        waited
    }
}

/// Builds [`Actor`]s.
pub(crate) struct Director(pub(crate) Arc<Stage>);

impl SessionAgentBuilder for Director {
    type Agent = Actor;

    fn build_agent(&self, spec: &SessionSpec, context: &SessionContext) -> Result<Actor, AgentError> {
        let order = *spec.extension.as_ref().and_then(|order| order.downcast_ref::<Order>()).expect("an order");
        let mut session = spec.resume.clone().unwrap_or_else(|| Session::with_id(context.session_id()));
        set_life(&mut session, order.uid);
        let mut seen = Witness { stage: Arc::clone(&self.0), id: context.session_id(), events: Vec::new() };
        seen.point(What::BuildBegins { uid: order.uid });
        if order.fresh {
            self.0.fresh.lock().unwrap().push(context.session_id());
        }
        let figures = figures_of(&session);
        if let Build::Slow(times) | Build::Fail(times) = order.build {
            give_way(times);
        }
        if !matches!(order.build, Build::Slow(_)) {
            seen.point(What::BuildEnds { well: false, figures });
            drop(seen);
            return match order.build {
                Build::Panic => scripted_panic(),
                _ => Err(AgentError::Internal("scripted".to_owned())),
            };
        }
        self.0.agents_built.fetch_add(1, Ordering::SeqCst);
        seen.point(What::BuildEnds { well: true, figures });
        let events = context.events().clone();
        let home = thread::current().id();
        Ok(Actor { seen, session, events, life: order.uid, home, turn: 0, _not_send: PhantomData })
    }
}

/// A scripted agent.
pub(crate) struct Actor {
    seen: Witness,
    session: Session,
    /// Its events belong to no turn, and reach subscribers only.
    events: EventSender,
    life: Uid,
    home: ThreadId,
    /// The turn that the agent runs.
    turn: Uid,
    _not_send: PhantomData<Rc<()>>,
}

/// The records of one agent.
struct Witness {
    stage: Arc<Stage>,
    id: SessionId,
    events: Vec<Event>,
}

impl Witness {
    fn now(&self) -> Stamp {
        self.stage.clock.now()
    }

    fn point(&mut self, what: What) {
        let now = self.now();
        self.events.push(Event { who: Who::Agent, call: now, ret: now, what });
    }

    fn since(&mut self, call: Stamp, what: What) {
        let ret = self.now();
        self.events.push(Event { who: Who::Agent, call, ret, what });
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let id = self.id;
        let mut witnessed = self.stage.witnessed.lock().unwrap();
        witnessed.extend(self.events.drain(..).map(|event| (id, event)));
    }
}

impl SessionAgent for Actor {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let task: Task = prompt.parse().expect("a task");
        self.turn = task.uid;
        self.play(task, turn)
    }

    fn run_interaction(&mut self, interaction: InboxInteraction, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.play(interaction.text().parse().expect("a task"), turn)
    }

    fn session_clone(&self) -> Session {
        self.at_home("session_clone");
        self.session.clone()
    }

    fn snapshot(&self) -> SessionSnapshot {
        // A delay here makes it likelier that a read sees a snapshot that is published too late.
        thread::yield_now();
        SessionSnapshot::from(&self.session_clone())
    }
}

impl Actor {
    /// Runs one prompt or interaction.
    fn play(&mut self, task: Task, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.at_home("a turn");
        let stage = Arc::clone(&self.seen.stage);
        let running = stage.running_turns.fetch_add(1, Ordering::SeqCst) + 1;
        if running > stage.max_running_turns {
            stage.wrong(format!("C16: {running} turns run at a time, {} are allowed", stage.max_running_turns));
        }
        self.seen.point(What::Enter { uid: self.turn, number: turn.turn_id().get() });
        let _ = self.look(turn);
        self.say(Message::user(task.to_string()));
        self.show(turn);
        let result = self.perform(task.script, turn);
        if !matches!(task.script, Script::Panic(_)) {
            self.say(Message::assistant(task.uid.to_string()));
        }
        let cost = if let Script::Cost(cost) = task.script { u64::from(cost) } else { 0 };
        self.session.record_usage(Usage { input_tokens: 1 + cost, ..Usage::default() });
        let _ = self.look(turn);
        let ending = match (&result, task.script) {
            (_, Script::Panic(_)) => Ending::Panicked,
            (Ok(()), _) => Ending::Well { last: task.uid, turns: 1 },
            (Err(error), _) => Ending::of_agent(error),
        };
        stage.running_turns.fetch_sub(1, Ordering::SeqCst);
        self.seen.point(What::Leave { ending, figures: figures_of(&self.session) });
        if let Script::Panic(_) = task.script {
            scripted_panic();
        }
        result.map(|()| turn.finish(task.uid.to_string()))
    }

    /// Adds a message to the history, and emits it for the clients that follow the session. A cancelled turn emits it
    /// too.
    fn say(&mut self, message: Message) {
        let payload = message.text().into_owned();
        self.session.push(message);
        let _ = self.events.emit(AgentEvent::Custom { name: SAID.to_owned(), payload });
    }

    fn perform(&mut self, script: Script, turn: &TurnContext) -> Result<(), AgentError> {
        match script {
            Script::Answer(times) => {
                for _ in 0..times {
                    give_way(1);
                    self.look(turn)?;
                }
                // A cancel may come just now and refuse the event. The agent has its answer by then, so this is no
                // failure.
                let _ = turn.emit(AgentEvent::TextDelta { delta: self.turn.to_string() });
            }
            Script::Fail(times) => {
                give_way(times);
                return Err(AgentError::Internal("scripted".to_owned()));
            }
            Script::Hold => self.hold(turn)?,
            Script::Deaf(times) | Script::Panic(times) => give_way(times),
            Script::Cost(_) => {}
        }
        Ok(())
    }

    /// Waits for a cancel.
    fn hold(&mut self, turn: &TurnContext) -> Result<(), AgentError> {
        let (stage, id) = (Arc::clone(&self.seen.stage), turn.session_id());
        stage.holding.lock().unwrap().push(id);
        let _disconnected = turn.cancel_token().cancelled().recv();
        stage.holding.lock().unwrap().retain(|holding| *holding != id);
        Ok(self.look(turn)?)
    }

    fn look(&mut self, turn: &TurnContext) -> Result<(), Cancelled> {
        let call = self.seen.now();
        let reason: Option<CancelReason> = turn.cancel_token().reason();
        self.seen.since(call, What::Looks(reason));
        reason.map_or(Ok(()), |reason| Err(Cancelled { reason }))
    }

    /// Publishes an odd number of messages. Between two turns that number is even.
    fn show(&mut self, turn: &TurnContext) {
        let call = self.seen.now();
        turn.publish(SessionSnapshot::from(&self.session));
        self.seen.since(call, What::Shows(figures_of(&self.session)));
    }

    fn at_home(&self, doing: &str) {
        if thread::current().id() != self.home {
            self.seen.stage.wrong(format!("an agent was built on one thread, and {doing} ran on another"));
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.at_home("its drop");
        // A service that frees the capacity before this drop is over would fail the check of capacity.
        give_way(3);
        self.seen.stage.whole.lock().unwrap().insert(self.life, texts_of(&self.session));
        self.seen.stage.agents_dropped.fetch_add(1, Ordering::SeqCst);
        self.seen.point(What::Dropped);
    }
}

pub(crate) fn give_way(times: u8) {
    for _ in 0..times {
        thread::yield_now();
    }
}

/// Panics without a call of the panic hook, which would report thousands of scripted panics.
fn scripted_panic() -> ! {
    panic::resume_unwind(Box::new("scripted"))
}

/// Writes into a history to which session it belongs: ids may be used again.
pub(crate) fn set_life(session: &mut Session, life: Uid) {
    session.set_metadata("life", life.to_string());
}

/// The session to which a history belongs. `None` for the history before the build of a session that resumes none.
pub(crate) fn life_of(session: &Session) -> Option<Uid> {
    session.metadata().get("life")?.parse().ok()
}

pub(crate) fn texts_of(session: &Session) -> Vec<String> {
    session.iter().map(|message| message.text().into_owned()).collect()
}

pub(crate) fn figures_of(session: &Session) -> Figures {
    let last = last_of(session.last_assistant_text().as_deref());
    Figures { messages: session.messages().len(), tokens: session.total_tokens(), last }
}

/// The prompt or interaction that `text` answers.
pub(crate) fn last_of(text: Option<&str>) -> Uid {
    text.map_or(0, |text| text.parse().unwrap_or(Uid::MAX))
}
