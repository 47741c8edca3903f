//! The requests of this client whose end is not known yet.
//!
//! A request is entered before its call is sent, since its verdict may come before the reply of the call. It is
//! *accepted* once that reply has come: then the engine knows it, and may be asked for it again. It leaves the table with
//! its verdict.
//!
//! # The call and a change of the client's name
//!
//! A verdict goes to the names of the clients that the engine has noted. A client whose lease has ended takes a new name,
//! and asks with it for each accepted request. So a request must not be missed that is accepted at that moment:
//!
//! ```text
//! the caller                                 the listener
//! reads the name; sends the call with it
//!                                            stores the new name
//!                                            asks for each accepted request
//! stores "accepted"
//! has the name changed? asks for the request
//! ```
//!
//! The caller looks at the name after it has stored that the request is accepted, and the listener reads that after it has
//! stored the name. So at least one of the two asks.

use std::collections::HashMap;

use crate::cancel::{CancelHook, CancelToken};
use crate::cluster::error::EngineError;
use crate::error::{CancelReason, SessionError};
use crate::model::{RequestId, SessionId, TurnId};
use crate::sync::{Arc, Instant, Mutex, Sender};
use crate::turn::handle::{Answer, Outcome, TurnResult};

use super::known::Known;
use super::sender::{Interrupt, Job};
use super::turn_events::FeedMessage;
use super::verdict::{Ended, Kind};

/// A request: a turn, a build, or both.
pub(super) struct Request {
    pub(super) id: SessionId,
    pub(super) request: RequestId,
    pub(super) known: Arc<Known>,
    /// Tells the turn to stop.
    pub(super) cancel: CancelToken,
    /// When the request was made.
    pub(super) since: Instant,
    state: Mutex<State>,
}

struct State {
    /// `None` once the caller is answered.
    answer: Option<Answer>,
    /// The turn, once the request is accepted. 0 for a build.
    accepted: Option<TurnId>,
    /// Whether the turn is known to have left the queue.
    has_begun: bool,
    /// Sends the interrupt.
    hook: Option<CancelHook>,
    /// The thread that gives the events of the turn to their receiver. It gives the result too.
    events: Option<Sender<FeedMessage>>,
}

/// Why a client takes no more requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// Its last handle was dropped.
    Stopped,
    /// The engine is another one.
    Replaced,
}

#[derive(Default)]
pub(super) struct Requests {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    open: HashMap<RequestId, Arc<Request>>,
    closed: Option<Closed>,
}

impl Request {
    pub(super) fn new(
        id: SessionId,
        known: Arc<Known>,
        events: Option<Sender<FeedMessage>>,
        since: Instant,
    ) -> (Arc<Self>, Arc<Outcome>) {
        let (answer, outcome) = Outcome::new(id);
        let state = State { answer: Some(answer), accepted: None, has_begun: false, hook: None, events };
        let (request, cancel) = (RequestId::new(), CancelToken::new());
        (Arc::new(Self { id, request, known, cancel, since, state: Mutex::new(state) }), outcome)
    }

    /// The turn, once the request is accepted. 0 for a build.
    pub(super) fn accepted(&self) -> Option<TurnId> {
        self.state.lock().accepted
    }

    /// Whether the caller has no answer yet.
    pub(super) fn is_open(&self) -> bool {
        self.state.lock().answer.is_some()
    }

    /// Whether its end was passed on to the thread of its events.
    pub(super) fn has_ended(&self) -> bool {
        self.state.lock().events.is_none()
    }

    /// The engine has accepted the request. From now on a cancel of its token interrupts the turn.
    pub(super) fn accept(self: &Arc<Self>, turn: TurnId, jobs: &Sender<Job>) {
        self.state.lock().accepted = Some(turn);
        let (weak, jobs) = (Arc::downgrade(self), jobs.clone());
        // The token of a turn that has ended is sealed: then the hook never runs.
        let hook = self.cancel.on_cancel(move || {
            if let Some(request) = weak.upgrade() {
                // A hook runs behind the reason.
                let reason = request.cancel.reason().unwrap_or(CancelReason::Interrupted);
                // Fails only if the client has stopped.
                let _ = jobs.send(Job::Interrupt(Interrupt { request, turn, reason }));
            }
        });
        let mut state = self.state.lock();
        let unused = if state.answer.is_some() { state.hook.replace(hook) } else { Some(hook) };
        drop(state);
        drop(unused);
    }

