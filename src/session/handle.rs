//! What the rest of the world holds of a session. Nothing here waits for a turn.

use std::fmt;

use crate::cancel::{CancelToken, DueHooks};
use crate::comms::CommsRuntime;
use crate::error::{CancelReason, SessionError};
use crate::ids::numbers::{LastNumbers, Numbering, Numbers};
use crate::ids::Ids;
use crate::inbox::injector::SubscribableInjector;
use crate::inbox::queue::{Found, Inbox};
use crate::model::{InteractionId, Labels, SessionId, SessionSnapshot, TurnId};
use crate::panics::{record, PanicMessage};
use crate::permits::semaphore::Semaphore;
use crate::permits::turn_permit::TurnPermit;
use crate::reentrancy::WaitKey;
use crate::service::{ArchiveMode, SessionInfo, SessionState, SessionSummary, SessionUsage, SessionView};
use crate::status::gate::{Gate, GateState, Refusal};
use crate::status::published::{Figures, Published};
use crate::status::slab::Status;
use crate::subscription::bus::Bus;
use crate::sync::{Arc, AtomicBool, Mutex, OnceLock, Ordering};
use crate::time::clock::Clock;
use crate::turn::shared::{Counters, SessionShared};
use crate::wait::latch::Latch;
use crate::wait::work_queue::WorkQueue;

use super::command::Command;

/// The shared half of a session.
#[derive(Debug)]
pub(crate) struct SessionHandle {
    id: SessionId,
    key: WaitKey,
    labels: Labels,
    status: Status,
    /// Whom an interrupt or a close reaches. Locked for a few instructions at a time; see the head of [`super`].
    active: Mutex<Option<Active>>,
    shared: Arc<SessionShared>,
    lines: Mutex<AgentEndpoints>,
    fault: OnceLock<PanicMessage>,
    commands: WorkQueue<Command>,
    /// Nobody is admitted any more, and the turn that was to be cancelled has been.
    close_is_done: AtomicBool,
    ended: Latch,
}

/// What a session begins with, apart from its agent and its first turn.
pub(crate) struct Profile {
    /// Says that the session is being built, with its first turn or without one.
    pub(crate) status: Status,
    pub(crate) id: SessionId,
    pub(crate) labels: Labels,
    pub(crate) snapshot: SessionSnapshot,
    pub(crate) inbox_capacity: usize,
    pub(crate) event_history: usize,
    /// Where the inbox has the ids of interactions from.
    pub(crate) ids: Ids,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Clock,
    pub(crate) numbering: Numbering,
    /// Where its turns have their running permits from.
    pub(crate) running: Arc<Semaphore>,
}

/// How the agent wants to be reached, apart from prompts.
#[derive(Default)]
struct AgentEndpoints {
    injector: Option<Arc<dyn SubscribableInjector>>,
    comms: Option<Arc<dyn CommsRuntime>>,
}

/// The turn that is admitted, or the build.
#[derive(Debug)]
struct Active {
    /// `None` for the build of a session that is opened without a turn: nothing that `interrupt` is about.
    turn: Option<TurnId>,
    cancel: CancelToken,
}

/// The active entry of a turn or of a build, until [`clear`](Self::clear) or a drop clears it.
#[must_use]
#[derive(Debug)]
pub(crate) struct ActiveEntry {
    /// `None` once the entry is cleared.
    handle: Option<Arc<SessionHandle>>,
}

/// The right to run, until [`give_back`](Self::give_back) or a drop gives it back to the gate.
#[must_use]
#[derive(Debug)]
pub(crate) struct Admission {
    /// `None` once the admission is given back.
    handle: Option<Arc<SessionHandle>>,
    /// Whether the session thread has it, and so needs no waking.
    is_picked_up: bool,
}

/// What a close has done, with the hooks of a turn that it cancelled. [`run_hooks`](Self::run_hooks) runs them, and so does a drop.
#[must_use = "the cancelled turn's hooks run at the latest when this is dropped: keep it until no lock is held"]
#[derive(Debug)]
pub(crate) struct Closed {
    /// Whether the session was open before.
    pub(crate) first: bool,
    hooks: Option<DueHooks>,
}

