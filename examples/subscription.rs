//! A subscription: the numbered events of a session, over several turns.

use std::error::Error;

use turnwise::{agent_fn, AgentEvent, EphemeralSessionService, SessionService, SessionSpec};
use turnwise::{StartTurnRequest, Subscription};

fn main() -> Result<(), Box<dyn Error>> {
    let agent = agent_fn(|prompt, turn| {
        turn.emit(AgentEvent::TextDelta { delta: prompt.to_uppercase() })?;
        Ok(turn.finish(prompt))
    });
    let service = EphemeralSessionService::new(agent, 1);
    let id = service.open_session(SessionSpec::new())?;
    let events = service.subscribe(id, Subscription::new())?;
    for prompt in ["one", "two"] {
        service.start_turn(id, StartTurnRequest::new(prompt))?;
    }
    service.archive(id)?; // the events end with the session
    for event in events {
        match event.event {
            AgentEvent::RunStarted { .. } => println!("{} a turn begins", event.seq),
            AgentEvent::TextDelta { delta } => println!("{} {delta}", event.seq),
            AgentEvent::RunCompleted { .. } => println!("{} the turn ends", event.seq),
            _ => {}
        }
    }
    Ok(())
}
