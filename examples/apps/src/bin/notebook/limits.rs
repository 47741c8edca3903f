//! The limits of a script, so that no script exhausts the program's memory or overflows its stack.
//!
//! The interpreter limits the size of one string, array or map. It limits neither their number nor the variables that
//! closures capture. So the allocator counts the program's memory, and every step of a script checks it. The depth of
//! values is measured at times when a variable is used.

use std::alloc::System;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use cap::Cap;
use rhai::{Dynamic, Engine, EvalAltResult, ImmutableString, NativeCallContext, Position};
use turnwise::CancelToken;

use crate::values::Measure;

/// The default memory limit of all kernels and the rest of the program together, in megabytes.
pub(crate) const MOST_MEMORY: u32 = 1_024;
/// The limits of one value: the bytes of a string, the elements of an array or a blob, the entries of a map.
const MOST_TEXT: usize = 1 << 20;
const MOST_ELEMENTS: usize = 1 << 20;
const MOST_ENTRIES: usize = 100_000;
const MOST_VARIABLES: usize = 10_000;
/// The limit of functions in a kernel, including closures.
pub(crate) const MOST_FUNCTIONS: usize = 1_000;
const MOST_MODULES: usize = 100;
/// The longest cell, in bytes.
pub(crate) const LONGEST_CELL: usize = 1 << 20;

/// The number of steps between two measurements. It rises with the cost of a measurement. The values that a script can
/// nest in that many steps fit on the stack of its thread.
const FEWEST_STEPS: u64 = 256;
const MOST_STEPS: u64 = 30_000;
/// The growth of the program's memory that makes a measurement due. One step may copy all values.
const MOST_GROWTH: usize = 16 << 20;

// The allocator only counts. A refused allocation would end the program.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);
/// The memory limit, in megabytes.
static ALLOWED: AtomicU32 = AtomicU32::new(MOST_MEMORY);

/// Sets the memory limit. A cell that continues beyond it is stopped.
pub(crate) fn allow_memory(megabytes: u32) {
    // ORDERING: Relaxed; no other data depends on it.
    ALLOWED.store(megabytes, Ordering::Relaxed);
}

/// The conditions that stop a script: an interrupt, or a limit.
#[derive(Default)]
pub(crate) struct Watch {
    /// The token of the running turn, or of the session during a replay.
    cancel: RefCell<Option<CancelToken>>,
    steps: Cell<u64>,
    /// The step at which the next measurement is due, and the memory that makes it due earlier.
    due_at: Cell<(u64, usize)>,
}

impl Watch {
    /// Sets the token that stops the script.
    pub(crate) fn begin(&self, cancel: &CancelToken) {
        *self.cancel.borrow_mut() = Some(cancel.clone());
    }

    /// Called in every step of a script. Returns the reason to stop, if there is one.
    fn step(&self) -> Option<Dynamic> {
        self.steps.set(self.steps.get() + 1);
        if self.cancel.borrow().as_ref().is_some_and(CancelToken::is_cancelled) {
            return Some(Dynamic::UNIT);
        }
        check_memory().err().map(Dynamic::from)
    }

    /// Measures the variables if that is due. It is called before a variable is used or captured by a closure, because
    /// values cannot be nested deeper without either.
    fn measure(&self, variables: &rhai::Scope<'_>) -> Result<(), Box<EvalAltResult>> {
        let ((due_step, due_memory), steps) = (self.due_at.get(), self.steps.get());
        if steps < due_step && MEMORY.allocated() < due_memory {
            return Ok(());
        }
        let mut measure = Measure::default();
        let measured = measure.variables(variables);
        let pause = (measure.values / 4).clamp(FEWEST_STEPS, MOST_STEPS);
        self.due_at.set((steps + pause, MEMORY.allocated() + MOST_GROWTH));
        measured.map_err(|excess| stop(excess.message()))
    }
}

/// Checks the memory limit.
///
/// # Errors
/// Fails if the program uses more memory than allowed.
pub(crate) fn check_memory() -> Result<(), String> {
    let megabytes = ALLOWED.load(Ordering::Relaxed);
    if MEMORY.allocated() >> 20 >= megabytes as usize {
        return Err(format!("the kernels take more than {megabytes} MB"));
    }
    Ok(())
}

/// An error that a script cannot catch.
fn stop(message: String) -> Box<EvalAltResult> {
    EvalAltResult::ErrorTerminated(message.into(), Position::NONE).into()
}

/// Sets the limits of an interpreter.
pub(crate) fn set(engine: &mut Engine, watch: &Rc<Watch>) {
    // These are the same in every build profile, and fit the stack of a kernel's thread.
    engine.set_max_expr_depths(64, 64).set_max_call_levels(64);
    engine.set_max_string_size(MOST_TEXT).set_max_array_size(MOST_ELEMENTS).set_max_map_size(MOST_ENTRIES);
    engine.set_max_variables(MOST_VARIABLES).set_max_functions(MOST_FUNCTIONS).set_max_modules(MOST_MODULES);
    let steps = Rc::clone(watch);
    engine.on_progress(move |_| steps.step());
    let watch = Rc::clone(watch);
    // The method is marked as deprecated because it may change in any version. There is no replacement.
    #[allow(deprecated)]
    engine.on_var(move |_, _, context| watch.measure(context.scope()).map(|()| None));
    // The interpreter's own `replace` checks the length only afterwards. A megabyte of matches could become a megabyte
    // each.
    engine.register_fn("replace", replace);
    engine.register_fn(
        "replace",
        |context: NativeCallContext<'_>, text: &mut ImmutableString, old: char, new: &str| {
            replace(context, text, old.encode_utf8(&mut [0; 4]), new)
        },
    );
}

fn replace(
    context: NativeCallContext<'_>,
    text: &mut ImmutableString,
    old: &str,
    new: &str,
) -> Result<(), Box<EvalAltResult>> {
    let grown = text.matches(old).count().saturating_mul(new.len());
    if grown > MOST_TEXT {
        let what = "Length of string".to_owned();
        return Err(EvalAltResult::ErrorDataTooLarge(what, context.call_position()).into());
    }
    *text = text.replace(old, new).into();
    Ok(())
}
