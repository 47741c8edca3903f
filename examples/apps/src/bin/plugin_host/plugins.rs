//! The plugins, whose code the host does not know. Each has a builder of its own, and a habit that makes it hard to
//! unload.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::Receiver;
use turnwise::{
    AgentError, AgentEvent, RunResult, Session, SessionAgent, SessionAgentBuilder, SessionContext, SessionSpec,
    TurnContext,
};

use crate::ledger::{Counted, Ledger};

/// The builder of one plugin.
pub(crate) struct Maker<H> {
    habit: H,
    ledger: Ledger,
    _counted: Counted,
}

/// The work of a plugin's agents in a turn.
pub(crate) trait Habit: Send + Sync + 'static {
    /// The state that an agent keeps from turn to turn. It never leaves its thread.
    type State: Default + 'static;

    fn run(
        &self,
        prompt: &str,
        state: &mut Self::State,
        ledger: &Ledger,
        turn: &TurnContext,
    ) -> Result<String, AgentError>;
}

impl<H: Habit + Clone> Maker<H> {
    pub(crate) fn new(habit: H, ledger: &Ledger) -> Self {
        Self { habit, ledger: ledger.clone(), _counted: ledger.builders.count() }
    }
}

impl<H: Habit + Clone> SessionAgentBuilder for Maker<H> {
    type Agent = Agent<H>;

    fn build_agent(&self, spec: &SessionSpec, _: &SessionContext) -> Result<Agent<H>, AgentError> {
        Ok(Agent {
            habit: self.habit.clone(),
            state: H::State::default(),
            history: spec.history(),
            ledger: self.ledger.clone(),
            _counted: self.ledger.agents.count(),
        })
    }
}

pub(crate) struct Agent<H: Habit> {
    habit: H,
    state: H::State,
    history: Session,
    ledger: Ledger,
    _counted: Counted,
}

impl<H: Habit> SessionAgent for Agent<H> {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let text = self.habit.run(&prompt, &mut self.state, &self.ledger, turn)?;
        Ok(turn.finish(text))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }
}

/// Answers in upper case. With the prompt `sing` it emits events until it is cancelled.
#[derive(Clone)]
pub(crate) struct Talks;

impl Habit for Talks {
    type State = ();

    fn run(&self, prompt: &str, _: &mut (), _: &Ledger, turn: &TurnContext) -> Result<String, AgentError> {
        if prompt != "sing" {
            return Ok(prompt.to_uppercase());
        }
        loop {
            turn.emit(AgentEvent::TextDelta { delta: "la ".into() })?;
            turn.sleep(Duration::from_millis(5))?;
        }
    }
}

/// Keeps its scratch memory in a thread-local value, which outlives the session and takes long to drop.
#[derive(Clone)]
pub(crate) struct KeepsThreadLocals;

struct Scratch {
    words: Vec<String>,
    _counted: Counted,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        thread::sleep(Duration::from_millis(20));
    }
}

thread_local! {
    static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

impl Habit for KeepsThreadLocals {
    type State = ();

    fn run(&self, prompt: &str, _: &mut (), ledger: &Ledger, _: &TurnContext) -> Result<String, AgentError> {
        SCRATCH.with(|scratch| {
            let mut scratch = scratch.borrow_mut();
            let new = || Scratch { words: Vec::new(), _counted: ledger.thread_locals.count() };
            let words = &mut scratch.get_or_insert_with(new).words;
            words.extend(prompt.split_whitespace().map(str::to_owned));
            Ok(format!("{} words in the scratch memory", words.len()))
        })
    }
}

/// Keeps every word once, shared by `Rc`s, which no other thread may use. With the prompt `nap` it sleeps until it is
/// cancelled.
#[derive(Clone)]
pub(crate) struct SharesByRc;

#[derive(Default)]
pub(crate) struct Words {
    in_order: Vec<Rc<str>>,
    known: BTreeSet<Rc<str>>,
}

impl Habit for SharesByRc {
    type State = Words;

    fn run(&self, prompt: &str, state: &mut Words, _: &Ledger, turn: &TurnContext) -> Result<String, AgentError> {
        if prompt == "nap" {
            turn.sleep(Duration::MAX)?;
        }
        for word in prompt.split_whitespace() {
            let word = state.known.get(word).cloned().unwrap_or_else(|| Rc::from(word));
            state.known.insert(Rc::clone(&word));
            state.in_order.push(word);
        }
        Ok(format!("{} words, {} different ones", state.in_order.len(), state.known.len()))
    }
}

/// Waits for its device, and ignores cancels.
#[derive(Clone)]
pub(crate) struct DoesNotListen {
    pub(crate) device: Receiver<()>,
}

impl Habit for DoesNotListen {
    type State = ();

    fn run(&self, _: &str, _: &mut (), _: &Ledger, turn: &TurnContext) -> Result<String, AgentError> {
        turn.emit(AgentEvent::ToolExecutionStarted { id: "1".into(), name: "device".into() })?;
        // A disconnected channel means that the device has finished.
        let _ = self.device.recv();
        Ok("the device has finished".into())
    }
}
