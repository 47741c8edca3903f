//! # Retries and back-off
//!
//! There are two places for a retry. An agent repeats a *call* that has failed, such as a model call, inside its turn.
//! A host repeats a *request* whose turn was refused, or has failed. The library never repeats anything by itself.
//!
//! # Which errors are worth a retry
//!
//! | Error | Has the agent run? | Retry |
//! |---|---|---|
//! | [`Busy`](crate::SessionError::Busy) | no | [queue](super::busy) the turn, or try again after [`wait_idle`](crate::SessionService::wait_idle) |
//! | [`QueueFull`](crate::SessionError::QueueFull) | no | later; until then slow the sender down |
//! | [`CapacityExceeded`](crate::SessionError::CapacityExceeded) | no | [`reserve`](crate::EphemeralSessionService::reserve) waits for capacity, in order of arrival |
//! | [`Spawn`](crate::SessionError::Spawn) | no | later: the system has no room for a thread |
//! | [`Agent`](crate::SessionError::Agent), where [`is_retryable`](crate::AgentError::is_retryable) | yes | better inside the turn; the same turn again only if [that is safe](#idempotence) |
//! | `Agent`, where [`is_graceful`](crate::AgentError::is_graceful) | yes | none: another turn continues where this one has stopped |
//! | [`Timeout`](crate::SessionError::Timeout) and [`Ending`](crate::SessionError::Ending) of a wait | perhaps | wait again: the operation goes on |
//! | [`Store`](crate::SessionError::Store) | no | once the disk is repaired |
//! | `Store` with `StoreError::Conflict` | perhaps | the same turn again, on the history of the other writer, only if [that is safe](#idempotence) |
//! | `Agent` with a `StoreError` inside | yes | none: the session has the turn in its history, and the next turn saves both |
//! | cancelled, by [any reason](crate::SessionError::cancel_reason) | perhaps | none: the turn was told to stop |
//! | [`Faulted`](crate::SessionError::Faulted) | perhaps | after a [`restart`](crate::SessionService::restart), or by a [policy](crate::RestartPolicy): from the history before the turn that panicked |
//! | [`Build`](crate::SessionError::Build) | no | only if its [`agent_error`](crate::SessionError::agent_error) is retryable |
//! | all others | | none: the next attempt fails in the same way |
//!
//! # Inside a turn
//!
//! An agent waits between two attempts with [`TurnContext::sleep`](crate::TurnContext::sleep), not with
//! `std::thread::sleep`. Then an interrupt ends the pause at once, and other turns run meanwhile: the turn lends its
//! running permit.
//!
//! ```
//! use std::time::Duration;
//! use turnwise::{AgentError, AgentEvent, LlmFailure, TurnContext};
//!
//! const ATTEMPTS: u32 = 5;
//!
//! /// Makes a model call, several times if need be. Each pause is twice as long as the last one.
//! fn with_retries<T>(
//!     turn: &TurnContext,
//!     mut pause: Duration,
//!     mut call: impl FnMut() -> Result<T, AgentError>,
//! ) -> Result<T, AgentError> {
//!     let mut attempt = 1;
//!     loop {
//!         let error = match call() {
//!             Err(error) if error.is_retryable() && attempt < ATTEMPTS => error,
//!             result => return result,
//!         };
//!         // The provider knows best.
//!         if let AgentError::Llm { reason: LlmFailure::RateLimited { retry_after: Some(after) }, .. } = &error {
//!             pause = pause.max(*after);
//!         }
//!         // If there is no time for another attempt, the error says more than a passed deadline.
//!         if turn.remaining().is_some_and(|left| left <= pause) {
//!             return Err(error);
//!         }
//!         let (error, delay_ms) = (error.to_string(), pause.as_millis() as u64);
//!         turn.emit(AgentEvent::Retrying { attempt, max_attempts: ATTEMPTS, error, delay_ms })?;
//!         turn.sleep(pause)?;
//!         attempt += 1;
//!         pause = (pause * 2).min(Duration::from_secs(10));
//!     }
//! }
//! # use std::sync::atomic::{AtomicU32, Ordering};
//! # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
//! # let agent = agent_fn(|prompt, turn| {
//! #     let (calls, fails): (_, u32) = (AtomicU32::new(0), prompt.parse().unwrap());
//! #     let failure = |retry_after| AgentError::Llm {
//! #         provider: "acme".into(),
//! #         reason: LlmFailure::RateLimited { retry_after },
//! #         message: "slow down".into(),
//! #     };
//! #     let after = if turn.remaining().is_some() { Some(Duration::from_secs(3600)) } else { None };
//! #     let made = with_retries(turn, Duration::from_millis(1), || match calls.fetch_add(1, Ordering::Relaxed) {
//! #         made if made < fails => Err(failure(after)),
//! #         made => Ok(made + 1),
//! #     })?;
//! #     Ok(turn.finish(format!("{made} calls")))
//! # });
//! # let service = EphemeralSessionService::new(agent, 3);
//! # let mut stream = service.stream_session(CreateSessionRequest::new("2"))?;
//! # assert_eq!(stream.by_ref().filter(|event| matches!(event, AgentEvent::Retrying { .. })).count(), 2);
//! # assert_eq!(stream.wait()?.text, "3 calls");
//! # let is_retryable = |request| {
//! #     let error = service.create_session(request).unwrap_err();
//! #     error.agent_error().is_some_and(AgentError::is_retryable)
//! # };
//! # assert!(is_retryable(CreateSessionRequest::new("5"))); // all attempts have failed
//! # assert!(is_retryable(CreateSessionRequest::new("1").timeout(Duration::from_secs(60)))); // no time for a pause
//! # Ok::<(), turnwise::SessionError>(())
//! ```
//!
//! If many sessions share one provider, add a random part to the pause. Otherwise all of them come back at the same
//! moment.
//!
//! # Outside of a turn
//!
//! A refused request has not run, so another attempt is always safe.
//! [`try_begin_turn`](crate::SessionService::try_begin_turn) gives the request back inside of
//! [`RefusedTurn`](crate::RefusedTurn), with its prompt, its event sender and its tool results:
//!
//! ```
//! use std::time::{Duration, Instant};
//! use turnwise::{SessionError, SessionId, SessionService, StartTurnRequest, TurnHandle};
//!
//! /// Begins a turn as soon as the session is free.
//! fn begin_when_idle(
//!     service: &dyn SessionService,
//!     id: SessionId,
//!     mut request: StartTurnRequest,
//!     patience: Duration,
//! ) -> Result<TurnHandle, SessionError> {
//!     let end = Instant::now() + patience;
//!     loop {
//!         let refused = match service.try_begin_turn(id, request) {
//!             Ok(turn) => return Ok(turn),
//!             Err(refused) => refused,
//!         };
//!         let left = end.saturating_duration_since(Instant::now());
//!         if left.is_zero() || !matches!(refused.error, SessionError::Busy { .. } | SessionError::QueueFull { .. }) {
//!             return Err(refused.error);
//!         }
//!         service.wait_idle(id, left)?; // afterwards another caller may be first; then this waits again
//!         request = refused.request;
//!     }
//! }
//! # use turnwise::{agent_fn, AgentError, CreateSessionRequest, EphemeralSessionService};
//! # let agent = agent_fn(|prompt, turn| {
//! #     if let Some(id) = prompt.strip_prefix("ask ") {
//! #         let service = turn.service().ok_or_else(|| AgentError::Internal(String::new()))?;
//! #         let hello = StartTurnRequest::new("hello");
//! #         let asked = begin_when_idle(&service, id.parse()?, hello, Duration::from_secs(60))?;
//! #         return Ok(turn.finish(asked.wait()?.text));
//! #     }
//! #     turn.sleep(Duration::from_millis(5))?;
//! #     Ok(turn.finish(prompt))
//! # });
//! # let service = EphemeralSessionService::configure(agent).max_sessions(2).max_running_turns(1).build().unwrap();
//! # let first = service.begin_session(CreateSessionRequest::new("first"))?;
//! # let id = first.session_id();
//! # let second = begin_when_idle(&service, id, StartTurnRequest::new("second"), Duration::from_secs(60))?;
//! # let ask = CreateSessionRequest::new(format!("ask {id}"));
//! # assert_eq!(service.create_session(ask)?.text, "hello");
//! # assert_eq!(second.wait()?.text, "second");
//! # assert!(matches!(
//! #     begin_when_idle(&service, turnwise::SessionId::new(), StartTurnRequest::new(""), Duration::from_secs(60)),
//! #     Err(SessionError::NotFound { .. })
//! # ));
//! # Ok::<(), SessionError>(())
//! ```
//!
//! An agent calls this with [`TurnContext::service`](crate::TurnContext::service). Then the wait lends the running
//! permit, and ends with the turn's cancellation. A host whose requests may [queue](super::busy) needs no such loop.
//!
//! # Idempotence
//!
//! A turn that has *failed* has run, at least in part. A second attempt is a new turn with a new turn id. It repeats
//! what the first one has done before its failure.
//!
//! - **The history.** The library takes the history from the agent, and rolls nothing back. An agent that adds prompt
//!   and answer together, as its last step, leaves no trace of a failed turn, so the same prompt can be sent again. All
//!   agents in this documentation do so. [`SessionAgent::cancel`](crate::SessionAgent::cancel) rolls back after a turn
//!   that was told to stop and has failed.
//! - **Effects outside of the program**, such as a payment or a mail, need a key that is the same in every attempt, by
//!   which the other side recognises a repetition. Inside a turn, use the session id, the turn id and a count of the
//!   calls: no session uses a turn id twice, not even a stored one in another process. For attempts in several turns
//!   the host chooses the key, and passes it with the prompt.
//! - **Unknown ends.** After a [`Timeout`](crate::SessionError::Timeout) the turn goes on, and after a crash of the
//!   process it may have done anything but return. In a service that stores sessions the history says which turns were
//!   kept: resume, read, and then decide.
