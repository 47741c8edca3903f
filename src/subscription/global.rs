//! Those who listen to every session of a service.
//!
//! # None is missed
//!
//! A new subscriber goes into the list first, then to every session in the registry. A new session goes into the registry
//! first, then takes the subscribers of the list, then starts its thread. Whichever way the two interleave, one of them
//! finds the other; both may, and the second time changes nothing.

use crate::sync::{Arc, Mutex};

use super::bus::Bus;
use super::queue::Queue;

/// The list; `None` once the service takes no new sessions.
#[derive(Debug)]
pub(crate) struct GlobalSubscribers(Mutex<Option<Vec<Arc<Queue>>>>);

impl GlobalSubscribers {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }

    /// Adds somebody to those that new sessions will tell.
    pub(crate) fn add(&self, queue: &Arc<Queue>) {
        if let Some(queues) = &mut *self.0.lock() {
            queues.retain(|other| !other.is_gone());
            queues.push(Arc::clone(queue));
        }
    }

    /// Has a new session tell everyone.
    pub(crate) fn listen_to(&self, bus: &Bus) {
        let queues = match &*self.0.lock() {
            Some(queues) if !queues.is_empty() => queues.clone(),
            _ => return,
        };
        for queue in queues.iter().filter(|queue| !queue.is_gone()) {
            bus.attach(queue);
        }
    }

    /// No new sessions: whoever listens does so until the last of those that there are has ended.
    pub(crate) fn close(&self) {
        let queues = self.0.lock().take();
        drop(queues);
    }
}
