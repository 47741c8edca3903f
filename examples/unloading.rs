//! A hundred conversations, of which two are live at a time: the longest idle one makes room for the next.

use std::error::Error;

use turnwise::store::{FileStore, PersistentSessionService};
use turnwise::{agent_fn, EphemeralSessionService, SessionService, SessionSpec, StartTurnRequest};

fn main() -> Result<(), Box<dyn Error>> {
    let agent = agent_fn(|prompt, turn| Ok(turn.finish(format!("{prompt}, turn {}", turn.turn_id()))));
    let config = EphemeralSessionService::configure(agent).max_sessions(2);
    let service =
        PersistentSessionService::configure(config, FileStore::in_memory()?).unload_when_full(true).build()?;

    let mut ids = Vec::new();
    for number in 0..100 {
        let id = service.open_session(SessionSpec::new())?;
        service.start_turn(id, StartTurnRequest::new(format!("hello {number}")))?;
        ids.push(id);
    }
    let first = service.start_turn(ids[0], StartTurnRequest::new("hello again"))?; // resumed for this turn
    println!("{}", first.text);
    println!("{} messages of the first session", service.export_session(ids[0])?.messages().len());
    println!("{} live, {} unloaded so far", service.stats().sessions, service.stats().unloads);
    Ok(())
}
