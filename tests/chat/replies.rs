//! What servers leave out, fill with nothing, or write in their own way.

use serde_json::json;

use crate::server::{chunks, raw, status, text};
use crate::support::{fails_and_goes_on, is_understood};

#[test]
fn what_is_no_stream_of_events_is_a_message_and_the_conversation_stays() {
    fails_and_goes_on(raw("data: {\"choices\": [\n\n"), "the reply cannot be understood: EOF while parsing");
    fails_and_goes_on(raw("<html>\n<body>\n"), "cannot be understood: it is no stream of server-sent events\n");
    fails_and_goes_on(raw(&b"data: \xff\xfe\n\n"[..]), "cannot be understood: it is not UTF-8\n");
    fails_and_goes_on(
        raw("data: ".to_owned() + &"x".repeat(2 << 20)),
        "cannot be understood: a line of it has no end\n",
    );
    let failed = "data: {\"error\": {\"message\": \"out of memory\"}}\n\n";
    fails_and_goes_on(raw(failed), "provider failure: out of memory\n");
    fails_and_goes_on(raw("error: {\"message\": \"no room\"}\n\n"), "provider failure: no room\n");
    fails_and_goes_on(raw("event: error\ndata: {\"message\": \"no time\"}\n\n"), "provider failure: no time\n");
    let page = ("content-type", "text/html; charset=utf-8");
    fails_and_goes_on(
        status(200, &[page], "<html>"),
        "the answer is text/html; charset=utf-8, and no stream of events",
    );
    let json = ("content-type", "application/json");
    fails_and_goes_on(status(200, &[json], r#"{"error": {"message": "no quota"}}"#), "no stream of events: no quota\n");
    fails_and_goes_on(raw(""), "network failure: the connection was cut in the middle of the reply\n");
    fails_and_goes_on(Box::new(drop), "error: ");
}

#[test]
fn a_reply_without_anything_in_it_is_a_message_and_the_question_is_taken_back() {
    let filtered = json!({ "choices": [{ "delta": {}, "finish_reason": "content_filter" }] });
    let thought = json!({ "choices": [{ "delta": { "reasoning": "hm" }, "finish_reason": "length" }] });
    fails_and_goes_on(chunks(&[filtered]), "error: the model said nothing: a content filter stopped it\n");
    fails_and_goes_on(chunks(&[thought]), "error: the model said nothing: its token limit was used up\n");
    fails_and_goes_on(chunks(&[]), "error: the model said nothing\n");
}

#[test]
fn what_servers_leave_out_or_repeat_is_understood() {
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
    // Lines as on Windows, a comment, an event in two lines, no space after the colon, and no end of the last line.
    let (first, second) = hello.split_at(hello.find(',').expect("a comma") + 1);
    is_understood(raw(format!(": hi\r\nid: 7\r\ndata:{first}\r\ndata: {second}\r\n\r\ndata: [DONE]")));
    // Whole, although the connection is cut before anything says so.
    is_understood(raw(format!("data: {hello}\n\ndata: {end}\n\n")));
    is_understood(raw(format!("\u{feff}data: {hello}\n\ndata:\n\ndata: [DONE] \n\n")));
}
