//! Initialization, and the life of sessions.

use std::time::Duration;

use serde_json::{json, Value};
use turnwise::acp::schema::AvailableCommand;
use turnwise::acp::{AcpClients, TITLE_LABEL};
use turnwise::testkit::{scripted, Gate, Script};
use turnwise::{
    AssistantBlock, Message, Session, SessionId, SessionService, SessionSpec, SessionState, StartTurnRequest,
    StopReason, ToolResult,
};

use crate::support::{config, keeping, run, service, Client};

#[test]
fn c70_initialize_says_what_the_agent_can_do() {
    run(|| {
        let mut client = Client::new(service(scripted()), config().agent("tester", "7.1"));
        let answer = client.ask("initialize", json!({ "protocolVersion": 1 })).expect("an answer");
        assert_eq!(answer["protocolVersion"], 1);
        assert_eq!(answer["agentInfo"], json!({ "name": "tester", "version": "7.1" }));
        let able = &answer["agentCapabilities"];
        assert_eq!(able["loadSession"], true);
        assert_eq!(able["sessionCapabilities"], json!({ "list": {}, "resume": {}, "close": {}, "delete": {} }));
        assert_eq!(able["promptCapabilities"]["embeddedContext"], true);
        assert_eq!(able["promptCapabilities"]["image"], false);
        assert_eq!(able["mcpCapabilities"], json!({ "http": false, "sse": false }));
        assert_eq!(client.ask("initialize", json!({ "protocolVersion": 1 })), Err(-32600));
        // only once
    });
}

#[test]
fn c70_any_version_is_answered_with_1() {
    run(|| {
        for version in [json!(0), json!(1), json!(2), json!(65_535), json!(20_260_101)] {
            let mut client = Client::new(service(scripted()), config());
            let answer = client.ask("initialize", json!({ "protocolVersion": version })).expect("an answer");
            assert_eq!(answer["protocolVersion"], 1, "{version}");
        }
        let mut client = Client::new(service(scripted()), config());
        assert_eq!(client.ask("initialize", json!({ "protocolVersion": "1" })), Err(-32602));
    });
}

#[test]
fn c70_a_request_before_initialize_is_refused() {
    run(|| {
        let mut client = Client::new(service(scripted()), config());
        assert_eq!(client.ask("session/new", json!({ "cwd": "/work", "mcpServers": [] })), Err(-32600));
        assert_eq!(client.ask("session/list", json!({})), Err(-32600));
        // Also one that is wrong in another way.
        assert_eq!(client.ask("nothing", json!({})), Err(-32600));
        assert_eq!(client.ask("session/new", json!({})), Err(-32600));
        client.notify("session/cancel", json!({ "sessionId": "x" }));
        assert!(client.ask("initialize", json!({ "protocolVersion": 1 })).is_ok());
        assert!(client.ask("session/list", json!({})).is_ok());
    });
}