    /// The turn was seen in the queue of its session. Changes nothing if it is known to have begun: the look may be older.
    pub(super) fn set_queued(&self) {
        let state = self.state.lock();
        if let Some(answer) = state.answer.as_ref().filter(|_| !state.has_begun) {
            answer.set_queued(true);
        }
    }

    /// The turn has left the queue.
    pub(super) fn begin(&self) {
        let mut state = self.state.lock();
        state.has_begun = true;
        if let Some(answer) = &state.answer {
            answer.set_queued(false);
        }
    }

    /// Passes the end of the request on: to its caller, or to the thread that gives the events out first.
    pub(super) fn end(&self, ended: &Ended) {
        self.known.note_answers(ended.answers);
        self.end_with(ended.result(self.id), ended.kind);
    }

    /// Ends the request without a verdict.
    pub(super) fn fail(&self, error: SessionError) {
        self.end_with(Err(error), Kind::Unknown);
    }

    /// The engine does not say what has become of the request.
    pub(super) fn unknown(&self) -> SessionError {
        let turn = self.accepted().filter(|turn| turn.get() > 0);
        SessionError::OutcomeUnknown { id: self.id, request: self.request, turn }
    }

    fn end_with(&self, result: TurnResult, kind: Kind) {
        let events = self.state.lock().events.take();
        let result = match events {
            None => result,
            Some(events) => {
                self.end_wait_for_room(&result, kind);
                match events.send(FeedMessage::Ended { result, kind }) {
                    Ok(()) => return,
                    // The thread has ended.
                    Err(error) => match error.into_inner() {
                        FeedMessage::Ended { result, .. } => result,
                        _ => return,
                    },
                }
            }
        };
        self.answer(result);
    }

    /// The receiver of the events may have no room. Its thread waits no longer if the turn is cancelled, by this
    /// client or another one, or if nothing is known of the turn any more.
    fn end_wait_for_room(&self, result: &TurnResult, kind: Kind) {
        let reason = result.as_ref().err().and_then(SessionError::cancel_reason);
        let is_gone = matches!(kind, Kind::Lost | Kind::Unknown);
        let Some(reason) = reason.or(is_gone.then_some(CancelReason::Shutdown)) else { return };
        let hook = self.state.lock().hook.take();
        // There is nothing left to interrupt.
        drop(hook);
        self.cancel.cancel_and_run_hooks(reason);
    }

    /// Ends a request that was not begun. Its caller has an error already.
    pub(super) fn abandon(&self) {
        let (answer, events) = {
            let mut state = self.state.lock();
            (state.answer.take(), state.events.take())
        };
        self.cancel.seal();
        drop((answer, events));
    }

    /// Gives the caller the result. Only the first one counts.
    pub(super) fn answer(&self, result: TurnResult) {
        let (answer, hook) = {
            let mut state = self.state.lock();
            (state.answer.take(), state.hook.take())
        };
        let Some(answer) = answer else { return };
        self.cancel.seal();
        drop(hook);
        answer.set_queued(false);
        answer.prepare(result);
        answer.give();
    }
}

impl Requests {
    /// Enters a request, before its call is sent.
    pub(super) fn enter(&self, request: &Arc<Request>) -> Result<(), Closed> {
        let mut table = self.table.lock();
        match table.closed {
            Some(closed) => Err(closed),
            None => {
                table.open.insert(request.request, Arc::clone(request));
                Ok(())
            }
        }
    }

    pub(super) fn take(&self, request: RequestId) -> Option<Arc<Request>> {
        self.table.lock().open.remove(&request)
    }

    /// The requests that the engine knows.
    pub(super) fn accepted(&self) -> Vec<Arc<Request>> {
        let open: Vec<_> = self.table.lock().open.values().map(Arc::clone).collect();
        open.into_iter().filter(|request| request.accepted().is_some()).collect()
    }

    /// Takes out some of the requests that the engine knows, and leaves those whose callers still wait for the reply.
    pub(super) fn take_accepted(&self, is_wanted: impl Fn(&Request) -> bool) -> Vec<Arc<Request>> {
        let wanted = self.accepted().into_iter().filter(|request| is_wanted(request));
        wanted.filter_map(|request| self.take(request.request)).collect()
    }

