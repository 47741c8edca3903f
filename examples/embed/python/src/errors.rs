//! Failures as Python exceptions, one class for each code. The classes are in `turnwise/_errors.py`.

use embed::codes::{cancel_reason_number, name, Failure};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// The function that makes an exception.
static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Imports the function that makes exceptions. At the end of the interpreter an import would fail.
pub(crate) fn prepare(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    let make = MAKE.get_or_try_init(py, || Ok::<_, PyErr>(py.import("turnwise._errors")?.getattr("make")?.unbind()))?;
    Ok(make.bind(py))
}

/// The exception of a failure.
pub(crate) fn exception(py: Python<'_>, failure: &Failure) -> PyErr {
    let make = || -> PyResult<Bound<'_, PyAny>> {
        let reason = cancel_reason_number(failure.cancel_reason);
        prepare(py)?.call1((name(failure.code), failure.message.as_str(), reason, failure.is_retryable))
    };
    match make() {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// Converts the failure of a call.
pub(crate) fn raise<T>(py: Python<'_>, result: Result<T, Failure>) -> PyResult<T> {
    result.map_err(|failure| exception(py, &failure))
}
