//! Calls of an agent to its client: files and terminals.

use serde_json::{json, Value};
use turnwise::acp::schema::{CreateTerminalRequest, ToolCallLocation, ToolKind};
use turnwise::acp::{AcpClient, AcpClients, AcpConfig, CallError, ToolDisplay};
use turnwise::crossbeam_channel::{unbounded, Receiver};
use turnwise::testkit::{scripted, Gate, Script, Scripted};
use turnwise::{AgentError, AgentEvent, EphemeralSessionService, TurnContext};

use crate::support::{keeping, run, Client, LONG};

const EVERYTHING: &str = r#"{ "fs": { "readTextFile": true, "writeTextFile": true }, "terminal": true }"#;

fn able() -> Value {
    serde_json::from_str(EVERYTHING).expect("JSON")
}

/// Agents that run `body` with their client, and the table of clients.
fn calling(
    body: impl Fn(&AcpClient, &TurnContext, &str) -> Result<String, CallError> + Send + Sync + Clone + 'static,
) -> (Scripted, AcpConfig) {
    let clients = AcpClients::new();
    let config = AcpConfig::new(clients.clone()).grace(LONG).close_timeout(LONG);
    let agents = scripted().otherwise(move |prompt| {
        let (clients, body, prompt) = (clients.clone(), body.clone(), prompt.to_owned());
        Script::new().reply_with(move |turn| {
            let client = clients.client(turn.session_id());
            body(&client, turn, &prompt).map_err(AgentError::from)
        })
    });
    (agents, config)
}

fn reading() -> (Scripted, AcpConfig) {
    calling(|client, turn, path| client.read_text_file(turn, path, Some(2), Some(10)))
}

#[test]
fn c75_an_agent_reads_and_writes_files_of_its_client() {
    run(|| {
        let (agents, config) = calling(|client, turn, path| {
            let text = client.read_text_file(turn, path, Some(2), None)?;
            client.write_text_file(turn, path, text.to_uppercase())?;
            Ok(text)
        });
        let mut client = Client::able(keeping(agents), config, able());
        let session = client.open();
        let prompt = client.prompt(&session, "/project/a.txt");
        let read = client.called("fs/read_text_file");
        assert_eq!(read["params"], json!({ "sessionId": session, "path": "/project/a.txt", "line": 2 }));
        client.reply(&read, json!({ "content": "unsaved" }));
        let write = client.called("fs/write_text_file");
        assert_eq!(write["params"]["content"], "UNSAVED");
        client.reply(&write, Value::Null);
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
        assert_eq!(client.text(), "unsaved");
    });
}

