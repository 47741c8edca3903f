//! An export: prints the history of a session, each message as a line of JSON.

use std::error::Error;

use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, StartTurnRequest};

fn main() -> Result<(), Box<dyn Error>> {
    let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt.to_uppercase())));
    let service = EphemeralSessionService::new(agent, 1);
    let first = service.create_session(CreateSessionRequest::new("hello"))?;
    service.start_turn(first.session_id, StartTurnRequest::new("again"))?;

    let history = service.export_session(first.session_id)?;
    for message in history.messages() {
        println!("{}", serde_json::to_string(message)?);
    }
    Ok(())
}
