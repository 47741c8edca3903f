//! The admission of turns: which turn of a session may run, and which turns wait for it. The head of [`super`] explains
//! the protocols.
//!
//! **Invariants.** Whenever the lock of the [`Admissions`] is free:
//! - There is an active entry if and only if RUNNING is set.
//! - A restart waits only while the entry is that of the turn that has faulted.
//! - The queue has turns only while RUNNING is set.
//! - [`QueueLength`](crate::status::queue_length::QueueLength) in the session's status is the length of the queue.

use std::collections::VecDeque;
use std::time::SystemTime;

use crate::cancel::{CancelHook, CancelToken};
use crate::error::{CancelReason, SessionError};
use crate::ids::numbers::LastNumbers;
use crate::model::TurnId;
use crate::service::WhenBusy;
use crate::status::gate::{Gate, GateState, Refusal};
use crate::status::slab::Status;
use crate::sync::{Arc, Instant};
use crate::turn::handle::Answer;

use super::command::Command;
use super::handle::SessionHandle;
use super::queue::{NewTurn, QueuedTurn};
use super::restart::Restart;

/// The admitted turn and the queued turns of a session. Locked for a few instructions at a time.
#[derive(Debug)]
pub(super) struct Admissions {
    /// The turn that an interrupt or a close cancels.
    entry: Option<Active>,
    /// In the order in which the turns will be admitted.
    queue: VecDeque<QueuedTurn>,
    /// The restart that follows the admitted turn, which has faulted.
    restart: Option<Restart>,
    /// The first turn was superseded while its agent was being built. It is cancelled when the build has ended: the turn
    /// that supersedes it needs the agent.
    is_superseded: bool,
    /// Whether the session is about to end, so that no turn is queued any more. The gate does not say so after a build
    /// that has failed.
    is_ending: bool,
}

/// The admitted turn, or the build.
#[derive(Debug)]
struct Active {
    /// `None` for a build without a turn: of a session that is opened, or restarted. An interrupt does not reach it.
    turn: Option<AdmittedTurn>,
    cancel: CancelToken,
    is_restart: bool,
}

/// A turn that is admitted.
#[derive(Clone, Copy, Debug)]
struct AdmittedTurn {
    id: TurnId,
    admitted_at: Instant,
    /// The time of day of the admission. Derived by the first read, so that an admission reads one clock only.
    started_at: Option<SystemTime>,
}

/// The admitted turn and the queue at one instant.
pub(super) struct QueueView {
    pub(super) gate: GateState,
    pub(super) queued_turns: usize,
    /// The time at which the admitted turn was admitted, if there is one.
    pub(super) turn_started_at: Option<SystemTime>,
}

/// Seals the token of a turn or of a build, by [`seal`](Self::seal) or when dropped: a later interrupt has no effect.
#[must_use]
#[derive(Debug)]
pub(crate) struct TokenSeal {
    cancel: CancelToken,
}

/// The right to run, or to build. [`give_back`](Self::give_back) or a drop passes it to the next queued turn, or opens
/// the gate.
#[must_use]
#[derive(Debug)]
pub(crate) struct Admission {
    handle: Arc<SessionHandle>,
    at: Instant,
    /// Whether the session thread has it, and so needs no wake-up.
    is_picked_up: bool,
    end: AdmissionEnd,
}

/// What the end of an admission does, beside the hand-over to the next queued turn.
#[derive(Debug)]
enum AdmissionEnd {
    /// Of a turn, or of a build that has failed and ends its session.
    Turn,
    /// Of a build without a turn, which ends with it.
    Build,
    /// Of a restart whose build has failed, or was not run: the session is faulted again. Queued turns are withdrawn with
    /// this error.
    Fault(Box<SessionError>),
}

/// What an admission passes to.
enum Next {
    Turn(QueuedTurn),
    Restart(Restart),
}

