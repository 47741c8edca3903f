//! Host mode: a turn continues after its prompt, and answers the interactions that the host injects.

use std::error::Error;

use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, EventSource, SessionService};

fn main() -> Result<(), Box<dyn Error>> {
    let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt.to_uppercase())));
    let service = EphemeralSessionService::new(agent, 1);
    let turn = service.begin_session(CreateSessionRequest::new("good morning").host_mode(true))?;
    let injector = service.event_injector(turn.session_id()).ok_or("the session is gone")?;

    for line in ["how are you", "and yourself"] {
        let interaction = injector.inject_with_subscription(line.into(), EventSource::Stdin)?;
        for event in interaction.events {
            if let AgentEvent::InteractionComplete { result, .. } = event {
                println!("{result}");
            }
        }
    }
    injector.dismiss(EventSource::Stdin)?;
    println!("{} prompts and interactions", turn.wait()?.turns);
    Ok(())
}
