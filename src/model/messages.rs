//! The messages of a history: a buffer that clones of the history share, and that grows in place.
//!
//! A history is a buffer and a length. A clone shares the buffer. A push by the history at the end of the buffer adds
//! the message in place, and shorter histories do not see it. So a service can hold a share of a history for its readers
//! and for its store, and the next push still copies nothing.
//!
//! ```text
//! base: one slice           tail: chunks that never move
//! [ m0 m1 m2 ]              [ m3 m4 m5 m6 m7 .. .. .. ] -> [ .. .. .. .. .. .. .. .. ]
//!            ^ a share of 3 messages        ^ the history at the end, of 8
//! ```
//!
//! While one history owns the buffer, messages are pushed to the base. While the buffer is shared, the base is fixed and
//! messages are pushed to the tail. A push at another place than the end, and every other change, begins a new buffer.
//! So two histories with the same buffer agree up to the shorter length, which [`common_start`](Messages::common_start)
//! tells without a comparison of messages.
//!
//! # Why there is a slice besides the buffer
//!
//! A slice of a buffer that grows while other threads read it needs unsafe code, and without unsafe code a chunk cannot
//! be a slice of messages either. Shared messages (`&[Arc<Message>]`) would not help: they need one slice too, and each
//! reader would name the `Arc`. So [`as_slice`](Messages::as_slice) returns the base where that has all messages.
//! Otherwise it copies the messages once, and later pushes add to the copy. Iteration needs no slice and copies nothing.
//!
//! **Invariants**
//! - The base of a shared buffer does not change. A slot of the tail is set once.
//! - All slots before the length of a history are set.
//! - The slice, if there is one, has the messages of the history.

use crate::sync::{Arc, WriteOnce};

use super::Message;

/// The messages of one history: a share of a buffer.
#[derive(Default)]
pub(super) struct Messages {
    buffer: Arc<Buffer>,
    /// The number of messages; `None` for those of the whole base, to which the caller of
    /// [`as_mut`](Self::as_mut) may have added some.
    len: Option<usize>,
    /// A copy in one slice, made on the first use of one. Clones do not share it, so a push can add to it.
    slice: WriteOnce<Vec<Message>>,
}

#[derive(Default)]
struct Buffer {
    base: Vec<Message>,
    /// The messages behind the base.
    tail: WriteOnce<Box<Chunk>>,
}

struct Chunk {
    slots: Box<[WriteOnce<Message>]>,
    next: WriteOnce<Box<Chunk>>,
}

/// The lengths of the first chunk and of the longest ones. Each chunk has twice the length of the one before.
const FIRST_CHUNK: usize = 8;
const LONGEST_CHUNK: usize = 4_096;

impl Messages {
    pub(super) fn len(&self) -> usize {
        self.len.unwrap_or(self.buffer.base.len())
    }

    pub(super) fn iter(&self) -> Iter<'_> {
        self.iter_from(0)
    }

    /// The messages from an index on.
    pub(super) fn iter_from(&self, start: usize) -> Iter<'_> {
        let end = self.len();
        let start = start.min(end);
        let base = &self.buffer.base;
        let (chunk, next) = match self.buffer.place(start.max(base.len())) {
            Some((chunk, place)) => (Some(chunk), place),
            None => (None, 0),
        };
        Iter { buffer: &self.buffer, start, end, chunk, next }
    }

    /// All messages in one slice. Copies them on the first call after a push to a shared buffer.
    pub(super) fn as_slice(&self) -> &[Message] {
        let len = self.len();
        match self.buffer.base.get(..len) {
            Some(whole) => whole,
            None => self.slice.get_or_init(|| self.iter().cloned().collect()),
        }
    }

    /// The number of messages of `earlier`, if this history has grown from it by pushes alone. Compares no message.
    #[cfg(any(feature = "store", test))]
    pub(super) fn common_start(&self, earlier: &Self) -> Option<usize> {
        let is_extended = Arc::ptr_eq(&self.buffer, &earlier.buffer) && self.len() >= earlier.len();
        is_extended.then(|| earlier.len())
    }

    pub(super) fn push(&mut self, message: Message) {
        let len = self.len();
        let has_slice = match self.slice.get_mut() {
            Some(slice) => {
                slice.push(message.clone());
                true
            }
            None => false,
        };
        // With a slice the tail is kept: a move to the base would make the slice useless, and the next one a new copy.
        if let Some(buffer) = Arc::get_mut(&mut self.buffer).filter(|_| !has_slice) {
            buffer.move_to_base(len);
            buffer.base.push(message);
            self.len = None;
            return;
        }
        match self.buffer.append(len, message) {
            Ok(()) => self.len = Some(len + 1),
            Err(message) => {
                // A longer history has the place. The slice has the message already.
                let mut base = self.slice.take().unwrap_or_else(|| self.iter().cloned().collect());
                if base.len() == len {
                    base.push(message);
                }
                *self = Self::from(base);
            }
        }
    }

    /// All messages for modification, in a buffer of this history alone. Copies them if the buffer is shared.
    pub(super) fn as_mut(&mut self) -> &mut Vec<Message> {
        let (len, slice) = (self.len(), self.slice.take());
        if slice.is_some() || Arc::get_mut(&mut self.buffer).is_none() {
            let base = slice.unwrap_or_else(|| self.iter().cloned().collect());
            self.buffer = Arc::new(Buffer::from(base));
        }
        self.len = None;
        #[allow(clippy::expect_used)] // The buffer is new, or was just seen to have one owner.
        let buffer = Arc::get_mut(&mut self.buffer).expect("a buffer of this history alone");
        buffer.move_to_base(len);
        &mut buffer.base
    }
}