fn listed(client: &mut Client, params: Value) -> Vec<String> {
    let answer = client.ask("session/list", params).expect("a list");
    let sessions = answer["sessions"].as_array().expect("sessions").clone();
    sessions.iter().map(|session| session["sessionId"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn c71_a_new_session_is_listed_with_its_directory_before_its_first_prompt() {
    run(|| {
        let service = keeping(scripted());
        let mut client = Client::connect(service.clone(), config());
        let (one, two) = (client.open_in("/one"), client.open_in("/two"));
        service.open_session(SessionSpec::new()).expect("a session of the host's own");
        assert_eq!(listed(&mut client, json!({})), [one.clone(), two.clone()]);
        assert_eq!(listed(&mut client, json!({ "cwd": "/two" })), std::slice::from_ref(&two));
        assert!(listed(&mut client, json!({ "cwd": "/three" })).is_empty());
        let id: SessionId = one.parse().expect("an id");
        let mut labels = (*service.read(id).expect("a view").labels).clone();
        labels.insert(TITLE_LABEL.into(), "First".into());
        service.set_labels(id, labels).expect("labels");
        let answer = client.ask("session/list", json!({ "cwd": "/one" })).expect("a list");
        let shown = &answer["sessions"][0];
        assert_eq!((&shown["cwd"], &shown["title"]), (&json!("/one"), &json!("First")));
        let updated = shown["updatedAt"].as_str().expect("a time");
        assert!(updated.starts_with("20") && updated.ends_with('Z') && updated.len() == 20, "{updated}");
        // Loads at once, with nothing to replay.
        assert_eq!(
            client.ask("session/load", json!({ "sessionId": two, "cwd": "/two", "mcpServers": [] })),
            Ok(json!({}))
        );
        assert!(client.updates().is_empty());
    });
}

#[test]
fn c71_a_list_has_pages() {
    run(|| {
        let service = service(scripted());
        let mut client = Client::connect(service.clone(), config().page(2));
        for _ in 0..3 {
            // Without a directory: they fill no page.
            service.open_session(SessionSpec::new()).expect("a session");
        }
        let opened: Vec<String> = (0..5).map(|_| client.open()).collect();
        let (mut found, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let page = client.ask("session/list", json!({ "cursor": cursor })).expect("a page");
            let sessions = page["sessions"].as_array().expect("sessions").clone();
            assert!(!sessions.is_empty() && sessions.len() <= 2);
            found.extend(sessions.iter().map(|session| session["sessionId"].as_str().expect("an id").to_owned()));
            cursor = page["nextCursor"].clone();
            if cursor.is_null() {
                break;
            }
        }
        assert_eq!(found, opened);
        assert_eq!(client.ask("session/list", json!({ "cursor": "nonsense" })), Err(-32602));
        assert_eq!(client.ask("session/list", json!({ "cursor": SessionId::new().to_string() })), Err(-32602));
    });
}

/// A conversation with everything that a history can have.
fn conversation() -> Session {
    let call = |id: &str| AssistantBlock::ToolUse { id: id.into(), name: "look".into(), args: r#"{"at":"x"}"#.into() };
    let result = |id: &str, is_error| ToolResult { tool_use_id: id.into(), content: format!("of {id}"), is_error };
    let mut history = Session::new();
    history.push_batch([
        Message::system("be brief"),
        Message::user("look around"),
        Message::Assistant {
            blocks: vec![
                AssistantBlock::Reasoning { text: "hm".into() },
                AssistantBlock::Text { text: "looking".into() },
                call("a"),
                call("b"),
                call("c"),
            ],
            stop_reason: StopReason::ToolUse,
        },
        Message::ToolResults { results: vec![result("a", false), result("b", true)] },
        Message::assistant("nothing there"),
    ]);
    history
}

#[test]
fn c71_a_load_replays_the_history_before_its_answer() {
    run(|| {
        let service = keeping(scripted());
        let id = service.open_session(SessionSpec::new().resume(conversation())).expect("a session");
        service.unload(id, crate::support::LONG).expect("unloaded");
        let mut client = Client::connect(service.clone(), config());
        let params = json!({ "sessionId": id.to_string(), "cwd": "/work", "mcpServers": [] });
        assert_eq!(client.ask("session/load", params), Ok(json!({})));
        let updates = client.updates();
        let shown: Vec<String> = updates
            .iter()
            .map(|update| {
                let text = update["content"]["text"].as_str().or(update["status"].as_str()).unwrap_or("?");
                format!("{} {text}", update["sessionUpdate"].as_str().expect("a type"))
            })
            .collect();
        let expected = [
            "user_message_chunk look around",
            "agent_thought_chunk hm",
            "agent_message_chunk looking",
            "tool_call completed",
            "tool_call failed",
            "tool_call failed",
            "agent_message_chunk nothing there",
        ];
        assert_eq!(shown, expected);
        assert_eq!(updates[3]["rawInput"], json!({ "at": "x" }));
        assert_eq!(updates[3]["content"][0]["content"]["text"], "of a");
        // It is listed from now on, and runs prompts.
        assert_eq!(listed(&mut client, json!({ "cwd": "/work" })), [id.to_string()]);
        let prompt = client.prompt(&id.to_string(), "again");
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
    });
}

#[test]
fn c71_a_resume_replays_nothing_and_needs_no_list_of_servers() {
    run(|| {
        let service = keeping(scripted());
        let id = service.open_session(SessionSpec::new().resume(conversation())).expect("a session").to_string();
        let mut client = Client::connect(service, config().commands(vec![AvailableCommand::new("plan", "Plan it")]));
        assert_eq!(client.ask("session/resume", json!({ "sessionId": id, "cwd": "/work" })), Ok(json!({})));
        assert!(client.updates().is_empty());
        let update = client.next();
        assert_eq!(update["params"]["update"]["availableCommands"][0]["name"], "plan");
    });
}

#[test]
fn c71_the_commands_follow_the_answer_of_a_new_session() {
    run(|| {
        let commands = vec![AvailableCommand::new("plan", "Plan it")];
        let mut client = Client::connect(service(scripted()), config().commands(commands));
        let id = client.request("session/new", json!({ "cwd": "/work", "mcpServers": [] }));
        let (answer, update) = (client.next(), client.next());
        assert_eq!(answer["id"], id);
        assert_eq!(update["params"]["sessionId"], answer["result"]["sessionId"]);
        assert_eq!(update["params"]["update"]["sessionUpdate"], "available_commands_update");
    });
}

#[test]
fn c71_a_session_that_is_not_there_is_named_in_the_error() {
    run(|| {
        let mut client = Client::connect(keeping(scripted()), config());
        for id in [SessionId::new().to_string(), "no id at all".into()] {
            for method in ["session/load", "session/resume", "session/prompt", "session/close", "session/delete"] {
                let params = json!({ "sessionId": id, "cwd": "/work", "mcpServers": [], "prompt": [] });
                let request = client.request(method, params);
                let answer = client.find(|line| line["id"] == request);
                assert_eq!(answer["error"]["code"], -32002, "{method}: {answer}");
                assert_eq!(answer["error"]["data"], json!({ "sessionId": id }), "{method}");
            }
        }
        // A session that exists and is not loaded has to be loaded first. So has one that is closed.
        let session = client.open();
        assert_eq!(client.ask("session/close", json!({ "sessionId": session })), Ok(json!({})));
        let prompt = client.prompt(&session, "x");
        assert_eq!(client.stopped(prompt), Err(-32002));
        assert_eq!(client.ask("session/resume", json!({ "sessionId": session, "cwd": "/work" })), Ok(json!({})));
        let prompt = client.prompt(&session, "x");
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
    });
}

#[test]
fn c71_a_relative_directory_and_a_remote_server_are_refused() {
    run(|| {
        let service = service(scripted());
        let mut client = Client::connect(service.clone(), config());
        assert_eq!(client.ask("session/new", json!({ "cwd": "work", "mcpServers": [] })), Err(-32602));
        let remote = json!({ "type": "http", "name": "far", "url": "http://localhost", "headers": [] });
        assert_eq!(client.ask("session/new", json!({ "cwd": "/work", "mcpServers": [remote] })), Err(-32602));
        assert_eq!(service.stats().sessions_created, 0);
    });
}

#[test]
fn c71_the_builder_finds_the_directory_and_the_servers_in_every_build() {
    run(|| {
        let clients = AcpClients::new();
        let (seen, builds) = turnwise::crossbeam_channel::unbounded();
        let of_builder = clients.clone();
        let agents = scripted().build_calls(move |spec, session| {
            let client = of_builder.client(session.session_id());
            let servers: Vec<String> = client
                .mcp_servers()
                .iter()
                .map(|s| serde_json::to_value(s).expect("JSON")["name"].to_string())
                .collect();
            let what = (client.cwd(), servers, spec.resume.is_some());
            seen.send(what).expect("the test is listening");
            Ok(())
        });
        let service = keeping(agents);
        let config = turnwise::acp::AcpConfig::new(clients).grace(crate::support::LONG);
        let mut client = Client::connect(service.clone(), config);
        let server = json!({ "name": "files", "command": "/bin/files", "args": [], "env": [] });
        let answer = client.ask("session/new", json!({ "cwd": "/one", "mcpServers": [server] })).expect("a session");
        assert_eq!(builds.recv(), Ok((Some("/one".into()), vec!["\"files\"".into()], false)));
        let id = answer["sessionId"].clone();
        // The session is resumed in a build of its own, for the client that loads it.
        assert_eq!(client.ask("session/close", json!({ "sessionId": id })), Ok(json!({})));
        assert_eq!(client.ask("session/load", json!({ "sessionId": id, "cwd": "/two" })), Ok(json!({})));
        assert_eq!(builds.recv(), Ok((Some("/two".into()), vec![], true)));
    });
}

#[test]
fn c71_a_close_unloads_and_keeps() {
    run(|| {
        let service = keeping(scripted());
        let mut client = Client::connect(service.clone(), config());
        let session = client.open();
        let id: SessionId = session.parse().expect("an id");
        let prompt = client.prompt(&session, "remember me");
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
        assert!(service.is_live(id));
        assert_eq!(client.ask("session/close", json!({ "sessionId": session })), Ok(json!({})));
        assert!(!service.is_live(id));
        assert_eq!(service.read(id).expect("kept").state.state, SessionState::Idle);
        client.updates();
        assert_eq!(client.ask("session/load", json!({ "sessionId": session, "cwd": "/work" })), Ok(json!({})));
        assert_eq!(client.updates()[0]["content"]["text"], "remember me");
    });
}

#[test]
fn c71_a_delete_removes_a_session_active_or_not() {
    run(|| {
        let service = keeping(scripted());
        let mut client = Client::connect(service.clone(), config());
        let (active, other) = (client.open(), client.open());
        assert_eq!(client.ask("session/close", json!({ "sessionId": other })), Ok(json!({})));
        for session in [active, other] {
            assert_eq!(client.ask("session/delete", json!({ "sessionId": session })), Ok(json!({})));
            assert_eq!(client.ask("session/load", json!({ "sessionId": session, "cwd": "/work" })), Err(-32002));
        }
        assert!(listed(&mut client, json!({})).is_empty());
    });
}

#[test]
fn c71_a_build_delays_no_other_session() {
    run(|| {
        let gate = Gate::new();
        let at = gate.clone();
        let agents = scripted().build_calls(move |spec, _| {
            if spec.labels.get("acp.cwd").is_some_and(|cwd| cwd == "/slow") {
                at.pass_regardless();
            }
            Ok(())
        });
        let mut client = Client::connect(service(agents), config());
        let slow = client.request("session/new", json!({ "cwd": "/slow", "mcpServers": [] }));
        gate.wait_arrived(1);
        let session = client.open();
        let prompt = client.prompt(&session, "quick");
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
        gate.open();
        assert!(client.answer(slow).is_ok());
    });
}

#[test]
fn c71_the_number_of_active_sessions_is_limited() {
    run(|| {
        let mut client = Client::connect(service(scripted()), config().max_sessions(1));
        let session = client.open();
        let new = json!({ "cwd": "/work", "mcpServers": [] });
        assert_eq!(client.ask("session/new", new.clone()), Err(-32600));
        // A load that fails leaves no place taken.
        assert_eq!(client.ask("session/close", json!({ "sessionId": session })), Ok(json!({})));
        let unknown = json!({ "sessionId": SessionId::new().to_string(), "cwd": "/work" });
        for _ in 0..3 {
            // The first worker may still be in the table for a moment. Then this load reaches that worker.
            assert_eq!(client.ask("session/load", unknown.clone()), Err(-32002));
        }
    });
}

#[test]
fn c71_deletes_above_the_limit_of_sessions_are_limited_too() {
    run(|| {
        let gate = Gate::new();
        let service = service(scripted().on("deaf", Script::new().wait_at_ignoring_cancel(&gate)));
        // Sessions of the host, whose deletes wait for their turns.
        let begin = |_| {
            let id = service.open_session(SessionSpec::new()).expect("a session");
            // Its result is of no interest.
            drop(service.begin_turn(id, StartTurnRequest::new("deaf")).expect("a turn"));
            id.to_string()
        };
        let sessions: Vec<String> = (0..10).map(begin).collect();
        gate.wait_arrived(10);
        let mut client = Client::connect(service.clone(), config().max_sessions(1));
        let delete = |id: &String| json!({ "sessionId": id });
        // One within the limit, and eight above it.
        let deletes: Vec<i64> = sessions[..9].iter().map(|id| client.request("session/delete", delete(id))).collect();
        assert_eq!(client.ask("session/delete", delete(&sessions[9])), Err(-32600));
        // A session that is being deleted takes none.
        let again = client.request("session/delete", delete(&sessions[0]));
        gate.open();
        for id in deletes {
            assert_eq!(client.answer(id), Ok(json!({})));
        }
        assert_eq!(client.answer(again), Err(-32002));
        assert_eq!(client.ask("session/delete", delete(&sessions[9])), Ok(json!({})));
        assert_eq!(service.stats().sessions, 0);
    });
}

#[test]
fn c71_a_faulted_session_is_restarted_by_a_load() {
    run(|| {
        let mut client = Client::connect(keeping(scripted().on("boom", Script::new().panic("a bug"))), config());
        let session = client.open();
        let first = client.prompt(&session, "hello");
        assert_eq!(client.stopped(first), Ok("end_turn".into()));
        let boom = client.prompt(&session, "boom");
        assert_eq!(client.stopped(boom), Err(-32603));
        let refused = client.prompt(&session, "hello");
        assert_eq!(client.stopped(refused), Err(-32603));
        client.updates();
        assert_eq!(client.ask("session/load", json!({ "sessionId": session, "cwd": "/work" })), Ok(json!({})));
        assert_eq!(client.updates().len(), 2);
        let again = client.prompt(&session, "again");
        assert_eq!(client.stopped(again), Ok("end_turn".into()));
    });
}

#[test]
fn c71_a_load_whose_history_does_not_come_in_time_leaves_the_session_inactive() {
    run(|| {
        let gate = Gate::new();
        let service = keeping(scripted().on("hold", Script::new().wait_at(&gate)));
        let id = service.open_session(SessionSpec::new()).expect("a session of the host's own");
        let turn = service.begin_turn(id, StartTurnRequest::new("hold")).expect("a turn");
        gate.wait_arrived(1);
        let config = config().load_timeout(Duration::from_millis(50)).max_sessions(1);
        let mut client = Client::connect(service, config);
        let params = json!({ "sessionId": id.to_string(), "cwd": "/work" });
        assert_eq!(client.ask("session/load", params.clone()), Err(-32603));
        let prompt = client.prompt(&id.to_string(), "x");
        assert_eq!(client.stopped(prompt), Err(-32002));
        // It takes no place.
        let other = client.open();
        assert_eq!(client.ask("session/close", json!({ "sessionId": other })), Ok(json!({})));
        gate.open();
        turn.wait().expect("the turn ends");
        assert_eq!(client.ask("session/resume", params), Ok(json!({})));
    });
}

#[test]
fn c71_a_session_that_is_being_closed_counts_as_active() {
    run(|| {
        let gate = Gate::new();
        let agents = scripted().on("deaf", Script::new().wait_at_ignoring_cancel(&gate));
        let mut client = Client::connect(keeping(agents), config().max_sessions(1));
        let session = client.open();
        let deaf = client.prompt(&session, "deaf");
        gate.wait_arrived(1);
        let close = client.request("session/close", json!({ "sessionId": session }));
        assert_eq!(client.ask("session/new", json!({ "cwd": "/work", "mcpServers": [] })), Err(-32600));
        gate.open();
        assert_eq!(client.stopped(deaf), Ok("cancelled".into()));
        assert_eq!(client.answer(close), Ok(json!({})));
        client.open();
    });
}
