//! The costs of a session among 10, 100, 1,000 and 10,000 sessions, and the behaviour at the system's limit of threads.
//! `cargo bench --bench scale`, or with other numbers of sessions: `cargo bench --bench scale -- 20000 40000`
//!
//! The bench writes a plot. Its file is the argument that ends with `.svg`, or else a file in `target`, whose path is
//! printed. `ServiceConfig::max_sessions` says how to raise the system's limit.

// The library's rule about locks does not apply to its benches.
#![allow(clippy::disallowed_types)]

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use common::failures::{attempt, exit_code};
use common::plot::{lines, Axes, Series};
use common::times::time;
use common::{configure, full_or_quick, shut_down, wait, Service, MANY};
use turnwise::crossbeam_channel::unbounded;
use turnwise::{SessionError, SessionId, SessionQuery, SessionService, SessionSpec, StartTurnRequest};

/// The operations on all sessions, in their order.
const STEPS: [&str; 6] = ["create", "one turn each", "list all", "interrupt all", "export all", "shut down"];

fn main() -> ExitCode {
    let asked: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let sizes = match asked.is_empty() {
        true => [10, 100, 1_000, full_or_quick(MANY, 2_000)].to_vec(),
        false => asked,
    };
    print!("{:<16}", "per session");
    STEPS.iter().for_each(|step| print!("{step:>15}"));
    println!();
    let mut series = STEPS.map(|step| Series { name: step.to_owned(), points: Vec::new() });
    for size in sizes {
        let mut steps = series.iter_mut();
        let show = |count: usize, cost: Duration| {
            let each = cost / count.max(1) as u32;
            print!("{:>15}", format!("{each:.2?}"));
            // A failed flush does not matter: the plot is written all the same.
            let _ = std::io::stdout().flush();
            let point = (count as f64, each.as_secs_f64() * 1e6);
            steps.next().into_iter().for_each(|series| series.points.push(point));
        };
        let _ = attempt(&format!("{size} sessions"), || measure(size, show));
        println!();
    }
    let file = std::env::args().skip(1).find(|argument| argument.ends_with(".svg"));
    let path = file.map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("scale.svg"), PathBuf::from);
    write_plot(&path, &series);
    exit_code()
}

/// Measures each of the [`STEPS`]. Calls `show` after each of them, with the number of sessions and the time for all.
fn measure(size: usize, mut show: impl FnMut(usize, Duration)) {
    let service = configure(wait).max_sessions(size).build().expect("the settings are valid");
    let mut ids = Vec::with_capacity(size);
    let created = time(|| ids = create(&service, size));
    print!("{:<16}", format!("{} sessions", ids.len()));
    show(ids.len(), created);
    show(ids.len(), time(|| run_all(&service, &ids)));
    show(ids.len(), time(|| assert_eq!(service.list(SessionQuery::new()).expect("all").len(), ids.len())));
    show(ids.len(), interrupt_all(&service, &ids));
    let export = |&id: &SessionId| drop(service.export_session(id).expect("a live session"));
    show(ids.len(), time(|| ids.iter().for_each(export)));
    show(ids.len(), time(|| shut_down(&service)));
}

/// Creates `size` sessions, or fewer if the system refuses a thread. A refused thread is a plain error: the other
/// sessions continue, and no session is left without a thread.
fn create(service: &Service, size: usize) -> Vec<SessionId> {
    let mut ids = Vec::with_capacity(size);
    while ids.len() < size {
        match service.open_session(SessionSpec::new()) {
            Ok(id) => ids.push(id),
            Err(error @ SessionError::Spawn { .. }) => {
                println!("the edge, after {} sessions: {} ({error})", ids.len(), error.code());
                break;
            }
            Err(error) => panic!("neither a session nor the edge: {error}"),
        }
    }
    ids
}

fn run_all(service: &Service, ids: &[SessionId]) {
    let begin = |&id: &SessionId| service.begin_turn(id, StartTurnRequest::new("")).expect("a turn");
    let turns: Vec<_> = ids.iter().map(begin).collect();
    turns.into_iter().for_each(|turn| drop(turn.wait().expect("a result")));
}

/// The time from the first interrupt until every turn has ended. All turns wait for a cancel.
fn interrupt_all(service: &Service, ids: &[SessionId]) -> Duration {
    let (event_tx, events) = unbounded();
    let begin = |&id: &SessionId| {
        let request = StartTurnRequest::new("wait").event_tx(event_tx.clone());
        service.begin_turn(id, request).expect("a turn")
    };
    let turns: Vec<_> = ids.iter().map(begin).collect();
    // The library emits a first event for each turn. After these events all turns run.
    events.iter().take(ids.len()).for_each(drop);
    time(|| {
        ids.iter().for_each(|&id| service.interrupt(id).expect("the turn runs"));
        turns.into_iter().for_each(|turn| drop(turn.wait().expect_err("interrupted")));
    })
}

fn write_plot(path: &Path, series: &[Series]) {
    let axes = Axes { title: "What a session costs", x: "sessions", y: "µs per session" };
    match fs::write(path, lines(&axes, series).as_bytes()) {
        Ok(()) => println!("plot: {}", path.display()),
        Err(error) => println!("no plot: {}: {error}", path.display()),
    }
}
