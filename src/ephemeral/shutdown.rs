//! The shutdown of all sessions of a service.
//!
//! # No session is missed
//!
//! A create registers its session under the registry's write lock, and a shutdown marks the registry under the same lock.
//! If the create is first, the shutdown finds its session, built or not. If it is second, it is refused.
//!
//! # Three steps
//!
//! A shutdown closes every session and cancels every token, then runs the hooks, then waits. So a slow hook delays no
//! other session's cancellation.

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
    // On a session thread whose turn is cancelled, perhaps by this very call: it still waits for the other sessions.
    let is_own = sessions.iter().any(|session| reentrancy::is_waiter(session.key()));
    let ignore_cancel = is_own && reentrancy::is_cancelled();
    let permit = reentrancy::lend_permit(deadline);
    let late = sessions.iter().filter(|session| !wait_for_end(session, deadline, ignore_cancel));
    let mut stuck: Vec<SessionId> = Vec::new();
    let mut keys = HashSet::new();
    for session in late {
        stuck.push(session.id());
        keys.insert(session.key());
    }
    // A session may have ended while its thread still runs thread-local destructors.
    stuck.extend(core.threads.join_all_but(&keys, deadline));
    // A session that was taken and resumed may be listed several times.
    let mut seen = HashSet::new();
    stuck.retain(|id| seen.insert(*id));
    if stuck.is_empty() {
        // No turn with a deadline is left.
        core.deadlines.stop(deadline);
    }
    if let Some(permit) = permit {
        permit.end_wait();
    }
    let joined = sessions.iter().filter(|session| !stuck.contains(&session.id())).count();
    ShutdownReport { joined, stuck }
}

/// Closes every session without waiting.
pub(crate) fn close_all(core: &Core, mode: ArchiveMode) -> Vec<Arc<SessionHandle>> {
    let sessions = core.registry.shut_down();
    // A session that is registered by now may not have taken the subscribers yet, and finds none after the close.
    for session in &sessions {
        core.global_subscribers.attach_all(session.bus());
    }
    core.global_subscribers.close();
    core.threads.close();
    let closed: Vec<_> = sessions.iter().map(|session| session.close(mode, CancelReason::Shutdown)).collect();
    closed.into_iter().for_each(Closed::run_hooks);
    sessions
}

/// Waits for the end of the session, and returns whether it has ended. If it waits for this thread's session, or is
/// that session, it cannot end, and the call does not wait.
fn wait_for_end(session: &SessionHandle, deadline: &Deadline, ignore_cancel: bool) -> bool {
    if let Ok(wait) = Wait::on(session.key()) {
        let ended = session.ended().receiver();
        // The latch has the outcome, also if the wait failed.
        let _ =
            if ignore_cancel { wait.receive_ignoring_cancel(ended, deadline) } else { wait.receive(ended, deadline) };
    }
    session.ended().is_set()
}
