//! Lines that are no valid requests.

use std::sync::{Mutex, Once};

use serde_json::{json, Value};
use turnwise::testkit::scripted;

use crate::support::{code_of, config, run, service, Client};

/// Sends a line that is no request, and returns the answer. Its id has to be null.
fn refused(client: &mut Client, line: &[u8]) -> i64 {
    client.write(line);
    let answer = client.next();
    assert_eq!(answer["id"], Value::Null, "{answer}");
    code_of(&answer)
}

#[test]
fn c69_a_line_that_is_no_request_is_answered_and_the_next_one_is_read() {
    run(|| {
        let mut client = Client::connect(service(scripted()), config());
        assert_eq!(refused(&mut client, b"{"), -32700);
        assert_eq!(refused(&mut client, b"not json"), -32700);
        assert_eq!(refused(&mut client, b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\xfe\"}"), -32700);
        assert_eq!(refused(&mut client, &[b'['; 100_000]), -32700);
        assert_eq!(refused(&mut client, br#"[{"jsonrpc":"2.0","id":1,"method":"session/list"}]"#), -32600);
        assert_eq!(refused(&mut client, b"[]"), -32600);
        assert_eq!(refused(&mut client, b"null"), -32600);
        assert_eq!(refused(&mut client, br#"{"jsonrpc":"2.0","id":{"a":1},"method":"session/list"}"#), -32600);
        client.write(b"");
        client.write(b" \r");
        assert!(client.ask("session/list", json!({})).is_ok());
    });
}

#[test]
fn c69_a_line_above_the_limit_is_skipped() {
    run(|| {
        let mut client = Client::connect(service(scripted()), config().max_line(1_000));
        let long =
            json!({ "jsonrpc": "2.0", "id": 9, "method": "session/list", "params": { "cwd": "x".repeat(2_000) } });
        assert_eq!(refused(&mut client, long.to_string().as_bytes()), -32700);
        assert!(client.ask("session/list", json!({})).is_ok());
    });
}

#[test]
fn c69_ids_come_back_as_they_were() {
    run(|| {
        let mut client = Client::connect(service(scripted()), config());
        for id in [json!(null), json!(0), json!(-7), json!(i64::MAX), json!(""), json!("a \"b\" 7")] {
            client.send(&json!({ "jsonrpc": "2.0", "id": id, "method": "session/list" }));
            let answer = client.next();
            assert!(answer["id"] == id && answer["result"].is_object(), "{id}: {answer}");
        }
    });
}

#[test]
fn c69_unknown_methods_and_wrong_params_are_errors_of_their_request() {
    run(|| {
        let mut client = Client::connect(service(scripted()), config());
        for method in ["nothing", "_extension", "session/set_mode", "session/fork", "logout"] {
            let params = json!({ "sessionId": "x", "modeId": "y" });
            assert_eq!(client.ask(method, params), Err(-32601), "{method}");
        }
        assert_eq!(client.ask("session/new", json!({ "cwd": 7 })), Err(-32602));
        assert_eq!(client.ask("session/new", json!([])), Err(-32602));
        assert_eq!(client.ask("session/prompt", json!({})), Err(-32602));
        assert_eq!(client.ask("authenticate", json!({ "methodId": "key" })), Err(-32602));
        // Notifications have no answer, whatever they are.
        client.notify("nothing", json!({}));
        client.notify("session/cancel", json!({ "sessionId": 7 }));
        client.notify("session/prompt", json!({}));
        // Nor have replies to requests that the agent has not sent.
        client.send(&json!({ "jsonrpc": "2.0", "id": 77, "result": {} }));
        client.send(&json!({ "jsonrpc": "2.0", "id": "x", "error": { "code": 1, "message": "m" } }));
        assert_eq!(client.ask("session/list", json!({})), Ok(json!({ "sessions": [] })));
    });
}

#[test]
fn c69_the_log_has_no_text_of_the_client() {
    struct Records(Mutex<String>);

    impl log::Log for Records {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            self.0.lock().expect("no panic in a logger").push_str(&format!("{}: {}\n", record.target(), record.args()));
        }

        fn flush(&self) {}
    }

    static RECORDS: Records = Records(Mutex::new(String::new()));
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        log::set_logger(&RECORDS).expect("the only logger");
        log::set_max_level(log::LevelFilter::Trace);
    });
    run(|| {
        let mut client = Client::connect(service(scripted()), config());
        let session = client.open();
        let prompt = client.prompt(&session, "xyzzy-prompt");
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
        assert_eq!(client.ask("xyzzy-method", json!({ "xyzzy-key": "xyzzy-value" })), Err(-32601));
        assert_eq!(client.ask("session/load", json!({ "sessionId": "xyzzy-id", "cwd": "/xyzzy" })), Err(-32002));
        client.write(b"xyzzy {");
        client.notify("xyzzy-notification", json!({}));
        client.leave().0.expect("the connection ends well");
        let records = RECORDS.0.lock().expect("the records").clone();
        assert!(records.contains("turnwise::acp"), "{records}");
        assert!(!records.contains("xyzzy"), "{records}");
    });
}
