//! The events of a turn. The emitting thread sends them straight into the receiver's channel.
//!
//! **Invariant.** A turn's `event_tx` is reached only through its [`TurnEvents`]. It lives on the session thread, and
//! the agent borrows it. The borrow is over when the terminal event is emitted, so no event can follow that one.
//!
//! A turn that waits for room lends its running permit. Otherwise two sessions could wait for each other. One reads the
//! events of a sub-agent, and needs a permit to go on reading. The sub-agent would keep that permit while it waits for
//! the reader.

use std::cell::RefCell;
use std::fmt;
use std::iter;

use crate::cancel::CancelToken;
use crate::error::Cancelled;
use crate::model::{AgentEvent, TurnId};
use crate::panics::record;
use crate::reentrancy::{self, PermitDuringWait};
use crate::spans::TurnSpan;
use crate::status::history::Commit;
use crate::subscription::bus::{Bus, Origin};
use crate::subscription::queue::Queue;
use crate::sync::{select, thread_local, Arc, AtomicBool, Ordering, Sender, TrySendError};
use crate::turn::interactions::Interactions;
use crate::turn::shared::SessionShared;

/// The receivers of one turn's events: its event channel, the session's subscribers, and the subscribers of the
/// interactions that the turn has taken.
pub(crate) struct TurnEvents {
    shared: Arc<SessionShared>,
    turn_id: TurnId,
    receiver: Option<Sender<AgentEvent>>,
    receiver_dropped: AtomicBool,
    interactions: Interactions,
    cancel: CancelToken,
    span: TurnSpan,
}

