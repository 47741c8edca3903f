//! The gate: one atomic word that decides whether a turn is admitted.

use crate::model::TurnId;
use crate::sync::{AtomicU64, Ordering};

const RUNNING: u64 = 1;
const CLOSED: u64 = 2;
const BUILDING: u64 = 4;
const FAULTED: u64 = 8;
const WAITING: u64 = 16;
/// How often WAITING was set, a turn left the queue, and a restart began, since the last turn was accepted; modulo 256.
const CHANGES: u64 = 0xff << CHANGES_SHIFT;
const CHANGES_SHIFT: u32 = 5;
const TURN: u32 = 13;

/// The number of the last accepted turn, a count of changes, and five flags. Turn numbers have 51 bits.
///
/// A turn is *accepted* when it gets its number. It is *admitted* when it gets the right to run. A turn that finds the
/// session idle gets both at once; a queued turn is accepted first, and admitted by the end of the turn before it.
///
/// The count makes the word different after each wait for input, after each turn that leaves the queue and after each
/// restart. So a reader that loads the word twice notices these changes.
///
/// | Flags | What may happen |
/// |---|---|
/// | BUILDING, RUNNING | the session thread builds the agent, for the first time or for a restart; the first turn, if there is one, is admitted already. The turn whose fault led to the restart may not have ended yet |
/// | none | any thread may admit the next turn, with one compare-and-set |
/// | RUNNING | a turn is admitted; the admission belongs to its caller until the command is sent, then to the session thread. Any thread may accept another turn and queue it, under the lock of the session's admissions |
/// | BUILDING | the build has failed and the session is about to end |
/// | RUNNING, WAITING | the admitted turn has asked its host for input, and has no answer yet |
/// | FAULTED | no turn may run; exports are answered; any thread may begin a restart, under the lock of the session's admissions |
/// | FAULTED, RUNNING | the same; the turn that has faulted is about to end, and a restart begins after it |
/// | CLOSED | no turn may be accepted; without RUNNING no turn is queued, and the session thread ends |
///
/// CLOSED is never cleared. FAULTED is cleared, and BUILDING set again, by a restart alone.
#[derive(Debug)]
pub(crate) struct Gate(AtomicU64);

/// The value of the gate at some instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GateState(u64);

/// Why a turn is not admitted or accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Closed,
    Faulted,
    /// The turn's number is not reserved yet.
    Unreserved {
        /// The last turn that was accepted.
        last: u64,
    },
    /// Another turn is admitted, or the agent is built. The session's active entry names the turn.
    Busy,
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
        self.take_number(reserved, |seen| seen.refusal().map(|()| RUNNING))
    }

    /// Accepts a turn for the queue of a session with an admitted turn, if its number is at most `reserved`, or returns
    /// why not. Called under the lock of the session's admissions, which keeps RUNNING set.
    pub(crate) fn accept(&self, reserved: u64) -> Result<TurnId, Refusal> {
        self.take_number(reserved, |seen| {
            seen.final_refusal()?;
            // Without RUNNING the build has failed, and the session is about to end.
            if seen.is_running() {
                Ok(seen.0 & !(u64::MAX << TURN))
            } else {
                Err(Refusal::Closed)
            }
        })
    }

    /// Takes the next turn number, and stores the rest of the word that `next` returns.
    fn take_number(&self, reserved: u64, next: impl Fn(GateState) -> Result<u64, Refusal>) -> Result<TurnId, Refusal> {
        let mut seen = self.state();
        loop {
            let rest = next(seen)?;
            let number = seen.turns() + 1;
            if number > reserved {
                return Err(Refusal::Unreserved { last: seen.turns() });
            }
            let next = number << TURN | rest;
            match self.0.compare_exchange_weak(seen.0, next, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Ok(TurnId::new(number)),
                Err(other) => seen = GateState(other),
            }
        }
    }

    /// A turn has left the queue, admitted or withdrawn. Called under the lock of the session's admissions.
    pub(crate) fn count_unqueued(&self) {
        // It always stores: `count_change` returns no `None`.
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |gate| Some(count_change(gate)));
    }

    /// Ends the build of the agent. Returns the state right afterwards.
    pub(crate) fn end_build(&self) -> GateState {
        self.clear(BUILDING)
    }

    /// Ends the build of a session that was opened without a turn, and with it RUNNING. Returns the state right
    /// afterwards.
    pub(crate) fn end_opening(&self) -> GateState {
        self.clear(BUILDING | RUNNING)
    }

    /// Ends the admitted turn, run or not, where no turn is queued. Returns the state right afterwards.
    pub(crate) fn end_turn(&self) -> GateState {
        self.clear(RUNNING)
    }

    fn clear(&self, flags: u64) -> GateState {
        GateState(self.0.fetch_and(!flags, Ordering::SeqCst) & !flags)
    }

    /// The admitted turn waits for input. Called under the lock of the turn's input requests.
    pub(crate) fn begin_waiting(&self) {
        let wait = |gate: u64| Some(count_change(gate) | WAITING);
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

    /// Begins the restart of a faulted session: in one exchange FAULTED becomes BUILDING and RUNNING. Returns whether the
    /// turn that has faulted is still admitted. A gate that is not faulted, or is closed, stays as it is and is returned.
    /// Called under the lock of the session's admissions.
    pub(crate) fn restart(&self) -> Result<bool, GateState> {
        let restart = |gate: u64| {
            let is_faulted = gate & (FAULTED | CLOSED) == FAULTED;
            is_faulted.then(|| count_change(gate) & !FAULTED | BUILDING | RUNNING)
        };
        let before = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, restart);
        before.map(|gate| GateState(gate).is_running()).map_err(GateState)
    }

    /// Ends a restart whose build has failed, where no turn is queued: the session is faulted again. Returns the state
    /// right afterwards.
    pub(crate) fn fail_restart(&self) -> GateState {
        let fail = |gate: u64| gate & !(BUILDING | RUNNING) | FAULTED;
        // It always stores: the closure returns no `None`.
        let before = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |gate| Some(fail(gate)));
        GateState(fail(before.unwrap_or_else(|gate| gate)))
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

    /// Closes the gate if a turn would be admitted now. Returns whether this call closed it.
    pub(crate) fn close_if_ready(&self) -> bool {
        let close = |gate: u64| GateState(gate).refusal().is_ok().then_some(gate | CLOSED);
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, close).is_ok()
    }
}

