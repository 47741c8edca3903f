//! A sub-agent: the agent of one session lets other sessions do parts of its work.

use std::error::Error;

use turnwise::{agent_fn, builder_fn, AgentError, CreateSessionRequest, EphemeralSessionService};
use turnwise::{SessionAgentBuilder, SessionService};

fn main() -> Result<(), Box<dyn Error>> {
    let builder = builder_fn(|spec, session| {
        let service = session.service();
        let agent = agent_fn(move |prompt, turn| {
            let Some((left, right)) = prompt.split_once(" + ") else { return Ok(turn.finish(prompt)) };
            let service = service.upgrade().ok_or_else(|| AgentError::Internal("the service is gone".into()))?;
            let mut sum = 0;
            for part in [left, right] {
                let result = service.create_session(CreateSessionRequest::new(part))?;
                service.archive(result.session_id)?;
                sum += result.text.parse::<i64>().map_err(AgentError::other)?;
            }
            Ok(turn.finish(sum.to_string()))
        });
        agent.build_agent(spec, session)
    });
    let service = EphemeralSessionService::new(builder, 8);
    println!("{}", service.create_session(CreateSessionRequest::new("1 + 2 + 3 + 4"))?.text);
    Ok(())
}
