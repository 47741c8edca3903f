//! A connection to the server without a client library: the floors.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::server::Server;
use crate::TEXT;

/// A bare connection.
pub(crate) struct Bare(BufReader<TcpStream>);

impl Bare {
    pub(crate) fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.port())).expect("the server listens");
        stream.set_nodelay(true).expect("no delay");
        Self(BufReader::new(stream))
    }

    /// Writes what a turn writes, in one round trip.
    pub(crate) fn write(&mut self, record: usize) {
        let (key, list) = (format!("bare:{record}"), format!("bare:{record}:h"));
        let (header, summary, message) = ("h".repeat(500), "s".repeat(300), "m".repeat(TEXT + 40));
        let commands: [&[&str]; 4] = [
            &["MULTI"],
            &["HSET", &key, "head", &header, "sum", &summary],
            &["RPUSH", &list, &message, &message],
            &["EXEC"],
        ];
        let mut text = String::new();
        for command in commands {
            text.push_str(&format!("*{}\r\n", command.len()));
            command.iter().for_each(|part| text.push_str(&format!("${}\r\n{part}\r\n", part.len())));
        }
        self.0.get_mut().write_all(text.as_bytes()).expect("the commands are sent");
        // OK, QUEUED, QUEUED, an array of two, and its two numbers.
        let mut line = String::new();
        for _ in 0..6 {
            line.clear();
            self.0.read_line(&mut line).expect("an answer");
            assert!(!line.starts_with('-'), "{line}");
        }
    }

    /// Adds an entry to a stream.
    pub(crate) fn add(&mut self, stream: &str, text: &str) {
        self.send(&["XADD", stream, "*", "text", text]);
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the length of an id");
        self.0.read_line(&mut line).expect("an id");
    }

    /// Waits for the next entry of a stream behind `last`, and returns its id.
    pub(crate) fn next(&mut self, stream: &str, last: &str) -> String {
        self.send(&["XREAD", "COUNT", "1", "BLOCK", "0", "STREAMS", stream, last]);
        // An array of one stream, which is its name and an array of one entry, which is its id and its fields.
        let mut texts = Vec::new();
        let mut line = String::new();
        while texts.len() < 4 {
            line.clear();
            self.0.read_line(&mut line).expect("a line");
            if let Some(len) = line.strip_prefix('$') {
                let mut text = vec![0; len.trim().parse::<usize>().expect("a length") + 2];
                self.0.read_exact(&mut text).expect("a text");
                texts.push(String::from_utf8_lossy(&text).trim_end().to_owned());
            }
        }
        texts.swap_remove(1)
    }

    fn send(&mut self, parts: &[&str]) {
        let mut text = format!("*{}\r\n", parts.len());
        parts.iter().for_each(|part| text.push_str(&format!("${}\r\n{part}\r\n", part.len())));
        self.0.get_mut().write_all(text.as_bytes()).expect("the command is sent");
    }
}