impl GateState {
    /// Returns why a turn would be refused now, and ever after unless the session is restarted.
    pub(crate) fn final_refusal(self) -> Result<(), Refusal> {
        if self.is_closed() {
            Err(Refusal::Closed)
        } else if self.is_faulted() {
            Err(Refusal::Faulted)
        } else {
            Ok(())
        }
    }

    /// Returns why a turn would not be admitted now.
    pub(crate) fn refusal(self) -> Result<(), Refusal> {
        self.final_refusal()?;
        if self.is_busy() {
            Err(Refusal::Busy)
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

    /// The number of turns ever accepted.
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

/// The gate with its count of changes raised by one.
fn count_change(gate: u64) -> u64 {
    (gate & !CHANGES) | ((gate + (1 << CHANGES_SHIFT)) & CHANGES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_turn_at_a_time_and_none_after_the_close() {
        let gate = Gate::building(0, Some(TurnId::new(1)));
        assert!(gate.state().is_building());
        assert_eq!(gate.admit(u64::MAX), Err(Refusal::Busy));
        gate.end_build();
        assert!(gate.state().is_running() && !gate.state().is_building());
        assert!(!gate.close_if_idle());
        gate.end_turn();
        assert_eq!(gate.admit(u64::MAX), Ok(TurnId::new(2)));
        assert_eq!(gate.admit(u64::MAX), Err(Refusal::Busy));
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

    #[test]
    fn c56_a_restart_begins_at_a_faulted_gate_once_and_leaves_another_value() {
        let gate = Gate::building(0, Some(TurnId::new(1)));
        gate.end_build();
        assert_eq!(gate.restart(), Err(gate.state()));
        gate.fault();
        let faulted = gate.state();
        // The turn has not ended.
        assert_eq!(gate.restart(), Ok(true));
        assert!(gate.state().is_building() && gate.state().is_running() && !gate.state().is_faulted());
        assert_eq!(gate.restart(), Err(gate.state()));
        assert_eq!(gate.admit(u64::MAX), Err(Refusal::Busy));
        assert_eq!(gate.accept(u64::MAX), Ok(TurnId::new(2)));
        let failed = gate.fail_restart();
        assert_eq!((failed, failed.is_faulted(), failed.is_busy()), (gate.state(), true, false));
        assert_ne!(failed, faulted);
        assert_eq!(gate.restart(), Ok(false));
        gate.end_opening();
        assert_eq!(gate.admit(u64::MAX), Ok(TurnId::new(3)));
        gate.fault();
        gate.close();
        assert_eq!(gate.restart(), Err(gate.state()));
        assert!(gate.state().is_faulted());
    }

    #[test]
    fn a_queued_turn_takes_a_number_and_leaves_every_flag() {
        let gate = Gate::building(0, None);
        assert_eq!(gate.accept(u64::MAX), Ok(TurnId::new(1)));
        assert!(gate.state().is_building() && gate.state().is_running());
        assert_eq!(gate.accept(1), Err(Refusal::Unreserved { last: 1 }));
        gate.end_build();
        let before = gate.state();
        (0..255).for_each(|_| gate.count_unqueued());
        assert_ne!(gate.state(), before);
        assert_eq!((gate.state().turns(), gate.state().is_running()), (1, true));
        gate.begin_waiting();
        assert_eq!(gate.accept(u64::MAX), Ok(TurnId::new(2)));
        assert!(gate.state().is_waiting());
        gate.fault();
        assert_eq!(gate.accept(u64::MAX), Err(Refusal::Faulted));
        gate.close();
        assert_eq!(gate.accept(u64::MAX), Err(Refusal::Closed));
    }

    #[test]
    fn a_session_that_ends_after_a_failed_build_accepts_no_turn() {
        let gate = Gate::building(0, None);
        gate.end_turn();
        assert_eq!(gate.accept(u64::MAX), Err(Refusal::Closed));
        assert_eq!(gate.admit(u64::MAX), Err(Refusal::Busy));
    }
}
