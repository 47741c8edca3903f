//! The notebook's prompt in a terminal: lines that are typed ahead, and the state after signals. The dashboard has
//! tests of its own.

use crate::program::command;
use crate::terminal::Terminal;

/// A notebook at its prompt.
fn notebook() -> Option<Terminal> {
    let mut terminal = Terminal::start(&command("notebook"))?;
    terminal.program.out.expect("main> ");
    Some(terminal)
}

#[test]
fn lines_that_are_typed_during_a_cell_run_next() {
    let Some(mut terminal) = notebook() else { return };
    terminal.program.type_text("print(\"bu\" + \"sy\"); loop {}\r");
    terminal.program.out.expect("busy\r\n");
    terminal.program.type_text("print(\"first \" + 1)\rprint(\"second \" + 2)\rprint(\"third \" + 3)\r\u{4}");
    // The terminal echoes the input that it has received, so all of it has arrived.
    terminal.program.out.expect("print(\"third \" + 3)");
    terminal.signal("-INT");
    for line in ["first 1\r\n", "second 2\r\n", "third 3\r\n"] {
        terminal.program.out.expect(line);
    }
    // The Ctrl-D was typed ahead too.
    terminal.expect_restored(0);
}

#[test]
fn all_pasted_lines_run() {
    let Some(mut terminal) = notebook() else { return };
    let lines: String = (0..200).map(|number| format!("print(\"line \" + {number})\r")).collect();
    terminal.program.type_text(&lines);
    for number in 0..200 {
        terminal.program.out.expect(&format!("line {number}\r\n"));
    }
    terminal.program.type_text("\u{4}");
    terminal.expect_restored(0);
}

#[test]
fn a_closed_output_at_the_prompt_ends_the_program_without_a_message() {
    let Some(mut terminal) = Terminal::start_in(
        "{ sh -c 'echo id=$$ > /dev/tty; exec \"$0\"' PROGRAM; echo code=$? > /dev/tty; } | true; stty -a; echo end",
        &command("notebook"),
    ) else {
        return;
    };
    let shown = terminal.program.out.expect("code=141\r\n");
    assert_eq!(shown, "");
    terminal.program.out.expect("end\r\n");
}

#[test]
fn the_name_in_the_prompt_does_not_control_the_terminal() {
    let Some(mut terminal) = notebook() else { return };
    // Ctrl-V inserts the next key literally.
    terminal.program.type_text(":open x\u{16}\u{1b}[31m\r");
    terminal.program.out.expect("x\u{fffd}[31m> ");
    terminal.program.type_text("\u{4}");
    terminal.expect_restored(0);
}

#[test]
fn a_signal_at_the_prompt_restores_the_terminal_and_ends_the_program() {
    for (name, code) in [("-HUP", 129), ("-QUIT", 131), ("-TERM", 143)] {
        let Some(terminal) = notebook() else { return };
        terminal.signal(name);
        terminal.expect_restored(code);
    }
}

#[test]
fn a_signal_during_a_cell_ends_the_program_too() {
    let Some(mut terminal) = notebook() else { return };
    terminal.program.type_text("print(\"bu\" + \"sy\"); loop {}\r");
    terminal.program.out.expect("busy\r\n");
    terminal.signal("-TERM");
    terminal.expect_restored(143);
}
