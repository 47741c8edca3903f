//! The attendant of a session: the thread that does for it what the engine asks, one thing after the other.
//!
//! An attendant exists while there is something to do, and for a moment longer. It reads what is in flight, starts the
//! first turn, passes cancellations, responses and messages on, and answers what no save has answered. It may wait for
//! the engine, for room, for a build without a turn, for a cancel hook, or for the end of a turn. No other session waits for
//! it. The agent of a turn is built by the session thread: a cancellation reaches the build.
//!
//! # What it reads
//!
//! A wake-up names the session. The attendant then [looks](Look) at the session's hash, which has all that is to be done
//! until the turn ends. So a wake-up that is lost, repeated or late does no harm, if another look follows: the sweep sees to
//! that while a turn is in flight.
//!
//! The wake-up for a turn that is alone in flight, in a session without feeds, has a copy of it. Where the session is live,
//! the attendant begins such a [known turn](KnownTurn) without a look, which saves a round trip. The copy may be late: a look
//! may have found the turn before. It counts only if
//!
//! - its epoch is the one in which this worker has the session, and
//! - its number is above that of every turn which was the first in flight when an attendant decided what to begin.
//!
//! The engine gives numbers out in rising order, so such a turn was neither begun nor refused here. It is the first in
//! flight still: nothing overtakes the first turn, and only its worker ends it while the worker has its lease. What has
//! come for it since, a cancellation or the end of the session for example, has a wake-up of its own behind this one.
//!
//! # Who answers a turn
//!
//! ```text
//! session thread                              attendant
//! the agent returns
//! finish: history and result, in one step
//! the end of the local turn  ───────────────▶ a save has answered it: nothing to do
//!
//! the turn does not run, or its save fails ─▶ refuse, with the error
//! ```
//!
//! The engine takes the first of both. A `refuse` behind a `finish` whose reply was lost finds no such turn in flight.

use std::collections::HashSet;
use std::time::Duration;

use crate::agent::SessionAgentBuilder;
use crate::error::{CancelReason, SessionError};
use crate::inbox::injector::InteractionSubscription;
use crate::model::{
    AgentEvent, InputId, InputResponse, InteractionContent, InteractionId, RunResult, SessionId, TurnId,
};
use crate::panics::record;
use crate::service::{CreateSessionRequest, SessionService, SessionSpec, StartTurnRequest, WhenBusy};
use crate::subscription::stream::EventStream;
use crate::subscription::{Overflow, Subscription};
use crate::sync::{bounded, never, select, Arc, Mutex, Ordering, Receiver};
use crate::time::clock::{Clock, Deadline};
use crate::turn::handle::TurnHandle;

use super::super::engine::{sleep, unexpected, Call};
use super::super::error::EngineError;
use super::super::messages::{reason_of, Failure, FeedOptions, Order, Spec, Verdict};
use super::super::scripts;
use super::super::wire::Reply;
use super::feed::{Feed, FeedEnd, Orders, Progress, EVENTS};
use super::feeds::{BusySession, RunningFeed, PATIENCE};
use super::hosting::{Hosted, Owner};
use super::lease::Incarnation;
use super::store::{fenced, finish};
use super::{spawn, Shared};

/// How long an attendant without anything to do waits for more.
const LINGER: Duration = Duration::from_secs(1);
/// How long the end of a local life may take before the session is left as it is.
pub(super) const END: Duration = Duration::from_secs(10);

pub(super) struct Attendant<B: SessionAgentBuilder> {
    shared: Arc<Shared<B>>,
    id: SessionId,
    wake: Receiver<Wakeup>,
    current: Option<Current>,
    /// Whether the last look, before the local turn or during it, has found something to do after it.
    has_more: bool,
    /// A turn that has come during the local one, and that no look has found.
    known: Option<KnownTurn>,
}

/// What wakes an attendant.
pub(super) enum Wakeup {
    /// There is something to do.
    Look,
    /// A turn was put in flight, and it is the only one.
    Begin(KnownTurn),
}

/// A copy of a turn in flight, from an entry of the worker's stream.
pub(super) struct KnownTurn {
    epoch: Arc<str>,
    turn: InFlight,
}

