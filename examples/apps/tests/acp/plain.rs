//! The agent without an SDK: its command line, its output, and its end.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use crate::folder::Folder;
use crate::server::{calls, words, Server};
use crate::AGENT;

fn start(args: &[&str]) -> Child {
    let mut command = Command::new(AGENT);
    for name in ["OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"] {
        command.env_remove(name);
    }
    let pipes = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    pipes.spawn().expect("the agent starts")
}

/// Sends these lines, and ends the input.
fn answers(args: &[&str], lines: &[Value]) -> Output {
    let mut agent = start(args);
    let mut input = agent.stdin.take().expect("a pipe");
    for line in lines {
        writeln!(input, "{line}").expect("the agent reads");
    }
    drop(input);
    agent.wait_with_output().expect("the agent ends")
}

fn initialize(capabilities: Value) -> Value {
    let params = json!({ "protocolVersion": 1, "clientCapabilities": capabilities });
    json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params })
}

#[test]
fn the_output_is_the_protocol_and_nothing_else() {
    let folder = Folder::new();
    let cwd = folder.text("");
    let server = json!({ "name": "files", "command": "/bin/true", "args": [], "env": [] });
    let new =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "session/new", "params": { "cwd": cwd, "mcpServers": [server] } });
    let output = answers(&["--sessions", &folder.text("s.redb")], &[initialize(json!({})), json!("nonsense"), new]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0]["result"]["agentInfo"]["name"], "turnwise-acp-agent");
    assert_eq!(lines[1]["error"]["code"], -32600);
    assert!(lines[2]["result"]["sessionId"].is_string(), "{text}");
    // The servers that are left out are named where it does no harm.
    assert!(String::from_utf8_lossy(&output.stderr).contains("the MCP server 'files' is left out"));
}

#[test]
fn the_usage_and_mistakes_go_to_standard_error() {
    for (args, code) in [(&["--help"][..], 0), (&["--nonsense"], 2), (&["--url", "nowhere"], 2)] {
        let output = answers(args, &[]);
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        assert!(output.stdout.is_empty());
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage: acp-agent"), "{args:?}");
    }
}

#[test]
fn the_end_of_the_input_ends_the_agent_within_two_seconds() {
    // A machine with much other work may delay one agent or another. One that waits for two seconds delays every one.
    let times: Vec<Duration> = (0..5).map(|_| time_to_end()).collect();
    assert!(times.iter().any(|time| *time < Duration::from_secs(2)), "{times:?}");
}

