//! Retries, and the pauses before them.

use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::server::{raw, status, text, words};
use crate::support::{chat, talk};

#[test]
fn a_second_attempt_starts_with_an_empty_reply() {
    let stopped = json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }], "usage": { "prompt_tokens": 5 } });
    let failed = raw(format!("data: {stopped}\n\ndata: {{\"error\": \"busy\"}}\n\n"));
    let cut = raw(format!("data: {}\n\n", text("Half an ans")));
    let (_server, mut chat) = talk(vec![failed, cut], &[]);
    chat.type_line("go on");
    chat.err.expect("provider failure: busy; attempt 2 of 4");
    chat.out.expect("Half an ans\n");
    chat.err.expect("the connection was cut in the middle of the reply\n");
    chat.type_line("/usage");
    chat.out.expect("5 in all\n");
    assert!(chat.end().success());
}

#[test]
fn failures_that_may_pass_are_retried() {
    let acts =
        vec![status(429, &[("retry-after", "0")], "slower"), status(503, &[], "busy"), raw(""), words(&["At last."])];
    let (_server, mut chat) = talk(acts, &[]);
    chat.type_line("now");
    chat.err.expect("rate limited: 429 Too Many Requests: slower; attempt 2 of 4 in 0ns]\n");
    chat.err.expect("provider failure: 503 Service Unavailable: busy; attempt 3 of 4 in 0ns]\n");
    chat.err.expect("attempt 4 of 4 in 0ns]\n");
    chat.out.expect("At last.\n");
    assert!(chat.end().success());
}

#[test]
fn the_number_of_attempts_is_limited() {
    let acts = (0..4).map(|_| status(429, &[("retry-after", "0")], "")).collect();
    let (server, mut chat) = talk(acts, &[]);
    chat.type_line("now");
    chat.err.expect("error: ");
    assert!(chat.end().success());
    (0..4).for_each(|_| drop(server.asked()));
    assert!(!server.was_asked_more());
}

#[test]
fn a_missing_server_is_an_error() {
    // No server listens at this port. The system might give a free port to the server of another test.
    let output = chat("http://127.0.0.1:1/v1").arg("hello").output().expect("the chat runs");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("network failure: ") && errors.contains("refused"), "{errors}");
    assert_eq!(errors.lines().count(), 4, "three more attempts: {errors}");
}

/// The turn fails at once, and the message has the pause that the server asks for.
#[test]
fn a_pause_above_the_limit_fails_the_turn_at_once() {
    let year = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(400 * 24 * 60 * 60));
    let asked = [
        ("3600", "3600 s (60 min)"),
        ("61", "61 s"),
        ("86400.5", "86400 s (24 h)"),
        ("1e300", "more than a year"),
        ("inf", "more than a year"),
        ("99999999999999999999999999", "more than a year"),
        (&*year, "more than a year"),
    ];
    for (value, spoken) in asked {
        for code in [429, 503] {
            let acts = vec![status(code, &[("retry-after", value)], "slower"), words(&["Good."])];
            let (server, mut chat) = talk(acts, &[]);
            chat.type_line("now");
            chat.err
                .expect(&format!(": slower; the server asks for a pause of {spoken}, and the longest pause is 60 s\n"));
            chat.type_line("again");
            chat.out.expect("Good.\n");
            assert!(chat.end().success());
            server.asked();
            assert_eq!(server.asked().messages(), [("user", "again")], "{value}");
        }
    }
}

#[test]
fn an_invalid_pause_is_ignored() {
    let past = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    for value in ["-5", "-1e300", "NaN", "soon", "", "0x10", "5 s", "1,5", "Thu, 99 Foo 2020", &*past, "0", "-0"] {
        let acts = vec![status(429, &[("retry-after", value)], ""), words(&["Good."])];
        let (_server, mut chat) = talk(acts, &[]);
        chat.type_line("now");
        chat.err.expect("attempt 2 of 4 in 0ns]\n");
        chat.out.expect("Good.\n");
        assert!(chat.end().success());
    }
}

#[test]
fn the_pause_that_the_server_asks_for_is_shown_and_made() {
    for (name, value, shown) in [("retry-after", "0.02", "20ms"), ("retry-after-ms", "30", "30ms")] {
        let acts = vec![status(503, &[(name, value)], ""), words(&["Good."])];
        let (_server, mut chat) = talk(acts, &[]);
        chat.type_line("now");
        chat.err.expect(&format!("503 Service Unavailable; attempt 2 of 4 in {shown}]\n"));
        chat.out.expect("Good.\n");
        assert!(chat.end().success());
    }
}
