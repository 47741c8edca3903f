//! W9: one turn on each of 10,000 sessions, all begun from one thread, against waking as many threads.
//! `cargo bench --bench w09_one_turn_each`

// The library's rule about locks is the library's.
#![allow(clippy::disallowed_types)]

mod common;

use std::time::Duration;

use common::floors::{Listening, Parked};
use common::times::{time, Times};
use common::{full_or_quick, many, nothing, open, report_rate, service, shut_down, title, Service};
use turnwise::{SessionId, SessionService, StartTurnRequest};

fn main() {
    let (rounds, each, many) = (full_or_quick(3, 1), full_or_quick(5, 3), many());
    let (mut parked, mut listening, mut turns) = (Times::default(), Times::default(), Times::default());
    // One after the other, so that there are never two times 10,000 threads: systems have room for about three.
    for _ in 0..rounds {
        let threads = Parked::new(many);
        parked.add((0..each).map(|_| threads.wake_all()).collect());
        drop(threads);
        let threads = Listening::new(many);
        listening.add((0..each).map(|_| threads.ask_all()).collect());
        drop(threads);
        let service = service(nothing);
        let ids = open(&service, many);
        turns.add((0..each).map(|_| one_turn_each(&service, &ids)).collect());
        shut_down(&service);
    }
    title(&format!("W9: a turn of one on each of {many} sessions"));
    let figure = turns.median() / many as u32;
    report_rate("against waking parked threads", figure, parked.median() / many as u32, "turns");
    report_rate("against asking threads through channels", figure, listening.median() / many as u32, "turns");
}

fn one_turn_each(service: &Service, ids: &[SessionId]) -> Duration {
    time(|| {
        let begin = |id: &SessionId| service.begin_turn(*id, StartTurnRequest::new("")).expect("a turn");
        let turns: Vec<_> = ids.iter().map(begin).collect();
        turns.into_iter().for_each(|turn| drop(turn.wait().expect("a result")));
    })
}
