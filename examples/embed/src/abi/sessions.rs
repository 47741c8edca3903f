//! Sessions: open, read, list, export, interrupt, archive, and what a turn asks of its host.

use std::collections::BTreeMap;
use std::ffi::c_char;
use std::sync::Arc;

use library::{InputId, InputResponse, InteractionId, SessionId, SessionQuery};

use super::entry::{require, run, waiting};
use super::handles;
use super::service::{archive_mode, give};
use super::structs::{self, TurnwiseError, TurnwiseHandle};
use super::text;
use super::turns::turn_id;
use crate::codes::{Failure, TURNWISE_INVALID_ARGUMENT, TURNWISE_INVALID_ID};
use crate::host::requests::{self, SpecOptions};
use crate::host::service::Service;
use crate::host::wait::Wait;

/// Reads an id.
///
/// # Safety
/// The text is null or valid.
pub(super) unsafe fn session_id(data: *const c_char, len: usize) -> Result<SessionId, Failure> {
    // SAFETY: the caller's promise.
    let text = unsafe { text::read(data, len, "the session's id") }?;
    text.parse().map_err(|error: library::InvalidId| Failure::new(TURNWISE_INVALID_ID, error.to_string()))
}

/// Opens a session without a turn, waits until its agent is built, and stores its id, with a NUL, in the 40 bytes at
/// `session`. `spec` is JSON or null: the object `session` of `turnwise_create_session`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_open_session(
    service: TurnwiseHandle,
    spec: *const c_char,
    spec_len: usize,
    session: *mut c_char,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: the caller's promise, here and in the functions below. The texts are used within the call.
    unsafe {
        run(error, || {
            require(session, "the pointer for the id")?;
            let service = handles::service(service)?;
            let spec: SpecOptions = requests::parse(text::read(spec, spec_len, "the specification")?)?;
            let id = waiting(-1, |wait| service.open_session(spec.into_spec(), wait))?;
            session.cast::<[c_char; 40]>().write_unaligned(structs::id_field(id));
            Ok(())
        })
    }
}

/// Tells the running turn of a session to stop.
///
/// Errors: `TURNWISE_SESSION_NOT_RUNNING` if no turn runs, `TURNWISE_SESSION_NOT_FOUND`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_interrupt(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe { run(error, || Ok(handles::service(service)?.control().interrupt(session_id(session, session_len)?)?)) }
}

/// Tells the turn with this number to stop, and never the next one. A queued turn is withdrawn.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_interrupt_turn(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    turn: u64,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let turn =
                turn_id(turn).ok_or_else(|| Failure::new(TURNWISE_INVALID_ARGUMENT, "0 is the number of no turn"))?;
            Ok(handles::service(service)?.control().interrupt_turn(session_id(session, session_len)?, turn)?)
        })
    }
}

/// Cancels one interaction, by the id that the event `interaction_complete` has. Host mode goes on with the next.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_interrupt_interaction(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    interaction: *const c_char,
    interaction_len: usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let id = text::read(interaction, interaction_len, "the interaction's id")?;
            let id: InteractionId =
                id.parse().map_err(|error: library::InvalidId| Failure::new(TURNWISE_INVALID_ID, error.to_string()))?;
            let service = handles::service(service)?;
            Ok(service.control().interrupt_interaction(session_id(session, session_len)?, id)?)
        })
    }
}

/// Answers an input request, by the `input_id` of its event. The first response wins.
///
/// Errors: `TURNWISE_INPUT_NOT_PENDING`, and `TURNWISE_INVALID_ANSWER` if the answer is none of the options.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_respond(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    input: u64,
    answer: *const c_char,
    answer_len: usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let response = InputResponse::Answer(text::read(answer, answer_len, "the answer")?.to_owned());
            let service = handles::service(service)?;
            Ok(service.control().respond(session_id(session, session_len)?, InputId::new(input), response)?)
        })
    }
}

/// Declines an input request. `reason` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_decline(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    input: u64,
    reason: *const c_char,
    reason_len: usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let text = text::read(reason, reason_len, "the reason")?;
            let reason = (!reason.is_null()).then(|| text.to_owned());
            let response = InputResponse::Declined { reason };
            let service = handles::service(service)?;
            Ok(service.control().respond(session_id(session, session_len)?, InputId::new(input), response)?)
        })
    }
}

/// Stores the input requests that have no answer yet in `*requests`, as a JSON array, oldest first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_pending_inputs(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    requests: *mut *mut c_char,
    requests_len: *mut usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let pending = handles::service(service)?.control().pending_inputs(session_id(session, session_len)?)?;
            give(serde_json::to_string(&pending)?, requests, requests_len)
        })
    }
}

