//! The state of one id at an instant.

use turnwise::{CancelReason, SessionState};

use super::{Facts, Next, Stage};
use crate::answers::{Ending, Figures, Refused, View};
use crate::history::Uid;

/// The state of one id at an instant.
///
/// **Invariants.** Turns are queued only while a turn is admitted or the agent is built.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(super) shut: bool,
    /// The number of sessions that have had the id, including the current one.
    pub(super) lives: u16,
    pub(super) life: Life,
    pub(super) creator: Uid,
    pub(super) closed: bool,
    pub(super) faulted: bool,
    pub(super) dismissed: bool,
    /// The number of the last accepted turn.
    pub(super) number: u64,
    /// The admitted turn.
    pub(crate) turn: Option<Turn>,
    /// The first turn was superseded during its build, and is cancelled after it.
    pub(super) is_superseded: bool,
    /// In the order in which the turns will be admitted.
    pub(super) queue: Vec<Queued>,
    /// The turns that have left the queue without being admitted, and are not answered yet.
    pub(super) withdrawn: Vec<Withdrawn>,
    /// The admitted turn that has ended last, until its answer is certainly there.
    pub(super) ended_last: Uid,
    /// The number of turns that were admitted to all sessions with the id.
    pub(super) admitted: usize,
    /// The published figures, which reads return.
    pub(super) shown: Figures,
    /// The figures of the agent's history.
    pub(super) agent: Figures,
    /// The figures of the committed history.
    pub(super) committed: Figures,
    /// The figures of the committed history of each session that has ended.
    pub(super) ended_with: Vec<Figures>,
    /// The last view of each session that has ended.
    pub(super) ended: Vec<View>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Life {
    #[default]
    Absent,
    /// The session is registered, and its thread has not called the builder yet.
    Registered,
    InBuilder,
    BuiltSoon,
    BuildFailed,
    /// The build has failed, and no turn is queued any more.
    QueueEnded,
    Open,
    AgentGone,
}

/// The admitted turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Turn {
    pub(crate) uid: Uid,
    pub(super) number: u64,
    pub(super) host: bool,
    pub(super) phase: Phase,
    pub(super) reason: Option<CancelReason>,
    /// The number of prompts and interactions that succeeded, and the last of them.
    pub(super) good: u32,
    pub(super) last: Uid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    Admitted,
    /// The agent runs a prompt or an interaction.
    Inside,
    /// The agent has finished a prompt or an interaction.
    Left(Ending),
    /// The turn is in host mode, between two interactions.
    Hosting,
    /// The turn has this result, and its snapshot is published. An interrupt still finds the turn, and has no effect.
    Over(Ending),
}

/// A turn that was accepted, and waits for the turns before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Queued {
    pub(super) uid: Uid,
    pub(super) number: u64,
    pub(super) host: bool,
    /// Set by an interrupt of the turn by its handle, which then withdraws it.
    pub(super) reason: Option<CancelReason>,
}

/// A turn that has left the queue without being admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Withdrawn {
    pub(super) uid: Uid,
    pub(super) by: By,
    pub(super) reason: Option<CancelReason>,
}

/// The cause of a withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum By {
    /// The call that has withdrawn this turn first.
    Call(Uid),
    Fault,
    FailedBuild,
}

impl State {
    pub(super) fn if_so(&self, so: bool) -> Next {
        so.then(|| (self.clone(), Stage::Done))
    }

    pub(super) fn find(&self) -> Next {
        self.visible().ok()?;
        Some((self.clone(), Stage::Found { life: self.lives }))
    }

    pub(super) fn is_registered(&self) -> bool {
        self.life != Life::Absent
    }

    pub(super) fn is_gone(&self, life: u16) -> bool {
        self.lives != life || !self.is_registered()
    }

    pub(super) fn visible(&self) -> Result<(), Refused> {
        if self.is_registered() && !self.closed {
            Ok(())
        } else {
            Err(Refused::NotFound)
        }
    }

    pub(super) fn is_building(&self) -> bool {
        use Life::{BuildFailed, BuiltSoon, InBuilder, QueueEnded, Registered};
        matches!(self.life, Registered | InBuilder | BuiltSoon | BuildFailed | QueueEnded)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.turn.is_some() || self.is_building()
    }

    /// Whether turn `uid` is admitted, queued, or withdrawn and not answered yet.
    pub(super) fn has_turn(&self, uid: Uid) -> bool {
        self.turn.is_some_and(|turn| turn.uid == uid)
            || self.is_queued(uid)
            || self.withdrawn.iter().any(|turn| turn.uid == uid)
    }

    pub(super) fn is_queued(&self, uid: Uid) -> bool {
        self.queue.iter().any(|turn| turn.uid == uid)
    }

