//! The calls of a service with a store. In a service in memory each fails with `TURNWISE_UNSUPPORTED`.

use std::ffi::c_char;

use library::SessionQuery;

use super::entry::run;
use super::handles;
use super::service::give;
use super::sessions::{session_id, wait_for_session};
use super::structs::{TurnwiseError, TurnwiseHandle};
use super::text;
use crate::host::requests;

/// Resumes a stored session, so that it is live. Its next turn would do so too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_resume(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        wait_for_session(service, (session, session_len), -1, error, |service, id, wait| {
            service.resume_checked(id, wait)
        })
    }
}

/// Ends the life of a session without archiving it: its next turn resumes it. Waits until it has ended, at most
/// `timeout_ms` milliseconds; without a limit if that is negative.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_unload(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    timeout_ms: i64,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        wait_for_session(service, (session, session_len), timeout_ms, error, |service, id, wait| {
            service.unload(id, wait)
        })
    }
}

/// Deletes the record of a session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_delete(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe { run(error, || handles::service(service)?.delete(session_id(session, session_len)?)) }
}

/// Stores the archived sessions of the store in `*sessions`, as a JSON array. `query` is that of `turnwise_list`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_list_archived(
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
            let listed = handles::service(service)?.list_archived(query)?;
            give(serde_json::to_string(&listed)?, sessions, sessions_len)
        })
    }
}
