//! Compares turnwise with crates that a program could use instead, in one process. The workloads are W1 to W10 of the
//! benches. The table shows the figure of each crate, and its ratio to the figure of turnwise.
//!
//! ```sh
//! cargo run --release --manifest-path benches/peers/Cargo.toml                      # the table
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- benches/plots     # and two plots in that folder
//! ```
//!
//! A measurement that fails prints the reason. The other measurements continue, and the exit code is not 0. The message
//! numbers the contestants from the left of the table, and counts the floor if the row has one.
//!
//! All calls are those of a blocking program. It calls the async crates through `Runtime::block_on`, on a runtime with
//! 2 workers. Work that blocks in a turn runs in `spawn_blocking`, as users of those crates must do.

#![allow(clippy::disallowed_types)] // The library's rule about locks does not apply here.

#[path = "../../common/mod.rs"]
mod common;
mod kameo;
mod meerkat;
mod peer;
mod ractor;
mod table;
mod task;
mod tonari;
mod turnwise;
mod workloads;

use std::fs;
use std::path::Path;

use common::failures::{attempt, have_failed};
use common::memory::{asked_to_count, count};
use common::plot::{lines, Axes, Series};
use table::Row;
use workloads::Everybody;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
    let runtime = runtime.expect("the runtime starts");
    let all = Everybody {
        turnwise: turnwise::Turnwise::new(),
        meerkat: meerkat::Meerkat::new(&runtime),
        tonari: tonari::Tonari::new(),
        kameo: kameo::Kameo::new(&runtime),
        ractor: ractor::Ractor::new(&runtime),
    };
    if let Some(what) = asked_to_count() {
        count(common::many(), || workloads::make_idle(&what, &all));
        // The count is printed, so the process ends without waiting for the runtime.
        std::process::exit(0);
    }
    let (rows, work) = measure(&all);
    if let Some(crossover) = workloads::crossover(&work) {
        println!("W9 costs at most a tenth more than the best of the others once a turn computes for {crossover} µs");
    }
    if let Some(directory) = std::env::args().nth(1) {
        let axes = Axes {
            title: "One turn on each of 10,000 sessions at once, on 2 cores",
            x: "µs that a turn computes",
            y: "µs per turn",
        };
        write_plot(&directory, "peers.svg", &table::plot(&rows));
        write_plot(&directory, "crossover.svg", &lines(&axes, &work));
    }
    // The process ends the remaining sessions.
    std::process::exit(i32::from(have_failed()))
}

/// Runs every workload, and prints each row when it is measured. A workload that fails prints the reason, and the
/// others continue.
fn measure(all: &Everybody<'_>) -> (Vec<Row>, Vec<Series>) {
    let (mut rows, mut work) = (Vec::new(), Vec::new());
    let mut show = |row: Row| {
        table::print(&row);
        rows.push(row);
    };
    table::print_head();
    attempt("W1", || workloads::round_trip(all)).into_iter().for_each(&mut show);
    attempt("W2", || workloads::events(all)).into_iter().for_each(&mut show);
    attempt("W3", || workloads::create_and_end(all)).into_iter().for_each(&mut show);
    for callers in [2, 8, 64] {
        attempt("W4", || workloads::callers(all, callers)).into_iter().for_each(&mut show);
    }
    attempt("W5, idle", || workloads::reads(all)).into_iter().for_each(&mut show);
    attempt("W5, during a turn", || workloads::reads_during_a_turn(all)).into_iter().for_each(&mut show);
    attempt("W6", || workloads::interrupts(all)).into_iter().for_each(&mut show);
    let _ = attempt("W7", || workloads::lists(all, &mut show));
    match attempt("W8", workloads::memory_of_idle) {
        Some(Some(row)) => show(row),
        Some(None) => println!("W8 is not counted: there is no /proc here that says how much memory is in use"),
        None => {}
    }
    if let Some((row, lines)) = attempt("W9", || workloads::one_turn_each(all)) {
        show(row);
        work = lines;
    }
    attempt("W10", || workloads::blocking_turns(all)).into_iter().for_each(&mut show);
    (rows, work)
}

fn write_plot(directory: &str, name: &str, svg: &str) {
    let path = Path::new(directory).join(name);
    match fs::write(&path, svg.as_bytes()) {
        Ok(()) => println!("plot: {}", path.display()),
        Err(error) => println!("no plot: {}: {error}", path.display()),
    }
}
