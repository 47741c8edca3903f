//! When a reply is whole, when it is cut, and how long it may take.

use crate::server::{held, raw, text, words, Server};
use crate::support::{chat, talk};

#[test]
fn a_cut_reply_is_kept_as_far_as_it_came() {
    let cut = format!("data: {}\n\ndata: {}\n\ndata: {{\"cho", text("Once "), text("upon "));
    let (server, mut chat) = talk(vec![raw(cut), words(&["a time."])], &[]);
    chat.type_line("a story");
    chat.out.expect("Once upon \n");
    chat.err.expect("network failure: the connection was cut in the middle of the reply\n");
    chat.type_line("go on");
    chat.out.expect("a time.\n");
    assert!(chat.end().success());
    server.asked();
    let conversation = [("user", "a story"), ("assistant", "Once upon "), ("user", "go on")];
    assert_eq!(server.asked().messages(), conversation);
}

#[test]
fn an_answer_may_not_take_longer_than_it_may() {
    let (silent, answer) = held(words(&["too late"]));
    let server = Server::start(vec![silent]);
    let output = chat(&server.url).args(["--timeout", "0.05", "quick"]).output().expect("the chat runs");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "stopped: that took too long (--timeout)\n");
    drop(answer);
}
