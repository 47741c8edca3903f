//! A deadline: a turn that takes longer than its timeout is cancelled, and the session runs the next turn.

use std::error::Error;
use std::time::Duration;

use turnwise::{agent_fn, EphemeralSessionService, SessionService, SessionSpec, StartTurnRequest};

fn main() -> Result<(), Box<dyn Error>> {
    let agent = agent_fn(|prompt, turn| {
        let seconds = prompt.parse().unwrap_or(0);
        turn.sleep(Duration::from_secs(seconds))?; // ends here when the turn is cancelled
        Ok(turn.finish(format!("slept for {seconds} s")))
    });
    let service = EphemeralSessionService::new(agent, 1);
    let id = service.open_session(SessionSpec::new())?;

    let hour = StartTurnRequest::new("3600").timeout(Duration::from_millis(10));
    let error = service.start_turn(id, hour).err().ok_or("the turn was in time")?;
    println!("{}", error.cancel_reason().ok_or(error)?);

    let moment = StartTurnRequest::new("0").timeout(Duration::from_secs(60));
    println!("{}", service.start_turn(id, moment)?.text);
    Ok(())
}
