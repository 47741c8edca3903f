//! The end of a reply: when it is complete, when it is cut, and how long it may take.

use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::json;

use crate::bare::{answer_early, Bare};
use crate::server::{closed, flood, held, raw, text, then_heartbeats, then_silence, words, Server};
use crate::support::{chat, is_understood, talk};

#[test]
fn a_cut_reply_is_kept_as_far_as_it_has_arrived() {
    let cut = format!("data: {}\n\ndata: {}\n\ndata: {{\"cho", text("Once "), text("upon "));
    let (server, mut chat) = talk(vec![raw(cut), words(&["a time."])], &[]);
    chat.type_line("a story");
    chat.out.expect("Once upon \n");
    chat.err.expect("network failure: the connection was cut in the middle of the reply\n");
    chat.type_line("go on");
    chat.out.expect("a time.\n");
    assert!(chat.end().success());
    server.asked();
    let conversation = [("user", "a story"), ("assistant", "Once upon "), ("user", "go on")];
    assert_eq!(server.asked().messages(), conversation);
}

#[test]
fn the_timeout_stops_an_answer() {
    let (silent, answer) = held(words(&["too late"]));
    let server = Server::start(vec![silent]);
    let output = chat(&server.url).args(["--timeout", "0.05", "quick"]).output().expect("the chat runs");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "stopped: that took too long (--timeout)\n");
    drop(answer);
}

fn finished(content: &str, reason: &str) -> String {
    let choice = json!({ "delta": { "content": content }, "finish_reason": reason });
    format!("data: {}\n\n", json!({ "choices": [choice] }))
}

#[test]
fn odd_data_after_a_complete_answer_is_ignored() {
    let hello = finished("Hello.", "stop");
    let odd = [
        "",
        "data: {\"choi",
        "data: {\"choices\": [}\n\n",
        "data: \u{1f}\u{0}\n\n",
        "<html>\n\n",
        "data: {\"error\": {\"message\": \"too late\"}}\n\n",
        "event: error\ndata: too late\n\n",
        "error: too late\n\n",
        "data: {\"choices\": [{\"delta\": {\"content\": \"\"}, \"finish_reason\": null}]}\n\n",
        &"x".repeat(2 << 20),
    ];
    for odd in odd {
        is_understood(raw(format!("{hello}{odd}")));
        is_understood(closed(format!("{hello}{odd}")));
    }
}

#[test]
fn a_complete_answer_is_shown_although_the_server_does_not_end_it() {
    let hello = finished("Hello.", "stop");
    // The server sends heartbeats for longer than the grace period, and the chat still ends long before its timeout.
    let (alive, is_closed) = then_heartbeats(hello.clone());
    is_understood(alive);
    is_closed.recv_timeout(Duration::from_secs(60)).expect("the connection is closed");
    let (silent, _open) = then_silence(hello.clone());
    is_understood(silent);
    let document = json!({ "choices": [{ "message": { "content": "Hello." }, "finish_reason": "stop" }] });
    let (silent, _also_open) = then_silence(document.to_string());
    is_understood(silent);
    let (flood, is_closed) = flood(hello);
    is_understood(flood);
    is_closed.recv_timeout(Duration::from_secs(60)).expect("the connection is closed");
}

#[test]
fn a_complete_answer_is_shown_although_the_connection_is_reset() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let (_, closed) = channel();
    let server = Bare::start(vec![answer_early(format!("{head}{}", finished("Hello.", "stop")), closed)]);
    let output = chat(&server.url).args(["--attempts", "1", "hello"]).output().expect("the chat runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Hello.\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    server.end();
}

#[test]
fn usage_after_the_reason_to_stop_is_counted() {
    let usage = json!({ "choices": [], "usage": { "prompt_tokens": 5, "completion_tokens": 2 } });
    let (act, _open) = then_silence(format!("{}data: {usage}\n\n", finished("Hello.", "stop")));
    let (_server, mut chat) = talk(vec![act], &[]);
    chat.type_line("hello");
    chat.out.expect("Hello.\n");
    chat.type_line("/usage");
    chat.out.expect("5 tokens in, 2 out, 7 in all\n");
    assert!(chat.end().success());
}

#[test]
fn calls_run_although_the_server_does_not_end_its_answer() {
    let call = json!({ "id": "a", "function": { "name": "clock", "arguments": "{}" } });
    let chunk = json!({ "choices": [{ "delta": { "tool_calls": [call] }, "finish_reason": "tool_calls" }] });
    let (act, _is_closed) = then_heartbeats(format!("data: {chunk}\n\n"));
    let (_server, mut chat) = talk(vec![act, words(&["Late."])], &[]);
    chat.type_line("what time is it");
    chat.err.expect("[clock: ");
    chat.out.expect("Late.\n");
    assert!(chat.end().success());
}

#[test]
fn a_reason_to_stop_in_every_chunk_does_not_end_the_reply() {
    let stream =
        [finished("He", "stop"), finished("l", "stop"), finished("l", "stop"), finished("o.", "stop")].concat();
    is_understood(closed(stream.clone()));
    is_understood(raw(format!("{stream}data: [DONE]\n\n")));
    // Without the end of the stream the reply is cut.
    let (_server, mut chat) = talk(vec![raw(stream)], &["--attempts", "1"]);
    chat.type_line("hello");
    chat.out.expect("Hello.\n");
    chat.err.expect("the connection was cut in the middle of the reply\n");
    assert!(chat.end().success());
}

#[test]
fn a_reply_that_the_server_has_stopped_is_not_complete() {
    let (_server, mut chat) = talk(vec![raw(finished("Half an ans", "error"))], &["--attempts", "1"]);
    chat.type_line("hello");
    chat.out.expect("Half an ans\n");
    chat.err.expect("provider failure: the server has stopped the model (error)\n");
    assert!(chat.end().success());
}

#[test]
fn an_answer_without_data_times_out() {
    let expected = "timed out: nothing of an answer has come for 50ms (--idle)";
    let empty = json!({ "choices": [{ "delta": { "role": "assistant", "content": "" }, "finish_reason": null }] });
    let acts = [
        then_heartbeats("").0,
        then_heartbeats(format!("data: {empty}\n\n")).0,
        flood(": ping\n\n").0,
        flood(format!("data: {empty}\n\n")).0,
    ];
    for act in acts {
        let server = Server::start(vec![act]);
        let args = ["--idle", "0.05", "--attempts", "1", "hello"];
        let output = chat(&server.url).args(args).output().expect("the chat runs");
        assert_eq!(output.status.code(), Some(1));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(expected), "{errors}");
    }
    // The same holds before the head of an answer, and the request is retried.
    let (silent, answer) = held(words(&["too late"]));
    let (_server, mut chat) = talk(vec![silent, words(&["Hello."])], &["--idle", "0.5"]);
    chat.type_line("hello");
    chat.err.expect("nothing of an answer has come for 500ms (--idle); attempt 2 of 4");
    chat.out.expect("Hello.\n");
    assert!(chat.end().success());
    drop(answer);
}

#[test]
fn heartbeats_do_not_extend_the_timeout() {
    let (act, is_closed) = then_heartbeats(format!("data: {}\n\n", text("Once ")));
    let server = Server::start(vec![act]);
    let output = chat(&server.url).args(["--timeout", "0.3", "hello"]).output().expect("the chat runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Once \n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "stopped: that took too long (--timeout)\n");
    is_closed.recv_timeout(Duration::from_secs(60)).expect("the connection is closed");
}