impl TurnEvents {
    pub(crate) fn new(
        shared: Arc<SessionShared>,
        turn_id: TurnId,
        receiver: Option<Sender<AgentEvent>>,
        cancel: CancelToken,
        span: TurnSpan,
    ) -> Self {
        let receiver_dropped = AtomicBool::new(receiver.is_none());
        Self { shared, turn_id, receiver, receiver_dropped, interactions: Interactions::default(), cancel, span }
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

    /// The turn's span, which is entered while the agent's code runs.
    pub(crate) fn span(&self) -> &TurnSpan {
        &self.span
    }

    fn bus(&self) -> &Bus {
        &self.shared.bus
    }

    pub(crate) fn interactions(&self) -> &Interactions {
        &self.interactions
    }

    /// Sends an event of the agent. Waits for room, or for the cancellation of the turn. If the cancellation comes
    /// first, no receiver gets the event.
    ///
    /// `cancel` is the turn's token, or that of the interaction that emits.
    pub(crate) fn emit(&self, event: AgentEvent, cancel: &CancelToken) -> Result<(), Cancelled> {
        self.emit_as(Origin::Agent, event, cancel)
    }

    /// As [`emit`](Self::emit), for the library's event of an input request.
    pub(super) fn emit_input_request(&self, event: AgentEvent, cancel: &CancelToken) -> Result<(), Cancelled> {
        self.emit_as(Origin::Library, event, cancel)
    }

    fn emit_as(&self, origin: Origin, event: AgentEvent, cancel: &CancelToken) -> Result<(), Cancelled> {
        cancel.check()?;
        let observed = !self.bus().count_unobserved();
        let has_subscribers = self.interactions.have_subscribers();
        let copy = (observed || has_subscribers).then(|| event.clone());
        self.send(event, cancel)?;
        if let Some(event) = copy {
            if has_subscribers {
                self.interactions.forward(&event);
            }
            if observed {
                self.publish(event, origin, cancel, PermitDuringWait::Lent);
            }
        }
        Ok(())
    }

    /// Sends the library's event of the end of an input request, also to a cancelled turn's receiver while that has
    /// room. While the event waits for room the turn lends its permit, since the agent goes on afterwards.
    pub(super) fn emit_input_result(&self, event: AgentEvent, cancel: &CancelToken) {
        let observed = !self.bus().count_unobserved();
        if self.interactions.have_subscribers() {
            self.interactions.forward(&event);
        }
        let copy = observed.then(|| event.clone());
        self.send_or_wait(event, cancel, PermitDuringWait::Lent);
        if let Some(event) = copy {
            self.publish(event, Origin::Library, cancel, PermitDuringWait::Lent);
        }
    }

    fn publish(&self, event: AgentEvent, origin: Origin, cancel: &CancelToken, during_wait: PermitDuringWait) {
        self.bus().publish(Some(self.turn_id), event, origin, Some(cancel), (&self.shared.permit, during_wait));
    }

    fn send(&self, event: AgentEvent, cancel: &CancelToken) -> Result<(), Cancelled> {
        match self.try_send_event(event) {
            None => Ok(()),
            Some((receiver, event)) => {
                let _permit = reentrancy::lend_permit_of(&self.shared.permit);
                select! {
                    send(receiver, event) -> sent => {
                        if sent.is_err() {
                            self.record_receiver_dropped();
                        }
                        Ok(())
                    }
                    recv(cancel.cancelled()) -> _ => cancel.check(),
                }
            }
        }
    }

    /// Sends an event of the library, also to a cancelled turn's receiver while that has room. If it has none, the
    /// turn's cancellation ends the wait, and the event counts as dropped.
    pub(crate) fn emit_library_event(&self, event: impl FnOnce() -> AgentEvent) {
        if let Some(event) = self.send_library_event(event) {
            self.publish(event, Origin::Library, &self.cancel, PermitDuringWait::GivenBack);
        }
    }

    /// As [`emit_library_event`](Self::emit_library_event), for the terminal event: no subscriber makes it wait.
    ///
    /// Commits the turn before a subscriber or the receiver gets the event: see
    /// [`status::history`](crate::status::history). The subscribers get it first, because the receiver may have no room.
    pub(crate) fn emit_last(&self, event: impl FnOnce() -> AgentEvent, commit: Commit) {
        if let Some(last) = self.bus().count_last_unobserved(1) {
            self.commit(commit, last);
            if !self.has_no_receiver() {
                self.send_or_wait(event(), &self.cancel, PermitDuringWait::GivenBack);
            }
            return;
        }
        let event = event();
        let copy = (!self.has_no_receiver()).then(|| event.clone());
        self.publish_last(iter::once(event), commit);
        if let Some(event) = copy {
            self.send_or_wait(event, &self.cancel, PermitDuringWait::GivenBack);
        }
    }

    /// Ends the open interactions with the agent's outcome, and commits the interaction or prompt that has ended with
    /// them. Its boundary is the number of the last of their events.
    ///
    /// In this order: the events have their numbers, the history is committed, and all interactions end. Only then the
    /// thread waits for room. A subscriber of an interaction that has its terminal event finds it in the history.
    pub(crate) fn settle(&self, outcome: Result<&str, &str>, commit: Commit) {
        let replies = self.interactions.take();
        if replies.is_empty() {
            return self.commit(commit, self.bus().boundary());
        }
        let terminals: Vec<_> = replies.iter().map(|reply| reply.terminal_event(outcome)).collect();
        let above_limit = match self.bus().count_last_unobserved(terminals.len()) {
            Some(last) => {
                self.commit(commit, last);
                Vec::new()
            }
            None => self.publish_last(terminals.iter().cloned(), commit),
        };
        replies.into_iter().zip(&terminals).for_each(|(reply, terminal)| reply.end_with(terminal.clone()));
        if !self.has_no_receiver() {
            for terminal in terminals {
                self.send_or_wait(terminal, &self.cancel, PermitDuringWait::GivenBack);
            }
        }
        let permit = (&self.shared.permit, PermitDuringWait::GivenBack);
        self.bus().wait_for_room(&above_limit, Some(&self.cancel), permit);
    }

    /// Publishes the last events of the turn or of an interaction, and commits with the number of the last one. Returns
    /// the queues that are above their limits.
    fn publish_last(&self, events: impl ExactSizeIterator<Item = AgentEvent>, commit: Commit) -> Vec<Arc<Queue>> {
        let history = &self.shared.history;
        let commit = |last| history.commit(commit, last);
        let (above_limit, replaced) = self.bus().publish_last(self.turn_id, events, commit);
        drop(replaced);
        above_limit
    }

    fn commit(&self, commit: Commit, last_event: u64) {
        drop(self.shared.history.commit(commit, last_event));
    }

    fn has_no_receiver(&self) -> bool {
        // ORDERING: Relaxed; see `record_receiver_dropped`.
        self.receiver_dropped.load(Ordering::Relaxed)
    }

    /// Sends to the turn's receiver. Returns the event if the session has subscribers.
    fn send_library_event(&self, event: impl FnOnce() -> AgentEvent) -> Option<AgentEvent> {
        let observed = !self.bus().count_unobserved();
        if self.has_no_receiver() {
            return observed.then(event);
        }
        let event = event();
        let copy = observed.then(|| event.clone());
        self.send_or_wait(event, &self.cancel, PermitDuringWait::GivenBack);
        copy
    }

    fn send_or_wait(&self, event: AgentEvent, cancel: &CancelToken, during_wait: PermitDuringWait) {
        let Some((receiver, event)) = self.try_send_event(event) else { return };
        // Checked first: if both arms are ready, `select!` picks either.
        if cancel.is_cancelled() {
            self.shared.counters.events_dropped.add_one();
            return;
        }
        let _permit = reentrancy::release_permit_of(&self.shared.permit, during_wait);
        select! {
            send(receiver, event) -> sent => {
                if sent.is_err() {
                    self.record_receiver_dropped();
                }
            }
            recv(cancel.cancelled()) -> _ => self.shared.counters.events_dropped.add_one(),
        }
    }

    /// Sends if that needs no waiting. Otherwise returns the channel and the event to wait with.
    fn try_send_event(&self, event: AgentEvent) -> Option<(&Sender<AgentEvent>, AgentEvent)> {
        let receiver = self.receiver.as_ref()?;
        match receiver.try_send(event) {
            Ok(()) => None,
            Err(TrySendError::Full(event)) => Some((receiver, event)),
            Err(TrySendError::Disconnected(_)) => {
                self.record_receiver_dropped();
                None
            }
        }
    }

    /// Logs once that the receiver has been dropped. The turn goes on.
    fn record_receiver_dropped(&self) {
        // ORDERING: Relaxed; the flag only saves work and repeated log records. The channel itself decides.
        if !self.receiver_dropped.swap(true, Ordering::Relaxed) {
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
    /// The events of the first turn, while this thread builds its agent.
    static BUILDING: RefCell<Option<(EventSender, Arc<TurnEvents>)>> = const { RefCell::new(None) };
}

/// Emits events of a session outside of its turns: during the build of its agent, and from threads that the agent
/// keeps.
///
/// An event that the session thread emits while the agent is built for a first turn belongs to that turn. It reaches
/// the event receiver of the request that created the session. Every other event belongs to no turn: it reaches the
/// [subscribers](crate::SessionService::subscribe) of the session, and never a turn's receiver.
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
/// let noted = events.find(|event| event.turn_id.is_none()).unwrap(); // it belongs to no turn
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
    /// [`Cancelled`] during the build, if the session's first turn has been told to stop.
    ///
    /// # Blocking
    /// During the build: waits for room in the creator's event receiver, if that is bounded, or until the first turn is
    /// cancelled.
    ///
    /// Always: waits for subscribers with [`Overflow::Block`](crate::Overflow::Block), until they have read, their
    /// streams are dropped, or the session is closed. On a session thread the cancellation of its turn also ends this
    /// wait. Later events without room are dropped for that subscriber.
    ///
    /// A turn that waits lends its running permit, and takes one again afterwards. A thread that is not a session
    /// thread counts as a thread of the session's turn, until that turn ends. In a kept session every millionth event
    /// waits for the disk, which reserves the next numbers.
    pub fn emit(&self, event: AgentEvent) -> Result<(), Cancelled> {
        match self.building() {
            Some(events) => events.emit(event, &events.cancel)?,
            None if self.shared.bus.count_unobserved() => {}
            None => self.publish(event),
        }
        Ok(())
    }

    fn publish(&self, event: AgentEvent) {
        let cancel = reentrancy::current_cancel();
        // A turn's own context refuses an event after a cancel. Here no event is refused, and no emitter waits.
        let is_cancelled = cancel.as_ref().is_some_and(CancelToken::is_cancelled);
        let origin = if is_cancelled { Origin::CancelledAgent } else { Origin::Agent };
        self.shared.bus.publish(None, event, origin, cancel.as_ref(), (&self.shared.permit, PermitDuringWait::Lent));
    }

    /// Routes this thread's events to `events`, until the guard ends that.
    pub(crate) fn while_building(&self, events: Arc<TurnEvents>) -> BuildingEvents {
        BUILDING.with(|slot| *slot.borrow_mut() = Some((self.clone(), events)));
        BuildingEvents
    }

    fn building(&self) -> Option<Arc<TurnEvents>> {
        let building = BUILDING.try_with(|slot| match &*slot.borrow() {
            Some((sender, events)) if Arc::ptr_eq(&sender.shared, &self.shared) => Some(Arc::clone(events)),
            _ => None,
        });
        // The slot has been dropped: the thread exits, and builds nothing.
        building.ok().flatten()
    }
}

impl fmt::Debug for EventSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventSender").field(&self.shared.session_id()).finish()
    }
}

/// Routes the events of a build to the receiver of its first turn, until [`end`](Self::end) or a drop.
#[must_use]
pub(crate) struct BuildingEvents;

impl BuildingEvents {
    /// Ends the routing: later events of this thread do not belong to the first turn.
    pub(crate) fn end(self) {
        // The drop ends it, on every other way out too.
        drop(self);
    }
}

impl Drop for BuildingEvents {
    fn drop(&mut self) {
        let building = BUILDING.with(|slot| slot.borrow_mut().take());
        drop(building);
    }
}
