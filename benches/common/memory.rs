//! How much memory is in use, on Linux, that of the kernel included.
//!
//! What is counted:
//!
//! - `VmRSS` of the process: every page that it has in memory, of stacks, heap and registry alike;
//! - `VmPTE` of the process: the page tables that map those pages;
//! - `KernelStack` of the system: the kernel keeps a stack for every thread, which no process is charged for;
//! - `SUnreclaim` of the system: what else the kernel keeps for a thread, its task and its memory areas above all.
//!
//! The last two are the whole system's: other programs that start or end threads meanwhile show in them. Address space that
//! no page has been touched of is not memory, and not counted.
//!
//! Every count is a process of its own, the bench's program once more: what an allocator has kept from one count, or the
//! kernel for threads that have just ended, would otherwise be free for the next.

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

/// What this process is to count; `None` where it is the bench itself.
pub(crate) fn asked_to_count() -> Option<String> {
    let mut arguments = std::env::args().skip(1);
    (arguments.next()? == COUNT).then(|| arguments.next().expect("what to count"))
}

/// Prints for [`counted`] what memory one of `many` takes that `make` makes, and returns what it made.
pub(crate) fn count<T>(many: usize, make: impl FnOnce() -> T) -> T {
    let before = settled();
    let made = make();
    let after = settled();
    let one = |part: usize| (after[part] - before[part]) / many as f64;
    println!("{} {} {} {}", one(0), one(1), one(2), one(3));
    made
}

/// Has `runs` processes of their own count `what`, and reads what they say: the one whose total is the median.
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

/// The memory in use once the kernel has stopped to give and take for threads that have just begun or ended.
fn settled() -> Memory {
    let mut last = memory().expect("a system with /proc");
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

/// `None` where there is no `/proc` that says.
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