/// The local turn.
struct Current {
    number: u64,
    request: String,
    handle: TurnHandle,
    /// The messages and responses that were passed on.
    seen: HashSet<String>,
    is_cancelled: bool,
    _busy: BusySession,
}

/// What there is to do for a session.
struct Look {
    owner: Owner,
    is_archived: bool,
    turns: Vec<InFlight>,
    /// Name, client and options.
    feeds: Vec<[String; 3]>,
}

/// A turn in flight.
struct InFlight {
    number: u64,
    request: String,
    cid: String,
    order: Vec<u8>,
    cancel: Option<CancelReason>,
    /// Request, client and content.
    messages: Vec<(String, String, Vec<u8>)>,
    /// Input, and the response; empty if this worker has claimed it.
    responses: Vec<(String, Vec<u8>)>,
}

/// What comes after a step.
enum Next {
    /// Waits for a wake-up or the end of the turn.
    Wait,
    Look,
    End,
}

impl<B: SessionAgentBuilder> Attendant<B> {
    pub(super) fn new(shared: Arc<Shared<B>>, id: SessionId, wake: Receiver<Wakeup>) -> Self {
        Self { shared, id, wake, current: None, has_more: false, known: None }
    }

    /// Works until there is nothing to do. The first wake-up is in the channel.
    pub(super) fn run(mut self) {
        let mut next = Next::Wait;
        loop {
            next = match next {
                Next::Look => self.look(),
                Next::Wait => self.wait(),
                // Under the lock of the table, in which a wake-up would find this attendant.
                Next::End if self.shared.end_attendant(self.id, &self.wake) => return,
                Next::End => Next::Look,
            };
        }
    }

    /// Waits for a wake-up, the end of the local turn, or the end of the incarnation.
    fn wait(&mut self) -> Next {
        let Some(incarnation) = self.shared.incarnation() else { return self.give_up() };
        let finished = self.current.as_ref().map_or_else(never, |current| current.handle.finished().clone());
        let linger = match self.current {
            Some(_) => Deadline::never(),
            None if self.shared.is_draining.load(Ordering::SeqCst) => return Next::End,
            None => Clock::System.deadline(LINGER),
        };
        let alarm = linger.alarm();
        select! {
            recv(self.wake) -> wakeup => match wakeup {
                Ok(Wakeup::Begin(known)) => self.begin_known(known),
                _ => Next::Look,
            },
            recv(finished) -> _ => self.end_turn(),
            recv(incarnation.over().receiver()) -> _ => self.give_up(),
            recv(alarm.receiver()) -> _ => Next::End,
        }
    }

    /// Begins a turn without a look. That it is still to be begun follows from the fence and the number, see the head.
    fn begin_known(&mut self, known: KnownTurn) -> Next {
        if self.current.is_some() {
            // The engine has the end of the local turn already, or another session has the id.
            self.known = Some(known);
            return Next::Wait;
        }
        let Some(incarnation) = self.shared.incarnation().filter(|incarnation| !incarnation.over().is_set()) else {
            return self.give_up();
        };
        let KnownTurn { epoch, turn } = known;
        let owner = Owner { wid: Arc::clone(&incarnation.wid), epoch };
        // Otherwise it has to be loaded, which takes as long as a look.
        let is_live = self.shared.service.is_live(self.id);
        let hosted = self.shared.hosting.find(self.id).filter(|hosted| is_live && hosted.is_new(&owner, turn.number));
        match hosted {
            Some(hosted) => {
                let look = Look { owner, is_archived: false, turns: vec![turn], feeds: Vec::new() };
                self.begin(&incarnation, &hosted, &look, &look.turns[0])
            }
            None => Next::Look,
        }
    }

