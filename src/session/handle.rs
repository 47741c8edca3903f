//! The shared half of a session, held by callers, the service and the registry. No call here waits for a turn.

use std::fmt;

use crate::cancel::{CancelToken, DueHooks};
use crate::comms::CommsRuntime;
use crate::error::{CancelReason, SessionError};
use crate::ids::numbers::{LastNumbers, Numbering, Numbers};
use crate::ids::Ids;
use crate::inbox::injector::SubscribableInjector;
use crate::inbox::queue::{Inbox, InterruptTarget};
use crate::model::{
    CallbackPending, InputId, InputResponse, InteractionId, Labels, Session, SessionId, SessionSnapshot, TurnId,
};
use crate::panics::{record, PanicMessage};
use crate::permits::semaphore::Semaphore;
use crate::permits::turn_permit::TurnPermit;
use crate::reentrancy::WaitKey;
use crate::service::{ArchiveMode, SessionInfo, SessionState, SessionSummary, SessionUsage, SessionView, WeakService};
use crate::status::gate::{Gate, GateState, Refusal};
use crate::status::history::CommittedHistory;
use crate::status::published::{Figures, Published};
use crate::status::slab::Status;
use crate::subscription::bus::Bus;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering};
use crate::time::clock::Clock;
use crate::turn::handle::Answer;
use crate::turn::input::{PendingInputs, ResponseRefusal};
use crate::turn::shared::{Counters, SessionShared};
use crate::wait::latch::Latch;
use crate::wait::work_queue::WorkQueue;

use super::admission::{Admission, Admissions, QueueView, TokenSeal};
use super::command::Command;
use super::idle::{IdleReport, IdleWait, IdleWaiters};
use super::unload::Claim;

/// The shared half of a session.
#[derive(Debug)]
pub(crate) struct SessionHandle {
    id: SessionId,
    /// The service that the agent gets.
    service: Arc<WeakService>,
    /// The name of the model in the specification.
    model: Arc<str>,
    /// Set under the registry's lock, which has a copy for lists.
    labels: Mutex<Labels>,
    status: Status,
    /// The admitted turn and the queued turns. See the head of [`super`].
    pub(super) admissions: Mutex<Admissions>,
    /// The most turns that may be queued.
    pub(super) queue_capacity: usize,
    shared: Arc<SessionShared>,
    endpoints: Mutex<AgentEndpoints>,
    /// The message of the last panic that faulted the session. Also locked under the lock of the admissions, to copy it.
    fault: Mutex<PanicMessage>,
    commands: WorkQueue<Command>,
    /// No turn is admitted any more, and a close that cancels has cancelled the admitted turn.
    close_is_done: AtomicBool,
    /// Set before the gate is closed by an unload: callers wait for the end of the session, and resume it.
    pub(super) is_unloading: AtomicBool,
    /// Of a session that is unloaded for a caller that waits for capacity.
    pub(super) claim: Mutex<Option<Claim>>,
    ended: Latch,
    idle_waiters: IdleWaiters,
}

/// The data that a session starts with, apart from its agent and its first turn.
pub(crate) struct Profile {
    /// The status of a session that is being built, with its first turn or without one.
    pub(crate) status: Status,
    pub(crate) id: SessionId,
    pub(crate) model: Arc<str>,
    pub(crate) labels: Labels,
    pub(crate) snapshot: SessionSnapshot,
    /// The history that the session resumes, or an empty one.
    pub(crate) history: Session,
    pub(crate) inbox_capacity: usize,
    pub(crate) event_history: usize,
    /// The source of the inbox's interaction ids.
    pub(crate) ids: Ids,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Clock,
    pub(crate) numbering: Numbering,
    /// The callback that a resumed session waits for.
    pub(crate) callback: Option<CallbackPending>,
    /// The semaphore that grants running permits to its turns.
    pub(crate) running: Arc<Semaphore>,
    /// The service that the agent gets.
    pub(crate) service: WeakService,
    /// The most turns that may be queued.
    pub(crate) turn_queue: usize,
    /// Whether the service may unload the session while it is idle.
    pub(crate) may_be_unloaded: bool,
}

