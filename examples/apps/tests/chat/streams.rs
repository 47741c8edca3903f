//! Standard output that is closed or full during an answer.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::server::{held, words, words_until_closed, Server};
use crate::support::chat;

/// Starts the chat with a closed standard output.
fn start_unread(command: &mut Command) -> Child {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the chat starts");
    drop(child.stdout.take());
    child
}

#[test]
fn an_answer_to_a_closed_output_ends_the_program_without_a_message() {
    let (answer, go) = held(words(&["Hello."]));
    let server = Server::start(vec![answer]);
    let child = start_unread(chat(&server.url).arg("hello"));
    go.send(()).expect("the server waits");
    let output = child.wait_with_output().expect("the chat ends");
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn at_the_prompt_a_closed_output_closes_the_connection_too() {
    let (slow, closed) = words_until_closed(&["It was ", "a dark "]);
    let server = Server::start(vec![slow]);
    let mut child = start_unread(&mut chat(&server.url));
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(b"a story\n").expect("the chat reads");
    closed.recv_timeout(Duration::from_secs(60)).expect("the connection is closed");
    let output = child.wait_with_output().expect("the chat ends");
    assert_eq!(output.status.code(), Some(141));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors.lines().count(), 1, "{errors}");
    drop(input);
}

#[test]
#[cfg(target_os = "linux")]
fn an_answer_that_cannot_be_written_is_an_error() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device that is full");
    let server = Server::start(vec![words(&["Hello."])]);
    let output = chat(&server.url).arg("hello").stdout(full).stderr(Stdio::piped()).output().expect("the chat runs");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.starts_with("standard output: No space left on device"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}
