//! Calls that begin and end sessions.

use std::sync::Arc;
use std::time::Duration;

use turnwise::{CreateSessionRequest, RunResult, SessionError, SessionId, SessionService, SessionSpec, TurnHandle};

use super::{refused, Player};
use crate::agent::{figures_of, set_life, Order};
use crate::answers::{Figures, Opened, Refused};
use crate::history::{Counted, Event, Stamp, Uid, What, Who};
use crate::plan::{mode, Build, Form, Prompt, Slot, NAMED};

impl Player<'_> {
    /// A specification, the number of the create, the figures of the history to resume, and the id to ask for.
    pub(super) fn spec(
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
        if let Some(mut kept) = self.kept.clone().filter(|_| resume) {
            set_life(&mut kept, uid);
            figures = figures_of(&kept);
            id = id.or(Some(kept.id()));
            spec = spec.resume(kept);
        }
        let spec = spec.extension(Arc::new(Order { uid, build, fresh: id.is_none() }));
        (spec, uid, figures, id)
    }

    pub(super) fn create(&mut self, slot: Option<Slot>, build: Build, resume: bool, prompt: Prompt) {
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

    pub(super) fn open(&mut self, slot: Option<Slot>, build: Build, resume: bool) {
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

    pub(super) fn created(&mut self, call: Stamp, id: Option<SessionId>, answer: Result<(), Refused>, what: What) {
        if let Err(Refused::Capacity { active, max }) = answer {
            self.count(call, Counted::Exceeded { active, max });
        }
        self.note(id, call, what);
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

    pub(super) fn archive(&mut self, slot: Slot, interrupt: bool) {
        let mode = mode(interrupt);
        self.call(
            slot,
            |service, id| service.archive_with(id, mode),
            |answer| What::Archive { mode, answer: refused(answer) },
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

/// The session of a result.
fn about(result: &Result<RunResult, SessionError>) -> Option<SessionId> {
    result.as_ref().map_or_else(SessionError::session_id, |result| Some(result.session_id))
}
