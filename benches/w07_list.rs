//! W7: lists of 50 and of all of 10,000 sessions. The floor is a clone of as many entries under a lock. `cargo bench
//! --bench w07_list`

// The library's rule about locks does not apply to its benches.
#![allow(clippy::disallowed_types)]

mod common;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::RwLock;

use common::failures::exit_code;
use common::times::{interleaved, times, Times};
use common::{full_or_quick, many, nothing, open, report, service, shut_down, title, Service};
use turnwise::{SessionQuery, SessionService, SessionSummary};

fn main() -> ExitCode {
    let (pages, alls) = (full_or_quick(2_000, 200), full_or_quick(50, 5));
    let (service, many) = (service(nothing), many());
    let ids = open(&service, many);
    let lines = RwLock::new(service.list(SessionQuery::new()).expect("all"));
    let [page_floor, first, middle, all_floor, all] = interleaved(
        9,
        [
            Box::new(|| times(pages, || clone_lines(&lines, 50))),
            Box::new(|| lists(&service, pages, &SessionQuery::new().limit(50))),
            Box::new(|| lists(&service, pages, &SessionQuery::new().after(ids[many / 2]).limit(50))),
            Box::new(|| times(alls, || clone_lines(&lines, many))),
            Box::new(|| lists(&service, alls, &SessionQuery::new())),
        ],
    );
    title("W7: a list");
    report(&format!("the first 50 of {many}"), first.median(), page_floor.median());
    report(&format!("50 from the middle of {many}"), middle.median(), page_floor.median());
    report(&format!("all {many}"), all.median(), all_floor.median());
    shut_down(&service);
    exit_code()
}

fn lists(service: &Service, count: usize, query: &SessionQuery) -> Times {
    times(count, || drop(black_box(service.list(query.clone()).expect("a list"))))
}

fn clone_lines(lines: &RwLock<Vec<SessionSummary>>, count: usize) {
    drop(black_box(lines.read().expect("the lock is not poisoned")[..count].to_vec()));
}