    /// Takes out all requests, and lets no more in.
    pub(super) fn close(&self, closed: Closed) -> Vec<Arc<Request>> {
        let mut table = self.table.lock();
        table.closed.get_or_insert(closed);
        std::mem::take(&mut table.open).into_values().collect()
    }

    pub(super) fn count(&self) -> usize {
        self.table.lock().open.len()
    }
}

impl Closed {
    /// The error of a request that comes later.
    pub(super) fn error(self, id: SessionId) -> SessionError {
        match self {
            Self::Stopped => SessionError::ShuttingDown,
            Self::Replaced => SessionError::Store { id: Some(id), source: Arc::new(EngineError::Replaced) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::client::known::KnownSessions;
    use crate::sync::unbounded;

    fn request(events: Option<Sender<FeedMessage>>) -> (Arc<Request>, Arc<Outcome>) {
        let id = SessionId::new();
        Request::new(id, KnownSessions::default().get(id), events, Instant::now())
    }

    #[test]
    fn c84_a_verdict_before_the_reply_of_the_call_is_the_answer() {
        let ((request, outcome), (jobs, queue)) = (request(None), unbounded());
        let requests = Requests::default();
        requests.enter(&request).unwrap();
        requests.take(request.request).unwrap().end(&Ended::new(b"1", b"lost", b"", b"2").unwrap());
        request.accept(TurnId::new(1), &jobs);
        request.cancel.cancel_and_run_hooks(CancelReason::Interrupted);
        assert_eq!(outcome.get().unwrap().unwrap_err().code(), "WORKER_LOST");
        assert_eq!((request.known.answers(), queue.len()), (2, 0));
    }

    #[test]
    fn c84_a_cancel_sends_one_interrupt_of_an_accepted_turn() {
        let ((request, _outcome), (jobs, queue)) = (request(None), unbounded());
        request.accept(TurnId::new(3), &jobs);
        request.cancel.cancel_and_run_hooks(CancelReason::DeadlineExceeded);
        request.cancel.cancel_and_run_hooks(CancelReason::Interrupted);
        let Ok(Job::Interrupt(interrupt)) = queue.try_recv() else { panic!("no interrupt") };
        assert_eq!((interrupt.turn, interrupt.reason), (TurnId::new(3), CancelReason::DeadlineExceeded));
        assert!(queue.try_recv().is_err());
    }

    #[test]
    fn c84_of_several_answers_the_first_counts() {
        let (request, outcome) = request(None);
        request.fail(SessionError::ShuttingDown);
        request.end(&Ended::new(b"1", b"lost", b"", b"1").unwrap());
        assert_eq!(outcome.get().unwrap().unwrap_err().code(), "SHUTTING_DOWN");
        assert!(!request.is_open() && request.cancel.is_sealed());
    }

    #[test]
    fn c85_the_end_of_a_turn_with_events_goes_behind_them() {
        let (events, messages) = unbounded();
        let (request, outcome) = request(Some(events));
        request.end(&Ended::new(b"1", b"withdrawn", b"superseded", b"1").unwrap());
        assert!(matches!(messages.try_recv(), Ok(FeedMessage::Ended { kind: Kind::Withdrawn, result: Err(_) })));
        assert!(outcome.get().is_none());
        assert_eq!(request.cancel.reason(), Some(CancelReason::Superseded));
    }

    #[test]
    fn c85_a_turn_of_which_nothing_is_known_waits_for_no_room() {
        for (kind, reason) in [("lost", Some(CancelReason::Shutdown)), ("done", None)] {
            let (events, _messages) = unbounded();
            let (request, _outcome) = request(Some(events));
            assert!(!request.has_ended());
            request.end(&Ended::new(b"1", kind.as_bytes(), b"unreadable", b"1").unwrap());
            assert_eq!((request.cancel.reason(), request.has_ended()), (reason, true), "{kind}");
        }
    }

    #[test]
    fn c84_a_closed_table_takes_no_request_and_gives_out_all() {
        let (requests, (first, _), (second, _)) = (Requests::default(), request(None), request(None));
        requests.enter(&first).unwrap();
        assert_eq!((requests.count(), requests.accepted().len()), (1, 0));
        assert_eq!(requests.close(Closed::Replaced).len(), 1);
        assert_eq!(requests.enter(&second), Err(Closed::Replaced));
        assert_eq!(Closed::Replaced.error(second.id).code(), "STORE_FAILED");
    }
}
