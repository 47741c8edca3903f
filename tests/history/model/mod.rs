//! The contract of one id as a small sequential machine: what may be answered in which state, and what that changes.
//!
//! Most calls are one step. Some look a session up and then act on what they have found; in between others may act, so they
//! are two steps or three, each at an instant of its own within the call ([`Stage`]). What a session does by itself, after its
//! agent has let go of a turn, is nobody's call: [`State::by_itself`]. Its order is that of the contract: what the turn has
//! come to is shown, the turn cannot be interrupted any more, the session is free, and only then somebody has the result.

mod calls;

use std::collections::{HashMap, HashSet};

use turnwise::{CancelReason, SessionState};

use crate::history::{Ending, Figures, Refused, Uid, View, What};

/// What is known from the rest of the history, and does not change.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// What callers were told of a turn.
    pub(crate) results: HashMap<Uid, Ending>,
    /// The turns that an agent has begun with.
    pub(crate) ran: HashSet<Uid>,
}

/// One id, at an instant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) shut: bool,
    /// How many sessions have had the id, this one included.
    pub(crate) lives: u16,
    pub(crate) life: Life,
    pub(crate) creator: Uid,
    pub(crate) closed: bool,
    pub(crate) faulted: bool,
    pub(crate) dismissed: bool,
    /// The number of the last admitted turn.
    pub(crate) number: u64,
    pub(crate) turn: Option<Turn>,
    /// What reads answer with.
    pub(crate) shown: Figures,
    /// What the agent has come to.
    pub(crate) agent: Figures,
    /// What those that have ended showed last.
    pub(crate) ended: Vec<View>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Life {
    #[default]
    Absent,
    /// Registered; its thread is on its way to the builder.
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
    /// Prompts and interactions that went well, and the last of them.
    good: u32,
    last: Uid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Admitted,
    /// In the agent's hands.
    Inside,
    /// The agent is done with a prompt or an interaction.
    Left(Ending),
    /// In host mode, between two interactions.
    Hosting,
    /// It has come to this, and shown it.
    Over(Ending),
    /// No interrupt reaches it any more.
    Sealed,
}

/// How far a call is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    #[default]
    New,
    /// It has found the session that is the `life`th with its id.
    Found {
        life: u16,
    },
    /// It is about to cancel the turn that it has found there.
    Cancelling {
        life: u16,
        uid: Uid,
    },
    /// It waits for the end of a turn, or of the session.
    Waiting {
        life: u16,
    },
    Done,
}

type Next = Option<(State, Stage)>;

/// What `what`, which is as far as `stage`, does next to `state`; `None` where that is not allowed now.
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
        // A list goes on behind a session that is closed, or has ended not long ago.
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

/// What happens on the session's thread, in its agent.
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

    /// The turn, if it is in the agent's hands.
    fn inside(&self) -> Option<Turn> {
        self.turn.filter(|turn| turn.phase == Phase::Inside)
    }

    /// Whether the session's thread may be serving exports.
    fn is_quiet(&self) -> bool {
        let between = |turn: Turn| matches!(turn.phase, Phase::Admitted | Phase::Hosting);
        self.life == Life::Open && self.turn.is_none_or(between)
    }

    /// Whether nobody gets a history any more of the `life`th session.
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

    /// After a cancel of that turn. The first one counts, and one that comes too late does nothing.
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

    /// What the session does next without being asked, if there is anything that it may do.
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
            // Told to stop before it could run.
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

    /// Nothing is left of the session.
    fn removed(&self) -> Self {
        let last = Self { turn: None, ..self.clone() };
        let mut ended = self.ended.clone();
        ended.push(last.view());
        Self { shut: self.shut, lives: self.lives, ended, ..Self::default() }
    }
}

impl Turn {
    /// What a prompt or an interaction has come to.
    fn take_in(&mut self, ending: Ending) {
        let was_hosting = self.good > 0;
        if let Ending::Well { last, .. } = ending {
            self.good += 1;
            self.last = last;
        }
        let hosts = self.host && (was_hosting || matches!(ending, Ending::Well { .. }));
        self.phase = if hosts { Phase::Hosting } else { Phase::Over(ending) };
    }

    /// No interrupt reaches it any more. What it has come to is what its callers are told.
    fn seal(&mut self, ending: Ending, facts: &Facts) -> Option<()> {
        self.phase = Phase::Sealed;
        facts.results.get(&self.uid).is_none_or(|told| *told == ending).then_some(())
    }
}
