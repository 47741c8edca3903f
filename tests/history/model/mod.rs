//! The contract of one id as a small sequential model: the possible answers in each state, and the next state.
//!
//! Most calls are one step. Some calls look a session up and then act on it, and other calls may act in between. So
//! they have two or three steps, each at its own instant within the call ([`Stage`]). The session thread also takes
//! steps that belong to no call ([`State::by_itself`]). At the end of a turn these follow the order of the contract:
//! publish the snapshot, seal the token, free the session, and only then deliver the result.

mod calls;

use std::collections::{HashMap, HashSet};

use turnwise::{CancelReason, SessionState};

use crate::answers::{Ending, Figures, Refused, View};
use crate::history::{Uid, What};

/// Facts from the rest of the history, which do not change during the search.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The result of each turn, as its callers got it.
    pub(crate) results: HashMap<Uid, Ending>,
    /// The turns that an agent has begun to run.
    pub(crate) ran: HashSet<Uid>,
}

/// The state of one id at an instant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) shut: bool,
    /// The number of sessions that have had the id, including the current one.
    pub(crate) lives: u16,
    pub(crate) life: Life,
    pub(crate) creator: Uid,
    pub(crate) closed: bool,
    pub(crate) faulted: bool,
    pub(crate) dismissed: bool,
    /// The number of the last admitted turn.
    pub(crate) number: u64,
    pub(crate) turn: Option<Turn>,
    /// The published figures, which reads return.
    pub(crate) shown: Figures,
    /// The figures of the agent's history.
    pub(crate) agent: Figures,
    /// The last view of each session that has ended.
    pub(crate) ended: Vec<View>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Life {
    #[default]
    Absent,
    /// The session is registered, and its thread has not called the builder yet.
    Registered,
    InBuilder,
    BuiltSoon,
    BuildFailed,
    Open,
    AgentGone,
}

/// The admitted turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Turn {
    pub(crate) uid: Uid,
    pub(crate) number: u64,
    host: bool,
    pub(crate) phase: Phase,
    pub(crate) reason: Option<CancelReason>,
    /// The number of prompts and interactions that succeeded, and the last of them.
    good: u32,
    last: Uid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Admitted,
    /// The agent runs a prompt or an interaction.
    Inside,
    /// The agent has finished a prompt or an interaction.
    Left(Ending),
    /// The turn is in host mode, between two interactions.
    Hosting,
    /// The turn has this result, and its snapshot is published.
    Over(Ending),
    /// The token is sealed: no interrupt reaches the turn any more.
    Sealed,
}

/// The progress of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    #[default]
    New,
    /// The call has found the session that is the `life`th with its id.
    Found {
        life: u16,
    },
    /// The call is about to cancel the turn that it has found in that session.
    Cancelling {
        life: u16,
        uid: Uid,
    },
    /// The call waits for the end of a turn, or of the session.
    Waiting {
        life: u16,
    },
    Done,
}

type Next = Option<(State, Stage)>;

/// The next step of `what`, which is at `stage`: the new state and stage, or `None` if `state` does not allow the step.
pub(crate) fn step(state: &State, what: &What, stage: Stage) -> Next {
    match *what {
        What::Create { uid, figures, host, answer } => calls::create(state, uid, figures, Some(host), answer, stage),
        What::Open { uid, figures, answer } => calls::open(state, uid, figures, answer, stage),
        What::Turn { uid, host, answer } => calls::begin_turn(state, uid, host, answer, stage),
        What::Result { uid } => state.if_so(!state.has_turn(uid)),
        What::InterruptHandle { uid } => calls::done(state.cancelled(uid, CancelReason::Interrupted)),
        What::Interrupt { only, answer } => calls::interrupt(state, only, answer, stage),
        What::Read(answer) => state.if_so(answer == state.visible().map(|()| state.view())),
        What::Listed(view) => calls::listed(state, view, stage),
        What::Unlisted => state.if_so(state.visible().is_err()),
        What::Subscribe(answer) => state.if_so(answer == state.visible()),
        // A closed session and a recently ended session are cursors of lists too.
        What::ListedAfter(answer) => state.if_so(answer.is_ok() == (state.is_registered() || !state.ended.is_empty())),
        What::Export(answer) => calls::export(state, answer, stage),
        What::Take(answer) => calls::take(state, answer, stage),
        What::Archive { mode, answer } => calls::archive(state, mode, answer, stage),
        What::ArchiveWait(answer) => calls::archive_wait(state, answer, stage),
        What::Inject { dismissal, answer } => calls::inject(state, dismissal, answer, stage),
        What::Shutdown { mode, timed_out } => calls::shutdown(state, mode, timed_out, stage),
        ref agents => agent_step(state, agents),
    }
}

