//! The client of a cluster: [`ClusterService`], which begins turns of sessions that workers host.
//!
//! # Parts
//!
//! - `begin`: sends the requests of turns and builds; `requests`: those without an end; `verdict`: how they end
//! - `listener`: the thread that reads the client's stream, and renews its lease
//! - `sender`: the thread that sends interrupts, has the timers, and asks for requests
//! - `feed`: events in batches, and credit; `turn_events`: a thread for the receiver of one turn; `subscriptions`: a thread
//!   for one subscription; `feeds`: the table of both
//! - `steering`: messages to turns
//! - `reading`, `waiting`: reads, and waits that look again
//! - `known`: what the client remembers of sessions
//! - `core`: what all of them share
//!
//! # The end of a turn
//!
//! ```text
//! caller                 engine                    listener                 thread of the events
//! enters the request
//! begin ───────────────▶ accepts it; wakes a worker
//!        ◀────────────── turn 7
//! has the handle         events ─────────────────▶ passes them on ────────▶ gives them to the receiver
//!        ◀─────────────────────────────────────────────────────────────────  credit, when they are taken
//!                        finish: verdict ────────▶ takes the request out
//!                                                  with events: ──────────▶ behind the last one: answers
//!                                                  without: answers
//! wait() returns
//! ```
//!
//! The verdict may come before the reply of `begin`; so the request is entered first. What is lost on the way is asked for:
//! after each new connection of the listener for every request, and in each quarter of a lease for one request of each
//! session.
//!
//! **Invariants.** Neither the listener nor the sender waits for a channel of the host, or runs its code. No lock is held
//! during a call of the engine. A request is answered once, by the thread that takes its answer out.

mod begin;
mod calls;
mod core;
mod feed;
mod feeds;
mod known;
mod listener;
mod outcome;
mod reading;
mod requests;
mod sender;
mod steering;
mod subscriptions;
#[cfg(test)]
mod tests;
mod turn_events;
mod verdict;
mod waiting;

use std::fmt;
use std::io;
use std::time::Duration;

use crate::sync::{room_for_a_thread, unbounded, Arc, Builder};

use super::engine::Engine;
use super::error::EngineError;

use self::core::Core;
use self::requests::Closed;
use self::sender::Job;

pub use outcome::RequestOutcome;

