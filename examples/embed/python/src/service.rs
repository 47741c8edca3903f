//! A service, and the shutdown of all services at the end of the interpreter.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use embed::codes::{Failure, TURNWISE_INVALID_ID};
use embed::host::fork;
use embed::host::requests::{self, CreateOptions, ServiceSettings, SpecOptions, SubscriptionSettings, TurnOptions};
use embed::host::service::{self, ServiceEvent};
use embed::host::wait::Wait;
use library::{ArchiveMode, EventSource, InputId, InputResponse, InteractionContent, SessionId, SessionQuery, TurnId};
use parking_lot::Mutex;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::agent::Builder;
use crate::errors;
use crate::interpreter::{self, detached, drop_detached, milliseconds, waiting};
use crate::turn::{converted, result_json, NextItem, Subscription, Turn};

/// The services of the process, for the exit hook. `None` once the hook has begun: it would miss later ones.
static SERVICES: Mutex<Option<Vec<Weak<service::Service>>>> = Mutex::new(Some(Vec::new()));

/// A service. The drop of the last reference closes it without a wait.
#[pyclass(frozen, module = "turnwise._native")]
#[derive(Debug)]
pub(crate) struct Service {
    /// `None` after the close. A call takes a share for its length.
    service: Mutex<Option<Arc<service::Service>>>,
    /// A share of the builder, for the garbage collector: the factory may lead back to this object. `None` after the
    /// close. It is locked by attached threads only, so that no visit of one collection finds it locked.
    builder: Mutex<Option<Arc<Builder>>>,
}

fn id(text: &str) -> Result<SessionId, Failure> {
    text.parse().map_err(|error: library::InvalidId| Failure::new(TURNWISE_INVALID_ID, error.to_string()))
}

fn source(name: &str) -> EventSource {
    match name {
        "tcp" => EventSource::Tcp,
        "uds" => EventSource::Uds,
        "stdin" => EventSource::Stdin,
        "webhook" => EventSource::Webhook,
        "rpc" => EventSource::Rpc,
        other => EventSource::Other(other.to_owned()),
    }
}

fn mode(interrupt: bool) -> ArchiveMode {
    if interrupt {
        ArchiveMode::Interrupt
    } else {
        ArchiveMode::Drain
    }
}

impl Service {
    fn open_service(&self) -> Result<Arc<service::Service>, Failure> {
        self.service.lock().clone().ok_or_else(Failure::closed)
    }
}

#[pymethods]
impl Service {
    #[new]
    fn new(py: Python<'_>, build: Py<PyAny>, store: Option<String>, settings: &str) -> PyResult<Self> {
        let builder = Arc::new(Builder::new(build));
        let shared = Arc::clone(&builder);
        let service = detached(py, || {
            let settings: ServiceSettings = requests::parse(settings)?;
            let service = service::Service::new(shared, store.as_deref(), settings)?;
            let mut registered = SERVICES.lock();
            let services = registered.as_mut().ok_or_else(interpreter::ended)?;
            services.retain(|service| service.strong_count() > 0);
            services.push(Arc::downgrade(&service));
            Ok(service)
        })?;
        Ok(Self { service: Mutex::new(Some(service)), builder: Mutex::new(Some(builder)) })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.builder.try_lock().as_deref() {
            Some(Some(builder)) => builder.traverse(&visit),
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        let builder = self.builder.lock().take();
        if let Some(builder) = builder {
            builder.clear();
        }
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || {
            let service = self.service.lock().take();
            if let Some(service) = service {
                service.close();
            }
            Ok(())
        })?;
        let builder = self.builder.lock().take();
        drop(builder);
        Ok(())
    }

    fn is_closed(&self, py: Python<'_>) -> PyResult<bool> {
        detached(py, || Ok(self.service.lock().is_none()))
    }

