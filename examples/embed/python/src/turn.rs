//! Turns and subscriptions.

use std::sync::Arc;

use embed::host::events::Next;
use embed::host::requests::event_json;
use embed::host::subscription::{self, Item};
use embed::host::turn;
use library::{InteractionId, RunResult, SessionId, TurnId};
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::interpreter::{detached, drop_detached, waiting};

/// A begun turn.
#[pyclass(frozen, module = "turnwise._native")]
#[derive(Debug)]
pub(crate) struct Turn {
    /// `None` after the close, which frees the queue of the events. A call takes a share for its length.
    turn: Mutex<Option<Arc<turn::Turn>>>,
    session_id: SessionId,
    turn_id: TurnId,
}

/// A result, as JSON.
pub(crate) fn result_json(result: &RunResult) -> Result<String, embed::codes::Failure> {
    Ok(serde_json::to_string(result)?)
}

/// The next item of a queue: whether there will be more, and the item.
pub(crate) type NextItem = (bool, Option<String>);

pub(crate) fn next_item(next: Next<String>) -> NextItem {
    match next {
        Next::Event(json) => (true, Some(json)),
        Next::Empty => (true, None),
        Next::End => (false, None),
    }
}

/// An item of a subscription, as JSON.
pub(crate) fn item_json(item: &Item) -> Result<String, embed::codes::Failure> {
    match item {
        Item::Numbered(event) => Ok(serde_json::to_string(event)?),
        Item::OfInteraction(session, event) => {
            Ok(serde_json::json!({"session_id": session, "turn_id": null, "seq": 0, "event": event}).to_string())
        }
    }
}

pub(crate) fn converted<T>(
    next: Next<T>,
    convert: impl FnOnce(&T) -> Result<String, embed::codes::Failure>,
) -> Result<NextItem, embed::codes::Failure> {
    Ok(next_item(match next {
        Next::Event(item) => Next::Event(convert(&item)?),
        Next::Empty => Next::Empty,
        Next::End => Next::End,
    }))
}

impl Turn {
    pub(crate) fn new(turn: Arc<turn::Turn>) -> Self {
        Self { session_id: turn.session_id(), turn_id: turn.turn_id(), turn: Mutex::new(Some(turn)) }
    }

    fn inner(&self) -> Result<Arc<turn::Turn>, embed::codes::Failure> {
        self.turn.lock().clone().ok_or_else(embed::codes::Failure::closed)
    }
}

#[pymethods]
impl Turn {
    fn ids(&self) -> (String, u64) {
        (self.session_id.to_string(), self.turn_id.get())
    }

    fn interrupt(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || {
            self.inner()?.interrupt();
            Ok(())
        })
    }

    fn is_finished(&self, py: Python<'_>) -> PyResult<bool> {
        detached(py, || Ok(self.inner()?.is_finished()))
    }

    /// The result as JSON; `None` if it does not come in time.
    #[pyo3(signature = (timeout))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<String>> {
        waiting(py, timeout, |wait| self.inner()?.wait(wait)?.as_ref().map(result_json).transpose())
    }

    #[pyo3(signature = (timeout))]
    fn next_event(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<NextItem> {
        waiting(py, timeout, |wait| converted(self.inner()?.next_event(wait)?, event_json))
    }

    /// Wakes the threads that wait for the turn, and frees its queue. The turn goes on.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || {
            let turn = self.turn.lock().take();
            if let Some(turn) = turn {
                turn.closed.set();
            }
            Ok(())
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop_detached(self.turn.get_mut().take());
    }
}

/// A queue of events.
#[pyclass(frozen, module = "turnwise._native")]
#[derive(Debug)]
pub(crate) struct Subscription {
    /// `None` after the close, which frees the queue. A call takes a share for its length.
    subscription: Mutex<Option<Arc<subscription::Subscription>>>,
    interaction_id: Option<InteractionId>,
}

impl Subscription {
    pub(crate) fn new(subscription: Arc<subscription::Subscription>) -> Self {
        Self { interaction_id: subscription.interaction_id(), subscription: Mutex::new(Some(subscription)) }
    }

    fn inner(&self) -> Result<Arc<subscription::Subscription>, embed::codes::Failure> {
        self.subscription.lock().clone().ok_or_else(embed::codes::Failure::closed)
    }
}

#[pymethods]
impl Subscription {
    #[pyo3(signature = (timeout))]
    fn next_event(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<NextItem> {
        waiting(py, timeout, |wait| {
            let subscription = self.inner()?;
            subscription.closed.check()?;
            converted(subscription.next_event(wait)?, item_json)
        })
    }

    fn dropped(&self, py: Python<'_>) -> PyResult<u64> {
        detached(py, || Ok(self.inner()?.dropped()))
    }

    fn interaction_id(&self) -> Option<String> {
        self.interaction_id.map(|id| id.to_string())
    }

    /// Wakes the threads that wait for the subscription, and frees its queue.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || {
            let subscription = self.subscription.lock().take();
            if let Some(subscription) = subscription {
                subscription.closed.set();
            }
            Ok(())
        })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        drop_detached(self.subscription.get_mut().take());
    }
}