/// The agent's endpoints for messages, apart from prompts.
#[derive(Default)]
struct AgentEndpoints {
    injector: Option<Arc<dyn SubscribableInjector>>,
    comms: Option<Arc<dyn CommsRuntime>>,
}

/// The outcome of a close, with the hooks of the turn that it cancelled. [`run_hooks`](Self::run_hooks) or a drop runs
/// them.
#[must_use = "the cancelled turn's hooks run at the latest when this is dropped: keep it until no lock is held"]
#[derive(Debug)]
pub(crate) struct Closed {
    /// Whether the session was open before.
    pub(crate) first: bool,
    hooks: Option<DueHooks>,
}

impl SessionHandle {
    /// Creates the handle of a session about to be built, and the guards of its first turn or of its build.
    pub(crate) fn new(
        profile: Profile,
        first: Option<TurnId>,
        cancel: CancelToken,
    ) -> (Arc<Self>, TokenSeal, Admission) {
        let Profile {
            status, id, model, labels, snapshot, inbox_capacity, event_history, ids, counters, clock, ..
        } = profile;
        let service = profile.service;
        let Numbering { after, known_events, .. } = profile.numbering;
        let numbers = Numbers::new(profile.numbering);
        let permit = TurnPermit::new(profile.running, clock.clone());
        // The first turn is admitted with its session.
        let now = clock.now();
        let shared = SessionShared {
            key: WaitKey::new(),
            bus: Bus::new(id, event_history, after.event, known_events, Arc::clone(&numbers)),
            published: Published::new(status.clone(), snapshot),
            history: CommittedHistory::new(profile.history, after.event),
            callback: Mutex::new(profile.callback.map(Arc::new)),
            inputs: PendingInputs::new(status.clone(), Arc::clone(&counters)),
            inbox: Arc::new(Inbox::new(inbox_capacity, ids)),
            counters,
            clock,
            numbers,
            permit,
            last_use: profile.may_be_unloaded.then(|| Mutex::new(now)),
        };
        let handle = Arc::new(Self {
            id,
            service: Arc::new(service),
            model,
            labels: Mutex::new(labels),
            status,
            admissions: Mutex::new(Admissions::building(first, now, cancel.clone())),
            queue_capacity: profile.turn_queue,
            shared: Arc::new(shared),
            endpoints: Mutex::default(),
            fault: Mutex::new(Arc::from("")),
            commands: WorkQueue::new(),
            close_is_done: AtomicBool::new(false),
            is_unloading: AtomicBool::new(false),
            claim: Mutex::new(None),
            ended: Latch::new(),
            idle_waiters: IdleWaiters::new(),
        });
        let (seal, admission) = handle.guards(cancel, now);
        (handle, seal, admission)
    }

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    pub(crate) fn key(&self) -> WaitKey {
        self.shared.key
    }

    /// The service that the agent gets. A share of this session's own, so that a turn changes no counter that all
    /// sessions share.
    pub(crate) fn service(&self) -> &Arc<WeakService> {
        &self.service
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.status.gate
    }

    pub(crate) fn labels(&self) -> Labels {
        self.labels.lock().clone()
    }

    /// Sets the labels; returns the last ones.
    pub(crate) fn set_labels(&self, labels: Labels) -> Labels {
        std::mem::replace(&mut *self.labels.lock(), labels)
    }

    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    pub(crate) fn shared(&self) -> &Arc<SessionShared> {
        &self.shared
    }

    pub(crate) fn bus(&self) -> &Bus {
        &self.shared.bus
    }

