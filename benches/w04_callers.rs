//! W4: turns of several blocking callers, each with its own session. The floor is as many callers, each with its own
//! thread that answers it. `cargo bench --bench w04_callers`

// The library's rule about locks does not apply to its benches.
#![allow(clippy::disallowed_types)]

mod common;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use common::failures::exit_code;
use common::floors;
use common::times::{interleaved, time, Times};
use common::{full_or_quick, nothing, open, report_rate, service, shut_down, title, Service};
use turnwise::{SessionId, SessionService, StartTurnRequest};

fn main() -> ExitCode {
    title("W4: a turn, of all that are made at once");
    let service = service(nothing);
    let ids = open(&service, 64);
    for callers in [2, 8, 64] {
        let turns = full_or_quick(64_000, 6_400) / callers;
        let [floor, figure] = interleaved(
            9,
            [
                Box::new(|| Times::of(floors::callers(callers, turns))),
                Box::new(|| Times::of(turns_at_once(&service, &ids[..callers], turns))),
            ],
        );
        report_rate(&format!("{callers} callers"), figure.median(), floor.median(), "turns");
    }
    shut_down(&service);
    exit_code()
}

fn turns_at_once(service: &Service, ids: &[SessionId], turns: usize) -> Duration {
    let turn = |id| drop(service.start_turn(id, StartTurnRequest::new("")).expect("a turn"));
    let all = time(|| {
        thread::scope(|scope| {
            for &id in ids {
                scope.spawn(move || (0..turns).for_each(|_| turn(id)));
            }
        });
    });
    all / (ids.len() * turns) as u32
}
