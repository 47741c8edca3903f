//! The feeds of sessions' events that a worker has.
//!
//! A feed has one thread that reads, for as long as the session has a local life. Its numbers go on within one epoch, from
//! one life to the next. A thread that reads no more may still have events to send; the next one sends nothing before it
//! has ended.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::SessionId;
use crate::sync::{Arc, Mutex};
use crate::time::clock::{Clock, Deadline};
use crate::wait::latch::Latch;

use super::feed::{Orders, Progress};

/// How long the threads of a session may wait for credit, once the session is given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long they may take then to report what is missing. Mostly one step.
const REPORT: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Feeds {
    sessions: Mutex<HashMap<SessionId, HashMap<String, Entry>>>,
}

struct Entry {
    epoch: Arc<str>,
    progress: Arc<Mutex<Progress>>,
    /// Set to end the waits of all threads for credit.
    cut: Arc<Latch>,
    /// The last thread. `None` before the first one.
    thread: Option<Arc<FeedThread>>,
    /// Whether the last thread reads.
    is_reading: bool,
}

/// A thread of a feed.
struct FeedThread {
    /// Set to end its reading.
    stop: Latch,
    /// Set when it has dropped its stream.
    released: Latch,
    ended: Latch,
}

/// What the thread of a feed has of it. The drop is the end of the thread.
pub(super) struct RunningFeed {
    feeds: Arc<Feeds>,
    id: SessionId,
    name: String,
    thread: Arc<FeedThread>,
    before: Option<Arc<FeedThread>>,
    cut: Arc<Latch>,
    pub(super) progress: Arc<Mutex<Progress>>,
}

impl FeedThread {
    fn new() -> Self {
        Self { stop: Latch::new(), released: Latch::new(), ended: Latch::new() }
    }
}

impl RunningFeed {
    /// Whether the feed had no thread before, in this epoch.
    pub(super) fn is_first(&self) -> bool {
        self.before.is_none()
    }

    pub(super) fn orders(&self) -> Orders<'_> {
        Orders {
            stop: &self.thread.stop,
            cut: &self.cut,
            before: self.before.as_ref().map(|before| &before.ended),
            released: Some(&self.thread.released),
        }
    }
}

impl Drop for RunningFeed {
    fn drop(&mut self) {
        self.feeds.end(self.id, &self.name, &self.thread);
        self.thread.released.set();
        self.thread.ended.set();
    }
}

impl Entry {
    fn new(epoch: &Arc<str>) -> Self {
        let (progress, cut) = (Arc::new(Mutex::new(Progress::new())), Arc::new(Latch::new()));
        Self { epoch: Arc::clone(epoch), progress, cut, thread: None, is_reading: false }
    }

    fn stop(&mut self) {
        self.is_reading = false;
        if let Some(thread) = &self.thread {
            thread.stop.set();
        }
    }

    fn cut(&mut self) {
        self.stop();
        self.cut.set();
    }
}

impl Feeds {
    /// Adds a feed, or goes on with it. `None` if it has a thread that reads.
    pub(super) fn start(self: &Arc<Self>, id: SessionId, name: &str, epoch: &Arc<str>) -> Option<RunningFeed> {
        let mut sessions = self.sessions.lock();
        let feeds = sessions.entry(id).or_default();
        let entry = feeds.entry(name.to_owned()).or_insert_with(|| Entry::new(epoch));
        if entry.epoch != *epoch {
            // The life that the last thread follows has ended.
            entry.cut();
            *entry = Entry::new(epoch);
        }
        if entry.is_reading {
            return None;
        }
        if entry.cut.is_set() {
            // The session was to be given up, and stays.
            entry.cut = Arc::new(Latch::new());
        }
        let thread = Arc::new(FeedThread::new());
        entry.is_reading = true;
        let before = entry.thread.replace(Arc::clone(&thread));
        let (cut, progress) = (Arc::clone(&entry.cut), Arc::clone(&entry.progress));
        let feeds = Arc::clone(self);
        Some(RunningFeed { feeds, id, name: name.to_owned(), thread, before, cut, progress })
    }

    /// The thread of a feed has ended.
    fn end(&self, id: SessionId, name: &str, thread: &Arc<FeedThread>) {
        let mut sessions = self.sessions.lock();
        let entry = sessions.get_mut(&id).and_then(|feeds| feeds.get_mut(name));
        let is_last = |entry: &&mut Entry| entry.thread.as_ref().is_some_and(|last| Arc::ptr_eq(last, thread));
        if let Some(entry) = entry.filter(is_last) {
            entry.is_reading = false;
        }
    }

    /// Removes those feeds of a session that are not wanted. Their threads wait for nothing.
    pub(super) fn keep(&self, id: SessionId, is_wanted: impl Fn(&str) -> bool) {
        let mut sessions = self.sessions.lock();
        if let Some(feeds) = sessions.get_mut(&id) {
            feeds.retain(|name, entry| {
                let is_wanted = is_wanted(name);
                if !is_wanted {
                    entry.cut();
                }
                is_wanted
            });
            if feeds.is_empty() {
                sessions.remove(&id);
            }
        }
    }

    /// Ends the threads of a session's feeds, and waits until they have sent what the last life has left, until `deadline`.
    /// Then they report what is missing. Otherwise the engine would end the feeds before that, or the next worker would
    /// begin.
    pub(super) fn finish(&self, id: SessionId, deadline: &Deadline) {
        self.stop(id);
        let threads: Vec<Arc<FeedThread>> = {
            let sessions = self.sessions.lock();
            sessions.get(&id).into_iter().flat_map(HashMap::values).filter_map(|entry| entry.thread.clone()).collect()
        };
        wait_until_ended(&threads, deadline);
        self.sessions.lock().get_mut(&id).into_iter().flat_map(HashMap::values_mut).for_each(Entry::cut);
        wait_until_ended(&threads, &Clock::System.deadline(REPORT));
    }

    /// Ends the reading of a session's events. The next life goes on with the feeds.
    pub(super) fn stop(&self, id: SessionId) {
        let mut sessions = self.sessions.lock();
        sessions.get_mut(&id).into_iter().flat_map(HashMap::values_mut).for_each(Entry::stop);
    }
}

/// The result does not matter: after the deadline the session is given up all the same.
fn wait_until_ended(threads: &[Arc<FeedThread>], deadline: &Deadline) {
    for thread in threads {
        let _ = deadline.receive(thread.ended.receiver());
    }
}
