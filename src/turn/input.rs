//! The input requests of a session's turn: what the turn asks of its host, until the host responds.
//!
//! # One decision
//!
//! The list of pending requests, under its lock, decides how a request ends. A response takes the request off the list
//! and stores the answer. A wait that ends by a timeout or a cancellation takes the request off too, with no answer.
//! So the first of them decides, and the other learns of it:
//!
//! ```text
//! the asking thread                              a responding thread
//! list: push the request, set WAITING
//! emit InputRequested
//! wait: answer, cancel token, timeout            list: find the request
//!                                                  cancelled? not pending. Not an option? invalid
//!                                                  take it off; store the answer
//!                                                set the latch
//! list: take the request off
//!   not there: the answer is stored              (a second response does not find the request)
//! take the running permit again
//! emit InputResolved
//! ```
//!
//! A response reads the cancel token under the lock. So a response after `interrupt` has returned finds no pending
//! request. An answer that was accepted before the interrupt is returned even if the asking thread wakes up later.
//!
//! **Invariants.**
//! - The gate has its flag WAITING exactly while the list has requests. Both change under the list's lock.
//! - A request is on the list only while [`TurnContext::request_input`](crate::TurnContext::request_input) runs, so no
//!   request outlives its turn.
//! - The turn holds no running permit while it waits for an answer.

use crate::cancel::CancelToken;
use crate::error::{Cancelled, InputError};
use crate::model::{AgentEvent, InputId, InputOutcome, InputRequest, InputResponse, PendingInput, TurnId};
use crate::permits::turn_permit::{InputWait, TurnPermit};
use crate::reentrancy;
use crate::status::slab::Status;
use crate::sync::{select, Arc, Mutex, OnceLock};
use crate::time::clock::Deadline;
use crate::wait::latch::Latch;

use super::events::TurnEvents;
use super::shared::Counters;

/// The pending input requests of a session.
#[derive(Debug)]
pub(crate) struct PendingInputs {
    /// Its gate has the flag WAITING while there are requests.
    status: Status,
    counters: Arc<Counters>,
    list: Mutex<List>,
}

#[derive(Debug)]
struct List {
    last_id: InputId,
    /// Oldest first.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    input: Arc<PendingInput>,
    /// The token of the turn or of its interaction.
    cancel: CancelToken,
    answer: Arc<Answer>,
}

/// The slot for a response.
#[derive(Debug)]
struct Answer {
    response: OnceLock<InputResponse>,
    stored: Latch,
}

/// Why a response is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResponseRefusal {
    NotPending,
    /// The answer is none of the options. The request is still pending.
    Invalid,
}

/// A request on the list. Its drop takes it off.
struct Pending<'a> {
    inputs: &'a PendingInputs,
    id: InputId,
    answer: Arc<Answer>,
}

impl PendingInputs {
    pub(crate) fn new(status: Status, counters: Arc<Counters>) -> Self {
        let list = List { last_id: InputId::new(0), entries: Vec::new() };
        Self { status, counters, list: Mutex::new(list) }
    }

    /// The pending requests, oldest first.
    pub(crate) fn all(&self) -> Vec<PendingInput> {
        let inputs: Vec<_> = self.list.lock().entries.iter().map(|entry| Arc::clone(&entry.input)).collect();
        inputs.iter().map(|input| PendingInput::clone(input)).collect()
    }

    /// Runs `read` while no request begins or ends, with the number of pending requests.
    pub(crate) fn with_count<T>(&self, read: impl FnOnce(usize) -> T) -> T {
        let list = self.list.lock();
        read(list.entries.len())
    }

    /// Ends a request with the host's response. Never waits for the turn.
    pub(crate) fn respond(&self, id: InputId, response: InputResponse) -> Result<(), ResponseRefusal> {
        let entry = {
            let mut list = self.list.lock();
            let place = list.entries.iter().position(|entry| entry.input.id == id);
            let place = place.ok_or(ResponseRefusal::NotPending)?;
            let entry = &list.entries[place];
            if entry.cancel.is_cancelled() {
                return Err(ResponseRefusal::NotPending);
            }
            if matches!(&response, InputResponse::Answer(text) if !entry.input.request.allows(text)) {
                return Err(ResponseRefusal::Invalid);
            }
            // The slot is empty: only the response that takes the request off the list fills it.
            entry.answer.response.get_or_init(|| response);
            self.take_off(&mut list, place)
        };
        entry.answer.stored.set();
        Ok(())
    }

