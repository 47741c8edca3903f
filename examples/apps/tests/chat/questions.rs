//! Tools that change something: the question, its answers, and a turn that is stopped meanwhile.

use std::fs;
use std::path::Path;

use crate::folder::Folder;
use crate::server::{calls, held, words, Act, Server};
use crate::support::{chat, talk_in_terminal};
use crate::terminal::Terminal;

const WRITE: (&str, &str, &str) = ("w", "write_file", r##"{"path": "a/plan.md", "content": "# Plan\nsleep\n"}"##);
const MILK: (&str, &str, &str) = ("m", "note", r#"{"text": "milk"}"#);
const BREAD: (&str, &str, &str) = ("b", "note", r#"{"text": "bread"}"#);

/// The end of a question.
const KEYS: &str = "[y: once, a: always in this conversation, n: no]\r\n";
const WRITE_ASKS: &str =
    "[write_file asks to create the file 'a/plan.md' (2 lines, 13 bytes)]\r\n    # Plan\r\n    sleep\r\n";
const MILK_ASKS: &str = "[note asks to add to the file 'notes.md' (1 line, 7 bytes)]\r\n    - milk\r\n";
const BREAD_ASKS: &str = "[note asks to add to the file 'notes.md' (1 line, 8 bytes)]\r\n    - bread\r\n";

/// A chat in a terminal that has been asked to do it.
fn asked(acts: Vec<Act>, folder: &Folder) -> Option<(Server, Terminal)> {
    let (server, mut terminal) = talk_in_terminal(acts, &folder.path(""))?;
    terminal.program.type_text("do it\r");
    Some((server, terminal))
}

/// Waits for a question, and answers it.
#[track_caller]
fn answer(terminal: &mut Terminal, question: &str, line: &str) {
    terminal.program.out.expect(&format!("{question}{KEYS}answer> "));
    terminal.program.type_text(&format!("{line}\r"));
    terminal.program.out.expect(&format!("answer> {line}\r\n"));
}

/// Ends a chat at its prompt.
fn end(mut terminal: Terminal) {
    terminal.program.type_text("\u{4}");
    terminal.expect_restored(0);
}

fn exists(folder: &Folder, name: impl AsRef<Path>) -> bool {
    folder.path(name).exists()
}

#[test]
fn a_tool_runs_once_the_user_has_allowed_it() {
    let folder = Folder::new();
    let Some((server, mut terminal)) = asked(vec![calls(&[WRITE]), words(&["Done."])], &folder) else { return };
    terminal.program.out.expect(&format!("{WRITE_ASKS}{KEYS}answer> "));
    assert!(!exists(&folder, "a"));
    terminal.program.type_text("y\r");
    terminal.program.out.expect("[write_file: written to 'a/plan.md': 2 lines, 13 bytes]\r\n");
    terminal.program.out.expect("Done.\r\n");
    assert_eq!(fs::read_to_string(folder.path("a/plan.md")).expect("the file"), "# Plan\nsleep\n");
    end(terminal);
    server.asked();
    assert_eq!(server.asked().messages()[2], ("tool", "written to 'a/plan.md': 2 lines, 13 bytes"));
}

#[test]
fn calls_of_one_reply_are_asked_for_in_order() {
    let folder = Folder::new();
    let acts = vec![calls(&[MILK, WRITE, BREAD]), words(&["Done."])];
    let Some((server, mut terminal)) = asked(acts, &folder) else { return };
    answer(&mut terminal, MILK_ASKS, "y");
    answer(&mut terminal, WRITE_ASKS, "n");
    answer(&mut terminal, BREAD_ASKS, "n we have enough");
    terminal.program.out.expect("[note: failed: refused by the user: we have enough]\r\n");
    terminal.program.out.expect("Done.\r\n");
    end(terminal);
    server.asked();
    // Each result goes to the model, which goes on.
    let asked = server.asked();
    let results = [
        ("tool", "written to 'notes.md': 1 line, 7 bytes"),
        ("tool", "refused by the user"),
        ("tool", "refused by the user: we have enough"),
    ];
    assert_eq!(asked.messages()[2..], results);
    assert_eq!(folder.names(), ["notes.md"]);
}

#[test]
fn always_is_remembered_for_the_tool_and_the_conversation() {
    let folder = Folder::new();
    let acts = vec![calls(&[MILK, BREAD, WRITE]), words(&["Done."]), calls(&[BREAD]), words(&["Again."])];
    let Some((_server, mut terminal)) = asked(acts, &folder) else { return };
    answer(&mut terminal, MILK_ASKS, "a");
    terminal.program.out.expect("[note: written to 'notes.md': 1 line, 7 bytes]\r\n");
    terminal.program.out.expect("[note: written to 'notes.md': 1 line, 8 bytes]\r\n");
    // Another tool is another question.
    answer(&mut terminal, WRITE_ASKS, "n");
    terminal.program.out.expect("Done.\r\n");
    terminal.program.type_text("/new other\r");
    terminal.program.out.expect("other> ");
    terminal.program.type_text("do it again\r");
    answer(&mut terminal, BREAD_ASKS, "y");
    terminal.program.out.expect("Again.\r\n");
    end(terminal);
    assert_eq!(fs::read_to_string(folder.path("notes.md")).expect("the file"), "- milk\n- bread\n- bread\n");
}

#[test]
fn ctrl_c_during_a_question_stops_the_turn() {
    let folder = Folder::new();
    let acts = vec![calls(&[WRITE, MILK]), words(&["Hello."])];
    let Some((server, mut terminal)) = asked(acts, &folder) else { return };
    terminal.program.out.expect(&format!("{WRITE_ASKS}{KEYS}answer> "));
    terminal.signal("-INT");
    terminal.program.out.expect("interrupted\r\n");
    terminal.program.type_text("hello\r");
    terminal.program.out.expect("Hello.\r\n");
    end(terminal);
    assert_eq!(folder.names(), [""; 0]);
    server.asked();
    let asked = server.asked();
    let not_run = ("tool", "not run: interrupted");
    assert_eq!(asked.messages(), [("user", "do it"), ("assistant", ""), not_run, not_run, ("user", "hello")]);
}

#[test]
fn the_timeout_stops_a_turn_that_asks() {
    let folder = Folder::new();
    let server = Server::start(vec![calls(&[WRITE])]);
    let mut command = chat(&server.url);
    command.current_dir(folder.path("")).args(["--timeout", "0.3", "do it"]);
    let Some(mut terminal) = Terminal::start(&command) else { return };
    terminal.program.out.expect("stopped: that took too long (--timeout)\r\n");
    terminal.expect_restored(1);
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn a_line_that_was_begun_before_the_question_is_no_answer() {
    let folder = Folder::new();
    let (asks, reply) = held(calls(&[WRITE]));
    let acts = vec![asks, words(&["Done."]), words(&["Yes."])];
    let Some((server, mut terminal)) = asked(acts, &folder) else { return };
    server.asked();
    terminal.program.type_text("y");
    terminal.program.out.expect("next> y");
    reply.send(()).expect("the server waits");
    terminal.program.out.expect(&format!("{WRITE_ASKS}{KEYS}next> y"));
    terminal.program.type_text("\r");
    terminal.program.out.expect("[queued, 1 waits: y]\r\n");
    terminal.program.out.expect("answer> ");
    assert!(!exists(&folder, "a"));
    terminal.program.type_text("n\r");
    terminal.program.out.expect("Done.\r\n");
    terminal.program.out.expect("main> y\r\nYes.\r\n");
    end(terminal);
    assert!(!exists(&folder, "a"));
}

#[test]
fn a_line_that_is_no_answer_can_be_corrected() {
    let folder = Folder::new();
    let acts = vec![calls(&[WRITE]), words(&["Done."])];
    let Some((_server, mut terminal)) = asked(acts, &folder) else { return };
    terminal.program.out.expect(&format!("{WRITE_ASKS}{KEYS}answer> "));
    terminal.program.type_text("yes please\r");
    terminal.program.out.expect("[the answer is y, a, n, or n and the reason; Ctrl-U clears the line]\r\n");
    terminal.program.out.expect("answer> yes please");
    assert!(!exists(&folder, "a"));
    terminal.program.type_text("\u{17}\r");
    terminal.program.out.expect("[write_file: written to 'a/plan.md'");
    terminal.program.out.expect("Done.\r\n");
    end(terminal);
}

#[test]
fn a_single_question_asks_in_the_terminal_too() {
    let folder = Folder::new();
    let server = Server::start(vec![calls(&[WRITE]), words(&["Done."])]);
    let mut command = chat(&server.url);
    let Some(mut terminal) = Terminal::start(command.current_dir(folder.path("")).arg("do it")) else { return };
    answer(&mut terminal, WRITE_ASKS, "yes");
    terminal.program.out.expect("Done.\r\n");
    terminal.expect_restored(0);
    assert!(exists(&folder, "a/plan.md"));
}

#[test]
fn a_signal_during_a_question_restores_the_terminal() {
    let folder = Folder::new();
    let Some((_server, mut terminal)) = asked(vec![calls(&[WRITE])], &folder) else { return };
    terminal.program.out.expect(&format!("{WRITE_ASKS}{KEYS}answer> "));
    terminal.signal("-TERM");
    terminal.expect_restored(143);
    assert!(!exists(&folder, "a"));
}

#[test]
fn a_conversation_in_the_background_asks_too() {
    let folder = Folder::new();
    let acts = vec![calls(&[WRITE, MILK, BREAD]), words(&["Done."])];
    let Some((_server, mut terminal)) = talk_in_terminal(acts, &folder.path("")) else { return };
    terminal.program.type_text("do it &\r");
    // The question is shown before a prompt once it is there.
    while !terminal.program.out.expect("main> ").contains("[main] write_file asks to create") {
        terminal.program.type_text("\r");
    }
    terminal.program.type_text("/list\r");
    terminal.program.out.expect("* main             waiting ");
    terminal.program.type_text("/answer\r");
    terminal.program.out.expect(&format!("{WRITE_ASKS}{KEYS}"));
    terminal.program.type_text("/answer maybe\r");
    terminal.program.out.expect("error: the answer is y, a, n, or n and the reason\r\n");
    terminal.program.type_text("/answer y\r");
    // While a turn in the background is waited for, its questions are answered directly.
    terminal.program.type_text("/wait\r");
    answer(&mut terminal, MILK_ASKS, "n");
    answer(&mut terminal, BREAD_ASKS, "y");
    terminal.program.out.expect("[main] Done.\r\n");
    terminal.program.type_text("/answer y\r");
    terminal.program.out.expect("error: nothing is asked in this conversation\r\n");
    end(terminal);
    assert!(exists(&folder, "a/plan.md"));
    assert_eq!(fs::read_to_string(folder.path("notes.md")).expect("the file"), "- bread\n");
}

#[test]
fn a_turn_ahead_in_the_queue_asks_while_another_waits() {
    let folder = Folder::new();
    let acts = vec![calls(&[WRITE]), words(&["Done."]), words(&["Next."])];
    let Some((_server, mut terminal)) = talk_in_terminal(acts, &folder.path("")) else { return };
    terminal.program.type_text("do it &\r");
    terminal.program.type_text("and then\r");
    answer(&mut terminal, WRITE_ASKS, "y");
    terminal.program.out.expect("Next.\r\n");
    terminal.program.out.expect("[main] Done.\r\n");
    end(terminal);
    assert!(exists(&folder, "a/plan.md"));
}
