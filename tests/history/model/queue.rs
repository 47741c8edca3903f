//! Turns that leave the queue of their session without being admitted.

use turnwise::CancelReason;

use super::state::{By, State, Withdrawn};
use super::{Facts, Stage};
use crate::answers::Ending;
use crate::history::Uid;

impl State {
    /// Takes a turn out of the queue.
    pub(super) fn withdraw(&mut self, uid: Uid, by: By) {
        let is_taken = |turn: &Withdrawn| turn.uid == uid;
        let taken: Vec<Withdrawn> = self.queue.iter().map(|turn| turn.withdrawn(by)).filter(is_taken).collect();
        self.queue.retain(|turn| turn.uid != uid);
        self.withdrawn.extend(taken);
    }

    /// Takes all turns out of the queue.
    pub(super) fn withdraw_all(&mut self, by: By) {
        let Self { queue, withdrawn, .. } = self;
        withdrawn.extend(queue.drain(..).map(|turn| turn.withdrawn(by)));
    }

    /// The place of the turn that is answered next, of those that were withdrawn by `by`.
    pub(super) fn first_withdrawn(&self, by: By) -> Option<usize> {
        self.withdrawn.iter().position(|turn| turn.by == by)
    }

    /// Answers a withdrawn turn. `None` if its callers got another result, or if its receiver got events.
    pub(super) fn answer(&mut self, place: usize, ending: Ending, facts: &Facts) -> Option<()> {
        let turn = self.withdrawn.remove(place);
        facts.allow(turn.uid, ending, false)
    }
}

impl super::state::Queued {
    fn withdrawn(&self, by: By) -> Withdrawn {
        Withdrawn { uid: self.uid, by, reason: self.reason }
    }
}

/// Answers the next turn of the batch as cancelled, for the reason that came first. The stage is `None` when no turn of
/// the batch is left.
pub(super) fn answer_batch(
    state: &State,
    stage: Stage,
    reason: CancelReason,
    facts: &Facts,
) -> Option<(State, Option<Stage>)> {
    let Stage::Answering { batch, .. } = stage else { return None };
    let by = By::Call(batch);
    let mut next = state.clone();
    let place = next.first_withdrawn(by)?;
    let reason = next.withdrawn[place].reason.unwrap_or(reason);
    next.answer(place, Ending::Cancelled(reason), facts)?;
    let is_through = next.first_withdrawn(by).is_none();
    Some((next, (!is_through).then_some(stage)))
}

/// The next step of a close that cancels, after it has closed the gate: it takes the queue, then cancels the admitted
/// turn, then answers the turns of the queue one by one. The stage is `None` when the close is done.
///
/// A caller sees these steps: a read may find no queued turn before the admitted turn is cancelled, and one queued turn
/// is answered while the next can still be interrupted by its handle.
pub(super) fn cancel_all(
    state: &State,
    stage: Stage,
    reason: CancelReason,
    facts: &Facts,
) -> Option<(State, Option<Stage>)> {
    match stage {
        // Without a queued turn nothing shows when the queue is taken. No turn follows the admitted one either.
        Stage::Closing { life } if state.is_gone(life) || state.queue.is_empty() => {
            Some((state.told_to_stop(life, reason), None))
        }
        Stage::Closing { life } => {
            let mut next = state.clone();
            let batch = state.queue[0].uid;
            next.withdraw_all(By::Call(batch));
            let uid = state.turn.map_or(0, |turn| turn.uid);
            Some((next, Some(Stage::Cancelling { life, uid, batch })))
        }
        Stage::Cancelling { life, uid, batch } => {
            Some((state.cancelled(uid, reason), Some(Stage::Answering { life, batch })))
        }
        _ => answer_batch(state, stage, reason, facts),
    }
}
