//! The published snapshot of a session. Reads are answered from it, so they never wait for a turn.

use std::time::{Duration, SystemTime};

use crate::model::SessionSnapshot;
use crate::sync::{fence, AtomicU64, Ordering, RwLock};

use super::slab::Status;

/// The latest snapshot of one session. Its figures are also in the session's [`Status`], for lists.
#[derive(Debug)]
pub(crate) struct Published {
    status: Status,
    snapshot: RwLock<SessionSnapshot>,
}

impl Published {
    /// Takes the `status` that already has the figures of `snapshot`.
    pub(crate) fn new(status: Status, snapshot: SessionSnapshot) -> Self {
        Self { status, snapshot: RwLock::new(snapshot) }
    }

    pub(crate) fn publish(&self, snapshot: SessionSnapshot) {
        let last = {
            let mut shown = self.snapshot.write();
            self.status.figures.set(Figures::of(&snapshot));
            std::mem::replace(&mut *shown, snapshot)
        };
        // It may hold the last share of a long text, so it is freed with no lock held.
        drop(last);
    }

    /// Reads from the snapshot under its lock. `read` copies a part of it and never waits.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&SessionSnapshot) -> T) -> T {
        read(&self.snapshot.read())
    }
}

/// The figures of a [`SessionSnapshot`] that a list returns.
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

/// Figures under a sequence lock: the version is odd during a change, and higher after it. A list of ten thousand
/// sessions reads as many of these. With a lock each, writing to the locks would be half of the list's time.
///
/// ```text
/// set (one at a time)                 get
/// version odd                         version: v
/// fence: release ──────────┐          words
/// words                    └────────▶ fence: acquire
/// version even, release               version still v?
/// ```
///
/// A reader that has read one of the new words reads, after its fence, the odd version or a later one. A reader that
/// has read the even version, with acquire, reads all words of that version.
#[derive(Debug)]
pub(crate) struct FiguresCell {
    version: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// Two times of two words each, and two numbers.
const WORDS: usize = 6;

impl FiguresCell {
    pub(crate) fn new(figures: Figures) -> Self {
        Self { version: AtomicU64::new(0), words: encode(figures).map(AtomicU64::new) }
    }

    /// Sets the figures. Call it on one thread at a time: under the lock of the snapshot.
    pub(crate) fn set(&self, figures: Figures) {
        // ORDERING: Relaxed, since only this thread writes the version now. The fence orders it before the words.
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in self.words.iter().zip(encode(figures)) {
            // ORDERING: Relaxed; the version shows which words belong together.
            word.store(value, Ordering::Relaxed);
        }
        // ORDERING: Release, pairs with the acquire in `get`: a reader that reads this version reads its words.
        self.version.store(version + 2, Ordering::Release);
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<Figures> {
        // ORDERING: Acquire, pairs with the release in `set`, for the words of this version.
        let version = self.version.load(Ordering::Acquire);
        // ORDERING: Relaxed, with the fence after the words; see `set`.
        let words = std::array::from_fn(|place| self.words[place].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        // ORDERING: Relaxed; the fence orders it after the words.
        let is_consistent = version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version;
        is_consistent.then(|| decode(words))
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

/// In the second word of a time: the time is before 1970, and the words are the distance.
const BEFORE: u64 = 1 << 63;

/// Whole seconds from 1970, and the remaining nanoseconds.
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
    // Never past the last representable time, since it was a time when it was encoded.
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
    fn times_are_decoded_as_they_were_encoded() {
        let (epoch, odd) = (SystemTime::UNIX_EPOCH, Duration::new(3, 999_999_999));
        let far = Duration::from_secs(1 << 40);
        for time in [epoch, epoch + odd, epoch - odd, epoch + far, epoch - far, SystemTime::now()] {
            assert_eq!(decode_time(encode_time(time)), time);
        }
    }
}