impl SessionHandle {
    /// The handle of a session about to be built, and the guards of its first turn, or of its build.
    pub(crate) fn new(
        profile: Profile,
        first: Option<TurnId>,
        cancel: CancelToken,
    ) -> (Arc<Self>, ActiveEntry, Admission) {
        let Profile { status, id, labels, snapshot, inbox_capacity, event_history, ids, counters, clock, .. } = profile;
        let Numbering { after, known_events, .. } = profile.numbering;
        let numbers = Numbers::new(profile.numbering);
        let shared = SessionShared {
            bus: Bus::new(id, event_history, after.event, known_events, Arc::clone(&numbers)),
            published: Published::new(status.clone(), snapshot),
            inbox: Arc::new(Inbox::new(inbox_capacity, ids)),
            counters,
            clock,
            numbers,
            permit: TurnPermit::new(profile.running),
        };
        let handle = Arc::new(Self {
            id,
            key: WaitKey::new(),
            labels,
            status,
            active: Mutex::new(Some(Active { turn: first, cancel })),
            shared: Arc::new(shared),
            lines: Mutex::default(),
            fault: OnceLock::new(),
            commands: WorkQueue::new(),
            close_is_done: AtomicBool::new(false),
            ended: Latch::new(),
        });
        let (active, admission) = handle.guards();
        (handle, active, admission)
    }

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    pub(crate) fn key(&self) -> WaitKey {
        self.key
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.status.gate
    }

    pub(crate) fn labels(&self) -> &Labels {
        &self.labels
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

    /// Notes the agent's own injector; returns what was noted before.
    #[must_use = "a user's value: to be dropped where a panic does no harm"]
    pub(crate) fn set_injector(
        &self,
        injector: Option<Arc<dyn SubscribableInjector>>,
    ) -> Option<Arc<dyn SubscribableInjector>> {
        std::mem::replace(&mut self.lines.lock().injector, injector)
    }

    /// Notes the agent's line to its peers; returns what was noted before.
    #[must_use = "a user's value: to be dropped where a panic does no harm"]
    pub(crate) fn set_comms(&self, comms: Option<Arc<dyn CommsRuntime>>) -> Option<Arc<dyn CommsRuntime>> {
        std::mem::replace(&mut self.lines.lock().comms, comms)
    }

    /// What reaches the agent: its own injector, or that of the inbox.
    pub(crate) fn injector(&self) -> Arc<dyn SubscribableInjector> {
        let own = self.lines.lock().injector.clone();
        own.unwrap_or_else(|| Arc::clone(&self.shared.inbox) as Arc<dyn SubscribableInjector>)
    }

    pub(crate) fn comms(&self) -> Option<Arc<dyn CommsRuntime>> {
        self.lines.lock().comms.clone()
    }

    /// Whether nobody is admitted any more, and whoever closed the session has cancelled what was to be cancelled.
    pub(crate) fn is_close_done(&self) -> bool {
        self.close_is_done.load(Ordering::SeqCst)
    }

    /// Set once the session's thread holds nothing of it.
    pub(crate) fn ended(&self) -> &Latch {
        &self.ended
    }

    /// Whether the session is there for callers.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        !self.gate().state().is_closed()
    }

    /// Admits the next turn, cancelled through `cancel`.
    pub(crate) fn admit(
        self: &Arc<Self>,
        cancel: &CancelToken,
    ) -> Result<(TurnId, ActiveEntry, Admission), SessionError> {
        // Most refusals need no lock.
        self.gate().state().refusal().map_err(|refusal| self.refused(refusal))?;
        let numbers = &self.shared.numbers;
        let turn = loop {
            match self.try_admit(numbers.last_turn(), cancel) {
                // With no lock held: this may wait for the disk.
                Err(Refusal::Unreserved { last }) => numbers.reserve(LastNumbers { turn: last, event: 0 })?,
                admitted => break admitted.map_err(|refusal| self.refused(refusal))?,
            }
        };
        let (active, admission) = self.guards();
        Ok((turn, active, admission))
    }

    /// The guards of what has just been admitted: a turn, or the build.
    fn guards(self: &Arc<Self>) -> (ActiveEntry, Admission) {
        let active = ActiveEntry { handle: Some(Arc::clone(self)) };
        (active, Admission { handle: Some(Arc::clone(self)), is_picked_up: false })
    }

