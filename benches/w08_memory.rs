//! W8: the memory of an idle session, against that of a parked thread with a stack of the same size.
//! `cargo bench --bench w08_memory` (Linux)
//!
//! What is counted, as growth from before there are 10,000 of them to after, divided by 10,000:
//!
//! - `VmRSS` of the process: every page that it has in memory, of stacks, heap and registry alike;
//! - `VmPTE` of the process: the page tables that map those pages;
//! - `KernelStack` of the system: the kernel keeps a stack for every thread, which no process is charged for;
//! - `SUnreclaim` of the system: what else the kernel keeps for a thread, its task and its memory areas above all.
//!
//! The last two are the whole system's: other programs that start or end threads meanwhile show in them. Address space that
//! no page has been touched of is not memory, and not counted.
//!
//! Every count is a process of its own, this program once more: what an allocator has kept from one count, or the kernel for
//! threads that have just ended, would otherwise be free for the next.

// The library's rule about locks is the library's.
#![allow(clippy::disallowed_types)]

mod common;

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::floors::Parked;
use common::{full_or_quick, many, nothing, open, report_numbers, service, title};
use turnwise::{SessionService, StartTurnRequest};

/// The first argument of a count.
const COUNT: &str = "count";
const PARTS: [&str; 4] = ["VmRSS", "VmPTE", "KernelStack", "SUnreclaim"];

fn main() {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some(COUNT), Some(what)) => count(&what),
        _ if memory().is_none() => {
            println!("W8: not counted: there is no /proc here that says how much memory is in use")
        }
        _ => compare(),
    }
}

/// In kibibytes, in the order of [`PARTS`].
type Memory = [f64; PARTS.len()];

fn compare() {
    let (mut threads, mut opened, mut used) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..full_or_quick(3, 1) {
        threads.push(counted("threads"));
        opened.push(counted("opened"));
        used.push(counted("used"));
    }
    let (threads, opened, used) = (median(threads), median(opened), median(used));
    title(&format!("W8: memory of one of {}", many()));
    report_numbers("a session that has run no turn", total(&opened), total(&threads), "KiB");
    report_numbers("a session that has run ten turns", total(&used), total(&threads), "KiB");
    for (part, name) in PARTS.iter().enumerate() {
        report_numbers(&format!("  of it {name}, after ten turns"), used[part], threads[part], "KiB");
    }
}

fn total(memory: &Memory) -> f64 {
    memory.iter().sum()
}

/// The count whose total is the median.
fn median(mut counts: Vec<Memory>) -> Memory {
    counts.sort_by(|one, other| total(one).total_cmp(&total(other)));
    counts[counts.len() / 2]
}

/// Has a process of its own count, and reads what it says.
fn counted(what: &str) -> Memory {
    let program = std::env::current_exe().expect("a path to this program");
    let output = Command::new(program).args([COUNT, what]).output().expect("this program runs once more");
    assert!(output.status.success(), "the count of {what} failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace().map(|number| number.parse().expect("a number"));
    std::array::from_fn(|_| numbers.next().expect("a number for each part"))
}

/// The process of its own: prints what one of many takes. It ends without ending them, which nobody would wait for.
fn count(what: &str) {
    let before = settled();
    let after = match what {
        "threads" => {
            let threads = Parked::new(many());
            threads.wake_all();
            let after = settled();
            drop(threads);
            after
        }
        _ => with_sessions(if what == "used" { 10 } else { 0 }),
    };
    let one = |part: usize| (after[part] - before[part]) / many() as f64;
    println!("{} {} {} {}", one(0), one(1), one(2), one(3));
}

fn with_sessions(turns: usize) -> Memory {
    let service = service(nothing);
    let ids = open(&service, many());
    for _ in 0..turns {
        for &id in &ids {
            service.start_turn(id, StartTurnRequest::new("")).expect("a turn");
        }
    }
    settled()
}

/// The memory in use once the kernel has stopped to give and take for threads that have just begun or ended.
fn settled() -> Memory {
    let mut last = memory().expect("there has been a /proc before");
    for _ in 0..40 {
        thread::sleep(Duration::from_millis(50));
        let now = memory().expect("there has been a /proc before");
        let quiet = (total(&now) - total(&last)).abs() < 256.0;
        last = now;
        if quiet {
            break;
        }
    }
    last
}

fn memory() -> Option<Memory> {
    let process = fs::read_to_string("/proc/self/status").ok()?;
    let system = fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes = |part| field(&process, part).or_else(|| field(&system, part));
    Some([kibibytes(PARTS[0])?, kibibytes(PARTS[1])?, kibibytes(PARTS[2])?, kibibytes(PARTS[3])?])
}

/// The number in a line `name: number kB`.
fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}
