//! Lines that are typed while an answer is written, and the queue of a conversation.

use std::path::Path;
use std::time::Duration;

use crate::server::{held, words, words_until_closed, Act, Server};
use crate::support::{talk, talk_in_terminal};
use crate::terminal::Terminal;

/// How many questions may wait in a conversation.
const MOST: usize = 8;

/// A chat in a terminal with a question in front, which has arrived at the server.
fn asked(acts: Vec<Act>) -> Option<(Server, Terminal)> {
    let (server, mut terminal) = talk_in_terminal(acts, Path::new("."))?;
    terminal.program.type_text("first\r");
    server.asked();
    Some((server, terminal))
}

/// Types a line, and waits for this message.
#[track_caller]
fn type_line(terminal: &mut Terminal, line: &str, message: &str) {
    terminal.program.type_text(&format!("{line}\r"));
    terminal.program.out.expect(&format!("{message}\r\n"));
}

#[test]
fn lines_that_are_typed_during_an_answer_are_answered_next() {
    let (slow, answer) = held(words(&["one"]));
    let Some((server, mut terminal)) = asked(vec![slow, words(&["two"]), words(&["three"])]) else { return };
    type_line(&mut terminal, "second", "[queued, 1 waits: second]");
    type_line(&mut terminal, "third", "[queued, 2 wait: third]");
    type_line(&mut terminal, "/list", "0 messages        0 tokens 2 queued");
    answer.send(()).expect("the server waits");
    for line in ["one\r\n", "main> second\r\n", "two\r\n", "main> third\r\n", "three\r\n"] {
        terminal.program.out.expect(line);
    }
    terminal.program.type_text("\u{4}");
    terminal.expect_restored(0);
    assert_eq!(server.asked().messages(), [("user", "first"), ("assistant", "one"), ("user", "second")]);
    assert_eq!(server.asked().messages()[3..], [("assistant", "two"), ("user", "third")]);
}

#[test]
fn commands_that_are_typed_during_an_answer_run_after_it() {
    let (slow, answer) = held(words(&["one"]));
    let Some((server, mut terminal)) = asked(vec![slow, words(&["two"]), words(&["three"])]) else { return };
    type_line(&mut terminal, "second", "[queued, 1 waits: second]");
    type_line(&mut terminal, "/new other", "[after the answers: /new other]");
    // This question is for the other conversation.
    type_line(&mut terminal, "third", "[after the answers: third]");
    type_line(&mut terminal, "\u{4}", "[the program ends after the answers]");
    answer.send(()).expect("the server waits");
    for line in ["one\r\n", "two\r\n", "main> /new other\r\n", "other> third\r\n", "three\r\n"] {
        terminal.program.out.expect(line);
    }
    terminal.expect_restored(0);
    server.asked();
    assert_eq!(server.asked().messages(), [("user", "third")]);
}

#[test]
fn ctrl_c_stops_the_answer_and_the_queue_goes_on() {
    let (slow, closed) = words_until_closed(&["It was "]);
    let Some((server, mut terminal)) = asked(vec![slow, words(&["two"])]) else { return };
    terminal.program.out.expect("It was ");
    type_line(&mut terminal, "second", "[queued, 1 waits: second]");
    terminal.program.type_text("half");
    terminal.program.out.expect("next> half");
    terminal.signal("-INT");
    terminal.program.out.expect("interrupted\r\n");
    closed.recv_timeout(Duration::from_secs(60)).expect("the connection is closed");
    terminal.program.out.expect("two");
    assert_eq!(server.asked().messages(), [("user", "first"), ("assistant", "It was "), ("user", "second")]);
    // The line that was begun is in the prompt.
    terminal.program.out.expect("main> half");
    terminal.program.type_text("\u{15}\u{4}");
    terminal.expect_restored(0);
}

