//! The contexts of callbacks. A context is a borrow of the library, valid on its thread until its callback returns.
//!
//! Every thread that runs callbacks has a slot of the table. A callback takes the next generation of the slot as its
//! handle, and marks it as over when it returns. Another thread that uses the handle finds the slot: with this
//! generation, not over, it is the wrong thread; otherwise the handle is stale.
//!
//! The borrow itself is in a thread-local variable, as a pointer. It is set for the length of the callback only, and
//! never read on another thread.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use library::{AgentError, Cancelled, Session, SessionContext, TurnContext};
use parking_lot::RwLock;

use super::handles::{invalid, stale, wrong_kind, Parts, KIND_CONTEXT, LAST_GENERATION};
use crate::codes::{Failure, TURNWISE_WRONG_THREAD};
use crate::host::requests::Answer;

/// What a callback borrows.
#[derive(Clone, Copy)]
enum Borrowed {
    Turn { turn: *const TurnContext, history: *const Session, outcome: *const Outcome },
    Build { session: *const SessionContext, outcome: *const Outcome },
}

/// What an agent has said about the end of its turn.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The answer, if the agent succeeds.
    pub answer: RefCell<Option<Answer>>,
    /// The failure, if it does not.
    pub failure: RefCell<Option<AgentError>>,
}

/// The borrow of the running callback, with its handle.
#[derive(Clone, Copy)]
struct Current {
    handle: u64,
    borrowed: Borrowed,
}

/// The slot of a thread: the generation of its last callback, and whether that is over.
#[derive(Debug)]
struct Slot {
    /// The generation times two; plus one while the callback runs.
    state: AtomicU64,
}

struct Table {
    slots: Vec<Arc<Slot>>,
    free: Vec<u32>,
}

static TABLE: RwLock<Table> = RwLock::new(Table { slots: Vec::new(), free: Vec::new() });

/// The slot that this thread uses. The thread's exit frees it, and its generation goes on with the next thread.
struct Mine {
    index: u32,
    slot: Arc<Slot>,
}

thread_local! {
    static CURRENT: Cell<Option<Current>> = const { Cell::new(None) };
    static MINE: RefCell<Option<Mine>> = const { RefCell::new(None) };
}

