//! W3: the creation of a session with its first turn, and its archive. The floor is a thread that is started and
//! joined. `cargo bench --bench w03_create_archive`

// The library's rule about locks does not apply to its benches.
#![allow(clippy::disallowed_types)]

mod common;

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::Duration;

use common::failures::exit_code;
use common::floors::spawn_and_join;
use common::times::{interleaved, times, Times};
use common::{configure, full_or_quick, many, nothing, open, report, service, shut_down, title, Service};
use turnwise::{CreateSessionRequest, SessionId, SessionService};

fn main() -> ExitCode {
    let cycles = full_or_quick(500, 100);
    let (reusing, crowded_reusing) = (service(nothing), service(nothing));
    let new_threads = || configure(nothing).idle_threads(0).build().expect("the settings are valid");
    let (alone, crowded) = (new_threads(), new_threads());
    let mut others: VecDeque<SessionId> = open(&crowded, many() / 2).into();
    let mut reusing_others: VecDeque<SessionId> = open(&crowded_reusing, many() / 2).into();
    let [floor, new, waited, reused, among, reused_among] = interleaved(
        5,
        [
            Box::new(|| spawn_and_join(cycles)),
            Box::new(|| times(cycles, || archive(&alone, create(&alone)))),
            Box::new(|| times(cycles, || archive_wait(&alone, create(&alone)))),
            Box::new(|| times(cycles, || archive(&reusing, create(&reusing)))),
            Box::new(|| times(cycles, || archive_oldest(&crowded, &mut others))),
            Box::new(|| times(cycles, || archive_oldest(&crowded_reusing, &mut reusing_others))),
        ],
    );
    title("W3: create, first turn, archive");
    let line = |what: &str, figure: Times| report(what, figure.median(), floor.median());
    line("on a new thread", new);
    line("on a new thread, and waiting for its end", waited);
    line("on a thread that has served before", reused);
    let others = others.len();
    line(&format!("the oldest of {others}; on a new thread"), among);
    line(&format!("the oldest of {others}; on one that has served"), reused_among);
    [alone, reusing, crowded, crowded_reusing].iter().for_each(shut_down);
    exit_code()
}

fn create(service: &Service) -> SessionId {
    service.create_session(CreateSessionRequest::new("")).expect("a session").session_id
}

fn archive(service: &Service, id: SessionId) {
    service.archive(id).expect("a live session");
}

fn archive_wait(service: &Service, id: SessionId) {
    service.archive_wait(id, Duration::from_secs(60)).expect("the session ends");
}

fn archive_oldest(service: &Service, others: &mut VecDeque<SessionId>) {
    others.push_back(create(service));
    others.pop_front().into_iter().for_each(|oldest| archive(service, oldest));
}
