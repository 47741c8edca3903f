//! Statuses other than 200, and parameters that a server refuses.

use std::sync::mpsc::channel;

use serde_json::json;

use crate::bare::{answer_early, Bare};
use crate::program::Program;
use crate::server::{raw, status, text, words};
use crate::support::{chat, fails_and_goes_on, talk};

#[test]
fn a_refusal_is_a_message_and_the_conversation_stays() {
    let json = r#"{"error": {"message": "that is not the key", "type": "auth"}}"#;
    fails_and_goes_on(status(401, &[], json), "not authorised: 401 Unauthorized: that is not the key\n");
    fails_and_goes_on(status(403, &[], ""), "not authorised: 403 Forbidden\n");
    fails_and_goes_on(status(404, &[], "no such\nmodel"), "unknown model 'small': 404 Not Found: no such\n");
    fails_and_goes_on(status(400, &[], r#"{"error": "too long"}"#), "bad request: 400 Bad Request: too long\n");
    fails_and_goes_on(status(429, &[], "slower"), "rate limited: 429 Too Many Requests: slower\n");
    fails_and_goes_on(status(500, &[], "<html>"), "provider failure: 500 Internal Server Error: <html>\n");
    fails_and_goes_on(status(504, &[], ""), "timed out: 504 Gateway Timeout\n");
}

/// The statuses that are retried, and the statuses that are not. The message has each of them.
#[test]
fn only_statuses_that_may_change_are_retried() {
    for code in [408, 409, 425, 429, 500, 502, 503, 504, 507, 520, 522, 524, 529] {
        let (_server, mut chat) = talk(vec![status(code, &[], "later"), words(&["Good."])], &["--attempts", "2"]);
        chat.type_line("hello");
        chat.err.expect(&format!("{code} "));
        chat.err.expect("attempt 2 of 2");
        chat.out.expect("Good.\n");
        assert!(chat.end().success());
    }
    let refused = [
        204, 205, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 410, 411, 413, 414, 415, 417,
        418, 421, 422, 423, 424, 426, 428, 431, 451, 499, 501, 505, 506, 508, 510, 511, 525, 526, 600, 999,
    ];
    for code in refused {
        let (server, mut chat) = talk(vec![status(code, &[], ""), words(&["Good."])], &["--attempts", "2"]);
        chat.type_line("hello");
        chat.err.expect("error: ");
        chat.err.expect(&format!("{code}"));
        chat.type_line("again");
        chat.out.expect("Good.\n");
        assert!(chat.end().success());
        server.asked();
        assert_eq!(server.asked().messages(), [("user", "again")], "{code}");
    }
}

#[test]
fn the_message_of_a_refusal_has_a_hint() {
    fails_and_goes_on(
        status(413, &[], "big"),
        "413 Payload Too Large: big (the conversation is too long for the server;",
    );
    let redirect = [("location", "http://127.0.0.1:1/elsewhere")];
    fails_and_goes_on(status(307, &redirect, ""), " to http://127.0.0.1:1/elsewhere (redirections are not followed");
    fails_and_goes_on(
        status(404, &[], "<html><title>Lost</title>"),
        "404 Not Found: Lost (there is no such model, or no",
    );
    fails_and_goes_on(status(400, &[], "it has no tools"), "it has no tools (--no-tools leaves the tools out)\n");
    fails_and_goes_on(status(422, &[], r#"{"detail": [{"msg": "odd"}]}"#), "422 Unprocessable Entity: ");
    fails_and_goes_on(status(204, &[], ""), "204 No Content (the answer is empty)\n");
    let quota = r#"{"error": {"message": "pay", "code": "insufficient_quota"}}"#;
    fails_and_goes_on(status(429, &[], quota), "error: http://");
}

#[test]
fn a_success_that_is_not_200_is_a_success() {
    for code in [201, 202, 203] {
        let (_server, mut chat) =
            talk(vec![status(code, &[], &format!("data: {}\n\ndata: [DONE]\n\n", text("Good.")))], &[]);
        chat.type_line("hello");
        chat.out.expect("Good.\n");
        assert!(chat.end().success());
    }
}

#[test]
fn an_error_in_a_stream_is_retried_by_its_status() {
    let error = |error: &str| raw(format!("data: {{\"error\": {error}}}\n\n"));
    for retried in [r#"{"message": "later", "code": 503}"#, r#"{"message": "later", "code": "429"}"#, r#""later""#] {
        let (_server, mut chat) = talk(vec![error(retried), words(&["Good."])], &[]);
        chat.type_line("hello");
        chat.err.expect(": later; attempt 2 of 4");
        chat.out.expect("Good.\n");
        assert!(chat.end().success());
    }
    let refused = [
        r#"{"message": "never", "code": 400}"#,
        r#"{"message": "never", "code": 7, "status": 413}"#,
        r#"{"message": "never", "type": "invalid_request_error", "code": null}"#,
        r#"{"message": "never", "code": "insufficient_quota"}"#,
    ];
    for refused in refused {
        let (server, mut chat) = talk(vec![error(refused)], &[]);
        chat.type_line("hello");
        chat.err.expect(": never\n");
        assert!(chat.end().success());
        server.asked();
        assert!(!server.was_asked_more(), "{refused}");
    }
}

#[test]
fn a_refusal_whose_body_does_not_end_is_reported() {
    let (open, is_open) = channel();
    let refusal = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 100\r\n\r\n{\"error\": \"no key\"}";
    let server = Bare::start(vec![answer_early(refusal, is_open)]);
    let output = chat(&server.url).arg("hello").output().expect("the chat runs");
    drop(open);
    server.end();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.ends_with("not authorised: 401 Unauthorized: no key\n"), "{errors}");
}

/// A question that does not fit into the socket buffers of the system.
fn long_question() -> String {
    "x".repeat(16 << 20)
}

const TOO_LONG: &str = "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 6\r\n\r\nno way";

#[test]
fn an_answer_before_the_end_of_the_request_is_used() {
    let (open, is_open) = channel();
    let (_, closed) = channel();
    // The connection is reset, or it stays open and no more of the request is read.
    for (early, open) in [(answer_early(TOO_LONG, closed), None), (answer_early(TOO_LONG, is_open), Some(open))] {
        let server = Bare::start(vec![early]);
        let mut chat = Program::start(&mut chat(&server.url));
        chat.type_line(&long_question());
        chat.err.expect("413 Payload Too Large: no way (the conversation is too long for the server; /new");
        drop(open);
        server.end();
        assert!(chat.end().success());
        assert!(!chat.err.rest().contains("attempt"), "{}", chat.err.rest());
    }
}

/// Checks that a refused parameter is in neither the repeated request nor later ones.
#[track_caller]
fn is_left_out(refusals: &[(u16, &str)], is_accepted: fn(&serde_json::Value) -> bool) {
    let refuse = refusals.iter().map(|(code, said)| status(*code, &[], said));
    let acts = refuse.chain((0..3).map(|_| words(&["Good."]))).collect();
    let (server, mut chat) = talk(acts, &["--max-tokens", "7", "--attempts", "1"]);
    chat.type_line("hello");
    chat.out.expect("Good.\n");
    chat.type_line("again");
    chat.out.expect("Good.\n");
    // Other conversations have the same server.
    chat.type_line("/new other");
    chat.type_line("hello");
    chat.out.expect("Good.\n");
    assert!(chat.end().success());
    for _ in refusals {
        assert!(!is_accepted(&server.asked().body));
    }
    (0..3).for_each(|_| assert!(is_accepted(&server.asked().body)));
}

#[test]
fn a_refused_parameter_is_omitted_or_renamed_from_then_on() {
    let has_no_options = |body: &serde_json::Value| body.get("stream_options").is_none() && body["max_tokens"] == 7;
    let options = r#"{"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "no"}]}"#;
    is_left_out(&[(422, options)], has_no_options);
    is_left_out(&[(400, r#"{"error": "Unknown field: Stream_Options"}"#)], has_no_options);
    let renamed = |body: &serde_json::Value| {
        body.get("max_tokens").is_none() && body["max_completion_tokens"] == 7 && body.get("stream_options").is_some()
    };
    let limit = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.";
    is_left_out(&[(400, &json!({ "error": { "message": limit, "param": "max_tokens" } }).to_string())], renamed);
    is_left_out(&[(400, "max_tokens is not supported")], renamed);
    let both = |body: &serde_json::Value| body.get("stream_options").is_none() && body["max_completion_tokens"] == 7;
    is_left_out(&[(400, "unknown: stream_options"), (422, limit)], both);
}

#[test]
fn a_parameter_is_omitted_once_and_only_if_the_server_names_it() {
    let options = "stream_options: not permitted";
    let (server, mut chat) = talk(vec![status(400, &[], options), status(400, &[], options), words(&["Good."])], &[]);
    chat.type_line("hello");
    chat.err.expect("bad request: 400 Bad Request: stream_options: not permitted\n");
    // A change that the server refuses too is not remembered.
    chat.type_line("again");
    chat.out.expect("Good.\n");
    assert!(chat.end().success());
    let has_options = |body: &serde_json::Value| body.get("stream_options").is_some();
    assert_eq!([0; 3].map(|_| has_options(&server.asked().body)), [true, false, true]);
    // The parameter also stays if its value is too high, or with another status.
    let refusals = [(400, "max_tokens is too large: this model takes at most 5"), (403, options), (400, "odd")];
    for (code, said) in refusals {
        let (server, mut chat) = talk(vec![status(code, &[], said)], &["--max-tokens", "7"]);
        chat.type_line("hello");
        chat.err.expect(said);
        assert!(chat.end().success());
        server.asked();
        assert!(!server.was_asked_more(), "{said}");
    }
}