    /// The number of sessions that have ended, and the ids of those that have not.
    #[pyo3(signature = (interrupt, timeout))]
    fn shutdown(&self, py: Python<'_>, interrupt: bool, timeout: Option<f64>) -> PyResult<(usize, Vec<String>)> {
        waiting(py, timeout, |wait| {
            let report = self.open_service()?.shutdown(mode(interrupt), wait)?;
            Ok((report.joined, report.stuck.iter().map(ToString::to_string).collect()))
        })
    }

    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        detached(py, || self.open_service()?.descriptor())
    }

    fn stats(&self, py: Python<'_>) -> PyResult<String> {
        detached(py, || Ok(serde_json::to_string(&self.open_service()?.control().stats())?))
    }

    #[pyo3(signature = (timeout))]
    fn next_event(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<NextItem> {
        waiting(py, timeout, |wait| {
            converted(self.open_service()?.next_event(wait)?, |event| match event {
                ServiceEvent::Event(event) => Ok(serde_json::to_string(event)?),
                ServiceEvent::TurnFinished(turn) => Ok(serde_json::json!({
                    "session_id": turn.session_id(),
                    "turn_id": turn.turn_id(),
                    "seq": 0,
                    "event": {"type": "turn_finished"},
                })
                .to_string()),
            })
        })
    }

    fn create(&self, py: Python<'_>, prompt: String, options: &str) -> PyResult<String> {
        waiting(py, None, |wait| {
            let options: CreateOptions = requests::parse(options)?;
            result_json(&self.open_service()?.create_session(options.into_request(prompt), wait)?)
        })
    }

    fn begin_session(&self, py: Python<'_>, prompt: String, options: &str, stream: bool) -> PyResult<Turn> {
        detached(py, || {
            let service = self.open_service()?;
            let options: CreateOptions = requests::parse(options)?;
            let request = options.into_request(prompt);
            let turn = if stream { service.stream_session(request)? } else { service.begin_session(request)? };
            service.watch_turn(&turn);
            Ok(Turn::new(turn))
        })
    }

    fn open(&self, py: Python<'_>, spec: &str) -> PyResult<String> {
        waiting(py, None, |wait| {
            let spec: SpecOptions = requests::parse(spec)?;
            Ok(self.open_service()?.open_session(spec.into_spec(), wait)?.to_string())
        })
    }

    fn run_turn(&self, py: Python<'_>, session: &str, prompt: String, options: Option<&str>) -> PyResult<String> {
        waiting(py, None, |wait| {
            let options: TurnOptions = options.map(requests::parse).transpose()?.unwrap_or_default();
            result_json(&self.open_service()?.start_turn(id(session)?, options.into_request(prompt), wait)?)
        })
    }

    fn begin_turn(
        &self,
        py: Python<'_>,
        session: &str,
        prompt: String,
        options: Option<&str>,
        stream: bool,
    ) -> PyResult<Turn> {
        detached(py, || {
            let service = self.open_service()?;
            let options: TurnOptions = options.map(requests::parse).transpose()?.unwrap_or_default();
            let (id, request) = (id(session)?, options.into_request(prompt));
            let turn = if stream { service.stream_turn(id, request)? } else { service.begin_turn(id, request)? };
            service.watch_turn(&turn);
            Ok(Turn::new(turn))
        })
    }

    fn interrupt(&self, py: Python<'_>, session: &str, turn: Option<u64>) -> PyResult<()> {
        detached(py, || {
            let (service, id) = (self.open_service()?, id(session)?);
            let control = service.control();
            match turn {
                Some(turn) => Ok(control.interrupt_turn(id, TurnId::new(turn))?),
                None => Ok(control.interrupt(id)?),
            }
        })
    }

    fn interrupt_interaction(&self, py: Python<'_>, session: &str, interaction: &str) -> PyResult<()> {
        detached(py, || {
            let interaction = interaction
                .parse()
                .map_err(|error: library::InvalidId| Failure::new(TURNWISE_INVALID_ID, error.to_string()))?;
            Ok(self.open_service()?.control().interrupt_interaction(id(session)?, interaction)?)
        })
    }

    fn respond(&self, py: Python<'_>, session: &str, input: u64, answer: String) -> PyResult<()> {
        detached(py, || {
            let response = InputResponse::Answer(answer);
            Ok(self.open_service()?.control().respond(id(session)?, InputId::new(input), response)?)
        })
    }

    fn decline(&self, py: Python<'_>, session: &str, input: u64, reason: Option<String>) -> PyResult<()> {
        detached(py, || {
            let response = InputResponse::Declined { reason };
            Ok(self.open_service()?.control().respond(id(session)?, InputId::new(input), response)?)
        })
    }

    fn pending_inputs(&self, py: Python<'_>, session: &str) -> PyResult<String> {
        detached(py, || Ok(serde_json::to_string(&self.open_service()?.control().pending_inputs(id(session)?)?)?))
    }

    fn steer(&self, py: Python<'_>, session: &str, message: &str, turn: Option<u64>) -> PyResult<Subscription> {
        detached(py, || {
            let (service, content) = (self.open_service()?, InteractionContent::message(message));
            let subscription = service.steer(id(session)?, turn.map(TurnId::new), content)?;
            service.watch_subscription(&subscription);
            Ok(Subscription::new(subscription))
        })
    }

    fn inject(&self, py: Python<'_>, session: &str, message: String, name: &str) -> PyResult<Subscription> {
        detached(py, || {
            let service = self.open_service()?;
            let subscription = service.inject(id(session)?, message, source(name))?;
            service.watch_subscription(&subscription);
            Ok(Subscription::new(subscription))
        })
    }

    fn dismiss(&self, py: Python<'_>, session: &str, name: &str) -> PyResult<()> {
        detached(py, || self.open_service()?.dismiss(id(session)?, source(name)))
    }

    fn subscribe(&self, py: Python<'_>, session: Option<&str>, options: &str) -> PyResult<Subscription> {
        detached(py, || {
            let service = self.open_service()?;
            let options: SubscriptionSettings = requests::parse(options)?;
            let subscription = service.subscribe(session.map(id).transpose()?, options)?;
            service.watch_subscription(&subscription);
            Ok(Subscription::new(subscription))
        })
    }

    fn read(&self, py: Python<'_>, session: &str) -> PyResult<String> {
        detached(py, || Ok(serde_json::to_string(&self.open_service()?.control().read(id(session)?)?)?))
    }

    fn list(&self, py: Python<'_>, query: &str, archived: bool) -> PyResult<String> {
        detached(py, || {
            let (service, query) = (self.open_service()?, requests::parse::<SessionQuery>(query)?);
            let listed = if archived { service.list_archived(query)? } else { service.control().list(query)? };
            Ok(serde_json::to_string(&listed)?)
        })
    }

    fn history(&self, py: Python<'_>, session: &str) -> PyResult<(String, u64)> {
        detached(py, || {
            let (history, boundary) = self.open_service()?.control().history_at(id(session)?)?;
            Ok((serde_json::to_string(&history)?, boundary))
        })
    }

    #[pyo3(signature = (session, take, timeout))]
    fn export(&self, py: Python<'_>, session: &str, take: bool, timeout: Option<f64>) -> PyResult<String> {
        waiting(py, timeout, |wait| {
            let (service, id) = (self.open_service()?, id(session)?);
            let history = if take { service.take(id, wait)? } else { service.export(id, wait)? };
            Ok(serde_json::to_string(&history)?)
        })
    }

    fn set_labels(&self, py: Python<'_>, session: &str, labels: BTreeMap<String, String>) -> PyResult<()> {
        detached(py, || Ok(self.open_service()?.control().set_labels(id(session)?, labels)?))
    }

    fn archive(&self, py: Python<'_>, session: &str, interrupt: bool) -> PyResult<()> {
        detached(py, || Ok(self.open_service()?.control().archive_with(id(session)?, mode(interrupt))?))
    }

    #[pyo3(signature = (session, timeout))]
    fn archive_wait(&self, py: Python<'_>, session: &str, timeout: Option<f64>) -> PyResult<()> {
        waiting(py, timeout, |wait| self.open_service()?.archive_wait(id(session)?, wait))
    }

    #[pyo3(signature = (session, timeout))]
    fn wait_idle(&self, py: Python<'_>, session: &str, timeout: Option<f64>) -> PyResult<()> {
        waiting(py, timeout, |wait| self.open_service()?.wait_idle(id(session)?, wait))
    }

    #[pyo3(signature = (session, timeout))]
    fn restart(&self, py: Python<'_>, session: &str, timeout: Option<f64>) -> PyResult<()> {
        waiting(py, timeout, |wait| self.open_service()?.restart(id(session)?, &wait))
    }

    fn resume(&self, py: Python<'_>, session: &str) -> PyResult<()> {
        detached(py, || self.open_service()?.resume(id(session)?))
    }

    #[pyo3(signature = (session, timeout))]
    fn unload(&self, py: Python<'_>, session: &str, timeout: Option<f64>) -> PyResult<()> {
        waiting(py, timeout, |wait| self.open_service()?.unload(id(session)?, wait))
    }

    fn delete(&self, py: Python<'_>, session: &str) -> PyResult<()> {
        detached(py, || self.open_service()?.delete(id(session)?))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop_detached(self.service.get_mut().take());
    }
}