#[test]
fn c75_a_call_that_the_client_does_not_support_is_not_sent() {
    run(|| {
        let (seen, errors): (_, Receiver<CallError>) = unbounded();
        let (agents, config) = calling(move |client, turn, _| {
            for error in [
                client.read_text_file(turn, "/a", None, None).map(drop),
                client.write_text_file(turn, "/a", "x"),
                client.create_terminal(turn, CreateTerminalRequest::new("", "ls")).map(drop),
            ] {
                seen.send(error.expect_err("not supported")).expect("the test is listening");
            }
            Ok("tried".into())
        });
        let mut client = Client::connect(keeping(agents), config);
        let session = client.open();
        let prompt = client.prompt(&session, "x");
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
        let methods: Vec<_> = errors
            .try_iter()
            .map(|error| match error {
                CallError::Unsupported { method } => method,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(methods, ["fs/read_text_file", "fs/write_text_file", "terminal/create"]);
    });
}

#[test]
fn c75_errors_and_broken_replies_of_the_client_are_errors_of_the_call() {
    run(|| {
        let (agents, config) = calling(|client, turn, path| {
            Ok(match client.read_text_file(turn, path, None, None) {
                Err(CallError::Refused { code, message }) => format!("refused {code} {message}"),
                Err(CallError::InvalidReply) => "invalid".into(),
                other => format!("{other:?}"),
            })
        });
        let mut client = Client::able(keeping(agents), config, able());
        let session = client.open();
        let mut outcome = |reply: Value| {
            let prompt = client.prompt(&session, "/a");
            let mut message = reply;
            message["jsonrpc"] = json!("2.0");
            message["id"] = client.called("fs/read_text_file")["id"].clone();
            client.send(&message);
            assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
            client.text()
        };
        assert_eq!(outcome(json!({ "error": { "code": -32002, "message": "gone" } })), "refused -32002 gone");
        assert_eq!(outcome(json!({ "result": { "text": "x" } })), "invalid");
        assert_eq!(outcome(json!({ "result": 7 })), "invalid");
    });
}

#[test]
fn c75_a_cancel_ends_a_call_and_its_reply_is_ignored() {
    run(|| {
        let (agents, config) = reading();
        let mut client = Client::able(keeping(agents), config, able());
        let session = client.open();
        let prompt = client.prompt(&session, "/a");
        let late = client.called("fs/read_text_file");
        client.notify("session/cancel", json!({ "sessionId": session }));
        assert_eq!(client.stopped(prompt), Ok("cancelled".into()));
        client.reply(&late, json!({ "content": "too late" }));
        let prompt = client.prompt(&session, "/b");
        let call = client.called("fs/read_text_file");
        client.reply(&call, json!({ "content": "in time" }));
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
        assert_eq!(client.text(), "in time");
    });
}

#[test]
fn c75_a_call_holds_no_running_permit() {
    run(|| {
        let (agents, config) = reading();
        let service = EphemeralSessionService::configure(agents).max_sessions(4).max_running_turns(1).build();
        let mut client = Client::able(service.expect("a valid configuration"), config, able());
        let (one, two) = (client.open(), client.open());
        let (first, second) = (client.prompt(&one, "/one"), client.prompt(&two, "/two"));
        // Both calls are open at a time, although one turn runs at a time.
        let calls = [client.called("fs/read_text_file"), client.called("fs/read_text_file")];
        for call in &calls {
            client.reply(call, json!({ "content": call["params"]["path"] }));
        }
        assert_eq!(client.stopped(first), Ok("end_turn".into()));
        assert_eq!(client.stopped(second), Ok("end_turn".into()));
    });
}

#[test]
fn c75_a_terminal_runs_a_command_and_is_released() {
    run(|| {
        let (agents, config) = calling(|client, turn, command| {
            let terminal = client.create_terminal(turn, CreateTerminalRequest::new("", command))?;
            let status = terminal.wait_for_exit(turn)?;
            let output = terminal.output(turn)?;
            terminal.kill(turn)?;
            Ok(format!("{} {:?} {}", terminal.id(), status.exit_code, output.output))
        });
        let mut client = Client::able(keeping(agents), config, able());
        let session = client.open();
        let prompt = client.prompt(&session, "make");
        let create = client.called("terminal/create");
        assert_eq!(create["params"], json!({ "sessionId": session, "command": "make" }));
        client.reply(&create, json!({ "terminalId": "term-1" }));
        let wait = client.called("terminal/wait_for_exit");
        client.reply(&wait, json!({ "exitCode": 0, "signal": null }));
        let output = client.called("terminal/output");
        client.reply(&output, json!({ "output": "built", "truncated": false }));
        let kill = client.called("terminal/kill");
        client.reply(&kill, json!({}));
        let release = client.called("terminal/release");
        assert_eq!(release["params"]["terminalId"], "term-1");
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
        assert_eq!(client.text(), "term-1 Some(0) built");
    });
}

#[test]
fn c75_a_cancelled_turn_releases_its_terminal_without_a_wait() {
    run(|| {
        let (agents, config) = calling(|client, turn, command| {
            let terminal = client.create_terminal(turn, CreateTerminalRequest::new("", command))?;
            terminal.wait_for_exit(turn)?;
            Ok("ended".into())
        });
        let mut client = Client::able(keeping(agents), config, able());
        let session = client.open();
        let prompt = client.prompt(&session, "sleep");
        let create = client.called("terminal/create");
        client.reply(&create, json!({ "terminalId": "term-1" }));
        client.called("terminal/wait_for_exit");
        client.notify("session/cancel", json!({ "sessionId": session }));
        // Neither the wait nor the release is answered.
        client.called("terminal/release");
        assert_eq!(client.stopped(prompt), Ok("cancelled".into()));
    });
}

#[test]
fn c75_the_end_of_the_connection_ends_a_call() {
    run(|| {
        let gate = Gate::new();
        let (seen, errors) = unbounded();
        let at = gate.clone();
        let (agents, config) = calling(move |client, turn, path| {
            let error = client.read_text_file(turn, path, None, None).expect_err("no reply comes");
            seen.send(error).expect("the test is listening");
            at.pass_regardless();
            let again = client.read_text_file(turn, path, None, None).expect_err("no client");
            seen.send(again).expect("the test is listening");
            Ok(String::new())
        });
        let mut client = Client::able(keeping(agents), config, able());
        let session = client.open();
        client.prompt(&session, "/a");
        client.called("fs/read_text_file");
        gate.open();
        client.leave().0.expect("the connection ends well");
        for error in [errors.recv(), errors.recv()] {
            let error = error.expect("an error");
            assert!(matches!(error, CallError::NoClient | CallError::Cancelled(_)), "{error:?}");
        }
    });
}

/// A path that is not UTF-8.
#[cfg(unix)]
fn odd() -> std::path::PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    std::ffi::OsString::from_vec(b"/project/\xff.txt".to_vec()).into()
}

#[cfg(unix)]
#[test]
fn c75_a_path_that_is_not_utf_8_is_refused_and_no_call_waits() {
    run(|| {
        let (seen, errors): (_, Receiver<CallError>) = unbounded();
        let (agents, config) = calling(move |client, turn, _| {
            for error in [
                client.read_text_file(turn, odd(), None, None).map(drop),
                client.write_text_file(turn, odd(), "x"),
                client.create_terminal(turn, CreateTerminalRequest::new("", "ls").cwd(odd())).map(drop),
            ] {
                seen.send(error.expect_err("not sent")).expect("the test is listening");
            }
            Ok("tried".into())
        });
        let mut client = Client::able(keeping(agents), config, able());
        let session = client.open();
        let prompt = client.prompt(&session, "x");
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
        let errors: Vec<_> = errors.try_iter().collect();
        assert_eq!(errors, [CallError::NotUtf8, CallError::NotUtf8, CallError::NotUtf8]);
    });
}

#[cfg(unix)]
#[test]
fn c72_a_location_that_is_not_utf_8_is_left_out_and_its_call_is_shown() {
    run(|| {
        let (agents, config) = calling(|_, turn, _| {
            for id in ["t1", "t2", "t3", "t4"] {
                turn.emit(AgentEvent::ToolCallRequested { id: id.into(), name: "read".into(), args: "{}".into() })?;
            }
            Ok("read".into())
        });
        // Fewer places than updates: one that is not written must not keep its place.
        let config = config.unread_updates(1).display_tools(|_, name, _| {
            let locations = vec![ToolCallLocation::new(odd()), ToolCallLocation::new("/project/a.txt")];
            ToolDisplay::new(name, ToolKind::Read).locations(locations)
        });
        let mut client = Client::connect(keeping(agents), config);
        let session = client.open();
        let prompt = client.prompt(&session, "x");
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
        let updates = client.updates();
        let calls: Vec<_> = updates.iter().filter(|update| update["sessionUpdate"] == "tool_call").collect();
        assert_eq!(calls.len(), 4);
        assert!(calls.iter().all(|call| call["locations"] == json!([{ "path": "/project/a.txt" }])), "{calls:?}");
    });
}

#[test]
fn c71_a_session_that_is_loaded_right_behind_its_close_has_its_client() {
    run(|| {
        let gate = Gate::new();
        let at = gate.clone();
        let (agents, config) = calling(move |client, turn, path| {
            if path == "hold" {
                at.pass_regardless();
                return Ok("held".into());
            }
            client.read_text_file(turn, path, None, None)
        });
        let mut client = Client::able(keeping(agents), config, able());
        let session = client.open();
        let held = client.prompt(&session, "hold");
        gate.wait_arrived(1);
        let close = client.request("session/close", json!({ "sessionId": session }));
        let resume = client.request("session/resume", json!({ "sessionId": session, "cwd": "/work" }));
        let prompt = client.prompt(&session, "/a");
        // Lines are handled in order: after the first answer the others have been read. The rest is time in which the thread
        // of the session could carry out too much.
        for _ in 0..100 {
            assert!(client.ask("session/list", json!({})).is_ok());
        }
        gate.open();
        let mut answered = Vec::new();
        while answered.len() < 3 {
            let answer = client.find(|line| [held, close, resume].map(Value::from).contains(&line["id"]));
            assert!(answer.get("error").is_none(), "{answer}");
            answered.push(answer["id"].as_i64().expect("an id"));
        }
        assert_eq!(answered, [held, close, resume]);
        let call = client.called("fs/read_text_file");
        client.reply(&call, json!({ "content": "found" }));
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
    });
}

#[test]
fn c75_a_terminal_whose_creation_was_cancelled_is_released() {
    run(|| {
        let (agents, config) = calling(|client, turn, command| {
            let _terminal = client.create_terminal(turn, CreateTerminalRequest::new("", command))?;
            Ok("created".into())
        });
        let mut client = Client::able(keeping(agents), config, able());
        let session = client.open();
        let prompt = client.prompt(&session, "make");
        let create = client.called("terminal/create");
        client.notify("session/cancel", json!({ "sessionId": session }));
        assert_eq!(client.stopped(prompt), Ok("cancelled".into()));
        client.reply(&create, json!({ "terminalId": "late" }));
        let release = client.called("terminal/release");
        assert_eq!(release["params"], json!({ "sessionId": session, "terminalId": "late" }));
    });
}

#[test]
fn c75_a_terminal_belongs_to_the_client_that_has_created_it() {
    run(|| {
        let gate = Gate::new();
        let at = gate.clone();
        let (agents, config) = calling(move |client, turn, command| {
            let terminal = client.create_terminal(turn, CreateTerminalRequest::new("", command))?;
            at.pass_regardless();
            drop(terminal);
            Ok("released".into())
        });
        let service = keeping(agents);
        let mut first = Client::able(service.clone(), config.clone().keep_service(), able());
        let session = first.open();
        let prompt = first.prompt(&session, "make");
        let create = first.called("terminal/create");
        first.reply(&create, json!({ "terminalId": "term-1" }));
        gate.wait_arrived(1);
        // Another client loads the session meanwhile.
        let mut second = Client::able(service, config, able());
        assert_eq!(second.ask("session/resume", json!({ "sessionId": session, "cwd": "/work" })), Ok(json!({})));
        gate.open();
        assert_eq!(first.called("terminal/release")["params"]["terminalId"], "term-1");
        assert_eq!(first.stopped(prompt), Ok("end_turn".into()));
    });
}
