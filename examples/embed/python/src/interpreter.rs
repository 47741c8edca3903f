//! The interpreter: thread states, signals, and its end.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use embed::abi::contexts;
use embed::codes::{Failure, TURNWISE_INTERPRETER};
use embed::host::callback;
use embed::host::fork;
use embed::host::wait::Wait;
use library::SessionId;
use parking_lot::{Condvar, Mutex};
use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::errors;

/// Set at the end of the exit hook, with `DETACHED` locked. From then on no thread of the library may attach: the
/// interpreter would end the thread by a forced unwind, or keep it for ever.
static HAS_ENDED: AtomicBool = AtomicBool::new(false);

/// The identity of the main thread, which alone handles signals.
static MAIN_THREAD: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this thread is the main thread, once it is known.
    static IS_MAIN: Cell<Option<bool>> = const { Cell::new(None) };
}

fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    if let Some(is_main) = IS_MAIN.get() {
        return Ok(is_main);
    }
    let identity: u64 = py.import("_thread")?.call_method0("get_ident")?.extract()?;
    let is_main = identity == MAIN_THREAD.load(Ordering::Acquire);
    IS_MAIN.set(Some(is_main));
    Ok(is_main)
}

pub(crate) fn remember_main_thread(py: Python<'_>) -> PyResult<()> {
    let main = py.import("threading")?.call_method0("main_thread")?.getattr("ident")?.extract()?;
    MAIN_THREAD.store(main, Ordering::Release);
    Ok(())
}

/// The calls that run without the interpreter's lock. Each attaches again at its end.
static DETACHED: Mutex<usize> = Mutex::new(0);
static FEWER_DETACHED: Condvar = Condvar::new();

/// Counts a call, from before its detach until it is attached again.
struct Counted;

impl Counted {
    /// Fails after [`end`]. The lock puts the two in an order: either `end` waits for this call, or this call stays
    /// attached and fails.
    fn begin() -> Result<Self, Failure> {
        let mut detached = DETACHED.lock();
        if HAS_ENDED.load(Ordering::SeqCst) {
            return Err(ended());
        }
        *detached += 1;
        Ok(Self)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        *DETACHED.lock() -= 1;
        FEWER_DETACHED.notify_all();
    }
}

/// Ends all attaching, when the calls of other threads have attached again, at most after `timeout`. A thread that
/// attached later would be ended by the interpreter in the middle of this library's code.
///
/// The caller is detached, and has closed all services, so that the waits end.
pub(crate) fn end(timeout: Duration) {
    let deadline = Instant::now() + timeout;
    let mut detached = DETACHED.lock();
    while *detached > 0 && !FEWER_DETACHED.wait_until(&mut detached, deadline).timed_out() {}
    HAS_ENDED.store(true, Ordering::SeqCst);
}

/// The sessions whose threads have a thread state, also those of services that are closed.
static LIVE: Mutex<Vec<SessionId>> = Mutex::new(Vec::new());
static FEWER_LIVE: Condvar = Condvar::new();

/// Counts a session's thread, until it has given its thread state back.
#[derive(Debug)]
pub(crate) struct Live(SessionId);

impl Live {
    pub(crate) fn new(id: SessionId) -> Self {
        LIVE.lock().push(id);
        Self(id)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut live = LIVE.lock();
        if let Some(index) = live.iter().position(|id| *id == self.0) {
            live.swap_remove(index);
        }
        FEWER_LIVE.notify_all();
    }
}

/// Waits at most for `timeout` until no session's thread runs Python code. Returns the sessions that still do.
pub(crate) fn wait_for_sessions(timeout: Duration) -> Vec<SessionId> {
    let deadline = Instant::now() + timeout;
    let mut live = LIVE.lock();
    while !live.is_empty() && !FEWER_LIVE.wait_until(&mut live, deadline).timed_out() {}
    live.clone()
}

/// Refuses a second interpreter of the process: the session threads would not know which one is theirs.
pub(crate) fn refuse_subinterpreters() -> PyResult<()> {
    // SAFETY: this thread is attached, because the module is being imported on it.
    let id = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    match id {
        0 => Ok(()),
        _ => Err(PyImportError::new_err("turnwise can be used in the main interpreter only")),
    }
}

/// Whether the exit hook has ended.
pub(crate) fn has_ended() -> bool {
    HAS_ENDED.load(Ordering::SeqCst)
}

