//! The client of a cluster: [`ClusterService`].

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

impl fmt::Debug for ClusterService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterService")
            .field("engine", self.engine())
            .field("open_requests", &self.core().requests.count())
            .field("feeds", &self.core().feeds.count())
            .finish()
    }
}
