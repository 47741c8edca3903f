//! Input requests of a turn as requests to the client, and its replies as responses.
//!
//! **Invariant.** Only a `selected` of one of the request's own options is an answer. A reply that is an error, that is
//! cancelled, or that is not understood declines the request, and never allows anything.

use agent_client_protocol_schema::v1::{
    AgentRequest, ClientCapabilities, CreateElicitationRequest, CreateElicitationResponse, ElicitationAction,
    ElicitationContentValue, ElicitationFormMode, ElicitationSchema, ElicitationSessionScope, PermissionOption,
    PermissionOptionKind, RequestPermissionOutcome, RequestPermissionRequest, RequestPermissionResponse,
    ToolCallStatus, ToolCallUpdate, ToolCallUpdateFields,
};
use serde_json::Value;

use super::pending::{Asked, Reply};
use crate::model::{InputId, InputOption, InputRequest, InputResponse, SessionId};

/// The name of the field in the form of a question.
const ANSWER: &str = "answer";

/// The request to the client. `tool_call` is the only call that is open. `None` if the client cannot be asked.
pub(super) fn request(
    session: SessionId,
    input: InputId,
    asked: &InputRequest,
    tool_call: Option<&str>,
    able: &ClientCapabilities,
) -> Option<(AgentRequest, Asked)> {
    let session = session.to_string();
    if !asked.options.is_empty() {
        let options = asked.options.iter().map(option).collect();
        let request = RequestPermissionRequest::new(session, subject(input, asked, tool_call), options);
        return Some((AgentRequest::RequestPermissionRequest(request), Asked::Permission));
    }
    let can_fill_forms = able.elicitation.as_ref().is_some_and(|elicitation| elicitation.supports_form());
    can_fill_forms.then(|| {
        let scope = ElicitationSessionScope::new(session).tool_call_id(tool_call.map(str::to_owned).map(Into::into));
        let form = ElicitationFormMode::new(scope, ElicitationSchema::new().string(ANSWER, true));
        let request = CreateElicitationRequest::new(form, asked.message.as_str());
        (AgentRequest::CreateElicitationRequest(request), Asked::Elicitation)
    })
}

/// The id of the call that stands for a permission about no other call.
pub(super) fn own_call(input: InputId) -> String {
    format!("input-{input}")
}

/// The tool call that a permission is about: from the payload of the request, or else the only one that is open.
fn subject(input: InputId, asked: &InputRequest, tool_call: Option<&str>) -> ToolCallUpdate {
    let payload = asked.payload.as_deref();
    let named: Option<ToolCallUpdate> = payload.and_then(|payload| serde_json::from_str(payload).ok());
    let mut subject = named.unwrap_or_else(|| {
        let id = tool_call.map_or_else(|| own_call(input), str::to_owned);
        // A payload of another form is shown as it is.
        let fields = ToolCallUpdateFields::new().raw_input(payload.and_then(|text| serde_json::from_str(text).ok()));
        ToolCallUpdate::new(id, fields)
    });
    subject.fields.title.get_or_insert_with(|| asked.message.clone());
    subject.fields.status.get_or_insert(ToolCallStatus::Pending);
    subject
}

fn option(option: &InputOption) -> PermissionOption {
    let kind = match option.id.as_str() {
        "allow_always" => PermissionOptionKind::AllowAlways,
        "reject_always" => PermissionOptionKind::RejectAlways,
        id if id.starts_with("reject") => PermissionOptionKind::RejectOnce,
        _ => PermissionOptionKind::AllowOnce,
    };
    PermissionOption::new(option.id.clone(), option.label.clone(), kind)
}

/// The response of the host to the turn.
pub(super) fn response(asked: Asked, reply: Reply) -> InputResponse {
    let answer = match (asked, reply) {
        (_, Err(_)) => None,
        (Asked::Permission, Ok(result)) => selected(result),
        (Asked::Elicitation, Ok(result)) => filled_in(result),
    };
    answer.map_or_else(|| declined("the client gave no answer"), InputResponse::Answer)
}

fn selected(result: Value) -> Option<String> {
    match serde_json::from_value::<RequestPermissionResponse>(result).ok()?.outcome {
        RequestPermissionOutcome::Selected(selected) => Some(selected.option_id.0.as_ref().to_owned()),
        _ => None,
    }
}

fn filled_in(result: Value) -> Option<String> {
    let ElicitationAction::Accept(accepted) = serde_json::from_value::<CreateElicitationResponse>(result).ok()?.action
    else {
        return None;
    };
    match accepted.content?.remove(ANSWER)? {
        ElicitationContentValue::String(answer) => Some(answer),
        _ => None,
    }
}

