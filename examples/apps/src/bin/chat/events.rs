//! The body of an answer, split into events: server-sent events, or JSON if the server does not stream.
//!
//! The first character of a body decides between the two. The content type does not, because some servers send a wrong
//! one.

use std::io::{BufRead, ErrorKind};

use crate::json::Nesting;

/// The longest event that is a piece of a reply, in bytes.
const LONGEST_EVENT: usize = 1 << 20;
/// The longest reply that comes as one document, in bytes.
const LONGEST_DOCUMENT: usize = 16 << 20;
/// The longest body, in bytes. A server that never stops sending must not fill the memory.
const LONGEST_BODY: usize = 64 << 20;
/// How much of a page is searched for its title, in bytes.
const PAGE_HEAD: usize = 16 << 10;

/// The reason why an answer cannot be read any further.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The connection ended before the reply did.
    Cut,
    /// The data is no part of a reply.
    Malformed(String),
    /// The server reports a failure, with a status if it names one.
    Failed { message: String, status: Option<u16> },
}

/// One event.
#[derive(Debug, Default)]
pub(crate) struct Event {
    pub(crate) data: Vec<u8>,
    pub(crate) is_error: bool,
    /// The body ended within this event.
    pub(crate) is_cut: bool,
    /// The event is a JSON document, and not an event of a stream.
    pub(crate) is_document: bool,
}

/// Reads the events of one answer.
pub(crate) struct Events<R> {
    body: R,
    format: Option<Format>,
    /// The last line ended with a carriage return. A line feed after it belongs to that end.
    skips_newline: bool,
    length: usize,
}

#[derive(Clone, Copy)]
enum Format {
    Stream,
    Documents,
}

/// A line without its end, and whether the body ended within the line.
struct Line {
    bytes: Vec<u8>,
    is_cut: bool,
}

impl<R: BufRead> Events<R> {
    pub(crate) fn new(body: R) -> Self {
        Self { body, format: None, skips_newline: false, length: 0 }
    }

