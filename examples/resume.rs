//! A resume: a new service continues with a history that another service has exported.

use std::error::Error;
use std::time::Duration;

use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, Message, Session};
use turnwise::{SessionService, SessionSpec, StartTurnRequest};

fn main() -> Result<(), Box<dyn Error>> {
    let history = first_life()?;
    let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
    let id = service.open_session(SessionSpec::new().resume(history.clone()))?;
    assert_eq!(id, history.id(), "the session keeps its id");

    service.start_turn(id, StartTurnRequest::new("and after it"))?;
    for message in service.export_session(id)?.messages() {
        if let Message::User { content } = message {
            println!("{content}");
        }
    }
    Ok(())
}

fn first_life() -> Result<Session, Box<dyn Error>> {
    let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
    let result = service.create_session(CreateSessionRequest::new("before the export"))?;
    Ok(service.take_session(result.session_id, Duration::from_secs(10))?) // exports the history, and ends the session
}
