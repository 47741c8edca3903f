//! The result of a read of a queue.

/// The next item of a queue.
#[derive(Clone, Debug, PartialEq)]
pub enum Next<T> {
    /// An item.
    Event(T),
    /// There is none yet.
    Empty,
    /// There will be none.
    End,
}

impl<T> Next<T> {
    /// Converts the item.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Next<U> {
        match self {
            Self::Event(item) => Next::Event(map(item)),
            Self::Empty => Next::Empty,
            Self::End => Next::End,
        }
    }
}
