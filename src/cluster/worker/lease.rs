//! One incarnation of a worker: its name, and the time for which it may begin turns.
//!
//! The lease at the engine ends by the engine's clock. What the worker goes by is its own monotonic clock, from the instant
//! *before* a renewal was sent. So it stops before the engine lets others take its sessions, whatever the delay of the
//! message was. A worker that was frozen in between finds out at the engine: every save carries the fence.

use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::sync::{Arc, Instant, Mutex};
use crate::time::clock::Clock;
use crate::wait::latch::Latch;

use super::super::engine::{unexpected, Call, Engine};
use super::super::error::EngineError;
use super::super::scripts;

pub(super) struct Incarnation {
    pub(super) wid: Arc<str>,
    lease: Duration,
    renewed: Mutex<Renewal>,
    /// Set when the lease is gone: no turn begins any more, and those that run are lost.
    over: Latch,
}

/// When the last renewal that succeeded was sent.
struct Renewal {
    sent: Instant,
    /// By the clock of the machine, which goes on while it is suspended. The other one need not.
    sent_at: SystemTime,
}

impl Renewal {
    fn now() -> Self {
        Self { sent: Clock::System.now(), sent_at: SystemTime::now() }
    }
}

impl Incarnation {
    /// Makes a worker known to the engine.
    ///
    /// # Blocking
    /// As a call of the engine.
    pub(super) fn enrol(engine: &Engine, capacity: usize, queue: usize) -> Result<Self, EngineError> {
        let wid: Arc<str> = Uuid::now_v7().to_string().into();
        let (lease, renewal) = (engine.config().lease, Renewal::now());
        let call = Call::new(&scripts::ENROL).arg("w").arg(&*wid).arg(lease.as_millis().to_string());
        let answer = engine.write(call.arg(capacity.to_string()).arg(queue.to_string()))?;
        if !answer.is_list_of("ok") {
            return Err(unexpected(&scripts::ENROL));
        }
        Ok(Self { wid, lease, renewed: Mutex::new(renewal), over: Latch::new() })
    }

    /// Renews the lease. Ends the incarnation if the engine has given it up, or has lost its data.
    pub(super) fn renew(&self, engine: &Engine) -> Result<(), EngineError> {
        let renewal = Renewal::now();
        let call = Call::new(&scripts::RENEW).arg("w").arg(&*self.wid).arg(self.lease.as_millis().to_string());
        match engine.write(call) {
            Ok(answer) if answer.is_list_of("ok") => {
                let mut renewed = self.renewed.lock();
                if renewal.sent > renewed.sent {
                    *renewed = renewal;
                }
                Ok(())
            }
            Ok(_) => {
                self.end();
                Ok(())
            }
            Err(error) => {
                if self.longest_age() >= self.lease || error == EngineError::Replaced {
                    self.end();
                }
                Err(error)
            }
        }
    }

    /// Whether a turn may begin now. After a quarter of the lease without a renewal it renews first: the process may have
    /// been frozen.
    pub(super) fn may_begin(&self, engine: &Engine) -> bool {
        if !self.over.is_set() && self.longest_age() > self.lease / 4 {
            let _ = self.renew(engine);
        }
        !self.over.is_set() && self.longest_age() < self.lease
    }

    /// The time since the last renewal.
    pub(super) fn age(&self) -> Duration {
        Clock::System.now().saturating_duration_since(self.renewed.lock().sent)
    }

    /// The same by the clock that has gone on for longer. A clock that was set back counts as no time.
    fn longest_age(&self) -> Duration {
        let by_the_machine = self.renewed.lock().sent_at.elapsed().unwrap_or_default();
        self.age().max(by_the_machine)
    }

    pub(super) fn end(&self) {
        self.over.set();
    }

    pub(super) fn over(&self) -> &Latch {
        &self.over
    }
}