/// A turn that was accepted.
enum Accepted {
    /// The session was idle: the turn is admitted.
    Admitted(TurnId, Instant, NewTurn),
    Queued {
        turn_id: TurnId,
        /// The token of the turn that this one supersedes, if it can be cancelled now.
        superseded: Option<CancelToken>,
    },
}

/// Why an attempt to accept a turn has failed.
enum Obstacle {
    /// The turn's number has to be reserved first.
    Unreserved {
        last: u64,
    },
    Refused(SessionError),
}

/// What an interrupt has found.
enum InterruptTarget {
    Admitted(CancelToken),
    Queued(Box<QueuedTurn>),
}

impl AdmittedTurn {
    fn new(id: TurnId, admitted_at: Instant) -> Self {
        Self { id, admitted_at, started_at: None }
    }

    /// The time of day of the admission. Every call returns the same, whatever happens to the time of day.
    fn started_at(&mut self, (now, time): (Instant, SystemTime)) -> SystemTime {
        let passed = now.saturating_duration_since(self.admitted_at);
        *self.started_at.get_or_insert_with(|| time.checked_sub(passed).unwrap_or(time))
    }
}

impl Admissions {
    /// Those of a session that is being built, with its first turn or without one.
    pub(super) fn building(first: Option<TurnId>, at: Instant, cancel: CancelToken) -> Self {
        let turn = first.map(|first| AdmittedTurn::new(first, at));
        Self {
            entry: Some(Active { turn, cancel, is_restart: false }),
            queue: VecDeque::new(),
            restart: None,
            is_superseded: false,
            is_ending: false,
        }
    }

    fn admit(&mut self, turn: TurnId, at: Instant, cancel: &CancelToken) {
        self.entry = Some(Active::of_turn(turn, at, cancel));
    }

    /// The token of the admitted turn or of the build.
    fn token(&self) -> Option<&CancelToken> {
        self.entry.as_ref().map(|entry| &entry.cancel)
    }

    /// The admitted turn.
    pub(super) fn turn(&self) -> Option<TurnId> {
        self.entry.as_ref().and_then(|entry| entry.turn).map(|turn| turn.id)
    }

    /// Whether the agent is built, for the first time in this life and without a turn.
    fn is_opening(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.turn.is_none() && !entry.is_restart)
    }

    /// Whether a turn or a restart waits for the end of the admitted turn.
    fn has_next(&self) -> bool {
        self.restart.is_some() || !self.queue.is_empty()
    }

    /// Takes one turn out of the queue.
    fn remove(&mut self, turn: TurnId, status: &Status) -> Option<QueuedTurn> {
        let place = self.queue.iter().position(|queued| queued.turn_id == turn)?;
        self.change_queue(status, |queue, gate| {
            gate.count_unqueued();
            queue.remove(place).inspect(QueuedTurn::mark_unqueued)
        })
    }

    /// Takes all turns out of the queue.
    fn take_queue(&mut self, status: &Status) -> VecDeque<QueuedTurn> {
        if self.queue.is_empty() {
            return VecDeque::new();
        }
        self.change_queue(status, |queue, gate| {
            gate.count_unqueued();
            queue.iter().for_each(QueuedTurn::mark_unqueued);
            std::mem::take(queue)
        })
    }

    /// Changes queue, gate and the handles' answers to `is_queued` in one step, for readers without the lock.
    fn change_queue<T>(&mut self, status: &Status, change: impl FnOnce(&mut VecDeque<QueuedTurn>, &Gate) -> T) -> T {
        status.queue_length.begin_change();
        let result = change(&mut self.queue, &status.gate);
        status.queue_length.end_change(self.queue.len());
        result
    }
}

impl Active {
    fn of_turn(turn: TurnId, at: Instant, cancel: &CancelToken) -> Self {
        Self { turn: Some(AdmittedTurn::new(turn, at)), cancel: cancel.clone(), is_restart: false }
    }

    fn of_restart(restart: &Restart) -> Self {
        Self { turn: None, cancel: restart.cancel().clone(), is_restart: true }
    }
}

