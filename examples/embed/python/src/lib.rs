//! The extension module of the Python package `turnwise`: thin classes around [`embed::host`]. The package's own Python
//! files make of them what programs use.
//!
//! # Threads and the interpreter's lock
//!
//! - Every call that may lock, wait or join runs *detached*: without the interpreter's lock. A deallocation signals and
//!   never joins.
//! - A session's thread has a thread state of the interpreter from its build to the drop of its agent
//!   (`interpreter::ThreadState`), so that `threading.local` keeps its values. It is attached while Python code runs.
//! - A wait of the main thread looks for signals every 50 milliseconds, so that Ctrl-C ends it. A wait of a callback
//!   looks whether its turn is to stop. Other waits park.
//! - At exit a hook shuts every service down, with a timeout. Where a session is stuck, it reports that, and ends the
//!   process. After the hook no thread of the library attaches any more.
//!
//! The module says that it uses the interpreter's lock: it has not been audited without it.

mod agent;
mod context;
mod errors;
mod interpreter;
mod service;
mod turn;

use pyo3::prelude::*;

/// The classes and functions. The package's own files are the interface for programs.
#[pymodule(gil_used = true)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    interpreter::refuse_subinterpreters()?;
    interpreter::remember_main_thread(module.py())?;
    module.add_class::<service::Service>()?;
    module.add_class::<turn::Turn>()?;
    module.add_class::<turn::Subscription>()?;
    module.add_class::<context::Context>()?;
    module.add("CODES", embed::codes::ALL.to_vec())?;
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(service::shut_down_all, module)?)?;
    Ok(())
}
