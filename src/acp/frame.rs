//! Splits the input into lines, with a limit.

use std::io::{self, BufRead, BufReader, Read};

/// The capacity that the buffer keeps after a long line, in bytes.
const KEPT: usize = 64 << 10;

/// One line of the input, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Line(&'a [u8]),
    /// A line above the limit. Its bytes are not kept.
    TooLong,
    End,
}

/// Reads lines. A line without an end before the end of the input counts too.
pub(super) struct LineReader<R> {
    input: BufReader<R>,
    line: Vec<u8>,
    limit: usize,
}

impl<R: Read> LineReader<R> {
    /// `limit` is the length of the longest line in bytes, without its end.
    pub(super) fn new(input: R, limit: usize) -> Self {
        Self { input: BufReader::new(input), line: Vec::new(), limit }
    }

    /// The next line. Waits for input.
    pub(super) fn next(&mut self) -> io::Result<Frame<'_>> {
        self.line.clear();
        self.line.shrink_to(KEPT);
        let (mut is_too_long, mut is_started) = (false, false);
        loop {
            let available = match self.input.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() && !is_started {
                return Ok(Frame::End);
            }
            is_started = true;
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            is_too_long |= self.line.len() + part.len() > self.limit;
            if is_too_long {
                // The memory of a line that is refused is not needed any more.
                self.line = Vec::new();
            } else {
                self.line.extend_from_slice(part);
            }
            let is_last = end.is_some() || available.is_empty();
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            if is_last {
                return Ok(if is_too_long { Frame::TooLong } else { Frame::Line(&self.line) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(input: &[u8], limit: usize) -> Vec<Option<Vec<u8>>> {
        let mut reader = LineReader::new(input, limit);
        let mut found = Vec::new();
        loop {
            match reader.next().unwrap() {
                Frame::Line(line) => found.push(Some(line.to_vec())),
                Frame::TooLong => found.push(None),
                Frame::End => return found,
            }
        }
    }

    #[test]
    fn lines_end_with_a_newline_or_with_the_input() {
        assert_eq!(frames(b"", 9), []);
        assert_eq!(frames(b"a\n\nb", 9), [Some(b"a".to_vec()), Some(vec![]), Some(b"b".to_vec())]);
    }

    #[test]
    fn a_line_above_the_limit_is_skipped_and_the_next_one_is_read() {
        let long = [vec![b'x'; 100_000], b"\nshort\n".to_vec()].concat();
        assert_eq!(frames(&long, 99_999), [None, Some(b"short".to_vec())]);
        assert_eq!(frames(&long, 100_000).len(), 2);
        assert_eq!(frames(&long, 100_000)[0].as_ref().unwrap().len(), 100_000);
        assert_eq!(frames(&[b'x'; 10], 9), [None]);
    }
}