/// Stores the state and the figures of a session in `*view`, as JSON. Never waits for a turn.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_read(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    view: *mut *mut c_char,
    view_len: *mut usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let state = handles::service(service)?.control().read(session_id(session, session_len)?)?;
            give(serde_json::to_string(&state)?, view, view_len)
        })
    }
}

/// Stores the sessions in `*sessions`, as a JSON array, oldest first. `query` is JSON or null: `{"limit", "offset",
/// "after", "labels"}`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_list(
    service: TurnwiseHandle,
    query: *const c_char,
    query_len: usize,
    sessions: *mut *mut c_char,
    sessions_len: *mut usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let query: SessionQuery = requests::parse(text::read(query, query_len, "the query")?)?;
            let listed = handles::service(service)?.control().list(query)?;
            give(serde_json::to_string(&listed)?, sessions, sessions_len)
        })
    }
}

/// Stores the history as of the last finished turn in `*history`, as JSON, and the number of the event at its end in
/// `*boundary`, which may be null. Does not wait for a turn.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_history(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    history: *mut *mut c_char,
    history_len: *mut usize,
    boundary: *mut u64,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let (session, seq) = handles::service(service)?.control().history_at(session_id(session, session_len)?)?;
            give(serde_json::to_string(&session)?, history, history_len)?;
            if !boundary.is_null() {
                boundary.write(seq);
            }
            Ok(())
        })
    }
}

/// Stores the history at the end of the running turn in `*history`, as JSON, which `resume` takes. Waits for that turn,
/// at most `timeout_ms` milliseconds; without a limit if that is negative.
///
/// Errors: `TURNWISE_SESSION_TIMEOUT`, `TURNWISE_SESSION_NOT_FOUND`, `TURNWISE_CLOSED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_export_session(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    timeout_ms: i64,
    history: *mut *mut c_char,
    history_len: *mut usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            require(history, "the pointer for the text")?;
            let service = handles::service(service)?;
            let id = session_id(session, session_len)?;
            let exported = waiting(timeout_ms, |wait| service.export(id, wait))?;
            give(serde_json::to_string(&exported)?, history, history_len)
        })
    }
}

/// As `turnwise_export_session`, and archives the session with no turn in between.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_take_session(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    timeout_ms: i64,
    history: *mut *mut c_char,
    history_len: *mut usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            require(history, "the pointer for the text")?;
            let service = handles::service(service)?;
            let id = session_id(session, session_len)?;
            let taken = waiting(timeout_ms, |wait| service.take(id, wait))?;
            give(serde_json::to_string(&taken)?, history, history_len)
        })
    }
}

/// Replaces the labels of a session. `labels` is a JSON object of texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_set_labels(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    labels: *const c_char,
    labels_len: usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let labels: BTreeMap<String, String> = requests::parse(text::read(labels, labels_len, "the labels")?)?;
            Ok(handles::service(service)?.control().set_labels(session_id(session, session_len)?, labels)?)
        })
    }
}

/// Archives a session: it disappears at once, and ends when its turns have ended. `mode` is `TURNWISE_DRAIN` or
/// `TURNWISE_INTERRUPT`. Does not wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_archive(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    mode: i32,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let mode = archive_mode(mode)?;
            Ok(handles::service(service)?.control().archive_with(session_id(session, session_len)?, mode)?)
        })
    }
}

/// Waits for something about one session, at most `timeout_ms` milliseconds; without a limit if that is negative.
///
/// # Safety
/// Each pointer is null or valid.
pub(super) unsafe fn wait_for_session(
    service: TurnwiseHandle,
    session: (*const c_char, usize),
    timeout_ms: i64,
    error: *mut TurnwiseError,
    wait: impl FnOnce(&Arc<Service>, SessionId, Wait<'_>) -> Result<(), Failure>,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        run(error, || {
            let service = handles::service(service)?;
            let id = session_id(session.0, session.1)?;
            waiting(timeout_ms, |until| wait(&service, id, until))
        })
    }
}

/// Archives a session, unless it is archived already, and waits until it has ended, at most `timeout_ms` milliseconds;
/// without a limit if that is negative.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_archive_wait(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    timeout_ms: i64,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        wait_for_session(service, (session, session_len), timeout_ms, error, |service, id, wait| {
            service.archive_wait(id, wait)
        })
    }
}

/// Waits until a session is idle at some instant of the call, at most `timeout_ms` milliseconds; without a limit if that
/// is negative.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_wait_idle(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    timeout_ms: i64,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        wait_for_session(service, (session, session_len), timeout_ms, error, |service, id, wait| {
            service.wait_idle(id, wait)
        })
    }
}

/// Restarts a faulted session from its last history, and waits for the build of its agent, at most `timeout_ms`
/// milliseconds; without a limit if that is negative.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_restart(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    timeout_ms: i64,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        wait_for_session(service, (session, session_len), timeout_ms, error, |service, id, wait| {
            service.restart(id, &wait)
        })
    }
}
