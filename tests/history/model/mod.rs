//! The contract of one id as a small sequential model: the possible answers in each state, and the next state.
//!
//! Most calls are one step. Some calls look a session up and then act on it, and other calls may act in between. So
//! they have several steps, each at its own instant within the call ([`Stage`]). The session thread also takes steps
//! that belong to no call ([`thread`]). At the end of a turn these follow the order of the contract: publish the
//! snapshot, free the session or hand it over to the next queued turn, and only then deliver the result.
//!
//! | File | Content |
//! |---|---|
//! | `state` | the state of one id: the session, its admitted turn, its queue |
//! | `thread` | the steps of the session thread and of its agent |
//! | `turns` | calls that start, await and interrupt turns |
//! | `queue` | turns that are queued, withdrawn and answered |
//! | `calls` | the other calls |

mod calls;
mod queue;
mod state;
mod thread;
mod turns;

use std::collections::{HashMap, HashSet};

use crate::answers::Ending;
use crate::history::{Uid, What};

pub(crate) use state::State;

/// Facts from the rest of the history, which do not change during the search.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The result of each turn, as its callers got it.
    pub(crate) results: HashMap<Uid, Ending>,
    /// The turns that an agent has begun to run.
    pub(crate) ran: HashSet<Uid>,
    /// Whether the receiver of a turn has got events, for each turn that had one.
    pub(crate) received: HashMap<Uid, bool>,
    /// The turns in the order in which they were started, if a subscriber of all sessions has recorded it.
    pub(crate) started: Option<Vec<Uid>>,
    /// The most turns that may be queued.
    pub(crate) turn_queue: usize,
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
    /// The call has closed that session, and is about to cancel its turns.
    Closing {
        life: u16,
    },
    /// The call is about to cancel the turn that it has found in that session. It has withdrawn the turns of `batch`.
    Cancelling {
        life: u16,
        uid: Uid,
        batch: Uid,
    },
    /// The call is about to answer the turns of `batch`.
    Answering {
        life: u16,
        batch: Uid,
    },
    /// The call waits for the end of a turn, or of the session.
    Waiting {
        life: u16,
    },
    Done,
}

type Next = Option<(State, Stage)>;

/// The next step of `what`, which is at `stage`: the new state and stage, or `None` if `state` does not allow the step.
pub(crate) fn step(state: &State, what: &What, stage: Stage, facts: &Facts) -> Next {
    match *what {
        What::Create { uid, figures, host, answer } => {
            calls::create(state, uid, figures, Some(host), answer, stage, facts)
        }
        What::Open { uid, figures, answer } => calls::open(state, uid, figures, answer, stage, facts),
        What::Turn { uid, host, when_busy, answer } => {
            turns::begin(state, turns::Request { uid, host, when_busy }, answer, stage, facts)
        }
        What::Result { uid } => state.if_so(!state.has_turn(uid)),
        What::NoResult { uid } => state.if_so(turns::may_be_unanswered(state, uid, facts)),
        What::IsQueued { uid, answer } => state.if_so(answer == state.is_queued(uid)),
        What::InterruptHandle { uid } => turns::interrupt_by_handle(state, uid, stage, facts),
        What::Interrupt { only, answer } => turns::interrupt(state, only, answer, stage, facts),
        What::WaitIdle(answer) => calls::wait_idle(state, answer, stage),
        What::Read(answer) => state.if_so(answer == state.visible().map(|()| state.view())),
        What::History(answer) => calls::history(state, answer, stage),
        What::Listed(view) => calls::listed(state, view, stage),
        What::Unlisted => state.if_so(state.visible().is_err()),
        What::Subscribe(answer) => state.if_so(answer == state.visible()),
        // A closed session and a recently ended session are cursors of lists too.
        What::ListedAfter(answer) => state.if_so(answer.is_ok() == (state.is_registered() || !state.ended.is_empty())),
        What::Export(answer) => calls::export(state, answer, stage),
        What::Take(answer) => calls::take(state, answer, stage),
        What::Archive { mode, answer } => calls::archive(state, mode, answer, stage, facts),
        What::ArchiveWait(answer) => calls::archive_wait(state, answer, stage),
        What::Inject { dismissal, answer } => calls::inject(state, dismissal, answer, stage),
        What::Shutdown { mode, timed_out } => calls::shutdown(state, mode, timed_out, stage, facts),
        ref agents => thread::agent_step(state, agents),
    }
}

fn done(state: State) -> Next {
    Some((state, Stage::Done))
}

impl Facts {
    /// Whether the callers of turn `uid` may have got `ending`. `has_begun`: its receiver got events.
    fn allow(&self, uid: Uid, ending: Ending, has_begun: bool) -> Option<()> {
        let fits = self.results.get(&uid).is_none_or(|told| *told == ending)
            && self.received.get(&uid).is_none_or(|received| *received == has_begun);
        fits.then_some(())
    }
}