#[test]
fn questions_that_wait_are_withdrawn() {
    let (slow, answer) = held(words(&["one"]));
    let Some((server, mut terminal)) = asked(vec![slow, words(&["four"])]) else { return };
    type_line(&mut terminal, "/unqueue", "[nothing waits]");
    type_line(&mut terminal, "second", "[queued, 1 waits: second]");
    type_line(&mut terminal, "third", "[queued, 2 wait: third]");
    type_line(&mut terminal, "/show", "[after the answers: /show]");
    type_line(&mut terminal, "/unqueue", "[withdrawn: second]\r\n[withdrawn: third]\r\n[withdrawn: /show]");
    // Their places are free.
    type_line(&mut terminal, "fourth", "[queued, 1 waits: fourth]");
    answer.send(()).expect("the server waits");
    terminal.program.out.expect("one\r\n");
    terminal.program.out.expect("main> fourth\r\nfour\r\n");
    terminal.program.type_text("\u{4}");
    terminal.expect_restored(0);
    assert_eq!(server.asked().messages(), [("user", "first"), ("assistant", "one"), ("user", "fourth")]);
    assert!(!server.was_asked_more());
}

#[test]
fn a_full_queue_is_told_and_the_line_is_not_lost() {
    let (slow, answer) = held(words(&["one"]));
    let rest = (0..=MOST).map(|number| words(&[&format!("answer {number}")]));
    let Some((_server, mut terminal)) = asked([slow].into_iter().chain(rest).collect()) else { return };
    for number in 0..MOST {
        let verb = if number == 0 { "waits" } else { "wait" };
        let message = format!("[queued, {} {verb}: question {number}]", number + 1);
        type_line(&mut terminal, &format!("question {number}"), &message);
    }
    let message =
        "error: the queue is full, 8 questions wait; /unqueue withdraws them\r\n[after the answers: the last]";
    type_line(&mut terminal, "the last", message);
    answer.send(()).expect("the server waits");
    terminal.program.out.expect("one\r\n");
    for number in 0..MOST {
        terminal.program.out.expect(&format!("main> question {number}\r\nanswer {number}\r\n"));
    }
    terminal.program.out.expect("main> the last\r\n");
    terminal.program.out.expect("answer 8\r\n");
    terminal.program.type_text("\u{4}");
    terminal.expect_restored(0);
}

#[test]
fn a_question_behind_a_full_queue_stays_in_the_prompt() {
    let (slow, answer) = held(words(&["one"]));
    let acts = vec![slow, words(&["last"])];
    let Some((_server, mut terminal)) = talk_in_terminal(acts, Path::new(".")) else { return };
    terminal.program.type_text("first &\r");
    for number in 1..=MOST {
        let verb = if number == 1 { "waits" } else { "wait" };
        type_line(&mut terminal, &format!("question {number} &"), &format!("[queued, {number} {verb}]"));
    }
    terminal.program.type_text("the last\r");
    terminal.program.out.expect("error: the queue is full, 8 questions wait; /unqueue withdraws them\r\n");
    terminal.program.out.expect("main> the last");
    // Ctrl-U clears the line, and Ctrl-Y brings it back.
    terminal.program.type_text("\u{15}/unqueue\r");
    for _ in 1..=MOST {
        terminal.program.out.expect("[main] interrupted\r\n");
    }
    terminal.program.type_text("\u{19}\r");
    terminal.program.out.expect("[queued, 1 waits]\r\n");
    answer.send(()).expect("the server waits");
    terminal.program.out.expect("last\r\n[main] one\r\n");
    terminal.program.type_text("\u{4}");
    terminal.expect_restored(0);
}

#[test]
fn questions_from_a_pipe_wait_for_room_in_the_queue() {
    let (slow, answer) = held(words(&["one"]));
    let rest = (0..=MOST).map(|number| words(&[&format!("answer {number}.")]));
    let (_server, mut chat) = talk([slow].into_iter().chain(rest).collect(), &[]);
    chat.type_line("first &");
    for number in 0..MOST {
        chat.type_line(&format!("question {number} &"));
    }
    chat.err.expect("[queued, 8 wait]\n");
    chat.type_line("the last &");
    answer.send(()).expect("the server waits");
    assert!(chat.end().success());
    let answers = chat.out.rest();
    for number in 0..=MOST {
        assert!(answers.contains(&format!("[main] answer {number}.\n")), "{answers}");
    }
}

#[test]
fn a_question_that_waits_has_the_time_of_those_before_it() {
    let (silent, answer) = held(words(&["too late"]));
    let (_server, mut chat) = talk(vec![silent, words(&["Two."])], &["--timeout", "1"]);
    chat.type_line("first &");
    chat.type_line("second &");
    chat.type_line("/wait");
    chat.out.expect("[main] stopped: that took too long (--timeout)\n");
    chat.out.expect("[main] Two.\n");
    assert!(chat.end().success());
    drop(answer);
}
