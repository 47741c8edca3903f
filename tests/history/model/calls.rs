//! The possible answers of each call, and the state after it.

use turnwise::{ArchiveMode, CancelReason};

use super::queue::cancel_all;
use super::state::{Life, Phase, State};
use super::{done, Facts, Next, Stage};
use crate::answers::{Begun, Figures, Opened, Refused, View};
use crate::history::Uid;

pub(super) fn create(
    state: &State,
    uid: Uid,
    figures: Figures,
    host: Option<bool>,
    answer: Result<Begun, Refused>,
    stage: Stage,
    facts: &Facts,
) -> Next {
    if let Stage::Waiting { .. } = stage {
        return state.if_so(!state.has_turn(uid));
    }
    match answer {
        Ok(begun) => {
            if state.shut || state.is_registered() || begun.number.unwrap_or(1) != 1 {
                return None;
            }
            let created = state.created(uid, figures, host, facts)?;
            let stage = if begun.ended { Stage::Waiting { life: created.lives } } else { Stage::Done };
            Some((created, stage))
        }
        Err(Refused::ShuttingDown) => state.if_so(state.shut),
        Err(Refused::AlreadyExists) => state.if_so(!state.shut && state.is_registered()),
        Err(Refused::Capacity { .. }) => state.if_so(!state.shut && !state.is_registered()),
        Err(_) => None,
    }
}

pub(super) fn open(
    state: &State,
    uid: Uid,
    figures: Figures,
    answer: Result<(), Opened>,
    stage: Stage,
    facts: &Facts,
) -> Next {
    if let Err(Opened::Refused(refused)) = answer {
        return create(state, uid, figures, None, Err(refused), stage, facts);
    }
    match stage {
        Stage::New => {
            let begun = Begun { number: None, ended: false };
            let (created, _) = create(state, uid, figures, None, Ok(begun), stage, facts)?;
            let life = created.lives;
            Some((created, Stage::Waiting { life }))
        }
        Stage::Waiting { life } => {
            let gone = state.is_gone(life);
            state.if_so(match answer {
                Ok(()) => !gone && state.life == Life::Open && !state.closed,
                Err(Opened::NotBuilt) => gone,
                Err(Opened::Closed(Refused::NotFound)) => (gone || state.closed) && !state.shut,
                Err(Opened::Closed(Refused::ShuttingDown)) => (gone || state.closed) && state.shut,
                Err(_) => false,
            })
        }
        _ => None,
    }
}

/// A wait until the session is idle.
///
/// - `Ok`: the session was idle at an instant of the call.
/// - `NotFound`: it was closed or absent at an instant of the call. It may have been idle just before: the close may
///   come before the report of the idle instant.
/// - `Faulted`: it was open at the beginning, and faulted later. It may be closed by then, since a fault may come between
///   the first step of a close and the close's report.
/// - `TimedOut`: it was busy at an instant of the call. More is not certain: the waiting thread may be preempted between
///   its last look and its return. The player checks that the timeout has passed.
pub(super) fn wait_idle(state: &State, answer: Result<(), Refused>, stage: Stage) -> Next {
    let visible = state.visible().is_ok();
    match (stage, answer) {
        (Stage::New, Ok(())) => state.if_so(visible && !state.faulted && !state.is_busy()),
        (Stage::New, Err(Refused::NotFound)) => state.if_so(!visible),
        (Stage::New, Err(Refused::TimedOut)) => state.if_so(visible && !state.faulted && state.is_busy()),
        (Stage::New, Err(Refused::Faulted)) => state.find(),
        (Stage::Found { life }, Err(Refused::Faulted)) => state.if_so(!state.is_gone(life) && state.faulted),
        _ => None,
    }
}

pub(super) fn listed(state: &State, view: View, stage: Stage) -> Next {
    match stage {
        Stage::New => state.find(),
        Stage::Found { life } => {
            let mut is = if state.is_gone(life) { *state.ended.get(usize::from(life) - 1)? } else { state.view() };
            // A list does not have this figure.
            is.figures.last = view.figures.last;
            state.if_so(is == view)
        }
        _ => None,
    }
}

/// The history as of the last finished turn. The session thread commits it at the end of a turn or interaction, at some
/// instant after the publication of the figures, and before the result.
pub(super) fn history(state: &State, answer: Result<Figures, Refused>, stage: Stage) -> Next {
    match (stage, answer) {
        (Stage::New, _) if state.visible().is_ok() => state.find(),
        (Stage::New, Err(Refused::NotFound)) => done(state.clone()),
        (Stage::Found { life }, Ok(figures)) if state.is_gone(life) => {
            state.if_so(state.ended_with.get(usize::from(life) - 1) == Some(&figures))
        }
        (Stage::Found { .. }, Ok(figures)) => {
            let may_be_committed = state.turn.is_some_and(|turn| matches!(turn.phase, Phase::Hosting | Phase::Over(_)));
            state.if_so(figures == state.committed || (may_be_committed && figures == state.agent))
        }
        _ => None,
    }
}

