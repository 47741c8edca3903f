//! Lines for the answer that is being written.

use std::path::Path;
use std::time::Duration;

use crate::server::{calls, held, status, words, words_until_closed};
use crate::support::{talk, talk_in_terminal};

/// A call of a tool that needs no permission.
const CLOCK: (&str, &str, &str) = ("c", "clock", "{}");

#[test]
fn an_answer_is_continued_with_a_line_that_arrived_meanwhile() {
    let (slow, answer) = held(words(&["One."]));
    let (server, mut chat) = talk(vec![slow, words(&["Two."])], &[]);
    chat.type_line("first &");
    server.asked();
    chat.type_line("!in metres");
    chat.err.expect("[sent to the answer: in metres]\n");
    answer.send(()).expect("the server waits");
    chat.type_line("/wait");
    chat.out.expect("[main] Two.\n");
    chat.err.expect("[taken in: in metres]\n");
    chat.type_line("/show");
    chat.out.expect("you: first\nassistant: One.\nyou: in metres\nassistant: Two.\n");
    assert!(chat.end().success());
    assert_eq!(server.asked().messages(), [("user", "first"), ("assistant", "One."), ("user", "in metres")]);
}

#[test]
fn lines_are_taken_in_between_two_calls_of_the_model() {
    let (slow, answer) = held(calls(&[CLOCK]));
    let (server, mut chat) = talk(vec![slow, words(&["Noon."])], &[]);
    chat.type_line("first &");
    server.asked();
    chat.type_line("!in metres");
    chat.type_line("! and in feet");
    chat.err.expect("[sent to the answer: and in feet]\n");
    answer.send(()).expect("the server waits");
    chat.type_line("/wait");
    chat.out.expect("[main] Noon.\n");
    chat.err.expect("[taken in: in metres]\n[taken in: and in feet]\n");
    assert!(chat.end().success());
    let asked = server.asked();
    let messages = asked.messages();
    assert_eq!(messages.len(), 4, "{messages:?}");
    assert_eq!((messages[2].0, messages[3]), ("tool", ("user", "in metres\nand in feet")));
}

#[test]
fn a_line_is_typed_while_the_answer_is_shown() {
    let (slow, answer) = held(words(&["One."]));
    let acts = vec![slow, words(&["Two."])];
    let Some((server, mut terminal)) = talk_in_terminal(acts, Path::new(".")) else { return };
    terminal.program.type_text("first\r");
    server.asked();
    terminal.program.type_text("!in metres\r");
    terminal.program.out.expect("[sent to the answer: in metres]\r\n");
    // Alt-Enter.
    terminal.program.type_text("and in feet\u{1b}\r");
    terminal.program.out.expect("[sent to the answer: and in feet]\r\n");
    terminal.program.type_text("half");
    terminal.program.out.expect("next> half");
    answer.send(()).expect("the server waits");
    let shown = ["One.", "[taken in: in metres]\r\n", "[taken in: and in feet]\r\n", "Two.", "main> half"];
    for shown in shown {
        terminal.program.out.expect(shown);
    }
    terminal.program.type_text("\u{15}\u{4}");
    terminal.expect_restored(0);
    let asked = server.asked();
    assert_eq!(asked.messages()[1..], [("assistant", "One."), ("user", "in metres\nand in feet")]);
}

#[test]
fn a_line_that_is_not_taken_in_is_back_in_the_prompt() {
    let (slow, closed) = words_until_closed(&["It was "]);
    let acts = vec![slow, words(&["Hello."])];
    let Some((server, mut terminal)) = talk_in_terminal(acts, Path::new(".")) else { return };
    terminal.program.type_text("first\r");
    terminal.program.out.expect("It was ");
    terminal.program.type_text("!in metres\r");
    terminal.program.out.expect("[sent to the answer: in metres]\r\n");
    terminal.signal("-INT");
    terminal.program.out.expect("[not taken in: in metres]\r\n");
    closed.recv_timeout(Duration::from_secs(60)).expect("the connection is closed");
    terminal.program.out.expect("interrupted\r\n");
    terminal.program.out.expect("main> in metres");
    terminal.program.type_text("\r");
    terminal.program.out.expect("Hello.\r\n");
    terminal.program.type_text("\u{4}");
    terminal.expect_restored(0);
    server.asked();
    assert_eq!(server.asked().messages()[1..], [("assistant", "It was "), ("user", "in metres")]);
}

#[test]
fn a_line_without_an_answer_to_take_it_stays_in_the_prompt() {
    let (slow, answer) = held(words(&["One."]));
    let acts = vec![slow, words(&["Two."]), words(&["Three."])];
    let Some((server, mut terminal)) = talk_in_terminal(acts, Path::new(".")) else { return };
    let error = "error: no answer is being written that could take the line in\r\n";
    terminal.program.type_text("!in metres\r");
    terminal.program.out.expect(error);
    terminal.program.out.expect("main> in metres");
    terminal.program.type_text("\u{15}first &\r");
    server.asked();
    // The answer in front is that of a question that waits.
    terminal.program.type_text("second\r");
    terminal.program.out.expect("[queued, 1 waits]\r\n");
    terminal.program.type_text("!in feet\r");
    terminal.program.out.expect(error);
    terminal.program.out.expect("next> in feet");
    answer.send(()).expect("the server waits");
    terminal.program.out.expect("Two.");
    terminal.program.out.expect("main> in feet");
    terminal.program.type_text("\u{15}\u{4}");
    terminal.expect_restored(0);
    assert_eq!(server.asked().messages(), [("user", "first"), ("assistant", "One."), ("user", "second")]);
}

#[test]
fn the_last_round_of_a_turn_takes_nothing_in() {
    let (slow, answer) = held(words(&["Enough."]));
    let acts = (1..10).map(|_| calls(&[CLOCK])).chain([slow]).collect();
    let (server, mut chat) = talk(acts, &[]);
    chat.type_line("first &");
    (1..=10).for_each(|_| drop(server.asked()));
    chat.type_line("!in metres");
    chat.err.expect("[sent to the answer: in metres]\n");
    answer.send(()).expect("the server waits");
    chat.type_line("/wait");
    chat.out.expect("[main] Enough.\n");
    chat.err.expect("[not taken in: in metres]\n");
    assert!(chat.end().success());
    assert!(!server.was_asked_more());
}

#[test]
fn a_line_whose_request_fails_is_removed_from_the_conversation() {
    let (slow, answer) = held(words(&["One."]));
    let acts = vec![slow, status(400, &[], "no"), words(&["Good."])];
    let (server, mut chat) = talk(acts, &[]);
    chat.type_line("first &");
    server.asked();
    chat.type_line("!in metres");
    chat.err.expect("[sent to the answer: in metres]\n");
    answer.send(()).expect("the server waits");
    chat.type_line("/wait");
    chat.out.expect("[main] error: ");
    chat.type_line("again");
    chat.out.expect("Good.\n");
    assert!(chat.end().success());
    assert_eq!(server.asked().messages()[2..], [("user", "in metres")]);
    assert_eq!(server.asked().messages(), [("user", "first"), ("assistant", "One."), ("user", "again")]);
}
