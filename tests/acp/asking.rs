//! Input requests as permissions and forms.

use serde_json::{json, Value};
use turnwise::acp::schema::{SessionUpdate, ToolCallStatus, ToolCallUpdate, ToolCallUpdateFields};
use turnwise::acp::update_event;
use turnwise::testkit::{scripted, Script, Scripted};
use turnwise::{AgentError, AgentEvent, InputError, InputRequest, InputResponse, SessionService};

use crate::support::{config, run, service, Client};

fn permission() -> InputRequest {
    InputRequest::new("permission", "Write a.txt?")
        .option("allow_once", "Allow")
        .option("reject_once", "Reject")
        .payload(r#"{"toolCallId":"t1","title":"Write a.txt","kind":"edit"}"#)
}

/// Agents that ask, and answer with the outcome.
fn asking(request: InputRequest) -> Scripted {
    let script = Script::new()
        .emit(AgentEvent::ToolCallRequested { id: "t1".into(), name: "write".into(), args: "{}".into() })
        .reply_with(move |turn| match turn.request_input(request.clone()) {
            Ok(answer) => Ok(format!("answered {answer}")),
            Err(InputError::Declined { .. }) => Ok("declined".into()),
            Err(InputError::TimedOut { .. }) => Ok("timed out".into()),
            Err(error) => Err(AgentError::from(error)),
        });
    scripted().otherwise(move |_| script.clone())
}

/// Asks once, with this reply of the client to the request. Returns the request and the answer of the agent.
fn outcome(reply: impl FnOnce(&Value) -> Value) -> (Value, String) {
    let mut client = Client::connect(service(asking(permission())), config());
    let session = client.open();
    let prompt = client.prompt(&session, "write");
    let call = client.called("session/request_permission");
    let mut message = reply(&call);
    message["jsonrpc"] = json!("2.0");
    client.send(&message);
    assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
    (call, client.text())
}

#[test]
fn c74_a_permission_is_granted_or_refused_by_its_option() {
    run(|| {
        let select = |option: &'static str| move |call: &Value| json!({ "id": call["id"], "result": { "outcome": { "outcome": "selected", "optionId": option } } });
        let (call, text) = outcome(select("allow_once"));
        assert_eq!(text, "answered allow_once");
        assert_eq!(call["params"]["toolCall"]["toolCallId"], "t1");
        assert_eq!(call["params"]["toolCall"]["title"], "Write a.txt");
        assert_eq!(call["params"]["options"][1]["kind"], "reject_once");
        assert_eq!(outcome(select("reject_once")).1, "answered reject_once");
        // An option that was not offered allows nothing.
        assert_eq!(outcome(select("allow_always")).1, "declined");
    });
}

#[test]
fn c74_a_cancelled_a_failed_or_a_broken_reply_declines() {
    run(|| {
        let result = |result: Value| outcome(move |call| json!({ "id": call["id"], "result": result })).1;
        assert_eq!(result(json!({ "outcome": { "outcome": "cancelled" } })), "declined");
        assert_eq!(result(json!({})), "declined");
        assert_eq!(result(Value::Null), "declined");
        let error = json!({ "code": -32601, "message": "Method not found" });
        assert_eq!(outcome(move |call| json!({ "id": call["id"], "error": error })).1, "declined");
    });
}

#[test]
fn c74_a_cancel_ends_an_open_permission_and_a_later_reply_is_ignored() {
    run(|| {
        let mut client = Client::connect(service(asking(permission())), config());
        let session = client.open();
        let prompt = client.prompt(&session, "write");
        let call = client.called("session/request_permission");
        // A client that sends one notification, and answers nothing.
        client.notify("session/cancel", json!({ "sessionId": session }));
        assert_eq!(client.stopped(prompt), Ok("cancelled".into()));
        // Late, and about the request of the turn before.
        client.reply(&call, json!({ "outcome": { "outcome": "selected", "optionId": "allow_once" } }));
        let prompt = client.prompt(&session, "write");
        let call = client.called("session/request_permission");
        client.reply(&call, json!({ "outcome": { "outcome": "selected", "optionId": "reject_once" } }));
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
        assert_eq!(client.text(), "answered reject_once");
    });
}

#[test]
fn c74_an_answer_of_the_host_counts_and_that_of_the_client_is_late() {
    run(|| {
        let service = service(asking(permission()));
        let mut client = Client::connect(service.clone(), config());
        let session = client.open();
        let prompt = client.prompt(&session, "write");
        let call = client.called("session/request_permission");
        let id = session.parse().expect("an id");
        let pending = service.pending_inputs(id).expect("a session")[0].id;
        service.respond(id, pending, InputResponse::Answer("reject_once".into())).expect("pending");
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
        assert_eq!(client.text(), "answered reject_once");
        client.reply(&call, json!({ "outcome": { "outcome": "selected", "optionId": "allow_once" } }));
        assert!(client.ask("session/list", json!({})).is_ok());
    });
}

#[test]
fn c74_a_question_goes_to_a_form_or_is_declined() {
    run(|| {
        let question = InputRequest::new("question", "Which name?");
        let mut client = Client::connect(service(asking(question.clone())), config());
        let session = client.open();
        let prompt = client.prompt(&session, "ask");
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
        assert_eq!(client.text(), "declined");

        let able = json!({ "elicitation": { "form": {} } });
        for (reply, text) in [
            (json!({ "action": "accept", "content": { "answer": "Ada" } }), "answered Ada"),
            (json!({ "action": "decline" }), "declined"),
        ] {
            let mut client = Client::able(service(asking(question.clone())), config(), able.clone());
            let session = client.open();
            let prompt = client.prompt(&session, "ask");
            let call = client.called("elicitation/create");
            assert_eq!(call["params"]["sessionId"], session);
            client.reply(&call, reply);
            assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
            assert_eq!(client.text(), text);
        }
    });
}

/// Asks for a permission without a payload behind these events. Returns the subject, and the types and states of all
/// updates about it.
fn subject(events: Vec<AgentEvent>) -> (String, Vec<String>) {
    let request = InputRequest::new("permission", "Go on?").option("allow_once", "Allow");
    let script = events.into_iter().fold(Script::new(), Script::emit);
    let script = script.reply_with(move |turn| Ok(turn.request_input(request.clone())?));
    let mut client = Client::connect(service(scripted().on("go", script)), config());
    let session = client.open();
    let prompt = client.prompt(&session, "go");
    let call = client.called("session/request_permission");
    client.reply(&call, json!({ "outcome": { "outcome": "selected", "optionId": "allow_once" } }));
    assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
    let subject = call["params"]["toolCall"]["toolCallId"].as_str().expect("an id").to_owned();
    let mut updates = client.updates();
    updates.retain(|update| update["toolCallId"] == subject.as_str());
    let text = |value: &Value| value.as_str().unwrap_or("pending").to_owned();
    let shown = updates.iter().map(|update| format!("{} {}", text(&update["sessionUpdate"]), text(&update["status"])));
    (subject, shown.collect())
}

#[test]
fn c74_a_permission_names_the_only_open_call_or_one_of_its_own() {
    run(|| {
        let requested =
            |id: &str| AgentEvent::ToolCallRequested { id: id.into(), name: "write".into(), args: "{}".into() };
        let ended = ToolCallUpdateFields::new().status(ToolCallStatus::Completed);
        let ended = update_event(&SessionUpdate::ToolCallUpdate(ToolCallUpdate::new("t1", ended)));
        assert_eq!(subject(vec![requested("t1")]).0, "t1");
        assert_eq!(subject(vec![requested("t1"), ended.clone(), requested("t2")]).0, "t2");
        for events in [vec![], vec![requested("t1"), requested("t2")], vec![requested("t1"), ended]] {
            let (subject, shown) = subject(events);
            assert!(subject.starts_with("input-"), "{subject}");
            assert_eq!(shown, ["tool_call pending", "tool_call_update completed"]);
        }
    });
}
