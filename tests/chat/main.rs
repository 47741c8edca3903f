//! The chat example, used as a person would, against a real server on the loopback device that answers well and badly.
#![cfg(all(feature = "serde", unix))]
#![allow(clippy::disallowed_types)] // The library's rule about channels is the library's.

#[path = "../examples/program.rs"]
mod program;
mod server;

use std::process::Command;
use std::time::Duration;

use program::Program;
use serde_json::json;
use server::{calls, chunks, held, raw, status, text, words, words_until_closed, Act, Server};

/// The chat, with none of what the environment may say about endpoints.
fn chat(url: &str) -> Command {
    let mut command = program::command("chat");
    for name in ["OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"] {
        command.env_remove(name);
    }
    command.args(["--url", url, "--backoff", "0"]);
    command
}

/// A server that does this, and a prompt that talks to it.
fn talk(acts: Vec<Act>, args: &[&str]) -> (Server, Program) {
    let server = Server::start(acts);
    let program = Program::start(chat(&server.url).args(args));
    (server, program)
}

#[test]
fn an_answer_appears_and_the_conversation_goes_on_with_it() {
    let (server, mut chat) = talk(vec![words(&["Hel", "lo", "."]), words(&["Well."])], &["--system", "Be brief."]);
    chat.type_line("hello");
    chat.out.expect("Hello.\n");
    chat.type_line("how are you");
    chat.out.expect("Well.\n");
    chat.type_line("/usage");
    chat.out.expect("60 tokens in, 24 out, 84 in all\n");
    assert!(chat.end().success());
    assert_eq!(chat.out.rest(), "");
    assert_eq!(server.asked().messages(), [("system", "Be brief."), ("user", "hello")]);
    let conversation = [("system", "Be brief."), ("user", "hello"), ("assistant", "Hello."), ("user", "how are you")];
    assert_eq!(server.asked().messages(), conversation);
}

#[test]
fn what_the_command_line_says_is_what_is_asked_for() {
    let server = Server::start(vec![words(&["yes"])]);
    let args = ["--key", "secret", "--model", "small", "--max-tokens", "7", "--no-tools", "is", "it", "so"];
    let output = chat(&server.url).args(args).output().expect("the chat runs");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "yes\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let asked = server.asked();
    assert_eq!((asked.path.as_str(), asked.key.as_deref()), ("/v1/chat/completions", Some("Bearer secret")));
    assert_eq!((&asked.body["model"], &asked.body["max_tokens"]), (&"small".into(), &7.into()));
    assert!(asked.body.get("tools").is_none());
    assert_eq!(asked.messages(), [("user", "is it so")]);
}

#[test]
fn the_environment_says_the_same() {
    let server = Server::start(vec![words(&["yes"])]);
    let mut command = program::command("chat");
    command.env("OPENAI_BASE_URL", &server.url).env("OPENAI_API_KEY", "secret").env("OPENAI_MODEL", "small");
    assert!(command.arg("so?").output().expect("the chat runs").status.success());
    let asked = server.asked();
    assert_eq!((asked.key.as_deref(), &asked.body["model"]), (Some("Bearer secret"), &"small".into()));
}

#[test]
fn bad_options_are_refused() {
    for args in [&["--nonsense"][..], &["--timeout", "soon"], &["--url", "example.org"], &["--attempts"]] {
        let output = program::command("chat").args(args).output().expect("the chat runs");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("chat: "), "{args:?}");
    }
}

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

/// What a server says goes wrong, in one attempt; what the user reads; and afterwards the same conversation goes on.
#[track_caller]
fn fails_and_goes_on(act: Act, message: &str) {
    let (server, mut chat) = talk(vec![act, words(&["Good."])], &["--attempts", "1", "--model", "small"]);
    chat.type_line("first");
    chat.err.expect(message);
    chat.type_line("again");
    chat.out.expect("Good.\n");
    assert!(chat.end().success());
    server.asked();
    // Nothing came back for the first question: it is as if it had not been asked.
    assert_eq!(server.asked().messages(), [("user", "again")]);
}

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

