//! What a script may use, so that none takes the program's memory or overflows its stack.
//!
//! The interpreter limits how large one string, array or map may be, and nothing else: not how many there are, and not what
//! closures capture. So the program's memory is counted where it is allocated, and looked at in every step of a script; and
//! how deep values are nested is measured, now and then, when a variable is used.

use std::alloc::System;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use cap::Cap;
use rhai::{Dynamic, Engine, EvalAltResult, ImmutableString, NativeCallContext, Position};
use turnwise::CancelToken;

use crate::values::Measure;

/// What all kernels, and the rest of the program, may take together where the user does not say otherwise, in megabytes.
pub(crate) const MOST_MEMORY: u32 = 1_024;
/// What one step of a script may make: bytes of a string, elements of an array or a blob, entries of a map.
const MOST_TEXT: usize = 1 << 20;
const MOST_ELEMENTS: usize = 1 << 20;
const MOST_ENTRIES: usize = 100_000;
const MOST_VARIABLES: usize = 10_000;
/// How many functions a kernel may have, closures included.
pub(crate) const MOST_FUNCTIONS: usize = 1_000;
const MOST_MODULES: usize = 100;
/// How long a cell may be, in bytes.
pub(crate) const LONGEST_CELL: usize = 1 << 20;

/// How many steps may pass between two measurements: a few, and more where measuring takes long. What a script builds in
/// between fits on the stack of its thread.
const FEWEST_STEPS: u64 = 256;
const MOST_STEPS: u64 = 30_000;
/// How much the program's memory may grow between two measurements: a step may copy all that there is.
const MOST_GROWTH: usize = 16 << 20;

// It refuses nothing, which would end the program: it counts.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);
/// In megabytes.
static ALLOWED: AtomicU32 = AtomicU32::new(MOST_MEMORY);

/// From now on a cell that goes on beyond so many megabytes is stopped.
pub(crate) fn allow_memory(megabytes: u32) {
    // ORDERING: Relaxed. Nothing else is read because of it.
    ALLOWED.store(megabytes, Ordering::Relaxed);
}

/// What stops a script: an interrupt, or a limit.
#[derive(Default)]
pub(crate) struct Watch {
    /// That of the running turn, or of the session where its history is replayed.
    cancel: RefCell<Option<CancelToken>>,
    steps: Cell<u64>,
    /// The step from which on the next measurement is due, and the memory that makes it due before.
    due_at: Cell<(u64, usize)>,
}

impl Watch {
    /// From now on the script is stopped by this token.
    pub(crate) fn begin(&self, cancel: &CancelToken) {
        *self.cancel.borrow_mut() = Some(cancel.clone());
    }

    /// In every step of a script: what stops it, if anything.
    fn step(&self) -> Option<Dynamic> {
        self.steps.set(self.steps.get() + 1);
        if self.cancel.borrow().as_ref().is_some_and(CancelToken::is_cancelled) {
            return Some(Dynamic::UNIT);
        }
        check_memory().err().map(Dynamic::from)
    }

    /// Before a variable is used, and before a closure captures it: nothing can be nested deeper without one or the other.
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

/// # Errors
/// The program has used up its memory.
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

/// Has an interpreter keep to the limits.
pub(crate) fn set(engine: &mut Engine, watch: &Rc<Watch>) {
    // The same in every build profile, and within the stack of a kernel's thread.
    engine.set_max_expr_depths(64, 64).set_max_call_levels(64);
    engine.set_max_string_size(MOST_TEXT).set_max_array_size(MOST_ELEMENTS).set_max_map_size(MOST_ENTRIES);
    engine.set_max_variables(MOST_VARIABLES).set_max_functions(MOST_FUNCTIONS).set_max_modules(MOST_MODULES);
    let steps = Rc::clone(watch);
    engine.on_progress(move |_| steps.step());
    let watch = Rc::clone(watch);
    // It is marked so because it may change with any version, and not because there is something else.
    #[allow(deprecated)]
    engine.on_var(move |_, _, context| watch.measure(context.scope()).map(|()| None));
    // The interpreter's own look at the length only afterwards: a megabyte of places for a megabyte each.
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