    /// Sets the agent's own injector; returns the last one.
    #[must_use = "a user's value: to be dropped where a panic does no harm"]
    pub(crate) fn set_injector(
        &self,
        injector: Option<Arc<dyn SubscribableInjector>>,
    ) -> Option<Arc<dyn SubscribableInjector>> {
        std::mem::replace(&mut self.endpoints.lock().injector, injector)
    }

    /// Sets the agent's comms runtime; returns the last one.
    #[must_use = "a user's value: to be dropped where a panic does no harm"]
    pub(crate) fn set_comms(&self, comms: Option<Arc<dyn CommsRuntime>>) -> Option<Arc<dyn CommsRuntime>> {
        std::mem::replace(&mut self.endpoints.lock().comms, comms)
    }

    /// The injector that reaches the agent: its own, or that of the inbox.
    pub(crate) fn injector(&self) -> Arc<dyn SubscribableInjector> {
        let own = self.endpoints.lock().injector.clone();
        own.unwrap_or_else(|| Arc::clone(&self.shared.inbox) as Arc<dyn SubscribableInjector>)
    }

    /// Whether the agent has an injector or a comms runtime of its own. What they hold is not known here.
    pub(super) fn has_own_endpoints(&self) -> bool {
        let endpoints = self.endpoints.lock();
        endpoints.injector.is_some() || endpoints.comms.is_some()
    }

    pub(crate) fn comms(&self) -> Option<Arc<dyn CommsRuntime>> {
        self.endpoints.lock().comms.clone()
    }

    /// Whether no turn is admitted any more, and a close that cancels has cancelled the admitted turn.
    pub(crate) fn is_close_done(&self) -> bool {
        self.close_is_done.load(Ordering::SeqCst)
    }

    /// Set once the session thread holds nothing of the session.
    pub(crate) fn ended(&self) -> &Latch {
        &self.ended
    }