    fn try_admit(&self, reserved: u64, cancel: &CancelToken) -> Result<TurnId, Refusal> {
        let mut active = self.active.lock();
        let turn = self.gate().admit(reserved)?;
        *active = Some(Active { turn: Some(turn), cancel: cancel.clone() });
        Ok(turn)
    }

    fn refused(&self, refusal: Refusal) -> SessionError {
        let id = self.id;
        match refusal {
            Refusal::Closed => SessionError::NotFound { id },
            // Never seen here: `admit` reserves the number and asks again.
            Refusal::Unreserved { .. } => SessionError::Busy { id, turn: None },
            Refusal::Busy { turn } => {
                let of_build = || self.active.lock().as_ref().and_then(|active| active.turn);
                SessionError::Busy { id, turn: turn.or_else(of_build) }
            }
            Refusal::Faulted => SessionError::Faulted { id, message: self.fault_message() },
        }
    }

    /// Hands a command to the session's thread. Where the session has ended, the command is dropped, which answers it.
    pub(crate) fn send(&self, command: Command) {
        if let Err(command) = self.commands.push(command) {
            drop(command);
        }
    }

    /// The commands, for the session's thread.
    pub(crate) fn commands(&self) -> &WorkQueue<Command> {
        &self.commands
    }

    /// Takes no more commands. Those that are left are dropped, which answers them.
    pub(crate) fn close_commands(&self) {
        let unanswered = self.commands.close();
        drop(unanswered);
    }

    /// Cancels the admitted turn: any, or that one only.
    pub(crate) fn interrupt(&self, only: Option<TurnId>) -> Result<(), SessionError> {
        let cancel = {
            let active = self.active.lock();
            match &*active {
                Some(Active { turn: Some(turn), cancel }) if only.is_none_or(|only| only == *turn) => cancel.clone(),
                _ => return Err(SessionError::NotRunning { id: self.id }),
            }
        };
        cancel.cancel_and_run_hooks(CancelReason::Interrupted);
        Ok(())
    }

    /// Ends one interaction alone: fails it if it is queued, cancels it if it runs.
    pub(crate) fn interrupt_interaction(&self, id: InteractionId) -> Result<(), SessionError> {
        match self.shared.inbox.find(id) {
            Some(Found::Queued(incoming)) => drop(incoming.reply.end(Err("cancelled: interrupted"))),
            Some(Found::Running(cancel)) => cancel.cancel_and_run_hooks(CancelReason::Interrupted),
            None => return Err(SessionError::NotRunning { id: self.id }),
        }
        Ok(())
    }

    /// Admits nobody any more. A turn that is admitted is cancelled, or may finish.
    pub(crate) fn close(&self, mode: ArchiveMode, reason: CancelReason) -> Closed {
        let first = self.gate().close();
        let hooks = match mode {
            ArchiveMode::Drain => None,
            ArchiveMode::Interrupt => {
                let cancel = self.active.lock().as_ref().map(|active| active.cancel.clone());
                cancel.and_then(|cancel| cancel.cancel(reason))
            }
        };
        self.finish_close();
        if first {
            record!(Debug, "turnwise::session", "session {}: closed, {mode:?}", self.id);
        }
        Closed { first, hooks }
    }

    /// Tells whoever has to know that the gate is closed. Doing it again changes nothing.
    pub(crate) fn finish_close(&self) {
        if !self.close_is_done.swap(true, Ordering::SeqCst) {
            // The thread may be waiting for what will not come.
            self.send(Command::Wake);
        }
        self.shared.inbox.close();
        self.bus().close();
    }

    /// Nothing is left of the session but this handle.
    pub(crate) fn end(&self) {
        self.gate().close();
        self.finish_close();
        self.close_commands();
        self.bus().end();
        // Behind the end of the bus: no number that a subscriber sees comes after it.
        let used = LastNumbers { turn: self.gate().state().turns(), event: self.bus().last_seq() };
        self.shared.numbers.finish(used);
    }

    /// Notes a panic of the agent: no turn will run any more.
    pub(crate) fn fault(&self, message: PanicMessage) -> SessionError {
        let message = self.fault.get_or_init(|| message).clone();
        self.gate().fault();
        // Nobody will ever work off what is in there.
        self.shared.inbox.close();
        SessionError::Faulted { id: self.id, message }
    }

