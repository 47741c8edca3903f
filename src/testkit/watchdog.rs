//! What makes a test fail that would hang, or leave something behind.

use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::time::Duration;

use crate::agent::SessionAgentBuilder;
use crate::ephemeral::EphemeralSessionService;
use crate::service::SessionState;
use crate::session::handle::{state_of, SessionHandle};
use crate::sync::{bounded, current, Builder};
use crate::testkit::PATIENCE;
use crate::time::clock::Clock;

/// Runs `body` on a thread of its own, named as this one, and returns what it returns. One that hangs is left behind, and the
/// test fails with a message: what a wait for something that never happens makes of a test otherwise is a build that is
/// killed after an hour, with nothing to show.
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
/// With the panic of `body`, if it panics; or if it is not done after `limit`.
///
/// # Blocking
/// Until `body` is done, at most for `limit`, in real time.
#[track_caller]
pub fn within<T: Send + 'static>(limit: Duration, body: impl FnOnce() -> T + Send + 'static) -> T {
    let name = current().name().unwrap_or("within").to_owned();
    let (done, result) = bounded(1);
    // Not joined: what its thread-local values do when they go is not the body's.
    let spawned = Builder::new().name(name).spawn(move || drop(done.send(catch_unwind(AssertUnwindSafe(body)))));
    if let Err(error) = spawned {
        panic!("the system refuses a thread: {error}");
    }
    match Clock::System.deadline(limit).receive(&result) {
        Ok(Ok(result)) => result,
        Ok(Err(payload)) => resume_unwind(payload),
        Err(_) => panic!("not done after {limit:?}: something hangs"),
    }
}

/// Asserts that no session of this service is left: every one that was created has been archived, taken or shut down, and has
/// ended, and no turn holds a running permit. Sessions that are on their way out are waited for.
///
/// ```should_panic
/// use turnwise::testkit::{assert_no_leaked_sessions, scripted};
/// use turnwise::{EphemeralSessionService, SessionService, SessionSpec};
///
/// let service = EphemeralSessionService::new(scripted(), 1);
/// let id = service.open_session(SessionSpec::new()).unwrap();
/// assert_no_leaked_sessions(&service); // 1 session leaked: … is idle, nobody has archived it
/// ```
///
/// # Panics
/// If there are sessions that nobody has closed, or that have not ended after [`PATIENCE`]: with the id and the state of each.
///
/// # Blocking
/// Until all that are closed have ended, at most for [`PATIENCE`], in real time.
#[track_caller]
pub fn assert_no_leaked_sessions<B: SessionAgentBuilder>(service: &EphemeralSessionService<B>) {
    assert_no_leaked_sessions_within(PATIENCE, service);
}

/// As [`assert_no_leaked_sessions`], with a limit of the test's own.
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
/// As there, after `limit`.
///
/// # Blocking
/// Until all that are closed have ended, at most for `limit`, in real time.
#[track_caller]
pub fn assert_no_leaked_sessions_within<B: SessionAgentBuilder>(limit: Duration, service: &EphemeralSessionService<B>) {
    let deadline = Clock::System.deadline(limit);
    for session in service.sessions_with_capacity().iter().filter(|session| !session.is_open()) {
        // Disconnected or not in time: whoever is left is found below.
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
        (false, state) => format!("  session {id} is {state:?}, nobody has closed it"),
        (true, SessionState::Building) => format!("  session {id} is closed, but still being built"),
        (true, SessionState::Running) => format!("  session {id} is closed, but its turn has not ended"),
        (true, _) => format!("  session {id} is closed, but its agent has not gone yet"),
    }
}
