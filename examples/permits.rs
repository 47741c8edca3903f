//! A limit of running turns: four turns are admitted, and two of them run at a time.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};

fn main() -> Result<(), Box<dyn Error>> {
    let (running, pair) = (AtomicUsize::new(0), Barrier::new(2));
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    let agent = agent_fn(move |prompt, turn| {
        let now = running.fetch_add(1, Ordering::SeqCst) + 1;
        seen.fetch_max(now, Ordering::SeqCst);
        pair.wait(); // until another turn runs beside this one
        running.fetch_sub(1, Ordering::SeqCst);
        Ok(turn.finish(prompt))
    });
    let service = EphemeralSessionService::configure(agent).max_sessions(4).max_running_turns(2).build()?;

    let names = ["north", "east", "south", "west"];
    let turns = names.map(|name| service.begin_session(CreateSessionRequest::new(name)));
    for turn in turns {
        println!("{}", turn?.wait()?.text);
    }
    println!("at most {} at a time", most.load(Ordering::SeqCst));
    Ok(())
}
