//! Spans: what an agent records belongs to its turn, also on its helper threads. Needs the feature `tracing`.

use std::error::Error;
use std::thread;

use tracing::{info, info_span};
use turnwise::{agent_fn, EphemeralSessionService, SessionService, SessionSpec, StartTurnRequest};

fn main() -> Result<(), Box<dyn Error>> {
    // The subscriber has to be the global one, since every session has a thread of its own.
    tracing_subscriber::fmt().without_time().with_target(false).with_ansi(false).init();
    let agent = agent_fn(|prompt, turn| {
        let _span = info_span!("sow", what = prompt).entered(); // below the turn's span
        info!("begins");
        thread::scope(|scope| {
            // Another thread is in no span until it enters one.
            scope.spawn(|| turn.span().in_scope(|| info!("helps")));
        });
        Ok(turn.finish(prompt))
    });
    let service = EphemeralSessionService::new(agent, 8);
    let id = "018f8f6e-9c6b-7000-8000-000000000001".parse()?; // otherwise each run prints another one
    service.open_session(SessionSpec::new().session_id(id))?;
    for grain in ["barley", "oats"] {
        service.start_turn(id, StartTurnRequest::new(grain))?;
    }
    Ok(())
}
