//! Assertions against hanging tests and leaked sessions.

use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::time::Duration;

use crate::agent::SessionAgentBuilder;
use crate::ephemeral::EphemeralSessionService;
use crate::service::SessionState;
use crate::session::handle::{state_of, SessionHandle};
use crate::sync::{bounded, current, Builder};
use crate::testkit::PATIENCE;
use crate::time::clock::Clock;

/// Runs `body` on a new thread with this thread's name, and returns its result. If `body` hangs, the thread is
/// abandoned and the test fails with a message. Otherwise the test would wait until the build is killed, without a
/// reason.
///
/// ```
/// use std::time::Duration;
/// use turnwise::testkit::within;
///
/// assert_eq!(within(Duration::from_secs(60), || 6 * 7), 42);
/// ```
///
/// ```should_panic
/// use std::time::Duration;
/// use turnwise::testkit::{within, Gate};
///
/// within(Duration::from_millis(10), || Gate::new().pass_regardless()); // not done after 10ms: something hangs
/// ```
///
/// # Panics
/// If `body` panics, with its panic; or if `body` is not done after `limit`.
///
/// # Blocking
/// Until `body` is done, at most for `limit`, in real time.
#[track_caller]
pub fn within<T: Send + 'static>(limit: Duration, body: impl FnOnce() -> T + Send + 'static) -> T {
    let name = current().name().unwrap_or("within").to_owned();
    let (done, result) = bounded(1);
    // Not joined: the thread's thread-local destructors are not part of `body`.
    let spawned = Builder::new().name(name).spawn(move || drop(done.send(catch_unwind(AssertUnwindSafe(body)))));
    if let Err(error) = spawned {
        panic!("the system refused a thread: {error}");
    }
    match Clock::System.deadline(limit).receive(&result) {
        Ok(Ok(result)) => result,
        Ok(Err(payload)) => resume_unwind(payload),
        Err(_) => panic!("not done after {limit:?}: something hangs"),
    }
}

/// Asserts that the service has no session left: every session was archived, taken or shut down and has ended, and no
/// turn holds a running permit. Waits for sessions that are ending.
///
/// ```should_panic
/// use turnwise::testkit::{assert_no_leaked_sessions, scripted};
/// use turnwise::{EphemeralSessionService, SessionService, SessionSpec};
///
/// let service = EphemeralSessionService::new(scripted(), 1);
/// let id = service.open_session(SessionSpec::new()).unwrap();
/// assert_no_leaked_sessions(&service); // 1 sessions leaked: … is Idle, it has not been closed
/// ```
///
/// # Panics
/// If a session was not closed, or has not ended after [`PATIENCE`]. The message has the id and state of each.
///
/// # Blocking
/// Until all closed sessions have ended, at most for [`PATIENCE`], in real time.
#[track_caller]
pub fn assert_no_leaked_sessions<B: SessionAgentBuilder>(service: &EphemeralSessionService<B>) {
    assert_no_leaked_sessions_within(PATIENCE, service);
}

/// As [`assert_no_leaked_sessions`], with its own limit.
///
/// ```
/// use std::time::Duration;
/// use turnwise::testkit::{assert_no_leaked_sessions_within, scripted};
/// use turnwise::{CreateSessionRequest, EphemeralSessionService, SessionService};
///
/// let service = EphemeralSessionService::new(scripted(), 1);
/// let id = service.create_session(CreateSessionRequest::new("hello"))?.session_id;
/// service.archive(id)?;
/// assert_no_leaked_sessions_within(Duration::from_secs(10), &service);
/// # Ok::<(), turnwise::SessionError>(())
/// ```
///
/// # Panics
/// As [`assert_no_leaked_sessions`], after `limit`.
///
/// # Blocking
/// Until all closed sessions have ended, at most for `limit`, in real time.
#[track_caller]
pub fn assert_no_leaked_sessions_within<B: SessionAgentBuilder>(limit: Duration, service: &EphemeralSessionService<B>) {
    let deadline = Clock::System.deadline(limit);
    for session in service.sessions_with_capacity().iter().filter(|session| !session.is_open()) {
        // Ended or timed out: the sessions that are left are found below.
        let _ = deadline.receive(session.ended().receiver());
    }
    let left: Vec<String> = service.sessions_with_capacity().iter().map(|session| describe(session)).collect();
    assert!(left.is_empty(), "{} sessions leaked:\n{}", left.len(), left.join("\n"));
    let running = service.stats().running_turns;
    assert!(running == 0, "{running} running permits leaked");
}

fn describe(session: &SessionHandle) -> String {
    let state = session.gate().state();
    let id = session.id();
    match (state.is_closed(), state_of(state)) {
        (false, state) => format!("  session {id} is {state:?}, it has not been closed"),
        (true, SessionState::Building) => format!("  session {id} is closed, but still being built"),
        (true, SessionState::Running) => format!("  session {id} is closed, but its turn has not ended"),
        (true, _) => format!("  session {id} is closed, but its agent has not been dropped yet"),
    }
}