    /// Reads what there is to do, and does it.
    fn look(&mut self) -> Next {
        let Some(incarnation) = self.shared.incarnation().filter(|incarnation| !incarnation.over().is_set()) else {
            return self.give_up();
        };
        let look = match self.read(&incarnation) {
            Ok(Some(look)) => look,
            Ok(None) => return self.give_up(),
            Err(error) => {
                let (id, code) = (self.id, error.code());
                record!(Warn, "turnwise::cluster", "session {id}: the engine does not tell what to do: {code}");
                // The sweep after the outage wakes it.
                self.shared.note_missed();
                return if self.current.is_some() { Next::Wait } else { Next::End };
            }
        };
        // The look has found it, if it is still in flight.
        self.known = None;
        let hosted = self.shared.hosting.enter(self.id);
        if hosted.owner().as_ref() != Some(&look.owner) {
            // It was given away and has come back: what is here is of an older epoch.
            if !self.end_life(&hosted) {
                return self.refuse_all(&look);
            }
            hosted.set_owner(look.owner.clone());
        }
        self.shared.feeds.keep(self.id, |name| look.feeds.iter().any(|[feed, ..]| feed == name));
        if self.shared.service.is_live(self.id) {
            self.follow(&hosted, &look);
        }
        if let Some(current) = &mut self.current {
            self.has_more = look.has_more_than(current.number);
            match look.turns.iter().find(|turn| turn.number == current.number) {
                Some(turn) => current.attend(&self.shared, self.id, turn),
                // Answered by a save, or taken back because the session was deleted.
                None if hosted.is_answered(TurnId::new(current.number)) => {}
                None => current.cancel(CancelReason::Archived),
            }
            return Next::Wait;
        }
        match look.turns.first() {
            Some(turn) => self.begin(&incarnation, &hosted, &look, turn),
            None => {
                if look.is_archived {
                    return self.leave(&look.owner);
                }
                Next::Wait
            }
        }
    }

    fn read(&self, incarnation: &Incarnation) -> Result<Option<Look>, EngineError> {
        let call = Call::new(&scripts::LOOK).arg(self.id.to_string()).arg(&*incarnation.wid);
        let answer = self.shared.engine.read(call)?;
        if answer.is_list_of("gone") {
            return Ok(None);
        }
        Look::new(&answer, &incarnation.wid).map(Some).ok_or_else(|| unexpected(&scripts::LOOK))
    }

    /// Begins what is first in flight.
    fn begin(&mut self, incarnation: &Incarnation, hosted: &Arc<Hosted>, look: &Look, turn: &InFlight) -> Next {
        if !incarnation.may_begin(&self.shared.engine) {
            return self.give_up();
        }
        let in_flight: Vec<u64> = look.turns.iter().map(|turn| turn.number).collect();
        if hosted.was_begun(&in_flight) {
            // Its end could not be kept, or the attendant that began it has panicked: then it still runs here. To run it again
            // is not the engine's to decide.
            self.end_life_and_keep(hosted);
            let text = "the worker could not keep the end of the turn".to_owned();
            return self.refuse(hosted, turn.number, &turn.request, &Failure::Store { text });
        }
        let order: Order = match serde_json::from_slice(&turn.order) {
            Ok(order) => order,
            Err(_) => {
                let text = "the worker cannot read the request".to_owned();
                return self.refuse(hosted, turn.number, &turn.request, &Failure::Other { text });
            }
        };
        if turn.number == 0 {
            return self.build(hosted, turn, order);
        }
        // Before the feeds are looked at.
        let busy = self.shared.feeds.begin_turn(self.id);
        if !look.feeds.is_empty() && self.shared.service.is_live(self.id) {
            // Another session may have taken the streams away since the look.
            self.follow(hosted, look);
        }
        match self.begin_turn(hosted, look, turn, order) {
            Ok(handle) if handle.turn_id().get() == turn.number => {
                self.shared.counters.begun.add_one();
                let (number, request) = (turn.number, turn.request.clone());
                let seen = HashSet::new();
                let mut current = Current { number, request, handle, seen, is_cancelled: false, _busy: busy };
                current.attend(&self.shared, self.id, turn);
                self.current = Some(current);
                self.has_more = look.has_more_than(turn.number);
                Next::Wait
            }
            Ok(handle) => {
                // Only a life that began for another turn counts like that.
                self.end_life_and_keep(hosted);
                let text = format!("the worker has turn {} in place of {}", handle.turn_id(), turn.number);
                self.refuse(hosted, turn.number, &turn.request, &Failure::Other { text })
            }
            Err(error) => {
                if matches!(error, SessionError::Faulted { .. }) {
                    // The next turn builds the agent again.
                    self.end_life_now();
                }
                self.refuse(hosted, turn.number, &turn.request, &Failure::new(&error))
            }
        }
    }

