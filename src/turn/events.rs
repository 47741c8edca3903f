//! Where events go: straight from the emitting thread into the receiver's channel.
//!
//! **Invariant.** A turn's `event_tx` is reached through its [`TurnEvents`] only, which lives on the session's thread and
//! is lent to the agent by reference. When the terminal event is emitted the loan is over, so nothing can come after it.
//!
//! A turn that waits for room lends its running permit meanwhile. Otherwise a session that reads the events of a sub-agent,
//! and needs a permit to go on reading, would wait for a permit that the sub-agent keeps while it waits for the reading.

use std::cell::RefCell;
use std::fmt;

use crate::cancel::CancelToken;
use crate::error::Cancelled;
use crate::model::{AgentEvent, TurnId};
use crate::panics::record;
use crate::reentrancy;
use crate::subscription::bus::{Bus, Origin};
use crate::sync::{select, thread_local, Arc, AtomicBool, Ordering, Sender, TrySendError};
use crate::turn::interactions::Interactions;
use crate::turn::shared::SessionShared;

/// Everybody who hears of one turn: its event channel, the session's subscribers, and whoever follows an interaction that the
/// turn works on.
pub(crate) struct TurnEvents {
    shared: Arc<SessionShared>,
    turn_id: TurnId,
    receiver: Option<Sender<AgentEvent>>,
    receiver_is_gone: AtomicBool,
    interactions: Interactions,
    cancel: CancelToken,
}

impl TurnEvents {
    pub(crate) fn new(
        shared: Arc<SessionShared>,
        turn_id: TurnId,
        receiver: Option<Sender<AgentEvent>>,
        cancel: CancelToken,
    ) -> Self {
        let receiver_is_gone = AtomicBool::new(receiver.is_none());
        Self { shared, turn_id, receiver, receiver_is_gone, interactions: Interactions::default(), cancel }
    }

    pub(crate) fn shared(&self) -> &SessionShared {
        &self.shared
    }

    pub(crate) fn turn_id(&self) -> TurnId {
        self.turn_id
    }

    pub(crate) fn cancel_token(&self) -> &CancelToken {
        &self.cancel
    }

    fn bus(&self) -> &Bus {
        &self.shared.bus
    }

    pub(crate) fn interactions(&self) -> &Interactions {
        &self.interactions
    }

    /// Sends an event of the agent. Waits for room, or for the cancellation of the turn; where that comes first, nobody gets
    /// the event.
    ///
    /// `cancel` is the turn's token, or that of the interaction that emits.
    pub(crate) fn emit(&self, event: AgentEvent, cancel: &CancelToken) -> Result<(), Cancelled> {
        cancel.check()?;
        let heard = !self.bus().pass_unheard();
        let followed = self.interactions.are_followed();
        let copy = (heard || followed).then(|| event.clone());
        self.send(event, cancel)?;
        if let Some(event) = copy {
            if followed {
                self.interactions.pass_on(&event);
            }
            if heard {
                self.publish(event, Origin::Agent, cancel);
            }
        }
        Ok(())
    }

    fn publish(&self, event: AgentEvent, origin: Origin, cancel: &CancelToken) {
        self.bus().publish(Some(self.turn_id), event, origin, Some(cancel), &self.shared.permit);
    }

    fn send(&self, event: AgentEvent, cancel: &CancelToken) -> Result<(), Cancelled> {
        match self.offer(event) {
            None => Ok(()),
            Some((receiver, event)) => {
                let _permit = reentrancy::lend_permit_of(&self.shared.permit);
                select! {
                    send(receiver, event) -> sent => {
                        if sent.is_err() {
                            self.note_gone();
                        }
                        Ok(())
                    }
                    recv(cancel.cancelled()) -> _ => cancel.check(),
                }
            }
        }
    }

