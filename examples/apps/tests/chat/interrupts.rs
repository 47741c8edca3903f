//! Ctrl-C.

use std::time::Duration;

use crate::program::Program;
use crate::server::{held, status, words, words_until_closed, Server};
use crate::support::{chat, talk};

#[test]
fn ctrl_c_ends_a_pause_before_a_retry() {
    let (_server, mut chat) = talk(vec![status(503, &[("retry-after", "60")], ""), words(&["Hello."])], &[]);
    chat.type_line("now");
    chat.err.expect("attempt 2 of 4 in 60s]\n");
    chat.interrupt();
    chat.err.expect("interrupted\n");
    chat.type_line("again");
    chat.out.expect("Hello.\n");
    assert!(chat.end().success());
}

#[test]
fn ctrl_c_stops_a_reply_closes_the_connection_and_keeps_the_text() {
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
fn ctrl_c_stops_a_request_without_an_answer() {
    let (silent, answer) = held(words(&["too late"]));
    let (server, mut chat) = talk(vec![silent, words(&["Hello."])], &[]);
    chat.type_line("hello there");
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
fn ctrl_c_during_a_single_question_ends_the_program() {
    let (slow, closed) = words_until_closed(&["It was "]);
    let server = Server::start(vec![slow]);
    let mut chat = Program::start(chat(&server.url).arg("a story"));
    chat.out.expect("It was ");
    chat.interrupt();
    closed.recv_timeout(Duration::from_secs(60)).expect("the connection is closed");
    assert_eq!(chat.wait().code(), Some(130));
    assert_eq!(chat.err.rest(), "interrupted\n");
}