    fn begin_turn(
        &mut self,
        hosted: &Arc<Hosted>,
        look: &Look,
        turn: &InFlight,
        order: Order,
    ) -> Result<TurnHandle, SessionError> {
        let (id, number) = (self.id, turn.number);
        let Some(ordered) = order.turn else { return Err(SessionError::NotRunning { id }) };
        let feed = ordered.has_feed.then(|| bounded(EVENTS));
        let mut request = ordered.into_request().when_busy(WhenBusy::Queue).number(TurnId::new(number));
        hosted.begin_turn(TurnId::new(number), turn.request.as_str().into(), request.host_mode);
        let events = feed.map(|(event_tx, events)| {
            request.event_tx = Some(event_tx);
            events
        });
        let service = &self.shared.service;
        let begun = match order.spec {
            Some(spec) => self
                .new_spec(spec)
                .and_then(|spec| service.begin_session(CreateSessionRequest::new("").session(spec).turn(request))),
            None => {
                // A life that the turn begins is followed before it starts, so that the clients get the first event. Then the
                // agent is built, while this thread attends to the turn.
                self.begin_stored(request, || self.follow(hosted, look))
            }
        };
        if begun.is_ok() && !look.feeds.is_empty() {
            // Also a life that another caller has begun since the look.
            self.follow(hosted, look);
        }
        // Also for a turn that does not begin: the client waits for the end of its feed.
        if let Some((events, owner)) = events.zip(hosted.owner()) {
            self.shared.spawn_feed(self.feed(hosted, owner, &turn.request, &turn.cid), events);
        }
        begun
    }

