//! The feeds of sessions' events that a worker has.
//!
//! A feed has one thread that reads, for as long as the session has a local life. Its numbers go on within one epoch, from
//! one life to the next. A thread that reads no more may still have events to send; the next one sends nothing before it
//! has ended.
//!
//! # A session that makes room
//!
//! The local service unloads no session that has a subscriber. So the feeds of an idle session drop their streams when
//! another session needs the room. The next life of the session goes on with them. A turn may begin at that moment:
//!
//! ```text
//! attendant of the session                another attendant
//! begin_turn: the session is busy
//! start: goes on with the feeds           release: under the same lock, passes over busy sessions
//! begins the turn
//! ```
//!
//! If the release comes first, `start` finds that the feeds have stopped.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::model::SessionId;
use crate::sync::{Arc, Instant, Mutex};
use crate::time::clock::{Clock, Deadline};
use crate::wait::latch::Latch;

use super::feed::{Orders, Progress};

/// How long the threads of a session may wait for credit, once the session is given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long they may take then to report what is missing. Mostly one step.
const REPORT: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Feeds {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    sessions: HashMap<SessionId, SessionFeeds>,
    /// The sessions with a turn here.
    busy: HashSet<SessionId>,
}

struct SessionFeeds {
    feeds: HashMap<String, Entry>,
    /// When the session was used last.
    used: Instant,
}

/// A session with a turn, whose feeds are not released.
pub(super) struct BusySession {
    feeds: Arc<Feeds>,
    id: SessionId,
}

impl Drop for BusySession {
    fn drop(&mut self) {
        let mut table = self.feeds.table.lock();
        table.busy.remove(&self.id);
        if let Some(session) = table.sessions.get_mut(&self.id) {
            session.used = Clock::System.now();
        }
    }
}

impl Table {
    fn entries(&mut self, id: SessionId) -> impl Iterator<Item = &mut Entry> {
        self.sessions.get_mut(&id).into_iter().flat_map(|session| session.feeds.values_mut())
    }
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
    has_begun: bool,
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

    /// The thread runs. Without this the drop leaves the feed as it was before.
    pub(super) fn begin(&mut self) {
        self.has_begun = true;
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
        self.feeds.end(self);
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
        let mut table = self.table.lock();
        let new = || SessionFeeds { feeds: HashMap::new(), used: Clock::System.now() };
        let session = table.sessions.entry(id).or_insert_with(new);
        let entry = session.feeds.entry(name.to_owned()).or_insert_with(|| Entry::new(epoch));
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
        Some(RunningFeed { feeds, id, name: name.to_owned(), thread, before, cut, has_begun: false, progress })
    }

    /// The thread of a feed has ended, or was not started.
    fn end(&self, running: &RunningFeed) {
        let mut table = self.table.lock();
        let entry = table.sessions.get_mut(&running.id).and_then(|session| session.feeds.get_mut(&running.name));
        let is_last = |entry: &&mut Entry| entry.thread.as_ref().is_some_and(|last| Arc::ptr_eq(last, &running.thread));
        if let Some(entry) = entry.filter(is_last) {
            entry.is_reading = false;
            if !running.has_begun {
                entry.thread.clone_from(&running.before);
            }
        }
    }

    /// Removes those feeds of a session that are not wanted. Their threads wait for nothing.
    pub(super) fn keep(&self, id: SessionId, is_wanted: impl Fn(&str) -> bool) {
        let mut table = self.table.lock();
        if let Some(session) = table.sessions.get_mut(&id) {
            session.feeds.retain(|name, entry| {
                let is_wanted = is_wanted(name);
                if !is_wanted {
                    entry.cut();
                }
                is_wanted
            });
            if session.feeds.is_empty() {
                table.sessions.remove(&id);
            }
        }
    }

