//! Workers: processes that host the sessions of an engine.
//!
//! A [`Worker`] is a [`PersistentSessionService`] that takes its turns from the engine. Any number of them, on any machines,
//! share the sessions of one namespace. A session is given to a worker when it is used, and stays with it until the worker
//! is drained or dies, or until it makes room for another one.
//!
//! # Threads
//!
//! - the *supervisor*: makes the worker known, then blocks in a read of the worker's stream: it wakes attendants, and passes
//!   credit on to feeds
//! - the *renewer*: renews the lease, and does nothing else
//! - the *sweeper*: looks for missed messages, and takes over what dead workers have left
//! - one [attendant](attendant) for each session that has something to do
//! - one feed for each turn whose client wants events, for each subscription, and for each message to a turn
//! - the threads of the sessions
//!
//! # A dead worker, a frozen one, and an outage
//!
//! A worker renews its lease four times in the time that the lease lasts. If it does not, any process that touches one of
//! its sessions takes all of them away, and the turns that were in flight are answered as lost. A worker that only was
//! frozen finds out at its next step: the incarnation is over. It drops its sessions without a save, takes a new name, and
//! goes on as a new worker. An outage of the engine that is longer than the lease does the same to every worker.

mod agent;
mod attendant;
mod feed;
mod feeds;
mod hosting;
mod lease;
mod stats;
mod store;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::agent::SessionAgentBuilder;
use crate::ephemeral::ServiceConfig;
use crate::error::{AgentError, ConfigError, SessionError};
use crate::model::SessionId;
use crate::panics::{contain, record};
use crate::service::ArchiveMode;
use crate::store::PersistentSessionService;
use crate::sync::{
    bounded, room_for_a_thread, select, Arc, AtomicBool, Builder, JoinHandle, Mutex, Ordering, Receiver, Sender,
};
use crate::time::clock::{Clock, Deadline};
use crate::turn::shared::Counter;
use crate::wait::latch::Latch;

use super::engine::{sleep, Call, Engine};
use super::error::EngineError;
use super::scripts;
use super::store::RedisStore;
use super::wire::Reply;
use agent::{ReportingBuilder, NOT_LOCAL};
use attendant::{Attendant, Wakeup, END};
use feeds::{Feeds, PATIENCE};
use hosting::{Hosted, Hosting};
use lease::Incarnation;
pub use stats::{DrainReport, WorkerStats};
use store::{fenced, HostedStore};

/// Hosts sessions of an engine, for the [clients](super::ClusterService) of any process.
///
/// The settings of the service are those of any service. [`max_sessions`](ServiceConfig::max_sessions) is how many sessions
/// are live at a time: sessions without a turn make room for others, also those with subscribers, which miss nothing.
/// A turn waits for the end of such a session for at most 10 seconds, and is refused then.
/// [`turn_queue`](ServiceConfig::turn_queue) is how many turns may wait for a session.
///
/// The agents' own service, [`TurnContext::service`](crate::TurnContext::service), is the worker's: sub-agents run in the
/// same process, and share its capacity. It begins no turn of a session that the engine gives out: such a turn fails with
/// [`AgentError::Config`](crate::AgentError::Config). For those an agent needs a
/// [`ClusterService`](super::ClusterService) of its own.
///
/// ```no_run
/// use std::time::Duration;
/// use turnwise::cluster::{Engine, EngineConfig, Worker};
/// use turnwise::{agent_fn, EphemeralSessionService};
///
/// let engine = Engine::open("redis://localhost", EngineConfig::new())?;
/// let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
/// let worker = Worker::start(EphemeralSessionService::configure(agent).max_sessions(100), engine)?;
/// // until the program is told to stop
/// let report = worker.drain(Duration::from_secs(60));
/// assert_eq!(report.busy, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Drop
/// Gives the sessions up at once. Turns that run are lost: their callers get
/// [`WorkerLost`](crate::SessionError::WorkerLost). [`drain`](Self::drain) lets them finish first. Waits for the engine,
/// while that is away for one [lease](super::EngineConfig::lease) at most, and for no agent. A thread that still waits for
/// the engine then ends by itself, some leases later at most.
#[must_use = "dropping it gives its sessions up"]
pub struct Worker {
    control: Box<dyn Control>,
    threads: Vec<Thread>,
    lease: Duration,
}