    /// Begins a turn of a session that has a record. A life that is ending is waited for. `follow` is called if the turn
    /// begins a life.
    fn begin_stored(&self, mut request: StartTurnRequest, follow: impl Fn()) -> Result<TurnHandle, SessionError> {
        let patience = Clock::System.deadline(self.shared.engine.config().lease / 2);
        let mut pause = Duration::from_millis(1);
        let mut room = Room::new(&self.shared);
        loop {
            let refused = match self.shared.service.try_begin_turn_and(self.id, request, &follow) {
                Ok(handle) => return Ok(handle),
                Err(refused) => refused,
            };
            match refused.error {
                SessionError::Busy { .. } if patience.leaves_more_than(pause) => {
                    sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(50));
                    request = refused.request;
                }
                SessionError::CapacityExceeded { .. } if room.make() => request = refused.request,
                error => return Err(error),
            }
        }
    }

    /// The specification of a new session, with room for it.
    fn new_spec(&self, spec: Spec) -> Result<SessionSpec, SessionError> {
        let mut room = Room::new(&self.shared);
        let reservation = room.repeat(|| self.shared.service.make_room())?;
        let spec = spec.into_spec(self.id);
        Ok(match reservation {
            Some(reservation) => spec.reservation(reservation),
            None => spec,
        })
    }

    /// Builds the agent for no turn: of a new session, or of one that is faulted.
    fn build(&mut self, hosted: &Arc<Hosted>, turn: &InFlight, order: Order) -> Next {
        let built = match order.spec {
            Some(spec) => self.new_spec(spec).and_then(|spec| self.shared.service.open_session(spec).map(drop)),
            None if self.end_life_now() => {
                let mut room = Room::new(&self.shared);
                room.repeat(|| self.shared.service.resume(self.id))
            }
            None => Err(SessionError::Busy { id: self.id, turn: None }),
        };
        match built {
            Ok(()) => {
                let result = RunResult::new(self.id, TurnId::new(0), "");
                self.answer(hosted, 0, &turn.request, &Ok(result))
            }
            Err(error) => self.refuse(hosted, 0, &turn.request, &Failure::new(&error)),
        }
    }

    /// The local turn has ended: answers it, if no save has.
    fn end_turn(&mut self) -> Next {
        if self.shared.incarnation().is_none_or(|incarnation| incarnation.over().is_set()) {
            // If no save has answered the turn it is lost, and not refused because its agent was told to stop.
            return self.give_up();
        }
        let Some(mut current) = self.current.take() else { return Next::Look };
        let Some(hosted) = self.shared.hosting.find(self.id) else { return Next::Look };
        let result = current.handle.try_wait();
        let is_faulted = matches!(result, Some(Err(SessionError::Faulted { .. })));
        self.shared.counters.ended.add_one();
        let next = match hosted.end_turn() {
            Some(has_more) if has_more || self.has_more => Next::Look,
            // Its life ends first, see below.
            Some(_) if is_faulted => Next::Look,
            Some(_) => match self.known.take() {
                Some(known) => self.begin_known(known),
                None => Next::Wait,
            },
            None => {
                let gone = Err(SessionError::NotFound { id: self.id });
                if matches!(result, Some(Err(SessionError::Store { .. }))) {
                    // The agent has the turn, and the next save would have it too. The record is what counts.
                    self.end_life_and_keep(&hosted);
                }
                match result.unwrap_or(gone) {
                    // A turn in host mode: its interactions were saved one by one.
                    Ok(result) => self.answer(&hosted, current.number, &current.request, &Ok(result)),
                    Err(error) => self.refuse(&hosted, current.number, &current.request, &Failure::new(&error)),
                }
            }
        };
        if is_faulted && !self.shared.restarts {
            // Its capacity is of more use to others. A restart builds the agent from the record.
            self.end_life_now();
        }
        next
    }

    fn answer(&mut self, hosted: &Hosted, number: u64, request: &str, verdict: &Verdict) -> Next {
        let Some(owner) = hosted.owner() else { return Next::Look };
        match finish(self.id, &owner, number, request, verdict, "") {
            Ok(call) => self.write(call),
            Err(_) => self.refuse(hosted, number, request, &Failure::Other { text: "the result has no JSON".into() }),
        }
    }

    fn refuse(&mut self, hosted: &Hosted, number: u64, request: &str, failure: &Failure) -> Next {
        hosted.end_turn();
        // Also where the local life could not be ended: the engine compares the fence.
        let Some(owner) = hosted.assigned() else { return Next::Wait };
        self.shared.counters.refused.add_one();
        let verdict: Result<&RunResult, &Failure> = Err(failure);
        let body = serde_json::to_vec(&verdict).unwrap_or_default();
        let call = fenced(&scripts::REFUSE, self.id, &owner).arg(number.to_string()).arg(request).arg(body);
        self.write(call)
    }

    fn refuse_all(&mut self, look: &Look) -> Next {
        let hosted = Hosted::of(self.id, look.owner.clone());
        for turn in &look.turns {
            self.refuse(&hosted, turn.number, &turn.request, &Failure::Busy { turn: None });
        }
        Next::Wait
    }

    /// Runs a step that ends something, and looks for what comes next.
    fn write(&self, call: Call) -> Next {
        match self.shared.engine.write(call) {
            Ok(_) => Next::Look,
            Err(error) => {
                let (id, code) = (self.id, error.code());
                record!(Warn, "turnwise::cluster", "session {id}: a turn is not answered: {code}");
                // The sweep looks again.
                self.shared.note_missed();
                Next::Wait
            }
        }
    }

    fn feed(&self, hosted: &Arc<Hosted>, owner: Owner, name: &str, cid: &str) -> Feed {
        let (engine, hosted) = (self.shared.engine.clone(), Arc::clone(hosted));
        Feed { engine, hosted, owner, name: name.to_owned(), cid: cid.to_owned() }
    }

    /// Adds the feeds that are not running.
    fn follow(&self, hosted: &Arc<Hosted>, look: &Look) {
        for [name, cid, options] in &look.feeds {
            let Some(running) = self.shared.feeds.start(self.id, name, &look.owner.epoch) else { continue };
            let options: FeedOptions = serde_json::from_str(options).unwrap_or(FeedOptions { from_seq: None });
            // A slow client is waited for. One that does not want that reads all the same, and drops what it has no room for.
            let mut subscription = Subscription::new().capacity(EVENTS).overflow(Overflow::Block);
            subscription.from_seq = options.from_seq.filter(|_| running.is_first());
            match self.shared.service.subscribe_live(self.id, subscription) {
                Ok(stream) => {
                    let feed = self.feed(hosted, look.owner.clone(), name, cid);
                    self.shared.spawn_session_feed(feed, stream, running);
                }
                Err(error) => {
                    let (id, code) = (self.id, error.code());
                    record!(Debug, "turnwise::cluster", "session {id}: no events for a client: {code}");
                }
            }
        }
    }

    /// The worker does not have the session any more: what is here is of no use.
    fn give_up(&mut self) -> Next {
        if let Some(hosted) = self.shared.hosting.find(self.id) {
            let has_ended = self.end_life(&hosted);
            // Whether it has ended or not: the clients are told by the engine.
            self.shared.feeds.keep(self.id, |_| false);
            match has_ended {
                true => self.shared.hosting.remove(self.id),
                false => self.shared.note_missed(),
            }
        }
        self.current = None;
        Next::End
    }

    /// Gives an archived session back.
    fn leave(&mut self, owner: &Owner) -> Next {
        self.end_life_now();
        self.shared.feeds.finish(self.id, &Clock::System.deadline(PATIENCE));
        if self.shared.engine.write(fenced(&scripts::UNLOAD, self.id, owner)).is_err() {
            self.shared.note_missed();
        }
        Next::Look
    }

    /// Ends the local life without a save. Returns whether it has ended.
    fn end_life(&mut self, hosted: &Hosted) -> bool {
        hosted.release();
        if let Some(current) = self.current.take() {
            self.shared.counters.lost.add_one();
            current.handle.cancel_token().cancel_and_run_hooks(CancelReason::Shutdown);
        }
        self.end_life_now()
    }

    /// Ends the local life without a save. The session stays this worker's, in the same epoch, if the life has ended.
    fn end_life_and_keep(&mut self, hosted: &Hosted) {
        let owner = hosted.owner();
        if self.end_life(hosted) {
            hosted.restore(owner);
        }
    }

    /// Ends the local life. While this worker has the session its last save is kept.
    fn end_life_now(&mut self) -> bool {
        let ended = self.shared.service.end_life(self.id, END);
        // Behind the end, so that the feeds have its last events.
        self.shared.feeds.stop(self.id);
        if let Err(error) = &ended {
            let (id, code) = (self.id, error.code());
            record!(Warn, "turnwise::cluster", "session {id}: its agent has not ended: {code}");
        }
        ended.is_ok()
    }
}

