//! The service of a host: one in memory or one with a store, with its close and its descriptor.

use std::fmt;
use std::os::fd::RawFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam_channel::{bounded, Select, SendError, TryRecvError};
use library::store::{FileStore, PersistentSessionService};
use library::{
    ArchiveMode, CreateSessionRequest, EphemeralSessionService, EventSource, InteractionContent, RestartPolicy,
    RunResult, ServiceControl, Session, SessionAgent, SessionAgentBuilder, SessionError, SessionEvent, SessionId,
    SessionQuery, SessionService, SessionSpec, ShutdownReport, StartTurnRequest, SubscribableInjector, TurnId,
};
use parking_lot::Mutex;

use super::closed::Closed;
use super::events::Next;
use super::notifier::Notifier;
use super::requests::{ServiceSettings, SubscriptionSettings};
use super::subscription::{Item, Subscription};
use super::turn::Turn;
use super::wait::{refuse_in_callback, Wait};
use super::{callback, signals};
use crate::codes::{
    Failure, TURNWISE_INVALID_CONFIG, TURNWISE_PANIC, TURNWISE_SESSION_NOT_FOUND, TURNWISE_STORE_FAILED,
    TURNWISE_UNSUPPORTED,
};

/// Builds the agents of a service.
pub type Builder = Arc<dyn SessionAgentBuilder<Agent = Box<dyn SessionAgent>>>;

/// The default of `max_sessions`.
const MAX_SESSIONS: usize = 64;

/// How long an abandoned call waits for the end of the session that it has opened.
const GIVE_UP: Duration = Duration::from_secs(5);

/// A service of a host. It ends with its last share: then every session is closed, without a wait.
pub struct Service {
    hosting: Hosting,
    /// Set when the handle of the host is closed.
    pub closed: Arc<Closed>,
    /// The events of all sessions, if the settings ask for them.
    events: Option<Subscription>,
    notifications: Mutex<Notifications>,
    order: Mutex<Order>,
}

#[derive(Clone)]
enum Hosting {
    Memory(EphemeralSessionService<Builder>),
    Stored(PersistentSessionService<Builder>),
}

/// The descriptor, once a host has asked for it; until then the turns and subscriptions that it has to watch.
#[derive(Default)]
struct Notifications {
    notifier: Option<Arc<Notifier>>,
    turns: Vec<Weak<Turn>>,
    subscriptions: Vec<Weak<Subscription>>,
}

/// Keeps the notice of a turn's end behind the events of that turn.
#[derive(Default)]
struct Order {
    /// The unread events at the moment at which the first notice was seen: all events of its turn are among them.
    events_before_notice: Option<usize>,
}

/// An item of the service's queue.
#[derive(Debug)]
pub enum ServiceEvent {
    /// An event of a session.
    Event(SessionEvent),
    /// A turn has ended, and its session is free.
    TurnFinished(Arc<Turn>),
}

impl Service {
    /// Creates a service: in memory, or with a store in the file `store`.
    pub fn new(builder: Builder, store: Option<&str>, settings: ServiceSettings) -> Result<Arc<Self>, Failure> {
        let events = settings.events.clone().map(SubscriptionSettings::into_subscription).transpose()?;
        let _blocked = signals::block_all();
        let hosting = Hosting::new(builder, store, settings)?;
        let closed = Arc::new(Closed::default());
        let events = events
            .map(|options| Subscription::of_session(hosting.control().subscribe_all(options), Arc::clone(&closed)));
        Ok(Arc::new(Self { hosting, closed, events, notifications: Mutex::default(), order: Mutex::default() }))
    }

    /// The service of the library.
    pub fn control(&self) -> &dyn ServiceControl {
        self.hosting.control()
    }

    fn stored(&self) -> Result<&PersistentSessionService<Builder>, Failure> {
        match &self.hosting {
            Hosting::Stored(service) => Ok(service),
            Hosting::Memory(_) => Err(Failure::new(TURNWISE_UNSUPPORTED, "the service has no store")),
        }
    }

    /// The failure of a call. After a close it is always the close.
    fn failure(&self, error: SessionError) -> Failure {
        if self.closed.is_set() {
            Failure::closed()
        } else {
            error.into()
        }
    }