/// What `act` answers to a question is read as "Hello.", whatever else the server says.
#[track_caller]
fn is_understood(act: Act) {
    let (_server, mut chat) = talk(vec![act, words(&["Good."])], &["--attempts", "1"]);
    chat.type_line("hello");
    chat.out.expect("Hello.\n");
    chat.type_line("again");
    chat.out.expect("Good.\n");
    assert!(chat.end().success());
    assert_eq!(chat.err.rest().lines().count(), 1, "{}", chat.err.rest());
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

#[test]
fn a_second_attempt_begins_anew() {
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
fn proxies_of_the_environment_are_not_in_the_way() {
    let server = Server::start(vec![words(&["yes"])]);
    let mut command = chat(&server.url);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"] {
        command.env(name, "http://127.0.0.1:1");
    }
    assert!(command.arg("so?").output().expect("the chat runs").status.success());
}

#[test]
fn at_the_end_of_written_input_everything_is_answered() {
    let (_server, mut chat) = talk(vec![words(&["One."]), words(&["Two."])], &[]);
    chat.type_line("first &");
    chat.type_line("/new other");
    chat.type_line("second &");
    assert!(chat.end().success());
    let answers = chat.out.rest();
    assert!(answers.contains("One.\n") && answers.contains("Two.\n"), "{answers}");
}

#[test]
fn a_cut_reply_is_kept_as_far_as_it_came() {
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
fn what_may_succeed_later_is_tried_again() {
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
fn it_is_not_tried_for_ever() {
    let acts = (0..4).map(|_| status(429, &[("retry-after", "0")], "")).collect();
    let (server, mut chat) = talk(acts, &[]);
    chat.type_line("now");
    chat.err.expect("error: ");
    assert!(chat.end().success());
    (0..4).for_each(|_| drop(server.asked()));
    assert!(!server.was_asked_more());
}

#[test]
fn ctrl_c_ends_a_back_off() {
    let (_server, mut chat) = talk(vec![status(429, &[("retry-after", "3600")], ""), words(&["Hello."])], &[]);
    chat.type_line("now");
    // No server is obeyed for an hour.
    chat.err.expect("attempt 2 of 4 in 60s]\n");
    chat.interrupt();
    chat.err.expect("interrupted\n");
    chat.type_line("again");
    chat.out.expect("Hello.\n");
    assert!(chat.end().success());
}

#[test]
fn ctrl_c_stops_a_reply_closes_the_connection_and_keeps_what_came() {
    let (slow, closed) = words_until_closed(&["It was ", "a dark "]);
    let (server, mut chat) = talk(vec![slow, words(&["and stormy night."])], &[]);
    chat.type_line("a story");
    chat.out.expect("It was a dark ");
    chat.interrupt();
    chat.err.expect("interrupted\n");
    closed.recv_timeout(Duration::from_secs(60)).expect("the connection is closed");
    chat.type_line("go on");
    chat.out.expect("and stormy night.\n");
    chat.type_line("/show");
    chat.out.expect("you: a story\nassistant: It was a dark \nyou: go on\nassistant: and stormy night.\n");
    assert!(chat.end().success());
    server.asked();
    let conversation = [("user", "a story"), ("assistant", "It was a dark "), ("user", "go on")];
    assert_eq!(server.asked().messages(), conversation);
}

#[test]
fn ctrl_c_stops_a_request_that_nobody_answers() {
    let (silent, answer) = held(words(&["too late"]));
    let (server, mut chat) = talk(vec![silent, words(&["Hello."])], &[]);
    chat.type_line("anybody there");
    server.asked();
    chat.interrupt();
    chat.err.expect("interrupted\n");
    chat.type_line("hello");
    chat.out.expect("Hello.\n");
    assert_eq!(server.asked().messages(), [("user", "hello")]);
    assert!(chat.end().success());
    drop(answer);
}

#[test]
fn ctrl_c_at_one_question_is_the_end_of_the_program() {
    let (slow, closed) = words_until_closed(&["It was "]);
    let server = Server::start(vec![slow]);
    let mut chat = Program::start(chat(&server.url).arg("a story"));
    chat.out.expect("It was ");
    chat.interrupt();
    closed.recv_timeout(Duration::from_secs(60)).expect("the connection is closed");
    assert_eq!(chat.wait().code(), Some(130));
    assert_eq!(chat.err.rest(), "interrupted\n");
}

#[test]
fn an_answer_may_not_take_longer_than_it_may() {
    let (silent, answer) = held(words(&["too late"]));
    let server = Server::start(vec![silent]);
    let output = chat(&server.url).args(["--timeout", "0.05", "quick"]).output().expect("the chat runs");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "stopped: that took too long (--timeout)\n");
    drop(answer);
}

#[test]
fn a_server_that_is_not_there_is_a_message() {
    // Nobody listens at this port; one that the system gives out would soon be that of another test's server.
    let output = chat("http://127.0.0.1:1/v1").arg("hello").output().expect("the chat runs");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("network failure: ") && errors.contains("refused"), "{errors}");
    assert_eq!(errors.lines().count(), 4, "three attempts more: {errors}");
}

#[test]
fn several_conversations_are_answered_at_once() {
    let (slow, answer) = held(words(&["slow"]));
    let (server, mut chat) = talk(vec![slow, words(&["quick"])], &[]);
    chat.type_line("think &");
    server.asked();
    // The conversation is busy; another one is not.
    chat.type_line("and");
    chat.err.expect("that conversation is still being answered; /stop ends it\n");
    chat.type_line("/new other");
    chat.type_line("now");
    chat.out.expect("quick\n");
    assert_eq!(server.asked().messages(), [("user", "now")]);
    chat.type_line("/list");
    let listed = chat.out.expect("tokens\n* other            idle        2 messages       42 tokens\n");
    assert!(listed.starts_with("  main             running"), "{listed}");
    answer.send(()).expect("the server waits");
    chat.type_line("/wait");
    chat.out.expect("[main] slow\n");
    assert!(chat.end().success());
}

#[test]
fn a_conversation_in_the_background_is_stopped_and_archived() {
    let (slow, closed) = words_until_closed(&["It was "]);
    let (other, also_closed) = words_until_closed(&["It is "]);
    let (server, mut chat) = talk(vec![slow, other], &[]);
    chat.type_line("a story &");
    server.asked();
    chat.type_line("/stop");
    chat.type_line("/wait");
    chat.out.expect("[main] interrupted\n");
    closed.recv_timeout(Duration::from_secs(60)).expect("the connection is closed");
    chat.type_line("/stop");
    chat.err.expect("that conversation is not being answered\n");
    chat.type_line("again &");
    server.asked();
    chat.type_line("/new other");
    chat.type_line("/archive main");
    chat.type_line("/wait");
    chat.out.expect("[main] interrupted\n");
    also_closed.recv_timeout(Duration::from_secs(60)).expect("the connection is closed");
    chat.type_line("/switch main");
    chat.err.expect("there is no conversation 'main'");
    assert!(chat.end().success());
}

#[test]
fn a_conversation_is_saved_and_goes_on_elsewhere() {
    let file = std::env::temp_dir().join(format!("chat-{}.json", std::process::id()));
    let path = file.to_str().expect("a plain path");
    let (_server, mut chat) = talk(vec![words(&["Hello."])], &[]);
    chat.type_line("hello");
    chat.out.expect("Hello.\n");
    chat.type_line(&format!("/save {path}"));
    chat.out.expect("2 messages of 'main' are in ");
    assert!(chat.end().success());

    let (server, mut chat) = talk(vec![words(&["Ada."])], &[]);
    chat.type_line(&format!("/load {path} again"));
    chat.type_line("who am I");
    chat.out.expect("Ada.\n");
    chat.type_line("/load /nowhere/at/all x");
    chat.err.expect("error: /nowhere/at/all: ");
    assert!(chat.end().success());
    assert_eq!(server.asked().messages()[..2], [("user", "hello"), ("assistant", "Hello.")]);
    std::fs::remove_file(file).expect("the file was written");
}

#[test]
fn what_a_model_says_does_nothing_to_the_terminal() {
    let (_server, mut chat) = talk(vec![words(&["\u{1b}[2Jgone\u{7}", "\tor not\n"])], &[]);
    chat.type_line("clear it");
    chat.out.expect("[2Jgone\tor not\n");
    assert!(chat.end().success());
    assert_eq!(chat.out.rest(), "");
}

#[test]
fn a_terminal_shows_that_something_goes_on() {
    let has_terminals = Command::new("script").arg("--version").output().is_ok_and(|output| output.status.success());
    if !has_terminals {
        return;
    }
    let (silent, answer) = held(words(&["Done."]));
    let server = Server::start(vec![silent]);
    let chat = chat(&server.url)
        .arg("wait")
        .get_args()
        .fold(program::command("chat").get_program().to_string_lossy().into_owned(), |line, arg| {
            format!("{line} '{}'", arg.to_string_lossy())
        });
    let mut terminal = Program::start(Command::new("script").args(["-qec", &chat, "/dev/null"]));
    terminal.out.expect("\r/ 0 s");
    answer.send(()).expect("the server waits");
    // The sign is taken away before the answer is written.
    terminal.out.expect("\r\u{1b}[KDone.");
    assert!(terminal.end().success());
}
