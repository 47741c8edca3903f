//! The possible answers of each call, and the state after it.

use turnwise::{ArchiveMode, CancelReason};

use super::{Life, Next, Phase, Stage, State};
use crate::answers::{Begun, Figures, Opened, Refused, View};
use crate::history::Uid;

pub(super) fn done(state: State) -> Next {
    Some((state, Stage::Done))
}

pub(super) fn create(
    state: &State,
    uid: Uid,
    figures: Figures,
    host: Option<bool>,
    answer: Result<Begun, Refused>,
    stage: Stage,
) -> Next {
    if let Stage::Waiting { .. } = stage {
        return state.if_so(!state.has_turn(uid));
    }
    match answer {
        Ok(begun) => {
            if state.shut || state.is_registered() || begun.number.unwrap_or(1) != 1 {
                return None;
            }
            let created = state.created(uid, figures, host);
            let stage = if begun.ended { Stage::Waiting { life: created.lives } } else { Stage::Done };
            Some((created, stage))
        }
        Err(Refused::ShuttingDown) => state.if_so(state.shut),
        Err(Refused::AlreadyExists) => state.if_so(!state.shut && state.is_registered()),
        Err(Refused::Capacity { .. }) => state.if_so(!state.shut && !state.is_registered()),
        Err(_) => None,
    }
}

pub(super) fn open(state: &State, uid: Uid, figures: Figures, answer: Result<(), Opened>, stage: Stage) -> Next {
    if let Err(Opened::Refused(refused)) = answer {
        return create(state, uid, figures, None, Err(refused), stage);
    }
    match stage {
        Stage::New => {
            let (created, _) = create(state, uid, figures, None, Ok(Begun { number: None, ended: false }), stage)?;
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

pub(super) fn begin_turn(state: &State, uid: Uid, host: bool, answer: Result<Begun, Refused>, stage: Stage) -> Next {
    if let Stage::Waiting { .. } = stage {
        return state.if_so(!state.has_turn(uid));
    }
    let visible = state.visible().is_ok();
    match answer {
        Ok(begun) => {
            let number = state.number + 1;
            let fits = begun.number.unwrap_or(number) == number;
            if !visible || state.faulted || state.is_busy() || !fits {
                return None;
            }
            let mut next = state.clone();
            next.admit(uid, number, host);
            Some((next, if begun.ended { Stage::Waiting { life: state.lives } } else { Stage::Done }))
        }
        Err(Refused::Busy) => state.if_so(visible && !state.faulted && state.is_busy()),
        Err(Refused::Faulted) => state.if_so(visible && state.faulted),
        Err(Refused::NotFound) => state.if_so(!visible && !state.shut),
        Err(Refused::ShuttingDown) => state.if_so(state.shut),
        Err(_) => None,
    }
}

pub(super) fn interrupt(state: &State, only: Option<u64>, answer: Result<(), Refused>, stage: Stage) -> Next {
    match stage {
        Stage::New if answer == Err(Refused::NotFound) => state.if_so(state.visible().is_err()),
        Stage::New => state.find(),
        Stage::Found { life } => {
            let reached = state.turn.filter(|turn| {
                !state.is_gone(life) && turn.phase != Phase::Sealed && (only.is_none() || only == Some(turn.number))
            });
            match (reached, answer) {
                (Some(turn), Ok(())) => Some((state.clone(), Stage::Cancelling { life, uid: turn.uid })),
                (None, Err(Refused::NotRunning)) => done(state.clone()),
                _ => None,
            }
        }
        Stage::Cancelling { uid, .. } => done(state.cancelled(uid, CancelReason::Interrupted)),
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
    let between_turns = state.turn.is_none_or(|turn| turn.phase == Phase::Hosting);
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

pub(super) fn archive(state: &State, mode: ArchiveMode, answer: Result<(), Refused>, stage: Stage) -> Next {
    match (mode, answer, stage) {
        (_, _, Stage::Found { life }) => done(state.told_to_stop(life, CancelReason::Archived)),
        (ArchiveMode::Drain, Ok(()), _) => {
            state.visible().ok()?;
            done(State { closed: true, ..state.clone() })
        }
        (ArchiveMode::Drain, Err(Refused::NotFound), _) => state.if_so(state.visible().is_err()),
        (ArchiveMode::Interrupt, Ok(()), _) if state.is_registered() => {
            Some((State { closed: true, ..state.clone() }, Stage::Found { life: state.lives }))
        }
        (ArchiveMode::Interrupt, Err(Refused::NotFound), _) => state.if_so(!state.is_registered()),
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
pub(super) fn shutdown(state: &State, mode: ArchiveMode, timed_out: bool, stage: Stage) -> Next {
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
                ArchiveMode::Interrupt => Stage::Cancelling { life, uid: 0 },
            };
            Some((State { closed, ..state.clone() }, stage))
        }
        Stage::Cancelling { life, .. } => {
            Some((state.told_to_stop(life, CancelReason::Shutdown), Stage::Waiting { life }))
        }
        Stage::Waiting { life } => state.if_so(timed_out || state.is_gone(life)),
        Stage::Done => None,
    }
}