    /// The turn, if the agent runs it.
    pub(super) fn inside(&self) -> Option<Turn> {
        self.turn.filter(|turn| turn.phase == Phase::Inside)
    }

    /// Whether the session thread may answer exports.
    pub(super) fn is_quiet(&self) -> bool {
        let between = |turn: Turn| matches!(turn.phase, Phase::Admitted | Phase::Hosting);
        self.life == Life::Open && self.turn.is_none_or(between)
    }

    /// Whether the `life`th session answers no export any more.
    pub(super) fn answers_no_more(&self, life: u16) -> bool {
        let ends = self.closed && self.turn.is_none();
        self.is_gone(life) || matches!(self.life, Life::BuildFailed | Life::QueueEnded) || (ends && !self.is_building())
    }

    pub(super) fn view(&self) -> View {
        let state = if self.is_building() {
            SessionState::Building
        } else if self.faulted {
            SessionState::Faulted
        } else if self.turn.is_some() {
            SessionState::Running
        } else {
            SessionState::Idle
        };
        let (turns, queued) = (self.number, self.queue.len());
        View { state, active: self.is_busy(), turns, queued, figures: self.shown }
    }

    /// The state after the create of a session, with a first turn or without one. `first_turn`: it is for host mode.
    pub(super) fn created(&self, uid: Uid, figures: Figures, first_turn: Option<bool>, facts: &Facts) -> Option<Self> {
        let mut created = Self {
            shut: self.shut,
            lives: self.lives + 1,
            life: Life::Registered,
            creator: uid,
            shown: figures,
            agent: figures,
            committed: figures,
            ended_with: self.ended_with.clone(),
            withdrawn: self.withdrawn.clone(),
            admitted: self.admitted,
            ended: self.ended.clone(),
            ..Self::default()
        };
        if let Some(host) = first_turn {
            created.number = 1;
            created.admit(Queued { uid, number: 1, host, reason: None }, facts)?;
        }
        Some(created)
    }

    /// Admits a turn. `None` if the subscriber of all sessions has seen the start of another one.
    pub(super) fn admit(&mut self, turn: Queued, facts: &Facts) -> Option<()> {
        let Queued { uid, number, host, reason } = turn;
        if facts.started.as_ref().is_some_and(|started| started.get(self.admitted) != Some(&uid)) {
            return None;
        }
        self.admitted += 1;
        self.turn = Some(Turn { uid, number, host, phase: Phase::Admitted, reason, good: 0, last: 0 });
        Some(())
    }

    /// The state after a cancel of that turn, admitted or not. The first cancel sets the reason. A cancel of a turn that
    /// has ended has no effect.
    pub(super) fn cancelled(&self, uid: Uid, reason: CancelReason) -> Self {
        let mut next = self.clone();
        let reasons = next.turn.iter_mut().map(|turn| (turn.uid, &mut turn.reason));
        let reasons = reasons.chain(next.queue.iter_mut().map(|turn| (turn.uid, &mut turn.reason)));
        let mut reasons = reasons.chain(next.withdrawn.iter_mut().map(|turn| (turn.uid, &mut turn.reason)));
        if let Some((_, of_turn)) = reasons.find(|(other, _)| *other == uid) {
            of_turn.get_or_insert(reason);
        }
        next
    }

    /// The state after a cancel of the `life`th session's admitted turn.
    pub(super) fn told_to_stop(&self, life: u16, reason: CancelReason) -> Self {
        match self.turn {
            Some(turn) if !self.is_gone(life) => self.cancelled(turn.uid, reason),
            _ => self.clone(),
        }
    }

    /// The state after the end of the session.
    pub(super) fn removed(&self) -> Self {
        let last = Self { turn: None, ..self.clone() };
        let mut ended = self.ended.clone();
        ended.push(last.view());
        let mut ended_with = self.ended_with.clone();
        ended_with.push(self.committed);
        // The turns of a failed build are answered once the session is gone. The others' calls go on.
        let withdrawn = self.withdrawn.iter().copied().filter(|turn| turn.by != By::FailedBuild).collect();
        Self {
            shut: self.shut,
            lives: self.lives,
            admitted: self.admitted,
            withdrawn,
            ended,
            ended_with,
            ..Self::default()
        }
    }
}

impl Turn {
    /// Adds the result of a prompt or an interaction.
    pub(super) fn take_in(&mut self, ending: Ending) {
        let was_hosting = self.good > 0;
        if let Ending::Well { last, .. } = ending {
            self.good += 1;
            self.last = last;
        }
        let hosts = self.host && (was_hosting || matches!(ending, Ending::Well { .. }));
        self.phase = if hosts { Phase::Hosting } else { Phase::Over(ending) };
    }
}
