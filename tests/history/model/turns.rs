//! Calls that start, await and interrupt turns.

use turnwise::{CancelReason, WhenBusy};

use super::queue::answer_batch;
use super::state::{By, Life, Queued, State};
use super::{done, Facts, Next, Stage};
use crate::answers::{Begun, Ending, Refused};
use crate::history::Uid;

/// The request of a turn.
#[derive(Clone, Copy)]
pub(super) struct Request {
    pub(super) uid: Uid,
    pub(super) host: bool,
    pub(super) when_busy: WhenBusy,
}

pub(super) fn begin(
    state: &State,
    request: Request,
    answer: Result<Begun, Refused>,
    stage: Stage,
    facts: &Facts,
) -> Next {
    let may_queue = request.when_busy != WhenBusy::Refuse;
    let (open, busy) = (state.visible().is_ok() && !state.faulted, state.is_busy());
    match (stage, answer) {
        (Stage::Waiting { .. }, _) => state.if_so(!state.has_turn(request.uid)),
        // The contract has one step here. There are two, since hooks run on the caller: the turn is queued, and then the
        // admitted turn is cancelled. A turn that ends in between is not superseded, and nor is the next one.
        (Stage::Cancelling { life, uid, .. }, Ok(begun)) => {
            Some((state.cancelled(uid, CancelReason::Superseded), after_begin(begun, life)))
        }
        (_, Ok(begun)) => accept(state, request, begun, facts),
        (_, Err(Refused::Busy(turn))) => {
            state.if_so(!may_queue && open && busy && turn == state.turn.map(|turn| turn.number))
        }
        (_, Err(Refused::QueueFull(capacity))) => {
            let is_full = capacity == facts.turn_queue && state.queue.len() >= capacity;
            state.if_so(may_queue && open && busy && is_full && state.life != Life::QueueEnded)
        }
        (_, Err(Refused::Faulted)) => state.if_so(state.visible().is_ok() && state.faulted),
        (_, Err(Refused::NotFound)) => {
            // After a failed build the session is about to end, and is still shown as `Building`.
            let has_ended = state.visible().is_err() || (may_queue && state.life == Life::QueueEnded);
            state.if_so(has_ended && !state.shut)
        }
        (_, Err(Refused::ShuttingDown)) => state.if_so(state.shut),
        _ => None,
    }
}

fn after_begin(begun: Begun, life: u16) -> Stage {
    if begun.ended {
        Stage::Waiting { life }
    } else {
        Stage::Done
    }
}

/// Admits a turn to an idle session, or queues it.
fn accept(state: &State, request: Request, begun: Begun, facts: &Facts) -> Next {
    let Request { uid, host, when_busy } = request;
    if state.visible().is_err() {
        return None;
    }
    if state.faulted {
        // A call that waits gets the same error from a refusal and from a fault that ends the queue. This is a refusal.
        let may_be_refused = begun.ended && facts.results.get(&uid) == Some(&Ending::Panicked);
        return state.if_so(may_be_refused && !facts.ran.contains(&uid));
    }
    let mut next = state.clone();
    next.number += 1;
    if begun.number.is_some_and(|number| number != next.number) {
        return None;
    }
    let turn = Queued { uid, number: next.number, host, reason: None };
    let stage = after_begin(begun, state.lives);
    if !state.is_busy() {
        next.admit(turn, facts)?;
        return Some((next, stage));
    }
    if state.queue.len() >= facts.turn_queue || state.life == Life::QueueEnded {
        return None;
    }
    match (when_busy, state.turn) {
        (WhenBusy::Queue, _) => next.queue.push(turn),
        (WhenBusy::Interrupt, Some(admitted)) => {
            next.queue.insert(0, turn);
            return Some((next, Stage::Cancelling { life: state.lives, uid: admitted.uid, batch: 0 }));
        }
        (WhenBusy::Interrupt, None) => next.queue.insert(0, turn),
        _ => return None,
    }
    Some((next, stage))
}

/// Whether a poll may find turn `uid` unanswered.
pub(super) fn may_be_unanswered(state: &State, uid: Uid, facts: &Facts) -> bool {
    // A turn gets its answer after its session is free, and before the session thread does anything else. The session
    // thread answers the turns of a failed build last, after the session is gone.
    state.has_turn(uid) || state.ended_last == uid || facts.results.get(&uid) == Some(&Ending::NotBuilt)
}

pub(super) fn interrupt(
    state: &State,
    only: Option<u64>,
    answer: Result<(), Refused>,
    stage: Stage,
    facts: &Facts,
) -> Next {
    match stage {
        Stage::New if answer == Err(Refused::NotFound) => state.if_so(state.visible().is_err()),
        Stage::New => state.find(),
        Stage::Found { life } => {
            let is_meant = |number| !state.is_gone(life) && only.is_none_or(|only| only == number);
            let admitted = state.turn.filter(|turn| is_meant(turn.number));
            // Without a number it reaches the admitted turn alone.
            let queued = only.and_then(|_| state.queue.iter().find(|turn| is_meant(turn.number)));
            match (admitted, queued, answer) {
                (Some(turn), _, Ok(())) => Some((state.clone(), Stage::Cancelling { life, uid: turn.uid, batch: 0 })),
                (None, Some(turn), Ok(())) => {
                    let (mut next, batch) = (state.clone(), turn.uid);
                    next.withdraw(batch, By::Call(batch));
                    Some((next, Stage::Answering { life, batch }))
                }
                (None, None, Err(Refused::NotRunning)) => done(state.clone()),
                _ => None,
            }
        }
        Stage::Cancelling { uid, .. } => done(state.cancelled(uid, CancelReason::Interrupted)),
        _ => answered(state, stage, facts),
    }
}

/// An interrupt cancels the turn's token first. If the turn is queued, the interrupt then takes it out of the queue. If
/// the turn is admitted in between, it is an admitted turn that is cancelled.
pub(super) fn interrupt_by_handle(state: &State, uid: Uid, stage: Stage, facts: &Facts) -> Next {
    let life = state.lives;
    match stage {
        Stage::New => {
            let stage = if state.is_queued(uid) { Stage::Found { life } } else { Stage::Done };
            Some((state.cancelled(uid, CancelReason::Interrupted), stage))
        }
        Stage::Found { .. } if state.is_queued(uid) => {
            let mut next = state.clone();
            next.withdraw(uid, By::Call(uid));
            Some((next, Stage::Answering { life, batch: uid }))
        }
        Stage::Found { .. } => done(state.clone()),
        _ => answered(state, stage, facts),
    }
}

fn answered(state: &State, stage: Stage, facts: &Facts) -> Next {
    let (next, stage) = answer_batch(state, stage, CancelReason::Interrupted, facts)?;
    Some((next, stage.unwrap_or(Stage::Done)))
}