/// A thread of a worker that its drop waits for.
struct Thread {
    handle: JoinHandle<()>,
    ended: Arc<Latch>,
}

/// Sets a latch when it is dropped.
struct SetAtEnd(Arc<Latch>);

impl Drop for SetAtEnd {
    fn drop(&mut self) {
        self.0.set();
    }
}

impl Thread {
    fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let ended = Arc::new(Latch::new());
        let end = SetAtEnd(Arc::clone(&ended));
        let handle = builder(name).spawn(move || {
            let _end = end;
            work();
        })?;
        Ok(Self { handle, ended })
    }

    /// Waits for the end of the thread. After the deadline it is left alone.
    fn join_until(self, deadline: &Deadline) {
        let _ = deadline.receive(self.ended.receiver());
        if self.ended.is_set() {
            // A panic of it was reported by the panic hook.
            let _ = self.handle.join();
        }
    }
}

/// A worker could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting of the service is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The engine refuses the worker, or does not answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The system refuses a thread.
    #[error("no thread for the worker: {0}")]
    Spawn(#[from] io::Error),
}

/// A worker, whatever the type of its agents.
trait Control: Send + Sync {
    fn stats(&self) -> WorkerStats;
    fn drain(&self, timeout: Duration) -> DrainReport;
    /// Returns the thread that gives the lease up.
    fn stop(&self) -> Option<Thread>;
}

/// What the threads of a worker share.
struct Shared<B: SessionAgentBuilder> {
    engine: Engine,
    hosting: Arc<Hosting>,
    service: PersistentSessionService<ReportingBuilder<B>>,
    /// Whether the service restarts faulted sessions itself.
    restarts: bool,
    capacity: usize,
    queue: usize,
    /// `None` before the first one, and after the end of the worker.
    incarnation: Mutex<Option<Arc<Incarnation>>>,
    /// The attendants, each with the channel that wakes it.
    attendants: Mutex<HashMap<SessionId, Sender<Wakeup>>>,
    feeds: Arc<Feeds>,
    counters: Counters,
    /// Set by a drain: the worker takes no more sessions, in the next incarnation either.
    is_draining: AtomicBool,
    /// Whether an attendant could not do its work: the next sweep looks at all sessions.
    has_missed: AtomicBool,
    /// Asks for a sweep now.
    sweep_now: Sender<()>,
    stopped: Latch,
}

#[derive(Default)]
struct Counters {
    begun: Counter,
    ended: Counter,
    refused: Counter,
    lost: Counter,
    incarnations: Counter,
    reconnects: Counter,
}