impl Next {
    fn entry(&self, at: Instant) -> Active {
        match self {
            Self::Turn(QueuedTurn { turn_id, turn, .. }) => Active::of_turn(*turn_id, at, &turn.cancel),
            Self::Restart(restart) => Active::of_restart(restart),
        }
    }
}

impl SessionHandle {
    /// Admits the next turn of an idle session, which `cancel` cancels. May wait for the disk, to reserve turn numbers.
    pub(crate) fn admit(
        self: &Arc<Self>,
        cancel: &CancelToken,
        number: Option<TurnId>,
    ) -> Result<(TurnId, TokenSeal, Admission), SessionError> {
        let (turn, at) = loop {
            let now = self.shared().clock.now();
            match self.try_admit(self.shared().numbers.last_turn(), now, cancel, number) {
                Ok(turn) => break (turn, now),
                Err(obstacle) => self.overcome(obstacle)?,
            }
        };
        let (seal, admission) = self.guards(cancel.clone(), at);
        Ok((turn, seal, admission))
    }

    fn try_admit(
        &self,
        reserved: u64,
        now: Instant,
        cancel: &CancelToken,
        number: Option<TurnId>,
    ) -> Result<TurnId, Obstacle> {
        let mut admissions = self.admissions.lock();
        let turn = self.gate().admit_as(reserved, number).map_err(|refusal| self.obstacle(refusal, &admissions))?;
        admissions.admit(turn, now, cancel);
        Ok(turn)
    }

    /// Accepts a turn of a busy session: it waits in the queue, or supersedes the admitted turn. If the session is idle
    /// by now, the turn is admitted and sent to the session thread. A refused turn is returned.
    ///
    /// May wait for the disk, to reserve turn numbers. Runs the cancel hooks of a superseded turn.
    #[allow(clippy::result_large_err)] // The turn itself is larger.
    pub(crate) fn accept(
        self: &Arc<Self>,
        mut turn: NewTurn,
        when_busy: WhenBusy,
    ) -> Result<TurnId, (SessionError, NewTurn)> {
        let cancel = turn.cancel.clone();
        let accepted = loop {
            match self.try_accept(self.shared().numbers.last_turn(), turn, when_busy) {
                Ok(accepted) => break accepted,
                Err((obstacle, refused)) => match self.overcome(obstacle) {
                    Ok(()) => turn = refused,
                    Err(error) => return Err((error, refused)),
                },
            }
        };
        match accepted {
            Accepted::Admitted(turn_id, at, turn) => {
                self.send(Command::Turn(turn.admitted(turn_id, self.guards(cancel, at))));
                Ok(turn_id)
            }
            Accepted::Queued { turn_id, superseded } => {
                self.arm_withdrawal(turn_id, &cancel);
                if let Some(superseded) = superseded {
                    superseded.cancel_and_run_hooks(CancelReason::Superseded);
                }
                Ok(turn_id)
            }
        }
    }

