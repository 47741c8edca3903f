//! Where the sessions of a service have what a list looks at, side by side in the order of their making.
//!
//! A list of ten thousand sessions looks into ten thousand handles, if that is where it has to look; each lies somewhere else,
//! and the processor waits for most of them. Here they lie where the next one is expected.

use std::ops::Deref;

use crate::model::{SessionSnapshot, TurnId};
use crate::sync::{Arc, Mutex, OnceLock};

use super::figures::{Figures, FiguresCell};
use super::gate::{Gate, GateState};

/// What everybody may see of a session at any time.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) gate: Gate,
    pub(crate) figures: FiguresCell,
}

/// Gives out places.
///
/// A place is never given out twice: a board goes when the last session on it has gone, and until then it keeps the places of
/// those that have gone before: two kilobytes at most for a live session, which itself takes ten times as much. So nothing is here
/// that could be larger, such as labels.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    last: Mutex<Option<(Arc<Board>, usize)>>,
}

/// A session's place on the shelf.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    board: Arc<Board>,
    slot: usize,
}

const SLOTS: usize = 16;

#[derive(Debug)]
struct Board([Slot; SLOTS]);

/// With the cache lines to itself: sessions that run at the same time do not get into each other's way. Two of them, since
/// processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Slot(OnceLock<Status>);

impl Status {
    /// Of a session that is being built after `turns` turns of lives before, with its next turn admitted or without it.
    pub(crate) fn building(turns: u64, first: Option<TurnId>, snapshot: &SessionSnapshot) -> Self {
        Self { gate: Gate::building(turns, first), figures: FiguresCell::new(Figures::of(snapshot)) }
    }

    /// State and figures of one instant, by one look and with no lock; `None` where something changes just then.
    #[inline]
    pub(crate) fn glance(&self) -> Option<(GateState, Figures)> {
        let before = self.gate.state();
        let figures = self.figures.get()?;
        (self.gate.state() == before).then_some((before, figures))
    }
}

impl Shelf {
    /// The next place, for this.
    pub(crate) fn place(&self, status: Status) -> Place {
        let place = {
            let mut last = self.last.lock();
            let (board, slot) = match last.take() {
                Some((board, slot)) if slot + 1 < SLOTS => (board, slot + 1),
                _ => (Arc::new(Board(std::array::from_fn(|_| Slot(OnceLock::new())))), 0),
            };
            *last = Some((Arc::clone(&board), slot));
            Place { board, slot }
        };
        place.board.0[place.slot].0.get_or_init(|| status);
        place
    }
}

impl Deref for Place {
    type Target = Status;

    #[inline]
    #[allow(clippy::expect_used)] // The slot is filled before the place is given out.
    fn deref(&self) -> &Status {
        self.board.0[self.slot].0.get().expect("a filled slot")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Session;

    #[test]
    fn everybody_has_a_place_of_their_own_and_boards_go_with_the_last_on_them() {
        let (shelf, snapshot) = (Shelf::default(), SessionSnapshot::from(&Session::new()));
        let place = |turns| shelf.place(Status::building(0, Some(TurnId::new(turns)), &snapshot));
        let places: Vec<_> = (0..5 * SLOTS as u64).map(place).collect();
        for (number, place) in (0..).zip(&places) {
            place.gate.end_build();
            assert_eq!(place.gate.state().turns(), number);
        }
        let boards: Vec<_> = places.iter().map(|place| Arc::downgrade(&place.board)).collect();
        let kept = places[SLOTS + 3].clone();
        drop(places);
        let is_there: Vec<_> = boards.iter().map(|board| board.upgrade().is_some()).collect();
        // The one with the place that is kept, and the last, which gives out the next place.
        let expected = [false, true, false, false, true];
        assert_eq!(is_there, expected.map(|is_there| [is_there; SLOTS]).concat());
        assert_eq!(kept.gate.state().turns(), SLOTS as u64 + 3);
    }
}
