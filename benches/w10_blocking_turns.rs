//! W10: 1,000 concurrent turns that block for 10 ms each, as calls of a blocking client would. `cargo bench --bench
//! w10_blocking_turns`

// The library's rule about locks does not apply to its benches.
#![allow(clippy::disallowed_types)]

mod common;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use common::failures::exit_code;
use common::times::{interleaved, time, times};
use common::{block, full_or_quick, open, report, service, shut_down, title};
use turnwise::{SessionId, SessionService, StartTurnRequest};

fn main() -> ExitCode {
    let (sessions, runs) = (full_or_quick(1_000, 200), full_or_quick(5, 2));
    let service = service(block);
    let ids = open(&service, sessions);
    let all_at_once = || {
        let begin = |id: &SessionId| service.begin_turn(*id, StartTurnRequest::new("10")).expect("a turn");
        let turns: Vec<_> = ids.iter().map(begin).collect();
        turns.into_iter().for_each(|turn| drop(turn.wait().expect("a result")));
    };
    let [floor, figure] = interleaved(
        5,
        [
            // A sleep takes longer than requested. The floor is the real duration of such a sleep.
            Box::new(|| times(runs, || thread::sleep(Duration::from_millis(10)))),
            Box::new(|| (0..runs).map(|_| time(all_at_once)).collect()),
        ],
    );
    title("W10: turns that block for 10 ms");
    report(&format!("{sessions} sessions, from first to last"), figure.median(), floor.median());
    shut_down(&service);
    exit_code()
}