    fn push(&self, turn: TurnId, request: InputRequest, cancel: &CancelToken) -> Pending<'_> {
        let answer = Arc::new(Answer { response: OnceLock::new(), stored: Latch::new() });
        let mut list = self.list.lock();
        let id = InputId::after(list.last_id, turn);
        list.last_id = id;
        let input = Arc::new(PendingInput::new(id, turn, request));
        list.entries.push(Entry { input, cancel: cancel.clone(), answer: Arc::clone(&answer) });
        if list.entries.len() == 1 {
            self.status.gate.begin_waiting();
            self.counters.waiting_turns.add_one();
        }
        Pending { inputs: self, id, answer }
    }

    fn take_off(&self, list: &mut List, place: usize) -> Entry {
        let entry = list.entries.remove(place);
        if list.entries.is_empty() {
            self.status.gate.end_waiting();
            self.counters.waiting_turns.subtract_one();
        }
        entry
    }
}

impl Pending<'_> {
    /// Waits for a response, the cancellation or the deadline, without the running permit.
    fn wait(&self, cancel: &CancelToken, deadline: &Deadline, permit: &Arc<TurnPermit>, waits: InputWait<'_>) {
        let permit = reentrancy::lend_permit_of(permit);
        let alarm = deadline.alarm();
        select! {
            recv(self.answer.stored.receiver()) -> _ => {}
            recv(cancel.cancelled()) -> _ => {}
            recv(alarm.receiver()) -> _ => {}
        }
        // Off the list before the wait for a permit: then the state is that of a running turn.
        self.take_off();
        drop((waits, alarm));
        if let Some(permit) = permit {
            permit.end_wait();
        }
    }

    /// Takes the request off the list. Returns the response, if one was accepted.
    fn end(&self) -> Option<InputResponse> {
        self.take_off();
        // Stored under the list's lock, by the response that has taken the request off.
        self.answer.response.get().cloned()
    }

    fn take_off(&self) {
        let entry = {
            let mut list = self.inputs.list.lock();
            let place = list.entries.iter().position(|entry| entry.input.id == self.id);
            place.map(|place| self.inputs.take_off(&mut list, place))
        };
        drop(entry);
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.take_off();
    }
}

/// The host of a session in another process. It decides together with the list here: a response that arrives there
/// counts, although the wait here has ended.
#[cfg_attr(not(feature = "redis"), allow(dead_code))]
pub(crate) trait RemoteHost: Send + Sync {
    /// Makes a request known, which is pending here by now. Fails if the turn is told to stop.
    fn ask(&self, input: InputId, request: &InputRequest) -> Result<(), Cancelled>;

    /// Ends the wait for a request without a response here. From now on no response is accepted. Returns the one that was
    /// accepted before.
    fn settle(&self, input: InputId) -> Option<InputResponse>;
}

/// Asks the host, and waits for the response. `cancel` is the token of the turn or of its interaction.
pub(crate) fn request(
    events: &TurnEvents,
    cancel: &CancelToken,
    request: InputRequest,
    remote: Option<&dyn RemoteHost>,
) -> Result<String, InputError> {
    cancel.check()?;
    let shared = events.shared();
    let waiting = shared.clock.stopwatch();
    let deadline = request.timeout.map_or_else(Deadline::never, |timeout| waiting.deadline(timeout));
    let waits = shared.permit.begin_input();
    let pending = shared.inputs.push(events.turn_id(), request.clone(), cancel);
    let input_id = pending.id;
    if let Some(remote) = remote {
        if let Err(cancelled) = remote.ask(input_id, &request) {
            // The cancellation is on its way to the turn. It is rolled back only if its token knows of it.
            events.cancel_token().cancel_and_run_hooks(cancelled.reason);
            return Err(cancelled.into());
        }
    }
    // The request is pending by now, so a reader of the event can respond at once.
    let announced =
        events.emit_input_request(AgentEvent::InputRequested { input_id, request: Box::new(request) }, cancel);
    if announced.is_ok() {
        pending.wait(cancel, &deadline, &shared.permit, waits);
    } else {
        drop(waits);
    }
    // Also if the turn was cancelled before its event had room: a response that was accepted by then counts.
    let response = pending.end().or_else(|| remote.and_then(|remote| remote.settle(input_id)));
    let result = match response {
        Some(InputResponse::Answer(text)) => Ok(text),
        Some(InputResponse::Declined { reason }) => Err(InputError::Declined { reason }),
        None => Err(match cancel.reason() {
            Some(reason) => InputError::Cancelled(Cancelled { reason }),
            None => InputError::TimedOut { waited: waiting.elapsed() },
        }),
    };
    if announced.is_ok() {
        events.emit_input_result(AgentEvent::InputResolved { input_id, outcome: outcome_of(&result) }, cancel);
    }
    result
}

fn outcome_of(result: &Result<String, InputError>) -> InputOutcome {
    match result {
        Ok(_) => InputOutcome::Answered,
        Err(InputError::Declined { .. }) => InputOutcome::Declined,
        Err(InputError::TimedOut { .. }) => InputOutcome::TimedOut,
        Err(InputError::Cancelled(_)) => InputOutcome::Cancelled,
    }
}