    /// Ends the threads of a session's feeds, and waits until they have sent what the last life has left, until `deadline`.
    /// Then they report what is missing. Otherwise the engine would end the feeds before that, or the next worker would
    /// begin.
    pub(super) fn finish(&self, id: SessionId, deadline: &Deadline) {
        self.stop(id);
        let threads: Vec<Arc<FeedThread>> =
            self.table.lock().entries(id).filter_map(|entry| entry.thread.clone()).collect();
        wait_until_ended(&threads, deadline);
        self.table.lock().entries(id).for_each(Entry::cut);
        wait_until_ended(&threads, &Clock::System.deadline(REPORT));
    }

    /// Ends the reading of a session's events. The next life goes on with the feeds.
    pub(super) fn stop(&self, id: SessionId) {
        self.table.lock().entries(id).for_each(Entry::stop);
    }

    /// A turn of the session is about to begin, until the value is dropped.
    pub(super) fn begin_turn(self: &Arc<Self>, id: SessionId) -> BusySession {
        self.table.lock().busy.insert(id);
        BusySession { feeds: Arc::clone(self), id }
    }

    /// Whether a session has feeds, with a local life or without.
    pub(super) fn has_any(&self, id: SessionId) -> bool {
        self.table.lock().sessions.contains_key(&id)
    }

    /// Ends the reading of the events of the idle session that was used longest ago, so that it may be unloaded. Waits until
    /// its streams are dropped. Returns the session. `None` if no idle session has a feed that reads, or not before
    /// `deadline`.
    pub(super) fn release(&self, deadline: &Deadline) -> Option<SessionId> {
        let (id, threads) = {
            let mut table = self.table.lock();
            let Table { sessions, busy } = &*table;
            let idle = sessions
                .iter()
                .filter(|(id, session)| !busy.contains(id) && session.feeds.values().any(|entry| entry.is_reading));
            let id = *idle.min_by_key(|(_, session)| session.used)?.0;
            let threads: Vec<Arc<FeedThread>> = table.entries(id).filter_map(|entry| entry.thread.clone()).collect();
            table.entries(id).for_each(Entry::stop);
            (id, threads)
        };
        let is_released = |thread: &Arc<FeedThread>| {
            let _ = deadline.receive(thread.released.receiver());
            thread.released.is_set()
        };
        threads.iter().all(is_released).then_some(id)
    }
}

/// The result does not matter: after the deadline the session is given up all the same.
fn wait_until_ended(threads: &[Arc<FeedThread>], deadline: &Deadline) {
    for thread in threads {
        let _ = deadline.receive(thread.ended.receiver());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> (Arc<Feeds>, SessionId, Arc<str>) {
        (Arc::default(), SessionId::new(), "1".into())
    }

    #[test]
    fn c85_a_feed_whose_thread_is_not_started_is_as_before() {
        let (feeds, id, epoch) = set();
        drop(feeds.start(id, "feed", &epoch).unwrap());
        let mut running = feeds.start(id, "feed", &epoch).unwrap();
        assert!(running.is_first());
        assert!(feeds.start(id, "feed", &epoch).is_none(), "it has a thread");
        running.begin();
        drop(running);
        drop(feeds.start(id, "feed", &epoch).unwrap());
        assert!(!feeds.start(id, "feed", &epoch).unwrap().is_first());
        assert!(feeds.start(id, "feed", &"2".into()).unwrap().is_first(), "in another epoch");
    }

    #[test]
    fn c86_the_idle_session_that_was_used_longest_ago_is_released() {
        let (feeds, first, epoch) = set();
        let [second, third] = [(); 2].map(|()| SessionId::new());
        let busy = feeds.begin_turn(first);
        let running = [first, second, third].map(|id| feeds.start(id, "feed", &epoch).unwrap());
        let release = || feeds.release(&Clock::System.deadline(Duration::ZERO));
        // The thread has not dropped its stream.
        assert_eq!(release(), None);
        assert!(running[1].orders().stop.is_set() && !running[0].orders().stop.is_set());
        running[2].orders().released.unwrap().set();
        assert_eq!(release(), Some(third));
        assert_eq!(release(), None, "the other one is busy");
        running[0].orders().released.unwrap().set();
        drop(busy);
        assert_eq!(release(), Some(first));
        assert_eq!(release(), None);
    }
}
