//! Agents that are Python objects. Each is made, run and freed on the thread of its session.

use embed::abi::contexts::{self, Outcome};
use embed::codes::Failure;
use embed::host::{callback, requests};
use library::{
    AgentError, AssistantBlock, Cancelled, Message, RunResult, Session, SessionAgent, SessionAgentBuilder,
    SessionContext, SessionSpec, TurnContext,
};
use parking_lot::Mutex;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::context::Context;
use crate::interpreter::{attach, Live, ThreadState};

/// Builds agents by a call of the package's function `build(spec, context)`.
#[derive(Debug)]
pub(crate) struct Builder {
    /// `None` once the garbage collector has cleared the service. It is locked by attached threads only.
    build: Mutex<Option<Py<PyAny>>>,
}

impl Builder {
    pub(crate) fn new(build: Py<PyAny>) -> Self {
        Self { build: Mutex::new(Some(build)) }
    }

    /// Shows the reference to the garbage collector. The sessions' agents are not shown, so what they refer to lives.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.build.try_lock().as_deref() {
            Some(build) => visit.call(build),
            None => Ok(()),
        }
    }

    /// Breaks a cycle that the garbage collector has found. Later builds fail.
    pub(crate) fn clear(&self) {
        let build = self.build.lock().take();
        drop(build);
    }

    fn call(&self, py: Python<'_>, spec: String, handle: u64) -> PyResult<Py<PyAny>> {
        let build = self.build.lock().as_ref().map(|build| build.clone_ref(py));
        let Some(build) = build else { return Err(PyRuntimeError::new_err("the service has been freed")) };
        build.call1(py, (spec, Context { handle }))
    }
}

/// The agent of one session. The package's class has `run_turn(prompt, context)` and `close()`.
#[derive(Debug)]
struct Agent {
    /// `None` only after the drop.
    object: Option<Py<PyAny>>,
    history: Session,
    /// Dropped after the object, which is freed with this thread's state.
    _state: ThreadState,
    /// Dropped last.
    _live: Live,
}

/// The error of an exception: its class and its text, and where it was raised.
fn failure(py: Python<'_>, error: &PyErr, cancelled: Option<Cancelled>) -> AgentError {
    let describe = || -> PyResult<(bool, String, Option<String>)> {
        let described =
            py.import("turnwise._errors")?.getattr("describe")?.call1((error.value(py), error.traceback(py)))?;
        described.extract()
    };
    match (describe(), cancelled) {
        (Ok((true, ..)), Some(cancelled)) => cancelled.into(),
        (Ok((_, text, kind)), _) => match kind {
            None => AgentError::other(text),
            Some(kind) => serde_json::from_str::<requests::FailureKind>(&kind)
                .map_err(Failure::from)
                .and_then(|kind| kind.into_error(text.clone()))
                .unwrap_or_else(|_| AgentError::other(text)),
        },
        // The exception cannot be described: its text raises, or its details are no JSON.
        (Err(_), _) => AgentError::other(error.to_string()),
    }
}

impl SessionAgentBuilder for Builder {
    type Agent = Box<dyn SessionAgent>;

    fn build_agent(&self, spec: &SessionSpec, session: &SessionContext) -> Result<Self::Agent, AgentError> {
        let mut history = spec.resume.clone().unwrap_or_else(|| Session::with_id(session.session_id()));
        if let Some(prompt) = &spec.system_prompt {
            history.set_system_prompt(prompt.as_str());
        }
        let live = Live::new(session.session_id());
        let state = ThreadState::new().map_err(AgentError::other)?;
        let json = requests::spec_json(spec, session.session_id());
        let outcome = Outcome::default();
        let _inside = callback::enter();
        let object = contexts::with_build(session, &outcome, |handle| {
            attach(|py| {
                let made = self.call(py, json, handle);
                made.map_err(|error| failure(py, &error, session.check().err()))
            })
        });
        Ok(Box::new(Agent { object: Some(object.map_err(AgentError::other)??), history, _state: state, _live: live }))
    }
}

/// The answer of a turn, as the package's function returns it: the text, and the details as JSON.
type Answer = (String, Option<String>);

impl Agent {
    fn call(&self, prompt: &str, turn: &TurnContext) -> Result<Answer, AgentError> {
        let outcome = Outcome::default();
        let _inside = callback::enter();
        let result = contexts::with_turn(turn, &self.history, &outcome, |handle| {
            attach(|py| {
                let Some(object) = &self.object else { return Err(AgentError::Internal("the agent is freed".into())) };
                let answer = object.call_method1(py, "run_turn", (prompt, Context { handle }));
                answer
                    .and_then(|answer| answer.extract::<Answer>(py))
                    .map_err(|error| failure(py, &error, turn.check().err()))
            })
        });
        result.map_err(AgentError::other)?
    }
}

impl SessionAgent for Agent {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let (text, details) = self.call(&prompt, turn)?;
        let details = match details {
            Some(details) => requests::parse(&details).map_err(AgentError::other)?,
            None => requests::AnswerDetails::default(),
        };
        let answer = requests::Answer { text, details }.into_result(turn);
        let blocks = vec![AssistantBlock::Text { text: answer.text.clone() }];
        let message = Message::Assistant { blocks, stop_reason: answer.stop_reason };
        self.history.push_batch([Message::user(prompt), message]);
        self.history.record_usage(answer.usage);
        Ok(answer)
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _inside = callback::enter();
        let object = self.object.take();
        let mut object = object;
        let freed = attach(|py| {
            if let Some(object) = object.take() {
                if let Err(error) = object.call_method0(py, "close") {
                    error.write_unraisable(py, Some(object.bind(py)));
                }
                // Freed here: the last reference may be one of this agent to its own service.
                drop(object);
            }
        });
        if freed.is_err() {
            // The interpreter has ended, and frees nothing any more.
            std::mem::forget(object);
        }
    }
}