/// The sessions of an engine, from any process: a [`SessionService`](crate::SessionService) whose turns run in
/// [workers](super::Worker).
///
/// A cheap handle: clones share one client. Host code that uses a service need not change. The calls are those of any
/// service; what is different follows.
///
/// ```no_run
/// use turnwise::cluster::{ClusterService, Engine, EngineConfig};
/// use turnwise::{CreateSessionRequest, SessionService, StartTurnRequest};
///
/// let service = ClusterService::new(Engine::open("redis://localhost", EngineConfig::new())?)?;
/// let id = service.create_session(CreateSessionRequest::new("hello"))?.session_id;
/// for event in service.stream_turn(id, StartTurnRequest::new("tell me more"))? {
///     println!("{event:?}"); // from whatever machine
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Blocking
/// Every call waits for the engine: for one round trip, and while the engine does not answer for one
/// [lease](super::EngineConfig::lease). So a call with a timeout may take that much longer than its timeout. Calls that wait
/// for a turn wait longer, as their descriptions in the trait say.
/// [`TurnHandle::interrupt`](crate::TurnHandle::interrupt) and the drop of handles and streams do not wait.
///
/// # Errors
/// - [`SessionError::Store`] with an [`EngineError`] if the engine fails a call. No turn, session or restart was begun then.
///   With [`EngineError::Unreachable`] or [`EngineError::Unavailable`] the effect of any other call is not known: of an
///   interrupt, a response, a message that steers, labels, an archive, a subscription. These may be called again. A second
///   response may find its input answered by the first, and a message that steers may arrive twice.
/// - [`SessionError::OutcomeUnknown`](crate::SessionError::OutcomeUnknown) if the engine went away while it may have begun a
///   turn or a session, or have removed one for [`take_session`](crate::SessionService::take_session), which repeats its
///   call for five minutes. [`outcome`](Self::outcome) asks for it later. The history of a session that was removed is lost
///   in that case.
/// - [`SessionError::WorkerLost`](crate::SessionError::WorkerLost) as the result of a turn whose worker is gone.
/// - [`SessionError::HistoryLost`](crate::SessionError::HistoryLost), once, if the engine has fewer answered turns of a
///   session than this client has seen.
/// - [`SessionError::CapacityExceeded`](crate::SessionError::CapacityExceeded) if no worker has room, or none is there.
/// - [`SessionError::Archived`](crate::SessionError::Archived) for archived sessions, as in every service that stores them.
/// - An error of the agent keeps its kind, and its text. The type of an [`AgentError::Other`](crate::AgentError::Other) stays
///   in the worker.
///
/// # Turns
/// - A turn whose end is not heard of stays open while the engine is away, for five minutes. Then its result is
///   [`OutcomeUnknown`](crate::SessionError::OutcomeUnknown). If the engine comes back as another one, the result is
///   [`SessionError::Store`] with [`EngineError::Replaced`].
/// - A request with a timeout is cancelled by the worker and by this client, whichever clock is first.
/// - [`SessionSpec::extension`](crate::SessionSpec::extension) cannot be passed on. Such a request is refused as
///   [`SessionError::Build`](crate::SessionError::Build) with [`AgentError::Config`](crate::AgentError::Config), and one with a
///   [reservation](crate::SessionSpec::reservation) as
///   [`SessionError::InvalidReservation`](crate::SessionError::InvalidReservation).
/// - On a session thread waits behave as those for sessions of a local service: they end with the turn's cancellation, and
///   lend its permit. A wait of a session for itself is refused if its worker is in this process. Longer circles of waits are
///   not found: agents that wait for each other through a cluster need timeouts.
/// - An [`open_session`](crate::SessionService::open_session) whose wait is interrupted leaves no session: this client
///   archives it at once, and removes it after its build.
///
/// # Events
/// - A turn waits while its receiver is behind by a window of 1 MiB or 256 small events, and its channels are full.
/// - Where events are missing, a [`StreamTruncated`](crate::AgentEvent::StreamTruncated) event takes their place. Of a turn
///   whose worker is gone, the last event is made from the result. Events of a cancelled turn that have no room are missing
///   too.
/// - A subscription goes on when the session moves to another worker, behind a `StreamTruncated` event without a turn, with
///   the number of the event before it. Gaps in the numbers show what was lost. Only a worker that has the session live has
///   its past events, for [`from_seq`](crate::Subscription::from_seq).
/// - [`event_injector`](crate::SessionService::event_injector) and [`comms_runtime`](crate::SessionService::comms_runtime)
///   return `None`, and [`interrupt_interaction`](crate::SessionService::interrupt_interaction) finds none. Messages for a
///   running turn go by [`steer`](crate::SessionService::steer).
///
/// # Reads
/// [`read`](crate::SessionService::read), [`list`](crate::SessionService::list) and the history come from the engine in one
/// round trip for each session or page, whatever the workers do. They show the last save and the turns in flight.
///
/// - [`history_at`](crate::SessionService::history_at) returns the stored history, and the number of the last event when it
///   was saved. A turn is saved before its last events are numbered. So a subscriber that follows from the next number on
///   may get the `RunCompleted` or `RunFailed` of the last turn in the history, and the ends of its interactions, once more;
///   nothing else twice.
///
/// # Waits
/// The engine does not report the ends of other clients' turns. So [`wait_idle`](crate::SessionService::wait_idle),
/// [`export_session`](crate::SessionService::export_session), [`archive_wait`](crate::SessionService::archive_wait) and
/// [`take_session`](crate::SessionService::take_session) look again, at first after 5 milliseconds, then at most every 50.
///
/// - An export waits until the first turn in flight has ended, in host mode too, and reads the record then.
/// - `archive_wait` waits until the session has no turn in flight and no worker: then its agent is dropped.
/// - `take_session` removes the session, while no turn is in flight.
///
/// # Differences from a service in one process
///
/// | What | Here |
/// |---|---|
/// | [`TurnHandle::is_queued`](crate::TurnHandle::is_queued) | turns false with the first event of the turn's receiver, or when the client looks: at most a quarter of a lease late |
/// | [`TurnHandle::timings`](crate::TurnHandle::timings) | zero: they stay with the worker |
/// | [`EventStream::dropped`](crate::EventStream::dropped) | counts events that had no room in this process. What a worker or the engine has lost is not counted: a `StreamTruncated` event and the numbers show it |
/// | [`Subscription::from_seq`](crate::Subscription::from_seq) | past events come from a live worker only. Those that it has no more are not counted as dropped |
/// | [`SessionInfo::turn_started_at`](crate::SessionInfo::turn_started_at) | `None` |
/// | [`SessionInfo::last_seq`](crate::SessionInfo::last_seq) | the number at the last save |
/// | [`SessionInfo::last_assistant_text`](crate::SessionInfo::last_assistant_text) | looked for in the last 64 messages |
/// | [`PendingInput::requested_at`](crate::PendingInput::requested_at) | the time of the read |
/// | a session that builds its first agent | has no figures, labels and model yet. Its history is [`Busy`](crate::SessionError::Busy) without a turn |
/// | the state in a list | `Running` for a session that waits for input |
/// | [`SessionSummary::is_live`](crate::SessionSummary::is_live) | a turn is in flight at a live worker. Whether an idle session is live is not known |
/// | the order of a list | creation in milliseconds, then the ids |
/// | [`SessionError::CapacityExceeded`](crate::SessionError::CapacityExceeded) | both figures are 0: the engine does not count the sessions |
/// | timeouts | may be exceeded by one lease while the engine is away |
///
/// # Drop
/// The drop of the last handle ends the client without a wait: interrupts that were made before are still sent, its lease is
/// given up, its threads end within about one lease, mostly at once. Turns go on. Their handles get [`OutcomeUnknown`](crate::SessionError::OutcomeUnknown).
///
/// [`SessionError::Store`]: crate::SessionError::Store
#[derive(Clone)]
pub struct ClusterService {
    handles: Arc<Handles>,
}

