//! The agent: a live interpreter. Its engine and its values are not `Send`, and never leave the session thread.

use std::cell::RefCell;
use std::fmt::{self, Write};
use std::mem;
use std::rc::Rc;
use std::time::Duration;

use rhai::{Dynamic, Engine, EvalAltResult, Position, Scope, AST};
use scoped_tls::scoped_thread_local;
use turnwise::{
    AgentError, AgentEvent, CancelToken, Message, RunResult, Session, SessionAgent, SessionAgentBuilder,
    SessionContext, SessionSpec, TurnContext,
};

use crate::limits::{self, check_memory, Watch};
use crate::values::{copy, dismantle, Measure};

/// The longest output of a cell that the history keeps, and the longest value that is shown, in bytes.
const LONGEST_KEPT: usize = 64 << 10;

// The running turn for the script's functions, which have to be 'static, while the turn is borrowed.
scoped_thread_local!(static TURN: TurnContext);

pub(crate) struct KernelBuilder;

impl SessionAgentBuilder for KernelBuilder {
    type Agent = Kernel;

    fn build_agent(&self, spec: &SessionSpec, context: &SessionContext) -> Result<Kernel, AgentError> {
        let mut kernel = Kernel::new(spec.history());
        kernel.replay(context.cancel_token())?;
        Ok(kernel)
    }
}

/// A kernel: the variables and functions of its cells so far, and the cells themselves.
///
/// A cell works on copies, which replace the originals when the cell succeeds. So a cell that fails or is interrupted
/// has no effect, and the same kernel can be built again from the history alone.
pub(crate) struct Kernel {
    engine: Engine,
    scope: Scope<'static>,
    functions: AST,
    history: Session,
    printed: Rc<RefCell<Kept>>,
    watch: Rc<Watch>,
}

impl Kernel {
    fn new(history: Session) -> Self {
        let (printed, watch) = (Rc::default(), Rc::default());
        let engine = engine(&printed, &watch);
        Self { engine, scope: Scope::new(), functions: AST::empty(), history, printed, watch }
    }

    /// Runs the cells of the history again, without their output, to restore their values.
    fn replay(&mut self, cancel: &CancelToken) -> Result<(), AgentError> {
        self.watch.begin(cancel);
        for message in self.history.clone().messages() {
            if let Message::User { content } = message {
                let broken = |error| format!("a cell of the history does not run any more: {error}");
                let replayed = self.eval(content);
                cancel.check()?;
                replayed.map_err(|error| AgentError::Config(broken(error)))?;
                self.printed.take();
            }
        }
        Ok(())
    }

    /// Runs a cell, and returns its value as text.
    ///
    /// # Errors
    /// The message of the failure. The cell then has no effect.
    fn eval(&mut self, cell: &str) -> Result<String, String> {
        check_memory()?;
        if cell.len() > limits::LONGEST_CELL {
            return Err(format!("the cell is longer than {} kB", limits::LONGEST_CELL >> 10));
        }
        let mut scope = copy(&self.scope);
        match self.eval_in(&mut scope, &source(cell)) {
            Ok((functions, shown)) => {
                dismantle(mem::replace(&mut self.scope, scope));
                self.functions = functions;
                Ok(shown)
            }
            Err(error) => {
                dismantle(scope);
                Err(error)
            }
        }
    }

    /// Runs a cell with these variables. Returns all functions of the kernel, and the cell's value as text.
    fn eval_in(&self, scope: &mut Scope<'static>, cell: &str) -> Result<(AST, String), String> {
        let compiled = self.engine.compile_with_scope(scope, cell).map_err(|error| explain(&error.into()))?;
        let ast = self.functions.merge(&compiled);
        if ast.iter_functions().count() > limits::MOST_FUNCTIONS {
            return Err(format!("more than {} functions", limits::MOST_FUNCTIONS));
        }
        let value = self.engine.eval_ast_with_scope::<Dynamic>(scope, &ast).map_err(|error| explain(&error))?;
        // This checks the memory since the last step, and measures the value before it becomes text.
        check_memory()?;
        let mut measure = Measure::default();
        measure.variables(scope).and_then(|()| measure.value(&value)).map_err(|excess| excess.message())?;
        let shown = if value.is_unit() { String::new() } else { Kept::of(format_args!("{value:?}")).text };
        Ok((ast.clone_functions_only(), shown))
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        dismantle(mem::take(&mut self.scope));
    }
}

