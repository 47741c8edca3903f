//! JSON as servers write it. Strings, numbers and nesting that serde_json refuses are replaced, so that the rest of the
//! reply can be read.
//!
//! A lone surrogate escape or a byte that is not UTF-8 is half a character, and no Rust text. It becomes a *mark*: a
//! character of a private range. The [`Joiner`] joins the two halves of a character that arrived in two pieces. The
//! range is the end of the last private plane. A mark that a model writes itself becomes U+FFFD.

use serde_json::Value;

/// Values that are nested deeper are replaced by null. No part of a reply is nested that deep. serde_json refuses a
/// document at a depth of 128.
const DEEPEST: usize = 64;
/// The mark of a byte that is not UTF-8 is this code plus the byte.
const BYTE_MARKS: u32 = 0x10_f700;
/// The mark of the surrogate U+D800. The marks of the other surrogates follow it.
const SURROGATE_MARKS: u32 = 0x10_f800;

/// The text of these bytes, with marks in place of bytes that are not UTF-8.
pub(crate) fn marked(mut bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    loop {
        let error = match std::str::from_utf8(bytes) {
            Ok(rest) => return text + rest,
            Err(error) => error,
        };
        let (valid, rest) = bytes.split_at(error.valid_up_to());
        let (bad, rest) = rest.split_at(error.error_len().unwrap_or(rest.len()));
        text.push_str(&String::from_utf8_lossy(valid));
        text.extend(bad.iter().map(|byte| mark(BYTE_MARKS + u32::from(*byte))));
        bytes = rest;
    }
}

/// The values in a text, which follow each other. Their strings may have marks.
pub(crate) fn values(text: &str) -> Result<Vec<Value>, serde_json::Error> {
    serde_json::Deserializer::from_str(&Mender::mend(text, mark)).into_iter().collect()
}

/// The text of a complete document, without anything that serde_json refuses. Half characters become U+FFFD.
pub(crate) fn mended(text: &str) -> String {
    Mender::mend(text, |_| char::REPLACEMENT_CHARACTER)
}

/// The text of a value that is a name: a number, or a text that is neither empty nor a word for "nothing".
pub(crate) fn named(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => {
            let text = text.trim();
            let is_nothing = ["", "null", "none", "nil", "undefined"].iter().any(|no| text.eq_ignore_ascii_case(no));
            (!is_nothing).then(|| Joiner::once(text))
        }
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A whole number. The server may write it as a text, or with a decimal point.
pub(crate) fn whole_number(value: &Value) -> Option<i64> {
    /// Above this limit an `f64` does not hold every whole number.
    const LARGEST: f64 = 9e15;
    let number = match value {
        Value::String(text) => text.trim().parse().ok()?,
        other => other.as_f64()?,
    };
    (number.abs() <= LARGEST).then_some(number as i64)
}

/// Whether a value has content. Servers fill unused fields with null, false, 0, empty texts and empty objects.
pub(crate) fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is_so) => *is_so,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(_) => named(value).is_some(),
        Value::Array(values) => values.iter().any(says_something),
        Value::Object(fields) => fields.values().any(says_something),
    }
}

fn mark(code: u32) -> char {
    // All marks are below the last character.
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Rewrites a document in one pass.
struct Mender<'a> {
    rest: &'a str,
    out: String,
    depth: usize,
    /// The character for the code of a mark.
    mark: fn(u32) -> char,
}

