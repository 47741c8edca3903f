//! The agent: a live interpreter. Its engine and its values are not `Send`; they never leave the session's thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use rhai::{Dynamic, Engine, EvalAltResult, Position, Scope, AST};
use scoped_tls::scoped_thread_local;
use turnwise::{
    AgentError, AgentEvent, CancelToken, Message, RunResult, Session, SessionAgent, SessionAgentBuilder,
    SessionContext, SessionSpec, TurnContext,
};

// The running turn, for the script's functions: they have to be 'static, the turn is only lent.
scoped_thread_local!(static TURN: TurnContext);

pub(crate) struct KernelBuilder;

impl SessionAgentBuilder for KernelBuilder {
    type Agent = Kernel;

    fn build_agent(&self, spec: &SessionSpec, context: &SessionContext) -> Result<Kernel, AgentError> {
        let history = spec.resume.clone();
        let history = history.unwrap_or_else(|| Session::with_id(context.session_id()));
        let mut kernel = Kernel::new(history);
        kernel.replay(context.cancel_token())?;
        Ok(kernel)
    }
}

/// A kernel: what its cells have defined so far, and the cells themselves.
///
/// A cell works on copies, which take the originals' place when it ends well. So a cell that fails or is interrupted leaves
/// nothing behind, and the history is all that it takes to build the same kernel again.
pub(crate) struct Kernel {
    engine: Engine,
    scope: Scope<'static>,
    functions: AST,
    history: Session,
    printed: Rc<RefCell<String>>,
}

impl Kernel {
    fn new(history: Session) -> Self {
        let printed = Rc::new(RefCell::new(String::new()));
        let (scope, functions) = (Scope::new(), AST::empty());
        Self { engine: engine(&printed), scope, functions, history, printed }
    }

    /// Runs the cells of the history again, without their output, to get their values back.
    fn replay(&mut self, cancel: &CancelToken) -> Result<(), AgentError> {
        let stop = cancel.clone();
        self.engine.on_progress(move |_| stop.is_cancelled().then_some(Dynamic::UNIT));
        for message in self.history.clone().messages() {
            if let Message::User { content } = message {
                let broken = |error| format!("a cell of the history does not run any more: {error}");
                let replayed = self.eval(content).map(drop);
                cancel.check()?;
                replayed.map_err(|error| AgentError::Config(broken(error)))?;
            }
        }
        self.printed.borrow_mut().clear();
        self.engine.on_progress(|_| TURN.with(|turn| turn.is_cancelled()).then_some(Dynamic::UNIT));
        Ok(())
    }

    fn eval(&mut self, cell: &str) -> Result<Dynamic, Box<EvalAltResult>> {
        let mut scope = self.scope.clone();
        let ast = self.functions.merge(&self.engine.compile_with_scope(&scope, cell)?);
        let value = self.engine.eval_ast_with_scope::<Dynamic>(&mut scope, &ast)?;
        self.scope = scope;
        self.functions = ast.clone_functions_only();
        Ok(value)
    }
}

impl SessionAgent for Kernel {
    fn run_turn(&mut self, cell: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.printed.borrow_mut().clear();
        let value = TURN.set(turn, || self.eval(&cell)).map_err(|error| match turn.check() {
            Err(cancelled) => cancelled.into(),
            Ok(()) => AgentError::other(error.to_string()),
        })?;
        let shown = if value.is_unit() { String::new() } else { format!("{value:?}") };
        let answer = format!("{}{shown}", self.printed.borrow());
        self.history.push_batch([Message::user(cell), Message::assistant(answer)]);
        Ok(turn.finish(shown))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }
}

/// An interpreter that prints into the running turn, and stops when that is told to.
fn engine(printed: &Rc<RefCell<String>>) -> Engine {
    let mut engine = Engine::new();
    // The same in every build profile, and within the stack of a kernel's thread.
    engine.set_max_expr_depths(64, 64).set_max_call_levels(64);
    engine.set_max_array_size(10_000_000).set_max_map_size(1_000_000).set_max_string_size(100_000_000);
    let out = Rc::clone(printed);
    engine.on_print(move |text| print(&out, text));
    let out = Rc::clone(printed);
    engine.on_debug(move |text, _, position| print(&out, &format!("{position:?} | {text}")));
    engine.register_fn("sleep", |seconds: i64| sleep(seconds as f64));
    engine.register_fn("sleep", sleep);
    engine
}

/// A line of output: to whoever watches the turn, and into the history. While a history is replayed nobody watches.
fn print(printed: &RefCell<String>, text: &str) {
    let line = format!("{text}\n");
    printed.borrow_mut().push_str(&line);
    if TURN.is_set() {
        // A turn that has been told to stop ends at the interpreter's next step.
        TURN.with(|turn| _ = turn.emit(AgentEvent::TextDelta { delta: line }));
    }
}

/// The script's `sleep`, which an interrupt ends; the interpreter's own would not hear of it.
fn sleep(seconds: f64) -> Result<(), Box<EvalAltResult>> {
    let refused = |_| format!("sleep: {seconds} is not a number of seconds");
    let duration = Duration::try_from_secs_f64(seconds).map_err(refused)?;
    if TURN.is_set() {
        let slept = TURN.with(|turn| turn.sleep(duration));
        slept.map_err(|_| Box::new(EvalAltResult::ErrorTerminated(Dynamic::UNIT, Position::NONE)))?;
    }
    Ok(())
}
