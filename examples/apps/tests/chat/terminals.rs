//! The state of the terminal after signals.

use std::path::Path;

use crate::server::then_silence;
use crate::support::talk_in_terminal;

const SIGNALS: [(&str, i32); 3] = [("-HUP", 129), ("-QUIT", 131), ("-TERM", 143)];

#[test]
fn a_signal_at_the_prompt_restores_the_terminal_and_ends_the_program() {
    for (name, code) in SIGNALS {
        let Some((_server, terminal)) = talk_in_terminal(Vec::new(), Path::new(".")) else { return };
        terminal.signal(name);
        terminal.expect_restored(code);
    }
}

#[test]
fn a_signal_during_an_answer_ends_the_program_too() {
    for (name, code) in SIGNALS {
        let (slow, _open) = then_silence(format!("data: {}\n\n", crate::server::text("It was ")));
        let Some((_server, mut terminal)) = talk_in_terminal(vec![slow], Path::new(".")) else { return };
        terminal.program.type_text("a story\r");
        terminal.program.out.expect("It was ");
        terminal.signal(name);
        terminal.expect_restored(code);
    }
}