/// Room for a session, in a worker whose idle sessions have subscribers.
struct Room<'a, B: SessionAgentBuilder> {
    shared: &'a Arc<Shared<B>>,
    /// From the first session on that makes room: the call itself may have waited as long before.
    deadline: Option<Deadline>,
    released: Vec<SessionId>,
}

impl<'a, B: SessionAgentBuilder> Room<'a, B> {
    fn new(shared: &'a Arc<Shared<B>>) -> Self {
        Self { shared, deadline: None, released: Vec::new() }
    }

    /// Lets an idle session with subscribers be unloaded. Returns `false` if there is none, or the time is over.
    fn make(&mut self) -> bool {
        let deadline = self.deadline.get_or_insert_with(|| Clock::System.deadline(END));
        if !deadline.leaves_more_than(Duration::ZERO) {
            return false;
        }
        let released = self.shared.feeds.release(deadline);
        self.released.extend(released);
        released.is_some()
    }

    /// Makes a call that needs room.
    fn repeat<T>(&mut self, mut call: impl FnMut() -> Result<T, SessionError>) -> Result<T, SessionError> {
        loop {
            match call() {
                Err(SessionError::CapacityExceeded { .. }) if self.make() => {}
                called => return called,
            }
        }
    }
}

/// Sessions that were released and not unloaded are followed again.
impl<B: SessionAgentBuilder> Drop for Room<'_, B> {
    fn drop(&mut self) {
        for id in self.released.drain(..) {
            if self.shared.service.has_life(id) {
                self.shared.attend(id);
            }
        }
    }
}