    /// Whether this call may start a thread: for the build of a session, or for deadlines.
    fn block_signals(&self, has_timeout: bool) -> Option<signals::Blocked> {
        let may_resume = matches!(self.hosting, Hosting::Stored(_));
        (may_resume || has_timeout).then(signals::block_all)
    }

    /// Creates a session and waits for its first turn.
    pub fn create_session(&self, request: CreateSessionRequest, wait: Wait<'_>) -> Result<RunResult, Failure> {
        if callback::is_inside() {
            // A session thread has them blocked. A hook may run on a thread of the host.
            let _blocked = signals::block_all();
            return self.control().create_session(request).map_err(|error| self.failure(error));
        }
        let handle = {
            let _blocked = signals::block_all();
            self.control().begin_session(request).map_err(|error| self.failure(error))?
        };
        self.finish(handle, wait)
    }

    /// Runs a turn and waits for its result.
    pub fn start_turn(&self, id: SessionId, request: StartTurnRequest, wait: Wait<'_>) -> Result<RunResult, Failure> {
        if callback::is_inside() {
            let _blocked = self.block_signals(request.timeout.is_some());
            return self.control().start_turn(id, request).map_err(|error| self.failure(error));
        }
        let handle = {
            let _blocked = self.block_signals(request.timeout.is_some());
            self.control().begin_turn(id, request).map_err(|error| self.failure(error))?
        };
        self.finish(handle, wait)
    }

    /// Waits for a turn: first as the library does, which polls before it parks, then also for the close.
    fn finish(&self, mut handle: library::TurnHandle, mut wait: Wait<'_>) -> Result<RunResult, Failure> {
        wait.run_check().inspect_err(|_| handle.interrupt())?;
        if let Some(result) = handle.wait_timeout(wait.slice()) {
            return result.map_err(|error| self.failure(error));
        }
        while !handle.is_finished() {
            self.closed.check()?;
            let mut select = Select::new();
            select.recv(handle.finished());
            select.recv(self.closed.receiver());
            wait.park(&mut select).inspect_err(|_| handle.interrupt())?;
        }
        handle.wait().map_err(|error| self.failure(error))
    }

    /// Begins a session with its first turn.
    pub fn begin_session(&self, request: CreateSessionRequest) -> Result<Arc<Turn>, Failure> {
        let _blocked = signals::block_all();
        let handle = self.control().begin_session(request).map_err(|error| self.failure(error))?;
        Ok(Arc::new(Turn::plain(handle, Arc::clone(&self.closed))))
    }

    /// Begins a session with its first turn, as a stream of events.
    pub fn stream_session(&self, request: CreateSessionRequest) -> Result<Arc<Turn>, Failure> {
        let _blocked = signals::block_all();
        let stream = self.control().stream_session(request).map_err(|error| self.failure(error))?;
        Ok(Arc::new(Turn::stream(stream, Arc::clone(&self.closed))))
    }

    /// Begins a turn.
    pub fn begin_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<Arc<Turn>, Failure> {
        let _blocked = self.block_signals(request.timeout.is_some());
        let handle = self.control().begin_turn(id, request).map_err(|error| self.failure(error))?;
        Ok(Arc::new(Turn::plain(handle, Arc::clone(&self.closed))))
    }

    /// Begins a turn, as a stream of events.
    pub fn stream_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<Arc<Turn>, Failure> {
        let _blocked = self.block_signals(request.timeout.is_some());
        let stream = self.control().stream_turn(id, request).map_err(|error| self.failure(error))?;
        Ok(Arc::new(Turn::stream(stream, Arc::clone(&self.closed))))
    }

