//! How all sessions of a service end.
//!
//! # No session is left behind
//!
//! A create reserves its place under the registry's write lock, and a shutdown marks the registry under the same lock. So a
//! create either comes first, and the shutdown finds its session, building or not; or it comes second and is refused.
//!
//! # Two rounds
//!
//! First every session is closed and every token set, then the hooks run, then the waiting begins: a hook that takes its
//! time delays no other session's cancellation.

use std::collections::HashSet;

use crate::error::CancelReason;
use crate::model::SessionId;
use crate::panics::record;
use crate::reentrancy::{self, Wait};
use crate::service::{ArchiveMode, ShutdownReport};
use crate::session::handle::{Closed, SessionHandle};
use crate::sync::Arc;
use crate::time::clock::Deadline;

use super::core::Core;

/// Closes every session and waits until `deadline` for all of them to end.
pub(crate) fn shut_down(core: &Core, mode: ArchiveMode, deadline: &Deadline) -> ShutdownReport {
    record!(Debug, "turnwise::service", "shutdown, {mode:?}");
    let sessions = close_all(core, mode);
    // On the thread of one of them, told to stop by this very call or before: no reason not to wait for the others.
    let is_own = sessions.iter().any(|session| reentrancy::is_thread_of(session.key()));
    let regardless = is_own && reentrancy::is_cancelled();
    let permit = reentrancy::lend_permit(deadline);
    let late = sessions.iter().filter(|session| !wait_for_end(session, deadline, regardless));
    let mut stuck: Vec<SessionId> = Vec::new();
    let mut keys = HashSet::new();
    for session in late {
        stuck.push(session.id());
        keys.insert(session.key());
    }
    // A session may have ended whose thread has not: its thread-local values take their time.
    stuck.extend(core.threads.join_all_but(&keys, deadline));
    // Of one that was taken and resumed there may be several.
    let mut seen = HashSet::new();
    stuck.retain(|id| seen.insert(*id));
    if stuck.is_empty() {
        // No turn is left that could have a deadline.
        core.deadlines.stop(deadline);
    }
    if let Some(permit) = permit {
        permit.end_wait();
    }
    let joined = sessions.iter().filter(|session| !stuck.contains(&session.id())).count();
    ShutdownReport { joined, stuck }
}

/// Closes every session, and waits for none.
pub(crate) fn close_all(core: &Core, mode: ArchiveMode) -> Vec<Arc<SessionHandle>> {
    let sessions = core.registry.shut_down();
    core.global_subscribers.close();
    core.threads.close();
    let closed: Vec<_> = sessions.iter().map(|session| session.close(mode, CancelReason::Shutdown)).collect();
    closed.into_iter().for_each(Closed::run_hooks);
    sessions
}

/// Whether the session ends in time. One that waits for this thread's session, or is it, cannot: that is not waited for.
fn wait_for_end(session: &SessionHandle, deadline: &Deadline, regardless: bool) -> bool {
    if let Ok(wait) = Wait::on(session.key()) {
        let ended = session.ended().receiver();
        // In time, too late or interrupted: the latch knows.
        let _ = if regardless { wait.receive_ignoring_cancel(ended, deadline) } else { wait.receive(ended, deadline) };
    }
    session.ended().is_set()
}
