//! The command line, the environment, and the address of an endpoint.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::program;
use crate::server::{status, words, Server};
use crate::support::chat;

#[test]
fn the_options_of_the_command_line_are_in_the_request() {
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
fn the_environment_sets_the_same_options() {
    let server = Server::start(vec![words(&["yes"])]);
    let mut command = program::command("chat");
    command.env("OPENAI_BASE_URL", &server.url).env("OPENAI_API_KEY", "secret").env("OPENAI_MODEL", "small");
    assert!(command.arg("so?").output().expect("the chat runs").status.success());
    let asked = server.asked();
    assert_eq!((asked.key.as_deref(), &asked.body["model"]), (Some("Bearer secret"), &"small".into()));
}

#[test]
fn a_variable_that_is_not_utf8_is_refused_where_it_is_used() {
    let bad = OsStr::from_bytes(b"secret\xff");
    for name in ["OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"] {
        let mut command = chat("http://127.0.0.1:1");
        let output = program::command("chat").env(name, bad).arg("so?").output().expect("the chat runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {errors}");
        assert!(errors.starts_with(&format!("chat: the environment variable {name} is not UTF-8\n")), "{errors}");
        assert!(!errors.contains("secret"), "{errors}");
        // An option of the command line has priority over its variable.
        let output = command.env(name, bad).args(["--key", "k", "--model", "m", "--attempts", "1", "so?"]).output();
        assert_eq!(output.expect("the chat runs").status.code(), Some(1), "{name}");
    }
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
fn proxies_of_the_environment_are_ignored() {
    let server = Server::start(vec![words(&["yes"])]);
    let mut command = chat(&server.url);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"] {
        command.env(name, "http://127.0.0.1:1");
    }
    assert!(command.arg("so?").output().expect("the chat runs").status.success());
}

#[test]
fn the_address_may_be_written_in_several_ways() {
    let plain = "/v1/chat/completions";
    let forms = [
        ("", plain),
        ("/", plain),
        ("///", plain),
        ("/chat/completions", plain),
        ("/chat/completions/", plain),
        ("?", plain),
        ("?api-version=2024-10-21", "/v1/chat/completions?api-version=2024-10-21"),
        ("/?a=b&c=/d/", "/v1/chat/completions?a=b&c=/d/"),
        ("/chat/completions?a=b", "/v1/chat/completions?a=b"),
        ("/chat/completions/?a=%20b?", "/v1/chat/completions?a=%20b?"),
        (" \n", plain),
    ];
    for (rest, path) in forms {
        let server = Server::start(vec![words(&["yes"])]);
        let output = chat(&format!("{}{rest}", server.url)).arg("so?").output().expect("the chat runs");
        assert!(output.status.success(), "{rest}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(server.asked().path, path);
    }
    let server = Server::start(vec![words(&["yes"])]);
    let loud = server.url.replace("http://", "HTTP://");
    let root = loud.strip_suffix("/v1").expect("a path");
    assert!(chat(&format!("{root}?a=b")).arg("so?").output().expect("the chat runs").status.success());
    assert_eq!(server.asked().path, "/chat/completions?a=b");
}

#[test]
fn an_invalid_address_is_refused() {
    let wrong = [
        ("http://host/v1#part", "it has a fragment ('#')"),
        ("http://host/v1?a=b#part", "it has a fragment ('#')"),
        ("http://user:secret@host/v1", "it names a user"),
        ("ftp://host/v1", "neither with 'http://' nor with 'https://'"),
        ("http://", "is not the URL of an endpoint"),
        ("http://:80/v1", "is not the URL of an endpoint"),
        ("http://host:", "it names no server, or no port"),
        ("http://host:99999/v1", "is not the URL of an endpoint"),
        ("http://a b/v1", "is not the URL of an endpoint"),
        ("http://host/v1?a b", "is not the URL of an endpoint"),
        ("", "is not the URL of an endpoint"),
    ];
    for (url, why) in wrong {
        let output = chat(url).arg("so?").output().expect("the chat runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{url}");
        assert!(errors.contains(why) && !errors.contains("secret"), "{url}: {errors}");
    }
}

#[test]
fn the_query_of_an_address_is_not_shown() {
    let server = Server::start(vec![status(401, &[], "no")]);
    let output = chat(&format!("{}?key=secret", server.url)).arg("so?").output().expect("the chat runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("not authorised") && !errors.contains("secret"), "{errors}");
    assert_eq!(server.asked().path, "/v1/chat/completions?key=secret");
}