/// The next step of an agent on its session thread.
fn agent_step(state: &State, what: &What) -> Next {
    let mut next = state.clone();
    match *what {
        What::BuildBegins { uid } if state.life == Life::Registered && state.creator == uid => {
            next.life = Life::InBuilder;
        }
        What::BuildEnds { well, figures } if state.life == Life::InBuilder && state.shown == figures => {
            next.life = if well { Life::BuiltSoon } else { Life::BuildFailed };
        }
        What::Dropped if state.life == Life::Open && state.closed && state.turn.is_none() => {
            next.life = Life::AgentGone;
        }
        What::Enter { uid, number } if state.life == Life::Open => {
            let turn = next.turn.as_mut().filter(|turn| (turn.uid, turn.number) == (uid, number))?;
            if !matches!(turn.phase, Phase::Admitted | Phase::Hosting) {
                return None;
            }
            turn.phase = Phase::Inside;
        }
        What::Shows(figures) => {
            state.inside()?;
            next.shown = figures;
        }
        What::Looks(reason) if state.inside()?.reason == reason => {}
        What::Leave { ending, figures } => {
            let turn = state.inside()?;
            if matches!(ending, Ending::Cancelled(reason) if turn.reason != Some(reason)) {
                return None;
            }
            next.turn = Some(Turn { phase: Phase::Left(ending), ..turn });
            next.agent = figures;
        }
        _ => return None,
    }
    calls::done(next)
}

impl State {
    fn if_so(&self, so: bool) -> Next {
        so.then(|| (self.clone(), Stage::Done))
    }

    fn find(&self) -> Next {
        self.visible().ok()?;
        Some((self.clone(), Stage::Found { life: self.lives }))
    }

    fn is_registered(&self) -> bool {
        self.life != Life::Absent
    }

    fn is_gone(&self, life: u16) -> bool {
        self.lives != life || !self.is_registered()
    }

    fn visible(&self) -> Result<(), Refused> {
        if self.is_registered() && !self.closed {
            Ok(())
        } else {
            Err(Refused::NotFound)
        }
    }

    fn is_building(&self) -> bool {
        matches!(self.life, Life::Registered | Life::InBuilder | Life::BuiltSoon | Life::BuildFailed)
    }

    fn is_busy(&self) -> bool {
        self.turn.is_some() || self.is_building()
    }

    fn has_turn(&self, uid: Uid) -> bool {
        self.turn.is_some_and(|turn| turn.uid == uid)
    }

    /// The turn, if the agent runs it.
    fn inside(&self) -> Option<Turn> {
        self.turn.filter(|turn| turn.phase == Phase::Inside)
    }

    /// Whether the session thread may answer exports.
    fn is_quiet(&self) -> bool {
        let between = |turn: Turn| matches!(turn.phase, Phase::Admitted | Phase::Hosting);
        self.life == Life::Open && self.turn.is_none_or(between)
    }

    /// Whether the `life`th session answers no export any more.
    fn answers_no_more(&self, life: u16) -> bool {
        let ends = self.closed && self.turn.is_none();
        self.is_gone(life) || self.life == Life::BuildFailed || (ends && !self.is_building())
    }

    pub(crate) fn view(&self) -> View {
        let state = if self.is_building() {
            SessionState::Building
        } else if self.faulted {
            SessionState::Faulted
        } else if self.turn.is_some() {
            SessionState::Running
        } else {
            SessionState::Idle
        };
        View { state, active: self.is_busy(), figures: self.shown }
    }

