//! The prompt in a terminal: lines that are typed ahead, and the state after signals.

use crate::server::{held, then_silence, words, Act, Server};
use crate::support::chat;
use crate::terminal::Terminal;

const SIGNALS: [(&str, i32); 3] = [("-HUP", 129), ("-QUIT", 131), ("-TERM", 143)];

/// A server with these acts, and a chat at its prompt. `None` if the tool that makes terminals is missing.
fn talk(acts: Vec<Act>) -> Option<(Server, Terminal)> {
    let server = Server::start(acts);
    let mut terminal = Terminal::start(&chat(&server.url))?;
    terminal.program.out.expect("main> ");
    Some((server, terminal))
}

#[test]
fn lines_that_are_typed_during_an_answer_run_next() {
    let (slow, answer) = held(words(&["one"]));
    let Some((server, mut terminal)) = talk(vec![slow, words(&["two"]), words(&["three"])]) else { return };
    terminal.program.type_text("first\r");
    server.asked();
    terminal.program.type_text("second\r/usage\rthird\r\u{4}");
    // The terminal echoes the input that it has received, so all of it has arrived.
    terminal.program.out.expect("third");
    answer.send(()).expect("the server waits");
    for line in ["one\r\n", "two\r\n", "60 tokens in, 24 out, 84 in all\r\n", "three\r\n"] {
        terminal.program.out.expect(line);
    }
    // The Ctrl-D was typed ahead too.
    terminal.expect_restored(0);
    let asked = server.asked();
    assert_eq!(asked.messages(), [("user", "first"), ("assistant", "one"), ("user", "second")]);
}

#[test]
fn lines_that_are_typed_before_ctrl_c_survive_it() {
    let (silent, answer) = held(words(&["too late"]));
    let Some((server, mut terminal)) = talk(vec![silent, words(&["Hello."])]) else { return };
    terminal.program.type_text("first\r");
    server.asked();
    terminal.program.type_text("second\r");
    terminal.program.out.expect("second");
    terminal.signal("-INT");
    terminal.program.out.expect("interrupted\r\n");
    terminal.program.out.expect("Hello.\r\n");
    terminal.program.type_text("\u{4}");
    terminal.expect_restored(0);
    assert_eq!(server.asked().messages(), [("user", "second")]);
    drop(answer);
}

#[test]
fn a_signal_at_the_prompt_restores_the_terminal_and_ends_the_program() {
    for (name, code) in SIGNALS {
        let Some((_server, terminal)) = talk(Vec::new()) else { return };
        terminal.signal(name);
        terminal.expect_restored(code);
    }
}

#[test]
fn a_signal_during_an_answer_ends_the_program_too() {
    for (name, code) in SIGNALS {
        let (slow, _open) = then_silence(format!("data: {}\n\n", crate::server::text("It was ")));
        let Some((_server, mut terminal)) = talk(vec![slow]) else { return };
        terminal.program.type_text("a story\r");
        terminal.program.out.expect("It was ");
        terminal.signal(name);
        terminal.expect_restored(code);
    }
}
