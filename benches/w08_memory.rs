//! W8: the memory of an idle session. The floor is that of a parked thread with the same stack size. `cargo bench
//! --bench w08_memory` (Linux)

// The library's rule about locks does not apply to its benches.
#![allow(clippy::disallowed_types)]

mod common;

use std::process::ExitCode;

use common::failures::{attempt, exit_code};
use common::floors::Parked;
use common::memory::{asked_to_count, count, counted, memory, total, PARTS};
use common::{full_or_quick, many, nothing, open, report_numbers, service, title, Service};
use turnwise::{SessionService, StartTurnRequest};

fn main() -> ExitCode {
    match asked_to_count().as_deref() {
        // The process ends without an end of its sessions, and without waiting for them.
        Some("threads") => drop(count(many(), parked)),
        Some("opened") => std::mem::forget(count(many(), || sessions(0))),
        Some(_) => std::mem::forget(count(many(), || sessions(10))),
        None if memory().is_none() => {
            println!("W8: not counted: there is no /proc here that says how much memory is in use")
        }
        None => compare(),
    }
    exit_code()
}

fn compare() {
    let runs = full_or_quick(3, 1);
    title(&format!("W8: memory of one of {}", many()));
    let Some(threads) = attempt("the memory of threads", || counted("threads", runs)) else { return };
    if let Some(opened) = attempt("the memory of sessions without a turn", || counted("opened", runs)) {
        report_numbers("a session that has run no turn", total(&opened), total(&threads), "KiB");
    }
    let Some(used) = attempt("the memory of sessions after ten turns", || counted("used", runs)) else { return };
    report_numbers("a session that has run ten turns", total(&used), total(&threads), "KiB");
    for (part, name) in PARTS.iter().enumerate() {
        report_numbers(&format!("  of it {name}, after ten turns"), used[part], threads[part], "KiB");
    }
}

fn parked() -> Parked {
    let threads = Parked::new(many());
    threads.wake_all();
    threads
}

fn sessions(turns: usize) -> Service {
    let service = service(nothing);
    let ids = open(&service, many());
    for _ in 0..turns {
        for &id in &ids {
            service.start_turn(id, StartTurnRequest::new("")).expect("a turn");
        }
    }
    service
}
