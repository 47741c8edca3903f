//! # Asking a person
//!
//! An agent asks its host with [`TurnContext::request_input`](crate::TurnContext::request_input): for a permission, a
//! choice, a text, or for work that only the host's main thread may do. The call returns the answer. Until then the
//! turn waits on its session thread, without its running permit, and the session's state is
//! [`Waiting`](crate::SessionState::Waiting).
//!
//! # In the agent
//!
//! ```
//! use std::time::Duration;
//! use turnwise::{AgentError, InputError, InputRequest, TurnContext};
//!
//! /// Asks before it deletes a file. Without an answer the file stays.
//! fn may_delete(file: &str, turn: &TurnContext) -> Result<bool, AgentError> {
//!     let request = InputRequest::new("permission", format!("Delete {file}?"))
//!         .option("yes", "Delete it")
//!         .option("no", "Keep it")
//!         .payload(serde_json::json!({ "path": file }).to_string()) // data for the host's program
//!         .timeout(Duration::from_secs(300));
//!     match turn.request_input(request) {
//!         Ok(answer) => Ok(answer == "yes"),
//!         Err(InputError::Declined { .. } | InputError::TimedOut { .. }) => Ok(false), // the turn goes on
//!         Err(error) => Err(error.into()), // the turn is told to stop
//!     }
//! }
//! # use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService};
//! # use turnwise::{InputResponse, SessionService};
//! # let agent = agent_fn(|prompt, turn| Ok(turn.finish(may_delete(&prompt, turn)?.to_string())));
//! # let service = EphemeralSessionService::new(agent, 1);
//! # let mut stream = service.stream_session(CreateSessionRequest::new("notes.txt"))?;
//! # let id = stream.handle().session_id();
//! # while let Some(event) = stream.next() {
//! #     if let AgentEvent::InputRequested { input_id, request } = event {
//! #         assert_eq!(request.payload.as_deref(), Some(r#"{"path":"notes.txt"}"#));
//! #         service.respond(id, input_id, InputResponse::Answer("yes".into()))?;
//! #     }
//! # }
//! # assert_eq!(stream.wait()?.text, "true");
//! # Ok::<(), turnwise::SessionError>(())
//! ```
//!
//! - A request with options accepts only the id of an option. Without options any text is an answer.
//! - The request's timeout ends the request, and the turn goes on. The turn's own
//!   [timeout](crate::StartTurnRequest#structfield.timeout) goes on during the wait, and cancels the turn. Set one of
//!   them: without both, a turn whose host never responds waits until it is interrupted.
//! - Tools on scoped threads may ask at the same time. Their requests are pending side by side.
//! - The answer is text from outside of the program. Treat it as the text of a prompt.
//!
//! # In the host
//!
//! A request is pending before its event is emitted. So the thread that reads the event can
//! [`respond`](crate::SessionService::respond) at once. The call never waits for the turn. It works on a user
//! interface's thread, between two frames, in a request handler, and in another session's turn.
//!
//! ```
//! use turnwise::{agent_fn, AgentEvent, EphemeralSessionService, InputRequest, InputResponse, SessionError};
//! use turnwise::{CreateSessionRequest, SessionService};
//!
//! # let agent = agent_fn(|prompt, turn| {
//! #     let request = InputRequest::new("permission", format!("{prompt}?")).option("y", "Yes").option("n", "No");
//! #     Ok(turn.finish(turn.request_input(request)?))
//! # });
//! # let service = EphemeralSessionService::new(agent, 1);
//! # let read_key = || "y".to_owned();
//! let mut stream = service.stream_session(CreateSessionRequest::new("Send the letter"))?;
//! let id = stream.handle().session_id();
//! while let Some(event) = stream.next() {
//!     let AgentEvent::InputRequested { input_id, request } = event else { continue };
//!     println!("{}", request.message);
//!     request.options.iter().for_each(|option| println!("  {}  {}", option.id, option.label));
//!     loop {
//!         match service.respond(id, input_id, InputResponse::Answer(read_key())) {
//!             Err(SessionError::InvalidAnswer { .. }) => println!("please choose one of these"), // still pending
//!             Err(SessionError::InputNotPending { .. }) => break println!("too late"), // timed out, or told to stop
//!             result => break result?,
//!         }
//!     }
//! }
//! assert_eq!(stream.wait()?.text, "y");
//! # Ok::<(), SessionError>(())
//! ```
//!
//! There are three ways to learn of a request:
//!
//! | Way | For |
//! |---|---|
//! | [`InputRequested`](crate::AgentEvent::InputRequested) in the turn's own events | the caller that has begun the turn |
//! | the same event in a [subscription](crate::EphemeralSessionService::subscribe_all) | one place that answers for many sessions |
//! | the state [`Waiting`](crate::SessionState::Waiting) in a list, then [`pending_inputs`](crate::SessionService::pending_inputs) | a program that starts to look later, or that looks in every frame |
//!
//! Events can be missed, for example by a page that is loaded again. `pending_inputs` has all open requests at any
//! time. If several places can answer, the first response wins, and the others get
//! [`InputNotPending`](crate::SessionError::InputNotPending). [`InputResolved`](crate::AgentEvent::InputResolved) tells
//! all of them to close their dialog.
//!
//! A response answers the request with that id and no later one. So a program that shows a request and responds to the
//! shown id never answers a question that the person has not seen.
//!
//! # Sub-agents that ask
//!
//! A request of a sub-agent is pending in the sub-agent's session. Its parent may answer it, or ask its own host and
//! pass the answer on:
//!
//! ```
//! use turnwise::{agent_fn, AgentError, AgentEvent, CreateSessionRequest, EphemeralSessionService, InputRequest};
//! use turnwise::{InputResponse, SessionService};
//!
//! let agent = agent_fn(|prompt, turn| {
//!     if prompt == "child" {
//!         return Ok(turn.finish(turn.request_input(InputRequest::new("question", "Which colour?"))?));
//!     }
//!     let service = turn.service().ok_or_else(|| AgentError::Internal("the service is gone".into()))?;
//!     let mut child = turn.sub_session(CreateSessionRequest::new("child"))?;
//!     while let Some(event) = child.next() {
//!         if let AgentEvent::InputRequested { input_id, request } = event {
//!             let answer = turn.request_input(*request)?;
//!             service.respond(child.session_id(), input_id, InputResponse::Answer(answer))?;
//!         }
//!     }
//!     Ok(turn.finish(child.wait()?.text))
//! });
//! let service = EphemeralSessionService::new(agent, 2);
//! let mut stream = service.stream_session(CreateSessionRequest::new("parent"))?;
//! let id = stream.handle().session_id();
//! while let Some(event) = stream.next() {
//!     if let AgentEvent::InputRequested { input_id, .. } = event {
//!         service.respond(id, input_id, InputResponse::Answer("blue".into()))?;
//!     }
//! }
//! assert_eq!(stream.wait()?.text, "blue");
//! # Ok::<(), turnwise::SessionError>(())
//! ```
//!
//! # Answers that take days
//!
//! A request lives as long as its turn, and its turn as long as the process. If the answer may take longer, let the
//! turn end with [`AgentError::CallbackPending`](crate::AgentError::CallbackPending). The session shows it as
//! [`callback_pending`](crate::SessionInfo::callback_pending), and a store keeps it. A later turn with
//! [`StartTurnRequest::tool_results`](crate::StartTurnRequest::tool_results) continues, in this process or another one.
//!
//! `examples/asking.rs` answers from another thread. In `examples/apps` the characters of `game_loop` ask the frame
//! loop to pay for them, and `dashboard` shows the questions of all sessions.
