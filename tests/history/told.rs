//! A builder of handwritten histories.

use turnwise::{ArchiveMode, SessionState, WhenBusy};

use crate::answers::{Begun, Ending, Figures, Refused, View};
use crate::check::check;
use crate::history::{Count, Counted, Event, History, Key, Life, Listing, Stamp, Uid, What, Who};
use crate::plan::Settings;

pub(crate) const IDLE: SessionState = SessionState::Idle;
pub(crate) const RUNNING: SessionState = SessionState::Running;

/// A history under construction. Each call takes ten stamps.
pub(crate) struct Told {
    pub(crate) history: History,
    now: Stamp,
}

pub(crate) fn settings(max_sessions: usize) -> Settings {
    Settings {
        max_sessions,
        max_running_turns: None,
        turn_queue: 2,
        idle_threads: 0,
        subscribe_all: false,
        keeps_events: true,
        opened: 0,
        drained: false,
    }
}

pub(crate) fn told(max_sessions: usize) -> Told {
    let history = History {
        settings: settings(max_sessions),
        names: (0..3).map(|key| format!("session {key}")).collect(),
        events: Vec::new(),
        listings: Vec::new(),
        counts: Vec::new(),
        lives: Vec::new(),
        results: Vec::new(),
        received: Vec::new(),
        started: Vec::new(),
        followed: Vec::new(),
    };
    Told { history, now: 0 }
}

impl Told {
    pub(crate) fn between(mut self, call: Stamp, ret: Stamp, who: Who, what: What) -> Self {
        self.history.events.push((0, Event { who, call, ret, what }));
        self.now = self.now.max(ret);
        self
    }

    /// Adds a call after all records so far.
    pub(crate) fn then(self, what: What) -> Self {
        let now = self.now;
        self.between(now + 1, now + 10, Who::Thread(0), what)
    }

    /// Adds a step of the agent after all records so far.
    pub(crate) fn agent(self, what: What) -> Self {
        let now = self.now + 1;
        self.between(now, now, Who::Agent, what)
    }

    /// Adds a create whose first turn is `uid`, up to the beginning of the build.
    pub(crate) fn created(self, uid: Uid) -> Self {
        let (figures, answer) = (Figures::default(), Ok(Begun { number: Some(1), ended: false }));
        self.then(What::Create { uid, figures, host: false, answer }).agent(What::BuildBegins { uid })
    }

    /// Adds the result of a turn, and a caller that gets it.
    pub(crate) fn told(self, uid: Uid, ending: Ending) -> Self {
        self.result(uid, ending).then(What::Result { uid })
    }

    /// Says whether the receiver of the turn has got events.
    pub(crate) fn received(mut self, uid: Uid, any: bool) -> Self {
        self.history.received.push((uid, any));
        self
    }

    /// Says in which order a subscriber of all sessions has seen turns start.
    pub(crate) fn started(mut self, uids: &[Uid]) -> Self {
        self.history.settings.subscribe_all = true;
        self.history.started = uids.iter().map(|uid| (0, *uid)).collect();
        self
    }

    pub(crate) fn result(mut self, uid: Uid, ending: Ending) -> Self {
        self.history.results.push((uid, ending));
        self
    }

    /// Adds the open of a session without a turn, and the build of its agent.
    pub(crate) fn opened(self) -> Self {
        let began = self.now + 1;
        self.agent(What::BuildBegins { uid: 100 })
            .agent(What::BuildEnds { well: true, figures: Figures::default() })
            .between(
                began - 1,
                began + 10,
                Who::Thread(0),
                What::Open { uid: 100, figures: Figures::default(), answer: Ok(()) },
            )
    }

    /// Adds the run of turn `uid` by the agent, with its ending.
    pub(crate) fn ran(self, uid: Uid, number: u64, ending: Ending) -> Self {
        self.entered(uid, number).left(uid, number, ending)
    }

    pub(crate) fn entered(self, uid: Uid, number: u64) -> Self {
        let before = figures(number - 1, 0);
        let odd = Figures { messages: before.messages + 1, ..before };
        self.agent(What::Enter { uid, number }).agent(What::Shows(odd))
    }

    pub(crate) fn left(self, uid: Uid, number: u64, ending: Ending) -> Self {
        self.agent(What::Leave { ending, figures: figures(number, uid) })
    }

    #[track_caller]
    pub(crate) fn passes(self) {
        let checked = check(&self.history);
        assert!(checked.wrongs.is_empty(), "{}", checked.wrongs.join("\n"));
        assert_eq!(checked.undecided, 0);
    }

    #[track_caller]
    pub(crate) fn fails(self, because: &str) {
        let wrongs = check(&self.history).wrongs.join("\n");
        assert!(wrongs.contains(because), "expected '{because}', got: {wrongs}");
    }
}

pub(crate) fn figures(turns: u64, last: Uid) -> Figures {
    Figures { messages: 2 * turns as usize, tokens: 0, last }
}

pub(crate) fn well(uid: Uid) -> Ending {
    Ending::Well { last: uid, turns: 1 }
}

pub(crate) fn begun(uid: Uid, number: u64) -> What {
    accepted(uid, WhenBusy::Refuse, number)
}

/// A turn that was admitted, or queued.
pub(crate) fn accepted(uid: Uid, when_busy: WhenBusy, number: u64) -> What {
    What::Turn { uid, host: false, when_busy, answer: Ok(Begun { number: Some(number), ended: false }) }
}

pub(crate) fn refused(uid: Uid, when_busy: WhenBusy, refused: Refused) -> What {
    What::Turn { uid, host: false, when_busy, answer: Err(refused) }
}

/// A turn that was refused because turn `number` is admitted.
pub(crate) fn busy(uid: Uid, number: u64) -> What {
    refused(uid, WhenBusy::Refuse, Refused::Busy(Some(number)))
}

/// A read after the acceptance of `turns` turns.
pub(crate) fn read(state: SessionState, turns: u64, figures: Figures) -> What {
    read_queue(state, turns, 0, figures)
}

pub(crate) fn read_queue(state: SessionState, turns: u64, queued: usize, figures: Figures) -> What {
    What::Read(Ok(View { state, active: state == RUNNING, turns, queued, figures }))
}

pub(crate) fn interrupted(answer: Result<(), Refused>) -> What {
    What::Interrupt { only: None, answer }
}

pub(crate) fn archived(mode: ArchiveMode) -> What {
    What::Archive { mode, answer: Ok(()) }
}

pub(crate) fn life(key: Key, created: (Stamp, Stamp), released: (Stamp, Stamp)) -> Life {
    let (created_after, created_before) = created;
    let (released_after, released_before) = released;
    Life { key, created_after, created_before, released_after, released_before }
}

impl Told {
    pub(crate) fn lived(mut self, lives: &[Life]) -> Self {
        self.history.lives = lives.to_vec();
        self
    }

    pub(crate) fn counted(mut self, call: Stamp, ret: Stamp, of: Counted) -> Self {
        self.history.counts.push(Count { call, ret, of });
        self
    }

    pub(crate) fn listed(mut self, call: Stamp, ret: Stamp, keys: &[Key]) -> Self {
        let view = View { state: IDLE, active: false, turns: 0, queued: 0, figures: Figures::default() };
        let answer = Ok(keys.iter().map(|key| (*key, view)).collect());
        self.history.listings.push(Listing { who: Who::Thread(0), call, ret, after: None, limit: None, answer });
        self
    }
}
