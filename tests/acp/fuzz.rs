//! Random changes of valid lines: no panic, no hang, and no line without an answer that needs one.

use std::io::{self, Cursor, Read, Write};
use std::sync::{Arc, Mutex};

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::Value;
use turnwise::acp::serve;
use turnwise::testkit::scripted;
use turnwise::{SessionService, SessionSpec};

use crate::support::{config, run, service};

/// Valid lines, and what replies look like. `0197` stands for the id of a session.
const SEEDS: [&str; 14] = [
    r#"{"jsonrpc":"2.0","id":1,"method":"session/list","params":{"cwd":"/work","cursor":null}}"#,
    r#"{"jsonrpc":"2.0","id":"two","method":"session/list"}"#,
    r#"{"jsonrpc":"2.0","id":3,"method":"session/load","params":{"sessionId":"0197","cwd":"/","mcpServers":[]}}"#,
    r#"{"jsonrpc":"2.0","id":4,"method":"session/resume","params":{"sessionId":"0197","cwd":"/"}}"#,
    r#"{"jsonrpc":"2.0","id":5,"method":"session/prompt","params":{"sessionId":"0197","prompt":[{"type":"text","text":"hi"}]}}"#,
    r#"{"jsonrpc":"2.0","id":6,"method":"session/prompt","params":{"sessionId":"0197","prompt":[{"type":"image","data":"AA","mimeType":"image/png"}]}}"#,
    r#"{"jsonrpc":"2.0","id":7,"method":"session/close","params":{"sessionId":"0197"}}"#,
    r#"{"jsonrpc":"2.0","id":8,"method":"session/new","params":{"cwd":"work","mcpServers":[{"name":"a","command":"b","args":[],"env":[]}]}}"#,
    r#"{"jsonrpc":"2.0","id":9,"method":"initialize","params":{"protocolVersion":1,"clientCapabilities":{"fs":{"readTextFile":true}}}}"#,
    r#"{"jsonrpc":"2.0","method":"session/cancel","params":{"sessionId":"0197"}}"#,
    r#"{"jsonrpc":"2.0","method":"$/cancel_request","params":{"requestId":1}}"#,
    r#"{"jsonrpc":"2.0","id":1,"result":{"outcome":{"outcome":"selected","optionId":"allow_once"}}}"#,
    r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32601,"message":"Method not found"}}"#,
    r#"[{"jsonrpc":"2.0","id":1,"method":"session/list"}]"#,
];

/// Pieces that a change inserts.
const PIECES: [&[u8]; 16] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b",",
    b":",
    b"null",
    b"-1",
    b"1e999",
    b"\xff",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"\0",
    b"{\"a\":",
];

fn below(rng: &mut TestRng, limit: usize) -> usize {
    (rng.next_u64() % limit.max(1) as u64) as usize
}

/// A seed with some changes, without a newline.
fn mutated(rng: &mut TestRng, seeds: &[String]) -> Vec<u8> {
    let mut line = seeds[below(rng, seeds.len())].as_bytes().to_vec();
    for _ in 0..below(rng, 6) {
        let at = below(rng, line.len() + 1);
        match below(rng, 6) {
            0 if at < line.len() => drop(line.remove(at)),
            1 if at < line.len() => line[at] = rng.next_u64() as u8,
            2 => line.truncate(at),
            3 => {
                let other = seeds[below(rng, seeds.len())].as_bytes();
                line.truncate(at);
                line.extend_from_slice(&other[below(rng, other.len())..]);
            }
            4 => {
                let piece = PIECES[below(rng, PIECES.len())].repeat(1 + below(rng, 300));
                line.splice(at..at, piece);
            }
            _ => drop(line.splice(at..at, PIECES[below(rng, PIECES.len())].iter().copied())),
        }
    }
    line.retain(|byte| *byte != b'\n');
    line
}

/// An output that others can look at.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic in a write").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line with another escape in place of each surrogate. A lone one is no error, and none of them changes what a
/// message is.
fn without_surrogates(line: &[u8]) -> Vec<u8> {
    let mut line = line.to_vec();
    for at in 0..line.len().saturating_sub(5) {
        let is_surrogate =
            matches!(line[at..at + 4], [b'\\', b'u', b'd' | b'D', b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F'])
                && line[at + 4..at + 6].iter().all(u8::is_ascii_hexdigit);
        if is_surrogate {
            line[at + 2..at + 6].copy_from_slice(b"fffd");
        }
    }
    line
}

/// Whether a line has to be answered: a request with a usable id, or anything that is no message at all.
fn needs_answer(line: &[u8]) -> bool {
    if line.trim_ascii().is_empty() {
        return false;
    }
    let Ok(Value::Object(message)) = serde_json::from_slice(&without_surrogates(line)) else { return true };
    let is_reply = !message.contains_key("method") && (message.contains_key("result") || message.contains_key("error"));
    let is_notification = !message.contains_key("id")
        && message.get("jsonrpc") == Some(&Value::from("2.0"))
        && message.get("method").is_some_and(Value::is_string);
    !is_reply && !is_notification
}

#[test]
fn c69_random_lines_neither_panic_nor_hang_and_each_is_answered() {
    let count: usize =
        std::env::var("TURNWISE_ACP_LINES").ok().map_or(20_000, |count| count.parse().expect("a number of lines"));
    run(move || {
        // The seed is fixed: a failure repeats.
        let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let (mut sent, mut expected) = (0, 1);
        let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":1}}"#;
        while sent < count {
            let service = service(scripted());
            let session = service.open_session(SessionSpec::new()).expect("a session").to_string();
            let seeds = SEEDS.map(|seed| seed.replace("0197", &session));
            let mut input = format!("{initialize}\n").into_bytes();
            let batch = (count - sent).min(50_000);
            for _ in 0..batch {
                let line = mutated(&mut rng, &seeds);
                expected += usize::from(needs_answer(&line));
                input.extend_from_slice(&line);
                input.push(b'\n');
            }
            sent += batch;
            let output = Shared::default();
            let ended = serve(service, config(), Cursor::new(input).chain(io::empty()), output.clone());
            ended.expect("the connection ends well");
            let text = output.0.lock().expect("no panic in a write").clone();
            let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let mut answers = 0;
            for line in lines {
                let message: Value = serde_json::from_slice(line).expect("a line of the agent is JSON");
                answers += usize::from(message.get("method").is_none());
            }
            assert_eq!(answers, expected, "after {sent} lines");
            expected = 1;
        }
    });
}
