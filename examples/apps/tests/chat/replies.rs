//! Replies of servers that omit fields, fill them with empty values, or use forms of their own.

use serde_json::{json, Value};

use crate::server::{chunks, closed, raw, status, text, then_silence, words, Act};
use crate::support::{fails_and_goes_on, is_understood, talk};

#[test]
fn a_body_that_is_no_reply_is_an_error_and_the_conversation_stays() {
    fails_and_goes_on(raw("data: {\"choices\": [\n\n"), "the reply cannot be understood: EOF while parsing");
    fails_and_goes_on(raw("nothing\nto see\n"), "cannot be understood: it is no stream of server-sent events\n");
    fails_and_goes_on(raw(&b"data: \xff\xfe\n\n"[..]), "the connection was cut in the middle of the reply\n");
    fails_and_goes_on(closed("data: Internal Server Error\n\n"), "understood: it says 'Internal Server Error'\n");
    fails_and_goes_on(closed("{\"detail\": \"Not Found\"}"), "cannot be understood: it says 'Not Found'\n");
    fails_and_goes_on(
        raw("data: ".to_owned() + &"x".repeat(2 << 20)),
        "cannot be understood: a line of it has no end\n",
    );
    let failed = "data: {\"error\": {\"message\": \"out of memory\"}}\n\n";
    fails_and_goes_on(raw(failed), "provider failure: out of memory\n");
    fails_and_goes_on(raw("error: {\"message\": \"no room\"}\n\n"), "provider failure: no room\n");
    fails_and_goes_on(raw("event: error\ndata: {\"message\": \"no time\"}\n\n"), "provider failure: no time\n");
    fails_and_goes_on(closed("{\"choices\": []}"), "cannot be understood: it holds no completion\n");
    fails_and_goes_on(closed("{}"), "cannot be understood: it holds no completion\n");
    let json = ("content-type", "application/json");
    fails_and_goes_on(status(200, &[json], r#"{"error": {"message": "no quota"}}"#), "provider failure: no quota\n");
    fails_and_goes_on(status(200, &[json], r#"[{"error": {"code": 400, "message": "bad"}}]"#), "bad request: bad\n");
    fails_and_goes_on(raw(""), "network failure: the connection was cut in the middle of the reply\n");
    fails_and_goes_on(Box::new(drop), "error: ");
}

#[test]
fn an_empty_reply_is_an_error_and_the_question_is_removed() {
    let filtered = json!({ "choices": [{ "delta": {}, "finish_reason": "content_filter" }] });
    let thought = json!({ "choices": [{ "delta": { "reasoning": "hm" }, "finish_reason": "length" }] });
    fails_and_goes_on(chunks(&[filtered]), "error: the model said nothing: a content filter stopped it\n");
    fails_and_goes_on(chunks(&[thought]), "error: the model said nothing: its token limit was used up\n");
    fails_and_goes_on(chunks(&[]), "error: the model said nothing\n");
}

#[test]
fn omitted_and_repeated_fields_are_understood() {
    let delta = |delta| json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] });
    let begin =
        json!({ "role": "assistant", "content": "", "tool_calls": null, "reasoning": null, "reasoning_content": null });
    let usage = json!({ "prompt_tokens": null, "completion_tokens": 3.0 });
    let end = json!({ "choices": [{ "delta": null, "finish_reason": "stop" }], "usage": usage });
    let odd = [
        delta(begin),
        json!({ "choices": null, "error": "" }),
        json!({ "choices": [{ "index": 1, "delta": { "content": "something else" } }] }),
        delta(json!({ "content": "Hel" })),
        delta(json!({ "content": [{ "type": "text", "text": "lo" }] })),
        delta(json!({ "refusal": "." })),
        end.clone(),
    ];
    is_understood(chunks(&odd));
    let hello = text("Hello.");
    // The stream has CRLF lines, a comment, an event in two lines, no space after a colon, and no end of its last line.
    let (first, second) = hello.split_at(hello.find(',').expect("a comma") + 1);
    is_understood(raw(format!(": hi\r\nid: 7\r\ndata:{first}\r\ndata: {second}\r\n\r\ndata: [DONE]")));
    // The reply is complete, although the connection is cut before `[DONE]`.
    is_understood(raw(format!("data: {hello}\n\ndata: {end}\n\n")));
    is_understood(raw(format!("\u{feff}data: {hello}\n\ndata:\n\ndata: [DONE] \n\n")));
}

/// The values with which servers fill unused fields.
const NOTHINGS: [fn() -> Value; 7] =
    [|| json!(null), || json!(""), || json!(" "), || json!(0), || json!(false), || json!("null"), || json!([])];

#[test]
fn a_field_with_an_empty_value_counts_as_absent() {
    for nothing in NOTHINGS.map(|nothing| nothing()) {
        let chunk = |delta: Value| {
            let choice = json!({ "index": nothing, "delta": delta, "finish_reason": nothing, "message": nothing });
            json!({ "choices": [choice], "usage": nothing, "error": nothing, "id": nothing, "object": nothing })
        };
        let delta = |content: &str| {
            let calls = json!([{ "index": nothing, "id": nothing, "type": nothing, "function": nothing }]);
            json!({ "role": nothing, "content": content, "tool_calls": calls, "function_call": nothing })
        };
        let act = chunks(&[
            json!({ "choices": nothing, "error": { "message": nothing, "code": nothing } }),
            json!({ "choices": [nothing] }),
            chunk(json!({ "role": nothing, "content": null, "refusal": null, "tool_calls": nothing })),
            chunk(nothing.clone()),
            chunk(delta("Hel")),
            chunk(delta("lo.")),
        ]);
        is_understood(act);
        // Such values do not end a reply, so a cut reply is not complete.
        let cut = closed(format!("data: {}\n\n", chunk(delta("Hello."))));
        let (_server, mut chat) = talk(vec![cut, words(&["Good."])], &["--attempts", "1"]);
        chat.type_line("hello");
        chat.out.expect("Hello.\n");
        chat.err.expect("the connection was cut in the middle of the reply\n");
        assert!(chat.end().success());
    }
}

#[test]
fn fields_that_are_not_needed_may_hold_anything() {
    let delta =
        |content: &str, rest: &str| format!(r#"{{"choices": [{{"delta": {{"content": "{content}"}}}}], {rest}}}"#);
    let deep = format!(r#""deep": {}{}"#, "[".repeat(500), "]".repeat(500));
    let odd = [
        delta("H", r#""usage": {"prompt_tokens": -3, "completion_tokens": "many", "total_tokens": 1.5e300}"#),
        delta("e", r#""usage": [1], "system_fingerprint": {"a": []}, "created": "now", "model": 7"#),
        delta("l", r#""logprobs": NaN, "created": -Infinity, "x": 1e999"#),
        delta("l", &deep),
        delta("o", r#""id": "\ud800", "\udfff": "\q", "id": 1"#),
        delta(".", r#""usage": {"prompt_tokens": 1e999}"#).replace("1e999", "1e999, \"nested\": {\"tab\": \"\t\"}"),
    ];
    let events: Vec<_> = odd.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
    is_understood(raw(events.concat() + "data: [DONE]\n\n"));
}

#[test]
fn usage_in_several_chunks_is_not_added_up() {
    let usage = json!({ "prompt_tokens": "5", "completion_tokens": 3.0 });
    let end = json!({ "choices": [{ "delta": { "content": "Hello." }, "finish_reason": "stop" }], "usage": usage });
    // Some servers send the usage with every chunk.
    let (_server, mut chat) = talk(vec![chunks(&[end])], &[]);
    chat.type_line("hello");
    chat.out.expect("Hello.\n");
    chat.type_line("/usage");
    chat.out.expect("30 tokens in, 12 out, 42 in all\n");
    assert!(chat.end().success());
}

/// Checks that these deltas are shown as `expected`. Each delta is the content of a JSON string.
#[track_caller]
fn is_shown(deltas: &[&[u8]], expected: &str) {
    let mut stream = Vec::new();
    for delta in deltas {
        let (begin, end) = (br#"data: {"choices": [{"delta": {"content": ""#, b"\"}}]}\n\n");
        stream.extend([&begin[..], delta, end].concat());
    }
    stream.extend(b"data: [DONE]\n\n");
    let (server, mut chat) = talk(vec![raw(stream), words(&["Good."])], &["--attempts", "1"]);
    chat.type_line("hello");
    chat.out.expect(&format!("{expected}\n"));
    chat.type_line("again");
    chat.out.expect("Good.\n");
    assert!(chat.end().success());
    server.asked();
    assert_eq!(server.asked().messages()[1], ("assistant", expected));
}

#[test]
fn halves_of_characters_are_joined_or_replaced() {
    is_shown(&[br"Hi \ud83d", br"\ude00!"], "Hi \u{1f600}!");
    is_shown(&[br"\ud83d", b"", br"\uDE00\ud83d\ude00"], "\u{1f600}\u{1f600}");
    is_shown(&[br"a\ud83d", b"b", br"\ude00c"], "a\u{fffd}b\u{fffd}c");
    is_shown(&[br"a\ud83d\ud83d\ude00", br"\ud83d"], "a\u{fffd}\u{1f600}\u{fffd}");
    is_shown(&[b"a\xf0\x9f", b"\x98\x80b"], "a\u{1f600}b");
    is_shown(&[b"a\xff", b"\xc3", b"\xc3\xa9"], "a\u{fffd}\u{fffd}\u{e9}");
    is_shown(&[br"a\u12", b"\tb"], "a\\u12\tb");
}

#[test]
fn content_is_read_in_parts_and_without_the_reasoning() {
    let delta = |content: Value| json!({ "choices": [{ "delta": { "content": content } }] });
    is_understood(chunks(&[
        delta(json!([{ "type": "thinking", "thinking": [{ "type": "text", "text": "Well" }] }])),
        delta(json!([{ "type": "text", "text": "H" }, "e", { "type": "text", "text": { "value": "l" } }])),
        delta(json!({ "type": "text", "text": "lo" })),
        delta(json!([{ "type": "image", "url": "x" }, null, 5, { "type": "text", "text": null }])),
        delta(json!([{ "type": "output_text", "text": "." }])),
    ]));
}

#[test]
fn lines_may_end_in_any_way() {
    let (hello, end) = (text("Hello."), r#"{"choices": [{"finish_reason": "stop"}]}"#);
    for newline in ["\n", "\r\n", "\r"] {
        let lines = ["\u{feff}: hi", "id: 7", "retry: 5", "event: message", &format!("data: {hello}"), "", ": hi", ""];
        let stream = [&lines[..], &[&format!("data: {end}"), "", "event: ping", "data: {}", "", "data: [DONE]", ""]];
        let stream: String = stream.concat().iter().map(|line| format!("{line}{newline}")).collect();
        is_understood(raw(stream));
    }
    // The heartbeats are not JSON, and no empty line separates the events.
    is_understood(raw(format!("data: ping\n\ndata: {hello}\ndata: {end}\ndata: [DONE]\n\n")));
    is_understood(raw(format!("event: ping\n\ndata: 1\n\ndata: \"x\"\n\ndata: {hello}\n\ndata: [DONE]\n\n")));
}

#[test]
fn a_bare_carriage_return_ends_an_event_at_once() {
    let (act, _open) = then_silence(format!("data: {}\r\r", text("Hello.")));
    let (_server, mut chat) = talk(vec![act], &[]);
    chat.type_line("hello");
    chat.out.expect("Hello.");
    chat.interrupt();
    chat.err.expect("interrupted\n");
    assert!(chat.end().success());
}

fn whole(content: &str) -> Value {
    json!({ "choices": [{ "index": 0, "message": { "role": "assistant", "content": content }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 2, "completion_tokens": 3 } })
}

#[test]
fn an_answer_in_one_document_is_read() {
    let document = |content_type: &str, text: String| status(200, &[("content-type", content_type)], &text);
    is_understood(document("application/json", whole("Hello.").to_string()));
    is_understood(document("application/json; charset=utf-8", format!("\u{feff}\r\n {:#}\n", whole("Hello."))));
    // The content type does not matter.
    is_understood(document("text/html", whole("Hello.").to_string()));
    is_understood(document("text/event-stream", format!("[{}]", whole("Hello."))));
    is_understood(document("application/json", format!("data: {}\n\ndata: [DONE]\n\n", text("Hello."))));
    // Here each chunk is a line.
    let end = json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }] });
    is_understood(closed(format!("{}\n{}\n{end}\n", text("Hel"), text("lo."))));
    // At its end, this stream repeats the whole reply.
    is_understood(chunks(&[json!({ "choices": [{ "delta": { "content": "Hello." } }] }), whole("Hello.")]));
    is_understood(chunks(&[whole("Hello.")]));
}

#[test]
fn a_document_with_calls_is_read_and_a_cut_one_is_retried() {
    let sum = json!({ "name": "calculator", "arguments": { "expression": "1 + 1" } });
    let clock = json!({ "name": "clock", "arguments": "" });
    let calls = json!([{ "function": sum }, { "function": clock }, { "function": clock }]);
    let message = json!({ "content": null, "tool_calls": calls });
    let document = json!({ "choices": [{ "message": message, "finish_reason": "tool_calls" }] }).to_string();
    let cut: Act = raw(document[..document.len() - 20].to_owned());
    let (server, mut chat) = talk(vec![cut, closed(document), words(&["Two."])], &[]);
    chat.type_line("what is it");
    chat.err.expect("the connection was cut in the middle of the reply; attempt 2 of 4");
    chat.err.expect("[calculator: 2]\n");
    chat.out.expect("Two.\n");
    assert!(chat.end().success());
    (0..2).for_each(|_| drop(server.asked()));
    assert_eq!(server.asked().messages().iter().filter(|(role, _)| *role == "tool").count(), 3);
}

#[test]
fn the_message_about_an_unreadable_body_names_its_kind() {
    let page = "<!DOCTYPE html>\n<html><head><title>Sign\n in</title></head></html>";
    let expected = "understood: it is a web page ('Sign in'), and not an answer of a model; check --url\n";
    fails_and_goes_on(status(200, &[("content-type", "text/html")], page), expected);
    let (endless, _open) = then_silence(page);
    fails_and_goes_on(endless, expected);
    fails_and_goes_on(raw("<html>\n<body>\n"), "it is a web page, and not an answer of a model");
    for encoding in ["gzip", "br", "deflate, gzip"] {
        let header = ("content-encoding", encoding);
        let expected = format!("it is compressed ({encoding}), which was not asked for\n");
        fails_and_goes_on(status(200, &[header], "\u{1f}"), &expected);
        let expected = format!("400 Bad Request (what it says is compressed: {encoding})\n");
        fails_and_goes_on(status(400, &[header], "\u{1f}"), &expected);
    }
    fails_and_goes_on(raw(&b"\x1f\x8b\x08"[..]), "it is compressed, which was not asked for\n");
    is_understood(status(200, &[("content-encoding", "identity")], &whole("Hello.").to_string()));
}

#[test]
fn an_endless_event_is_an_error() {
    let line = format!("data: {}\n", "x".repeat(1000));
    fails_and_goes_on(raw(line.repeat(2000)), "cannot be understood: an event of it has no end\n");
}
