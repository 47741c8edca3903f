//! Prompts: their updates, and the reasons why they stop.

use serde_json::{json, Value};
use turnwise::acp::schema::{
    ContentBlock, ContentChunk, Diff, ImageContent, Plan, PlanEntry, PlanEntryPriority, PlanEntryStatus, PlanRemoved,
    SessionUpdate, ToolCallStatus, ToolCallUpdate, ToolCallUpdateFields, ToolKind,
};
use turnwise::acp::{update_event, ToolDisplay};
use turnwise::testkit::{scripted, Gate, Script};
use turnwise::{AgentError, AgentEvent, StopReason, Usage, WhenBusy};

use crate::support::{config, keeping, run, service, Client};

fn types_of(updates: &[Value]) -> Vec<&str> {
    updates.iter().map(|update| update["sessionUpdate"].as_str().expect("a type")).collect()
}

#[test]
fn c72_text_and_thoughts_arrive_in_order_before_the_answer() {
    run(|| {
        let thought = |delta: &str| AgentEvent::ReasoningDelta { delta: delta.into() };
        let script = Script::new()
            .emit(thought("h"))
            .emit(thought("m"))
            .emit(AgentEvent::ReasoningComplete { content: "hm".into() })
            .say("one ")
            .say("two")
            .emit(AgentEvent::TextComplete { content: "one two".into() });
        let mut client = Client::connect(service(scripted().on("count", script)), config());
        let session = client.open();
        let prompt = client.prompt(&session, "count");
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
        let updates = client.updates();
        let text: Vec<_> = updates.iter().map(|update| update["content"]["text"].as_str().expect("text")).collect();
        assert_eq!(text, ["h", "m", "one ", "two"]);
        let (thoughts, chunks) = ("agent_thought_chunk", "agent_message_chunk");
        assert_eq!(types_of(&updates), [thoughts, thoughts, chunks, chunks]);
    });
}

#[test]
fn c72_an_answer_that_was_not_streamed_is_sent_once() {
    run(|| {
        let complete = |content: &str| AgentEvent::TextComplete { content: content.into() };
        let agents = scripted()
            .on("whole", Script::new().emit(complete("all of it")).reply("all of it"))
            .on("silent", Script::new().reply("only the result"));
        let mut client = Client::connect(service(agents), config());
        let session = client.open();
        for (prompt, answer) in [("whole", "all of it"), ("silent", "only the result"), ("echo", "echo")] {
            let id = client.prompt(&session, prompt);
            assert_eq!(client.stopped(id), Ok("end_turn".into()));
            assert_eq!(client.text(), answer);
        }
    });
}

#[test]
fn c72_a_tool_call_is_shown_from_its_request_to_its_end() {
    run(|| {
        let (id, name) = ("t1".to_owned(), "read_file".to_owned());
        let request = |id: &str, name: &str| AgentEvent::ToolCallRequested {
            id: id.into(),
            name: name.into(),
            args: r#"{"path":"a.txt"}"#.into(),
        };
        let result = "the text".to_owned();
        let script = Script::new()
            .emit(request(&id, &name))
            .emit(AgentEvent::ToolExecutionStarted { id: id.clone(), name: name.clone() })
            .emit(AgentEvent::ToolExecutionCompleted { id: id.clone(), name, result, is_error: false, duration_ms: 3 })
            .emit(AgentEvent::ToolResultReceived { id, name: "read_file".into(), is_error: false })
            .emit(request("t2", "slow"))
            .emit(AgentEvent::ToolExecutionTimedOut { id: "t2".into(), name: "slow".into(), timeout_ms: 9 })
            .emit(request("t3", "left open"));
        let config = config().display_tools(|_, name, args| match name {
            "read_file" => ToolDisplay::new(format!("Read {}", args["path"].as_str().expect("a path")), ToolKind::Read),
            "slow" => panic!("a bug of the host"),
            _ => ToolDisplay::new(name, ToolKind::Other),
        });
        let mut client = Client::connect(service(scripted().on("go", script)), config);
        let session = client.open();
        let prompt = client.prompt(&session, "go");
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
        let updates = client.updates();
        let shown: Vec<_> = updates
            .iter()
            .filter(|update| update["toolCallId"].is_string())
            .map(|update| {
                (update["toolCallId"].as_str().expect("an id"), update["status"].as_str().unwrap_or("pending"))
            })
            .collect();
        let expected = [
            ("t1", "pending"),
            ("t1", "in_progress"),
            ("t1", "completed"),
            ("t2", "pending"),
            ("t2", "failed"),
            ("t3", "pending"),
            ("t3", "failed"),
        ];
        assert_eq!(shown, expected);
        assert_eq!((&updates[0]["title"], &updates[0]["kind"]), (&json!("Read a.txt"), &json!("read")));
        assert_eq!(updates[0]["rawInput"], json!({ "path": "a.txt" }));
        assert_eq!(updates[2]["content"][0]["content"]["text"], "the text");
        assert_eq!(updates[3]["title"], "slow");
    });
}