/// The failure of a call at the end of the interpreter.
pub(crate) fn ended() -> Failure {
    Failure::new(TURNWISE_INTERPRETER, "the interpreter is shutting down")
}

/// Attaches, unless the interpreter is at its end.
pub(crate) fn attach<T>(body: impl FnOnce(Python<'_>) -> T) -> Result<T, Failure> {
    if HAS_ENDED.load(Ordering::SeqCst) {
        return Err(ended());
    }
    Python::try_attach(body).ok_or_else(ended)
}

/// The thread state of a session's thread. Without it every attach would make one and destroy it, and with it every
/// `threading.local`.
#[derive(Debug)]
pub(crate) struct ThreadState {
    gil_state: ffi::PyGILState_STATE,
    saved: *mut ffi::PyThreadState,
}

impl ThreadState {
    /// Makes the thread state, and detaches from it.
    pub(crate) fn new() -> Result<Self, Failure> {
        // Fails at the end of the interpreter.
        attach(|_| ())?;
        // SAFETY: the interpreter is initialised, because this module is loaded, and the exit hook has not ended. The
        // first call attaches this thread, as the second one requires.
        unsafe {
            let gil_state = ffi::PyGILState_Ensure();
            Ok(Self { gil_state, saved: ffi::PyEval_SaveThread() })
        }
    }
}

impl Drop for ThreadState {
    fn drop(&mut self) {
        if HAS_ENDED.load(Ordering::SeqCst) {
            // The interpreter frees the state.
            return;
        }
        // SAFETY: the state was saved by this thread, which is detached now: every attach in between has ended. It is
        // not shared, because the type is not `Send`.
        unsafe {
            ffi::PyEval_RestoreThread(self.saved);
            ffi::PyGILState_Release(self.gil_state);
        }
    }
}

/// A timeout in milliseconds: none is without a limit, and a part of a millisecond is a whole one.
pub(crate) fn milliseconds(timeout: Option<f64>) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "a float is converted with saturation")]
    timeout.map_or(-1, |seconds| if seconds.is_nan() { 0 } else { (seconds.max(0.0) * 1e3).ceil() as i64 })
}

/// Runs a wait without the interpreter's lock. On the main thread a signal handler that raises ends it.
pub(crate) fn waiting<T: Send>(
    py: Python<'_>,
    timeout: Option<f64>,
    body: impl FnOnce(Wait<'_>) -> Result<T, Failure> + Send,
) -> PyResult<T> {
    let timeout = milliseconds(timeout);
    let is_main = is_main_thread(py)?;
    let mut raised = None;
    let _counted = errors::raise(py, Counted::begin())?;
    let result = py.detach(|| {
        fork::check()?;
        if callback::is_inside() {
            let mut check = || Ok(contexts::check_current()?);
            return body(Wait::new(timeout).checked(&mut check));
        }
        if !is_main {
            return body(Wait::new(timeout));
        }
        let mut check = || match attach(|py| py.check_signals()) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                raised = Some(error);
                Err(Failure::new(TURNWISE_INTERPRETER, "a signal handler has raised"))
            }
            Err(failure) => Err(failure),
        };
        body(Wait::new(timeout).checked(&mut check))
    });
    match raised {
        Some(error) => Err(error),
        None => errors::raise(py, result),
    }
}

/// Runs a call without the interpreter's lock.
pub(crate) fn detached<T: Send>(py: Python<'_>, body: impl FnOnce() -> Result<T, Failure> + Send) -> PyResult<T> {
    let _counted = errors::raise(py, Counted::begin())?;
    let result = py.detach(|| {
        fork::check()?;
        body()
    });
    errors::raise(py, result)
}

/// Drops a value without the interpreter's lock, in a deallocation. The drop signals other threads and waits for none.
pub(crate) fn drop_detached<T: Send>(value: T) {
    let mut value = Some(value);
    if fork::is_child() {
        // Another thread of the parent may have held a lock that the drop takes.
        std::mem::forget(value);
        return;
    }
    // At the end of the interpreter the value is dropped as it is: nothing waits for the interpreter's lock then.
    let Ok(_counted) = Counted::begin() else { return };
    let _ = Python::try_attach(|py| py.detach(|| drop(value.take())));
    drop(value);
}