impl Worker {
    /// Starts a worker: it is known to the engine when the call returns.
    ///
    /// # Errors
    /// [`StartError`]. Nothing is left of the worker then.
    ///
    /// # Blocking
    /// For the engine. While it does not answer, for one [lease](super::EngineConfig::lease).
    pub fn start<B: SessionAgentBuilder>(config: ServiceConfig<B>, engine: Engine) -> Result<Self, StartError> {
        let hosting = Arc::new(Hosting::default());
        let settings = &config.settings;
        let (capacity, queue, restarts) =
            (settings.max_sessions, settings.turn_queue, settings.restart_faulted.is_some());
        let store = HostedStore {
            plain: RedisStore::new(engine.clone()),
            hosting: Arc::clone(&hosting),
            marks_faults: !restarts,
        };
        let wrap = |builder| ReportingBuilder { builder, engine: engine.clone(), hosting: Arc::clone(&hosting) };
        let config = PersistentSessionService::configure(config.map_builder(wrap), store);
        let config = config.unload_when_full(true).unload_patience(END);
        let service = config.build()?;
        let own = Arc::clone(&hosting);
        service.set_given_out(Box::new(move |id| {
            let refused = || SessionError::Agent { id, source: AgentError::Config(NOT_LOCAL.into()) };
            own.find(id).map(|_| refused())
        }));
        let (sweep_now, asked) = bounded(1);
        let shared = Arc::new(Shared {
            engine,
            hosting,
            service,
            restarts,
            capacity,
            queue,
            incarnation: Mutex::default(),
            attendants: Mutex::default(),
            feeds: Arc::default(),
            counters: Counters::default(),
            is_draining: AtomicBool::new(false),
            has_missed: AtomicBool::new(false),
            sweep_now,
            stopped: Latch::new(),
        });
        let first = shared.enrol()?;
        let lease = shared.engine.config().lease;
        let mut worker = Self { control: Box::new(Arc::clone(&shared)), threads: Vec::new(), lease };
        let renewer = Arc::clone(&shared);
        worker.threads.push(Thread::start("renewer", move || renewer.renew())?);
        let sweeper = Arc::clone(&shared);
        worker.threads.push(Thread::start("sweeper", move || sweeper.sweep_again(&asked))?);
        worker.threads.push(Thread::start("supervisor", move || shared.supervise(first))?);
        Ok(worker)
    }

    /// Takes no more sessions, lets the turns in flight finish, and gives the sessions up: each with its last save. They go
    /// to other workers when they are used next.
    ///
    /// Turns that are still in flight after `timeout` are not touched. They are lost when the worker is dropped.
    ///
    /// # Blocking
    /// Until no turn is in flight here, at most for `timeout`; then for the engine.
    pub fn drain(&self, timeout: Duration) -> DrainReport {
        self.control.drain(timeout)
    }