#[test]
fn c72_an_agent_sends_updates_of_its_own() {
    run(|| {
        let entry = PlanEntry::new("Look", PlanEntryPriority::High, PlanEntryStatus::InProgress);
        let diff = ToolCallUpdateFields::new().content(vec![Diff::new("/project/a.txt", "new").into()]);
        let script = Script::new()
            .emit(update_event(&SessionUpdate::Plan(Plan::new(vec![entry]))))
            .emit(update_event(&SessionUpdate::ToolCallUpdate(ToolCallUpdate::new("t1", diff))))
            // The client has not said that it understands this one.
            .emit(update_event(&SessionUpdate::PlanRemoved(PlanRemoved::new("p"))))
            .emit(AgentEvent::Custom { name: "acp.session_update".into(), payload: "{}".into() })
            .emit(AgentEvent::Custom { name: "other".into(), payload: "{}".into() })
            .emit(AgentEvent::TurnCompleted {
                stop_reason: StopReason::EndTurn,
                usage: Usage { input_tokens: 700, output_tokens: 50, ..Usage::default() },
            });
        let service = service(scripted().on("go", script));
        let mut client = Client::connect(service.clone(), config().context_size(1_000));
        let session = client.open();
        let prompt = client.prompt(&session, "go");
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
        let updates = client.updates();
        assert_eq!(types_of(&updates), ["plan", "tool_call_update", "usage_update", "agent_message_chunk"]);
        assert_eq!(updates[0]["entries"][0]["content"], "Look");
        assert_eq!(updates[1]["content"][0], json!({ "type": "diff", "path": "/project/a.txt", "newText": "new" }));
        assert_eq!((&updates[2]["used"], &updates[2]["size"]), (&json!(750), &json!(1_000)));
        // With the capability, the same update is sent.
        let mut able = Client::able(service, config(), json!({ "plan": {} }));
        let session = able.open();
        let prompt = able.prompt(&session, "go");
        assert_eq!(able.stopped(prompt), Ok("end_turn".into()));
        let updates = able.updates();
        // Without a known size there is no usage.
        assert_eq!(types_of(&updates), ["plan", "tool_call_update", "plan_removed", "agent_message_chunk"]);
    });
}

#[test]
fn c72_stop_reasons_and_errors() {
    run(|| {
        let agents = scripted()
            .on("rounds", Script::new().fail(AgentError::MaxTurnsReached { turns: 5 }))
            .on("tokens", Script::new().fail(AgentError::TokenBudgetExceeded { used: 2, limit: 1 }))
            .on("broken", Script::new().fail(AgentError::Config("no key".into())));
        let mut client = Client::connect(service(agents), config());
        let session = client.open();
        for (prompt, stopped) in
            [("rounds", Ok("max_turn_requests")), ("tokens", Ok("max_tokens")), ("broken", Err(-32603))]
        {
            let id = client.prompt(&session, prompt);
            assert_eq!(client.stopped(id), stopped.map(str::to_owned), "{prompt}");
        }
        let id = client.prompt(&session, "broken");
        let error = client.find(|line| line["id"] == id)["error"].clone();
        assert_eq!(error["data"]["code"], "AGENT_ERROR");
        assert!(error["data"]["message"].as_str().expect("a message").contains("no key"));
    });
}

