//! # Using sub-agents
//!
//! A sub-agent is a session of its own, with an agent and a thread of its own. An agent begins one with
//! [`TurnContext::sub_session`](crate::TurnContext::sub_session). The [`SubSession`](crate::SubSession) belongs to the
//! turn:
//!
//! - It is interrupted when the turn is, for the same reason.
//! - It has at most the time that remains to the turn.
//! - It is interrupted and archived when the value is dropped: by `?`, by a `break`, by a panic. Nothing of it outlives
//!   the turn, unless it is [detached](crate::SubSession::detach).
//!
//! The builder of the service builds sub-agents too. A label or an extension of the
//! [specification](crate::SessionSpec) tells it which agent to build.
//!
//! # Partial results
//!
//! [`TurnContext::wait_any`](crate::TurnContext::wait_any) waits for the first of several turns. So a parent can use
//! each result when it is there, and stop when it has enough:
//!
//! ```
//! use std::time::Duration;
//! use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionQuery, SessionService, SubSession};
//!
//! let agent = agent_fn(|prompt, turn| {
//!     match prompt.as_str() {
//!         "parent" => {}
//!         "silent" => turn.sleep(Duration::MAX)?,
//!         _ => return Ok(turn.finish(prompt)),
//!     }
//!     let asked = ["yes", "silent", "yes"].map(|voter| turn.sub_session(CreateSessionRequest::new(voter)));
//!     let mut asked = asked.into_iter().collect::<Result<Vec<_>, _>>()?;
//!     let mut votes = Vec::new();
//!     while votes.len() < 2 {
//!         let handles: Vec<_> = asked.iter().map(SubSession::handle).collect();
//!         let ended = turn.wait_any(&handles, None)?.expect("there is no timeout");
//!         // A sub-agent that has failed is no vote, and the others go on.
//!         votes.extend(asked.remove(ended).wait().map(|result| result.text));
//!     }
//!     Ok(turn.finish(votes.join(", "))) // the silent one is interrupted and archived here
//! });
//! let service = EphemeralSessionService::configure(agent).max_sessions(8).max_running_turns(1).build()?;
//! assert_eq!(service.create_session(CreateSessionRequest::new("parent"))?.text, "yes, yes");
//! assert_eq!(service.list(SessionQuery::new())?.len(), 1); // the parent
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A wait in the order of the sub-agents needs no `wait_any`: [`SubSession::wait`](crate::SubSession::wait) returns the
//! result of one. A `SubSession` is also an iterator over its events. A sub-agent whose events are not read waits after
//! 256 of them, and `wait_any` reads none. `wait` discards them.
//!
//! # Deadlines
//!
//! The deadline of the parent's turn is that of its sub-agents too. When it passes, all of them are cancelled, and so
//! is the parent's wait. The parent may still return what it has: its result then has the stop reason
//! [`Cancelled`](crate::StopReason::Cancelled). `examples/sub_agents.rs` does that.
//!
//! A parent that needs time after its sub-agents gives them less. [`remaining`](crate::TurnContext::remaining) is the
//! time that is left to it, and the timeout of a sub-agent's request shortens that:
//!
//! ```
//! use turnwise::{CreateSessionRequest, SessionError, SubSession, TurnContext};
//!
//! /// Asks a sub-agent, and keeps a quarter of the time for the work with its answer.
//! fn ask<'turn>(turn: &'turn TurnContext, prompt: &str) -> Result<SubSession<'turn>, SessionError> {
//!     let request = CreateSessionRequest::new(prompt);
//!     turn.sub_session(match turn.remaining() {
//!         Some(left) => request.timeout(left * 3 / 4),
//!         None => request,
//!     })
//! }
//! # use std::time::Duration;
//! # use turnwise::{agent_fn, EphemeralSessionService, SessionService};
//! # let agent = agent_fn(|prompt, turn| match prompt.as_str() {
//! #     "parent" => Ok(turn.finish(ask(turn, "child")?.wait()?.text)),
//! #     _ => Ok(turn.finish((turn.remaining() <= Some(Duration::from_secs(45))).to_string())),
//! # });
//! # let service = EphemeralSessionService::new(agent, 2);
//! # let request = CreateSessionRequest::new("parent").timeout(Duration::from_secs(60));
//! # assert_eq!(service.create_session(request)?.text, "true");
//! # Ok::<(), SessionError>(())
//! ```
//!
//! A sub-agent that is out of time ends with
//! [`DeadlineExceeded`](crate::CancelReason::DeadlineExceeded), and the parent goes on.
//!
//! # Permits and capacity
//!
//! A sub-agent's turn needs a running permit like any other. The parent lends its own while it waits, so a chain of
//! sub-agents works with [`max_running_turns(1)`](crate::ServiceConfig::max_running_turns). This holds on all threads
//! of the turn. A wait that the library does not know keeps the permit; put it into
//! [`without_permit`](crate::TurnContext::without_permit).
//!
//! Every sub-agent takes one unit of the [capacity](crate::ServiceConfig::max_sessions), until its thread holds nothing
//! of it. If there is none, `sub_session` is [`CapacityExceeded`](crate::SessionError::CapacityExceeded) at once. Set
//! `max_sessions` to the sessions of the host plus the sub-agents that may exist at the same time. An agent that begins
//! them one after the other waits with [`SubSession::close`](crate::SubSession::close) until the last one has gone.
//! Turns that hold capacity and wait for more of it can wait for each other until their timeouts pass.
//!
//! A wait that would close a cycle of waiting sessions is [`Reentrant`](crate::SessionError::Reentrant), however long
//! the cycle is.
//!
//! # Sessions that outlive the turn
//!
//! [`TurnContext::service`](crate::TurnContext::service) is the service for all other uses: an agent that several
//! agents share, a session that is kept for the next turn, an answer to a [request](super::asking) of a sub-agent. Its
//! waits belong to the turn on all of its threads: they lend the permit, end with the turn's cancellation, and are
//! refused in a cycle. A service that the agent keeps from its build does so on the session thread only. It should be a
//! [`WeakService`](crate::WeakService): a handle would keep the service alive for ever.
