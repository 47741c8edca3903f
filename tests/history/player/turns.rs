//! Calls that start, await and interrupt turns.

use std::sync::Arc;

use turnwise::crossbeam_channel::unbounded;
use turnwise::{RunResult, SessionError, SessionService, StartTurnRequest, TurnHandle, TurnId, WhenBusy};

use super::{refused, Held, Player, LONG};
use crate::answers::{Begun, Ending, Refused};
use crate::history::{Uid, What};
use crate::plan::{Form, Prompt, Slot};
use crate::task::Task;

impl Player<'_> {
    pub(super) fn back(&self, back: u8) -> Option<&Held> {
        self.notes.turns.iter().rev().nth(usize::from(back))
    }

    pub(super) fn request(&mut self, uid: Uid, prompt: Prompt) -> StartTurnRequest {
        let request = StartTurnRequest::new(Task { uid, script: prompt.script }.to_string()).host_mode(prompt.host);
        if !prompt.watched {
            return request;
        }
        let (event_tx, events) = unbounded();
        self.notes.watched.push((uid, events));
        request.event_tx(event_tx)
    }

    pub(super) fn turn(&mut self, slot: Slot, prompt: Prompt, when_busy: WhenBusy) {
        let Some(id) = self.id(slot) else { return };
        let uid = self.uid();
        let request = self.request(uid, prompt).when_busy(when_busy);
        let call = self.now();
        let answer = if prompt.form == Form::Wait {
            let result = self.scene.stage.waiting(|| self.scene.service.start_turn(id, request));
            self.ended(uid, result)
        } else {
            let begun = self.scene.service.begin_turn(id, request);
            self.began(uid, prompt.form, begun)
        };
        self.note(id, call, What::Turn { uid, host: prompt.host, when_busy, answer });
    }

    /// Records the result of a call that waits for the turn, and returns its answer.
    pub(super) fn ended(&mut self, uid: Uid, result: Result<RunResult, SessionError>) -> Result<Begun, Refused> {
        let number = result.as_ref().ok().map(|result| result.turn_id.get());
        match &result {
            Ok(_) | Err(SessionError::Agent { .. } | SessionError::Build { .. }) => {}
            // The turn was refused, or an agent panicked: in this turn, or in one before it in the queue.
            Err(SessionError::Faulted { .. }) => {}
            Err(error) => return Err(Refused::from(error)),
        }
        self.notes.results.push((uid, Ending::of(&result)));
        Ok(Begun { number, ended: true })
    }

    pub(super) fn began(
        &mut self,
        uid: Uid,
        form: Form,
        begun: Result<TurnHandle, SessionError>,
    ) -> Result<Begun, Refused> {
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
        let _ = self.ask(back, |handle| stage.waiting(|| handle.wait_timeout(LONG)));
    }

    pub(super) fn poll(&mut self, back: u8) {
        let call = self.now();
        let Some(held) = self.back(back) else { return };
        let (id, uid) = (held.id, held.uid);
        if self.ask(back, TurnHandle::try_wait).is_none() {
            self.note(id, call, What::NoResult { uid });
        }
    }

    /// Asks for the result of a turn. `None` if there is none.
    fn ask(
        &mut self,
        back: u8,
        ask: impl FnOnce(&mut TurnHandle) -> Option<Result<RunResult, SessionError>>,
    ) -> Option<()> {
        let call = self.now();
        let held = self.notes.turns.iter_mut().rev().nth(usize::from(back))?;
        let (id, uid, number) = (held.id, held.uid, held.handle.turn_id());
        let result = ask(&mut held.handle)?;
        if result.as_ref().is_ok_and(|result| (result.session_id, result.turn_id) != (id, number)) {
            self.scene.stage.wrong(format!("turn {uid} has the result of another turn"));
        }
        self.notes.results.push((uid, Ending::of(&result)));
        self.note(id, call, What::Result { uid });
        Some(())
    }

    pub(super) fn ask_queued(&mut self, back: u8) {
        let call = self.now();
        let Some(held) = self.back(back) else { return };
        let (id, uid, answer) = (held.id, held.uid, held.handle.is_queued());
        self.note(id, call, What::IsQueued { uid, answer });
    }

    pub(super) fn interrupt_handle(&mut self, back: u8) {
        let call = self.now();
        let Some(held) = self.back(back) else { return };
        let (id, uid) = (held.id, held.uid);
        held.handle.interrupt();
        self.note(id, call, What::InterruptHandle { uid });
    }

    pub(super) fn interrupt_own(&mut self, back: u8) {
        let call = self.now();
        let Some(held) = self.back(back) else { return };
        let (id, turn) = (held.id, held.handle.turn_id());
        let answer = refused(self.scene.service.interrupt_turn(id, turn));
        self.note(id, call, What::Interrupt { only: Some(turn.get()), answer });
        self.poll(back);
    }

    pub(super) fn interrupt(&mut self, slot: Slot) {
        self.call(
            slot,
            |service, id| service.interrupt(id),
            |answer| What::Interrupt { only: None, answer: refused(answer) },
        );
    }

    pub(super) fn interrupt_turn(&mut self, slot: Slot, number: u64) {
        self.call(
            slot,
            |service, id| service.interrupt_turn(id, TurnId::new(number)),
            |answer| What::Interrupt { only: Some(number), answer: refused(answer) },
        );
    }
}
