//! A turn that a host has begun: its result, its events, and the close of its handle.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_channel::{Receiver, Select, TryRecvError};
use library::{AgentEvent, RunResult, SessionError, SessionId, TurnHandle, TurnId, TurnStream};
use parking_lot::RwLock;

use super::callback;
use super::closed::Closed;
use super::events::Next;
use super::notifier::{Notifier, Source};
use super::wait::Wait;
use super::watcher::Watched;
use crate::codes::Failure;

/// A turn, with its events if it was begun as a stream.
#[derive(Debug)]
pub struct Turn {
    inner: RwLock<Inner>,
    finished: Receiver<Infallible>,
    /// Set when the handle of the host is closed. The turn itself goes on.
    pub closed: Closed,
    /// The close of the service.
    service_closed: Arc<Closed>,
    /// The number by which notices name the turn.
    number: AtomicU64,
    sources: OnceLock<Sources>,
}

#[derive(Debug)]
enum Inner {
    Plain(TurnHandle),
    Stream(TurnStream),
}

/// What the watcher watches of the turn.
#[derive(Debug)]
struct Sources {
    events: Option<Source>,
    _end: Source,
}

impl Inner {
    fn handle(&self) -> &TurnHandle {
        match self {
            Self::Plain(handle) => handle,
            Self::Stream(stream) => stream.handle(),
        }
    }
}

impl Turn {
    pub(super) fn plain(handle: TurnHandle, service_closed: Arc<Closed>) -> Self {
        Self::new(Inner::Plain(handle), service_closed)
    }

    pub(super) fn stream(stream: TurnStream, service_closed: Arc<Closed>) -> Self {
        Self::new(Inner::Stream(stream), service_closed)
    }

    fn new(inner: Inner, service_closed: Arc<Closed>) -> Self {
        Self {
            finished: inner.handle().finished().clone(),
            inner: RwLock::new(inner),
            closed: Closed::default(),
            service_closed,
            number: AtomicU64::new(0),
            sources: OnceLock::new(),
        }
    }

    /// Sets the number by which notices name the turn.
    pub fn set_number(&self, number: u64) {
        self.number.store(number, Ordering::Release);
    }

    /// The number by which notices name the turn.
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    pub(super) fn finished(&self) -> Receiver<Infallible> {
        self.finished.clone()
    }

    /// Has the notifier watch the turn.
    pub(super) fn attach(self: &Arc<Self>, notifier: &Arc<Notifier>) {
        let events = match &*self.inner.read() {
            Inner::Plain(_) => None,
            Inner::Stream(stream) => Some(notifier.watch(Watched::Events(stream.events().clone()))),
        };
        let sources = Sources { events, _end: notifier.watch_end(self) };
        // Attached once: by the begin of the turn, or by the start of the notifier.
        drop(self.sources.set(sources));
    }

    /// The session's id.
    pub fn session_id(&self) -> SessionId {
        self.inner.read().handle().session_id()
    }

    /// The turn's id.
    pub fn turn_id(&self) -> TurnId {
        self.inner.read().handle().turn_id()
    }

    /// Tells the turn to stop. Runs the agent's cancel hooks on this thread.
    pub fn interrupt(&self) {
        self.inner.read().handle().interrupt();
    }

    /// Whether the result is there.
    pub fn is_finished(&self) -> bool {
        self.inner.read().handle().is_finished()
    }

    /// The result, if it is there. Does not wait.
    pub fn poll(&self) -> Option<Result<RunResult, SessionError>> {
        if !self.is_finished() {
            return None;
        }
        // Waits that hold the lock end at once, because the turn has ended.
        match &mut *self.inner.write() {
            Inner::Plain(handle) => handle.try_wait(),
            Inner::Stream(stream) => stream.try_wait(),
        }
    }

    fn check_open(&self) -> Result<(), Failure> {
        self.closed.check()?;
        self.service_closed.check()
    }

