//! How a turn has spent its time.

use std::time::Duration;

/// How a turn has spent its time, on the service's clock; or the sums of many turns.
///
/// The four parts do not overlap. Their sum is exactly the time from the acceptance of the turn to the end of the agent's
/// last call. In host mode it is less: the pauses between the agent's calls count nowhere. The delivery of the turn's
/// last event and of its result counts nowhere either.
///
/// ```
/// use std::time::Duration;
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, TurnTimings};
///
/// let agent = agent_fn(|prompt, turn| {
///     turn.sleep(Duration::from_millis(2))?;
///     Ok(turn.finish(prompt))
/// });
/// let service = EphemeralSessionService::new(agent, 1);
/// let mut turn = service.begin_session(CreateSessionRequest::new("hello"))?;
/// turn.wait_timeout(Duration::MAX).expect("there is no timeout")?;
/// let TurnTimings { queued, permit, running, .. } = turn.timings().expect("the turn has ended");
/// assert_eq!((queued, permit), (Duration::ZERO, Duration::ZERO)); // it was alone
/// assert!(running >= Duration::from_millis(2));
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct TurnTimings {
    /// From the acceptance of the turn to its admission: the wait behind other turns of its session. Zero for a turn that
    /// found its session idle. For a turn that was withdrawn from the queue: until then, and the other three are zero.
    pub queued: Duration,
    /// The time in which the turn waited for a running permit, before its agent was called or after a wait, and had no
    /// pending input request.
    pub permit: Duration,
    /// The time in which the turn had at least one pending [input request](crate::TurnContext::request_input). Requests
    /// of several threads that overlap count once.
    pub input: Duration,
    /// The rest: mainly the agent's calls, with its sleeps and its waits for other sessions. It begins with the admission,
    /// so it has the way of the turn to the session thread, and for a first turn the build of the agent.
    pub running: Duration,
}

impl TurnTimings {
    /// Adds a call of the agent that took `total`, of which it spent `permit` and `input` in these waits.
    pub(crate) fn add_call(&mut self, total: Duration, permit: Duration, input: Duration) {
        self.permit = self.permit.saturating_add(permit);
        self.input = self.input.saturating_add(input);
        self.running = self.running.saturating_add(total.saturating_sub(permit).saturating_sub(input));
    }
}