    /// Sends an event of the library: to a cancelled turn's receiver as well, as long as it has room. Where it has none,
    /// the turn's cancellation ends the wait, and the event is counted as dropped.
    pub(crate) fn emit_own(&self, event: impl FnOnce() -> AgentEvent) {
        if let Some(event) = self.send_own(event) {
            self.publish(event, Origin::Library, &self.cancel);
        }
    }

    /// As [`emit_own`](Self::emit_own), for the terminal event: no subscriber makes it wait.
    pub(crate) fn emit_last(&self, event: impl FnOnce() -> AgentEvent) {
        if let Some(event) = self.send_own(event) {
            self.bus().publish_last(self.turn_id, event);
        }
    }

    /// Ends the interactions that are under way: each has come to what the agent has. All of them before the first is
    /// reported to others, which may have to wait for room.
    pub(crate) fn settle(&self, outcome: Result<&str, &str>) {
        let settled: Vec<_> = self.interactions.take().into_iter().map(|reply| reply.end(outcome)).collect();
        for terminal in settled {
            self.emit_own(|| terminal);
        }
    }

    /// Sends to the turn's receiver; returns the event where subscribers are to have it too.
    fn send_own(&self, event: impl FnOnce() -> AgentEvent) -> Option<AgentEvent> {
        let heard = !self.bus().pass_unheard();
        // ORDERING: Relaxed; see `note_gone`.
        if self.receiver_is_gone.load(Ordering::Relaxed) {
            return heard.then(event);
        }
        let event = event();
        let copy = heard.then(|| event.clone());
        self.send_patiently(event);
        copy
    }

    fn send_patiently(&self, event: AgentEvent) {
        let Some((receiver, event)) = self.offer(event) else { return };
        // Asked first: where both arms are ready, `select!` would pick either.
        if self.cancel.is_cancelled() {
            self.shared.counters.events_dropped.add_one();
            return;
        }
        // Before the agent runs there is no permit yet, after it there is no more need of one.
        self.shared.permit.stop();
        select! {
            send(receiver, event) -> sent => {
                if sent.is_err() {
                    self.note_gone();
                }
            }
            recv(self.cancel.cancelled()) -> _ => self.shared.counters.events_dropped.add_one(),
        }
    }

    /// Sends if that needs no waiting; else gives back what to wait with.
    fn offer(&self, event: AgentEvent) -> Option<(&Sender<AgentEvent>, AgentEvent)> {
        let receiver = self.receiver.as_ref()?;
        match receiver.try_send(event) {
            Ok(()) => None,
            Err(TrySendError::Full(event)) => Some((receiver, event)),
            Err(TrySendError::Disconnected(_)) => {
                self.note_gone();
                None
            }
        }
    }

    /// The receiver has been dropped: said once, and the turn goes on.
    fn note_gone(&self) {
        // ORDERING: Relaxed; the flag only saves work and repeated log records, the channel itself is the truth.
        if !self.receiver_is_gone.swap(true, Ordering::Relaxed) {
            record!(
                Warn,
                "turnwise::events",
                "session {}: the event receiver of turn {} was dropped; the turn goes on",
                self.shared.session_id(),
                self.turn_id
            );
        }
    }
}

impl fmt::Debug for TurnEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnEvents")
            .field("session_id", &self.shared.session_id())
            .field("turn_id", &self.turn_id)
            .finish_non_exhaustive()
    }
}

thread_local! {
    /// The event channel of the first turn, while this thread builds its agent.
    static BUILDING: RefCell<Option<(EventSender, Arc<TurnEvents>)>> = const { RefCell::new(None) };
}