/// What the handles share. The last one's drop stops the threads.
struct Handles {
    core: Arc<Core>,
}

impl ClusterService {
    /// The longest lease. A request is repeated for as long, and the engine knows it for ten minutes.
    const MAX_LEASE: Duration = Duration::from_secs(300);

    /// Makes a client known to the engine, and starts its two threads. The client takes one more connection.
    ///
    /// # Errors
    /// - [`EngineError::InvalidConfig`] if the lease is longer than 5 minutes.
    /// - Those of any call of the engine: [`EngineError::Unreachable`], [`EngineError::OutOfMemory`] and others.
    /// - [`EngineError::Failed`] if the system refuses a thread.
    ///
    /// # Blocking
    /// For the engine. While it does not answer, for one [lease](super::EngineConfig::lease).
    pub fn new(engine: Engine) -> Result<Self, EngineError> {
        if engine.config().lease > Self::MAX_LEASE {
            let reason = "it must be at most 5 minutes for a client";
            return Err(EngineError::InvalidConfig { option: "lease", reason });
        }
        let (jobs, queue) = unbounded();
        let core = Arc::new(Core::new(engine, jobs)?);
        let handles = Arc::new(Handles { core: Arc::clone(&core) });
        let sender = Arc::clone(&core);
        spawn("turnwise-sender", move || sender::run(&sender, &queue))?;
        spawn("turnwise-listener", move || listener::run(&core))?;
        Ok(Self { handles })
    }

    /// The engine of the service.
    pub fn engine(&self) -> &Engine {
        &self.core().engine
    }

    fn core(&self) -> &Arc<Core> {
        &self.handles.core
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), EngineError> {
    let spawned = room_for_a_thread().and_then(|()| Builder::new().name(name.into()).spawn(run));
    let refused = |error: io::Error| EngineError::failed(format!("the system refuses a thread: {}", error.kind()));
    spawned.map(drop).map_err(refused)
}

impl Drop for Handles {
    fn drop(&mut self) {
        self.core.stopping.set();
        self.core.close(Closed::Stopped);
        // Wakes the sender. It fails only if that has not been started.
        let _ = self.core.jobs.send(Job::Stop);
    }
}

/// Shows the engine and counts, no text of a conversation.
impl fmt::Debug for ClusterService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterService")
            .field("engine", self.engine())
            .field("open_requests", &self.core().requests.count())
            .field("feeds", &self.core().feeds.count())
            .finish()
    }
}
