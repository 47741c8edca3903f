//! The published snapshot of a session: reads are answered from it, so that they never wait for a turn.

use std::time::{Duration, SystemTime};

use crate::model::SessionSnapshot;
use crate::sync::{fence, AtomicU64, Ordering, RwLock};

use super::slab::Status;

/// The latest snapshot of one session. Its figures are in the session's [`Status`] too, for lists.
#[derive(Debug)]
pub(crate) struct Published {
    status: Status,
    snapshot: RwLock<SessionSnapshot>,
}

impl Published {
    /// `status` shows the figures of `snapshot` already.
    pub(crate) fn new(status: Status, snapshot: SessionSnapshot) -> Self {
        Self { status, snapshot: RwLock::new(snapshot) }
    }

    pub(crate) fn publish(&self, snapshot: SessionSnapshot) {
        let last = {
            let mut shown = self.snapshot.write();
            self.status.figures.set(Figures::of(&snapshot));
            std::mem::replace(&mut *shown, snapshot)
        };
        // It may hold the last share of a long text: freed with no lock held.
        drop(last);
    }

    /// Reads from the snapshot under its lock: `read` copies something and never waits.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&SessionSnapshot) -> T) -> T {
        read(&self.snapshot.read())
    }
}

/// The figures of a [`SessionSnapshot`] that a list shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) created_at: SystemTime,
    pub(crate) updated_at: SystemTime,
    pub(crate) message_count: usize,
    pub(crate) total_tokens: u64,
}

impl Figures {
    pub(crate) fn of(snapshot: &SessionSnapshot) -> Self {
        let &SessionSnapshot { created_at, updated_at, message_count, total_tokens, .. } = snapshot;
        Self { created_at, updated_at, message_count, total_tokens }
    }
}

/// Figures under a sequence lock: the version is odd while they change, and another one afterwards. A list of ten thousand sessions
/// reads as many of these; with a lock each, writing to the locks would be half of its time.
///
/// ```text
/// set (one at a time)                 get
/// version odd                         version: v
/// fence: release ──────────┐          words
/// words                    └────────▶ fence: acquire
/// version even, release               version still v?
/// ```
///
/// A reader that has seen one of the new words sees, after its fence, the odd version too, or a later one. One that has seen
/// the even version, by an acquire, sees all of its words.
#[derive(Debug)]
pub(crate) struct FiguresCell {
    version: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// Two times of two words, and two numbers.
const WORDS: usize = 6;

impl FiguresCell {
    pub(crate) fn new(figures: Figures) -> Self {
        Self { version: AtomicU64::new(0), words: encode(figures).map(AtomicU64::new) }
    }

    /// To be called by one thread at a time: under the lock of the snapshot.
    pub(crate) fn set(&self, figures: Figures) {
        // ORDERING: Relaxed, since only this thread writes it now; the fence puts it before the words.
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in self.words.iter().zip(encode(figures)) {
            // ORDERING: Relaxed; the version says which words belong together.
            word.store(value, Ordering::Relaxed);
        }
        // ORDERING: Release, with the acquire of `get`: a reader that sees this version sees its words.
        self.version.store(version + 2, Ordering::Release);
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<Figures> {
        // ORDERING: Acquire, for the words of this version.
        let version = self.version.load(Ordering::Acquire);
        // ORDERING: Relaxed, with the fence after them: see `set`.
        let words = std::array::from_fn(|place| self.words[place].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        // ORDERING: Relaxed; the fence puts it after the words.
        let is_whole = version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version;
        is_whole.then(|| decode(words))
    }
}

fn encode(figures: Figures) -> [u64; WORDS] {
    let Figures { created_at, updated_at, message_count, total_tokens } = figures;
    let ([created, created_nanos], [updated, updated_nanos]) = (encode_time(created_at), encode_time(updated_at));
    [created, created_nanos, updated, updated_nanos, message_count as u64, total_tokens]
}

#[inline]
fn decode(words: [u64; WORDS]) -> Figures {
    let [created, created_nanos, updated, updated_nanos, message_count, total_tokens] = words;
    Figures {
        created_at: decode_time([created, created_nanos]),
        updated_at: decode_time([updated, updated_nanos]),
        message_count: message_count as usize,
        total_tokens,
    }
}

/// In the second word of a time: it lies before 1970, by as much as the words say.
const BEFORE: u64 = 1 << 63;

/// Whole seconds from 1970, and the nanoseconds that are left.
fn encode_time(time: SystemTime) -> [u64; 2] {
    let words = |distance: Duration| [distance.as_secs(), u64::from(distance.subsec_nanos())];
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => words(after),
        Err(error) => {
            let [seconds, nanos] = words(error.duration());
            [seconds, nanos | BEFORE]
        }
    }
}

#[inline]
fn decode_time([seconds, nanos]: [u64; 2]) -> SystemTime {
    let distance = Duration::new(seconds, (nanos & !BEFORE) as u32);
    // Never past the end of time: it was a time when it was encoded.
    if nanos & BEFORE == 0 {
        SystemTime::UNIX_EPOCH + distance
    } else {
        SystemTime::UNIX_EPOCH - distance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_as_they_were() {
        let (epoch, odd) = (SystemTime::UNIX_EPOCH, Duration::new(3, 999_999_999));
        let far = Duration::from_secs(1 << 40);
        for time in [epoch, epoch + odd, epoch - odd, epoch + far, epoch - far, SystemTime::now()] {
            assert_eq!(decode_time(encode_time(time)), time);
        }
    }
}
