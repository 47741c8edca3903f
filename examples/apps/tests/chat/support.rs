//! What the tests of all topics share.

use std::process::Command;

use crate::program::{self, Program};
use crate::server::{words, Act, Server};

/// The chat, with none of what the environment may say about endpoints.
pub(crate) fn chat(url: &str) -> Command {
    let mut command = program::command("chat");
    for name in ["OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"] {
        command.env_remove(name);
    }
    command.args(["--url", url, "--backoff", "0"]);
    command
}

/// A server that does this, and a prompt that talks to it.
pub(crate) fn talk(acts: Vec<Act>, args: &[&str]) -> (Server, Program) {
    let server = Server::start(acts);
    let program = Program::start(chat(&server.url).args(args));
    (server, program)
}

/// What a server says goes wrong, in one attempt; what the user reads; and afterwards the same conversation goes on.
#[track_caller]
pub(crate) fn fails_and_goes_on(act: Act, message: &str) {
    let (server, mut chat) = talk(vec![act, words(&["Good."])], &["--attempts", "1", "--model", "small"]);
    chat.type_line("first");
    chat.err.expect(message);
    chat.type_line("again");
    chat.out.expect("Good.\n");
    assert!(chat.end().success());
    server.asked();
    // Nothing came back for the first question: it is as if it had not been asked.
    assert_eq!(server.asked().messages(), [("user", "again")]);
}

/// What `act` answers to a question is read as "Hello.", whatever else the server says.
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
