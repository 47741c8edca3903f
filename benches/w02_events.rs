//! W2: events of a running turn, with one receiver and with none. The floors are the same events from a thread through
//! the same kind of channel, and the same events made and counted. `cargo bench --bench w02_events`

// The library's rule about locks does not apply to its benches.
#![allow(clippy::disallowed_types)]

mod common;

use std::process::ExitCode;
use std::time::Duration;

use common::failures::exit_code;
use common::floors;
use common::times::{interleaved, time, Times};
use common::{emit, full_or_quick, open, report_rate, service, shut_down, title};
use turnwise::crossbeam_channel::bounded;
use turnwise::{SessionId, SessionService, StartTurnRequest};

fn main() -> ExitCode {
    let events = full_or_quick(200_000, 20_000);
    let service = service(emit);
    let id = open(&service, 1)[0];
    let [heard_floor, heard, unheard_floor, unheard] = interleaved(
        9,
        [
            Box::new(|| Times::of(floors::events(events))),
            Box::new(|| Times::of(heard(&service, id, events))),
            Box::new(|| Times::of(floors::events_counted(events))),
            Box::new(|| Times::of(unheard(&service, id, events))),
        ],
    );
    title("W2: an event of a running turn");
    report_rate("to one receiver", heard.median(), heard_floor.median(), "events");
    // These events have no receiver and no subscriber. Their floor makes the same events and counts them.
    report_rate("that nobody hears", unheard.median(), unheard_floor.median(), "events");
    shut_down(&service);
    exit_code()
}

fn heard(service: &impl SessionService, id: SessionId, events: usize) -> Duration {
    let all = time(|| {
        let (event_tx, receiver) = bounded(256);
        let request = StartTurnRequest::new(events.to_string()).event_tx(event_tx);
        let turn = service.begin_turn(id, request).expect("a turn");
        // The library adds one event before the agent's events and one after them.
        assert_eq!(receiver.iter().count(), events + 2);
        turn.wait().expect("a result");
    });
    all / events as u32
}

fn unheard(service: &impl SessionService, id: SessionId, events: usize) -> Duration {
    let request = StartTurnRequest::new(events.to_string());
    time(|| drop(service.start_turn(id, request).expect("a turn"))) / events as u32
}
