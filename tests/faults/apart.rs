//! Tests that need a process of their own.

use std::process::{Command, Stdio};

const MARK: &str = "TURNWISE_APART";

/// Runs the body of a test in a process of its own, which runs this test alone. `name` is the full name of the test.
/// `limits` are shell commands that run first, such as `ulimit -v 500000`. A crash of that process fails this test and
/// no other.
pub(crate) fn apart(name: &str, limits: &str, body: impl FnOnce()) {
    if std::env::var(MARK).as_deref() == Ok(name) {
        return body();
    }
    let program = std::env::current_exe().expect("this test's program");
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{limits}\nexec \"$0\" \"$@\"")).arg(program);
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(MARK, name).stdin(Stdio::null());
    let output = command.output().expect("a shell");
    let said = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{name} in its own process: {}\n{said}", output.status);
    assert!(said.contains("1 passed"), "{name} in its own process has run no test:\n{said}");
}

/// A figure of this process from `/proc/self/status`: `Threads`, or `VmRSS` in KiB.
pub(crate) fn status(figure: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find(|line| line.starts_with(figure)).expect("the figure");
    line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).expect("a number")
}

/// Waits until the system lists at most this many threads. It lists a joined thread for a moment longer.
pub(crate) fn settle_threads(at_most: usize) {
    let started = std::time::Instant::now();
    while status("Threads") > at_most {
        assert!(started.elapsed() < crate::LONG / 10, "{} threads, not {at_most}", status("Threads"));
        std::thread::yield_now();
    }
}