    /// The figures of the worker.
    ///
    /// # Blocking
    /// Does not block.
    pub fn stats(&self) -> WorkerStats {
        self.control.stats()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One for all steps.
        let deadline = Clock::System.deadline(self.lease);
        let last = self.control.stop();
        last.into_iter().chain(self.threads.drain(..)).for_each(|thread| thread.join_until(&deadline));
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl<B: SessionAgentBuilder> Shared<B> {
    fn incarnation(&self) -> Option<Arc<Incarnation>> {
        self.incarnation.lock().clone()
    }

    fn enrol(&self) -> Result<Arc<Incarnation>, EngineError> {
        let incarnation = Arc::new(Incarnation::enrol(&self.engine, self.capacity, self.queue)?);
        self.counters.incarnations.add_one();
        *self.incarnation.lock() = Some(Arc::clone(&incarnation));
        if self.is_draining.load(Ordering::SeqCst) {
            self.engine.write(Call::new(&scripts::DRAIN).arg(&*incarnation.wid))?;
        }
        Ok(incarnation)
    }

    /// The supervisor: one incarnation after the other.
    fn supervise(self: &Arc<Self>, first: Arc<Incarnation>) {
        let mut incarnation = first;
        loop {
            self.listen(&incarnation);
            incarnation.end();
            self.give_up_all();
            incarnation = loop {
                if self.stopped.is_set() || self.engine.is_replaced() {
                    *self.incarnation.lock() = None;
                    if !self.engine.is_replaced() {
                        // The lease that was taken while the worker was stopped.
                        self.abandon(&incarnation.wid, true);
                    }
                    return;
                }
                match self.enrol() {
                    Ok(incarnation) => break incarnation,
                    Err(error) => {
                        record!(Warn, "turnwise::cluster", "the worker is not known: {}", error.code());
                        self.pause(Duration::from_millis(200));
                    }
                }
            };
        }
    }

    /// Reads the worker's stream until the incarnation is over.
    fn listen(self: &Arc<Self>, incarnation: &Incarnation) {
        // Short enough to notice the end of the incarnation soon.
        let block = (self.engine.config().lease / 8).min(Duration::from_secs(1));
        let mut last = "0".to_owned();
        let mut is_first = true;
        while !incarnation.over().is_set() && !self.stopped.is_set() {
            if !std::mem::take(&mut is_first) {
                self.counters.reconnects.add_one();
            }
            let mut listener = match self.engine.listen(&format!("w:{}:q", incarnation.wid)) {
                Ok(listener) => listener.after(last.clone()),
                Err(_) => {
                    self.pause(Duration::from_millis(100));
                    continue;
                }
            };
            // Messages may have been lost while there was no connection.
            let _ = self.sweep_now.try_send(());
            while !incarnation.over().is_set() && !self.stopped.is_set() {
                match listener.read(block) {
                    Ok(entries) => {
                        entries.iter().for_each(|entry| self.receive(entry));
                        last = listener.last().to_owned();
                    }
                    Err(error) => {
                        record!(Debug, "turnwise::cluster", "the worker connects again: {}", error.code());
                        break;
                    }
                }
            }
        }
    }

    /// The sweeper: sweeps between two renewals, and when it is asked to.
    fn sweep_again(self: &Arc<Self>, asked: &Receiver<()>) {
        let every = self.engine.config().lease / 4;
        while !self.stopped.is_set() {
            if let Some(incarnation) = self.incarnation().filter(|incarnation| !incarnation.over().is_set()) {
                self.sweep(&incarnation);
            }
            let next = Clock::System.deadline(every);
            let alarm = next.alarm();
            select! {
                recv(asked) -> _ => {}
                recv(alarm.receiver()) -> _ => {}
                recv(self.stopped.receiver()) -> _ => {}
            }
        }
    }

    /// The renewer: renews the lease, until the worker ends.
    fn renew(&self) {
        let every = self.engine.config().lease / 4;
        while !self.pause(every) {
            if let Some(incarnation) = self.incarnation().filter(|incarnation| !incarnation.over().is_set()) {
                if let Err(error) = incarnation.renew(&self.engine) {
                    record!(Warn, "turnwise::cluster", "the lease is not renewed: {}", error.code());
                }
            }
        }
    }

    /// Waits. Returns whether the worker has been stopped.
    fn pause(&self, duration: Duration) -> bool {
        let _ = Clock::System.deadline(duration).receive(self.stopped.receiver());
        self.stopped.is_set()
    }

    /// Looks for what messages may have been missed, takes over what dead workers have left, and gives up sessions that have
    /// made room for others. Those with subscribers stay: their events go on without a gap.
    fn sweep(self: &Arc<Self>, incarnation: &Incarnation) {
        let Some([busy, gone]) = self.look_around(incarnation) else { return };
        busy.iter().filter_map(|id| id.parse().ok()).for_each(|id| self.attend(id));
        gone.iter().for_each(|wid| self.abandon(wid, false));
        if self.has_missed.swap(false, Ordering::SeqCst) {
            // Also an idle session may be archived since.
            self.hosting.all().iter().for_each(|hosted| self.attend(hosted.id));
        }
        for hosted in self.hosting.all() {
            // A life that is about to end may still save.
            let is_used = self.is_attended(hosted.id) || self.service.has_life(hosted.id);
            if !is_used && !self.feeds.has_any(hosted.id) {
                self.leave(&hosted);
            }
        }
    }

    /// The sessions of this incarnation with a turn in flight, and the workers whose lease is gone. `None` without an answer.
    fn look_around(&self, incarnation: &Incarnation) -> Option<[Vec<String>; 2]> {
        let answer = self.engine.read(Call::new(&scripts::SWEEP).arg(&*incarnation.wid)).ok()?;
        let [_, busy, gone] = answer.list().filter(|_| answer.is_list_of("ok"))? else { return None };
        let texts = |reply: &Reply| {
            let words = reply.words().unwrap_or_default();
            words.into_iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
        };
        Some([texts(busy), texts(gone)])
    }

    /// Notes that something is left to do for a session, which the engine or the system did not allow.
    fn note_missed(&self) {
        self.has_missed.store(true, Ordering::SeqCst);
    }

    fn is_attended(&self, id: SessionId) -> bool {
        self.attendants.lock().contains_key(&id)
    }

    /// Gives up a session without a local life. Returns whether it is given up.
    fn leave(self: &Arc<Self>, hosted: &Hosted) -> bool {
        let id = hosted.id;
        if let Some(owner) = hosted.assigned() {
            match self.engine.write(fenced(&scripts::UNLOAD, id, &owner)) {
                Ok(answer) if answer.is_list_of("begun") => {
                    // A turn has come in between.
                    self.attend(id);
                    return false;
                }
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        // An attendant that has come since has entered the session, and begins a turn of it.
        let attendants = self.attendants.lock();
        let is_left = !attendants.contains_key(&id);
        if is_left {
            self.hosting.remove(id);
            self.feeds.keep(id, |_| false);
        }
        is_left
    }

    /// Gives up an idle session, with its last save. Until `feeds` it waits for clients that have not read the last events.
    /// Returns whether it is given up.
    fn unload(self: &Arc<Self>, hosted: &Hosted, feeds: &Deadline) -> bool {
        let id = hosted.id;
        if self.service.has_life(id) {
            if let Err(error) = self.service.unload(id, END) {
                record!(Warn, "turnwise::cluster", "session {id}: it is not given up: {}", error.code());
                return false;
            }
        }
        self.feeds.finish(id, feeds);
        self.leave(hosted)
    }

    /// Answers what a dead worker had in flight, and takes its sessions from it.
    fn abandon(&self, wid: &str, is_own: bool) {
        const AT_ONCE: &str = "100";
        let own = if is_own { "1" } else { "0" };
        loop {
            let call = Call::new(&scripts::ABANDON).arg(wid).arg(AT_ONCE).arg(own);
            match self.engine.write(call).ok().as_deref().and_then(Reply::words).as_deref() {
                Some([b"ok", left]) if *left != b"0" => {}
                _ => return,
            }
        }
    }

    /// An entry of the worker's stream.
    fn receive(self: &Arc<Self>, entry: &[Vec<u8>]) {
        // The first entry of a stream names the worker.
        let [name, id, fields @ ..] = entry else { return };
        let id = std::str::from_utf8(id).ok().filter(|_| name == b"id");
        let Some(id) = id.and_then(|id| id.parse().ok()) else { return };
        match fields {
            [name, feed, _, credit] if name == b"feed" => {
                if let Some(hosted) = self.hosting.find(id) {
                    hosted.grant(feed, credit);
                }
            }
            fields => self.wake(id, Wakeup::read(fields)),
        }
    }

    /// Sees to it that an attendant looks at a session.
    fn attend(self: &Arc<Self>, id: SessionId) {
        self.wake(id, Wakeup::Look);
    }

    /// Wakes the attendant of a session, or begins one.
    ///
    /// A channel has room for two wake-ups, and only an empty one takes a turn. So where there is no room, the last wake-up
    /// that the attendant will read is a look, and that finds this one too.
    fn wake(self: &Arc<Self>, id: SessionId, wakeup: Wakeup) {
        let mut attendants = self.attendants.lock();
        if let Some(wake) = attendants.get(&id) {
            let wakeup = match wake.len() {
                0 => wakeup,
                _ => Wakeup::Look,
            };
            // If it is full the attendant looks anyway.
            let _ = wake.try_send(wakeup);
            return;
        }
        let (wake, woken) = bounded(2);
        // There is room.
        let _ = wake.try_send(wakeup);
        let attendant = Attendant::new(Arc::clone(self), id, woken);
        let shared = Arc::clone(self);
        let work = move || {
            if contain(|| attendant.run()).is_err() {
                record!(Error, "turnwise::cluster", "session {id}: its attendant panicked");
                // The sweep wakes another one.
                shared.attendants.lock().remove(&id);
                shared.note_missed();
            }
        };
        let spawned = room_for_a_thread().and_then(|()| builder("attendant").spawn(work));
        if spawned.is_ok() {
            attendants.insert(id, wake);
            return;
        }
        drop(attendants);
        // The sweep tries again.
        self.note_missed();
        record!(Error, "turnwise::cluster", "session {id}: the system has no thread for it");
    }

    /// Ends the attendant, unless it was woken meanwhile.
    fn end_attendant(&self, id: SessionId, wake: &Receiver<Wakeup>) -> bool {
        let mut attendants = self.attendants.lock();
        let is_idle = wake.try_recv().is_err();
        if is_idle {
            attendants.remove(&id);
        }
        is_idle
    }

    /// Drops what the last incarnation had. Sessions with an attendant are dropped by it.
    fn give_up_all(self: &Arc<Self>) {
        for hosted in self.hosting.all() {
            hosted.release();
            self.attend(hosted.id);
        }
    }
}

impl<B: SessionAgentBuilder> Control for Arc<Shared<B>> {
    fn stats(&self) -> WorkerStats {
        let incarnation = self.incarnation();
        let counters = &self.counters;
        WorkerStats {
            sessions: self.hosting.len(),
            attended: self.attendants.lock().len(),
            turns_begun: counters.begun.get(),
            turns_ended: counters.ended.get(),
            turns_refused: counters.refused.get(),
            turns_lost: counters.lost.get(),
            lease_age: incarnation.filter(|incarnation| !incarnation.over().is_set()).map(|own| own.age()),
            incarnations: counters.incarnations.get(),
            reconnects: counters.reconnects.get(),
            service: self.service.stats(),
        }
    }

    fn drain(&self, timeout: Duration) -> DrainReport {
        let mut report = DrainReport::default();
        self.is_draining.store(true, Ordering::SeqCst);
        let Some(incarnation) = self.incarnation() else { return report };
        let until = Clock::System.deadline(timeout);
        if let Err(error) = self.engine.write(Call::new(&scripts::DRAIN).arg(&*incarnation.wid)) {
            record!(Warn, "turnwise::cluster", "the worker is not drained: {}", error.code());
        }
        // Attendants that only linger end now.
        self.hosting
            .all()
            .iter()
            .filter(|hosted| self.is_attended(hosted.id))
            .for_each(|hosted| self.attend(hosted.id));
        let mut pause = Duration::from_millis(2);
        loop {
            // Without an answer, the sessions that have something to do.
            report.busy = match self.look_around(&incarnation) {
                Some([busy, _]) => busy.len(),
                None => self.attendants.lock().len(),
            };
            let is_over = report.busy == 0 && self.attendants.lock().is_empty();
            if is_over || !until.leaves_more_than(pause) {
                break;
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        // One for all sessions.
        let feeds = Clock::System.deadline(PATIENCE);
        for hosted in self.hosting.all() {
            if !self.is_attended(hosted.id) && self.unload(&hosted, &feeds) {
                report.given_up += 1;
            }
        }
        report
    }

    fn stop(&self) -> Option<Thread> {
        self.stopped.set();
        let last = self.incarnation().and_then(|incarnation| {
            incarnation.end();
            let shared = Self::clone(self);
            // First, so that others go on at once. Without a thread the supervisor does it.
            Thread::start("end", move || shared.abandon(&incarnation.wid, true)).ok()
        });
        self.give_up_all();
        // Cancels what runs. Agents that do not stop are left alone.
        self.service.shutdown_with(ArchiveMode::Interrupt, Duration::ZERO);
        last
    }
}

/// A thread of a worker, with a name for debuggers.
fn builder(name: &str) -> Builder {
    Builder::new().name(format!("turnwise-{name}"))
}

/// Starts a thread that is not joined. Returns `false` if the system has none; the work is dropped then.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> bool {
    let spawned = room_for_a_thread().and_then(|()| builder(name).spawn(work));
    if spawned.is_err() {
        record!(Error, "turnwise::cluster", "the system has no thread for a {name}");
    }
    spawned.is_ok()
}
