//! The agent for editors, driven by the official SDKs of the protocol as an editor would, with a model's server on the
//! loopback device.
//!
//! `TURNWISE_ACP_PYTHON` names a Python interpreter with the package `agent-client-protocol`, and `TURNWISE_ACP_NODE` a
//! folder whose `node_modules` has `@agentclientprotocol/sdk`. `.ci/run` installs both and sets these variables. A test
//! whose SDK is missing says so in one line. With `TURNWISE_ACP_SDKS=required` that is a failure.
#![cfg(unix)]
#![allow(clippy::disallowed_types)] // The library's rule about channels does not apply here.

#[path = "../support/folder.rs"]
mod folder;
mod plain;
#[allow(dead_code)]
#[path = "../chat/server.rs"]
mod server;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use turnwise::store::{FileStore, PersistentSessionService};
use turnwise::{agent_fn, SessionQuery, SessionService};

use folder::Folder;
use server::{calls, then_silence, words, Act, Server};

pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_acp-agent");

/// A call of the tool that writes a file.
fn write(id: &str, path: &str) -> Act {
    calls(&[(id, "write_file", &json!({ "path": path, "content": "written" }).to_string())])
}

/// The acts of the model, in the order of the scenario. `held` ends when the returned sender is used or dropped.
fn model() -> (Vec<Act>, std::sync::mpsc::Sender<()>) {
    let (held, release) = then_silence(server::text("Once upon"));
    let acts = vec![
        // Two sessions, streamed.
        words(&["Hel", "lo ", "one"]),
        words(&["Hel", "lo ", "two"]),
        // A file that the editor has changed and not saved.
        calls(&[("r1", "read_file", r#"{"path":"open.txt"}"#)]),
        words(&["It says: unsaved"]),
        // A permission that is granted, one that is refused, and one that is cancelled.
        write("w1", "granted.txt"),
        words(&["Written"]),
        write("w2", "refused.txt"),
        words(&["Pity"]),
        write("w3", "cancelled.txt"),
        // A cancellation in mid-stream.
        held,
        // After a restart.
        words(&["Still here"]),
    ];
    (acts, release)
}

/// An interpreter that runs the client of an SDK, if it is installed.
fn interpreter(variable: &str, default: &str, probe: &[&str]) -> Option<PathBuf> {
    let program = env::var_os(variable).map_or_else(|| default.into(), PathBuf::from);
    let mut command = Command::new(&program);
    let probed = command.args(probe).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_there = probed.is_ok_and(|status| status.success());
    is_there.then_some(program)
}

/// Says that an SDK is missing, or fails.
fn missing(what: &str) {
    assert!(env::var_os("TURNWISE_ACP_SDKS").is_none_or(|value| value != "required"), "{what} is not installed");
    println!("not run: {what} is not installed");
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/acp").join(name)
}

/// Runs the whole scenario, and then a client that dies.
fn drive(client: impl Fn() -> Command) {
    let folder = Folder::new();
    fs::write(folder.path("open.txt"), "saved").expect("a file");
    let sessions = folder.path("sessions.redb");

    let (acts, release) = model();
    let server = Server::start(acts);
    let run = |mode: &str, server: &Server| {
        let mut command = client();
        command.args([mode, AGENT, &server.url]).arg(&sessions).arg(folder.path("")).stdin(Stdio::null());
        command.output().expect("the client runs")
    };
    let output = run("scenario", &server);
    drop(release);
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.ends_with("done\n"), "{said}\n{complained}");
    assert_eq!(fs::read_to_string(folder.path("granted.txt")).expect("written by the client"), "written");
    assert!(!folder.path("refused.txt").exists() && !folder.path("cancelled.txt").exists());
    drop(server);

    let (held, release) = then_silence(server::text("Half an"));
    let server = Server::start(vec![words(&["kept"]), held]);
    let output = run("die", &server);
    assert!(!output.status.success(), "the client has killed itself");
    // The agent ends by itself: another store gets the file. It has what was done before.
    let begun = Instant::now();
    let store = loop {
        match FileStore::open(&sessions) {
            Ok(store) => break store,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "the agent still runs: {error}"),
        }
        thread::sleep(Duration::from_millis(20));
    };
    drop(release);
    let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
    let service = PersistentSessionService::new(agent, 1, store);
    let kept = service.list(SessionQuery::new()).expect("a list");
    let last = kept.last().expect("the session of the client that died");
    let history = service.export_session(last.session_id).expect("a history");
    let texts: Vec<_> = history.messages().iter().skip(1).take(2).map(|message| message.text()).collect();
    assert_eq!(texts, ["keep this", "kept"]);
}

#[test]
fn the_python_sdk_drives_the_agent() {
    let Some(python) = interpreter("TURNWISE_ACP_PYTHON", "python3", &["-c", "import acp; acp.spawn_agent_process"])
    else {
        return missing("the Python package agent-client-protocol");
    };
    drive(|| {
        let mut command = Command::new(&python);
        command.arg(script("client.py"));
        command
    });
}

#[test]
fn the_typescript_sdk_drives_the_agent() {
    let folder = env::var_os("TURNWISE_ACP_NODE").map_or_else(|| ".".into(), PathBuf::from);
    let package = folder.join("node_modules/@agentclientprotocol/sdk/package.json");
    let node = interpreter("TURNWISE_ACP_NODE_PROGRAM", "node", &["--version"]);
    let Some(node) = node.filter(|_| package.exists()) else {
        return missing("the npm package @agentclientprotocol/sdk");
    };
    let folder = folder.canonicalize().expect("the folder of the package");
    drive(|| {
        let mut command = Command::new(&node);
        command.arg(script("client.mjs")).arg(&folder);
        command
    });
}
