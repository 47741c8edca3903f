//! The queue of lines for the client, and the writer that owns the output.
//!
//! **Invariant.** Lines are written in the order in which they were put. A line is written whole, or the connection ends.

use std::convert::Infallible;
use std::io::{self, BufWriter, Write};
use std::time::Duration;

use serde::Serialize;

use crate::panics::record;
use crate::sync::{at_or_never, bounded, select, unbounded, Instant, Receiver, Sender};

/// How many answers of the reader may be unwritten. Beyond that the reader waits, and then gives the client up.
const ANSWERS: usize = 1_024;

/// A line, and the place to give back once the writer has it.
struct Line {
    text: Vec<u8>,
    place: Option<Sender<()>>,
}

/// A number of places in the queue.
struct Places {
    free: Receiver<()>,
    give_back: Sender<()>,
}

impl Places {
    fn new(number: usize) -> Self {
        let (give_back, free) = bounded(number);
        for _ in 0..number {
            // There is room for each of them.
            let _ = give_back.try_send(());
        }
        Self { free, give_back }
    }
}

/// The sending side. Any thread may put lines.
pub(super) struct Outbox {
    /// `None` is the end of the queue.
    lines: Sender<Option<Line>>,
    updates: Places,
    requests: Places,
    answers: Places,
}

/// The receiving side, for the writer thread.
pub(super) struct Writer {
    lines: Receiver<Option<Line>>,
}

/// Makes a queue with these numbers of places for updates, and for requests without an answer.
pub(super) fn outbox(updates: usize, requests: usize) -> (Outbox, Writer) {
    let (sender, lines) = unbounded();
    let (updates, requests) = (Places::new(updates.max(1)), Places::new(requests.max(1)));
    (Outbox { lines: sender, updates, requests, answers: Places::new(ANSWERS) }, Writer { lines })
}

impl Outbox {
    /// Puts a line. Does not wait. There are few such lines: one for each thread of an agent that calls the client. Returns
    /// whether it has succeeded: see [`line`].
    pub(super) fn put(&self, message: &impl Serialize) -> bool {
        let Some(text) = line(message) else { return false };
        self.push(text, None);
        true
    }

    /// Takes a place for a request of the client. Its answer gives the place back. `false` if no place is free.
    pub(super) fn accept(&self) -> bool {
        self.requests.free.try_recv().is_ok()
    }

    /// Puts the answer of an accepted request. Does not wait. Returns whether it has succeeded: see [`line`].
    pub(super) fn put_accepted(&self, message: &impl Serialize) -> bool {
        let Some(text) = line(message) else { return false };
        self.push(text, Some(self.requests.give_back.clone()));
        true
    }

    /// Puts an update. Waits for a place until `turn` or the connection has `ended`, and then takes none. Leaves out an
    /// update that JSON cannot hold.
    pub(super) fn put_update(
        &self,
        message: &impl Serialize,
        turn: &Receiver<Infallible>,
        ended: &Receiver<Infallible>,
    ) {
        // Before the place is taken: an update that is left out must not keep one.
        let Some(text) = line(message) else {
            return record!(Warn, "turnwise::acp", "an update that JSON cannot hold is left out");
        };
        let place = select! {
            recv(self.updates.free) -> place => place.ok(),
            recv(turn) -> _ => None,
            recv(ended) -> _ => None,
        };
        self.push(text, place.map(|()| self.updates.give_back.clone()));
    }

    /// Puts an answer of the reader. Waits for a place, or until the connection has `ended`, but not longer than
    /// `patience`. Returns whether the line was put.
    pub(super) fn put_answer(
        &self,
        message: &impl Serialize,
        ended: &Receiver<Infallible>,
        patience: Duration,
    ) -> bool {
        let Some(text) = line(message) else { return true };
        let overdue = at_or_never(Instant::now().checked_add(patience));
        let place = select! {
            recv(self.answers.free) -> place => place.ok(),
            recv(ended) -> _ => None,
            recv(overdue) -> _ => return false,
        };
        self.push(text, place.map(|()| self.answers.give_back.clone()));
        true
    }

    fn push(&self, text: Vec<u8>, place: Option<Sender<()>>) {
        // Fails after the end of the writer: no client is left to read the line.
        let _ = self.lines.send(Some(Line { text, place }));
    }

    /// Ends the queue. The writer writes what was put before, and ends.
    pub(super) fn end(&self) {
        let _ = self.lines.send(None);
    }
}

/// The text of a message. `None` if JSON cannot hold it: the messages are plain data with string keys, but they may have
/// paths that are not UTF-8.
fn line(message: &impl Serialize) -> Option<Vec<u8>> {
    let mut text = serde_json::to_vec(message).ok()?;
    text.push(b'\n');
    Some(text)
}

impl Writer {
    /// Writes lines until the end of the queue. The output is flushed whenever the queue is empty.
    pub(super) fn run(self, output: impl Write) -> io::Result<()> {
        let mut output = BufWriter::new(output);
        while let Ok(Some(Line { text, place })) = self.lines.recv() {
            // Before the write: a client that has read an answer counts on its place.
            if let Some(place) = place {
                let _ = place.try_send(());
            }
            output.write_all(&text)?;
            if self.lines.is_empty() {
                output.flush()?;
            }
        }
        output.flush()
    }
}