impl<'a> Mender<'a> {
    fn mend(text: &'a str, mark: fn(u32) -> char) -> String {
        let mut mender = Self { rest: text, out: String::with_capacity(text.len()), depth: 0, mark };
        while let Some(next) = mender.rest.chars().next() {
            match next {
                '"' => mender.string(),
                '{' | '[' if mender.depth == DEEPEST => mender.skip_nested(),
                '{' | '[' => {
                    mender.depth += 1;
                    mender.copy(1);
                }
                '}' | ']' => {
                    mender.depth = mender.depth.saturating_sub(1);
                    mender.copy(1);
                }
                '0'..='9' | 'a'..='z' | 'A'..='Z' | '+' | '-' | '.' => mender.word(),
                other => mender.copy(other.len_utf8()),
            }
        }
        mender.out
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    fn copy(&mut self, length: usize) {
        let taken = self.take(length);
        self.out.push_str(taken);
    }

    /// A number or a word. A number that JSON does not have becomes null, since no field that the program reads has
    /// one.
    fn word(&mut self) {
        let is_in = |char: char| char.is_ascii_alphanumeric() || matches!(char, '+' | '-' | '.');
        let word = self.take(self.rest.find(|char| !is_in(char)).unwrap_or(self.rest.len()));
        let is_number = word.parse::<f64>().map_or(word != "undefined", f64::is_finite);
        self.out.push_str(if is_number { word } else { "null" });
    }

    fn string(&mut self) {
        self.copy(1);
        loop {
            let plain = self.rest.find(|char: char| matches!(char, '"' | '\\' | '\0'..='\u{1f}'));
            self.copy(plain.unwrap_or(self.rest.len()));
            match self.rest.bytes().next() {
                None => return,
                Some(b'"') => return self.copy(1),
                Some(b'\\') => self.escape(),
                Some(control) => {
                    self.take(1);
                    self.out.push_str(&format!("\\u{control:04x}"));
                }
            }
        }
    }

    fn escape(&mut self) {
        let is_known = |byte: &u8| matches!(byte, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't');
        match (escaped_unit(self.rest), self.rest.as_bytes().get(1)) {
            (Some(high @ 0xd800..=0xdbff), _) => match escaped_unit(&self.rest[6..]) {
                Some(0xdc00..=0xdfff) => self.copy(12),
                _ => self.lone(high),
            },
            (Some(low @ 0xdc00..=0xdfff), _) => self.lone(low),
            (Some(_), _) => self.copy(6),
            (None, Some(known)) if is_known(known) => self.copy(2),
            // JSON does not have this escape, so the backslash is read as text.
            _ => {
                self.take(1);
                self.out.push_str("\\\\");
            }
        }
    }

    fn lone(&mut self, surrogate: u32) {
        self.take(6);
        self.out.push((self.mark)(SURROGATE_MARKS + surrogate - 0xd800));
    }

    fn skip_nested(&mut self) {
        let mut nesting = Nesting::default();
        let end = self.rest.bytes().position(|byte| nesting.closes(byte));
        self.take(end.map_or(self.rest.len(), |last| last + 1));
        self.out.push_str("null");
    }
}

/// The code unit of the escape at the beginning of a text.
fn escaped_unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

/// Finds the end of an object or an array.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nesting {
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
}

impl Nesting {
    /// Whether this byte is the last one of the value. The first byte is the opening bracket.
    pub(crate) fn closes(&mut self, byte: u8) -> bool {
        match byte {
            _ if std::mem::take(&mut self.is_escaped) => {}
            b'\\' if self.is_in_string => self.is_escaped = true,
            b'"' => self.is_in_string = !self.is_in_string,
            _ if self.is_in_string => {}
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' if self.depth > 0 => {
                self.depth -= 1;
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

/// Joins the halves of characters, which may arrive in two pieces of a text. A half without its other half becomes
/// U+FFFD.
#[derive(Clone, Debug, Default)]
pub(crate) struct Joiner {
    high: Option<u32>,
    bytes: Vec<u8>,
}

impl Joiner {
    /// Joins a text that has no other pieces.
    pub(crate) fn once(text: &str) -> String {
        let mut joiner = Self::default();
        joiner.push(text) + &joiner.finish()
    }

    /// The text of a piece. It begins with the half character at the end of the last piece, and keeps back a half
    /// character at its own end.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        let mut out = String::with_capacity(piece.len());
        for char in piece.chars() {
            match u32::from(char) {
                code @ SURROGATE_MARKS.. => self.surrogate(code - SURROGATE_MARKS + 0xd800, &mut out),
                code @ BYTE_MARKS.. => self.byte((code - BYTE_MARKS) as u8, &mut out),
                _ => {
                    self.give_up(&mut out);
                    out.push(char);
                }
            }
        }
        out
    }

    /// U+FFFD if the text has ended with half a character.
    pub(crate) fn finish(&mut self) -> String {
        let mut out = String::new();
        self.give_up(&mut out);
        out
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.high.is_none() && self.bytes.is_empty()
    }

    fn surrogate(&mut self, unit: u32, out: &mut String) {
        match (self.high, unit) {
            (Some(high), 0xdc00..=0xdfff) => {
                self.high = None;
                out.push(mark(0x1_0000 + ((high - 0xd800) << 10) + (unit - 0xdc00)));
            }
            (_, 0xdc00..=0xdfff) => {
                self.give_up(out);
                out.push(char::REPLACEMENT_CHARACTER);
            }
            _ => {
                self.give_up(out);
                self.high = Some(unit);
            }
        }
    }

    fn byte(&mut self, byte: u8, out: &mut String) {
        if self.high.is_some() {
            self.give_up(out);
        }
        self.bytes.push(byte);
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => {
                out.push_str(text);
                self.bytes.clear();
            }
            // The character may continue.
            Err(error) if error.error_len().is_none() => {}
            Err(_) => {
                self.bytes.pop();
                let was_half = !self.bytes.is_empty();
                self.give_up(out);
                match was_half {
                    // The byte is the first of the next character, or invalid.
                    true => self.byte(byte, out),
                    false => out.push(char::REPLACEMENT_CHARACTER),
                }
            }
        }
    }

    fn give_up(&mut self, out: &mut String) {
        if !self.is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
            *self = Self::default();
        }
    }
}
