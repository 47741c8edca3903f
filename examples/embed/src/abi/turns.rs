//! Turns: the calls that wait for the result, and the handles of begun turns.

use std::ffi::c_char;
use std::mem::offset_of;
use std::ptr;
use std::sync::Arc;

use library::{RunResult, SessionId, StopReason, TurnId};

use super::entry::{call, require, run, waiting};
use super::handles::{self, Object};
use super::sessions::session_id;
use super::structs::{self, TurnwiseError, TurnwiseHandle, TurnwiseResult};
use super::text;
use crate::codes::{Failure, TURNWISE_EMPTY, TURNWISE_OK};
use crate::host::callback;
use crate::host::requests::{self, CreateOptions, TurnOptions};
use crate::host::service::Service;
use crate::host::turn::Turn;
use crate::host::wait::Wait;

/// The answer is complete.
pub const TURNWISE_STOP_END_TURN: i32 = 0;
/// The model requested a tool.
pub const TURNWISE_STOP_TOOL_USE: i32 = 1;
/// The model reached its token limit.
pub const TURNWISE_STOP_MAX_TOKENS: i32 = 2;
/// The model wrote a stop sequence.
pub const TURNWISE_STOP_SEQUENCE: i32 = 3;
/// A content filter stopped the model.
pub const TURNWISE_STOP_CONTENT_FILTER: i32 = 4;
/// The turn was cancelled before its agent answered.
pub const TURNWISE_STOP_CANCELLED: i32 = 5;

fn stop_number(reason: StopReason) -> i32 {
    match reason {
        StopReason::EndTurn => TURNWISE_STOP_END_TURN,
        StopReason::ToolUse => TURNWISE_STOP_TOOL_USE,
        StopReason::MaxTokens => TURNWISE_STOP_MAX_TOKENS,
        StopReason::StopSequence => TURNWISE_STOP_SEQUENCE,
        StopReason::ContentFilter => TURNWISE_STOP_CONTENT_FILTER,
        StopReason::Cancelled => TURNWISE_STOP_CANCELLED,
    }
}

/// Checks the struct for a result; a null pointer asks for none.
///
/// # Safety
/// `to` is null or valid.
unsafe fn check(to: *mut TurnwiseResult) -> Result<(), Failure> {
    if to.is_null() {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    unsafe { structs::check(to, "the result") }
}

/// Writes a result, if the host asks for it.
///
/// # Safety
/// `to` is null, or has passed [`check`].
unsafe fn write(to: *mut TurnwiseResult, result: RunResult) {
    if to.is_null() {
        return;
    }
    let word = size_of::<usize>();
    let give = |text: String, end: usize| {
        // SAFETY: the struct has passed the check. A text without a field for it would leak.
        if unsafe { structs::has_room(to, end) } {
            (text.len(), text::give(text))
        } else {
            (0, ptr::null_mut())
        }
    };
    let (text_len, text) = give(result.text, offset_of!(TurnwiseResult, text_len) + word);
    let (structured_output_len, structured_output) = match result.structured_output {
        Some(output) => give(output, offset_of!(TurnwiseResult, structured_output_len) + word),
        None => (0, ptr::null_mut()),
    };
    let value = TurnwiseResult {
        size: 0,
        turn: result.turn_id.get(),
        session_id: structs::id_field(result.session_id),
        stop_reason: stop_number(result.stop_reason),
        model_calls: result.turns,
        tool_calls: result.tool_calls,
        reserved: 0,
        input_tokens: result.usage.input_tokens,
        output_tokens: result.usage.output_tokens,
        text,
        text_len,
        structured_output,
        structured_output_len,
    };
    // SAFETY: the struct has passed the check.
    unsafe { structs::write(to, &value) };
}

/// Gives a begun turn its handle, and has the descriptor show it.
fn hand_out(service: &Arc<Service>, turn: Arc<Turn>) -> Result<u64, Failure> {
    let handle = handles::insert(Object::Turn(Arc::clone(&turn)))?;
    turn.set_number(handle);
    service.watch_turn(&turn);
    Ok(handle)
}

/// Creates a session, runs its first turn, and waits for the result. Same as `turnwise_begin_session` and a wait.
///
/// `options` is JSON or null: `{"session": {"session_id", "model", "system_prompt", "max_tokens", "resume", "labels",
/// "rewrites_history"}, "turn": {"timeout_ms", "host_mode", "skill_references", "tool_results", "when_busy"}}`, each
/// field optional. `resume` is a history, as `turnwise_export_session` gives it out. `result` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_create_session(
    service: TurnwiseHandle,
    prompt: *const c_char,
    prompt_len: usize,
    options: *const c_char,
    options_len: usize,
    result: *mut TurnwiseResult,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: the caller's promise, here and in the functions below. The texts are used within this call.
    unsafe {
        run(error, || {
            check(result)?;
            let service = handles::service(service)?;
            let prompt = text::read(prompt, prompt_len, "the prompt")?;
            let options: CreateOptions = requests::parse(text::read(options, options_len, "the options")?)?;
            callback::refuse_in_hook()?;
            let answer = service.create_session(options.into_request(prompt.to_owned()), Wait::new(-1))?;
            write(result, answer);
            Ok(())
        })
    }
}

