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

/// A line, and the place to give back once it is written.
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
    answers: Places,
}

/// The receiving side, for the writer thread.
pub(super) struct Writer {
    lines: Receiver<Option<Line>>,
}

/// Makes a queue with this number of places for updates.
pub(super) fn outbox(updates: usize) -> (Outbox, Writer) {
    let (sender, lines) = unbounded();
    let (updates, answers) = (Places::new(updates.max(1)), Places::new(ANSWERS));
    (Outbox { lines: sender, updates, answers }, Writer { lines })
}

impl Outbox {
    /// Puts a line. Does not wait. There are few such lines: one for each request of the client, and one for each thread
    /// of an agent that calls the client. Returns whether it has succeeded: see [`line`].
    pub(super) fn put(&self, message: &impl Serialize) -> bool {
        let Some(text) = line(message) else { return false };
        self.push(text, None);
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
        while let Ok(Some(line)) = self.lines.recv() {
            output.write_all(&line.text)?;
            if self.lines.is_empty() {
                output.flush()?;
            }
            if let Some(place) = line.place {
                let _ = place.try_send(());
            }
        }
        output.flush()
    }
}