impl Current {
    /// Passes on what has come for the turn.
    fn attend<B: SessionAgentBuilder>(&mut self, shared: &Arc<Shared<B>>, id: SessionId, turn: &InFlight) {
        for (input, response) in turn.responses.iter().filter(|(_, response)| !response.is_empty()) {
            if self.seen.insert(input.clone()) {
                let parsed = input.parse().map(InputId::new).ok().zip(serde_json::from_slice(response).ok());
                if let Some((input, response)) = parsed {
                    let response: InputResponse = response;
                    // Where the turn has stopped waiting it asks the engine, which has the response.
                    let _ = shared.service.respond(id, input, response);
                }
            }
        }
        for (request, cid, content) in &turn.messages {
            if self.seen.insert(request.clone()) {
                shared.steer(id, TurnId::new(self.number), request, cid, content);
            }
        }
        if let Some(reason) = turn.cancel {
            self.cancel(reason);
        }
    }

    fn cancel(&mut self, reason: CancelReason) {
        if !std::mem::replace(&mut self.is_cancelled, true) {
            self.handle.cancel_token().cancel_and_run_hooks(reason);
        }
    }
}

impl<B: SessionAgentBuilder> Shared<B> {
    fn spawn_feed(self: &Arc<Self>, feed: Feed, events: Receiver<AgentEvent>) {
        let Some(incarnation) = self.incarnation() else { return };
        let feed = Arc::new(feed);
        let own = Arc::clone(&feed);
        let is_spawned = spawn("feed", move || {
            let progress = Mutex::new(Progress::new());
            // The events of a lost turn are of no use to anyone.
            let over = incarnation.over();
            let orders = Orders { stop: over, cut: over, before: None, released: None };
            if own.run(events, &orders, &progress) == FeedEnd::Drained && !over.is_set() {
                own.end(&progress);
            }
        });
        if !is_spawned {
            // The turn goes on without it. The client need not wait for events.
            feed.end(&Mutex::new(Progress::of_lost_events()));
        }
    }

    /// Passes the events of the session on. The end of the local life is not the end of the feed: the next one goes on.
    /// Without a thread the next look tries again.
    fn spawn_session_feed(self: &Arc<Self>, feed: Feed, stream: EventStream, mut running: RunningFeed) {
        let shared = Arc::clone(self);
        let is_spawned = spawn("feed", move || {
            running.begin();
            let end = feed.run(stream, &running.orders(), &running.progress);
            // Before a sweep that looks for feeds without a thread.
            drop(running);
            match end {
                FeedEnd::Unwanted => {
                    let call = Call::new(&scripts::FOLLOW).arg(feed.hosted.id.to_string()).arg(feed.cid.as_str());
                    let _ = shared.engine.write(call.arg(feed.name.as_str()).arg(""));
                }
                FeedEnd::Cut => shared.note_missed(),
                FeedEnd::Drained => {}
            }
        });
        if !is_spawned {
            self.note_missed();
        }
    }

    /// Passes a message on to the turn, and what becomes of it to the client.
    fn steer(self: &Arc<Self>, id: SessionId, turn: TurnId, request: &str, cid: &str, content: &[u8]) {
        let mut tell = Tell { shared: Arc::clone(self), request: request.to_owned(), cid: cid.to_owned(), sent: 0 };
        // Before the turn has it: the turn may end at once.
        tell.send("taken", None);
        let steered = match serde_json::from_slice::<InteractionContent>(content) {
            Ok(content) => self.service.steer(id, Some(turn), content).map_err(|error| error.to_string()),
            Err(_) => Err("the worker cannot read the message".to_owned()),
        };
        match steered {
            Ok(subscription) => {
                // Without a thread the client hears of the end of the turn.
                spawn("steering", move || tell.follow(subscription));
            }
            Err(error) => {
                let interaction_id = InteractionId::new();
                tell.send("end", Some(&AgentEvent::InteractionFailed { interaction_id, error }));
            }
        }
    }
}

