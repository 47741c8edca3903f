//! What an agent calls during a callback. A context is valid on the thread of the callback, until that returns.

use std::ffi::c_char;
use std::time::Duration;

use library::AgentEvent;

use super::contexts::{use_either, use_turn, Either};
use super::entry::{call, run};
use super::service::give;
use super::structs::{self, TurnwiseError, TurnwiseHandle};
use super::text;
use crate::codes::{Failure, TURNWISE_EMPTY, TURNWISE_OK};
use crate::host::requests::{self, Answer, AskOptions, FailureKind, PublishOptions};

/// The duration of a timeout: the longest one if it is negative.
fn duration(ms: i64) -> Duration {
    u64::try_from(ms).map_or(Duration::MAX, Duration::from_millis)
}

/// Stores the id of the session, with a NUL, in the 40 bytes at `session`, and the number of the turn in `*turn`, 0 in
/// the build of an agent. Each may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_context_ids(
    ctx: TurnwiseHandle,
    session: *mut c_char,
    turn: *mut u64,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: the caller's promise, here and in the functions below. The texts are used within the call.
    unsafe {
        run(error, || {
            use_either(ctx, |context| {
                let (id, number) = match context {
                    Either::Turn(turn, _) => (turn.session_id(), turn.turn_id().get()),
                    Either::Build(session, _) => (session.session_id(), 0),
                };
                if !session.is_null() {
                    session.cast::<[c_char; 40]>().write_unaligned(structs::id_field(id));
                }
                if !turn.is_null() {
                    turn.write(number);
                }
                Ok(())
            })
        })
    }
}

fn emit(ctx: u64, event: AgentEvent) -> Result<(), Failure> {
    use_either(ctx, |context| match context {
        Either::Turn(turn, _) => Ok(turn.emit(event)?),
        Either::Build(session, _) => Ok(session.events().emit(event)?),
    })
}

/// Emits an event: JSON with the field `type`, for example `{"type": "custom", "name": "..", "payload": ".."}`. Waits
/// while a receiver has no room.
///
/// Errors: `TURNWISE_CANCELLED` if the turn has been told to stop.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_context_emit(
    ctx: TurnwiseHandle,
    event: *const c_char,
    event_len: usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let event = text::read(event, event_len, "the event")?;
            emit(ctx, serde_json::from_str(event)?)
        })
    }
}

/// Emits a piece of the answer, the event `text_delta`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_context_emit_text(
    ctx: TurnwiseHandle,
    delta: *const c_char,
    delta_len: usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let delta = text::read(delta, delta_len, "the text")?.to_owned();
            emit(ctx, AgentEvent::TextDelta { delta })
        })
    }
}

/// Fails with `TURNWISE_CANCELLED` if the turn or the build has been told to stop.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_context_check(ctx: TurnwiseHandle, error: *mut TurnwiseError) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            use_either(ctx, |context| match context {
                Either::Turn(turn, _) => Ok(turn.check()?),
                Either::Build(session, _) => Ok(session.check()?),
            })
        })
    }
}

/// Sleeps for `ms` milliseconds, or until the turn or the build is told to stop. A negative time is without a limit.
///
/// Errors: `TURNWISE_CANCELLED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_context_sleep(ctx: TurnwiseHandle, ms: i64, error: *mut TurnwiseError) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            use_either(ctx, |context| match context {
                Either::Turn(turn, _) => Ok(turn.sleep(duration(ms))?),
                Either::Build(session, _) => Ok(session.sleep(duration(ms))?),
            })
        })
    }
}

/// Stores the time until the turn's timeout cancels it in `*ms`, in milliseconds; -1 without a timeout.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_context_remaining(
    ctx: TurnwiseHandle,
    ms: *mut i64,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            super::entry::require(ms, "the pointer for the time")?;
            use_turn(ctx, |context| {
                let remaining = context.turn.remaining();
                ms.write(remaining.map_or(-1, |left| i64::try_from(left.as_millis()).unwrap_or(i64::MAX)));
                Ok(())
            })
        })
    }
}

