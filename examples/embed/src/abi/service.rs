//! The life of a service.

use std::ffi::{c_char, c_int};
use std::mem::size_of_val;
use std::sync::Arc;

use library::ArchiveMode;

use super::agent::CBuilder;
use super::entry::{missing, require, run, waiting};
use super::handles::{self, Object};
use super::structs::{self, TurnwiseError, TurnwiseHandle, TurnwiseServiceOptions};
use super::text;
use crate::codes::{Failure, TURNWISE_INVALID_ARGUMENT};
use crate::host::callback;
use crate::host::requests;
use crate::host::service::Service;

/// The turns may finish.
pub const TURNWISE_DRAIN: i32 = 0;
/// The running turn is cancelled, and queued turns are answered as cancelled.
pub const TURNWISE_INTERRUPT: i32 = 1;

/// The mode of a number.
pub(super) fn archive_mode(mode: i32) -> Result<ArchiveMode, Failure> {
    match mode {
        TURNWISE_DRAIN => Ok(ArchiveMode::Drain),
        TURNWISE_INTERRUPT => Ok(ArchiveMode::Interrupt),
        other => Err(Failure::new(TURNWISE_INVALID_ARGUMENT, format!("{other} is no mode of an archive"))),
    }
}

/// Gives a text out through two pointers. The second may be null.
///
/// # Safety
/// Each pointer is null or can be written.
pub(super) unsafe fn give(value: String, to: *mut *mut c_char, len: *mut usize) -> Result<(), Failure> {
    require(to, "the pointer for the text")?;
    let size = size_of_val(value.as_bytes());
    let pointer = text::give(value);
    // SAFETY: the first pointer is not null, and the caller promises that each can be written.
    unsafe {
        to.write(pointer);
        if !len.is_null() {
            len.write(size);
        }
    }
    Ok(())
}

/// Creates a service, and stores its handle in `*service`. It starts no session.
///
/// After a success the service owns the agent's context and frees it by `drop_context`. After a failure the host still
/// owns it.
///
/// Errors: `TURNWISE_INVALID_CONFIG`, `TURNWISE_INVALID_JSON`, `TURNWISE_STORE_FAILED` if the file cannot be opened, and
/// those of every call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_service_new(
    options: *const TurnwiseServiceOptions,
    service: *mut TurnwiseHandle,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: the caller's promise, here and below. The texts are used within this call.
    unsafe {
        run(error, || {
            require(service, "the pointer for the handle")?;
            let options = structs::read(options, "the options")?;
            if options.agent.is_null() {
                return Err(missing("the agent"));
            }
            let agent = structs::read(options.agent, "the agent")?;
            CBuilder::check(&agent)?;
            let store = match options.store_path.is_null() {
                true => None,
                false => Some(text::read(options.store_path, options.store_path_len, "the path of the store")?),
            };
            let settings = requests::parse(text::read(options.settings, options.settings_len, "the settings")?)?;
            let builder = CBuilder::new(agent);
            let keep = builder.keep_context();
            let created = Service::new(Arc::new(builder), store, settings)?;
            let handle = handles::insert(Object::Service(created))?;
            keep.give_to_service();
            service.write(handle);
            Ok(())
        })
    }
}

/// Closes a handle of a service, a turn or a subscription. Threads that wait for it get `TURNWISE_CLOSED`, and later
/// calls with it `TURNWISE_STALE`.
///
/// A closed service cancels its turns and ends its sessions. This call does not wait for them: see
/// `turnwise_service_shutdown`. A closed turn goes on. A closed subscription ends. A descriptor of the service becomes
/// readable and is closed with the last user of the service: stop to poll it before this call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_close(handle: TurnwiseHandle, error: *mut TurnwiseError) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        run(error, || {
            match handles::remove(handle)? {
                Object::Service(service) => {
                    service.close();
                    if !callback::is_inside() {
                        service.join_watcher();
                    }
                }
                Object::Turn(turn) => drop(turn.closed.set()),
                Object::Subscription(subscription) => drop(subscription.closed.set()),
            }
            Ok(())
        })
    }
}

/// Closes every session of a service and waits at most `timeout_ms` milliseconds until all have ended; without a limit
/// if that is negative. The service takes no new work from then on. `mode` is `TURNWISE_DRAIN` or `TURNWISE_INTERRUPT`.
///
/// Stores a report in `*report`: JSON with `joined`, the number of sessions that have ended, and `stuck`, the ids of those
/// that have not. Call again to wait longer. `report` and `report_len` may be null. The handle stays open.
///
/// Errors: `TURNWISE_REENTRANT` in a callback, which the call would wait for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_service_shutdown(
    service: TurnwiseHandle,
    mode: i32,
    timeout_ms: i64,
    report: *mut *mut c_char,
    report_len: *mut usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        run(error, || {
            let mode = archive_mode(mode)?;
            let service = handles::service(service)?;
            let ended = waiting(timeout_ms, |wait| service.shutdown(mode, wait))?;
            if report.is_null() {
                return Ok(());
            }
            give(serde_json::to_string(&ended)?, report, report_len)
        })
    }
}

/// Stores the figures of a service in `*stats`, as JSON.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_service_stats(
    service: TurnwiseHandle,
    stats: *mut *mut c_char,
    stats_len: *mut usize,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        run(error, || {
            let service = handles::service(service)?;
            give(serde_json::to_string(&service.control().stats())?, stats, stats_len)
        })
    }
}

/// Stores a descriptor in `*descriptor` that is readable while something is queued: an item of the service's queue, an
/// event of a stream, or an event of a subscription. It is close-on-exec and non-blocking.
///
/// The host polls it, and neither reads, writes nor closes it. When it is readable, the host calls `turnwise_next_event`
/// for the service, and for its streams and subscriptions, until each says `TURNWISE_EMPTY`. The first call starts one
/// thread, which runs no code of the host.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_service_fd(
    service: TurnwiseHandle,
    descriptor: *mut c_int,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        run(error, || {
            require(descriptor, "the pointer for the descriptor")?;
            descriptor.write(handles::service(service)?.descriptor()?);
            Ok(())
        })
    }
}