/// Shuts every service down, for the exit hook, within `timeout` seconds in all. Adds the sessions that are stuck to a
/// list, which the hook has even if a signal handler raises at the return. Afterwards no other thread of the library
/// runs Python code.
#[pyfunction]
pub(crate) fn shut_down_all(py: Python<'_>, timeout: f64, stuck: &Bound<'_, PyList>) -> PyResult<()> {
    if fork::is_child() || interpreter::has_ended() {
        // The sessions are those of the parent, or this is the second call of the hook.
        return Ok(());
    }
    errors::prepare(py)?;
    let ids = py.detach(|| {
        let registered = SERVICES.lock().take().unwrap_or_default();
        let services: Vec<_> = registered.into_iter().filter_map(|service| service.upgrade()).collect();
        let wait = Wait::new(milliseconds(Some(timeout)));
        // All of them are told first, so that they end at the same time.
        for service in &services {
            service.control().shutdown_with(ArchiveMode::Interrupt, Duration::ZERO);
        }
        let stuck = interpreter::wait_for_sessions(wait.remaining().unwrap_or_default());
        for service in services {
            if stuck.is_empty() {
                // Joins the threads, which run no Python code any more.
                service.control().shutdown_with(ArchiveMode::Interrupt, wait.remaining().unwrap_or_default());
            }
            service.close();
        }
        // Threads of the program that wait get the close, and attach again.
        interpreter::end(Duration::from_secs(1));
        stuck
    });
    ids.iter().try_for_each(|id| stuck.append(id.to_string()))
}