    fn fault_message(&self) -> PanicMessage {
        // The message is put there before the gate says so.
        self.fault.get().cloned().unwrap_or_else(|| Arc::from(""))
    }

    /// State and figures of one instant; see the head of [`super`].
    fn look<T>(&self, take: impl Fn(&SessionSnapshot) -> T) -> (GateState, T) {
        loop {
            let before = self.gate().state();
            let taken = self.shared.published.read(&take);
            if self.gate().state() == before {
                return (before, taken);
            }
        }
    }

    /// What the session shows of itself; `None` if it is closed.
    pub(crate) fn view(&self) -> Option<SessionView> {
        let (gate, snapshot) = self.look(SessionSnapshot::clone);
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
        };
        let billing = SessionUsage { total_tokens: snapshot.total_tokens, usage: snapshot.usage };
        Some(SessionView { state, billing })
    }

    /// What the session shows of itself in a list. Takes no share in its text: of ten thousand sessions, that is what counts.
    /// `None` if it is closed.
    pub(crate) fn summary(&self) -> Option<SessionSummary> {
        let (gate, figures) = self.look(Figures::of);
        (!gate.is_closed()).then(|| summarize(self.id, gate, figures, &self.labels))
    }
}

#[inline(always)] // Where it is pushed into a list: nothing of it is copied then.
pub(crate) fn summarize(session_id: SessionId, gate: GateState, figures: Figures, labels: &Labels) -> SessionSummary {
    let Figures { created_at, updated_at, message_count, total_tokens } = figures;
    SessionSummary {
        session_id,
        created_at,
        updated_at,
        message_count,
        turns: gate.turns(),
        total_tokens,
        is_active: gate.is_busy(),
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

impl ActiveEntry {
    /// Clears the entry and seals its token: no interrupt finds the turn any more.
    pub(crate) fn clear(mut self) {
        self.clear_once();
    }

    fn clear_once(&mut self) {
        let Some(handle) = self.handle.take() else { return };
        let entry = handle.active.lock().take();
        if let Some(entry) = entry {
            entry.cancel.seal();
        }
    }
}

impl Drop for ActiveEntry {
    fn drop(&mut self) {
        self.clear_once();
    }
}

impl Closed {
    /// Runs the hooks of the turn that the close has cancelled. The caller holds no lock.
    pub(crate) fn run_hooks(self) {
        if let Some(hooks) = self.hooks {
            hooks.run();
        }
    }
}

impl Admission {
    /// The session thread has taken the turn, or the build, up.
    pub(crate) fn pick_up(&mut self) {
        self.is_picked_up = true;
    }

    /// Gives the admission back: the gate opens for the next turn.
    pub(crate) fn give_back(mut self) {
        self.give_back_once();
    }

    fn give_back_once(&mut self) {
        let Some(handle) = self.handle.take() else { return };
        handle.gate().end_turn();
        if !self.is_picked_up {
            // The session thread may wait for this turn's command, to end after it.
            handle.send(Command::Wake);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.give_back_once();
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
        let labels = Labels::default();
        let (snapshot_now, ids) = (snapshot.clone(), Ids::System);
        let (counters, clock) = Default::default();
        let profile = Profile {
            status: StatusSlab::default().building(0, None, &snapshot),
            id,
            labels,
            snapshot: snapshot_now,
            inbox_capacity: 0,
            event_history: 0,
            ids,
            counters,
            clock,
            numbering: Numbering::default(),
            running: Semaphore::new(1),
        };
        let (handle, active, mut admission) = SessionHandle::new(profile, None, CancelToken::new());
        handle.gate().end_build();
        admission.pick_up();
        active.clear();
        admission.give_back();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let view = handle.view().unwrap().state;
                    // Odd while a turn runs, even when it is over.
                    assert!(view.state == SessionState::Running || view.message_count % 2 == 0, "{view:?}");
                }
            });
            for turn in 0..1_000_000 {
                let (_, active, mut admission) = handle.admit(&CancelToken::new()).unwrap();
                admission.pick_up();
                for message_count in [2 * turn + 1, 2 * turn + 2] {
                    handle.shared.published.publish(SessionSnapshot { message_count, ..snapshot.clone() });
                }
                active.clear();
                admission.give_back();
            }
            done.store(true, Ordering::SeqCst);
            reader.join().unwrap();
        });
    }
}
