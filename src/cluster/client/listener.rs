//! The thread that reads the stream of the client, and renews its lease between two reads.
//!
//! After every connection but the first it asks for all accepted requests, since what was sent meanwhile may be lost. If
//! the lease has ended, the client takes a new name. While the engine is away, turns stay unanswered: they may go on. After
//! [`PATIENCE`] they are answered as unknown. The engine may be back for other threads by then, so a turn that is not as old
//! stays open.

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
            Err(error) => listening.on_failure(&error, Clock::System.now()),
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

    fn on_failure(&mut self, error: &EngineError, now: Instant) {
        let since = *self.away_since.get_or_insert_with(|| {
            record!(Warn, "turnwise::cluster", "the client does not hear the engine: {}", error.code());
            now
        });
        if now.saturating_duration_since(since) >= PATIENCE {
            self.core.give_up(now, PATIENCE);
        }
        // The result does not matter: the loop looks at the latch.
        let _ = Clock::System.deadline(self.pause).receive(self.core.stopping.receiver());
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        // The lease may have ended meanwhile.
        self.next_renewal = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::client::tests::core;
    use crate::cluster::messages::Verdict;
    use crate::error::SessionError;
    use crate::model::{RunResult, SessionId, TurnId};
    use crate::service::StartTurnRequest;
    use crate::sync::bounded;
    use crate::turn::handle::TurnHandle;

    fn away() -> EngineError {
        EngineError::Unreachable { reason: "told to".into() }
    }

    fn is_unknown(turn: TurnHandle) -> bool {
        let number = turn.turn_id();
        matches!(turn.wait(), Err(SessionError::OutcomeUnknown { turn: Some(turn), .. }) if turn == number)
    }

    #[test]
    fn c84_turns_are_unknown_after_five_minutes_without_the_engine() {
        let ((core, _jobs), id) = (core(), SessionId::new());
        let begin = || core.begin(id, StartTurnRequest::new("x")).unwrap();
        let next_renewal = Clock::System.now();
        let mut listening =
            Listening { core: &core, last: None, is_first: true, next_renewal, away_since: None, pause: FIRST_PAUSE };
        let (event_tx, events) = bounded(1);
        let with_events = core.begin(id, StartTurnRequest::new("x").event_tx(event_tx)).unwrap();
        let first = begin();
        let since = Clock::System.now();
        listening.on_failure(&away(), since);
        listening.on_failure(&away(), since + (PATIENCE - Duration::from_secs(1)));
        assert!(!first.is_finished() && !with_events.is_finished());
        while Clock::System.now() == since {}
        // The engine is back, and the thread of the listener does not know it yet.
        let second = begin();
        listening.on_failure(&away(), since + PATIENCE);
        assert!(first.is_finished());
        assert!(is_unknown(first) && is_unknown(with_events));
        assert_eq!(events.recv().ok(), None);
        assert!(!second.is_finished());
        listening.on_success();
        let verdict = RunResult::new(id, TurnId::new(3), "the result");
        let body = serde_json::to_string(&Verdict::Ok(verdict)).unwrap();
        let request = core.requests.accepted()[0].request.to_string();
        let id_text = id.to_string();
        let fields = ["verdict", &request, "id", &id_text, "turn", "3", "kind", "done", "body", &body, "answers", "3"];
        core.receive(fields.map(|field| field.as_bytes().to_vec()).to_vec());
        assert_eq!(second.wait().unwrap().text, "the result");
        // The next outage begins with its first failure.
        let third = begin();
        let since = Clock::System.now();
        listening.on_failure(&away(), since + PATIENCE);
        assert!(!third.is_finished());
        listening.on_failure(&away(), since + 2 * PATIENCE);
        assert!(third.is_finished());
        assert!(is_unknown(third));
        assert_eq!(core.requests.count(), 0);
    }
}