/// Emits events on behalf of a session outside of its turns: while it is being built, and from threads that its agent
/// keeps.
///
/// What is emitted on the session's own thread while the agent is being built for a first turn is part of that, and reaches
/// the event receiver of the request that created the session. Everything else is no part of any turn: it reaches those who
/// [subscribed](crate::SessionService::subscribe) to the session, and never a turn's receiver.
///
/// ```
/// use turnwise::{agent_fn, builder_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService};
/// use turnwise::{SessionAgentBuilder, SessionService, Subscription};
///
/// let builder = builder_fn(|spec, session| {
///     let events = session.events().clone();
///     let agent = agent_fn(move |prompt, turn| {
///         events.emit(AgentEvent::Custom { name: "noted".into(), payload: String::new() })?;
///         Ok(turn.finish(prompt))
///     });
///     agent.build_agent(spec, session)
/// });
/// let service = EphemeralSessionService::new(builder, 1);
/// let mut events = service.subscribe_all(Subscription::new());
/// service.create_session(CreateSessionRequest::new("hello"))?;
/// let noted = events.find(|event| event.turn_id.is_none()).unwrap(); // it is no part of the turn
/// assert!(matches!(noted.event, AgentEvent::Custom { .. }));
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone)]
pub struct EventSender {
    shared: Arc<SessionShared>,
}

impl EventSender {
    pub(crate) fn new(shared: Arc<SessionShared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &SessionShared {
        &self.shared
    }

    /// Emits an event.
    ///
    /// # Errors
    /// [`Cancelled`] while building, if the session's first turn has been told to stop.
    ///
    /// # Blocking
    /// While building: waits for room in the creator's event receiver, if that is bounded, or for the first turn to be
    /// cancelled. Always: waits for subscribers that want that ([`Overflow::Block`](crate::Overflow::Block)), until they
    /// have read, their streams are dropped, or the session is closed; on a session's own thread also until its turn is
    /// cancelled. What comes after that, and has no room with one of them, is dropped there. The turn that waits lends its running
    /// permit, and takes one again afterwards; a thread that is no session's counts as one of the session's turn, until that is over.
    /// Of a kept session every millionth event waits for the disk, which reserves the next numbers.
    pub fn emit(&self, event: AgentEvent) -> Result<(), Cancelled> {
        match self.building() {
            Some(events) => events.emit(event, &events.cancel)?,
            None if self.shared.bus.pass_unheard() => {}
            None => self.publish(event),
        }
        Ok(())
    }

    fn publish(&self, event: AgentEvent) {
        let cancel = reentrancy::current_cancel();
        // A turn's own context refuses what comes after a cancel. Nobody is refused here, and nobody waits.
        let is_late = cancel.as_ref().is_some_and(CancelToken::is_cancelled);
        let origin = if is_late { Origin::LateAgent } else { Origin::Agent };
        self.shared.bus.publish(None, event, origin, cancel.as_ref(), &self.shared.permit);
    }

    /// Has this thread's events reach `events` until the guard ends that.
    pub(crate) fn while_building(&self, events: Arc<TurnEvents>) -> BuildingEvents {
        BUILDING.with(|slot| *slot.borrow_mut() = Some((self.clone(), events)));
        BuildingEvents
    }

    fn building(&self) -> Option<Arc<TurnEvents>> {
        let building = BUILDING.try_with(|slot| match &*slot.borrow() {
            Some((sender, events)) if Arc::ptr_eq(&sender.shared, &self.shared) => Some(Arc::clone(events)),
            _ => None,
        });
        // Where the slot is gone, the thread is on its way out, and builds nothing.
        building.ok().flatten()
    }
}

impl fmt::Debug for EventSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventSender").field(&self.shared.session_id()).finish()
    }
}

/// The connection of a build with the receiver of its first turn, until [`end`](Self::end) or a drop ends it.
#[must_use]
pub(crate) struct BuildingEvents;

impl BuildingEvents {
    /// Ends the connection: what this thread emits is not part of the first turn any more.
    pub(crate) fn end(self) {
        Self::disconnect();
    }

    fn disconnect() {
        let building = BUILDING.with(|slot| slot.borrow_mut().take());
        drop(building);
    }
}

impl Drop for BuildingEvents {
    fn drop(&mut self) {
        Self::disconnect();
    }
}
