//! The steps of a session thread, and of its agent.

use turnwise::CancelReason;

use super::state::{By, Life, Phase, State, Turn, Withdrawn};
use super::{done, Facts, Next};
use crate::answers::Ending;
use crate::history::What;

/// The next step of an agent on its session thread.
pub(super) fn agent_step(state: &State, what: &What) -> Next {
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
        What::Enter { uid, number } if state.life == Life::Open && !state.is_superseded => {
            let turn = next.turn.as_mut().filter(|turn| (turn.uid, turn.number) == (uid, number))?;
            if !matches!(turn.phase, Phase::Admitted | Phase::Hosting) {
                return None;
            }
            turn.phase = Phase::Inside;
            // In host mode what came before is committed.
            next.committed = next.agent;
            // The session thread has answered the turn before this one.
            next.ended_last = 0;
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
    done(next)
}

impl State {
    /// The state after the next step that the session thread may take without a call, if there is one.
    pub(crate) fn by_itself(&self, facts: &Facts) -> Option<Self> {
        let mut next = self.clone();
        match self.life {
            Life::BuiltSoon => {
                next.life = Life::Open;
                if next.turn.is_none() {
                    next.hand_over(facts)?;
                }
            }
            Life::AgentGone => return Some(self.removed()),
            Life::BuildFailed => {
                next.life = Life::QueueEnded;
                for turn in &self.queue {
                    facts.allow(turn.uid, Ending::NotBuilt, false)?;
                }
                next.withdraw_all(By::FailedBuild);
            }
            Life::QueueEnded => match next.turn.take() {
                Some(Turn { uid, reason, .. }) => {
                    facts.allow(uid, Ending::NotBuilt, true)?;
                    next.withdrawn.push(Withdrawn { uid, by: By::FailedBuild, reason });
                }
                None if self.closed => return Some(self.removed()),
                None => next.closed = true,
            },
            // In a step of its own: an interrupt may come before, and then gives the reason. The turn does not run.
            Life::Open if next.is_superseded => {
                next.is_superseded = false;
                let turn = next.turn.as_mut()?;
                let reason = *turn.reason.get_or_insert(CancelReason::Superseded);
                turn.phase = Phase::Over(Ending::Cancelled(reason));
            }
            Life::Open => next.go_on(facts)?,
            Life::Absent | Life::Registered | Life::InBuilder => return None,
        }
        Some(next)
    }

    /// One step of the end of a turn, or of host mode.
    fn go_on(&mut self, facts: &Facts) -> Option<()> {
        let (may_leave_host_mode, agent) = (self.closed || self.dismissed, self.agent);
        let turn = self.turn.as_mut()?;
        match (turn.phase, turn.reason) {
            // The turn was cancelled before its run.
            (Phase::Admitted, Some(reason)) if !facts.ran.contains(&turn.uid) => {
                self.end_turn(Ending::Cancelled(reason), facts)?;
            }
            (Phase::Left(Ending::Panicked), _) if !self.faulted => self.faulted = true,
            (Phase::Left(Ending::Panicked), _) => self.end_faulted(facts)?,
            (Phase::Left(ending), _) => {
                self.shown = agent;
                turn.take_in(ending);
            }
            (Phase::Hosting, Some(reason)) => turn.phase = Phase::Over(Ending::Cancelled(reason)),
            (Phase::Hosting, None) if may_leave_host_mode => {
                turn.phase = Phase::Over(Ending::Well { last: turn.last, turns: turn.good });
            }
            (Phase::Over(ending), _) => self.end_turn(ending, facts)?,
            _ => return None,
        }
        Some(())
    }

    /// One step of the end of a turn that has faulted the session: the queue ends first, then each of its turns is
    /// answered, then the turn ends.
    fn end_faulted(&mut self, facts: &Facts) -> Option<()> {
        if !self.queue.is_empty() {
            self.withdraw_all(By::Fault);
            return Some(());
        }
        match self.first_withdrawn(By::Fault) {
            Some(place) => self.answer(place, Ending::Panicked, facts),
            None => self.end_turn(Ending::Panicked, facts),
        }
    }

    /// Ends the admitted turn. `None` if its callers got a result other than `ending`.
    fn end_turn(&mut self, ending: Ending, facts: &Facts) -> Option<()> {
        let uid = self.turn.take()?.uid;
        facts.allow(uid, ending, true)?;
        if ending != Ending::Panicked {
            self.committed = self.agent;
        }
        self.ended_last = uid;
        self.hand_over(facts)
    }

    /// Admits the next queued turn in the step in which the turn before it ends: no other caller is admitted in between.
    fn hand_over(&mut self, facts: &Facts) -> Option<()> {
        if self.queue.is_empty() {
            return Some(());
        }
        let next = self.queue.remove(0);
        self.admit(next, facts)
    }
}
