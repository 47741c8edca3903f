//! The prompt, its commands, and its output.

use std::time::Duration;

use crate::folder::Folder;
use crate::server::{held, words, words_until_closed, Server};
use crate::support::{chat, talk};
use crate::terminal::Terminal;

#[test]
fn an_answer_is_shown_and_stays_in_the_conversation() {
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
fn all_questions_are_answered_at_the_end_of_the_input() {
    let (_server, mut chat) = talk(vec![words(&["One."]), words(&["Two."])], &[]);
    chat.type_line("first &");
    chat.type_line("/new other");
    chat.type_line("second &");
    assert!(chat.end().success());
    let answers = chat.out.rest();
    assert!(answers.contains("One.\n") && answers.contains("Two.\n"), "{answers}");
}

#[test]
fn several_conversations_are_answered_concurrently() {
    let (slow, answer) = held(words(&["slow"]));
    let (server, mut chat) = talk(vec![slow, words(&["quick"]), words(&["next"])], &[]);
    chat.type_line("think &");
    server.asked();
    // This conversation is busy, and another one is not.
    chat.type_line("and &");
    chat.err.expect("[queued, 1 waits]\n");
    chat.type_line("/new other");
    chat.type_line("now");
    chat.out.expect("quick\n");
    assert_eq!(server.asked().messages(), [("user", "now")]);
    chat.type_line("/list");
    let listed = chat.out.expect("tokens 1 queued\n* other            idle        2 messages       42 tokens\n");
    assert!(listed.starts_with("  main             running"), "{listed}");
    answer.send(()).expect("the server waits");
    chat.type_line("/wait");
    chat.out.expect("[main] slow\n");
    chat.out.expect("[main] next\n");
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
fn a_saved_conversation_continues_in_another_process() {
    let folder = Folder::new();
    let path = folder.text("history.json");
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
}

#[test]
fn the_text_of_a_model_does_not_control_the_terminal() {
    let (_server, mut chat) = talk(vec![words(&["\u{1b}[2Jgone\u{7}\u{9b}\u{202e}", "\tor not\r", "\n"])], &[]);
    chat.type_line("clear it");
    let before = chat.out.expect("[2Jgone\u{fffd}\u{fffd}\u{fffd}\tor not\n");
    assert_eq!(before, "\u{fffd}");
    assert!(chat.end().success());
    assert_eq!(chat.out.rest(), "");
}

#[test]
fn a_terminal_shows_progress() {
    let (silent, answer) = held(words(&["Done."]));
    let server = Server::start(vec![silent]);
    let Some(mut terminal) = Terminal::start(chat(&server.url).arg("wait")) else { return };
    terminal.program.out.expect("\r/ 0 s");
    answer.send(()).expect("the server waits");
    // The progress sign is removed before the answer is written.
    terminal.program.out.expect("\r\u{1b}[KDone.");
    terminal.expect_restored(0);
}