    /// Waits for the result; `None` if it does not come in time. Any number of threads may wait.
    pub fn wait(&self, mut wait: Wait<'_>) -> Result<Option<RunResult>, Failure> {
        loop {
            if let Some(result) = self.poll() {
                return Ok(Some(result?));
            }
            self.check_open()?;
            if wait.is_over() {
                return Ok(None);
            }
            if callback::is_inside() {
                wait.run_check()?;
                let inner = self.inner.read();
                library::wait_any(&[inner.handle()], Some(wait.slice()))?;
            } else {
                let mut select = Select::new();
                select.recv(&self.finished);
                select.recv(self.closed.receiver());
                select.recv(self.service_closed.receiver());
                wait.park(&mut select)?;
            }
        }
    }

    /// The next event of a stream, without waiting.
    pub fn try_next(&self) -> Result<Next<AgentEvent>, Failure> {
        let inner = self.inner.read();
        let Inner::Stream(stream) = &*inner else { return Err(not_a_stream()) };
        let source = self.sources.get().and_then(|sources| sources.events.as_ref());
        match stream.events().try_recv() {
            Ok(event) => {
                if let Some(source) = source {
                    source.after_read(stream.events().is_empty());
                }
                Ok(Next::Event(event))
            }
            Err(TryRecvError::Empty) => {
                if let Some(source) = source {
                    source.after_read(true);
                }
                Ok(Next::Empty)
            }
            Err(TryRecvError::Disconnected) if stream.handle().is_finished() => {
                if let Some(source) = source {
                    source.end();
                }
                Ok(Next::End)
            }
            // The channel disconnects a moment before the session is free for the next turn.
            Err(TryRecvError::Disconnected) => {
                if let Some(source) = source {
                    source.watch_instead(Watched::Finished(self.finished.clone()));
                }
                Ok(Next::Empty)
            }
        }
    }

    /// Waits for the next event of a stream; `Empty` if none comes in time.
    pub fn next_event(&self, mut wait: Wait<'_>) -> Result<Next<AgentEvent>, Failure> {
        loop {
            let next = self.try_next()?;
            if !matches!(next, Next::Empty) {
                return Ok(next);
            }
            self.check_open()?;
            if wait.is_over() {
                return Ok(Next::Empty);
            }
            if callback::is_inside() {
                wait.run_check()?;
                if let Some(event) = self.receive_in_callback(&wait)? {
                    return Ok(Next::Event(event));
                }
            } else {
                self.park_for_event(&mut wait)?;
            }
        }
    }

    /// One slice of a wait on a session thread, which gives its running permit back and ends with its own turn.
    fn receive_in_callback(&self, wait: &Wait<'_>) -> Result<Option<AgentEvent>, Failure> {
        let inner = self.inner.read();
        let Inner::Stream(stream) = &*inner else { return Err(not_a_stream()) };
        match stream.recv_timeout(wait.slice()) {
            Ok(event) => Ok(Some(event)),
            Err(error) if error.is_timeout() => {
                // A refused or interrupted wait looks like a timeout; this call says which.
                library::wait_any(&[stream.handle()], Some(std::time::Duration::ZERO))?;
                Ok(None)
            }
            Err(_) => Ok(None),
        }
    }

    fn park_for_event(&self, wait: &mut Wait<'_>) -> Result<(), Failure> {
        let events = match &*self.inner.read() {
            Inner::Stream(stream) => stream.events().clone(),
            Inner::Plain(_) => return Err(not_a_stream()),
        };
        let mut select = Select::new();
        select.recv(&self.finished);
        select.recv(self.closed.receiver());
        select.recv(self.service_closed.receiver());
        // A disconnected channel is always ready, and the end of the turn follows at once. A channel that another reader
        // has just emptied looks the same, so this wait is a short one.
        if is_disconnected(&events) {
            wait.run_check()?;
            let _ = select.ready_timeout(wait.slice());
        } else {
            select.recv(&events);
            wait.park(&mut select)?;
        }
        Ok(())
    }
}

/// Whether an empty channel has lost its senders. An event that arrives meanwhile stays in the channel.
fn is_disconnected(events: &Receiver<AgentEvent>) -> bool {
    let mut select = Select::new();
    select.recv(events);
    select.try_ready().is_ok() && events.is_empty()
}

fn not_a_stream() -> Failure {
    Failure::new(crate::codes::TURNWISE_WRONG_KIND, "the turn was not begun as a stream, so it has no events")
}