    /// Makes a call that may wait for the build of an agent.
    ///
    /// On a host's thread another thread makes the call, with signals blocked: the caller can take signals and the close
    /// during the wait, and the session thread inherits the mask. `give_up` gets the value if the caller has left.
    fn apart<T: Send + 'static>(
        self: &Arc<Self>,
        mut wait: Wait<'_>,
        call: impl FnOnce(&Self) -> Result<T, SessionError> + Send + 'static,
        give_up: impl FnOnce(&Self, T) + Send + 'static,
    ) -> Result<T, Failure> {
        if callback::is_inside() {
            // A session thread has them blocked. A hook may run on a thread of the host.
            let _blocked = signals::block_all();
            return call(self).map_err(|error| self.failure(error));
        }
        // Without room: the caller takes the value, or the sender learns that it has left.
        let (reply, returned) = bounded(0);
        let service = Arc::clone(self);
        {
            let _blocked = signals::block_all();
            std::thread::Builder::new().name("turnwise-call".into()).spawn(move || {
                if let Err(SendError(Ok(value))) = reply.send(call(&service)) {
                    give_up(&service, value);
                }
            })?;
        }
        loop {
            match returned.try_recv() {
                Ok(result) => return result.map_err(|error| self.failure(error)),
                Err(TryRecvError::Disconnected) => return Err(Failure::new(TURNWISE_PANIC, "a call panicked")),
                Err(TryRecvError::Empty) => {}
            }
            self.closed.check()?;
            let mut select = Select::new();
            select.recv(&returned);
            select.recv(self.closed.receiver());
            wait.park(&mut select)?;
        }
    }

    /// As [`apart`](Self::apart), unless the service has no store: then the call waits for no build.
    fn apart_if_stored<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce(&Self) -> Result<T, SessionError> + Send + 'static,
    ) -> Result<T, Failure> {
        match &self.hosting {
            Hosting::Memory(_) => call(self).map_err(|error| self.failure(error)),
            Hosting::Stored(_) => self.apart(Wait::new(-1), call, |_, value| drop(value)),
        }
    }

    /// Opens a session without a turn, and waits for the build of its agent. If the wait is ended meanwhile, the session
    /// is archived; one with a record is unloaded.
    pub fn open_session(self: &Arc<Self>, spec: SessionSpec, wait: Wait<'_>) -> Result<SessionId, Failure> {
        self.apart(wait, |service| service.control().open_session(spec), Self::give_up)
    }

    /// Ends a session whose id no caller has got. A closed service ends all of its sessions.
    fn give_up(&self, id: SessionId) {
        if self.closed.is_set() {
            return;
        }
        // An error means that the session ends already, or that another thread has found it in the list and uses it.
        let _ = match &self.hosting {
            Hosting::Memory(service) => service.archive_with(id, ArchiveMode::Interrupt),
            Hosting::Stored(service) => service.unload(id, GIVE_UP),
        };
    }

    /// Subscribes to a session, or to all sessions.
    pub fn subscribe(
        self: &Arc<Self>,
        id: Option<SessionId>,
        settings: SubscriptionSettings,
    ) -> Result<Arc<Subscription>, Failure> {
        let options = settings.into_subscription()?;
        let stream = match id {
            Some(id) => self.apart_if_stored(move |service| service.control().subscribe(id, options))?,
            None => self.control().subscribe_all(options),
        };
        let subscription = Subscription::of_session(stream, Arc::clone(&self.closed));
        Ok(Arc::new(match id {
            Some(id) => subscription.asking(id, self.control().downgrade()),
            None => subscription,
        }))
    }

    /// Sends a message to the admitted turn.
    pub fn steer(
        &self,
        id: SessionId,
        turn: Option<TurnId>,
        content: InteractionContent,
    ) -> Result<Arc<Subscription>, Failure> {
        let interaction = self.control().steer(id, turn, content).map_err(|error| self.failure(error))?;
        Ok(Arc::new(Subscription::of_interaction(id, interaction, Arc::clone(&self.closed))))
    }

    /// Puts a message into a session's inbox.
    pub fn inject(
        self: &Arc<Self>,
        id: SessionId,
        body: String,
        source: EventSource,
    ) -> Result<Arc<Subscription>, Failure> {
        let injector = self.injector(id)?;
        let interaction = injector.inject_with_subscription(body, source)?;
        Ok(Arc::new(Subscription::of_interaction(id, interaction, Arc::clone(&self.closed))))
    }

    /// Ends host mode in its inbox' order.
    pub fn dismiss(self: &Arc<Self>, id: SessionId, source: EventSource) -> Result<(), Failure> {
        Ok(self.injector(id)?.dismiss(source)?)
    }

    /// The inbox of a session. A stored one that was unloaded is resumed.
    fn injector(self: &Arc<Self>, id: SessionId) -> Result<Arc<dyn SubscribableInjector>, Failure> {
        let injector = self.apart_if_stored(move |service| Ok(service.control().event_injector(id)))?;
        injector.ok_or_else(|| no_session(id))
    }

    /// Exports the history at the end of the running turn.
    pub fn export(&self, id: SessionId, mut wait: Wait<'_>) -> Result<Session, Failure> {
        wait.in_slices(&[&self.closed], |slice| self.control().export_session_timeout(id, slice))
    }

    /// Exports the history and archives the session.
    pub fn take(&self, id: SessionId, mut wait: Wait<'_>) -> Result<Session, Failure> {
        let history = wait.in_slices(&[&self.closed], |slice| self.control().take_session(id, slice))?;
        // The take may have returned in its second phase, while the session was still ending.
        let _ = wait.in_slices(&[&self.closed], |slice| self.control().archive_wait(id, slice));
        Ok(history)
    }

    /// Archives a session and waits until it has ended.
    pub fn archive_wait(&self, id: SessionId, mut wait: Wait<'_>) -> Result<(), Failure> {
        wait.in_slices(&[&self.closed], |slice| self.control().archive_wait(id, slice))
    }

    /// Waits until a session is idle.
    pub fn wait_idle(&self, id: SessionId, mut wait: Wait<'_>) -> Result<(), Failure> {
        wait.in_slices(&[&self.closed], |slice| self.control().wait_idle(id, slice))
    }

    /// Restarts a faulted session. A close ends the build, and with it the wait, if the agent's build checks its token.
    pub fn restart(&self, id: SessionId, wait: &Wait<'_>) -> Result<(), Failure> {
        let timeout = wait.remaining().unwrap_or(Duration::MAX);
        self.control().restart(id, timeout).map_err(|error| self.failure(error))
    }

    /// Resumes a stored session, and waits for the build of its agent.
    pub fn resume(self: &Arc<Self>, id: SessionId) -> Result<(), Failure> {
        self.resume_checked(id, Wait::new(-1))
    }

    /// As [`resume`](Self::resume). The session is resumed although the check ends the wait.
    pub fn resume_checked(self: &Arc<Self>, id: SessionId, wait: Wait<'_>) -> Result<(), Failure> {
        let service = self.stored()?.clone();
        self.apart(wait, move |_| service.resume(id), |_, ()| ())
    }

    /// Unloads a stored session.
    pub fn unload(&self, id: SessionId, mut wait: Wait<'_>) -> Result<(), Failure> {
        let service = self.stored()?;
        wait.in_slices(&[&self.closed], |slice| service.unload(id, slice))
    }

    /// Deletes a stored session.
    pub fn delete(&self, id: SessionId) -> Result<(), Failure> {
        self.stored()?.delete(id).map_err(|error| self.failure(error))
    }

    /// Lists the archived sessions of the store.
    pub fn list_archived(&self, query: SessionQuery) -> Result<Vec<library::SessionSummary>, Failure> {
        self.stored()?.list_archived(query).map_err(|error| self.failure(error))
    }

    /// Closes every session and waits until all have ended.
    ///
    /// # Errors
    /// `REENTRANT` in a callback: the call would wait for its own thread.
    pub fn shutdown(&self, mode: ArchiveMode, mut wait: Wait<'_>) -> Result<ShutdownReport, Failure> {
        refuse_in_callback("a shutdown")?;
        let mut joined = 0;
        loop {
            wait.run_check()?;
            self.closed.check()?;
            let report = self.control().shutdown_with(mode, wait.slice());
            joined += report.joined;
            if report.stuck.is_empty() || wait.is_over() {
                return Ok(ShutdownReport { joined, stuck: report.stuck });
            }
        }
    }

    /// Wakes every waiting thread, and cancels every turn. Does not wait. Returns whether this call closed the service.
    pub fn close(&self) -> bool {
        if !self.closed.set() {
            return false;
        }
        if callback::is_inside() {
            self.close_in_callback();
        } else {
            self.control().shutdown_with(ArchiveMode::Interrupt, Duration::ZERO);
        }
        if let Some(notifier) = self.notifier_if_started() {
            notifier.close();
        }
        true
    }

    /// Cancels the turns, and has another thread shut the service down: a shutdown could wait here for the running permit
    /// of this thread's turn. Records stay open, as after a close of a host's thread.
    fn close_in_callback(&self) {
        for session in self.control().list(SessionQuery::new()).unwrap_or_default() {
            if session.is_live {
                // It may be between two turns.
                let _ = self.control().interrupt(session.session_id);
            }
        }
        let hosting = self.hosting.clone();
        let _blocked = signals::block_all();
        let shutdown = move || drop(hosting.control().shutdown_with(ArchiveMode::Interrupt, Duration::ZERO));
        // Without a thread for it, the sessions end with the last share of the service.
        let _ = std::thread::Builder::new().name("turnwise-close".into()).spawn(shutdown);
    }

    /// Waits for the end of the thread behind the descriptor, after a close. It runs no code of the host.
    pub fn join_watcher(&self) {
        if let Some(notifier) = self.notifier_if_started() {
            notifier.join();
        }
    }

    /// The descriptor that is readable while there is something to read: an event of the service, the end of a turn, an
    /// event of a stream or of a subscription.
    pub fn descriptor(&self) -> Result<RawFd, Failure> {
        Ok(self.notifier()?.descriptor())
    }

    fn notifier_if_started(&self) -> Option<Arc<Notifier>> {
        self.notifications.lock().notifier.clone()
    }

    fn notifier(&self) -> Result<Arc<Notifier>, Failure> {
        let mut notifications = self.notifications.lock();
        self.closed.check()?;
        if let Some(notifier) = &notifications.notifier {
            return Ok(Arc::clone(notifier));
        }
        let notifier = Notifier::start()?;
        if let Some(events) = &self.events {
            events.attach(&notifier);
        }
        for turn in notifications.turns.drain(..).filter_map(|turn| turn.upgrade()) {
            turn.attach(&notifier);
        }
        for subscription in notifications.subscriptions.drain(..).filter_map(|subscription| subscription.upgrade()) {
            subscription.attach(&notifier);
        }
        notifications.notifier = Some(Arc::clone(&notifier));
        Ok(notifier)
    }

    /// Has the descriptor show a turn's events and its end. Called once, when the host has the turn's number.
    pub fn watch_turn(&self, turn: &Arc<Turn>) {
        let mut notifications = self.notifications.lock();
        match notifications.notifier.clone() {
            Some(notifier) => turn.attach(&notifier),
            None => add(&mut notifications.turns, turn),
        }
    }

    /// Has the descriptor show a subscription's events.
    pub fn watch_subscription(&self, subscription: &Arc<Subscription>) {
        let mut notifications = self.notifications.lock();
        match notifications.notifier.clone() {
            Some(notifier) => subscription.attach(&notifier),
            None => add(&mut notifications.subscriptions, subscription),
        }
    }

    /// The next item of the service's queue, without waiting. The end of a turn comes behind all events of that turn.
    pub fn try_next(&self) -> Result<Next<ServiceEvent>, Failure> {
        let notifier = self.notifier()?;
        let mut order = self.order.lock();
        // Looked for first: an event of that turn is in the queue by now.
        let notice = notifier.first_notice();
        if notice.is_none() {
            order.events_before_notice = None;
        } else if order.events_before_notice.is_none() {
            order.events_before_notice = Some(self.events.as_ref().map_or(0, Subscription::unread));
        }
        if order.events_before_notice != Some(0) {
            match self.events.as_ref().map_or(Next::Empty, Subscription::try_next) {
                Next::Event(Item::Numbered(event)) => {
                    order.events_before_notice = order.events_before_notice.map(|left| left - 1);
                    return Ok(Next::Event(ServiceEvent::Event(event)));
                }
                // The overflow `disconnect` ends the events, but not the queue: the ends of turns still come.
                Next::End if notice.is_none() && self.closed.is_set() => return Ok(Next::End),
                _ => {}
            }
        }
        Ok(match notice {
            Some(turn) => {
                order.events_before_notice = None;
                notifier.remove_notice();
                Next::Event(ServiceEvent::TurnFinished(turn))
            }
            None => Next::Empty,
        })
    }

    /// Waits for the next item of the service's queue; `Empty` if none comes in time.
    pub fn next_event(&self, mut wait: Wait<'_>) -> Result<Next<ServiceEvent>, Failure> {
        let notifier = self.notifier()?;
        loop {
            let next = self.try_next()?;
            if !matches!(next, Next::Empty) {
                return Ok(next);
            }
            if wait.is_over() {
                return Ok(Next::Empty);
            }
            let mut select = Select::new();
            select.recv(notifier.notice_signal());
            select.recv(self.closed.receiver());
            // A disconnected channel is always ready.
            if let Some(events) = self.events.as_ref().filter(|events| !events.has_ended()) {
                events.add_to(&mut select);
            }
            wait.park(&mut select)?;
        }
    }
}