    /// Whether callers can use the session.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        !self.gate().state().is_closed()
    }

    /// Tells the callers that wait for an idle session, if `gate`, its state right after an end, is idle.
    pub(super) fn report_if_idle(&self, gate: GateState) {
        if gate.refusal().is_ok() {
            self.idle_waiters.report_idle(gate.turns());
        }
    }

    /// Begins a wait until the session is idle; `None` if it is idle now. An error if it is closed or faulted.
    pub(crate) fn begin_idle_wait(&self) -> Result<Option<IdleWait<'_>>, SessionError> {
        let gate = self.gate().state();
        if self.check_idle(gate)? {
            return Ok(None);
        }
        let wait = self.idle_waiters.enter(gate.turns());
        // Read again, since the turn may have ended before the entry was in the list: see `idle`.
        Ok((!self.check_idle(self.gate().state())?).then_some(wait))
    }

    /// Whether the session is idle. An error if it is closed or faulted.
    fn check_idle(&self, gate: GateState) -> Result<bool, SessionError> {
        match gate.refusal() {
            Ok(()) => Ok(true),
            Err(Refusal::Busy) => Ok(false),
            Err(refusal) => Err(self.refused(refusal)),
        }
    }

    /// The result of a wait until the session is idle, by its report. Without a report the session has ended.
    pub(crate) fn idle_result(&self, report: Option<IdleReport>) -> Result<(), SessionError> {
        match report {
            Some(IdleReport::Idle) => Ok(()),
            Some(IdleReport::Faulted) => Err(self.refused(Refusal::Faulted)),
            Some(IdleReport::Closed) | None => Err(self.refused(Refusal::Closed)),
        }
    }

    /// The error of a session that is closed or faulted.
    pub(super) fn final_refusal(&self) -> Option<SessionError> {
        self.gate().state().final_refusal().err().map(|refusal| self.refused(refusal))
    }

    /// The error for a caller that waits for an idle session, where it is closed or faulted.
    fn refused(&self, refusal: Refusal) -> SessionError {
        let id = self.id;
        match refusal {
            Refusal::Faulted => self.faulted(),
            // Only a closed or faulted session ends such a wait with an error.
            Refusal::Closed | Refusal::Busy | Refusal::Unreserved { .. } => SessionError::NotFound { id },
        }
    }

    /// Sends a command to the session thread. If the session has ended, the command is dropped, which answers it.
    pub(crate) fn send(&self, command: Command) {
        if let Err(command) = self.commands.push(command) {
            drop(command);
        }
    }

    /// Makes the session thread check the gate. One wake-up in the queue is enough. Another command is not: its caller
    /// may take it back.
    pub(crate) fn wake(&self) {
        self.commands.change(|contents| {
            if !contents.is_closed && !contents.items.iter().any(|command| matches!(command, Command::Wake)) {
                contents.push(Command::Wake);
            }
        });
    }

    /// Takes back the request of a caller that has stopped waiting. Otherwise such requests would pile up behind a long
    /// turn, and a caller that asks in a loop could always be ahead of the session thread.
    pub(crate) fn take_back(&self, is_request: impl Fn(&Command) -> bool) {
        let request = self.commands.change(|contents| {
            let place = contents.items.iter().position(is_request)?;
            contents.items.remove(place)
        });
        // With no lock held: the request may hold a condition.
        drop(request);
    }

    /// The command queue, for the session thread.
    pub(crate) fn commands(&self) -> &WorkQueue<Command> {
        &self.commands
    }

    /// Takes no more commands. The remaining commands are dropped, which answers them.
    pub(crate) fn close_commands(&self) {
        let unanswered = self.commands.close();
        drop(unanswered);
    }

    /// Ends an input request of the admitted turn with the host's response.
    pub(crate) fn respond(&self, input: InputId, response: InputResponse) -> Result<(), SessionError> {
        let id = self.id;
        self.shared.inputs.respond(input, response).map_err(|refusal| match refusal {
            ResponseRefusal::NotPending => SessionError::InputNotPending { id, input },
            ResponseRefusal::Invalid => SessionError::InvalidAnswer { id, input },
        })
    }

    /// Ends one interaction: fails it if it is queued, cancels it if it runs.
    pub(crate) fn interrupt_interaction(&self, id: InteractionId) -> Result<(), SessionError> {
        match self.shared.inbox.find_interrupt_target(id) {
            Some(InterruptTarget::Queued(incoming)) => drop(incoming.reply.end(Err("cancelled: interrupted"))),
            Some(InterruptTarget::Running(cancel)) => cancel.cancel_and_run_hooks(CancelReason::Interrupted),
            None => return Err(SessionError::NotRunning { id: self.id }),
        }
        Ok(())
    }

    /// Closes the gate: no turn is accepted any more. In `Interrupt` mode it cancels the admitted turn or the build, and
    /// answers the queued turns. In `Drain` mode all of them may finish; a restart is cancelled if no turn is queued.
    pub(crate) fn close(&self, mode: ArchiveMode, reason: CancelReason) -> Closed {
        let first = self.gate().close();
        let hooks = match mode {
            ArchiveMode::Drain => self.needless_restart().and_then(|cancel| cancel.cancel(reason)),
            ArchiveMode::Interrupt => {
                let (cancel, queued) = self.take_to_cancel();
                let hooks = cancel.and_then(|cancel| cancel.cancel(reason));
                for queued in queued {
                    queued.cancel(self.id, reason, &self.shared);
                }
                hooks
            }
        };
        self.finish_close();
        if first {
            record!(Debug, "turnwise::session", "session {}: closed, {mode:?}", self.id);
        }
        Closed { first, hooks }
    }

    /// Closes a session whose record another writer has changed. The admitted turn fails when the session thread finds
    /// out, and the queued turns with it.
    pub(super) fn close_lost(&self) {
        if self.gate().close() {
            record!(Warn, "turnwise::session", "session {}: another writer has changed its record: it ends", self.id);
        }
        self.finish_close();
    }

    /// Wakes the session thread and closes inbox and bus after the gate is closed. A second call changes nothing.
    pub(crate) fn finish_close(&self) {
        if !self.close_is_done.swap(true, Ordering::SeqCst) {
            // The thread may be waiting for a command that will not arrive.
            self.wake();
        }
        self.shared.inbox.close();
        self.bus().close();
        self.idle_waiters.report_end(IdleReport::Closed);
    }

    /// Ends the session: only this handle is left of it.
    pub(crate) fn end(&self) {
        self.gate().close();
        self.end_queue(&SessionError::NotFound { id: self.id }).into_iter().for_each(Answer::give);
        self.finish_close();
        self.close_commands();
        self.bus().end();
        // After the end of the bus: no subscriber sees a later number.
        let used = LastNumbers { turn: self.gate().state().turns(), event: self.bus().last_seq() };
        self.shared.numbers.finish(used);
    }

    /// Records a panic of the agent: no turn will run until a restart. Queued turns are answered.
    pub(crate) fn fault(&self, message: PanicMessage) -> SessionError {
        let last = std::mem::replace(&mut *self.fault.lock(), message.clone());
        drop(last);
        self.gate().fault();
        self.report_fault();
        // The faulted session runs no interactions.
        self.shared.inbox.close_until_restart();
        let error = SessionError::Faulted { id: self.id, message };
        self.fail_queue(&error);
        error
    }

    /// Tells the callers that wait for an idle session that it is faulted. The gate shows it already.
    pub(super) fn report_fault(&self) {
        self.idle_waiters.report_end(IdleReport::Faulted);
    }

    pub(super) fn fault_message(&self) -> PanicMessage {
        // `fault` stores the message before it sets the gate.
        self.fault.lock().clone()
    }

    /// The error of a call that needs an agent, in a faulted session.
    pub(super) fn faulted(&self) -> SessionError {
        SessionError::Faulted { id: self.id, message: self.fault_message() }
    }

    /// Whether the session is closed and no turn is queued, so that no caller needs its agent.
    pub(crate) fn needs_no_agent(&self) -> bool {
        // In this order: no turn is queued after the close.
        !self.is_open() && !self.has_queued_turns()
    }

    /// Reads state and figures of one instant; see the head of [`super`].
    fn read_one_instant<T>(&self, take: impl Fn(&SessionSnapshot) -> T) -> (GateState, T) {
        loop {
            let before = self.gate().state();
            let taken = self.shared.published.read(&take);
            if self.gate().state() == before {
                return (before, taken);
            }
        }
    }

    /// The session's state and usage; `None` if it is closed.
    pub(crate) fn view(&self) -> Option<SessionView> {
        // First: an event that is emitted meanwhile has a higher number, and its effect may show already.
        let last_seq = self.bus().last_seq();
        let (pending_inputs, queue, callback, snapshot) = loop {
            let (before, snapshot) = self.read_one_instant(SessionSnapshot::clone);
            // The flag WAITING changes only under the lock of the requests, so it agrees with their number.
            let (count, gate) = self.shared.inputs.with_count(|count| (count, self.gate().state()));
            // Changed only while RUNNING is set.
            let callback = self.shared.callback();
            let queue = self.queue_view();
            if gate == before && queue.gate == before {
                break (count, queue, callback, snapshot);
            }
        };
        let QueueView { gate, queued_turns, turn_started_at } = queue;
        if gate.is_closed() {
            return None;
        }
        let state = SessionInfo {
            session_id: self.id,
            created_at: snapshot.created_at,
            updated_at: snapshot.updated_at,
            message_count: snapshot.message_count,
            turns: gate.turns(),
            is_active: gate.is_busy(),
            state: state_of(gate),
            last_assistant_text: snapshot.last_assistant_text,
            pending_inputs,
            queued_turns,
            callback_pending: callback.as_deref().cloned(),
            turn_started_at,
            last_seq,
        };
        let billing = SessionUsage { total_tokens: snapshot.total_tokens, usage: snapshot.usage };
        Some(SessionView { state, billing, model: Arc::clone(&self.model), labels: self.labels() })
    }

    /// The session's entry in a list; `None` if it is closed. It does not clone the text, which would dominate the cost
    /// of a list of ten thousand sessions.
    pub(crate) fn summary(&self, labels: &Labels) -> Option<SessionSummary> {
        let (gate, queued_turns, figures) = loop {
            let (before, figures) = self.read_one_instant(Figures::of);
            let QueueView { gate, queued_turns, .. } = self.queue_view();
            if gate == before {
                break (gate, queued_turns, figures);
            }
        };
        (!gate.is_closed()).then(|| summarize(self.id, gate, queued_turns, figures, labels))
    }
}

