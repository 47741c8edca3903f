//! Tests that need a process of their own.

use std::process::{Command, Stdio};

const MARK: &str = "TURNWISE_APART";

/// Runs `body`, a test by this full name, in a process of its own: this test again, and alone. `limits` is what a shell does
/// before that, such as `ulimit -v 500000`. A crash of that process fails the test and nothing else.
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
    assert!(output.status.success(), "{name}, apart: {}\n{said}", output.status);
    assert!(said.contains("1 passed"), "{name}, apart, has run nothing:\n{said}");
}

/// A figure of this process, as Linux has it in `/proc/self/status`: `VmRSS` in KiB, `Threads`.
pub(crate) fn status(figure: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find(|line| line.starts_with(figure)).expect("the figure");
    line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).expect("a number")
}

/// Lets threads that have been joined vanish from the system's list, which they do a moment later.
pub(crate) fn settle_threads(at_most: usize) {
    let started = std::time::Instant::now();
    while status("Threads") > at_most {
        assert!(started.elapsed() < crate::LONG / 10, "{} threads, not {at_most}", status("Threads"));
        std::thread::yield_now();
    }
}
