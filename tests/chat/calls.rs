//! Tool calls, and how they are told apart.

use serde_json::json;

use crate::server::{calls, chunks, words};
use crate::support::talk;

#[test]
fn the_model_calls_tools() {
    let sum = ("one", "calculator", r#"{"expression": "(2 + 4) * 7"}"#);
    let asks = calls(&[sum, ("two", "clock", "{}"), ("three", "calculator", "{}"), ("four", "telephone", "{}")]);
    let (server, mut chat) = talk(vec![asks, words(&["It is 42."])], &[]);
    chat.type_line("what is it");
    chat.err.expect("[calculator: 42]\n");
    let clock = chat.err.expect("[calculator: failed: missing field `expression`");
    assert!(clock.contains("[clock: ") && clock.contains(" GMT]"), "{clock}");
    chat.err.expect("[telephone: failed: there is no tool 'telephone']\n");
    chat.out.expect("It is 42.\n");
    chat.type_line("/show");
    chat.out.expect("assistant: calculator({\"expression\": \"(2 + 4) * 7\"})\n");
    chat.out.expect("tool: 42\n");
    chat.type_line("/usage");
    chat.out.expect("84 in all\n");
    assert!(chat.end().success());
    let tools = server.asked().body["tools"].as_array().expect("tools").len();
    assert_eq!(tools, 2);
    let asked = server.asked();
    let messages = asked.body["messages"].as_array().expect("messages");
    assert_eq!(messages[1]["tool_calls"][0]["function"]["arguments"], sum.2);
    assert_eq!((&messages[2]["tool_call_id"], &messages[2]["content"]), (&"one".into(), &"42".into()));
    assert_eq!(messages.len(), 6);
}

#[test]
fn a_model_that_never_stops_calling_tools_is_stopped() {
    let acts = (0..10).map(|_| calls(&[("one", "clock", "{}")])).chain([words(&["enough"])]).collect();
    let (_server, mut chat) = talk(acts, &[]);
    chat.type_line("go on");
    chat.err.expect("error: still not done after 10 model calls\n");
    chat.type_line("stop it");
    chat.out.expect("enough\n");
    assert!(chat.end().success());
}

#[test]
fn tool_calls_are_understood_however_they_come() {
    let call = |call| json!({ "choices": [{ "delta": { "tool_calls": [call] } }] });
    let function = |name: &str, args: &str| json!({ "name": name, "arguments": args });
    let sum = r#"{"expression": "1 + 1"}"#;
    let without_numbers = [
        call(json!({ "id": "a", "function": function("clock", "") })),
        call(json!({ "id": "b", "function": function("calculator", sum) })),
    ];
    let all_of_them_number_0 = [
        call(json!({ "index": 0, "id": "a", "function": function("clock", "{}") })),
        call(json!({ "index": 0, "id": "b", "function": function("calculator", sum) })),
    ];
    let without_ids = [
        call(json!({ "index": 0, "function": function("clock", "{}") })),
        call(json!({ "index": 1, "id": "", "function": function("calculator", &sum[..5]) })),
        call(json!({ "index": 1, "id": null, "function": function("calculator", &sum[5..]) })),
    ];
    let with_text_and_without_arguments = [
        json!({ "choices": [{ "delta": { "content": "Let me see." } }] }),
        call(json!({ "index": 0, "id": "a", "function": { "name": "clock" } })),
        call(json!({ "index": 1, "id": "b", "function": function("calculator", sum) })),
    ];
    let with_a_number_for_an_id_objects_and_no_name = [
        call(json!({ "index": 0, "id": 5, "function": { "arguments": {} } })),
        call(
            json!({ "index": 1, "id": 6, "function": { "name": "calculator", "arguments": { "expression": "1 + 1" } } }),
        ),
    ];
    let with_a_name_that_clears_the_screen_and_no_json = [
        call(json!({ "index": 0, "id": "a", "function": function("clock\u{1b}[2J", "{\"expr") })),
        call(json!({ "index": 1, "id": "b", "function": function("calculator", sum) })),
    ];
    let odd = [
        &without_numbers[..],
        &all_of_them_number_0,
        &without_ids,
        &with_text_and_without_arguments,
        &with_a_number_for_an_id_objects_and_no_name,
        &with_a_name_that_clears_the_screen_and_no_json,
    ];
    for odd in odd {
        // None of them says why the model stopped.
        let (server, mut chat) = talk(vec![chunks(odd), words(&["Two."])], &[]);
        chat.type_line("what is it");
        chat.err.expect("[calculator: 2]\n");
        chat.out.expect("Two.\n");
        chat.type_line("/show");
        let shown = chat.out.expect("assistant: Two.\n");
        assert!(shown.contains("assistant: calculator(") && !shown.contains('\u{1b}'), "{shown}");
        assert!(chat.end().success());
        server.asked();
        let asked = server.asked();
        assert_eq!(asked.messages().iter().filter(|(role, _)| *role == "tool").count(), 2, "{odd:?}");
    }
}

#[test]
fn a_call_that_was_cut_off_is_not_run() {
    let function = json!({ "name": "calculator", "arguments": "{\"expression\": \"1" });
    let call = json!({ "index": 0, "id": "a", "function": function });
    let act = chunks(&[
        json!({ "choices": [{ "delta": { "content": "So:" } }] }),
        json!({ "choices": [{ "delta": { "tool_calls": [call] }, "finish_reason": "length" }] }),
    ]);
    let (server, mut chat) = talk(vec![act, words(&["Good."])], &[]);
    chat.type_line("sum it up");
    chat.out.expect("So:\n");
    chat.err.expect("[the answer is cut off: its token limit was used up]\n");
    chat.type_line("again");
    chat.out.expect("Good.\n");
    assert!(chat.end().success());
    server.asked();
    assert_eq!(server.asked().messages(), [("user", "sum it up"), ("assistant", "So:"), ("user", "again")]);
}