impl Hosting {
    fn new(builder: Builder, store: Option<&str>, settings: ServiceSettings) -> Result<Self, Failure> {
        let mut config =
            EphemeralSessionService::configure(builder).max_sessions(settings.max_sessions.unwrap_or(MAX_SESSIONS));
        if let Some(turns) = settings.max_running_turns {
            config = config.max_running_turns(turns);
        }
        if let Some(bytes) = settings.stack_size {
            config = config.stack_size(bytes);
        }
        if let Some(prefix) = settings.thread_name_prefix {
            config = config.thread_name_prefix(prefix);
        }
        if let Some(threads) = settings.idle_threads {
            config = config.idle_threads(threads);
        }
        if let Some(messages) = settings.inbox_capacity {
            config = config.inbox_capacity(messages);
        }
        if let Some(events) = settings.event_history {
            config = config.event_history(events);
        }
        if let Some(turns) = settings.turn_queue {
            config = config.turn_queue(turns);
        }
        if let Some(restarts) = settings.restart_faulted {
            let within = Duration::from_millis(restarts.within_ms);
            config = config.restart_faulted(RestartPolicy::new(restarts.max, within));
        }
        let Some(path) = store else {
            if settings.unload_idle_after_ms.is_some() || settings.unload_when_full {
                return Err(Failure::new(TURNWISE_INVALID_CONFIG, "only a service with a store unloads sessions"));
            }
            return Ok(Self::Memory(config.build()?));
        };
        let store = FileStore::open(path).map_err(|error| Failure::new(TURNWISE_STORE_FAILED, error.to_string()))?;
        let mut config = PersistentSessionService::configure(config, store).unload_when_full(settings.unload_when_full);
        if let Some(idle) = settings.unload_idle_after_ms {
            config = config.unload_idle_after(Duration::from_millis(idle));
        }
        Ok(Self::Stored(config.build()?))
    }

