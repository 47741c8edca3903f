//! W12: a queue of 1,000 turns on one session. The floor is a caller that starts as many turns one after the other, and
//! waits for each. `cargo bench --bench w12_queue`

// The library's rule about locks does not apply to its benches.
#![allow(clippy::disallowed_types)]

mod common;

use std::process::ExitCode;

use common::failures::exit_code;
use common::times::{interleaved, time, Times};
use common::{configure, full_or_quick, nothing, open, report, shut_down, title};
use turnwise::{SessionService, StartTurnRequest, WhenBusy};

fn main() -> ExitCode {
    let (turns, runs) = (full_or_quick(1_000, 200), full_or_quick(20, 2));
    let service = configure(nothing).turn_queue(turns).build().expect("the settings are valid");
    let id = open(&service, 1)[0];
    let one_by_one =
        || (0..turns).for_each(|_| drop(service.start_turn(id, StartTurnRequest::new("")).expect("a turn")));
    let queued = || {
        let begin = |_| service.begin_turn(id, StartTurnRequest::new("").when_busy(WhenBusy::Queue)).expect("a turn");
        let begun: Vec<_> = (0..turns).map(begin).collect();
        begun.into_iter().for_each(|turn| drop(turn.wait().expect("a result")));
    };
    let per_turn = |all: &dyn Fn()| (0..runs).map(|_| time(all) / turns as u32).collect::<Times>();
    let [floor, figure] = interleaved(9, [Box::new(|| per_turn(&one_by_one)), Box::new(|| per_turn(&queued))]);
    title("W12: a queue of turns on one session");
    report(&format!("{turns} turns, per turn"), figure.median(), floor.median());
    shut_down(&service);
    exit_code()
}
