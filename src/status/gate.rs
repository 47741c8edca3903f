//! The gate: one atomic word that decides whether a turn is admitted.

use crate::model::TurnId;
use crate::sync::{AtomicU64, Ordering};

const RUNNING: u64 = 1;
const CLOSED: u64 = 2;
const BUILDING: u64 = 4;
const FAULTED: u64 = 8;
const WAITING: u64 = 16;
/// The number of times that WAITING was set in this turn, modulo 256.
const WAITS: u64 = 0xff << WAITS_SHIFT;
const WAITS_SHIFT: u32 = 5;
const TURN: u32 = 13;

/// The number of the last admitted turn, a count of its waits for input, and five flags. Turn numbers have 51 bits.
///
/// The count makes the word different after each wait, so that a reader that loads it twice notices a change.
///
/// | Flags | What may happen |
/// |---|---|
/// | BUILDING, RUNNING | the session thread builds the agent; the first turn, if there is one, is admitted already |
/// | none | any thread may admit the next turn, with one compare-and-set |
/// | RUNNING | a turn is admitted; the admission belongs to its caller until the command is sent, then to the session thread |
/// | BUILDING | the build has failed and the session is about to end; or a build without a turn is about to end |
/// | RUNNING, WAITING | the admitted turn has asked its host for input, and has no answer yet |
/// | FAULTED | no turn may run; exports are answered |
/// | CLOSED | no turn may be admitted; without RUNNING the session thread ends |
///
/// CLOSED and FAULTED are never cleared, BUILDING is never set again.
#[derive(Debug)]
pub(crate) struct Gate(AtomicU64);

/// The value of the gate at some instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GateState(u64);

/// Why a turn is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Closed,
    Faulted,
    /// The turn's number is not reserved yet.
    Unreserved {
        /// The last turn that was admitted.
        last: u64,
    },
    Busy {
        /// The admitted turn. `None` while the agent is built; the session's active entry knows it then.
        turn: Option<TurnId>,
    },
}

impl Gate {
    /// The gate of a session that is being built. `turns` is the number of turns of earlier lives, and `first` the
    /// admitted turn, if there is one.
    pub(crate) fn building(turns: u64, first: Option<TurnId>) -> Self {
        let number = first.map_or(turns, TurnId::get);
        Self(AtomicU64::new(number << TURN | BUILDING | RUNNING))
    }

    #[inline]
    pub(crate) fn state(&self) -> GateState {
        GateState(self.0.load(Ordering::SeqCst))
    }

    /// Admits the next turn if its number is at most `reserved`, or returns why not. Of several concurrent calls one
    /// succeeds.
    pub(crate) fn admit(&self, reserved: u64) -> Result<TurnId, Refusal> {
        let mut seen = self.state();
        loop {
            seen.refusal()?;
            let number = seen.turns() + 1;
            if number > reserved {
                return Err(Refusal::Unreserved { last: seen.turns() });
            }
            let next = number << TURN | RUNNING;
            match self.0.compare_exchange_weak(seen.0, next, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Ok(TurnId::new(number)),
                Err(other) => seen = GateState(other),
            }
        }
    }

    /// Ends the build of the agent. Returns the state right afterwards.
    pub(crate) fn end_build(&self) -> GateState {
        GateState(self.0.fetch_and(!BUILDING, Ordering::SeqCst) & !BUILDING)
    }

    /// Ends the admitted turn, run or not. Returns the state right afterwards.
    pub(crate) fn end_turn(&self) -> GateState {
        GateState(self.0.fetch_and(!RUNNING, Ordering::SeqCst) & !RUNNING)
    }

    /// The admitted turn waits for input. Called under the lock of the turn's input requests.
    pub(crate) fn begin_waiting(&self) {
        let wait = |gate: u64| Some((gate & !WAITS) | ((gate + (1 << WAITS_SHIFT)) & WAITS) | WAITING);
        // It always stores: `wait` returns no `None`.
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, wait);
    }

    /// The admitted turn waits for no input any more. Called under the lock of the turn's input requests.
    pub(crate) fn end_waiting(&self) {
        self.0.fetch_and(!WAITING, Ordering::SeqCst);
    }

    /// Faults the session: no turn is admitted any more.
    pub(crate) fn fault(&self) {
        self.0.fetch_or(FAULTED, Ordering::SeqCst);
    }

    /// Closes the gate. Returns whether this call closed it.
    pub(crate) fn close(&self) -> bool {
        !GateState(self.0.fetch_or(CLOSED, Ordering::SeqCst)).is_closed()
    }

    /// Closes the gate if no turn is admitted. Returns whether this call closed it.
    pub(crate) fn close_if_idle(&self) -> bool {
        let close = |gate: u64| (gate & (RUNNING | CLOSED) == 0).then_some(gate | CLOSED);
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, close).is_ok()
    }
}

impl GateState {
    /// Returns why a turn would be refused now.
    pub(crate) fn refusal(self) -> Result<(), Refusal> {
        if self.is_closed() {
            Err(Refusal::Closed)
        } else if self.is_faulted() {
            Err(Refusal::Faulted)
        } else if self.is_busy() {
            Err(Refusal::Busy { turn: (!self.is_building()).then(|| TurnId::new(self.turns())) })
        } else {
            Ok(())
        }
    }

    pub(crate) fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    pub(crate) fn is_running(self) -> bool {
        self.0 & RUNNING != 0
    }

    /// Whether the admitted turn waits for input.
    pub(crate) fn is_waiting(self) -> bool {
        self.0 & WAITING != 0
    }

    /// Whether the session builds its agent or runs a turn.
    pub(crate) fn is_busy(self) -> bool {
        self.0 & (RUNNING | BUILDING) != 0
    }

    /// The number of turns ever admitted.
    #[inline]
    pub(crate) fn turns(self) -> u64 {
        self.0 >> TURN
    }

    pub(crate) fn is_building(self) -> bool {
        self.0 & BUILDING != 0
    }

    pub(crate) fn is_faulted(self) -> bool {
        self.0 & FAULTED != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_turn_at_a_time_and_none_after_the_close() {
        let gate = Gate::building(0, Some(TurnId::new(1)));
        assert!(gate.state().is_building());
        assert_eq!(gate.admit(u64::MAX), Err(Refusal::Busy { turn: None }));
        gate.end_build();
        assert!(gate.state().is_running() && !gate.state().is_building());
        assert!(!gate.close_if_idle());
        gate.end_turn();
        assert_eq!(gate.admit(u64::MAX), Ok(TurnId::new(2)));
        assert_eq!(gate.admit(u64::MAX), Err(Refusal::Busy { turn: Some(TurnId::new(2)) }));
        assert!(gate.close());
        assert!(!gate.close());
        gate.end_turn();
        assert_eq!(gate.admit(u64::MAX), Err(Refusal::Closed));
        assert!(!gate.close_if_idle());
    }

    #[test]
    fn a_faulted_gate_admits_no_turn_and_can_be_closed() {
        let gate = Gate::building(0, None);
        gate.end_build();
        gate.end_turn();
        assert_eq!(gate.admit(u64::MAX), Ok(TurnId::new(1)));
        gate.fault();
        assert_eq!(gate.admit(u64::MAX), Err(Refusal::Faulted));
        gate.end_turn();
        assert_eq!(gate.admit(u64::MAX), Err(Refusal::Faulted));
        assert!(gate.state().is_faulted());
        assert!(gate.close_if_idle());
        assert_eq!(gate.admit(u64::MAX), Err(Refusal::Closed));
    }
}