impl Drop for Mine {
    fn drop(&mut self) {
        if generation(&self.slot) < LAST_GENERATION {
            TABLE.write().free.push(self.index);
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a generation has 24 bits")]
fn generation(slot: &Slot) -> u32 {
    (slot.state.load(Ordering::Acquire) >> 1) as u32
}

/// Ends the callback at its drop: the handle is stale from then on. Private, so that it is dropped in every case.
struct Entered {
    handle: u64,
    before: Option<Current>,
    slot: Arc<Slot>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with(|current| current.set(self.before));
        self.slot.state.fetch_and(!1, Ordering::Release);
    }
}

/// Runs a callback of a turn, with the handle of its context.
pub fn with_turn<T>(turn: &TurnContext, history: &Session, outcome: &Outcome, body: impl FnOnce(u64) -> T) -> T {
    let entered = enter(Borrowed::Turn { turn, history, outcome });
    body(entered.handle)
}

/// Runs a callback of a build, with the handle of its context.
pub fn with_build<T>(session: &SessionContext, outcome: &Outcome, body: impl FnOnce(u64) -> T) -> T {
    let entered = enter(Borrowed::Build { session, outcome });
    body(entered.handle)
}

fn enter(borrowed: Borrowed) -> Entered {
    let (index, slot) = MINE.with(|mine| {
        let mut mine = mine.borrow_mut();
        if mine.as_ref().is_none_or(|mine| generation(&mine.slot) >= LAST_GENERATION) {
            *mine = Some(take_slot());
        }
        mine.as_ref().map(|mine| (mine.index, Arc::clone(&mine.slot))).unwrap_or_else(|| {
            let Mine { index, slot } = &take_slot();
            (*index, Arc::clone(slot))
        })
    });
    let generation = generation(&slot) + 1;
    slot.state.store(u64::from(generation) << 1 | 1, Ordering::Release);
    let handle = Parts { kind: KIND_CONTEXT, generation, index }.handle();
    let before = CURRENT.with(|current| current.replace(Some(Current { handle, borrowed })));
    Entered { handle, before, slot }
}

fn take_slot() -> Mine {
    let mut table = TABLE.write();
    if let Some(index) = table.free.pop() {
        if let Some(slot) = table.slots.get(index as usize).cloned() {
            return Mine { index, slot };
        }
    }
    let slot = Arc::new(Slot { state: AtomicU64::new(0) });
    table.slots.push(Arc::clone(&slot));
    #[expect(clippy::cast_possible_truncation, reason = "a process has fewer threads")]
    Mine { index: (table.slots.len() - 1) as u32, slot }
}

/// Why a handle is not the context of the running callback.
fn refusal(handle: u64) -> Failure {
    let parts = Parts::of(handle);
    if parts.kind != KIND_CONTEXT {
        // A handle of the other table, or no handle at all.
        return match super::handles::get(handle) {
            Ok(_) => wrong_kind(handle, "a context"),
            Err(failure) => failure,
        };
    }
    let state = TABLE.read().slots.get(parts.index as usize).map(|slot| slot.state.load(Ordering::Acquire));
    let Some(state) = state else { return invalid(handle) };
    let generation = u64::from(parts.generation);
    if generation == 0 || generation > state >> 1 {
        invalid(handle)
    } else if state == generation << 1 | 1 {
        Failure::new(TURNWISE_WRONG_THREAD, "the context belongs to another thread")
    } else {
        stale(handle)
    }
}

fn current(handle: u64) -> Result<Borrowed, Failure> {
    match CURRENT.with(Cell::get) {
        Some(current) if current.handle == handle => Ok(current.borrowed),
        _ => Err(refusal(handle)),
    }
}

/// The turn of a context, as `use_turn` borrows it.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// The context of the library.
    pub turn: &'a TurnContext,
    /// The history before the turn.
    pub history: &'a Session,
    /// What the agent says about the end of the turn.
    pub outcome: &'a Outcome,
}

/// Calls `body` with the turn of a context.
pub fn use_turn<T>(handle: u64, body: impl FnOnce(Turn<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
    match current(handle)? {
        // SAFETY: the pointers were made from borrows of `with_turn` or `with_build`, which hold the guard `Entered`. The
        // guard's drop resets the variable, in a panic too. It is further up on the stack of this thread, so it is not
        // dropped before `body` returns. Only shared borrows are made of them.
        Borrowed::Turn { turn, history, outcome } => unsafe {
            body(Turn { turn: &*turn, history: &*history, outcome: &*outcome })
        },
        Borrowed::Build { .. } => Err(wrong_kind(handle, "a turn: the agent is being built")),
    }
}

/// A context of either kind.
#[derive(Clone, Copy, Debug)]
pub enum Either<'a> {
    /// A turn.
    Turn(&'a TurnContext, &'a Outcome),
    /// The build of an agent.
    Build(&'a SessionContext, &'a Outcome),
}

/// Calls `body` with the context of a turn or of a build.
pub fn use_either<T>(handle: u64, body: impl FnOnce(Either<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
    let borrowed = current(handle)?;
    with(borrowed, body)
}

fn with<T>(borrowed: Borrowed, body: impl FnOnce(Either<'_>) -> T) -> T {
    match borrowed {
        // SAFETY: as in `use_turn`.
        Borrowed::Turn { turn, outcome, .. } => unsafe { body(Either::Turn(&*turn, &*outcome)) },
        // SAFETY: as in `use_turn`.
        Borrowed::Build { session, outcome } => unsafe { body(Either::Build(&*session, &*outcome)) },
    }
}

/// Fails if the turn or the build that this thread runs is to stop. Outside of a callback it does nothing.
pub fn check_current() -> Result<(), Cancelled> {
    let Some(current) = CURRENT.with(Cell::get) else { return Ok(()) };
    with(current.borrowed, |either| match either {
        Either::Turn(turn, _) => turn.check(),
        Either::Build(session, _) => session.check(),
    })
}