impl Clone for Messages {
    fn clone(&self) -> Self {
        Self { buffer: Arc::clone(&self.buffer), len: self.len, slice: WriteOnce::new() }
    }
}

impl From<Vec<Message>> for Messages {
    fn from(base: Vec<Message>) -> Self {
        Self { buffer: Arc::new(Buffer::from(base)), ..Self::default() }
    }
}

impl PartialEq for Messages {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && (Arc::ptr_eq(&self.buffer, &other.buffer) || self.iter().eq(other.iter()))
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Messages {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Messages {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
}

impl Buffer {
    /// The chunk that a place behind the base is in, if that chunk exists, and the place in it.
    fn place(&self, index: usize) -> Option<(&Chunk, usize)> {
        let mut place = index - self.base.len();
        let mut chunk = self.tail.get()?;
        while place >= chunk.slots.len() {
            place -= chunk.slots.len();
            chunk = chunk.next.get()?;
        }
        Some((chunk, place))
    }

    fn get(&self, index: usize) -> Option<&Message> {
        match self.base.get(index) {
            Some(message) => Some(message),
            None => self.place(index).and_then(|(chunk, place)| chunk.slots[place].get()),
        }
    }

    /// Adds a message at a place behind the base. Returns it if another history has added one there.
    fn append(&self, index: usize, message: Message) -> Result<(), Message> {
        // A history that is shorter than the base is not at the end.
        let Some(mut place) = index.checked_sub(self.base.len()) else { return Err(message) };
        let mut len = FIRST_CHUNK;
        let mut chunk = self.tail.get_or_init(|| Chunk::new(len));
        while place >= chunk.slots.len() {
            place -= chunk.slots.len();
            len = (2 * len).min(LONGEST_CHUNK);
            chunk = chunk.next.get_or_init(|| Chunk::new(len));
        }
        chunk.slots[place].set(message)
    }

    /// Moves the first `len` messages to the base, and drops the others.
    fn move_to_base(&mut self, len: usize) {
        self.base.truncate(len);
        let mut tail = self.tail.take();
        while let Some(mut chunk) = tail {
            let missing = len - self.base.len();
            self.base.extend(chunk.slots.iter_mut().take(missing).map_while(WriteOnce::take));
            tail = chunk.next.take();
        }
    }
}

impl From<Vec<Message>> for Buffer {
    fn from(base: Vec<Message>) -> Self {
        Self { base, tail: WriteOnce::new() }
    }
}

impl Chunk {
    fn new(len: usize) -> Box<Self> {
        let slots = std::iter::repeat_with(WriteOnce::new).take(len).collect();
        Box::new(Self { slots, next: WriteOnce::new() })
    }
}

/// Drops the chunks behind this one in a loop: a long history has more of them than a small stack has room for.
impl Drop for Chunk {
    fn drop(&mut self) {
        let mut next = self.next.take();
        while let Some(mut chunk) = next {
            next = chunk.next.take();
        }
    }
}

/// The messages of a history, oldest first.
#[derive(Clone)]
pub(super) struct Iter<'a> {
    buffer: &'a Buffer,
    start: usize,
    end: usize,
    /// The chunk of the next message behind the base, and its place there.
    chunk: Option<&'a Chunk>,
    next: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Message;

    fn next(&mut self) -> Option<&'a Message> {
        if self.start == self.end {
            return None;
        }
        let index = self.start;
        self.start += 1;
        if let Some(message) = self.buffer.base.get(index) {
            return Some(message);
        }
        let mut chunk = self.chunk?;
        if self.next == chunk.slots.len() {
            chunk = chunk.next.get()?;
            (self.chunk, self.next) = (Some(chunk), 0);
        }
        let message = chunk.slots[self.next].get();
        self.next += 1;
        message
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.end - self.start;
        (len, Some(len))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.start == self.end {
            return None;
        }
        self.end -= 1;
        self.buffer.get(self.end)
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A change of one of the histories, which `of` selects.
    #[derive(Clone, Debug)]
    enum Change {
        Push,
        /// A push while a share of the same length is held.
        PushShared,
        Share,
        Drop,
        /// A use of the slice, which later pushes have to keep.
        Slice,
        Pop,
        InsertFirst,
        /// A new buffer with the first messages, as of a fork in the past.
        Fork(usize),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            8 => Just(Change::Push),
            6 => Just(Change::PushShared),
            4 => Just(Change::Share),
            3 => Just(Change::Drop),
            2 => Just(Change::Slice),
            1 => Just(Change::Pop),
            1 => Just(Change::InsertFirst),
            1 => (0..40usize).prop_map(Change::Fork),
        ]
    }

