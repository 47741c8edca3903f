//! A wait for the first of several turns to end.

use std::time::Duration;

use crate::error::SessionError;
use crate::reentrancy::{WaitError, WaitForAny, WaitKey};
use crate::sync::Receiver;
use crate::time::clock::{Clock, Deadline};
use crate::turn::handle::TurnHandle;

/// Waits until one of these turns has ended, and returns the place of its handle: the lowest, if several have ended.
/// `None` if none has ended within `timeout`, and at once if there are no handles. Without a timeout it waits as long as
/// it takes. The result stays with the handle.
///
/// ```
/// use std::time::Duration;
/// use turnwise::{agent_fn, wait_any, CreateSessionRequest, EphemeralSessionService, SessionService};
///
/// let agent = agent_fn(|prompt, turn| match prompt.as_str() {
///     "sleep" => Err(turn.sleep(Duration::MAX).unwrap_err().into()),
///     _ => Ok(turn.finish(prompt)),
/// });
/// let service = EphemeralSessionService::new(agent, 8);
/// let slow = service.begin_session(CreateSessionRequest::new("sleep"))?;
/// let quick = service.begin_session(CreateSessionRequest::new("hello"))?;
/// assert_eq!(wait_any(&[&slow, &quick], None)?, Some(1));
/// assert_eq!(quick.wait()?.text, "hello"); // does not wait any more
/// assert_eq!(wait_any(&[&slow], Some(Duration::from_millis(1)))?, None);
/// # Ok::<(), turnwise::SessionError>(())
/// ```
///
/// # Errors
/// None on a thread of the host. On a session thread as for each [`TurnHandle`]: [`SessionError::Reentrant`] if *one* of
/// the turns waits for this session, and [`SessionError::Interrupted`] if the session's own turn is cancelled before one
/// of these has ended. Agents call [`TurnContext::wait_any`](crate::TurnContext::wait_any), on whichever thread.
///
/// # Blocking
/// Until one of the turns ends, at most for `timeout`, on the clock of the first handle's service.
pub fn wait_any(handles: &[&TurnHandle], timeout: Option<Duration>) -> Result<Option<usize>, SessionError> {
    let Some(first) = handles.first() else { return Ok(None) };
    // Handles that were obtained through a turn's service.
    let _on_behalf = handles.iter().find_map(|handle| handle.enter());
    wait_for_any(handles, timeout, first.clock())
}

/// As [`wait_any`], on a thread that waits for itself or for its turn.
pub(crate) fn wait_for_any(
    handles: &[&TurnHandle],
    timeout: Option<Duration>,
    clock: &Clock,
) -> Result<Option<usize>, SessionError> {
    let finished = || handles.iter().position(|handle| handle.is_finished());
    let Some(first) = handles.first() else { return Ok(None) };
    if let Some(index) = finished() {
        return Ok(Some(index));
    }
    let waiting = clock.stopwatch();
    let deadline = timeout.map_or(Deadline::never(), |timeout| waiting.deadline(timeout));
    let targets: Vec<WaitKey> = handles.iter().map(|handle| handle.key()).collect();
    let channels: Vec<&Receiver<_>> = handles.iter().map(|handle| handle.finished()).collect();
    let waited = WaitForAny::on(&targets).and_then(|wait| wait.wait(&channels, &deadline, || finished().is_some()));
    match waited {
        Ok(()) | Err(WaitError::TimedOut) => Ok(finished()),
        Err(error) => Err(error.into_session_error(first.session_id(), &waiting)),
    }
}