#[inline(always)] // Built in place where it is pushed into a list, without a copy.
pub(crate) fn summarize(
    session_id: SessionId,
    gate: GateState,
    queued_turns: usize,
    figures: Figures,
    labels: &Labels,
) -> SessionSummary {
    let Figures { created_at, updated_at, message_count, total_tokens } = figures;
    SessionSummary {
        session_id,
        created_at,
        updated_at,
        message_count,
        turns: gate.turns(),
        total_tokens,
        is_active: gate.is_busy(),
        queued_turns,
        state: state_of(gate),
        is_live: true,
        labels: labels.clone(),
    }
}

pub(crate) fn state_of(gate: GateState) -> SessionState {
    if gate.is_building() {
        SessionState::Building
    } else if gate.is_faulted() {
        SessionState::Faulted
    } else if gate.is_waiting() {
        SessionState::Waiting
    } else if gate.is_running() {
        SessionState::Running
    } else {
        SessionState::Idle
    }
}

impl fmt::Debug for AgentEndpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (injector, comms) = (self.injector.is_some(), self.comms.is_some());
        f.debug_struct("AgentEndpoints").field("injector", &injector).field("comms", &comms).finish()
    }
}

impl Closed {
    /// Runs the hooks of the turn that the close has cancelled. The caller must hold no lock.
    pub(crate) fn run_hooks(self) {
        if let Some(hooks) = self.hooks {
            hooks.run();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Session;
    use crate::service::SessionState;
    use crate::status::slab::StatusSlab;

    #[test]
    fn state_and_figures_are_from_one_instant() {
        let id = SessionId::new();
        let snapshot = SessionSnapshot::from(&Session::with_id(id));
        let (model, labels) = ("".into(), Labels::default());
        let (snapshot_now, ids) = (snapshot.clone(), Ids::System);
        let (counters, clock) = Default::default();
        let profile = Profile {
            status: StatusSlab::default().building(0, None, &snapshot),
            id,
            model,
            labels,
            snapshot: snapshot_now,
            history: Session::with_id(id),
            inbox_capacity: 0,
            event_history: 0,
            ids,
            counters,
            clock,
            numbering: Numbering::default(),
            callback: None,
            running: Semaphore::new(1),
            service: WeakService::none(),
            turn_queue: 0,
            may_be_unloaded: false,
        };
        let (handle, seal, mut admission) = SessionHandle::new(profile, None, CancelToken::new());
        admission.pick_up();
        seal.seal();
        admission.end_build();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let view = handle.view().unwrap().state;
                    // Odd only while a turn runs.
                    assert!(view.state == SessionState::Running || view.message_count % 2 == 0, "{view:?}");
                }
            });
            for turn in 0..1_000_000 {
                let (_, seal, mut admission) = handle.admit(&CancelToken::new()).unwrap();
                admission.pick_up();
                for message_count in [2 * turn + 1, 2 * turn + 2] {
                    handle.shared.published.publish(SessionSnapshot { message_count, ..snapshot.clone() });
                }
                seal.seal();
                admission.give_back();
            }
            done.store(true, Ordering::SeqCst);
            reader.join().unwrap();
        });
    }
}