    #[allow(clippy::result_large_err)] // The turn itself is larger.
    fn try_accept(&self, reserved: u64, turn: NewTurn, when_busy: WhenBusy) -> Result<Accepted, (Obstacle, NewTurn)> {
        let now = self.shared().clock.now();
        let mut admissions = self.admissions.lock();
        match self.gate().admit_as(reserved, turn.number) {
            Ok(turn_id) => {
                admissions.admit(turn_id, now, &turn.cancel);
                return Ok(Accepted::Admitted(turn_id, now, turn));
            }
            Err(Refusal::Busy) => {}
            Err(refusal) => return Err((self.obstacle(refusal, &admissions), turn)),
        }
        let id = self.id();
        if admissions.is_ending {
            return Err((Obstacle::Refused(SessionError::NotFound { id }), turn));
        }
        // A turn that does not queue may follow a build without a turn, and no other turn.
        if when_busy == WhenBusy::Refuse && !(admissions.is_opening() && admissions.queue.is_empty()) {
            return Err((self.obstacle(Refusal::Busy, &admissions), turn));
        }
        let capacity = self.queue_capacity;
        if when_busy != WhenBusy::Refuse && admissions.queue.len() >= capacity {
            return Err((Obstacle::Refused(SessionError::QueueFull { id, capacity }), turn));
        }
        let accepted = admissions.change_queue(self.status(), |queue, gate| {
            let turn_id = match gate.accept_as(reserved, turn.number) {
                Ok(turn_id) => turn_id,
                Err(refusal) => return Err((refusal, turn)),
            };
            turn.answer.set_queued(true);
            let queued = QueuedTurn { turn_id, accepted_at: now, turn, hook: None };
            match when_busy {
                WhenBusy::Interrupt => queue.push_front(queued),
                WhenBusy::Refuse | WhenBusy::Queue => queue.push_back(queued),
            }
            Ok(turn_id)
        });
        match accepted {
            Ok(turn_id) => {
                // A turn that has faulted ends anyway, and a restart is not superseded.
                let has_turn = admissions.turn().is_some() && admissions.restart.is_none();
                let is_superseding = when_busy == WhenBusy::Interrupt && has_turn;
                let is_building = self.gate().state().is_building();
                admissions.is_superseded |= is_superseding && is_building;
                let superseded = admissions.token().filter(|_| is_superseding && !is_building).cloned();
                Ok(Accepted::Queued { turn_id, superseded })
            }
            Err((refusal, turn)) => Err((self.obstacle(refusal, &admissions), turn)),
        }
    }

    /// Makes the cancellation of a queued turn withdraw it. If the turn is cancelled already, it is withdrawn now.
    fn arm_withdrawal(self: &Arc<Self>, turn: TurnId, cancel: &CancelToken) {
        let (handle, token) = (Arc::downgrade(self), cancel.clone());
        let hook = cancel.on_cancel(move || {
            if let (Some(handle), Some(reason)) = (handle.upgrade(), token.reason()) {
                handle.withdraw(turn, reason);
            }
        });
        let unneeded = self.keep_hook(turn, hook);
        // The turn has left the queue meanwhile. With no lock held: the drop waits for a hook that runs.
        drop(unneeded);
    }

    /// Stores the hook of a queued turn. Returns it if the turn is not queued any more.
    fn keep_hook(&self, turn: TurnId, hook: CancelHook) -> Option<CancelHook> {
        let mut admissions = self.admissions.lock();
        match admissions.queue.iter_mut().find(|queued| queued.turn_id == turn) {
            Some(queued) => queued.hook.replace(hook),
            None => Some(hook),
        }
    }

    /// Withdraws a turn, if it is still queued.
    fn withdraw(&self, turn: TurnId, reason: CancelReason) {
        let queued = self.admissions.lock().remove(turn, self.status());
        if let Some(queued) = queued {
            self.cancel_queued(queued, reason);
        }
    }

    fn cancel_queued(&self, queued: QueuedTurn, reason: CancelReason) {
        queued.cancel(self.id(), reason, self.shared());
        if !self.has_queued_turns() {
            // In host mode the session thread may be waiting for the queue to be empty, to decide a take.
            self.wake();
        }
    }

    /// Reserves a number, or returns the error of a turn that is refused. With no lock held, because it may wait for
    /// the disk.
    fn overcome(&self, obstacle: Obstacle) -> Result<(), SessionError> {
        match obstacle {
            Obstacle::Unreserved { last } => {
                let numbers = &self.shared().numbers;
                let reserved = numbers.reserve(LastNumbers { turn: last, event: 0 });
                if numbers.loss().is_some() {
                    self.close_lost();
                }
                reserved
            }
            Obstacle::Refused(error) => Err(error),
        }
    }

