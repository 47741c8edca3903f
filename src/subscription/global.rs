//! The subscribers of every session of a service.
//!
//! # No session is missed
//!
//! A new subscriber enters the list first, then it is added to every session in the registry. A new session enters the
//! registry first, then it takes the subscribers of the list, then it starts its thread. However the two interleave, at
//! least one finds the other. If both do, the second addition changes nothing.
//!
//! A shutdown takes no new sessions, and ends the list. A session may be in the registry by then, and may not have taken
//! the subscribers yet. So the shutdown adds them to every session in the registry before it ends the list.

use crate::sync::{Arc, Mutex};

use super::bus::Bus;
use super::queue::Queue;

/// The subscribers; `None` once the service takes no new sessions.
#[derive(Debug)]
pub(crate) struct GlobalSubscribers(Mutex<Option<Vec<Arc<Queue>>>>);

impl GlobalSubscribers {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }

    /// Adds a subscriber for the sessions that start from now on.
    pub(crate) fn add(&self, queue: &Arc<Queue>) {
        if let Some(queues) = &mut *self.0.lock() {
            queues.retain(|other| !other.is_stream_dropped());
            queues.push(Arc::clone(queue));
        }
    }

    /// Adds every subscriber to a new session.
    pub(crate) fn attach_all(&self, bus: &Bus) {
        let queues = match &*self.0.lock() {
            Some(queues) if !queues.is_empty() => queues.clone(),
            _ => return,
        };
        for queue in queues.iter().filter(|queue| !queue.is_stream_dropped()) {
            bus.attach(queue);
        }
    }

    /// Ends the list: the service takes no new sessions, and every session has the subscribers. The streams go on until the last of the existing sessions has
    /// ended.
    pub(crate) fn close(&self) {
        let queues = self.0.lock().take();
        drop(queues);
    }
}