/// Begins a session with its first turn, and stores the turn's handle in `*turn`. Returns before the agent is built.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_begin_session(
    service: TurnwiseHandle,
    prompt: *const c_char,
    prompt_len: usize,
    options: *const c_char,
    options_len: usize,
    turn: *mut TurnwiseHandle,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe { begin_new(service, (prompt, prompt_len), (options, options_len), turn, error, Service::begin_session) }
}

/// As `turnwise_begin_session`, and the turn's events can be read by `turnwise_next_event`. The turn waits while 256
/// events are unread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_stream_session(
    service: TurnwiseHandle,
    prompt: *const c_char,
    prompt_len: usize,
    options: *const c_char,
    options_len: usize,
    turn: *mut TurnwiseHandle,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe { begin_new(service, (prompt, prompt_len), (options, options_len), turn, error, Service::stream_session) }
}

/// A text argument.
type Text = (*const c_char, usize);

/// # Safety
/// Each pointer is null or valid.
unsafe fn begin_new(
    service: u64,
    prompt: Text,
    options: Text,
    turn: *mut u64,
    error: *mut TurnwiseError,
    begin: fn(&Service, library::CreateSessionRequest) -> Result<Arc<Turn>, Failure>,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        run(error, || {
            require(turn, "the pointer for the handle")?;
            let service = handles::service(service)?;
            let prompt = text::read(prompt.0, prompt.1, "the prompt")?;
            let options: CreateOptions = requests::parse(text::read(options.0, options.1, "the options")?)?;
            let begun = begin(&service, options.into_request(prompt.to_owned()))?;
            turn.write(hand_out(&service, begun)?);
            Ok(())
        })
    }
}

/// Runs a turn of a session and waits for the result. `options` is JSON or null, the object `turn` of
/// `turnwise_create_session`. `result` may be null.
///
/// Errors: `TURNWISE_SESSION_BUSY` while another turn runs, `TURNWISE_AGENT_ERROR` if the turn fails,
/// `TURNWISE_SESSION_FAULTED`, `TURNWISE_SESSION_NOT_FOUND`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_start_turn(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    prompt: *const c_char,
    prompt_len: usize,
    options: *const c_char,
    options_len: usize,
    result: *mut TurnwiseResult,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            check(result)?;
            let service = handles::service(service)?;
            let (id, request) = turn_request((session, session_len), (prompt, prompt_len), (options, options_len))?;
            callback::refuse_in_hook()?;
            write(result, service.start_turn(id, request, Wait::new(-1))?);
            Ok(())
        })
    }
}

/// # Safety
/// Each pointer is null or valid.
unsafe fn turn_request(
    session: Text,
    prompt: Text,
    options: Text,
) -> Result<(SessionId, library::StartTurnRequest), Failure> {
    // SAFETY: the caller's promise.
    unsafe {
        let id = session_id(session.0, session.1)?;
        let prompt = text::copy(text::read(prompt.0, prompt.1, "the prompt")?);
        let options = text::read(options.0, options.1, "the options")?;
        // Most turns have none.
        let options = if options.is_empty() { TurnOptions::default() } else { requests::parse(options)? };
        Ok((id, options.into_request(prompt)))
    }
}

