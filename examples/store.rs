//! The store: a second service, as after a restart, continues with a session that is kept in a file.

use std::error::Error;

use turnwise::store::{FileStore, PersistentSessionService};
use turnwise::{agent_fn, CreateSessionRequest, SessionId, SessionService, StartTurnRequest};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("turnwise-store-{}", SessionId::new()));
    std::fs::create_dir(&folder)?;
    let file = folder.join("sessions.redb");

    let agent = || agent_fn(|prompt, turn| Ok(turn.finish(format!("turn {}: {prompt}", turn.turn_id()))));
    let before = PersistentSessionService::new(agent(), 8, FileStore::open(&file)?);
    let first = before.create_session(CreateSessionRequest::new("hello"))?; // in the file by now
    println!("{}", first.text);
    before.shutdown(std::time::Duration::from_secs(10));
    drop(before); // closes the file

    let after = PersistentSessionService::new(agent(), 8, FileStore::open(&file)?);
    println!("{}", after.start_turn(first.session_id, StartTurnRequest::new("again"))?.text);
    println!("{} messages", after.export_session(first.session_id)?.messages().len());

    after.shutdown(std::time::Duration::from_secs(10));
    std::fs::remove_dir_all(folder)?;
    Ok(())
}
