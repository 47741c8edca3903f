//! # When a session is busy
//!
//! A session runs one turn at a time. It is busy while it builds its agent, and from the admission of a turn until its
//! end. A turn in host mode is admitted until host mode ends. A request says what happens to its turn on a busy
//! session:
//!
//! | [`when_busy`](crate::StartTurnRequest::when_busy) | The turn | Beyond the limit | For |
//! |---|---|---|---|
//! | [`Refuse`](crate::WhenBusy::Refuse), the default | is refused | [`Busy`](crate::SessionError::Busy) at once | programs that ask only when the session is free, such as a prompt |
//! | [`Queue`](crate::WhenBusy::Queue) | runs after the turns that were accepted before | [`QueueFull`](crate::SessionError::QueueFull) at once | prompts that are typed ahead; several callers of one session |
//! | [`Interrupt`](crate::WhenBusy::Interrupt) | supersedes the admitted turn, and runs before the queued ones | `QueueFull` at once; nothing is cancelled | a user who changes their mind |
//!
//! On an idle session all three start the turn at once.
//!
//! ```
//! use std::time::Duration;
//! use turnwise::{agent_fn, CancelReason, CreateSessionRequest, EphemeralSessionService, SessionService};
//! use turnwise::{StartTurnRequest, WhenBusy};
//!
//! # let agent = agent_fn(|prompt, turn| match prompt.as_str() {
//! #     "write a long story" => Err(turn.sleep(Duration::MAX).unwrap_err().into()),
//! #     _ => Ok(turn.finish(prompt)),
//! # });
//! let service = EphemeralSessionService::configure(agent).max_sessions(8).turn_queue(4).build()?;
//! let story = service.begin_session(CreateSessionRequest::new("write a long story"))?;
//! let id = story.session_id();
//!
//! let title = service.begin_turn(id, StartTurnRequest::new("find a title").when_busy(WhenBusy::Queue))?;
//! assert!(title.is_queued());
//! assert_eq!(service.read(id)?.state.queued_turns, 1);
//!
//! // The user has changed their mind. The title is still wanted.
//! let poem = service.begin_turn(id, StartTurnRequest::new("a poem instead").when_busy(WhenBusy::Interrupt))?;
//! assert_eq!(story.wait().unwrap_err().cancel_reason(), Some(CancelReason::Superseded));
//! assert_eq!(poem.wait()?.text, "a poem instead");
//! assert_eq!(title.wait()?.text, "find a title");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Queued turns
//!
//! - The queue of a session holds [`turn_queue`](crate::ServiceConfig::turn_queue) turns, 16 by default.
//! - A queued turn has its [handle](crate::TurnHandle) and its turn id at once. The timeout of its request runs from
//!   that moment.
//! - [`TurnHandle::interrupt`](crate::TurnHandle::interrupt) withdraws a queued turn: it is answered as cancelled, and
//!   its agent never runs. [`interrupt`](crate::SessionService::interrupt) of the session reaches the admitted turn
//!   alone, and the next queued turn runs.
//! - Between two queued turns no other caller gets in. So a session with a queue can be busy for callers with `Refuse`
//!   for as long as other callers keep its queue filled.
//! - [`archive`](crate::SessionService::archive) lets queued turns run. An archive with
//!   [`ArchiveMode::Interrupt`](crate::ArchiveMode::Interrupt) and a shutdown answer them as cancelled. After a panic
//!   they are answered as faulted.
//!
//! # A refused request comes back
//!
//! [`begin_turn`](crate::SessionService::begin_turn) takes the request, and an error drops it.
//! [`try_begin_turn`](crate::SessionService::try_begin_turn) returns it in the error,
//! [`RefusedTurn`](crate::RefusedTurn), unchanged: with its prompt, its event sender and its tool results. A refused
//! turn has not run, and has used no turn id. So a program may put the request back where it came from, or try it
//! again.
//!
//! ```
//! use std::collections::VecDeque;
//! use turnwise::{SessionError, SessionId, SessionService, StartTurnRequest, TurnHandle};
//!
//! /// Begins the next turn of a program with a queue of its own. `None` if there is none, or the session is busy.
//! fn begin_next(
//!     service: &dyn SessionService,
//!     id: SessionId,
//!     outbox: &mut VecDeque<StartTurnRequest>,
//! ) -> Result<Option<TurnHandle>, SessionError> {
//!     let Some(request) = outbox.pop_front() else { return Ok(None) };
//!     match service.try_begin_turn(id, request) {
//!         Ok(turn) => Ok(Some(turn)),
//!         Err(refused) if matches!(refused.error, SessionError::Busy { .. }) => {
//!             outbox.push_front(refused.request);
//!             Ok(None)
//!         }
//!         Err(refused) => Err(refused.error),
//!     }
//! }
//! # use std::time::Duration;
//! # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService};
//! # let agent = agent_fn(|prompt, turn| match prompt.as_str() {
//! #     "sleep" => Err(turn.sleep(Duration::MAX).unwrap_err().into()),
//! #     _ => Ok(turn.finish(prompt)),
//! # });
//! # let service = EphemeralSessionService::new(agent, 1);
//! # let sleeping = service.begin_session(CreateSessionRequest::new("sleep"))?;
//! # let id = sleeping.session_id();
//! # let mut outbox = VecDeque::from([StartTurnRequest::new("hello")]);
//! # assert!(begin_next(&service, id, &mut outbox)?.is_none());
//! # assert_eq!(outbox.len(), 1);
//! # sleeping.interrupt();
//! # assert!(sleeping.wait().is_err());
//! # assert_eq!(begin_next(&service, id, &mut outbox)?.expect("a turn").wait()?.text, "hello");
//! # assert!(begin_next(&service, id, &mut outbox)?.is_none());
//! # Ok::<(), SessionError>(())
//! ```
//!
//! # Input to the turn that runs
//!
//! A queued turn comes after the running one. [`steer`](crate::SessionService::steer) sends a message into it: a
//! correction, or an answer that the user gives unasked. The agent looks for messages where it can use them, for example
//! between two calls of a model, with [`drain_inbox`](crate::TurnContext::drain_inbox), or waits for one with
//! [`wait_inbox`](crate::TurnContext::wait_inbox). The message reaches this turn or none. What the turn has not taken
//! when it ends fails, and its sender may send it again, as a prompt:
//!
//! ```
//! use turnwise::{AgentEvent, InteractionContent, SessionError, SessionId, SessionService, StartTurnRequest, WhenBusy};
//! # use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService};
//!
//! /// Tells the running turn, or begins a turn with the same text.
//! fn tell(service: &dyn SessionService, id: SessionId, text: &str) -> Result<(), SessionError> {
//!     let was_taken = match service.steer(id, None, InteractionContent::message(text)) {
//!         Ok(message) => matches!(message.last(), Some(AgentEvent::InteractionComplete { .. })), // waits for the turn
//!         Err(SessionError::NotRunning { .. }) => false,
//!         Err(error) => return Err(error),
//!     };
//!     if !was_taken {
//!         service.start_turn(id, StartTurnRequest::new(text).when_busy(WhenBusy::Queue))?;
//!     }
//!     Ok(())
//! }
//! # let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
//! # let id = service.create_session(CreateSessionRequest::new("hello"))?.session_id;
//! # tell(&service, id, "use metres")?;
//! # assert_eq!(service.read(id)?.state.last_assistant_text.as_deref(), Some("use metres"));
//! # Ok::<(), SessionError>(())
//! ```
//!
//! `examples/steering.rs` shows it with a handle.
//!
//! # Waiting until a session is idle
//!
//! [`wait_idle`](crate::SessionService::wait_idle) waits until no turn is admitted or queued, at most for its timeout.
//! It is for a program that lets the work of a session end before it exports, measures or replaces something. It
//! reserves nothing: when it returns, another caller may have begun the next turn. To run a turn after the others,
//! queue it instead.
//!
//! On a session thread `wait_idle` of the own session is [`Reentrant`](crate::SessionError::Reentrant), and so is a
//! start that would wait for itself. [`start_turn`](crate::SessionService::start_turn) of a request that may queue
//! waits for the turns before it too.
//!
//! `examples/queue.rs` shows the three kinds of requests.
