//! What a turn, or a build without a turn, holds from its admission to its end, and the order in which it gives that back.
//!
//! **Invariant.** The guards of a turn move as one value: from the caller, with the command, to the session thread. So every way out
//! of a turn gives back all of them.

use crate::turn::outcome::{Answer, TurnResult};
use crate::wait::cancel::CancelToken;
use crate::wait::deadline::DeadlineGuard;
use crate::wait::own_thread::RunningPermit;

use super::handle::{ActiveEntry, Admission};

/// The guards of an admitted turn.
///
/// **The order of the fields is the order in which a turn gives them back.** [`give_back`](Self::give_back) follows it, and so does a
/// drop, on every other way out:
///
/// 1. The deadline is taken back: it does not cancel what comes next.
/// 2. The token is sealed and the active entry cleared: no interrupt finds the turn any more.
/// 3. The running permit goes to the next turn that waits for one.
/// 4. The gate opens: the session's next turn can be admitted. Opened before the entry is cleared, the late end of this turn would
///    remove the token of the next one.
/// 5. The caller gets the result, and can start the next turn at once.
///
/// A turn that has a context drops it before all of these: its event channel disconnects first.
#[derive(Debug)]
pub(crate) struct TurnGuards {
    deadline: Option<DeadlineGuard>,
    active: ActiveEntry,
    /// `None` before the turn runs, and between two interactions of host mode.
    permit: Option<RunningPermit>,
    admission: Admission,
    answer: Answer,
}

/// The guards of a build without a turn, in the order in which they are given back.
#[derive(Debug)]
pub(crate) struct BuildGuards {
    active: ActiveEntry,
    admission: Admission,
}

impl TurnGuards {
    pub(crate) fn new(
        deadline: Option<DeadlineGuard>,
        active: ActiveEntry,
        admission: Admission,
        answer: Answer,
    ) -> Self {
        Self { deadline, active, permit: None, admission, answer }
    }

    /// The session thread has taken the turn up.
    pub(super) fn pick_up(&mut self) {
        self.admission.pick_up();
    }

    /// Keeps the running permit until its place in the order of the end.
    pub(super) fn set_permit(&mut self, permit: RunningPermit) {
        self.permit = Some(permit);
    }

    /// Gives the running permit back between two interactions. `cancel`, the turn's own token, ends the agent's waits meanwhile.
    pub(super) fn release_permit(&mut self, cancel: &CancelToken) {
        if let Some(permit) = self.permit.take() {
            permit.release_between_interactions(cancel);
        }
    }

    /// Decides what the caller will get.
    pub(super) fn prepare_answer(&self, result: TurnResult) {
        self.answer.prepare(result);
    }

    /// Gives everything back but the answer, for which the caller still waits.
    pub(super) fn give_back(self) -> Answer {
        // Moved out one by one: where one of them unwinds, the fields that are left are dropped in their order.
        if let Some(deadline) = self.deadline {
            deadline.take_back();
        }
        self.active.clear();
        if let Some(permit) = self.permit {
            permit.release();
        }
        self.admission.give_back();
        self.answer
    }
}

impl BuildGuards {
    pub(crate) fn new(active: ActiveEntry, admission: Admission) -> Self {
        Self { active, admission }
    }

    /// The session thread has taken the build up.
    pub(super) fn pick_up(&mut self) {
        self.admission.pick_up();
    }

    /// Gives everything back: no cancellation reaches the build any more, and the gate shows no turn.
    pub(super) fn give_back(self) {
        self.active.clear();
        self.admission.give_back();
    }
}