    /// A history, and the messages that it has to have.
    struct Pair {
        shared: Messages,
        plain: Vec<Message>,
    }

    fn check(Pair { shared, plain }: &Pair) {
        assert_eq!(shared.len(), plain.len());
        assert!(shared.iter().eq(plain), "forwards");
        assert!(shared.iter().rev().eq(plain.iter().rev()), "backwards");
        for start in [0, plain.len() / 2, plain.len()] {
            assert!(shared.iter_from(start).eq(&plain[start..]), "from {start}");
        }
        assert_eq!(shared.iter_from(plain.len() + 1).len(), 0);
        // Without a slice of its own.
        assert_eq!(shared.clone().as_slice(), plain);
        if let Some(slice) = shared.slice.get() {
            assert_eq!(slice, plain);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn histories_that_share_a_buffer_are_as_if_each_had_its_own(
            changes in vec((change(), any::<usize>()), 1..200),
        ) {
            let mut histories = vec![Pair { shared: Messages::default(), plain: Vec::new() }];
            for (step, (change, of)) in changes.into_iter().enumerate() {
                let of = of % histories.len();
                let count = histories.len();
                let Pair { shared, plain } = &mut histories[of];
                let message = Message::user(step.to_string());
                match change {
                    Change::Push => {
                        plain.push(message.clone());
                        shared.push(message);
                    }
                    Change::PushShared => {
                        let before = shared.clone();
                        let is_at_end = before.buffer.get(before.len()).is_none();
                        plain.push(message.clone());
                        shared.push(message);
                        assert_eq!(shared.common_start(&before).is_some(), is_at_end);
                        check(&Pair { shared: before, plain: plain[..plain.len() - 1].to_vec() });
                    }
                    Change::Share if count < 6 => {
                        let copy = Pair { shared: shared.clone(), plain: plain.clone() };
                        histories.push(copy);
                    }
                    Change::Drop if count > 1 => drop(histories.swap_remove(of)),
                    Change::Share | Change::Drop => {}
                    Change::Slice => assert_eq!(shared.as_slice(), *plain),
                    Change::Pop => assert_eq!(shared.as_mut().pop(), plain.pop()),
                    Change::InsertFirst => {
                        shared.as_mut().insert(0, message.clone());
                        plain.insert(0, message);
                    }
                    Change::Fork(len) => {
                        plain.truncate(len);
                        *shared = Messages::from(plain.clone());
                    }
                }
                histories.iter().for_each(check);
                for (one, other) in histories.iter().flat_map(|one| histories.iter().map(move |other| (one, other))) {
                    assert_eq!(one.shared == other.shared, one.plain == other.plain);
                    if let Some(start) = one.shared.common_start(&other.shared) {
                        assert_eq!(one.plain[..start], other.plain[..], "what was appended to is the same");
                    }
                }
            }
        }
    }

    /// Address of the message's text, which a copy of the message would not have.
    fn text_of(message: &Message) -> *const u8 {
        message.text().as_ptr()
    }

    #[test]
    fn pushes_to_a_shared_history_copy_no_message() {
        let mut history = Messages::default();
        let mut shares = vec![history.clone()];
        let mut texts = Vec::new();
        for n in 0..10_000 {
            let message = Message::user(n.to_string());
            texts.push(text_of(&message));
            history.push(message);
            assert_eq!(history.common_start(&shares[n]), Some(n));
            shares.push(history.clone());
        }
        for (n, share) in shares.iter().enumerate() {
            assert_eq!(share.len(), n);
            assert_eq!(share.iter().next_back().map(text_of), n.checked_sub(1).map(|last| texts[last]));
        }
        assert!(history.iter().map(text_of).eq(texts.iter().copied()));
        // Once one history is left it has one slice, of the same messages.
        drop(shares);
        history.push(Message::user("the last"));
        assert!(history.as_slice().iter().map(text_of).take(texts.len()).eq(texts));
    }

    #[test]
    fn of_two_histories_at_the_end_one_grows_in_place() {
        let mut history = Messages::default();
        history.push(Message::user("one"));
        for _ in 0..50 {
            let (kept, mut rival) = (history.clone(), history.clone());
            std::thread::scope(|scope| {
                scope.spawn(|| rival.push(Message::user("rival")));
                history.push(Message::user("own"));
            });
            let in_place = [&history, &rival].map(|grown| grown.common_start(&kept).is_some());
            assert!(in_place[0] != in_place[1], "{in_place:?}");
            assert_eq!(history.iter().next_back(), Some(&Message::user("own")));
            assert_eq!(rival.iter().next_back(), Some(&Message::user("rival")));
        }
    }
}
