//! W1: the round trip of a turn from one blocking caller. The floor is a message to a thread, and its answer. `cargo
//! bench --bench w01_round_trip`

// The library's rule about locks does not apply to its benches.
#![allow(clippy::disallowed_types)]

mod common;

use std::process::ExitCode;

use common::failures::exit_code;
use common::floors::PingPong;
use common::times::{interleaved, times};
use common::{full_or_quick, nothing, open, report, service, shut_down, title};
use turnwise::{SessionService, StartTurnRequest};

fn main() -> ExitCode {
    let trips = full_or_quick(20_000, 5_000);
    let (ping_pong, service) = (PingPong::new(), service(nothing));
    let id = open(&service, 1)[0];
    let turn = || drop(service.start_turn(id, StartTurnRequest::new("")).expect("a turn"));
    let [floor, figure] = interleaved(9, [Box::new(|| ping_pong.round_trips(trips)), Box::new(|| times(trips, turn))]);
    title("W1: a turn, round trip, one blocking caller");
    report("p50", figure.median(), floor.median());
    report("p99", figure.percentile(99), floor.percentile(99));
    shut_down(&service);
    exit_code()
}
