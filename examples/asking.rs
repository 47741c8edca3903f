//! A turn that asks a person: it waits without its running permit, and another thread of the host answers.

use std::error::Error;
use std::thread;

use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService};
use turnwise::{InputRequest, InputResponse, SessionService};

fn main() -> Result<(), Box<dyn Error>> {
    let agent = agent_fn(|prompt, turn| {
        if prompt == "water the plants" {
            return Ok(turn.finish("The plants are watered."));
        }
        let request =
            InputRequest::new("permission", format!("May I {prompt}?")).option("yes", "Yes").option("no", "No");
        let answer = turn.request_input(request)?;
        Ok(turn.finish(format!("The answer is {answer}.")))
    });
    let service = EphemeralSessionService::configure(agent).max_running_turns(1).build()?;
    let mut stream = service.stream_session(CreateSessionRequest::new("cut the hedge"))?;
    let id = stream.handle().session_id();
    for event in &mut stream {
        if let AgentEvent::InputRequested { input_id, request } = event {
            println!("{} {}", request.message, service.read(id)?.state.state);
            // The only permit is free, so a turn of another session runs meanwhile.
            println!("{}", service.create_session(CreateSessionRequest::new("water the plants"))?.text);
            let person = service.clone();
            thread::spawn(move || person.respond(id, input_id, InputResponse::Answer("no".into())));
        }
    }
    println!("{}", stream.wait()?.text);
    Ok(())
}
