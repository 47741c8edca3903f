//! # Observing a service
//!
//! | Question | Answer |
//! |---|---|
//! | How many sessions, turns and threads are there, and how did turns end? | [`stats`](crate::ServiceControl::stats): [`ServiceStats`](crate::ServiceStats) |
//! | What is a session doing, and since when? | [`read`](crate::SessionService::read): [`SessionInfo::state`](crate::SessionInfo#structfield.state) and [`turn_started_at`](crate::SessionInfo#structfield.turn_started_at) |
//! | Why was a turn slow? | [`TurnHandle::timings`](crate::TurnHandle::timings): behind other turns, without a permit, without an answer, or in its agent |
//! | What has been said in a session, while it works? | [`history`](crate::SessionService::history), at once |
//! | What has been said, and what happens from there on? | [`history_at`](crate::SessionService::history_at) and [`subscribe`](crate::SessionService::subscribe), [below](#history-and-events) |
//! | What happens now, in all sessions? | [`subscribe_all`](crate::ServiceControl::subscribe_all) |
//! | What did my agent record, and in which turn? | spans, with the feature `tracing` |
//! | What does the library itself do? | [log records](crate#logging) |
//!
//! The statistics and the subscription are in [`ServiceControl`](crate::ServiceControl), so a monitor needs no more than
//! an `Arc<dyn ServiceControl>`:
//!
//! ```
//! use std::sync::Arc;
//! use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, ServiceControl, SessionService};
//!
//! fn line(service: &dyn ServiceControl) -> String {
//!     let stats = service.stats();
//!     let ended = stats.turns_ended();
//!     let mean = stats.timings.running.checked_div(ended as u32).unwrap_or_default();
//!     format!("{ended} turns, {} without a permit, {} lost events, {mean:?} each", stats.permit_waiting_turns,
//!         stats.events_dropped + stats.subscriber_events_dropped)
//! }
//!
//! let echo = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
//! let service: Arc<dyn ServiceControl> = Arc::new(echo);
//! service.create_session(CreateSessionRequest::new("hello"))?;
//! assert!(line(&service).starts_with("1 turns, 0 without a permit, 0 lost events, "));
//! # Ok::<(), turnwise::SessionError>(())
//! ```
//!
//! # History and events
//!
//! A client that opens a conversation shows what has been said, and then follows. If it exports the history, it waits for
//! the running turn. If it subscribes first and reads afterwards, it shows a turn twice that ends in between; in the other
//! order it misses one. [`history_at`](crate::SessionService::history_at) returns the history as of the last finished turn
//! together with the number of the event at which it ends:
//!
//! ```
//! use turnwise::{agent_fn, AgentEvent, EphemeralSessionService, EventStream, Message, SessionError, SessionId};
//! use turnwise::{SessionService, SessionSpec, StartTurnRequest, Subscription};
//!
//! /// What a client shows first, and the stream that goes on from there.
//! fn open_conversation(
//!     service: &dyn SessionService,
//!     id: SessionId,
//! ) -> Result<(Vec<Message>, EventStream), SessionError> {
//!     let (history, seq) = service.history_at(id)?; // at once, also in the middle of a turn
//!     let events = service.subscribe(id, Subscription::new().from_seq(seq + 1))?;
//!     Ok((history.messages().to_vec(), events))
//! }
//!
//! let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt.to_uppercase())));
//! let service = EphemeralSessionService::configure(agent).event_history(1_024).build()?;
//! let id = service.open_session(SessionSpec::new())?;
//! service.start_turn(id, StartTurnRequest::new("one"))?;
//! let (shown, mut events) = open_conversation(&service, id)?;
//! assert_eq!(shown, [Message::user("one"), Message::assistant("ONE")]);
//! service.start_turn(id, StartTurnRequest::new("two"))?;
//! assert!(matches!(events.next().unwrap().event, AgentEvent::RunStarted { prompt, .. } if prompt == "two"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The session has to keep the events of the running turn, and of those that end between the two calls:
//! [`event_history`](crate::ServiceConfig::event_history). If it has not, [`dropped`](crate::EventStream::dropped) tells
//! the client that it has missed events. Such a client waits for the terminal event of the turn, and begins again.
//!
//! # Spans
//!
//! With the feature `tracing` every session has a span, `session`, with the field `session_id`. Every turn has a span,
//! `turn`, with the fields `session_id` and `turn_id`. It is a child of the session's span. Both have the level *info* and
//! the target `turnwise::session`. The example `spans` prints them.
//!
//! - **The turn's span is entered while the agent's code runs**: in a turn, in an interaction, and in a build for a first
//!   turn. For other calls, such as a build without a turn, an export or the drop, it is the session's span. Between the
//!   calls none is entered, and a turn that waits for its first running permit is in none. During a wait of the agent, such
//!   as a sleep, its turn's span stays entered.
//! - **Other threads of a turn** are in no span until they enter it: `turn.span().in_scope(|| ...)`. A cancel hook runs on
//!   the thread that cancels, in the span of that thread.
//! - **The span in which a turn is begun** is not its parent, because the turn may outlive it. The turn's span *follows
//!   from* it. So the turn of a sub-agent follows from the turn that has begun it. The caller's span stays open until the
//!   session thread picks the turn up.
//! - **The turn's span is closed before its result is there**, and the session's before its capacity is free, unless the
//!   agent keeps a clone.
//! - **The subscriber has to be the global one** (`set_global_default`, or `init` of `tracing-subscriber`). A subscriber
//!   that a thread has set for itself does not see session threads.
//! - **A subscriber that panics** loses its spans, and nothing else.
//!
//! An agent that leaves a span of its own entered leaves it on its thread, which may serve another session. The library's
//! spans name their parents, so they are not children of it. [`idle_threads(0)`](crate::ServiceConfig::idle_threads) gives
//! every session a new thread.