/// Reports to a client what becomes of its message.
struct Tell<B: SessionAgentBuilder> {
    shared: Arc<Shared<B>>,
    request: String,
    cid: String,
    /// How many reports were sent: a report that is repeated has the same number.
    sent: u64,
}

impl<B: SessionAgentBuilder> Tell<B> {
    fn follow(&mut self, subscription: InteractionSubscription) {
        while let Ok(event) = subscription.events.recv() {
            let is_end = matches!(event, AgentEvent::InteractionComplete { .. } | AgentEvent::InteractionFailed { .. });
            self.send(if is_end { "end" } else { "event" }, Some(&event));
        }
    }

    fn send(&mut self, kind: &str, event: Option<&AgentEvent>) {
        self.sent += 1;
        let body = event.map(|event| serde_json::to_vec(event).unwrap_or_default()).unwrap_or_default();
        let call = Call::new(&scripts::TELL).arg(self.cid.as_str()).arg(self.request.as_str()).arg(kind).arg(body);
        if let Err(error) = self.shared.engine.write(call.arg(self.sent.to_string())) {
            record!(Warn, "turnwise::cluster", "a message's report is lost: {}", error.code());
        }
    }
}

impl Look {
    /// Whether there is something to do after this turn.
    fn has_more_than(&self, turn: u64) -> bool {
        self.is_archived || self.turns.iter().any(|other| other.number != turn)
    }

    fn new(answer: &Reply, wid: &Arc<str>) -> Option<Self> {
        let [word, epoch, archived, turns, feeds] = answer.list()? else { return None };
        if word.text()? != b"ok" {
            return None;
        }
        let owner = Owner { wid: Arc::clone(wid), epoch: text(epoch)?.into() };
        let turns = turns.list()?.iter().map(InFlight::new).collect::<Option<_>>()?;
        let feed = |feed: &Reply| match feed.list()? {
            [name, cid, options] => Some([text(name)?, text(cid)?, text(options)?]),
            _ => None,
        };
        let feeds = feeds.list()?.iter().map(feed).collect::<Option<_>>()?;
        Some(Self { owner, is_archived: archived.text()? == b"1", turns, feeds })
    }
}

impl KnownTurn {
    /// Reads the fields of an entry behind the session's id.
    fn new(fields: &[Vec<u8>]) -> Option<Self> {
        let [_, epoch, _, number, _, request, _, cid, _, order] = fields else { return None };
        let text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        let turn = InFlight {
            number: text(number).parse().ok()?,
            request: text(request),
            cid: text(cid),
            order: order.clone(),
            cancel: None,
            messages: Vec::new(),
            responses: Vec::new(),
        };
        Some(Self { epoch: text(epoch).into(), turn })
    }
}

impl Wakeup {
    /// Reads the fields of an entry behind the session's id.
    pub(super) fn read(fields: &[Vec<u8>]) -> Self {
        KnownTurn::new(fields).map_or(Self::Look, Self::Begin)
    }
}

impl InFlight {
    fn new(turn: &Reply) -> Option<Self> {
        let [number, request, cids, order, cancel, messages, responses] = turn.list()? else { return None };
        let cancel = cancel.text()?;
        let message = |message: &Reply| match message.list()? {
            [request, cid, content] => Some((text(request)?, text(cid)?, content.text()?.to_vec())),
            _ => None,
        };
        let response = |response: &Reply| match response.list()? {
            [input, response] => Some((text(input)?, response.text()?.to_vec())),
            _ => None,
        };
        Some(Self {
            number: text(number)?.parse().ok()?,
            request: text(request)?,
            // The latest name of the client that has begun the turn.
            cid: text(cids)?.split(' ').next_back().unwrap_or_default().to_owned(),
            order: order.text()?.to_vec(),
            cancel: (!cancel.is_empty()).then(|| reason_of(cancel)),
            messages: messages.list()?.iter().map(message).collect::<Option<_>>()?,
            responses: responses.list()?.iter().map(response).collect::<Option<_>>()?,
        })
    }
}

fn text(reply: &Reply) -> Option<String> {
    reply.text().map(|text| String::from_utf8_lossy(text).into_owned())
}
