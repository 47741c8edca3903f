//! Input to a turn that runs: it reaches this turn, or its sender is told that it came too late.

use std::error::Error;
use std::time::Duration;

use turnwise::{agent_fn, AgentEvent, EphemeralSessionService, InteractionContent, SessionService};
use turnwise::{SessionSpec, StartTurnRequest};

fn main() -> Result<(), Box<dyn Error>> {
    let agent = agent_fn(|prompt, turn| {
        let mut plan = vec![prompt];
        while plan.len() < 3 {
            turn.emit(AgentEvent::TextDelta { delta: plan.join(", ") })?; // stands for a step of the work
            if let Some(message) = turn.wait_inbox(Duration::MAX)? {
                plan.push(message.text());
            }
        }
        Ok(turn.finish(plan.join(", ")))
    });
    let service = EphemeralSessionService::new(agent, 1);
    let id = service.open_session(SessionSpec::new())?;
    let walk = service.begin_turn(id, StartTurnRequest::new("go north"))?;
    let turns = [Some(walk.turn_id()), None]; // this very turn, or whichever runs
    let notes = [("then east", turns[0]), ("and rest", turns[1])]
        .map(|(text, turn)| service.steer(id, turn, InteractionContent::message(text)));
    println!("{}", walk.wait()?.text);
    for note in notes {
        let taken = matches!(note?.last(), Some(AgentEvent::InteractionComplete { .. }));
        println!("taken: {taken}");
    }
    let late = service.steer(id, turns[0], InteractionContent::message("back home"));
    println!("{}", late.err().ok_or("the turn has ended")?.code());
    Ok(())
}