    fn obstacle(&self, refusal: Refusal, admissions: &Admissions) -> Obstacle {
        let id = self.id();
        Obstacle::Refused(match refusal {
            Refusal::Unreserved { last } => return Obstacle::Unreserved { last },
            Refusal::Closed => SessionError::NotFound { id },
            Refusal::Busy => SessionError::Busy { id, turn: admissions.turn() },
            Refusal::Faulted => self.faulted(),
        })
    }

    /// The guards of an admission at `at`: of a turn, or of the build.
    pub(super) fn guards(self: &Arc<Self>, cancel: CancelToken, at: Instant) -> (TokenSeal, Admission) {
        let admission = Admission { handle: Arc::clone(self), at, is_picked_up: false, end: AdmissionEnd::Turn };
        (TokenSeal { cancel }, admission)
    }

    /// Ends the build of the first turn's agent. Cancels the turn if it has been superseded meanwhile.
    pub(crate) fn end_build(&self) {
        let (gate, superseded) = {
            // A turn that supersedes the first one reads BUILDING under this lock.
            let mut admissions = self.admissions.lock();
            let is_superseded = std::mem::take(&mut admissions.is_superseded);
            (self.gate().end_build(), admissions.token().filter(|_| is_superseded).cloned())
        };
        if let Some(superseded) = superseded {
            superseded.cancel_and_run_hooks(CancelReason::Superseded);
        }
        self.report_if_idle(gate);
    }

    /// Begins a restart: the session is `Building` from now on. The session thread builds the agent, after the turn that
    /// has faulted has ended.
    pub(super) fn admit_restart(self: &Arc<Self>, restart: Restart) -> Result<(), SessionError> {
        let now = self.shared().clock.now();
        let restart = {
            let mut admissions = self.admissions.lock();
            match self.gate().restart() {
                Err(gate) => return Err(self.restart_refusal(gate, &admissions)),
                Ok(true) => {
                    admissions.restart = Some(restart);
                    return Ok(());
                }
                Ok(false) => {
                    admissions.entry = Some(Active::of_restart(&restart));
                    restart
                }
            }
        };
        self.send_admitted(Next::Restart(restart), now);
        Ok(())
    }

    fn restart_refusal(&self, gate: GateState, admissions: &Admissions) -> SessionError {
        let id = self.id();
        match gate.refusal() {
            Ok(()) => SessionError::NotFaulted { id },
            Err(Refusal::Closed) => SessionError::NotFound { id },
            Err(Refusal::Busy | Refusal::Faulted | Refusal::Unreserved { .. }) => {
                SessionError::Busy { id, turn: admissions.turn() }
            }
        }
    }

    /// Ends an admission: passes it to the restart that waits for it or to the next queued turn, or opens the gate.
    /// Returns whether it has passed the admission on.
    fn end_admission(self: &Arc<Self>, end: &AdmissionEnd) -> bool {
        if let AdmissionEnd::Fault(error) = end {
            self.end_failed_restart(error);
            return false;
        }
        let mut now = None;
        let (next, last, gate) = loop {
            let mut admissions = self.admissions.lock();
            // The clock is read with no lock held, and only if the admission is passed on.
            if admissions.has_next() && now.is_none() {
                drop(admissions);
                now = Some(self.shared().clock.now());
                continue;
            }
            let next = now.and_then(|now| self.next_admission(&mut admissions).map(|next| (next, now)));
            let gate = match (&next, end) {
                (None, AdmissionEnd::Build) => self.gate().end_opening(),
                (None, _) => self.gate().end_turn(),
                (Some(_), AdmissionEnd::Build) => self.gate().end_build(),
                (Some(_), _) => self.gate().state(),
            };
            let entry = next.as_ref().map(|(next, now)| next.entry(*now));
            break (next, std::mem::replace(&mut admissions.entry, entry), gate);
        };
        drop(last);
        self.report_if_idle(gate);
        let Some((next, now)) = next else { return false };
        self.send_admitted(next, now);
        true
    }