#[test]
fn c72_a_prompt_takes_links_and_embedded_text_and_nothing_else() {
    run(|| {
        let mut client = Client::connect(service(scripted()), config());
        let session = client.open();
        let mut ask = |prompt: Value| {
            let id = client.request("session/prompt", json!({ "sessionId": session, "prompt": prompt }));
            (client.stopped(id), client.text())
        };
        let link = json!({ "type": "resource_link", "name": "a.txt", "uri": "file:///project/a.txt" });
        let file = json!({ "type": "resource", "resource": { "uri": "file:///project/b.txt", "text": "inside" } });
        let (stopped, text) = ask(json!([{ "type": "text", "text": "see " }, link, file]));
        assert_eq!(stopped, Ok("end_turn".into()));
        assert!(text.starts_with("see [a.txt](file:///project/a.txt)") && text.contains("inside"), "{text}");
        for block in [
            json!({ "type": "image", "data": "AAAA", "mimeType": "image/png" }),
            json!({ "type": "audio", "data": "AAAA", "mimeType": "audio/wav" }),
            json!({ "type": "resource", "resource": { "uri": "file:///x", "blob": "AAAA" } }),
            json!({ "type": "hologram" }),
        ] {
            assert_eq!(ask(json!([block])), (Err(-32602), String::new()));
        }
    });
}

/// Agents whose prompts that begin with `hold` wait at the gate.
fn holding(gate: &Gate) -> turnwise::testkit::Scripted {
    let gate = gate.clone();
    scripted().otherwise(move |prompt| match prompt.starts_with("hold") {
        true => Script::new().say("holding ").wait_at(&gate).say("done"),
        false => Script::new(),
    })
}

#[test]
fn c72_a_second_prompt_is_refused_queued_or_supersedes() {
    run(|| {
        let gate = Gate::new();
        let mut client = Client::connect(service(holding(&gate)), config());
        let session = client.open();
        let first = client.prompt(&session, "hold");
        gate.wait_arrived(1);
        let second = client.prompt(&session, "second");
        assert_eq!(client.stopped(second), Err(-32600));
        gate.open();
        assert_eq!(client.stopped(first), Ok("end_turn".into()));

        let gate = Gate::new();
        let mut client = Client::connect(service(holding(&gate)), config().when_busy(WhenBusy::Queue));
        let session = client.open();
        let first = client.prompt(&session, "hold");
        gate.wait_arrived(1);
        let second = client.prompt(&session, "second");
        gate.open();
        assert_eq!(client.stopped(second), Ok("end_turn".into()));
        // The first answer has come before the second, with its updates before it.
        assert_eq!(client.stopped(first), Ok("end_turn".into()));
        assert_eq!(client.text(), "holding donesecond");

        let gate = Gate::new();
        let mut client = Client::connect(service(holding(&gate)), config().when_busy(WhenBusy::Interrupt));
        let session = client.open();
        let first = client.prompt(&session, "hold");
        gate.wait_arrived(1);
        let second = client.prompt(&session, "second");
        assert_eq!(client.stopped(first), Ok("cancelled".into()));
        assert_eq!(client.stopped(second), Ok("end_turn".into()));
    });
}

#[test]
fn c72_the_updates_of_two_prompts_are_not_mixed() {
    run(|| {
        let mut client = Client::connect(service(scripted()), config().when_busy(WhenBusy::Queue));
        let session = client.open();
        let prompts: Vec<i64> = (0..8).map(|number| client.prompt(&session, &format!("number {number}"))).collect();
        for (number, prompt) in prompts.into_iter().enumerate() {
            let (update, answer) = (client.next(), client.next());
            assert_eq!(update["params"]["update"]["content"]["text"], format!("number {number}"));
            assert_eq!(answer["id"], prompt, "{answer}");
        }
    });
}

