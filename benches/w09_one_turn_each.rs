//! W9: one turn on each of 10,000 sessions, all begun by one thread. The floors unpark as many threads, or ask them
//! through channels. `cargo bench --bench w09_one_turn_each`

// The library's rule about locks does not apply to its benches.
#![allow(clippy::disallowed_types)]

mod common;

use std::process::ExitCode;
use std::time::Duration;

use common::failures::{attempt, exit_code};
use common::floors::{Listening, Parked};
use common::times::{time, Times};
use common::{full_or_quick, many, nothing, open, report_rate, service, shut_down, title, Service};
use turnwise::{SessionId, SessionService, StartTurnRequest};

fn main() -> ExitCode {
    let (rounds, each, many) = (full_or_quick(3, 1), full_or_quick(5, 3), many());
    let (mut parked, mut listening, mut turns) = (Times::default(), Times::default(), Times::default());
    // The three run one after the other, so that no two sets of 10,000 threads exist at a time. Systems allow for about
    // three such sets.
    for _ in 0..rounds {
        parked.add(attempt("parked threads", || woken(many, each)).unwrap_or_default());
        listening.add(attempt("threads with channels", || asked(many, each)).unwrap_or_default());
        turns.add(attempt("turns", || begun(many, each)).unwrap_or_default());
    }
    title(&format!("W9: a turn of one on each of {many} sessions"));
    let figure = turns.median() / many as u32;
    report_rate("against waking parked threads", figure, parked.median() / many as u32, "turns");
    report_rate("against asking threads through channels", figure, listening.median() / many as u32, "turns");
    exit_code()
}

fn woken(many: usize, each: usize) -> Times {
    let threads = Parked::new(many);
    (0..each).map(|_| threads.wake_all()).collect()
}

fn asked(many: usize, each: usize) -> Times {
    let threads = Listening::new(many);
    (0..each).map(|_| threads.ask_all()).collect()
}

fn begun(many: usize, each: usize) -> Times {
    let service = service(nothing);
    let ids = open(&service, many);
    let times = (0..each).map(|_| one_turn_each(&service, &ids)).collect();
    shut_down(&service);
    times
}

fn one_turn_each(service: &Service, ids: &[SessionId]) -> Duration {
    time(|| {
        let begin = |id: &SessionId| service.begin_turn(*id, StartTurnRequest::new("")).expect("a turn");
        let turns: Vec<_> = ids.iter().map(begin).collect();
        turns.into_iter().for_each(|turn| drop(turn.wait().expect("a result")));
    })
}