pub(super) fn declined(reason: &str) -> InputResponse {
    InputResponse::Declined { reason: Some(reason.to_owned()) }
}

#[cfg(test)]
mod tests {
    use agent_client_protocol_schema::v1::Error;
    use serde_json::json;

    use super::*;

    fn permission(asked: &InputRequest, tool_call: Option<&str>) -> Value {
        let able = ClientCapabilities::default();
        let (request, _) = request(SessionId::new(), InputId::new(3), asked, tool_call, &able).unwrap();
        serde_json::to_value(request).unwrap()
    }

    #[test]
    fn c74_ids_of_options_give_their_kinds() {
        let mut asked = InputRequest::new("permission", "Write it?");
        for id in ["allow_once", "allow_always", "reject_once", "reject_always", "maybe"] {
            asked = asked.option(id, id.to_uppercase());
        }
        let options = permission(&asked, None)["options"].clone();
        let kinds: Vec<&str> = options.as_array().unwrap().iter().map(|o| o["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["allow_once", "allow_always", "reject_once", "reject_always", "allow_once"]);
        assert_eq!(options[0]["name"], "ALLOW_ONCE");
    }

    #[test]
    fn c74_a_permission_names_a_tool_call_with_a_title() {
        let asked = InputRequest::new("permission", "Write it?").option("allow_once", "Yes");
        let subject = |asked: &InputRequest, call| permission(asked, call)["toolCall"].clone();
        assert_eq!(subject(&asked, None)["toolCallId"], "input-3");
        assert_eq!(subject(&asked, Some("call-1"))["toolCallId"], "call-1");
        assert_eq!(subject(&asked, Some("call-1"))["title"], "Write it?");
        let named = asked.clone().payload(r#"{"toolCallId":"call-2","title":"Write a.txt","kind":"edit"}"#);
        let shown = subject(&named, Some("call-1"));
        assert_eq!((&shown["toolCallId"], &shown["title"]), (&json!("call-2"), &json!("Write a.txt")));
        assert_eq!(subject(&asked.payload(r#"{"path":"a"}"#), None)["rawInput"], json!({ "path": "a" }));
    }

    #[test]
    fn c74_a_question_without_options_is_a_form_where_the_client_has_forms() {
        let asked = InputRequest::new("question", "Which name?");
        let ask = |able: Value| {
            let able = serde_json::from_value(able).unwrap();
            request(SessionId::new(), InputId::new(1), &asked, None, &able)
        };
        assert!(ask(json!({})).is_none());
        assert!(ask(json!({ "elicitation": { "url": {} } })).is_none());
        let (request, kind) = ask(json!({ "elicitation": { "form": {} } })).unwrap();
        let form = serde_json::to_value(request).unwrap();
        assert_eq!(
            (kind, &form["mode"], &form["message"]),
            (Asked::Elicitation, &json!("form"), &json!("Which name?"))
        );
        assert_eq!(form["requestedSchema"]["required"], json!(["answer"]));
    }

    #[test]
    fn c74_nothing_but_a_selected_option_answers() {
        let outcome = |outcome: Value| response(Asked::Permission, Ok(json!({ "outcome": outcome })));
        let chosen = outcome(json!({ "outcome": "selected", "optionId": "allow_once" }));
        assert_eq!(chosen, InputResponse::Answer("allow_once".into()));
        for reply in [
            Err(Error::internal_error()),
            Ok(Value::Null),
            Ok(json!({})),
            Ok(json!({ "outcome": { "outcome": "cancelled" } })),
            Ok(json!({ "outcome": { "outcome": "selected" } })),
            Ok(json!({ "outcome": { "outcome": "allowed", "optionId": "allow_once" } })),
            Ok(json!({ "outcome": "allow_once" })),
        ] {
            assert!(matches!(response(Asked::Permission, reply.clone()), InputResponse::Declined { .. }), "{reply:?}");
        }
    }

    #[test]
    fn c74_only_an_accepted_form_answers_a_question() {
        let reply = |result: Value| response(Asked::Elicitation, Ok(result));
        let accepted = reply(json!({ "action": "accept", "content": { "answer": "Ada" } }));
        assert_eq!(accepted, InputResponse::Answer("Ada".into()));
        for result in [json!({ "action": "decline" }), json!({ "action": "cancel" }), json!({ "action": "accept" })] {
            assert!(matches!(reply(result), InputResponse::Declined { .. }));
        }
    }
}