pub(super) fn export(state: &State, answer: Result<Figures, Refused>, stage: Stage) -> Next {
    match (stage, answer) {
        (Stage::New, _) if state.visible().is_ok() => state.find(),
        (Stage::New, Err(Refused::NotFound)) => done(state.clone()),
        (Stage::Found { life }, Ok(figures)) => {
            state.if_so(!state.is_gone(life) && state.is_quiet() && state.agent == figures)
        }
        (Stage::Found { life }, Err(Refused::NotFound)) => state.if_so(state.answers_no_more(life)),
        _ => None,
    }
}

pub(super) fn take(state: &State, answer: Result<Figures, Refused>, stage: Stage) -> Next {
    // Host mode ends for a take only if no turn is queued behind it.
    let between_turns = state.turn.is_none_or(|turn| turn.phase == Phase::Hosting && state.queue.is_empty());
    match (stage, answer) {
        (Stage::New, _) if state.visible().is_ok() => state.find(),
        (Stage::New, Err(Refused::NotFound)) => done(state.clone()),
        (Stage::Found { life }, Ok(figures)) => {
            let free = state.life == Life::Open && !state.closed && between_turns;
            if state.is_gone(life) || !free || state.agent != figures {
                return None;
            }
            Some((State { closed: true, ..state.clone() }, Stage::Waiting { life }))
        }
        (Stage::Found { life }, Err(Refused::NotFound)) => {
            state.if_so(state.answers_no_more(life) || (state.closed && between_turns))
        }
        (Stage::Waiting { life }, _) => state.if_so(state.is_gone(life)),
        _ => None,
    }
}

pub(super) fn archive(
    state: &State,
    mode: ArchiveMode,
    answer: Result<(), Refused>,
    stage: Stage,
    facts: &Facts,
) -> Next {
    match (mode, answer, stage) {
        (ArchiveMode::Drain, Ok(()), _) => {
            state.visible().ok()?;
            done(State { closed: true, ..state.clone() })
        }
        (ArchiveMode::Drain, Err(Refused::NotFound), _) => state.if_so(state.visible().is_err()),
        (ArchiveMode::Interrupt, Ok(()), Stage::New) if state.is_registered() => {
            Some((State { closed: true, ..state.clone() }, Stage::Closing { life: state.lives }))
        }
        (ArchiveMode::Interrupt, Err(Refused::NotFound), _) => state.if_so(!state.is_registered()),
        (ArchiveMode::Interrupt, Ok(()), _) => {
            let (next, stage) = cancel_all(state, stage, CancelReason::Archived, facts)?;
            Some((next, stage.unwrap_or(Stage::Done)))
        }
        _ => None,
    }
}

pub(super) fn archive_wait(state: &State, answer: Result<(), Refused>, stage: Stage) -> Next {
    match (stage, answer) {
        (Stage::Waiting { life }, _) => state.if_so(state.is_gone(life)),
        (_, Ok(())) if state.is_registered() => {
            Some((State { closed: true, ..state.clone() }, Stage::Waiting { life: state.lives }))
        }
        (_, Ok(())) => state.if_so(!state.ended.is_empty()),
        (_, Err(Refused::NotFound)) => state.if_so(!state.is_registered() && state.ended.is_empty()),
        _ => None,
    }
}

pub(super) fn inject(state: &State, dismissal: bool, answer: Result<(), Refused>, stage: Stage) -> Next {
    let visible = state.visible().is_ok();
    match (stage, answer) {
        (Stage::New, Ok(())) => {
            if !visible || (state.faulted && state.turn.is_none()) {
                return None;
            }
            done(State { dismissed: state.dismissed || dismissal, ..state.clone() })
        }
        (Stage::New, Err(Refused::NotFound)) => state.if_so(!visible),
        (Stage::New, Err(_)) if visible => state.find(),
        (Stage::Found { life }, Err(Refused::Other("CLOSED"))) => {
            state.if_so(state.is_gone(life) || state.closed || state.faulted)
        }
        _ => None,
    }
}

/// A shutdown marks the service, then closes each session, then cancels each turn, then waits.
pub(super) fn shutdown(state: &State, mode: ArchiveMode, timed_out: bool, stage: Stage, facts: &Facts) -> Next {
    match stage {
        Stage::New => {
            let marked = State { shut: true, ..state.clone() };
            let stage = if state.is_registered() { Stage::Found { life: state.lives } } else { Stage::Done };
            Some((marked, stage))
        }
        Stage::Found { life } => {
            let closed = state.closed || !state.is_gone(life);
            let stage = match mode {
                ArchiveMode::Drain => Stage::Waiting { life },
                ArchiveMode::Interrupt => Stage::Closing { life },
            };
            Some((State { closed, ..state.clone() }, stage))
        }
        Stage::Waiting { life } => state.if_so(timed_out || state.is_gone(life)),
        Stage::Closing { life } | Stage::Cancelling { life, .. } | Stage::Answering { life, .. } => {
            let (next, stage) = cancel_all(state, stage, CancelReason::Shutdown, facts)?;
            Some((next, stage.unwrap_or(Stage::Waiting { life })))
        }
        Stage::Done => None,
    }
}