impl SessionAgent for Kernel {
    fn run_turn(&mut self, cell: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.printed.take();
        self.watch.begin(turn.cancel_token());
        let shown = TURN.set(turn, || self.eval(&cell)).map_err(|error| match turn.check() {
            Err(cancelled) => cancelled.into(),
            Ok(()) => AgentError::other(error),
        })?;
        let answer = self.printed.take().text + shown.as_str();
        self.history.push_batch([Message::user(cell), Message::assistant(answer)]);
        Ok(turn.finish(shown))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }
}

/// The script of a cell, without the byte order mark that some editors add, and with a `#!` line as a comment.
fn source(cell: &str) -> String {
    let cell = cell.strip_prefix('\u{feff}').unwrap_or(cell);
    cell.strip_prefix("#!").map_or_else(|| cell.to_owned(), |script| format!("//{script}"))
}

fn explain(error: &EvalAltResult) -> String {
    match error.unwrap_inner() {
        // The message names the limit. An interrupt has no message, and needs none.
        EvalAltResult::ErrorTerminated(message, _) if message.is_string() => message.to_string(),
        _ => Kept::of(format_args!("{error}")).text,
    }
}

/// An interpreter that prints into the running turn, and stops when the turn is cancelled.
fn engine(printed: &Rc<RefCell<Kept>>, watch: &Rc<Watch>) -> Engine {
    let mut engine = Engine::new();
    limits::set(&mut engine, watch);
    let out = Rc::clone(printed);
    engine.on_print(move |text| print(&out, text));
    let out = Rc::clone(printed);
    engine.on_debug(move |text, _, position| print(&out, &format!("{position:?} | {text}")));
    engine.register_fn("sleep", |seconds: i64| sleep(seconds as f64));
    engine.register_fn("sleep", sleep);
    engine
}

/// Adds a line of output to the history, and emits it to the caller of the turn. A replay has no such caller.
fn print(printed: &RefCell<Kept>, text: &str) {
    let line = format!("{text}\n");
    // An error means that the output was cut off.
    let _ = printed.borrow_mut().write_str(&line);
    if TURN.is_set() {
        // A cancelled turn ends at the interpreter's next step.
        TURN.with(|turn| _ = turn.emit(AgentEvent::TextDelta { delta: line }));
    }
}

/// The script's `sleep`, which an interrupt ends. The interpreter's own `sleep` would not end.
fn sleep(seconds: f64) -> Result<(), Box<EvalAltResult>> {
    let refused = |_| format!("sleep: {seconds} is not a number of seconds");
    let duration = Duration::try_from_secs_f64(seconds).map_err(refused)?;
    if TURN.is_set() {
        let slept = TURN.with(|turn| turn.sleep(duration));
        slept.map_err(|_| Box::new(EvalAltResult::ErrorTerminated(Dynamic::UNIT, Position::NONE)))?;
    }
    Ok(())
}

/// Text that is cut off at a limit.
#[derive(Default)]
struct Kept {
    text: String,
    is_cut: bool,
}

impl Kept {
    fn of(text: fmt::Arguments<'_>) -> Self {
        let mut kept = Self::default();
        // This fails when the text is cut off, so that the rest is not formatted.
        let _ = kept.write_fmt(text);
        kept
    }
}

impl Write for Kept {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.is_cut {
            return Err(fmt::Error);
        }
        let room = LONGEST_KEPT.saturating_sub(self.text.len());
        if text.len() <= room {
            self.text.push_str(text);
            return Ok(());
        }
        let end = (0..=room).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        self.text.push_str(&text[..end]);
        self.text.push_str("… (cut off)\n");
        self.is_cut = true;
        Err(fmt::Error)
    }
}