    /// The next event. `None` at the end of the body.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, Broken> {
        let format = match self.format {
            Some(format) => format,
            None => match self.sniff()? {
                Some(format) => *self.format.insert(format),
                None => return Ok(None),
            },
        };
        match format {
            Format::Stream => self.next_of_stream(),
            Format::Documents => self.next_document(),
        }
    }

    /// The format of the body. `None` if the body is empty. Skips a byte order mark and blank lines.
    fn sniff(&mut self) -> Result<Option<Format>, Broken> {
        loop {
            let Some(byte) = self.peek()? else { return Ok(None) };
            match byte {
                0xef | 0xbb | 0xbf | b' ' | b'\t' | b'\r' | b'\n' => self.consume(1)?,
                b'{' | b'[' => return Ok(Some(Format::Documents)),
                b'<' => return Err(Broken::Malformed(self.page())),
                0x1f => return Err(Broken::Malformed("it is compressed, which was not asked for".into())),
                _ => return Ok(Some(Format::Stream)),
            }
        }
    }

    /// The message about a web page, with its title if the head of the page has one.
    fn page(&mut self) -> String {
        let mut head = Vec::new();
        // The rest of the page may never arrive.
        while head.len() < PAGE_HEAD && title(&String::from_utf8_lossy(&head)).is_none() {
            let Ok(bytes @ [_, ..]) = self.fill() else { break };
            let taken = bytes.len();
            head.extend_from_slice(bytes);
            self.body.consume(taken);
        }
        match title(&String::from_utf8_lossy(&head)) {
            Some(title) => format!("it is a web page ('{title}'), and not an answer of a model; check --url"),
            None => "it is a web page, and not an answer of a model; check --url".into(),
        }
    }

    fn next_of_stream(&mut self) -> Result<Option<Event>, Broken> {
        let (mut data, mut event, mut is_known) = (None::<Vec<u8>>, Event::default(), true);
        loop {
            let line = match self.next_line() {
                Ok(Some(line)) => line,
                Ok(None) | Err(Broken::Cut) if data.is_none() && !is_known => {
                    return Err(Broken::Malformed("it is no stream of server-sent events".into()));
                }
                Err(broken) if data.is_none() || !matches!(broken, Broken::Cut) => return Err(broken),
                // Some servers do not end the last event with an empty line.
                _ => return Ok(data.map(|data| Event { data, is_cut: true, ..event })),
            };
            let (field, value) = field_and_value(&line.bytes);
            match field {
                b"" if line.bytes.is_empty() => {
                    if let Some(data) = data {
                        return Ok(Some(Event { data, is_cut: line.is_cut, ..event }));
                    }
                    // This is the end of an event without data.
                    event = Event::default();
                }
                b"data" => append(&mut data, value)?,
                b"event" => event.is_error = value.eq_ignore_ascii_case(b"error"),
                b"error" => {
                    event.is_error = true;
                    append(&mut data, value)?;
                }
                // The line is a comment, which keeps the connection alive, or a field that this program does not use.
                b"" | b"id" | b"retry" => {}
                _ => is_known = false,
            }
        }
    }

    /// The next object or array. Bytes between two values are skipped.
    fn next_document(&mut self) -> Result<Option<Event>, Broken> {
        let (mut data, mut nesting) = (Vec::new(), Nesting::default());
        let event = |data, is_cut| Event { data, is_error: false, is_cut, is_document: true };
        loop {
            let (taken, is_closed, has_ended) = match self.fill() {
                Ok([]) => (0, false, true),
                Ok(bytes) => {
                    let begin = match data.is_empty() {
                        true => bytes.iter().position(|byte| matches!(byte, b'{' | b'[')).unwrap_or(bytes.len()),
                        false => 0,
                    };
                    let end = bytes[begin..].iter().position(|byte| nesting.closes(*byte));
                    let taken = end.map_or(bytes.len(), |end| begin + end + 1);
                    data.extend_from_slice(&bytes[begin..taken]);
                    (taken, end.is_some(), false)
                }
                Err(broken) if data.is_empty() => return Err(broken),
                Err(_) => (0, false, true),
            };
            self.consume(taken)?;
            if is_closed {
                return Ok(Some(event(data, false)));
            }
            if has_ended {
                return Ok((!data.is_empty()).then(|| event(data, true)));
            }
            if data.len() > LONGEST_DOCUMENT {
                return Err(Broken::Malformed("it is too long".into()));
            }
        }
    }

    /// The next line, which ends with a line feed, a carriage return, or both.
    fn next_line(&mut self) -> Result<Option<Line>, Broken> {
        if std::mem::take(&mut self.skips_newline) && self.peek()? == Some(b'\n') {
            self.consume(1)?;
        }
        let mut line = Vec::new();
        loop {
            let bytes = match self.fill() {
                Ok([]) if line.is_empty() => return Ok(None),
                // The last line may be complete although the connection is closed.
                Ok([]) => return Ok(Some(Line { bytes: line, is_cut: true })),
                Err(broken) if line.is_empty() => return Err(broken),
                Err(_) => return Ok(Some(Line { bytes: line, is_cut: true })),
                Ok(bytes) => bytes,
            };
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            line.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
            let taken = end.map_or(bytes.len(), |end| end + 1);
            let is_return = end.is_some_and(|end| bytes[end] == b'\r');
            self.consume(taken)?;
            if line.len() > LONGEST_EVENT {
                return Err(Broken::Malformed("a line of it has no end".into()));
            }
            if end.is_some() {
                self.skips_newline = is_return;
                return Ok(Some(Line { bytes: line, is_cut: false }));
            }
        }
    }

    fn peek(&mut self) -> Result<Option<u8>, Broken> {
        Ok(self.fill()?.first().copied())
    }

    fn fill(&mut self) -> Result<&[u8], Broken> {
        loop {
            match self.body.fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Broken::Cut),
            }
        }
        // The buffer is filled, so this call does not read.
        self.body.fill_buf().map_err(|_| Broken::Cut)
    }

    fn consume(&mut self, length: usize) -> Result<(), Broken> {
        self.body.consume(length);
        self.length = self.length.saturating_add(length);
        if self.length > LONGEST_BODY {
            return Err(Broken::Malformed("it is too long".into()));
        }
        Ok(())
    }
}

/// Adds a line to an event's data.
fn append(data: &mut Option<Vec<u8>>, value: &[u8]) -> Result<(), Broken> {
    match data {
        Some(data) if data.len() + value.len() >= LONGEST_EVENT => {
            return Err(Broken::Malformed("an event of it has no end".into()));
        }
        Some(data) => {
            data.push(b'\n');
            data.extend_from_slice(value);
        }
        None => *data = Some(value.to_vec()),
    }
    Ok(())
}

fn field_and_value(line: &[u8]) -> (&[u8], &[u8]) {
    // Some servers begin every event with a byte order mark.
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let colon = line.iter().position(|byte| *byte == b':');
    let (field, value) = colon.map_or((line, &b""[..]), |colon| (&line[..colon], &line[colon + 1..]));
    (field, value.strip_prefix(b" ").unwrap_or(value))
}

/// The title of a page.
pub(crate) fn title(page: &str) -> Option<String> {
    let lower = page.to_ascii_lowercase();
    let begin = lower.find("<title")?;
    let begin = begin + lower[begin..].find('>')? + 1;
    let end = begin + lower[begin..].find("</title")?;
    let title = page[begin..end].split_whitespace().collect::<Vec<_>>().join(" ");
    (!title.is_empty()).then(|| title.chars().take(100).collect())
}
