//! The shared parts of the chat's tests.

use std::path::Path;
use std::process::Command;

use crate::program::{self, Program};
use crate::server::{words, Act, Server};
use crate::terminal::Terminal;

/// The chat, without the variables of the environment that name endpoints.
pub(crate) fn chat(url: &str) -> Command {
    let mut command = program::command("chat");
    for name in ["OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"] {
        command.env_remove(name);
    }
    command.args(["--url", url, "--backoff", "0"]);
    command
}

/// A server with these acts, and a chat at its prompt.
pub(crate) fn talk(acts: Vec<Act>, args: &[&str]) -> (Server, Program) {
    let server = Server::start(acts);
    let program = Program::start(chat(&server.url).args(args));
    (server, program)
}

/// A server with these acts, and a chat at its prompt in a terminal, with this working directory. `None` if the tool that
/// makes terminals is missing.
pub(crate) fn talk_in_terminal(acts: Vec<Act>, folder: &Path) -> Option<(Server, Terminal)> {
    let server = Server::start(acts);
    let mut terminal = Terminal::start(chat(&server.url).current_dir(folder))?;
    terminal.program.out.expect("main> ");
    Some((server, terminal))
}

/// Checks that a question with one attempt fails with this message, and that the same conversation continues
/// afterwards.
#[track_caller]
pub(crate) fn fails_and_goes_on(act: Act, message: &str) {
    let (server, mut chat) = talk(vec![act, words(&["Good."])], &["--attempts", "1", "--model", "small"]);
    chat.type_line("first");
    chat.err.expect(message);
    chat.type_line("again");
    chat.out.expect("Good.\n");
    assert!(chat.end().success());
    server.asked();
    // The first question got no part of a reply, so it is not in the conversation.
    assert_eq!(server.asked().messages(), [("user", "again")]);
}

/// Checks that the chat reads the reply of `act` as "Hello.", without a message, and that the conversation continues.
#[track_caller]
pub(crate) fn is_understood(act: Act) {
    let (_server, mut chat) = talk(vec![act, words(&["Good."])], &["--attempts", "1"]);
    chat.type_line("hello");
    chat.out.expect("Hello.\n");
    chat.type_line("again");
    chat.out.expect("Good.\n");
    assert!(chat.end().success());
    assert_eq!(chat.err.rest().lines().count(), 1, "{}", chat.err.rest());
}
