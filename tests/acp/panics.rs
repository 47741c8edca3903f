//! Errors of agents and builders whose own code panics.

use std::fmt;
use std::thread;

use serde_json::{json, Value};
use turnwise::testkit::{scripted, Script};
use turnwise::AgentError;

use crate::support::{config, keeping, run, service, Client};

/// An error whose `Display` or drop panics, as its fields say.
#[derive(Debug)]
struct Hostile {
    shown: bool,
    dropped: bool,
}

impl fmt::Display for Hostile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        assert!(!self.shown, "broken in display");
        f.write_str("hostile")
    }
}

impl std::error::Error for Hostile {}

impl Drop for Hostile {
    fn drop(&mut self) {
        assert!(!self.dropped || thread::panicking(), "broken in drop");
    }
}

/// The error that a prompt or a directory names.
fn hostile(name: &str) -> Result<(), AgentError> {
    match name.trim_start_matches('/') {
        "display" => Err(AgentError::other(Hostile { shown: true, dropped: false })),
        "drop" => Err(AgentError::other(Hostile { shown: false, dropped: true })),
        "both" => Err(AgentError::other(Hostile { shown: true, dropped: true })),
        _ => Ok(()),
    }
}

/// The error that answers a request.
#[track_caller]
fn error_of(client: &mut Client, request: i64) -> Value {
    client.find(|line| line["id"] == request)["error"].clone()
}

#[test]
fn c69_an_error_of_an_agent_that_panics_in_its_code_is_answered() {
    run(|| {
        let agents = scripted().otherwise(|prompt| {
            let prompt = prompt.to_owned();
            Script::new().call(move |_| hostile(&prompt))
        });
        let mut client = Client::connect(service(agents), config());
        let session = client.open();
        for prompt in ["display", "drop", "both"] {
            let request = client.prompt(&session, prompt);
            let error = error_of(&mut client, request);
            assert_eq!((&error["code"], &error["data"]["code"]), (&json!(-32603), &json!("AGENT_ERROR")), "{prompt}");
        }
        // The session goes on.
        let next = client.prompt(&session, "next");
        assert_eq!(client.stopped(next), Ok("end_turn".into()));
        assert_eq!(client.ask("session/close", json!({ "sessionId": session })), Ok(json!({})));
    });
}

#[test]
fn c69_an_error_of_a_builder_that_panics_in_its_code_is_answered() {
    run(|| {
        let agents = scripted().build_calls(|spec, _| hostile(spec.labels.get("acp.cwd").map_or("", String::as_str)));
        let mut client = Client::connect(keeping(agents), config().max_sessions(1));
        for cwd in ["/display", "/drop", "/both"] {
            let request = client.request("session/new", json!({ "cwd": cwd, "mcpServers": [] }));
            assert_eq!(error_of(&mut client, request)["code"], -32603, "{cwd}");
        }
        // None of the failed sessions takes a place.
        let session = client.open();
        let prompt = client.prompt(&session, "on");
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
    });
}
