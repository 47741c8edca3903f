//! One thread of a run: it executes the steps of the plan, and records the answers with their stamps.

mod looks;
mod sessions;
mod turns;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::Duration;

use turnwise::crossbeam_channel::Receiver;
use turnwise::{
    AgentEvent, EphemeralSessionService, EventStream, InjectError, InteractionSubscription, Session, SessionError,
    SessionId, SessionService, TurnHandle,
};

use crate::agent::{give_way, Director, Stage};
use crate::answers::{Ending, Refused, View};
use crate::history::{Count, Counted, Event, Stamp, Uid, What, Who};
use crate::plan::{Slot, Step, NAMED};

pub(crate) type Service = EphemeralSessionService<Director>;

/// Longer than any call takes. If a call hangs, the watchdog of the run reports it before this timeout.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// The state that the threads of a run share, apart from the state that they share with the agents.
pub(crate) struct Scene {
    pub(crate) stage: Arc<Stage>,
    pub(crate) service: Service,
    pub(crate) named: Vec<SessionId>,
    pub(crate) next_uid: AtomicU32,
}

/// A list call and its answer, by id.
pub(crate) struct RawListing {
    pub(crate) who: Who,
    pub(crate) call: Stamp,
    pub(crate) ret: Stamp,
    pub(crate) after: Option<SessionId>,
    pub(crate) limit: Option<usize>,
    pub(crate) answer: Result<Vec<(SessionId, View)>, Refused>,
}

/// The records of one thread, and the handles and streams that it holds.
#[derive(Default)]
pub(crate) struct Notes {
    /// The records by id. The id of a create that failed may be known to its agent only.
    pub(crate) events: Vec<(Option<SessionId>, Event)>,
    pub(crate) shutdowns: Vec<Event>,
    pub(crate) listings: Vec<RawListing>,
    pub(crate) counts: Vec<Count>,
    pub(crate) results: Vec<(Uid, Ending)>,
    pub(crate) turns: Vec<Held>,
    pub(crate) interactions: Vec<(Uid, InteractionSubscription)>,
    pub(crate) watched: Vec<(Uid, Receiver<AgentEvent>)>,
    pub(crate) streams: Vec<EventStream>,
    pub(crate) clients: Vec<Client>,
}

/// A client that shows a history, and follows the events after its boundary.
pub(crate) struct Client {
    pub(crate) life: Uid,
    pub(crate) shown: Vec<String>,
    pub(crate) seq: u64,
    pub(crate) stream: EventStream,
}

/// A turn that a thread has begun.
pub(crate) struct Held {
    pub(crate) id: SessionId,
    pub(crate) uid: Uid,
    pub(crate) handle: TurnHandle,
}

pub(crate) struct Player<'a> {
    scene: &'a Scene,
    number: usize,
    pub(crate) notes: Notes,
    /// The history that this thread exported last. A later create of this thread may resume it.
    kept: Option<Session>,
}

impl<'a> Player<'a> {
    pub(crate) fn new(scene: &'a Scene, number: usize) -> Self {
        Self { scene, number, notes: Notes::default(), kept: None }
    }

    pub(crate) fn play(&mut self, step: &Step) {
        match *step {
            Step::Create { slot, build, resume, prompt } => self.create(slot, build, resume, prompt),
            Step::Open { slot, build, resume } => self.open(slot, build, resume),
            Step::Turn { slot, prompt, when_busy } => self.turn(slot, prompt, when_busy),
            Step::Rush { slot, times } => self.rush(slot, times),
            Step::Wait { back } => self.wait(back),
            Step::Poll { back } => self.poll(back),
            Step::AskQueued { back } => self.ask_queued(back),
            Step::InterruptHandle { back } => self.interrupt_handle(back),
            Step::InterruptOwn { back } => self.interrupt_own(back),
            Step::Interrupt { slot } => self.interrupt(slot),
            Step::InterruptTurn { slot, number } => self.interrupt_turn(slot, number.into()),
            Step::WaitIdle { slot, patience } => self.wait_idle(slot, patience),
            Step::Read { slot } => self.read(slot),
            Step::List { after, limit } => self.list(after, limit),
            Step::Export { slot } => self.export(slot),
            Step::Take { slot } => self.take(slot),
            Step::Archive { slot, interrupt } => self.archive(slot, interrupt),
            Step::ArchiveWait { slot } => self.wait_call(
                slot,
                |service, id| service.archive_wait(id, LONG),
                |answer| What::ArchiveWait(refused(answer)),
            ),
            Step::Inject { slot, script } => self.inject(slot, script),
            Step::Dismiss { slot } => self.dismiss(slot),
            Step::Subscribe { slot, capacity } => self.subscribe(slot, capacity),
            Step::Follow { slot } => self.follow(slot),
            Step::Stats => self.stats(),
            Step::Registrations => self.registrations(),
            Step::GiveWay(times) => give_way(times),
            Step::Shutdown { interrupt } => {
                if !self.shutdown(interrupt, LONG) {
                    self.scene.stage.wrong("C29: a shutdown with a long timeout left a stuck session");
                }
            }
        }
    }

    fn now(&self) -> Stamp {
        self.scene.stage.clock.now()
    }

    fn uid(&self) -> Uid {
        self.scene.next_uid.fetch_add(1, Ordering::SeqCst)
    }

    fn id(&self, slot: Slot) -> Option<SessionId> {
        match slot.0.checked_sub(NAMED) {
            None => Some(self.scene.named[usize::from(slot.0)]),
            Some(back) => self.scene.stage.fresh.lock().unwrap().iter().rev().nth(usize::from(back)).copied(),
        }
    }

    fn note(&mut self, id: impl Into<Option<SessionId>>, call: Stamp, what: What) {
        let ret = self.now();
        self.notes.events.push((id.into(), Event { who: Who::Thread(self.number), call, ret, what }));
    }

    fn count(&mut self, call: Stamp, of: Counted) {
        let ret = self.now();
        self.notes.counts.push(Count { call, ret, of });
    }

    /// Makes and records a call that does not wait.
    fn call<T>(&mut self, slot: Slot, call: impl FnOnce(&Service, SessionId) -> T, what: impl FnOnce(T) -> What) {
        let Some(id) = self.id(slot) else { return };
        let began = self.now();
        let answer = call(&self.scene.service, id);
        self.note(id, began, what(answer));
    }

    fn wait_call<T>(&mut self, slot: Slot, call: impl FnOnce(&Service, SessionId) -> T, what: impl FnOnce(T) -> What) {
        let stage = Arc::clone(&self.scene.stage);
        self.call(slot, |service, id| stage.waiting(|| call(service, id)), what);
    }
}

fn refused<T>(answer: Result<T, SessionError>) -> Result<T, Refused> {
    answer.map_err(|error| Refused::from(&error))
}

fn inject_refused(error: InjectError) -> Refused {
    match error {
        InjectError::Closed(_) => Refused::Other("CLOSED"),
        _ => Refused::Other("FULL"),
    }
}