    fn control(&self) -> &dyn ServiceControl {
        match self {
            Self::Memory(service) => service,
            Self::Stored(service) => service,
        }
    }
}

/// Adds an object that is not watched yet. Forgets the freed ones when the list would grow.
fn add<T>(list: &mut Vec<Weak<T>>, item: &Arc<T>) {
    if list.len() == list.capacity() {
        list.retain(|item| item.strong_count() > 0);
    }
    list.push(Arc::downgrade(item));
}

fn no_session(id: SessionId) -> Failure {
    Failure::new(TURNWISE_SESSION_NOT_FOUND, format!("session {id} not found"))
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("is_closed", &self.closed.is_set()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{unbounded, Receiver, Sender};
    use library::{builder_fn, AgentError, TurnContext};

    use super::*;
    use crate::codes::TURNWISE_CANCELLED;

    const LONG: i64 = 60_000;

    /// Answers with the prompt. Its drop is a message.
    struct Echo {
        history: Session,
        dropped: Sender<SessionId>,
    }

    impl SessionAgent for Echo {
        fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
            Ok(turn.finish(prompt))
        }

        fn session_clone(&self) -> Session {
            self.history.clone()
        }
    }

    impl Drop for Echo {
        fn drop(&mut self) {
            let _ = self.dropped.send(self.history.id());
        }
    }

    /// A service whose builds wait for a message, unless `gate` is disconnected; and the agents that were dropped.
    fn service(store: Option<&str>, settings: &str, gate: Receiver<()>) -> (Arc<Service>, Receiver<SessionId>) {
        let (dropped, drops) = unbounded();
        let builder = builder_fn(move |spec: &SessionSpec, session: &library::SessionContext| {
            let _ = gate.recv();
            let history = spec.resume.clone().unwrap_or_else(|| Session::with_id(session.session_id()));
            Ok(Box::new(Echo { history, dropped: dropped.clone() }) as Box<dyn SessionAgent>)
        });
        let settings = super::super::requests::parse(settings).unwrap();
        (Service::new(Arc::new(builder), store, settings).unwrap(), drops)
    }

    fn open_gate() -> Receiver<()> {
        unbounded().1
    }

    #[test]
    fn c91_a_close_in_a_callback_archives_no_record() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let (service, drops) = service(store.to_str(), "", open_gate());
        let id = service.open_session(SessionSpec::new(), Wait::new(LONG)).unwrap();
        let inside = callback::enter();
        assert!(service.close());
        drop(inside);
        assert_eq!(drops.recv_timeout(Duration::from_secs(60)), Ok(id));
        assert!(service.list_archived(SessionQuery::new()).unwrap().is_empty());
        assert_eq!(service.control().list(SessionQuery::new()).unwrap().len(), 1);
    }

    #[test]
    fn c91_a_session_whose_open_was_abandoned_ends() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        for store in [None, store.to_str()] {
            let (release, gate) = unbounded();
            let (service, drops) = service(store, "", gate);
            let mut check = || Err(Failure::new(TURNWISE_CANCELLED, "a signal"));
            let wait = Wait::new(-1).checked(&mut check);
            assert_eq!(service.open_session(SessionSpec::new(), wait).unwrap_err().code, TURNWISE_CANCELLED);
            release.send(()).unwrap();
            drops.recv_timeout(Duration::from_secs(60)).unwrap();
        }
    }

    #[test]
    fn c95_the_ends_of_turns_come_behind_an_overflow() {
        let (service, _drops) = service(None, r#"{"events": {"capacity": 1, "overflow": "disconnect"}}"#, open_gate());
        let id = service.open_session(SessionSpec::new(), Wait::new(LONG)).unwrap();
        service.start_turn(id, StartTurnRequest::new("x"), Wait::new(LONG)).unwrap();
        while let Next::Event(_) = service.try_next().unwrap() {}
        assert!(service.events.as_ref().unwrap().has_ended());
        assert!(matches!(service.try_next(), Ok(Next::Empty)));
        let turn = service.begin_turn(id, StartTurnRequest::new("x")).unwrap();
        service.watch_turn(&turn);
        let next = service.next_event(Wait::new(LONG)).unwrap();
        assert!(matches!(next, Next::Event(ServiceEvent::TurnFinished(ended)) if Arc::ptr_eq(&ended, &turn)));
    }

    #[test]
    fn c95_a_freed_turn_leaves_no_notice() {
        let (service, _drops) = service(None, "", open_gate());
        let descriptor = service.notifier().unwrap();
        let id = service.open_session(SessionSpec::new(), Wait::new(LONG)).unwrap();
        let turns: Vec<_> = (0..3)
            .map(|_| {
                let turn = service.begin_turn(id, StartTurnRequest::new("x")).unwrap();
                service.watch_turn(&turn);
                assert!(turn.wait(Wait::new(LONG)).unwrap().is_some());
                turn
            })
            .collect();
        descriptor.wait_for_notices(turns.len());
        let [first, second, third] = <[_; 3]>::try_from(turns).unwrap();
        drop(second);
        assert_eq!(descriptor.notices(), 2);
        first.closed.set();
        assert!(descriptor.first_notice().is_some_and(|turn| Arc::ptr_eq(&turn, &third)));
        drop((first, third));
        assert_eq!(descriptor.notices(), 0);
        assert!(descriptor.first_notice().is_none());
    }
}
