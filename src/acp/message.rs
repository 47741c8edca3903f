//! Classifies a line as a message of JSON-RPC 2.0, before its method is known.

use agent_client_protocol_schema::v1::{Error, RequestId};
use serde_json::{Map, Value};

/// A line of the client.
#[derive(Debug)]
pub(super) enum Incoming {
    Request {
        id: RequestId,
        method: String,
        params: Value,
    },
    Notification {
        method: String,
        params: Value,
    },
    /// The reply to a call of ours, or to none.
    Reply {
        id: RequestId,
        result: Result<Value, Error>,
    },
    /// A line that is answered with an error, although it may be no request.
    Malformed {
        id: RequestId,
        error: Error,
    },
    /// A blank line, or a reply without a usable id: there is nothing to answer.
    Ignored,
}

impl Incoming {
    pub(super) fn parse(line: &[u8]) -> Self {
        if line.trim_ascii().is_empty() {
            return Self::Ignored;
        }
        // Also refuses text that is not UTF-8, and values that are nested too deeply.
        let parsed = serde_json::from_slice(line).or_else(|error| match without_lone_surrogates(line) {
            Some(line) => serde_json::from_slice(&line),
            None => Err(error),
        });
        match parsed {
            Ok(Value::Object(message)) => Self::of(message),
            // Version 1 of the protocol has no batches.
            Ok(_) => malformed(RequestId::Null, "a message is one JSON object; batches are not supported"),
            Err(_) => Self::Malformed { id: RequestId::Null, error: Error::parse_error() },
        }
    }

    fn of(mut message: Map<String, Value>) -> Self {
        let has_id = message.contains_key("id");
        let id = message.remove("id").and_then(request_id);
        if !message.contains_key("method") && (message.contains_key("result") || message.contains_key("error")) {
            return id.map_or(Self::Ignored, |id| Self::Reply { id, result: result_of(message) });
        }
        let Some(id) = id.or((!has_id).then_some(RequestId::Null)) else {
            return malformed(RequestId::Null, "an id is null, an integer of 64 bits, or a string");
        };
        if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return malformed(id, "\"jsonrpc\" is not \"2.0\"");
        }
        let Some(Value::String(method)) = message.remove("method") else {
            return malformed(id, "\"method\" is not a string");
        };
        let params = match message.remove("params") {
            None | Some(Value::Null) => Value::Object(Map::new()),
            Some(params) => params,
        };
        match has_id {
            true => Self::Request { id, method, params },
            false => Self::Notification { method, params },
        }
    }
}

/// The line with U+FFFD in place of each escaped surrogate that is not one of a pair. `None` if it has no such escape.
///
/// Strings of JavaScript and Python may hold a lone surrogate, for example at the place where a text was cut off. Their
/// JSON has the escape. No string of Rust can hold it, so the parser refuses the line. An agent would wait for ever if
/// the line is the reply to its call.
fn without_lone_surrogates(line: &[u8]) -> Option<Vec<u8>> {
    let (mut kept, mut rest, mut is_changed) = (Vec::with_capacity(line.len()), line, false);
    while !rest.is_empty() {
        let (size, is_lone) = match (escaped_unit(rest), rest.get(6..).and_then(escaped_unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, false),
            (Some(0xd800..=0xdfff), _) => (6, true),
            // Another escape, such as an escaped backslash before a `u`, or no escape.
            _ if rest[0] == b'\\' => (2.min(rest.len()), false),
            _ => (1, false),
        };
        let (part, behind) = rest.split_at(size);
        kept.extend_from_slice(if is_lone { br"\ufffd" } else { part });
        (rest, is_changed) = (behind, is_changed | is_lone);
    }
    is_changed.then_some(kept)
}

/// The UTF-16 unit of the escape that the text begins with.
fn escaped_unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(br"\u")?.get(..4)?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u16::from_str_radix(digits, 16).ok()
}

/// The error of a line that is no valid request.
pub(super) fn malformed(id: RequestId, why: &str) -> Incoming {
    Incoming::Malformed { id, error: Error::invalid_request().data(Value::from(why)) }
}

/// An id in one of the three forms that the protocol allows.
fn request_id(id: Value) -> Option<RequestId> {
    match id {
        Value::Null => Some(RequestId::Null),
        Value::Number(number) => number.as_i64().map(RequestId::Number),
        Value::String(text) => Some(RequestId::Str(text)),
        _ => None,
    }
}

