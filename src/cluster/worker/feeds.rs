//! The feeds of sessions' events that run in a worker.

use std::collections::HashMap;

use crate::model::SessionId;
use crate::sync::{Arc, Mutex};
use crate::wait::latch::Latch;

/// Each feed by its session and its name, with the latch that ends it.
#[derive(Default)]
pub(super) struct Feeds {
    running: Mutex<HashMap<SessionId, HashMap<String, Arc<Latch>>>>,
}

impl Feeds {
    /// Adds a feed. `None` if it runs already.
    pub(super) fn add(&self, id: SessionId, name: &str) -> Option<Arc<Latch>> {
        let mut running = self.running.lock();
        let feeds = running.entry(id).or_default();
        if feeds.contains_key(name) {
            return None;
        }
        let end = Arc::new(Latch::new());
        feeds.insert(name.to_owned(), Arc::clone(&end));
        Some(end)
    }

    pub(super) fn remove(&self, id: SessionId, name: &str) {
        let mut running = self.running.lock();
        if let Some(feeds) = running.get_mut(&id) {
            feeds.remove(name);
            if feeds.is_empty() {
                running.remove(&id);
            }
        }
    }

    /// Ends those feeds of a session that are not wanted. They stay in the table until their threads remove them.
    pub(super) fn keep(&self, id: SessionId, is_wanted: impl Fn(&str) -> bool) {
        let running = self.running.lock();
        for (name, end) in running.get(&id).into_iter().flatten() {
            if !is_wanted(name) {
                end.set();
            }
        }
    }
}