    /// Ends a restart whose build has failed: the session is faulted again, and queued turns are withdrawn with the error.
    fn end_failed_restart(&self, error: &SessionError) {
        let (last, queued) = {
            let mut admissions = self.admissions.lock();
            let queued = admissions.take_queue(self.status());
            self.gate().fail_restart();
            (admissions.entry.take(), queued)
        };
        drop(last);
        self.report_fault();
        for queued in queued {
            queued.withdraw(Err(error.clone()), self.shared()).give();
        }
    }

    /// What an admission passes to at its end. A restart waits only for the turn that has faulted, before any turn that
    /// was queued since.
    fn next_admission(&self, admissions: &mut Admissions) -> Option<Next> {
        if let Some(restart) = admissions.restart.take() {
            return Some(Next::Restart(restart));
        }
        if admissions.queue.is_empty() {
            return None;
        }
        self.admit_queued(admissions).map(Next::Turn)
    }

    /// Takes the next turn out of the queue.
    fn admit_queued(&self, admissions: &mut Admissions) -> Option<QueuedTurn> {
        admissions.change_queue(self.status(), |queue, gate| {
            gate.count_unqueued();
            queue.pop_front().inspect(QueuedTurn::mark_unqueued)
        })
    }

    /// Sends what is admitted to the session thread. If the session has ended, all queued turns are answered.
    fn send_admitted(self: &Arc<Self>, next: Next, at: Instant) {
        let command = match next {
            Next::Turn(turn) => {
                let guards = self.guards(turn.turn.cancel.clone(), at);
                Command::Turn(turn.admitted(guards, at, self.shared()))
            }
            Next::Restart(restart) => {
                let (seal, admission) = self.guards(restart.cancel().clone(), at);
                Command::Restart(restart.admitted(seal, admission.of_restart()))
            }
        };
        if let Err(unsent) = self.commands().push(command) {
            // First the queue. Otherwise each turn would be dropped within the drop of the one before.
            self.end_queue(&SessionError::NotFound { id: self.id() }).into_iter().for_each(Answer::give);
            drop(unsent);
        }
    }

    /// Whether the agent is built, for the first time in this life and without a turn.
    pub(crate) fn is_opening(&self) -> bool {
        self.admissions.lock().is_opening()
    }

    /// Cancels the admitted turn, or withdraws a queued one, if `only` is that turn; the admitted one if it is `None`.
    ///
    /// A turn whose token is sealed has ended, though its entry is still there: such an interrupt has come too late.
    pub(crate) fn interrupt(&self, only: Option<TurnId>) -> Result<(), SessionError> {
        match self.find_interrupt_target(only) {
            Some(InterruptTarget::Admitted(cancel)) => cancel.cancel_and_run_hooks(CancelReason::Interrupted),
            Some(InterruptTarget::Queued(queued)) => self.cancel_queued(*queued, CancelReason::Interrupted),
            None => return Err(SessionError::NotRunning { id: self.id() }),
        }
        Ok(())
    }

    fn find_interrupt_target(&self, only: Option<TurnId>) -> Option<InterruptTarget> {
        let mut admissions = self.admissions.lock();
        match &admissions.entry {
            Some(Active { turn: Some(turn), cancel, .. }) if only.is_none_or(|only| only == turn.id) => {
                Some(InterruptTarget::Admitted(cancel.clone()))
            }
            _ => admissions.remove(only?, self.status()).map(|queued| InterruptTarget::Queued(Box::new(queued))),
        }
    }

    /// The token of the admitted turn or of the build, and the queued turns, taken out. For a close that cancels.
    pub(super) fn take_to_cancel(&self) -> (Option<CancelToken>, VecDeque<QueuedTurn>) {
        let mut admissions = self.admissions.lock();
        (admissions.token().cloned(), admissions.take_queue(self.status()))
    }

    /// The token of a restart that a draining close cancels: its session ends, and no queued turn needs the agent.
    pub(super) fn needless_restart(&self) -> Option<CancelToken> {
        let admissions = self.admissions.lock();
        let restart = admissions.entry.as_ref().filter(|entry| entry.is_restart && admissions.queue.is_empty());
        restart.map(|entry| entry.cancel.clone())
    }

