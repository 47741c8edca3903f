//! The command line, the environment, and the address of an endpoint.

use crate::program;
use crate::server::{words, Server};
use crate::support::chat;

#[test]
fn what_the_command_line_says_is_what_is_asked_for() {
    let server = Server::start(vec![words(&["yes"])]);
    let args = ["--key", "secret", "--model", "small", "--max-tokens", "7", "--no-tools", "is", "it", "so"];
    let output = chat(&server.url).args(args).output().expect("the chat runs");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "yes\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let asked = server.asked();
    assert_eq!((asked.path.as_str(), asked.key.as_deref()), ("/v1/chat/completions", Some("Bearer secret")));
    assert_eq!((&asked.body["model"], &asked.body["max_tokens"]), (&"small".into(), &7.into()));
    assert!(asked.body.get("tools").is_none());
    assert_eq!(asked.messages(), [("user", "is it so")]);
}

#[test]
fn the_environment_says_the_same() {
    let server = Server::start(vec![words(&["yes"])]);
    let mut command = program::command("chat");
    command.env("OPENAI_BASE_URL", &server.url).env("OPENAI_API_KEY", "secret").env("OPENAI_MODEL", "small");
    assert!(command.arg("so?").output().expect("the chat runs").status.success());
    let asked = server.asked();
    assert_eq!((asked.key.as_deref(), &asked.body["model"]), (Some("Bearer secret"), &"small".into()));
}

#[test]
fn bad_options_are_refused() {
    for args in [&["--nonsense"][..], &["--timeout", "soon"], &["--url", "example.org"], &["--attempts"]] {
        let output = program::command("chat").args(args).output().expect("the chat runs");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("chat: "), "{args:?}");
    }
}

#[test]
fn proxies_of_the_environment_are_not_in_the_way() {
    let server = Server::start(vec![words(&["yes"])]);
    let mut command = chat(&server.url);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"] {
        command.env(name, "http://127.0.0.1:1");
    }
    assert!(command.arg("so?").output().expect("the chat runs").status.success());
}