/// Asks the host for input and waits for its answer, which it stores in `*answer`. `request` is JSON: `{"kind",
/// "message", "options": [{"id", "label"}], "payload", "timeout_ms"}`; `kind` and `message` are required.
///
/// Errors: `TURNWISE_CANCELLED`, `TURNWISE_DECLINED`, `TURNWISE_TIMED_OUT`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_context_request_input(
    ctx: TurnwiseHandle,
    request: *const c_char,
    request_len: usize,
    answer: *mut *mut c_char,
    answer_len: *mut usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            super::entry::require(answer, "the pointer for the answer")?;
            let request = text::read(request, request_len, "the request")?;
            let request: AskOptions = serde_json::from_str(request)?;
            let text = use_turn(ctx, |context| Ok(context.turn.request_input(request.into_request())?))?;
            give(text, answer, answer_len)
        })
    }
}

/// Publishes what reads of the session show during the turn. `snapshot` is JSON: `{"message_count", "usage",
/// "last_assistant_text"}`; absent fields are those of the history.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_context_publish(
    ctx: TurnwiseHandle,
    snapshot: *const c_char,
    snapshot_len: usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let snapshot: PublishOptions = requests::parse(text::read(snapshot, snapshot_len, "the snapshot")?)?;
            use_turn(ctx, |context| {
                context.turn.publish(snapshot.into_snapshot(context.history));
                Ok(())
            })
        })
    }
}

/// Takes the next message of the session's inbox, and waits for it at most `timeout_ms` milliseconds: `TURNWISE_EMPTY` if
/// there is none in time. 0 does not wait. Stores it in `*message`, as JSON.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_context_next_message(
    ctx: TurnwiseHandle,
    timeout_ms: i64,
    message: *mut *mut c_char,
    message_len: *mut usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        call(error, || {
            super::entry::require(message, "the pointer for the message")?;
            let taken = use_turn(ctx, |context| Ok(context.turn.wait_inbox(duration(timeout_ms))?))?;
            let Some(taken) = taken else { return Ok(TURNWISE_EMPTY) };
            give(serde_json::to_string(&taken)?, message, message_len)?;
            Ok(TURNWISE_OK)
        })
    }
}

/// Stores the history before this turn in `*history`, as JSON.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_context_history(
    ctx: TurnwiseHandle,
    history: *mut *mut c_char,
    history_len: *mut usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let json = use_turn(ctx, |context| Ok(serde_json::to_string(context.history)?))?;
            give(json, history, history_len)
        })
    }
}

/// Stores the results of tools that the host has run in `*results`, as a JSON array.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_context_tool_results(
    ctx: TurnwiseHandle,
    results: *mut *mut c_char,
    results_len: *mut usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let json = use_turn(ctx, |context| Ok(serde_json::to_string(context.turn.tool_results())?))?;
            give(json, results, results_len)
        })
    }
}

/// Sets the answer of the turn, if `run_turn` returns 0. A later call replaces it. `details` is JSON or null: `{"usage",
/// "model_calls", "tool_calls", "structured_output", "stop_reason"}`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_context_answer(
    ctx: TurnwiseHandle,
    answer: *const c_char,
    answer_len: usize,
    details: *const c_char,
    details_len: usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let text = text::read(answer, answer_len, "the answer")?.to_owned();
            let details = text::read(details, details_len, "the details")?;
            let details = if details.is_empty() { Default::default() } else { requests::parse(details)? };
            use_turn(ctx, |context| {
                context.outcome.answer.replace(Some(Answer { text, details }));
                Ok(())
            })
        })
    }
}

/// Sets the failure of the turn or the build, if the function returns another number than 0. `kind` is JSON or null:
/// `{"kind": "other"}`, `{"kind": "tool", "name"}`, `{"kind": "config"}`, `{"kind": "llm", "provider", "reason",
/// "retry_after_ms"}` or `{"kind": "callback_pending", "tool_name", "args"}`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_context_fail(
    ctx: TurnwiseHandle,
    message: *const c_char,
    message_len: usize,
    kind: *const c_char,
    kind_len: usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let message = text::read(message, message_len, "the message")?.to_owned();
            let kind = text::read(kind, kind_len, "the kind")?;
            let kind = if kind.is_empty() { FailureKind::Other } else { serde_json::from_str(kind)? };
            let failure = kind.into_error(message)?;
            use_either(ctx, |context| {
                let (Either::Turn(_, outcome) | Either::Build(_, outcome)) = context;
                outcome.failure.replace(Some(failure));
                Ok(())
            })
        })
    }
}
