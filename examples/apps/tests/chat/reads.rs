//! Events and characters that arrive in several reads. The network decides which bytes arrive in which read, so a test
//! server cannot control it.

use std::io::BufReader;

use crate::events::{Broken, Events};
use crate::json::{self, Joiner};

/// The data of all events of a body that is read in parts of this many bytes, and the error at its end, if any.
fn events(body: &[u8], part: usize) -> (Vec<String>, Option<Broken>) {
    let mut events = Events::new(BufReader::with_capacity(part, body));
    let mut data = Vec::new();
    loop {
        match events.next() {
            Ok(Some(event)) => data.push(json::marked(&event.data)),
            Ok(None) => return (data, None),
            Err(broken) => return (data, Some(broken)),
        }
    }
}

#[track_caller]
fn is_read(body: &str, expected: &[&str]) {
    for part in 1..=body.len() {
        let (data, broken) = events(body.as_bytes(), part);
        assert!(data == expected && broken.is_none(), "in parts of {part}: {data:?} {broken:?}");
    }
}

#[test]
fn lines_and_documents_may_arrive_in_any_reads() {
    for newline in ["\n", "\r\n", "\r"] {
        let lines =
            ["\u{feff}: hi", "event: x", "data: \u{1f600}", "data:two", "", "", "id: 1", "data: [DONE]", "", ""];
        is_read(&lines.join(newline), &["\u{1f600}\ntwo", "[DONE]"]);
    }
    // The line ends may differ, and the last line may have none.
    is_read("\r\n\rdata: a\r\r\ndata: b\n\rdata: c", &["a", "b", "c"]);
    is_read("\u{feff} \n{\"a\": \"}\\\"{\"}\n, [[], {}]", &["{\"a\": \"}\\\"{\"}", "[[], {}]"]);
}

#[test]
fn a_character_may_arrive_in_any_pieces() {
    let text = "a\u{e9}\u{20ac}\u{1f600}z";
    for (first, second) in (0..=text.len()).flat_map(|first| (first..=text.len()).map(move |second| (first, second))) {
        let bytes = text.as_bytes();
        let mut joiner = Joiner::default();
        let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
        let joined: String = pieces.iter().map(|piece| joiner.push(&json::marked(piece))).collect();
        assert_eq!(joined + &joiner.finish(), text, "{first} {second}");
    }
}
