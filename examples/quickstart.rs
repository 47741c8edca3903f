//! The smallest useful program: an agent that counts its turns, a session, two turns, an interrupt.
//!
//! It prints with `println!`, which panics if standard output is closed. The programs in `examples/apps` end quietly in
//! that case, as programs of a shell do: see `examples/apps/src/say.rs`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;
use turnwise::{
    agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, SessionError, SessionService, StartTurnRequest,
};

fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    let _ = writeln!(io::stderr(), "quickstart: {error}");
    ExitCode::FAILURE
}

fn run() -> Result<(), SessionError> {
    // What the agent does in a turn. It runs on a thread of its session's own, so it may block.
    let agent = agent_fn(|prompt, turn| {
        for word in prompt.split_whitespace() {
            turn.emit(AgentEvent::TextDelta { delta: word.to_uppercase() })?; // ends here if interrupted
            turn.sleep(Duration::from_millis(50))?;
        }
        Ok(turn.finish(format!("that was turn {}", turn.turn_id())))
    });
    let service = EphemeralSessionService::new(agent, 8); // at most 8 sessions at a time

    // Creating a session runs its first turn.
    let first = service.create_session(CreateSessionRequest::new("hello there"))?;
    println!("{}", first.text);

    // A turn whose events are read as they happen.
    let mut stream = service.stream_turn(first.session_id, StartTurnRequest::new("tell me more"))?;
    for event in &mut stream {
        if let AgentEvent::TextDelta { delta } = event {
            println!("  {delta}");
        }
    }
    println!("{}", stream.wait()?.text);

    // A turn that is told to stop; the session stays.
    let turn = service.begin_turn(first.session_id, StartTurnRequest::new("on and on ".repeat(1_000)))?;
    turn.interrupt();
    if let Err(error) = turn.wait() {
        println!("{error}");
    }
    Ok(())
}
