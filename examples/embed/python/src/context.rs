//! The context of a callback, valid on its thread until that returns.

use std::time::Duration;

use embed::abi::contexts::{use_either, use_turn, Either};
use embed::codes::Failure;
use embed::host::requests::{self, AskOptions, PublishOptions};
use library::AgentEvent;
use pyo3::prelude::*;

use crate::interpreter::{detached, milliseconds};

/// A checked number. It can be kept, and then says that it is stale.
#[pyclass(frozen, module = "turnwise._native")]
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) handle: u64,
}

fn duration(timeout: Option<f64>) -> Duration {
    u64::try_from(milliseconds(timeout)).map_or(Duration::MAX, Duration::from_millis)
}

fn emit(handle: u64, event: AgentEvent) -> Result<(), Failure> {
    use_either(handle, |context| match context {
        Either::Turn(turn, _) => Ok(turn.emit(event)?),
        Either::Build(session, _) => Ok(session.events().emit(event)?),
    })
}

#[pymethods]
impl Context {
    /// The session's id, and the number of the turn; 0 in a build.
    fn ids(&self, py: Python<'_>) -> PyResult<(String, u64)> {
        let handle = self.handle;
        detached(py, || {
            use_either(handle, |context| {
                Ok(match context {
                    Either::Turn(turn, _) => (turn.session_id().to_string(), turn.turn_id().get()),
                    Either::Build(session, _) => (session.session_id().to_string(), 0),
                })
            })
        })
    }

    fn emit(&self, py: Python<'_>, event: &str) -> PyResult<()> {
        let handle = self.handle;
        detached(py, || emit(handle, serde_json::from_str(event)?))
    }

    fn emit_text(&self, py: Python<'_>, delta: String) -> PyResult<()> {
        let handle = self.handle;
        detached(py, || emit(handle, AgentEvent::TextDelta { delta }))
    }

    fn check(&self, py: Python<'_>) -> PyResult<()> {
        let handle = self.handle;
        detached(py, || {
            use_either(handle, |context| match context {
                Either::Turn(turn, _) => Ok(turn.check()?),
                Either::Build(session, _) => Ok(session.check()?),
            })
        })
    }

    #[pyo3(signature = (timeout))]
    fn sleep(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let handle = self.handle;
        detached(py, || {
            use_either(handle, |context| match context {
                Either::Turn(turn, _) => Ok(turn.sleep(duration(timeout))?),
                Either::Build(session, _) => Ok(session.sleep(duration(timeout))?),
            })
        })
    }

    fn remaining(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        let handle = self.handle;
        detached(py, || use_turn(handle, |context| Ok(context.turn.remaining().map(|left| left.as_secs_f64()))))
    }

    fn request_input(&self, py: Python<'_>, request: &str) -> PyResult<String> {
        let handle = self.handle;
        detached(py, || {
            let request: AskOptions = serde_json::from_str(request)?;
            use_turn(handle, |context| Ok(context.turn.request_input(request.into_request())?))
        })
    }

    fn publish(&self, py: Python<'_>, snapshot: &str) -> PyResult<()> {
        let handle = self.handle;
        detached(py, || {
            let snapshot: PublishOptions = requests::parse(snapshot)?;
            use_turn(handle, |context| {
                context.turn.publish(snapshot.into_snapshot(context.history));
                Ok(())
            })
        })
    }

    #[pyo3(signature = (timeout))]
    fn next_message(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<String>> {
        let handle = self.handle;
        detached(py, || {
            let taken = use_turn(handle, |context| Ok(context.turn.wait_inbox(duration(timeout))?))?;
            Ok(taken.map(|taken| serde_json::to_string(&taken)).transpose()?)
        })
    }

    fn history(&self, py: Python<'_>) -> PyResult<String> {
        let handle = self.handle;
        detached(py, || use_turn(handle, |context| Ok(serde_json::to_string(context.history)?)))
    }

    fn tool_results(&self, py: Python<'_>) -> PyResult<String> {
        let handle = self.handle;
        detached(py, || use_turn(handle, |context| Ok(serde_json::to_string(context.turn.tool_results())?)))
    }
}
