//! The memory in use on Linux, including that of the kernel.
//!
//! These figures are counted:
//!
//! - `VmRSS` of the process: all resident pages, of stacks, heap and registry alike.
//! - `VmPTE` of the process: the page tables that map those pages.
//! - `KernelStack` of the system: the kernel's stack for each thread, which is in no figure of a process.
//! - `SUnreclaim` of the system: the kernel's other memory for a thread, mainly its task and its memory areas.
//!
//! The last two are figures of the whole system. They also show other programs that start or end threads meanwhile.
//! Reserved address space whose pages were never touched is not memory, and is not counted.
//!
//! Each count runs in a process of its own, which is this program again. In one process, a later count could use memory
//! that the allocator has kept from an earlier count, or the kernel from ended threads.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// The first argument of a process that counts.
const COUNT: &str = "count";
pub(crate) const PARTS: [&str; 4] = ["VmRSS", "VmPTE", "KernelStack", "SUnreclaim"];

/// In kibibytes, in the order of [`PARTS`].
pub(crate) type Memory = [f64; PARTS.len()];

pub(crate) fn total(memory: &Memory) -> f64 {
    memory.iter().sum()
}

/// What this process has to count. `None` if it is the bench itself.
pub(crate) fn asked_to_count() -> Option<String> {
    let mut arguments = std::env::args().skip(1);
    (arguments.next()? == COUNT).then(|| arguments.next().expect("what to count"))
}

/// Calls `make`, which makes `many` objects, and prints the memory of one of them for [`counted`]. Returns the objects.
pub(crate) fn count<T>(many: usize, make: impl FnOnce() -> T) -> T {
    let before = settled();
    let made = make();
    let after = settled();
    let one = |part: usize| (after[part] - before[part]) / many as f64;
    println!("{} {} {} {}", one(0), one(1), one(2), one(3));
    made
}

/// Counts `what` in `runs` processes. Returns the count with the median total.
pub(crate) fn counted(what: &str, runs: usize) -> Memory {
    let mut counts: Vec<Memory> = (0..runs).map(|_| counted_once(what)).collect();
    counts.sort_by(|one, other| total(one).total_cmp(&total(other)));
    counts[counts.len() / 2]
}

fn counted_once(what: &str) -> Memory {
    let program = std::env::current_exe().expect("a path to this program");
    let output = Command::new(program).args([COUNT, what]).output().expect("this program runs once more");
    assert!(output.status.success(), "the count of {what} failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace().map(|number| number.parse().expect("a number"));
    std::array::from_fn(|_| numbers.next().expect("a number for each part"))
}

/// The memory in use after the kernel's figures for recently started or ended threads have settled.
fn settled() -> Memory {
    let mut last = memory().expect("a system with /proc");
    for _ in 0..40 {
        thread::sleep(Duration::from_millis(50));
        let now = memory().expect("/proc was readable before");
        let quiet = (total(&now) - total(&last)).abs() < 256.0;
        last = now;
        if quiet {
            break;
        }
    }
    last
}

/// The memory in use. `None` without a `/proc` that has the figures.
pub(crate) fn memory() -> Option<Memory> {
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
