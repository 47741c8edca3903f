//! An agent that is a table of C functions.
//!
//! The library keeps the history of the session: the system prompt and the resumed messages, then the prompt and the
//! answer of every turn that succeeds. A turn that fails leaves no trace in it.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use library::{
    AgentError, AssistantBlock, Cancelled, Message, RunResult, Session, SessionAgent, SessionAgentBuilder,
    SessionContext, SessionSpec, TurnContext,
};

use super::contexts::{self, Outcome};
use super::structs::TurnwiseAgent;
use crate::codes::{self, Failure, TURNWISE_INVALID_ARGUMENT};
use crate::host::{callback, requests};

/// The table of a service. Its drop frees the host's context.
#[derive(Debug)]
struct Table {
    functions: TurnwiseAgent,
    /// Whether the service owns the host's context: from the success of its creation on.
    owns_context: AtomicBool,
}

// SAFETY: the header says that all session threads use the context, and any thread frees it. The functions are code.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Drop for Table {
    fn drop(&mut self) {
        if let Some(drop_context) = self.functions.drop_context.filter(|_| *self.owns_context.get_mut()) {
            let _inside = callback::enter();
            drop_context(self.functions.context);
        }
    }
}

/// Builds the agents of a service.
#[derive(Debug)]
pub(super) struct CBuilder {
    table: Arc<Table>,
}

impl CBuilder {
    /// Checks the table.
    pub(super) fn check(agent: &TurnwiseAgent) -> Result<(), Failure> {
        match agent.run_turn {
            Some(_) => Ok(()),
            None => Err(Failure::new(TURNWISE_INVALID_ARGUMENT, "the agent has no run_turn")),
        }
    }

    /// Copies the table. The context is the host's until [`NewContext::give_to_service`].
    pub(super) fn new(functions: TurnwiseAgent) -> Self {
        Self { table: Arc::new(Table { functions, owns_context: AtomicBool::new(false) }) }
    }

    /// The right to give the context to the service.
    pub(super) fn keep_context(&self) -> NewContext {
        NewContext { table: Arc::clone(&self.table) }
    }
}

/// The host's context, until the service has been created.
#[derive(Debug)]
pub(super) struct NewContext {
    table: Arc<Table>,
}

impl NewContext {
    /// The last share of the table frees the context from now on.
    pub(super) fn give_to_service(self) {
        self.table.owns_context.store(true, Ordering::Release);
    }
}

/// The data of an agent, for the thread that cancels its turn.
#[derive(Clone, Copy, Debug)]
struct CancelTarget(*mut c_void);

// SAFETY: the pointer goes to `on_cancel` alone, for which the host asked. The drop of the hook waits for that, before
// the function that runs the turn has returned to the library.
unsafe impl Send for CancelTarget {}

impl CancelTarget {
    fn call(self, on_cancel: extern "C" fn(*mut c_void, *mut c_void), table: &Table) {
        let _inside = callback::enter_hook();
        on_cancel(table.functions.context, self.0);
    }
}

/// The agent of one session. Freed on its session thread.
#[derive(Debug)]
struct CAgent {
    table: Arc<Table>,
    state: *mut c_void,
    history: Session,
}

impl SessionAgentBuilder for CBuilder {
    type Agent = Box<dyn SessionAgent>;

    fn build_agent(&self, spec: &SessionSpec, session: &SessionContext) -> Result<Self::Agent, AgentError> {
        let mut history = spec.resume.clone().unwrap_or_else(|| Session::with_id(session.session_id()));
        if let Some(prompt) = &spec.system_prompt {
            history.set_system_prompt(prompt.as_str());
        }
        let table = Arc::clone(&self.table);
        let mut state = ptr::null_mut();
        if let Some(build) = table.functions.build {
            let (spec, len) = terminated(requests::spec_json(spec, session.session_id()));
            let outcome = Outcome::default();
            let _inside = callback::enter();
            let code = contexts::with_build(session, &outcome, |ctx| {
                build(table.functions.context, ctx, spec.as_ptr().cast(), len, &raw mut state)
            });
            if code != codes::TURNWISE_OK {
                // A failed build has no data to free.
                return Err(failure(code, outcome, session.check().err()));
            }
        }
        Ok(Box::new(CAgent { table, state, history }))
    }
}

impl CAgent {
    /// Calls the function of a turn, with the hook for cancellations around it.
    fn call(&self, prompt: &str, len: usize, turn: &TurnContext, outcome: &Outcome) -> i32 {
        let Some(run_turn) = self.table.functions.run_turn else { return codes::TURNWISE_UNSUPPORTED };
        let target = CancelTarget(self.state);
        let hook = self.table.functions.on_cancel.map(|on_cancel| {
            let table = Arc::clone(&self.table);
            turn.cancel_token().on_cancel(move || target.call(on_cancel, &table))
        });
        let _inside = callback::enter();
        let code = contexts::with_turn(turn, &self.history, outcome, |ctx| {
            run_turn(self.table.functions.context, self.state, ctx, prompt.as_ptr().cast(), len)
        });
        // Waits for a hook that runs on another thread, and stops one that has not begun.
        drop(hook);
        code
    }
}

impl SessionAgent for CAgent {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let outcome = Outcome::default();
        let (mut prompt, len) = terminated(prompt);
        let code = self.call(&prompt, len, turn, &outcome);
        prompt.truncate(len);
        if code != codes::TURNWISE_OK {
            return Err(failure(code, outcome, turn.check().err()));
        }
        let answer = outcome.answer.into_inner().unwrap_or_default().into_result(turn);
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

impl Drop for CAgent {
    fn drop(&mut self) {
        if let Some(drop_state) = self.table.functions.drop_state {
            let _inside = callback::enter();
            drop_state(self.table.functions.context, self.state);
        }
    }
}

/// A text with a NUL behind it, and its length without the NUL.
fn terminated(mut text: String) -> (String, usize) {
    let len = text.len();
    text.push('\0');
    (text, len)
}

/// The error of a callback that has not succeeded.
fn failure(code: i32, outcome: Outcome, cancelled: Option<Cancelled>) -> AgentError {
    match (outcome.failure.into_inner(), cancelled) {
        (Some(error), _) => error,
        (None, Some(cancelled)) if code == codes::TURNWISE_CANCELLED => cancelled.into(),
        (None, _) => AgentError::other(format!("the agent returned {code} ({})", codes::name(code))),
    }
}
