//! One thread of a run: it executes the steps of the plan, and records the answers with their stamps.

mod looks;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::Duration;

use turnwise::crossbeam_channel::{unbounded, Receiver};
use turnwise::{
    AgentEvent, CreateSessionRequest, EphemeralSessionService, EventStream, InjectError, InteractionSubscription,
    RunResult, Session, SessionError, SessionId, SessionService, SessionSpec, StartTurnRequest, TurnHandle, TurnId,
};

use crate::agent::{figures_of, give_way, Director, Order, Stage};
use crate::history::{Begun, Count, Counted, Ending, Event, Figures, Opened, Refused, Stamp, Uid, View, What, Who};
use crate::plan::{mode, Build, Form, Prompt, Slot, Step, NAMED};
use crate::task::Task;

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
            Step::Turn { slot, prompt } => self.turn(slot, prompt),
            Step::Wait { back } => self.wait(back),
            Step::Poll { back } => self.poll(back),
            Step::InterruptHandle { back } => self.interrupt_handle(back),
            Step::Interrupt { slot } => self.interrupt(slot),
            Step::InterruptTurn { slot, number } => self.interrupt_turn(slot, number.into()),
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

    fn back(&self, back: u8) -> Option<&Held> {
        self.notes.turns.iter().rev().nth(usize::from(back))
    }

    /// A specification, the number of the create, the figures of the history to resume, and the id to ask for.
    fn spec(
        &mut self,
        slot: Option<Slot>,
        build: Build,
        resume: bool,
    ) -> (SessionSpec, Uid, Figures, Option<SessionId>) {
        let uid = self.uid();
        let mut spec = SessionSpec::new();
        let mut id = slot.and_then(|slot| self.id(slot));
        spec.session_id = id;
        let mut figures = Figures::default();
        if let Some(kept) = self.kept.clone().filter(|_| resume) {
            figures = figures_of(&kept);
            id = id.or(Some(kept.id()));
            spec = spec.resume(kept);
        }
        let spec = spec.extension(Arc::new(Order { uid, build, fresh: id.is_none() }));
        (spec, uid, figures, id)
    }

    fn request(&mut self, uid: Uid, prompt: Prompt) -> StartTurnRequest {
        let request = StartTurnRequest::new(Task { uid, script: prompt.script }.to_string()).host_mode(prompt.host);
        if !prompt.watched {
            return request;
        }
        let (event_tx, events) = unbounded();
        self.notes.watched.push((uid, events));
        request.event_tx(event_tx)
    }

    fn create(&mut self, slot: Option<Slot>, build: Build, resume: bool, prompt: Prompt) {
        let (spec, uid, figures, id) = self.spec(slot, build, resume);
        let request = CreateSessionRequest::default().session(spec).turn(self.request(uid, prompt));
        let call = self.now();
        let (id, answer) = if prompt.form == Form::Wait {
            let result = self.scene.stage.waiting(|| self.scene.service.create_session(request));
            (id.or(about(&result)), self.ended(uid, result))
        } else {
            let begun = self.scene.service.begin_session(request);
            (id.or_else(|| begun.as_ref().ok().map(TurnHandle::session_id)), self.began(uid, prompt.form, begun))
        };
        self.created(call, id, answer.map(|_| ()), What::Create { uid, figures, host: prompt.host, answer });
    }

    fn open(&mut self, slot: Option<Slot>, build: Build, resume: bool) {
        let (spec, uid, figures, id) = self.spec(slot, build, resume);
        let call = self.now();
        let result = self.scene.stage.waiting(|| self.scene.service.open_session(spec));
        let id = id.or(result.as_ref().map_or_else(SessionError::session_id, |id| Some(*id)));
        let answer = match &result {
            Ok(_) => Ok(()),
            Err(SessionError::Build { .. }) => Err(Opened::NotBuilt),
            // The open may have been refused, or the session was closed during its build. The records of the build
            // decide which (`tell_refusals_apart`).
            Err(error @ (SessionError::NotFound { .. } | SessionError::ShuttingDown)) => {
                Err(Opened::Refused(Refused::from(error)))
            }
            Err(error) => Err(Opened::Refused(Refused::from(error))),
        };
        let refused = match answer {
            Err(Opened::Refused(refused)) => Err(refused),
            _ => Ok(()),
        };
        self.created(call, id, refused, What::Open { uid, figures, answer });
    }

    fn created(&mut self, call: Stamp, id: Option<SessionId>, answer: Result<(), Refused>, what: What) {
        if let Err(Refused::Capacity { active, max }) = answer {
            self.count(call, Counted::Exceeded { active, max });
        }
        self.note(id, call, what);
    }

    fn turn(&mut self, slot: Slot, prompt: Prompt) {
        let Some(id) = self.id(slot) else { return };
        let uid = self.uid();
        let request = self.request(uid, prompt);
        let call = self.now();
        let answer = if prompt.form == Form::Wait {
            let result = self.scene.stage.waiting(|| self.scene.service.start_turn(id, request));
            self.ended(uid, result)
        } else {
            let begun = self.scene.service.begin_turn(id, request);
            self.began(uid, prompt.form, begun)
        };
        self.note(id, call, What::Turn { uid, host: prompt.host, answer });
    }

    /// Records the result of a call that waits for the turn, and returns its answer.
    fn ended(&mut self, uid: Uid, result: Result<RunResult, SessionError>) -> Result<Begun, Refused> {
        let number = result.as_ref().ok().map(|result| result.turn_id.get());
        match &result {
            Ok(_) | Err(SessionError::Agent { .. } | SessionError::Build { .. }) => {}
            // The turn was refused, or its agent panicked. The agent's records decide which.
            Err(SessionError::Faulted { .. }) => {}
            Err(error) => return Err(Refused::from(error)),
        }
        self.notes.results.push((uid, Ending::of(&result)));
        Ok(Begun { number, ended: true })
    }

    fn began(&mut self, uid: Uid, form: Form, begun: Result<TurnHandle, SessionError>) -> Result<Begun, Refused> {
        match begun {
            Ok(handle) => {
                let number = Some(handle.turn_id().get());
                if form == Form::Keep {
                    self.notes.turns.push(Held { id: handle.session_id(), uid, handle });
                }
                Ok(Begun { number, ended: false })
            }
            Err(error) => Err(Refused::from(&error)),
        }
    }

    pub(crate) fn wait(&mut self, back: u8) {
        let stage = Arc::clone(&self.scene.stage);
        self.ask(back, |handle| stage.waiting(|| handle.wait_timeout(LONG)));
    }

    fn poll(&mut self, back: u8) {
        self.ask(back, TurnHandle::try_wait);
    }

    fn ask(&mut self, back: u8, ask: impl FnOnce(&mut TurnHandle) -> Option<Result<RunResult, SessionError>>) {
        let call = self.now();
        let Some(held) = self.notes.turns.iter_mut().rev().nth(usize::from(back)) else { return };
        let (id, uid, number) = (held.id, held.uid, held.handle.turn_id());
        let Some(result) = ask(&mut held.handle) else { return };
        if result.as_ref().is_ok_and(|result| (result.session_id, result.turn_id) != (id, number)) {
            self.scene.stage.wrong(format!("turn {uid} has the result of another turn"));
        }
        self.notes.results.push((uid, Ending::of(&result)));
        self.note(id, call, What::Result { uid });
    }

    fn interrupt_handle(&mut self, back: u8) {
        let call = self.now();
        let Some(held) = self.back(back) else { return };
        let (id, uid) = (held.id, held.uid);
        held.handle.interrupt();
        self.note(id, call, What::InterruptHandle { uid });
    }

    /// Opens the first slots.
    pub(crate) fn open_first(&mut self, count: u8) {
        (0..count).for_each(|slot| self.open(Some(Slot(slot)), Build::Slow(0), false));
    }

    /// Interrupts the turns that wait for a cancel. In a closed session it cancels only agents that wait for it, since
    /// host mode has to end there by itself.
    pub(crate) fn interrupt_all(&mut self) {
        let fresh = self.scene.stage.fresh.lock().unwrap().len();
        for slot in (0..usize::from(NAMED) + fresh).map(|slot| Slot(slot as u8)) {
            self.interrupt(slot);
            let id = self.id(slot);
            let closed = self.notes.events.last().is_some_and(|(_, event)| is_closed(&event.what));
            if closed && self.scene.stage.holding.lock().unwrap().iter().any(|holding| Some(*holding) == id) {
                self.archive(slot, true);
            }
        }
    }

    fn archive(&mut self, slot: Slot, interrupt: bool) {
        let mode = mode(interrupt);
        self.call(
            slot,
            |service, id| service.archive_with(id, mode),
            |answer| What::Archive { mode, answer: refused(answer) },
        );
    }

    fn interrupt(&mut self, slot: Slot) {
        self.call(
            slot,
            |service, id| service.interrupt(id),
            |answer| What::Interrupt { only: None, answer: refused(answer) },
        );
    }

    fn interrupt_turn(&mut self, slot: Slot, number: u64) {
        self.call(
            slot,
            |service, id| service.interrupt_turn(id, TurnId::new(number)),
            |answer| What::Interrupt { only: Some(number), answer: refused(answer) },
        );
    }

    /// Shuts the service down. Returns whether every session has ended within the timeout.
    pub(crate) fn shutdown(&mut self, interrupt: bool, timeout: Duration) -> bool {
        let (mode, call) = (mode(interrupt), self.now());
        let report = self.scene.stage.waiting(|| self.scene.service.shutdown_with(mode, timeout));
        self.count(call, Counted::Joined(report.joined));
        let timed_out = !report.stuck.is_empty();
        let (who, ret) = (Who::Thread(self.number), self.now());
        self.notes.shutdowns.push(Event { who, call, ret, what: What::Shutdown { mode, timed_out } });
        !timed_out
    }
}

fn is_closed(what: &What) -> bool {
    matches!(what, What::Interrupt { answer: Err(Refused::NotFound), .. })
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

/// The session of a result.
fn about(result: &Result<RunResult, SessionError>) -> Option<SessionId> {
    result.as_ref().map_or_else(SessionError::session_id, |result| Some(result.session_id))
}
