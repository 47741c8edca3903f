//! What the tests of this package share: tools of the system, and programs with a time limit.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The longest run of a program. One that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(300);

/// The folder of the package.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder with the libraries that cargo has built for this test.
pub(crate) fn libraries() -> PathBuf {
    let test = env::current_exe().expect("the test has a path");
    let folder = test.parent().expect("a folder").to_path_buf();
    for file in ["libturnwise.so", "libturnwise.a"] {
        assert!(folder.join(file).is_file(), "{file} is not in {}", folder.display());
    }
    folder
}

/// Whether a tool can be run. Without it the test says so in one line, or fails if `TURNWISE_EMBED` is `required`.
pub(crate) fn has(tool: &str) -> bool {
    let runs = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_there = runs.is_ok_and(|status| status.success());
    if !is_there {
        assert!(env::var_os("TURNWISE_EMBED").as_deref() != Some(OsStr::new("required")), "{tool} is missing");
        eprintln!("not tested: {tool} is missing");
    }
    is_there
}

/// Runs a command, and fails if it hangs.
pub(crate) fn output(command: &mut Command) -> Output {
    let shown = format!("{command:?}");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|error| panic!("{shown}: {error}"));
    let id = child.id();
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    match ended.recv_timeout(LIMIT) {
        Ok(output) => output.expect("the output"),
        Err(_) => {
            // The process that this test has started.
            let _ = Command::new("kill").args(["-KILL", &id.to_string()]).status();
            panic!("{shown} hangs");
        }
    }
}

/// Runs a command that must succeed. Returns what it has printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = output(command);
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{text}\n{errors}", output.status);
    text
}
