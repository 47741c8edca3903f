//! The thread that reads the stream of the client, and renews its lease between two reads.
//!
//! After every connection but the first it asks for all accepted requests, since what was sent meanwhile may be lost. If
//! the lease has ended, the client takes a new name. While the engine is away, turns stay unanswered: they may go on. After
//! [`PATIENCE`] they are answered as unknown.

use std::time::Duration;

use crate::cluster::error::EngineError;
use crate::panics::record;
use crate::sync::Instant;
use crate::time::clock::Clock;

use super::core::Core;
use super::requests::Closed;

/// How long open turns wait for an engine that is away. It keeps verdicts for ten minutes.
const PATIENCE: Duration = Duration::from_secs(300);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// The longest wait for an entry.
const MAX_BLOCK: Duration = Duration::from_secs(5);

struct Listening<'a> {
    core: &'a Core,
    /// The last entry that was read under the client's name; `None` before the first.
    last: Option<String>,
    is_first: bool,
    next_renewal: Instant,
    away_since: Option<Instant>,
    pause: Duration,
}

pub(super) fn run(core: &Core) {
    let next_renewal = Clock::System.now() + renewal_period(core);
    let mut listening =
        Listening { core, last: None, is_first: true, next_renewal, away_since: None, pause: FIRST_PAUSE };
    while !core.stopping.is_set() {
        match listening.listen() {
            Ok(()) => {}
            Err(EngineError::Replaced) => {
                core.close(Closed::Replaced);
                core.stopping.wait();
            }
            Err(error) => listening.on_failure(&error),
        }
    }
}

fn renewal_period(core: &Core) -> Duration {
    core.engine.config().lease / 4
}

impl Listening<'_> {
    /// Connects, and reads until the client stops or has another name.
    fn listen(&mut self) -> Result<(), EngineError> {
        let core = self.core;
        let mut listener = core.engine.listen(&format!("c:{}", core.name()))?;
        if let Some(last) = &self.last {
            listener = listener.after(last.clone());
        }
        if !std::mem::take(&mut self.is_first) {
            core.ask_for_all();
        }
        while !core.stopping.is_set() {
            if self.next_renewal <= Clock::System.now() && !self.renew()? {
                core.rename()?;
                self.last = None;
                return Ok(());
            }
            let block = Clock::System.until(self.next_renewal).min(MAX_BLOCK).max(Duration::from_millis(1));
            let entries = listener.read(block)?;
            self.last = Some(listener.last().to_owned());
            self.on_success();
            entries.into_iter().for_each(|entry| core.receive(entry));
        }
        Ok(())
    }

    fn renew(&mut self) -> Result<bool, EngineError> {
        let is_there = self.core.renew()?;
        self.next_renewal = Clock::System.now() + renewal_period(self.core);
        Ok(is_there)
    }

    fn on_success(&mut self) {
        self.pause = FIRST_PAUSE;
        if self.away_since.take().is_some() {
            record!(Warn, "turnwise::cluster", "the client listens again");
        }
    }

    fn on_failure(&mut self, error: &EngineError) {
        let now = Clock::System.now();
        let since = *self.away_since.get_or_insert_with(|| {
            record!(Warn, "turnwise::cluster", "the client does not hear the engine: {}", error.code());
            now
        });
        if now.saturating_duration_since(since) >= PATIENCE {
            self.core.give_up();
        }
        // The result does not matter: the loop looks at the latch.
        let _ = Clock::System.deadline(self.pause).receive(self.core.stopping.receiver());
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        // The lease may have ended meanwhile.
        self.next_renewal = now;
    }
}