/// Begins a turn of a session, and stores its handle in `*turn`. Does not wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_begin_turn(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    prompt: *const c_char,
    prompt_len: usize,
    options: *const c_char,
    options_len: usize,
    turn: *mut TurnwiseHandle,
    error: *mut TurnwiseError,
) -> i32 {
    let texts = [(session, session_len), (prompt, prompt_len), (options, options_len)];
    // SAFETY: as above.
    unsafe { begin(service, texts, turn, error, Service::begin_turn) }
}

/// As `turnwise_begin_turn`, and the turn's events can be read by `turnwise_next_event`. The turn waits while 256 events
/// are unread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_stream_turn(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    prompt: *const c_char,
    prompt_len: usize,
    options: *const c_char,
    options_len: usize,
    turn: *mut TurnwiseHandle,
    error: *mut TurnwiseError,
) -> i32 {
    let texts = [(session, session_len), (prompt, prompt_len), (options, options_len)];
    // SAFETY: as above.
    unsafe { begin(service, texts, turn, error, Service::stream_turn) }
}

/// # Safety
/// Each pointer is null or valid.
unsafe fn begin(
    service: u64,
    [session, prompt, options]: [Text; 3],
    turn: *mut u64,
    error: *mut TurnwiseError,
    begin: fn(&Service, SessionId, library::StartTurnRequest) -> Result<Arc<Turn>, Failure>,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        run(error, || {
            require(turn, "the pointer for the handle")?;
            let service = handles::service(service)?;
            let (id, request) = turn_request(session, prompt, options)?;
            let begun = begin(&service, id, request)?;
            turn.write(hand_out(&service, begun)?);
            Ok(())
        })
    }
}

/// Stores the id of a turn's session, with a NUL, in the 40 bytes at `session`, and the turn's number in `*number`. Each
/// may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_turn_ids(
    turn: TurnwiseHandle,
    session: *mut c_char,
    number: *mut u64,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let turn = handles::turn(turn)?;
            if !session.is_null() {
                session.cast::<[c_char; 40]>().write_unaligned(structs::id_field(turn.session_id()));
            }
            if !number.is_null() {
                number.write(turn.turn_id().get());
            }
            Ok(())
        })
    }
}

/// Takes the result of a turn, if it is there: `TURNWISE_EMPTY` if it is not. Does not wait. `result` may be null.
///
/// Errors: that of the turn, for example `TURNWISE_AGENT_ERROR`. A repeated call returns the same again, with new texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_turn_poll(
    turn: TurnwiseHandle,
    result: *mut TurnwiseResult,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe { turnwise_turn_wait(turn, 0, result, error) }
}

/// Waits for the result of a turn, at most `timeout_ms` milliseconds: `TURNWISE_EMPTY` if it does not come in time. A
/// negative timeout waits without a limit. Any number of threads may wait. `result` may be null.
///
/// Errors: that of the turn; `TURNWISE_CLOSED` if the handle or the service is closed meanwhile. In a callback also
/// `TURNWISE_SESSION_REENTRANT`, where the turn waits for this callback's session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_turn_wait(
    turn: TurnwiseHandle,
    timeout_ms: i64,
    result: *mut TurnwiseResult,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        call(error, || {
            check(result)?;
            let turn = handles::turn(turn)?;
            match waiting(timeout_ms, |wait| turn.wait(wait))? {
                Some(answer) => {
                    write(result, answer);
                    Ok(TURNWISE_OK)
                }
                None => Ok(TURNWISE_EMPTY),
            }
        })
    }
}

/// Tells a turn to stop. It never reaches another turn, and does nothing after the end of this one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_turn_interrupt(turn: TurnwiseHandle, error: *mut TurnwiseError) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            handles::turn(turn)?.interrupt();
            Ok(())
        })
    }
}

/// The id of a turn's number.
pub(super) fn turn_id(number: u64) -> Option<TurnId> {
    (number != 0).then(|| TurnId::new(number))
}