/// The result of a reply. One with both a result and an error is an error, so that it allows nothing.
fn result_of(mut reply: Map<String, Value>) -> Result<Value, Error> {
    match reply.remove("error") {
        Some(error) if !error.is_null() => {
            Err(serde_json::from_value(error).unwrap_or_else(|_| Error::internal_error()))
        }
        _ => reply.remove("result").ok_or_else(Error::internal_error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(line: &str) -> (RequestId, i32) {
        match Incoming::parse(line.as_bytes()) {
            Incoming::Malformed { id, error } => (id, error.code.into()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_a_message_is_an_error_with_the_id_where_there_is_one() {
        assert_eq!(error_of("{"), (RequestId::Null, -32700));
        assert_eq!(error_of("[]"), (RequestId::Null, -32600));
        assert_eq!(error_of(r#"[{"jsonrpc":"2.0","id":1,"method":"initialize"}]"#), (RequestId::Null, -32600));
        assert_eq!(error_of("3"), (RequestId::Null, -32600));
        assert_eq!(error_of(r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#), (RequestId::Null, -32600));
        assert_eq!(error_of(r#"{"jsonrpc":"2.0","id":1.5,"method":"x"}"#), (RequestId::Null, -32600));
        assert_eq!(error_of(r#"{"jsonrpc":"2.0","id":18446744073709551615,"method":"x"}"#).1, -32600);
        assert_eq!(error_of(r#"{"id":"a","method":"x"}"#), (RequestId::Str("a".into()), -32600));
        assert_eq!(error_of(r#"{"jsonrpc":"2.0","id":7}"#), (RequestId::Number(7), -32600));
        assert_eq!(error_of(r#"{"jsonrpc":"2.0","id":7,"method":8}"#), (RequestId::Number(7), -32600));
        assert!(matches!(Incoming::parse(b" \r"), Incoming::Ignored));
        assert!(matches!(Incoming::parse(br#"{"jsonrpc":"2.0","id":[],"result":1}"#), Incoming::Ignored));
    }

    #[test]
    fn null_params_are_empty_and_a_null_id_is_a_request() {
        let line = br#"{"jsonrpc":"2.0","id":null,"method":"session/list","params":null}"#;
        let Incoming::Request { id, params, .. } = Incoming::parse(line) else { panic!("no request") };
        assert_eq!((id, params), (RequestId::Null, Value::Object(Map::new())));
        let line = br#"{"jsonrpc":"2.0","method":"session/cancel"}"#;
        assert!(matches!(Incoming::parse(line), Incoming::Notification { .. }));
    }

    #[test]
    fn c69_a_lone_surrogate_counts_as_a_replacement_character() {
        let text = |line: &str| match Incoming::parse(line.as_bytes()) {
            Incoming::Reply { result, .. } => result.unwrap().as_str().unwrap().to_owned(),
            other => panic!("{other:?}"),
        };
        let reply = |text_in_json: &str| text(&format!(r#"{{"jsonrpc":"2.0","id":1,"result":"{text_in_json}"}}"#));
        assert_eq!(reply(r"cut \ud83d"), "cut \u{fffd}");
        assert_eq!(reply(r"\udE00\ud83d\ude00\uD83D\ud83d\ude00 \\ud83d \n"), "\u{fffd}😀\u{fffd}😀 \\ud83d \n");
        // Still no JSON.
        for broken in [r"\ud83d", r"\ud83", r"\u+d83", r"\"] {
            assert_eq!(error_of(&format!(r#"{{"id":1,"result":"{broken}"#)), (RequestId::Null, -32700));
        }
    }

    #[test]
    fn a_reply_with_an_error_is_an_error_whatever_else_it_has() {
        for line in [
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":-1,"message":"no"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":"no"}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":null}"#,
        ] {
            let Incoming::Reply { result, .. } = Incoming::parse(line.as_bytes()) else { panic!("{line}") };
            assert!(result.is_err(), "{line}");
        }
        let Incoming::Reply { result, .. } = Incoming::parse(br#"{"id":1,"result":null}"#) else { panic!("no reply") };
        assert_eq!(result, Ok(Value::Null));
    }
}
