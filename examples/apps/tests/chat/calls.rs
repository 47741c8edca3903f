//! Tool calls, and the assembly of their pieces.

use serde_json::{json, Value};

use crate::server::{calls, chunks, raw, words};
use crate::support::{fails_and_goes_on, talk};

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
    assert_eq!(tools, 4);
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
fn tool_calls_are_understood_in_many_forms() {
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
        // None of these replies has a reason to stop.
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
fn a_call_that_is_cut_off_does_not_run() {
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

/// The calls in the history after these deltas of `tool_calls`, as `(name, arguments)`.
#[track_caller]
fn called(deltas: &[Value]) -> Vec<(String, String)> {
    let chunk = |delta: &Value| json!({ "choices": [{ "delta": { "tool_calls": delta }, "finish_reason": "" }] });
    let (server, mut chat) =
        talk(vec![chunks(&deltas.iter().map(chunk).collect::<Vec<_>>()), words(&["Done."])], &["--attempts", "1"]);
    chat.type_line("what is it");
    chat.out.expect("Done.\n");
    assert!(chat.end().success());
    server.asked();
    let asked = server.asked();
    let calls = asked.body["messages"][1]["tool_calls"].as_array().expect("calls").clone();
    assert_eq!(asked.messages().iter().filter(|(role, _)| *role == "tool").count(), calls.len());
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    calls.iter().map(|call| (text(&call["function"]["name"]), text(&call["function"]["arguments"]))).collect()
}

const SUM: &str = r#"{"expression": "1 + 1"}"#;
const PRODUCT: &str = r#"{"expression": "2 * 3"}"#;

fn pairs(calls: &[(&str, &str)]) -> Vec<(String, String)> {
    calls.iter().map(|(name, args)| ((*name).to_owned(), (*args).to_owned())).collect()
}

/// The deltas of two calls of the calculator, with these labels. Each call has its name in one piece, and its arguments
/// in two more.
fn two_sums(first: &Value, second: &Value) -> Vec<Value> {
    let piece = |label: &Value, name: Value, args: &str| {
        let mut piece = json!({ "type": "function", "function": { "name": name, "arguments": args } });
        label.as_object().expect("labels").iter().for_each(|(name, value)| piece[name] = value.clone());
        json!([piece])
    };
    let call = |label: &Value, args: &str| {
        [("calculator".into(), ""), (json!(null), &args[..7]), (json!(""), &args[7..])]
            .map(|(name, args)| piece(label, name, args))
    };
    [call(first, SUM), call(second, PRODUCT)].concat()
}

#[test]
fn calls_are_told_apart_whichever_labels_the_server_omits() {
    let both = pairs(&[("calculator", SUM), ("calculator", PRODUCT)]);
    let labels = [
        (json!({ "index": 0, "id": "" }), json!({ "index": 0, "id": "" })),
        (json!({ "id": "" }), json!({ "id": "" })),
        (json!({}), json!({})),
        (json!({ "index": null, "id": null }), json!({ "index": null, "id": null })),
        (json!({ "index": 0, "id": "null" }), json!({ "index": 0, "id": "null" })),
        (json!({ "index": 0, "id": " " }), json!({ "index": 0, "id": " " })),
        (json!({ "index": -1, "id": 0 }), json!({ "index": -1, "id": 0 })),
        (json!({ "index": 0, "id": "a" }), json!({ "index": 0, "id": "b" })),
        (json!({ "id": "a" }), json!({ "id": "b" })),
        (json!({ "index": "0", "id": "" }), json!({ "index": "1", "id": "" })),
        (json!({ "index": 0.0 }), json!({ "index": 1.0 })),
        (json!({ "index": 0, "id": "same" }), json!({ "index": 1, "id": "same" })),
        (json!({ "index": 0, "id": "same" }), json!({ "index": 0, "id": "same" })),
        (json!({ "index": 0, "id": false }), json!({ "index": 0, "id": {} })),
    ];
    for (first, second) in labels {
        assert_eq!(called(&two_sums(&first, &second)), both, "{first} {second}");
    }
}

#[test]
fn whole_calls_are_told_apart_in_one_delta_and_in_several() {
    let call =
        |name: &str, args: &str| json!({ "index": 0, "id": "", "function": { "name": name, "arguments": args } });
    let (sum, product, clock) = (call("calculator", SUM), call("calculator", PRODUCT), call("clock", "{}"));
    let three = pairs(&[("calculator", SUM), ("calculator", PRODUCT), ("clock", "{}")]);
    assert_eq!(called(&[json!([sum, product, clock])]), three);
    assert_eq!(called(&[json!([sum]), json!(product), json!([clock])]), three);
    assert_eq!(called(&[json!([clock, clock])]), pairs(&[("clock", "{}"), ("clock", "{}")]));
    let bare = json!({ "function": { "name": "clock" } });
    assert_eq!(called(&[json!([bare, bare])]), pairs(&[("clock", "{}"), ("clock", "{}")]));
    // A repeated call with the same id is the same call.
    let named = json!({ "id": "a", "function": { "name": "clock", "arguments": "{}" } });
    assert_eq!(called(&[json!([named]), json!([named])]), pairs(&[("clock", "{}")]));
}

#[test]
fn pieces_of_a_call_are_joined_whichever_labels_the_server_repeats() {
    let sum = pairs(&[("calculator", SUM)]);
    let piece = |id: &str, name: &str, args: &str| json!([{ "index": 0, "id": id, "function": { "name": name, "arguments": args } }]);
    // The cases: the name and the id in every piece, a new id in every piece, a name in pieces, an id that arrives
    // late.
    assert_eq!(called(&[piece("a", "calculator", &SUM[..9]), piece("a", "calculator", &SUM[9..])]), sum);
    assert_eq!(called(&[piece("a", "calculator", &SUM[..9]), piece("b", "", &SUM[9..])]), sum);
    assert_eq!(called(&[piece("a", "calc", ""), piece("", "ulator", &SUM[..9]), piece("", "", &SUM[9..])]), sum);
    assert_eq!(
        called(&[piece("", "calculator", &SUM[..9]), piece("a", "", &SUM[9..]), piece("a", "calculator", "")]),
        sum
    );
    // The pieces are interleaved, by number and by id.
    let numbered = |index: i64, name: &str, args: &str| json!([{ "index": index, "function": { "name": name, "arguments": args } }]);
    let both = pairs(&[("calculator", SUM), ("calculator", PRODUCT)]);
    let begin = [numbered(3, "calculator", &SUM[..9]), numbered(5, "calculator", &PRODUCT[..9])];
    let end = [numbered(3, "", &SUM[9..]), numbered(5, "", &PRODUCT[9..])];
    assert_eq!(called(&[begin, end].concat()), both);
    let begin = [piece("a", "calculator", &SUM[..9]), piece("b", "calculator", &PRODUCT[..9])];
    let end = [piece("a", "", &SUM[9..]), piece("b", "", &PRODUCT[9..])];
    assert_eq!(called(&[begin, end].concat()), both);
}

#[test]
fn calls_that_cannot_be_told_apart_are_an_error_and_none_runs() {
    let call = |pieces: Value| json!({ "choices": [{ "delta": { "tool_calls": pieces } }] });
    let piece =
        |name: &str, args: &str| json!({ "index": 0, "id": "", "function": { "name": name, "arguments": args } });
    let expected = "cannot be understood: its tool calls cannot be told apart, so none is run";
    let begun = [call(json!([piece("calculator", "")])), call(json!([piece("calculator", "")]))];
    let ends = [call(json!([piece("", SUM)])), call(json!([piece("", PRODUCT)]))];
    fails_and_goes_on(chunks(&[begun, ends].concat()), expected);
    let unnamed = json!({ "index": 1, "function": { "arguments": SUM } });
    fails_and_goes_on(chunks(&[call(json!([piece("clock", "")])), call(json!([unnamed]))]), expected);
    let apart = json!([{ "function": { "arguments": &SUM[..9] } }, { "function": { "arguments": &PRODUCT[..9] } }]);
    let begun = json!([{ "function": { "name": "calculator" } }, { "function": { "name": "calculator" } }]);
    fails_and_goes_on(chunks(&[call(begun), call(apart)]), expected);
}

#[test]
fn half_a_call_does_not_run_and_the_model_gets_the_reason() {
    for args in ["{\"expression\": \"1", "{}{}", "[]", "5", "\"{}\"", "{\"a\": }"] {
        let function = json!({ "name": "clock", "arguments": args });
        let call = json!({ "choices": [{ "delta": { "tool_calls": [{ "id": "a", "function": function }] } }] });
        let (server, mut chat) = talk(vec![chunks(&[call]), words(&["Well."])], &[]);
        chat.type_line("what is it");
        chat.err.expect("[clock: failed: not run: the arguments are not ");
        chat.out.expect("Well.\n");
        assert!(chat.end().success());
        server.asked();
        let asked = server.asked();
        let (role, content) = asked.messages()[2];
        assert!(role == "tool" && content.starts_with("not run: the arguments are not"), "{content}");
    }
}

#[test]
fn a_call_without_arguments_is_a_call() {
    for args in [json!(null), json!(""), json!(" "), json!("null"), json!({}), json!(false), json!(0)] {
        let call = json!([{ "index": 0, "id": "a", "function": { "name": "clock", "arguments": args } }]);
        assert_eq!(called(&[call]), pairs(&[("clock", "{}")]), "{args}");
    }
    // This is the older form of a call.
    let call = json!({ "choices": [{ "delta": { "function_call": { "name": "clock", "arguments": "{}" } } }] });
    let (_server, mut chat) = talk(vec![chunks(&[call]), words(&["Well."])], &[]);
    chat.type_line("what is it");
    chat.err.expect("[clock: ");
    chat.out.expect("Well.\n");
    assert!(chat.end().success());
}

#[test]
fn an_empty_reason_to_stop_does_not_complete_a_call() {
    let function = json!({ "name": "clock", "arguments": "" });
    let call = json!({ "choices": [{ "delta": { "tool_calls": [{ "id": "a", "function": function }] }, "finish_reason": "" }] });
    let half = format!("data: {call}\n\n");
    fails_and_goes_on(raw(half), "network failure: the connection was cut in the middle of the reply\n");
}

#[test]
fn a_reason_to_stop_in_every_chunk_does_not_end_a_call() {
    let piece = |name: &str, args: &str| {
        let call = json!({ "index": 0, "id": "a", "function": { "name": name, "arguments": args } });
        json!({ "choices": [{ "delta": { "tool_calls": [call] }, "finish_reason": "tool_calls" }] })
    };
    let (_server, mut chat) =
        talk(vec![chunks(&[piece("calculator", &SUM[..9]), piece("", &SUM[9..])]), words(&["Two."])], &[]);
    chat.type_line("what is it");
    chat.err.expect("[calculator: 2]\n");
    chat.out.expect("Two.\n");
    assert!(chat.end().success());
}

#[test]
fn arguments_with_half_a_character_are_read() {
    let args = [r#"{"expression": "1 + 1", "why": "\ud83d"#, r#"\ude00\ud83d"}"#];
    let escaped = args.map(|args| args.replace('\\', "\\\\").replace('"', "\\\""));
    let piece = |name: &str, args: &str| {
        format!(
            r#"data: {{"choices": [{{"delta": {{"tool_calls": [{{"index": 0, "function": {{"name": "{name}", "arguments": "{args}"}}}}]}}}}]}}"#
        )
    };
    let stream = format!("{}\n\n{}\n\ndata: [DONE]\n\n", piece("calculator", &escaped[0]), piece("", &escaped[1]));
    let (_server, mut chat) = talk(vec![raw(stream), words(&["Two."])], &[]);
    chat.type_line("what is it");
    chat.err.expect("[calculator: 2]\n");
    chat.out.expect("Two.\n");
    assert!(chat.end().success());
}