    fn created(&self, uid: Uid, figures: Figures, first_turn: Option<bool>) -> Self {
        let mut created = Self {
            shut: self.shut,
            lives: self.lives + 1,
            life: Life::Registered,
            creator: uid,
            shown: figures,
            agent: figures,
            ended: self.ended.clone(),
            ..Self::default()
        };
        if let Some(host) = first_turn {
            created.admit(uid, 1, host);
        }
        created
    }

    fn admit(&mut self, uid: Uid, number: u64, host: bool) {
        self.number = number;
        self.turn = Some(Turn { uid, number, host, phase: Phase::Admitted, reason: None, good: 0, last: 0 });
    }

    /// The state after a cancel of that turn. The first cancel sets the reason. A cancel of a sealed turn has no
    /// effect.
    fn cancelled(&self, uid: Uid, reason: CancelReason) -> Self {
        let mut next = self.clone();
        if let Some(turn) = next.turn.as_mut().filter(|turn| turn.uid == uid && turn.phase != Phase::Sealed) {
            turn.reason = turn.reason.or(Some(reason));
        }
        next
    }

    fn told_to_stop(&self, life: u16, reason: CancelReason) -> Self {
        match self.turn {
            Some(turn) if !self.is_gone(life) => self.cancelled(turn.uid, reason),
            _ => self.clone(),
        }
    }

    /// The state after the next step that the session thread may take without a call, if there is one.
    pub(crate) fn by_itself(&self, facts: &Facts) -> Option<Self> {
        let mut next = self.clone();
        match self.life {
            Life::BuiltSoon => next.life = Life::Open,
            Life::AgentGone => return Some(self.removed()),
            Life::BuildFailed => match next.turn.as_mut().filter(|turn| turn.phase != Phase::Sealed) {
                Some(turn) => turn.seal(Ending::NotBuilt, facts)?,
                None if self.closed => return Some(self.removed()),
                None => next.closed = true,
            },
            Life::Open => match next.turn.as_mut()?.phase {
                Phase::Sealed => next.turn = None,
                _ => next.end_turn(facts)?,
            },
            Life::Absent | Life::Registered | Life::InBuilder => return None,
        }
        Some(next)
    }

    /// One step of the end of a turn, or of host mode.
    fn end_turn(&mut self, facts: &Facts) -> Option<()> {
        let (may_leave_host_mode, agent) = (self.closed || self.dismissed, self.agent);
        let turn = self.turn.as_mut()?;
        match (turn.phase, turn.reason) {
            // The turn was cancelled before its run.
            (Phase::Admitted, Some(reason)) if !facts.ran.contains(&turn.uid) => {
                turn.seal(Ending::Cancelled(reason), facts)?;
            }
            (Phase::Left(Ending::Panicked), _) => {
                self.faulted = true;
                turn.phase = Phase::Over(Ending::Panicked);
            }
            (Phase::Left(ending), _) => {
                self.shown = agent;
                turn.take_in(ending);
            }
            (Phase::Hosting, Some(reason)) => turn.phase = Phase::Over(Ending::Cancelled(reason)),
            (Phase::Hosting, None) if may_leave_host_mode => {
                turn.phase = Phase::Over(Ending::Well { last: turn.last, turns: turn.good });
            }
            (Phase::Over(ending), _) => turn.seal(ending, facts)?,
            _ => return None,
        }
        Some(())
    }

    /// The state after the end of the session.
    fn removed(&self) -> Self {
        let last = Self { turn: None, ..self.clone() };
        let mut ended = self.ended.clone();
        ended.push(last.view());
        Self { shut: self.shut, lives: self.lives, ended, ..Self::default() }
    }
}

impl Turn {
    /// Adds the result of a prompt or an interaction.
    fn take_in(&mut self, ending: Ending) {
        let was_hosting = self.good > 0;
        if let Ending::Well { last, .. } = ending {
            self.good += 1;
            self.last = last;
        }
        let hosts = self.host && (was_hosting || matches!(ending, Ending::Well { .. }));
        self.phase = if hosts { Phase::Hosting } else { Phase::Over(ending) };
    }

    /// Seals the turn. `None` if its callers got a result other than `ending`.
    fn seal(&mut self, ending: Ending, facts: &Facts) -> Option<()> {
        self.phase = Phase::Sealed;
        facts.results.get(&self.uid).is_none_or(|told| *told == ending).then_some(())
    }
}
