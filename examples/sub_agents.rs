//! Sub-agents under a deadline: a parent asks three at once, keeps what is there in time, and leaves nothing behind.

use std::error::Error;
use std::time::Duration;

use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionQuery, SessionService, SubSession};

fn main() -> Result<(), Box<dyn Error>> {
    let agent = agent_fn(|prompt, turn| {
        if prompt != "Explore!" {
            // A sub-agent: the west takes for ever.
            turn.sleep(if prompt == "west" { Duration::MAX } else { Duration::from_millis(10) })?;
            return Ok(turn.finish(format!("The {prompt} is explored.")));
        }
        let asked = ["north", "west", "south"].map(|part| turn.sub_session(CreateSessionRequest::new(part)));
        let mut asked = asked.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut found = Vec::new();
        while !asked.is_empty() {
            let handles: Vec<_> = asked.iter().map(SubSession::handle).collect();
            // The deadline of this turn is that of its sub-agents too, and ends the wait.
            let Ok(Some(ended)) = turn.wait_any(&handles, None) else { break };
            found.extend(asked.remove(ended).wait().map(|result| result.text));
        }
        found.sort();
        Ok(turn.finish(found.join("\n")))
    });
    let service = EphemeralSessionService::configure(agent).max_running_turns(1).build()?;
    let request = CreateSessionRequest::new("Explore!").timeout(Duration::from_secs(2));
    let result = service.create_session(request)?;
    println!("{}\n{:?}", result.text, result.stop_reason);
    println!("{} session is left", service.list(SessionQuery::new())?.len());
    Ok(())
}