/// How long an agent takes from the end of its input to its own.
fn time_to_end() -> Duration {
    let folder = Folder::new();
    let mut agent = start(&["--sessions", &folder.text("s.redb")]);
    let mut input = agent.stdin.take().expect("a pipe");
    writeln!(input, "{}", initialize(json!({}))).expect("the agent reads");
    let mut output = BufReader::new(agent.stdout.take().expect("a pipe"));
    output.read_line(&mut String::new()).expect("an answer");
    let begun = Instant::now();
    drop(input);
    assert!(agent.wait().expect("an end").success());
    begun.elapsed()
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_whose_place_is_not_utf_8_is_an_error_of_the_tool() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = Folder::new();
    let odd = folder.path("").join(std::ffi::OsStr::from_bytes(b"odd\xff"));
    std::fs::create_dir(&odd).expect("a folder");
    std::fs::write(odd.join("a.txt"), "text").expect("a file");
    std::os::unix::fs::symlink(&odd, folder.path("link")).expect("a link");
    let acts = vec![
        calls(&[
            ("c1", "read_file", r#"{"path":"link/a.txt"}"#),
            ("c2", "write_file", r#"{"path":"link/a.txt","content":"new"}"#),
        ]),
        words(&["done"]),
    ];
    let (updates, answer) = run_prompt(acts, &folder);
    assert_eq!(answer["result"]["stopReason"], "end_turn", "{answer}");
    for id in ["c1", "c2"] {
        let failed = |update: &Value| update["toolCallId"] == id && update["status"] == "failed";
        assert!(updates.iter().any(failed), "{id}: {updates:?}");
    }
    assert_eq!(std::fs::read_to_string(odd.join("a.txt")).expect("the file"), "text");
}

/// Runs one prompt on a client without capabilities that allows everything. Returns the updates.
fn run_prompt(acts: Vec<crate::server::Act>, folder: &Folder) -> (Vec<Value>, Value) {
    let server = Server::start(acts);
    let mut agent = start(&["--url", &server.url, "--sessions", &folder.text("s.redb"), "--context", "1000"]);
    let mut input = agent.stdin.take().expect("a pipe");
    let mut lines = BufReader::new(agent.stdout.take().expect("a pipe")).lines();
    let mut send = |line: &Value| writeln!(input, "{line}").expect("the agent reads");
    let mut next = || -> Value { serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON") };
    send(&initialize(json!({})));
    next();
    send(&json!({ "jsonrpc": "2.0", "id": 1, "method": "session/new", "params": { "cwd": folder.text("") } }));
    let session = next()["result"]["sessionId"].clone();
    let prompt = json!([{ "type": "text", "text": "go" }]);
    let params = json!({ "sessionId": session, "prompt": prompt });
    send(&json!({ "jsonrpc": "2.0", "id": 2, "method": "session/prompt", "params": params }));
    let mut updates = Vec::new();
    loop {
        let line = next();
        match line["method"].as_str() {
            Some("session/update") => updates.push(line["params"]["update"].clone()),
            Some("session/request_permission") => {
                updates.push(line["params"]["toolCall"].clone());
                let outcome = json!({ "outcome": { "outcome": "selected", "optionId": "allow_once" } });
                send(&json!({ "jsonrpc": "2.0", "id": line["id"], "result": outcome }));
            }
            _ => {
                drop(input);
                agent.wait().expect("an end");
                return (updates, line);
            }
        }
    }
}

#[test]
fn a_client_without_files_leaves_them_to_the_agent() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("sub")).expect("a folder");
    std::fs::write(folder.path("sub/a.txt"), "one\ntwo\nthree\n").expect("a file");
    let acts = vec![
        calls(&[
            ("c1", "list_files", "{}"),
            ("c2", "list_files", r#"{"path":"sub"}"#),
            ("c3", "read_file", r#"{"path":"sub/a.txt","line":2,"limit":1}"#),
            ("c4", "read_file", r#"{"path":"../a.txt"}"#),
            ("c5", "write_file", r#"{"path":"sub/a.txt","content":"new"}"#),
        ]),
        words(&["done"]),
    ];
    let (updates, answer) = run_prompt(acts, &folder);
    assert_eq!(answer["result"]["stopReason"], "end_turn", "{answer}");
    let ended = |id: &str| {
        let of_call = |update: &&Value| update["toolCallId"] == id && update["content"].is_array();
        let last = updates.iter().rfind(of_call).unwrap_or_else(|| panic!("no result of {id}"));
        (last["status"].as_str().expect("a status"), last["content"][0]["content"]["text"].as_str().expect("text"))
    };
    assert_eq!(ended("c1"), ("completed", "s.redb\nsub/"));
    assert_eq!(ended("c2"), ("completed", "a.txt"));
    assert_eq!(ended("c3"), ("completed", "two\n"));
    assert_eq!(ended("c4").0, "failed");
    assert_eq!(ended("c5"), ("completed", "written to 'sub/a.txt': 3 bytes"));
    assert_eq!(std::fs::read_to_string(folder.path("sub/a.txt")).expect("the file"), "new");
    // The permission shows the change.
    let diff = updates.iter().find(|update| update["content"][0]["type"] == "diff").expect("a diff");
    assert_eq!(
        (&diff["content"][0]["oldText"], &diff["content"][0]["newText"]),
        (&json!("one\ntwo\nthree\n"), &json!("new"))
    );
    let read = updates.iter().find(|update| update["title"] == "Read sub/a.txt").expect("a tool call");
    assert_eq!((&read["kind"], &read["locations"][0]["line"]), (&json!("read"), &json!(2)));
}
