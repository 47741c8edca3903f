//! A test of an agent with the test kit: the agent waits at a gate in place of a model, and is interrupted there.

use std::error::Error;
use std::time::Duration;

use turnwise::testkit::{assert_no_leaked_sessions, within, Gate, Recorder};
use turnwise::{agent_fn, AgentEvent, CancelReason, CreateSessionRequest, EphemeralSessionService, SessionService};

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    within(Duration::from_secs(60), || {
        let model = Gate::new();
        let gate = model.clone();
        let agent = agent_fn(move |_, turn| {
            turn.emit(AgentEvent::TextDelta { delta: "hm, ".into() })?;
            gate.pass(turn.cancel_token())?; // the model takes its time
            Ok(turn.finish("aha"))
        });
        let service = EphemeralSessionService::new(agent, 1);
        let (event_tx, mut events) = Recorder::of_turn();
        let turn = service.begin_session(CreateSessionRequest::new("think").event_tx(event_tx))?;
        let id = turn.session_id();

        model.wait_arrived(1); // the turn has begun and has not ended
        turn.interrupt();
        let error = turn.wait().err().ok_or("the turn was not interrupted")?;
        assert_eq!(error.cancel_reason(), Some(CancelReason::Interrupted));
        print!("{}", events.transcript());
        service.archive(id)?;
        assert_no_leaked_sessions(&service);
        Ok(())
    })
}
