//! The feeds of sessions' events that a worker has.
//!
//! A feed has one thread at a time, for as long as the session has a local life. Its numbers go on within one epoch, from
//! one life to the next.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::SessionId;
use crate::sync::{Arc, Mutex};
use crate::time::clock::Clock;
use crate::wait::latch::Latch;

use super::feed::Progress;

/// How long the threads of a session may take for their last events. Mostly one step.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Feeds {
    sessions: Mutex<HashMap<SessionId, HashMap<String, Entry>>>,
}

struct Entry {
    epoch: Arc<str>,
    progress: Arc<Mutex<Progress>>,
    /// Set to end the thread. `None` without one.
    end: Option<Arc<Latch>>,
    /// Set when the last thread has ended.
    ended: Arc<Latch>,
}

/// What the thread of a feed has of it.
pub(super) struct RunningFeed {
    pub(super) end: Arc<Latch>,
    pub(super) progress: Arc<Mutex<Progress>>,
    ended: Arc<Latch>,
}

impl Drop for RunningFeed {
    fn drop(&mut self) {
        self.ended.set();
    }
}

impl RunningFeed {
    /// Whether nothing was sent before, in this epoch.
    pub(super) fn is_first(&self) -> bool {
        self.progress.lock().is_first()
    }
}

impl Feeds {
    /// Adds a feed, or goes on with it. `None` if it has a thread.
    pub(super) fn start(&self, id: SessionId, name: &str, epoch: &Arc<str>) -> Option<RunningFeed> {
        let mut sessions = self.sessions.lock();
        let new = || {
            let (progress, ended) = (Arc::new(Mutex::new(Progress::new())), Arc::new(Latch::new()));
            Entry { epoch: Arc::clone(epoch), progress, end: None, ended }
        };
        let entry = sessions.entry(id).or_default().entry(name.to_owned()).or_insert_with(new);
        if entry.epoch != *epoch {
            // The last thread ends by itself: the life that it follows has ended.
            *entry = new();
        }
        if entry.end.is_some() {
            return None;
        }
        let (end, ended) = (Arc::new(Latch::new()), Arc::new(Latch::new()));
        entry.end = Some(Arc::clone(&end));
        entry.ended = Arc::clone(&ended);
        Some(RunningFeed { end, progress: Arc::clone(&entry.progress), ended })
    }

    /// The thread of a feed has ended.
    pub(super) fn end(&self, id: SessionId, name: &str, running: &RunningFeed) {
        let mut sessions = self.sessions.lock();
        let entry = sessions.get_mut(&id).and_then(|feeds| feeds.get_mut(name));
        let is_own = |entry: &&mut Entry| entry.end.as_ref().is_some_and(|end| Arc::ptr_eq(end, &running.end));
        if let Some(entry) = entry.filter(is_own) {
            entry.end = None;
        }
    }

    /// Removes those feeds of a session that are not wanted.
    pub(super) fn keep(&self, id: SessionId, is_wanted: impl Fn(&str) -> bool) {
        let mut sessions = self.sessions.lock();
        if let Some(feeds) = sessions.get_mut(&id) {
            feeds.retain(|name, entry| {
                let is_wanted = is_wanted(name);
                if let Some(end) = entry.end.as_ref().filter(|_| !is_wanted) {
                    end.set();
                }
                is_wanted
            });
            if feeds.is_empty() {
                sessions.remove(&id);
            }
        }
    }

    /// Ends the threads of a session's feeds, and waits until they have sent what the last life has left. Otherwise the
    /// engine would end the feeds before that, or the next worker would begin.
    pub(super) fn finish(&self, id: SessionId) {
        self.stop(id);
        let ended: Vec<Arc<Latch>> = {
            let sessions = self.sessions.lock();
            sessions.get(&id).into_iter().flat_map(HashMap::values).map(|entry| Arc::clone(&entry.ended)).collect()
        };
        let deadline = Clock::System.deadline(PATIENCE);
        for ended in ended {
            // The result does not matter: after the deadline the session is given up all the same.
            let _ = deadline.receive(ended.receiver());
        }
    }

    /// Ends the threads of a session's feeds. The next life goes on with the feeds.
    pub(super) fn stop(&self, id: SessionId) {
        let mut sessions = self.sessions.lock();
        for entry in sessions.get_mut(&id).into_iter().flat_map(HashMap::values_mut) {
            if let Some(end) = entry.end.take() {
                end.set();
            }
        }
    }
}
