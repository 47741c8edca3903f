//! A frame loop: the host polls a turn between two frames, and never waits for it.

use std::error::Error;
use std::time::Duration;

use turnwise::crossbeam_channel::{tick, TryRecvError};
use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, SessionService};

fn main() -> Result<(), Box<dyn Error>> {
    let agent = agent_fn(|prompt, turn| {
        for word in prompt.split_whitespace() {
            turn.emit(AgentEvent::TextDelta { delta: word.to_uppercase() })?;
        }
        Ok(turn.finish("the end"))
    });
    let service = EphemeralSessionService::new(agent, 1);
    let stream = service.stream_session(CreateSessionRequest::new("once upon a time"))?;

    let frames = tick(Duration::from_millis(16));
    loop {
        match stream.try_recv() {
            Ok(AgentEvent::TextDelta { delta }) => println!("{delta}"),
            Ok(_) => {}
            Err(TryRecvError::Empty) => drop(frames.recv()?), // a game draws its frame here
            Err(TryRecvError::Disconnected) => break,
        }
    }
    println!("{}", stream.wait()?.text); // does not wait any more
    Ok(())
}