#[test]
fn c72_two_sessions_run_side_by_side() {
    run(|| {
        let gate = Gate::new();
        let mut client = Client::connect(keeping(holding(&gate)), config());
        let (one, two) = (client.open(), client.open());
        let first = client.prompt(&one, "hold");
        gate.wait_arrived(1);
        let second = client.prompt(&two, "two");
        assert_eq!(client.stopped(second), Ok("end_turn".into()));
        gate.open();
        assert_eq!(client.stopped(first), Ok("end_turn".into()));
        let line = client.find(|line| line["params"]["update"]["content"]["text"] == "two");
        assert_eq!(line["params"]["sessionId"], two);
    });
}

/// The updates of one prompt.
fn updates_of(script: Script) -> Vec<Value> {
    let mut client = Client::connect(service(scripted().on("go", script)), config());
    let session = client.open();
    let prompt = client.prompt(&session, "go");
    assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
    client.updates()
}

fn requested(id: &str) -> AgentEvent {
    AgentEvent::ToolCallRequested { id: id.into(), name: "write".into(), args: "{}".into() }
}

fn completed(id: &str) -> AgentEvent {
    let (result, name) = ("written".into(), "write".into());
    AgentEvent::ToolExecutionCompleted { id: id.into(), name, result, is_error: false, duration_ms: 1 }
}

fn own(id: &str, fields: ToolCallUpdateFields) -> AgentEvent {
    update_event(&SessionUpdate::ToolCallUpdate(ToolCallUpdate::new(id.to_owned(), fields)))
}

#[test]
fn c72_the_content_and_the_end_of_the_agents_own_stay() {
    run(|| {
        let diff = ToolCallUpdateFields::new().content(vec![Diff::new("/project/a.txt", "new").into()]);
        let ended = ToolCallUpdateFields::new().status(ToolCallStatus::Completed);
        let script = Script::new()
            .emit(requested("t1"))
            .emit(own("t1", diff))
            .emit(completed("t1"))
            .emit(requested("t2"))
            .emit(own("t2", ended))
            .emit(completed("t2"));
        let mut updates = updates_of(script);
        updates.retain(|update| update["toolCallId"].is_string());
        let (call, update) = ("tool_call", "tool_call_update");
        assert_eq!(types_of(&updates), [call, update, update, call, update]);
        // The end of the call leaves the diff as it is.
        assert_eq!((&updates[2]["status"], &updates[2]["content"]), (&json!("completed"), &Value::Null));
        assert_eq!(updates[2]["rawOutput"], "written");
        assert_eq!((&updates[4]["toolCallId"], &updates[4]["status"]), (&json!("t2"), &json!("completed")));
    });
}

#[test]
fn c72_the_last_text_is_sent_where_only_the_text_before_was_streamed() {
    run(|| {
        let image = ContentBlock::Image(ImageContent::new("AAAA", "image/png"));
        let image = update_event(&SessionUpdate::AgentMessageChunk(ContentChunk::new(image)));
        let texts = |script: Script| -> Vec<String> {
            let updates = updates_of(script);
            updates.iter().filter_map(|update| update["content"]["text"].as_str().map(str::to_owned)).collect()
        };
        let looking = || AgentEvent::TextDelta { delta: "looking".into() };
        let script = Script::new().emit(looking()).emit(requested("t1")).emit(completed("t1"));
        assert_eq!(texts(script.clone().reply("found")), ["looking", "found"]);
        // What was sent is not sent again.
        assert_eq!(texts(script.reply("looking")), ["looking"]);
        // An image is no text.
        assert_eq!(texts(Script::new().emit(image).reply("an image")), ["an image"]);
    });
}
