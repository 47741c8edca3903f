//! Messages that reach a session outside of prompts.

use std::ffi::c_char;

use library::{EventSource, InteractionContent};

use super::entry::run;
use super::events::hand_out;
use super::handles;
use super::sessions::session_id;
use super::structs::{TurnwiseError, TurnwiseHandle};
use super::text;
use super::turns::turn_id;
use crate::codes::Failure;

/// The source of a name.
///
/// # Safety
/// The text is null or valid.
unsafe fn source(data: *const c_char, len: usize) -> Result<EventSource, Failure> {
    // SAFETY: the caller's promise.
    Ok(match unsafe { text::read(data, len, "the source") }? {
        "tcp" => EventSource::Tcp,
        "uds" => EventSource::Uds,
        "stdin" => EventSource::Stdin,
        "webhook" => EventSource::Webhook,
        "rpc" => EventSource::Rpc,
        other => EventSource::Other(other.to_owned()),
    })
}

/// Sends a message to the turn that is admitted now, and to no later one: to the turn with the number `turn`, or to
/// whichever is admitted if that is 0. The agent takes it by `turnwise_context_next_message`.
///
/// If `interaction` is not null, it gets the handle of a subscription to the message's end: one event
/// `interaction_complete` or `interaction_failed`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_steer(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    turn: u64,
    message: *const c_char,
    message_len: usize,
    interaction: *mut TurnwiseHandle,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        run(error, || {
            let service = handles::service(service)?;
            let id = session_id(session, session_len)?;
            let content = InteractionContent::message(text::read(message, message_len, "the message")?);
            let subscription = service.steer(id, turn_id(turn), content)?;
            if !interaction.is_null() {
                interaction.write(hand_out(&service, subscription)?);
            }
            Ok(())
        })
    }
}

/// Puts a message into the inbox of a session. A turn in host mode runs it as an interaction. `source` is `tcp`, `uds`,
/// `stdin`, `webhook`, `rpc` or any other name. `interaction` is as for `turnwise_steer`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_inject(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    message: *const c_char,
    message_len: usize,
    source_name: *const c_char,
    source_name_len: usize,
    interaction: *mut TurnwiseHandle,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let service = handles::service(service)?;
            let id = session_id(session, session_len)?;
            let body = text::read(message, message_len, "the message")?.to_owned();
            let subscription = service.inject(id, body, source(source_name, source_name_len)?)?;
            if !interaction.is_null() {
                interaction.write(hand_out(&service, subscription)?);
            }
            Ok(())
        })
    }
}

/// Ends host mode, behind the messages that are in the inbox already.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_dismiss(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    source_name: *const c_char,
    source_name_len: usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            let service = handles::service(service)?;
            let id = session_id(session, session_len)?;
            service.dismiss(id, source(source_name, source_name_len)?)
        })
    }
}