    /// Withdraws all queued turns with this error.
    pub(super) fn fail_queue(&self, error: &SessionError) {
        let queued = self.admissions.lock().take_queue(self.status());
        for queued in queued {
            queued.withdraw(Err(error.clone()), self.shared()).give();
        }
    }

    /// Withdraws all queued turns with this error, and queues no more. Returns their answers.
    pub(super) fn end_queue(&self, error: &SessionError) -> Vec<Answer> {
        let queued = {
            let mut admissions = self.admissions.lock();
            admissions.is_ending = true;
            admissions.take_queue(self.status())
        };
        queued.into_iter().map(|queued| queued.withdraw(Err(error.clone()), self.shared())).collect()
    }

    /// Closes the gate between two interactions of host mode, unless a turn is queued. Returns whether this call
    /// closed it.
    pub(super) fn close_if_nothing_queued(&self) -> bool {
        let admissions = self.admissions.lock();
        admissions.queue.is_empty() && self.gate().close()
    }

    /// Whether turns are queued. Exact, unlike the length that readers see during a change.
    pub(super) fn has_queued_turns(&self) -> bool {
        !self.admissions.lock().queue.is_empty()
    }

    /// The admitted turn and the queue at one instant.
    pub(super) fn queue_view(&self) -> QueueView {
        // The clocks are read with no lock held, and only for a turn.
        let mut now = None;
        loop {
            let mut admissions = self.admissions.lock();
            let queued_turns = admissions.queue.len();
            let turn = admissions.entry.as_mut().and_then(|entry| entry.turn.as_mut());
            let turn_started_at = match (turn, now) {
                (None, _) => None,
                (Some(turn), Some(now)) => Some(turn.started_at(now)),
                (Some(_), None) => {
                    drop(admissions);
                    let clock = &self.shared().clock;
                    now = Some((clock.now(), clock.system_time()));
                    continue;
                }
            };
            return QueueView { gate: self.gate().state(), queued_turns, turn_started_at };
        }
    }
}

impl TokenSeal {
    /// Seals the token: no interrupt reaches the turn any more.
    pub(crate) fn seal(self) {
        // The drop seals it, on every other way out too.
        drop(self);
    }
}

impl Drop for TokenSeal {
    fn drop(&mut self) {
        self.cancel.seal();
    }
}

impl Admission {
    /// The instant of the admission.
    pub(super) fn at(&self) -> Instant {
        self.at
    }

    /// Marks the turn, or the build, as picked up by the session thread.
    pub(crate) fn pick_up(&mut self) {
        self.is_picked_up = true;
    }

    /// Gives the admission back: it passes to a restart or to the next queued turn, or the gate opens.
    pub(crate) fn give_back(self) {
        // The drop gives it back, on every other way out too.
        drop(self);
    }

    /// As [`give_back`](Self::give_back), at the end of a build without a turn. In the same step the build ends.
    /// Otherwise the gate would show a turn that does not exist.
    pub(crate) fn end_build(mut self) {
        self.end = AdmissionEnd::Build;
    }

    /// The admission of a restart. If it is not used, the session is faulted again.
    fn of_restart(mut self) -> Self {
        let id = self.handle.id();
        self.end = AdmissionEnd::Fault(Box::new(SessionError::NotFound { id }));
        self
    }

    /// As [`give_back`](Self::give_back), at the end of a restart whose build has failed. In the same step the session is
    /// faulted again. Otherwise a turn could be admitted that no agent runs.
    pub(crate) fn fail_restart(mut self, error: SessionError) {
        self.end = AdmissionEnd::Fault(Box::new(error));
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let has_admitted = self.handle.end_admission(&self.end);
        if !has_admitted && !self.is_picked_up {
            // The session thread may be waiting for this turn's command, and ends without it.
            self.handle.wake();
        }
    }
}
