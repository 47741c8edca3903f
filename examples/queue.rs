//! A busy session: a turn is refused, others queue, and an urgent one supersedes the turn that runs.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, StartTurnRequest, WhenBusy};

fn main() -> Result<(), Box<dyn Error>> {
    let done = AtomicUsize::new(0);
    let agent = agent_fn(move |prompt, turn| {
        if prompt == "dig" {
            turn.sleep(Duration::MAX)?; // until it is superseded
        }
        let place = done.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(turn.finish(format!("{place}. {prompt}, turn {}", turn.turn_id())))
    });
    let service = EphemeralSessionService::new(agent, 1);
    let digging = service.begin_session(CreateSessionRequest::new("dig"))?;
    let begin = |prompt, when_busy| {
        service.begin_turn(digging.session_id(), StartTurnRequest::new(prompt).when_busy(when_busy))
    };

    println!("{}", begin("rest", WhenBusy::Refuse).err().ok_or("the session was idle")?.code());
    let sowing = begin("sow", WhenBusy::Queue)?;
    let watering = begin("water", WhenBusy::Queue)?;
    println!("queued: {} {}", sowing.is_queued(), watering.is_queued());
    let taking_cover = begin("take cover", WhenBusy::Interrupt)?; // goes to the head of the queue

    let error = digging.wait().err().ok_or("the turn was not superseded")?;
    println!("{}", error.cancel_reason().ok_or(error)?);
    for turn in [taking_cover, sowing, watering] {
        println!("{}", turn.wait()?.text);
    }
    Ok(())
}
