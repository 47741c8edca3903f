//! Answers to common questions about programs that use this crate.
//!
//! - [Coming from an async session service](#coming-from-an-async-session-service)
//! - [Testing your agent](#testing-your-agent)
//! - [Keeping a service in a struct](#keeping-a-service-in-a-struct)
//! - [Which limits to set](#which-limits-to-set)
//! - [Hosting agents that are not `Send`](#hosting-agents-that-are-not-send)
//! - [What to do at shutdown](#what-to-do-at-shutdown)
//!
//! # Coming from an async session service
//!
//! This crate follows the API of `meerkat-session` 0.3, so that a program can be ported call by call. A call that is
//! `await`ed there blocks here, or has a non-blocking sibling.
//!
//! | There | Here | Difference |
//! |---|---|---|
//! | `EphemeralSessionService::new(builder, max)` | [`EphemeralSessionService::new`], or [`configure`](crate::EphemeralSessionService::configure) | a cheap handle to clone; it needs no `Arc` |
//! | `create_session(req).await` | [`create_session`]; [`begin_session`] returns before the agent is built | the id is known before the build, so a session that is being built can be interrupted and archived |
//! | | [`open_session`] | a session without a first turn |
//! | `start_turn(&id, req).await` | [`start_turn`]; [`begin_turn`] returns a [`TurnHandle`] to poll, wait for, select over | in both, a busy session is `Busy` at once |
//! | `tokio::spawn(start_turn(..))` | [`begin_turn`] | the turn is admitted when the call returns, and the handle may be dropped |
//! | `event_tx: mpsc::Sender` | [`event_tx`](crate::StartTurnRequest#structfield.event_tx): a crossbeam sender; or [`stream_turn`], an iterator | no task in between; the receiver disconnects when the turn ends |
//! | `interrupt(&id).await` | [`interrupt`] | does not wait for the turn; [`interrupt_turn`] never reaches the next one |
//! | `SessionAgent::cancel` to stop a turn | the turn's [`CancelToken`]; [`SessionAgent::cancel`] rolls back afterwards | the library never calls an agent while it runs |
//! | `read(&id).await`, `list(query).await` | [`read`], [`list`] | never wait for a turn |
//! | `archive(&id).await` | [`archive`]; [`archive_with`] to cancel the turn; [`archive_wait`] to wait for the end | capacity is released when the agent is dropped |
//! | `export_session(&id).await` | [`export_session`], [`export_session_timeout`]; [`take_session`] archives as well | |
//! | `event_injector(&id).await` | [`event_injector`](crate::SessionService::event_injector) | every session has an inbox |
//! | `comms_runtime(&id).await` | [`comms_runtime`](crate::SessionService::comms_runtime) | [`LocalComms`](crate::LocalComms) comes with the crate |
//! | `wait_session_registered().await` | [`wait_session_registered`](crate::EphemeralSessionService::wait_session_registered) | counts registrations, so none is missed; takes a timeout |
//! | `shutdown().await` | [`shutdown`](crate::EphemeralSessionService::shutdown) | joins the threads in time, or reports the stuck sessions |
//! | `PersistentSessionService::new(builder, max, store)` | `store::PersistentSessionService`, with the feature `store` | resumes sessions; a result is returned only after its turn is on disk |
//! | `run_host_mode` of the agent | [`host_mode`](crate::StartTurnRequest#structfield.host_mode) of the request, [`SessionAgent::run_interaction`] | the library waits for interactions, the agent answers them |
//! | `SessionAgentBuilder::Agent: Send` | no bound | see [below](#hosting-agents-that-are-not-send) |
//! | a panic leaves the session busy | [`SessionError::Faulted`] | the session can be read, exported and archived |
//!
//! [`EphemeralSessionService::new`]: crate::EphemeralSessionService::new
//! [`create_session`]: crate::SessionService::create_session
//! [`begin_session`]: crate::SessionService::begin_session
//! [`open_session`]: crate::SessionService::open_session
//! [`start_turn`]: crate::SessionService::start_turn
//! [`begin_turn`]: crate::SessionService::begin_turn
//! [`stream_turn`]: crate::SessionService::stream_turn
//! [`TurnHandle`]: crate::TurnHandle
//! [`interrupt`]: crate::SessionService::interrupt
//! [`interrupt_turn`]: crate::SessionService::interrupt_turn
//! [`CancelToken`]: crate::CancelToken
//! [`SessionAgent::cancel`]: crate::SessionAgent::cancel
//! [`SessionAgent::run_interaction`]: crate::SessionAgent::run_interaction
//! [`read`]: crate::SessionService::read
//! [`list`]: crate::SessionService::list
//! [`archive`]: crate::SessionService::archive
//! [`archive_with`]: crate::SessionService::archive_with
//! [`archive_wait`]: crate::SessionService::archive_wait
//! [`export_session`]: crate::SessionService::export_session
//! [`export_session_timeout`]: crate::SessionService::export_session_timeout
//! [`take_session`]: crate::SessionService::take_session
//! [`SessionError::Faulted`]: crate::SessionError::Faulted
//!
//! An agent whose model call is async can block on that call: its session thread is there to be blocked. A small
//! executor for one future is enough. To let an interrupt end the call, select over
//! [`CancelToken::cancelled`](crate::CancelToken::cancelled), or abort the call in a hook
//! ([`on_cancel`](crate::CancelToken::on_cancel)).
//!
//! An async program should use an async service. If it must use this one, make the calls in `spawn_blocking` or on
//! other threads that may block. Forward the end of a turn from a thread that waits for it.
//!
//! # Testing your agent
//!
//! [`run_turn`](crate::SessionAgent::run_turn) needs a [`TurnContext`](crate::TurnContext), and only a service makes
//! one. So test the agent in a service. A service is cheap to make, and the test runs the code that the program runs.
//!
//! ```
//! use std::time::Duration;
//! use turnwise::{agent_fn, AgentEvent, CancelReason, CreateSessionRequest, EphemeralSessionService, SessionService};
//!
//! // The agent under test: emits each word, and sleeps after it.
//! let agent = || agent_fn(|prompt, turn| {
//!     for word in prompt.split(' ') {
//!         turn.emit(AgentEvent::TextDelta { delta: word.to_owned() })?;
//!         turn.sleep(Duration::from_millis(1))?;
//!     }
//!     Ok(turn.finish(prompt))
//! });
//!
//! // The answer, and the events before it.
//! let service = EphemeralSessionService::new(agent(), 1);
//! let mut words = Vec::new();
//! let answer = service.create_session_with(CreateSessionRequest::new("one two"), &mut |event| {
//!     if let AgentEvent::TextDelta { delta } = event {
//!         words.push(delta);
//!     }
//! })?;
//! assert_eq!(answer.text, "one two");
//! assert_eq!(words, ["one", "two"]);
//!
//! // The history that the turn leaves.
//! let history = service.take_session(answer.session_id, Duration::from_secs(5))?;
//! assert_eq!(history.messages().len(), 2);
//!
//! // An interrupt stops the turn at any point.
//! let turn = service.begin_session(CreateSessionRequest::new("word ".repeat(1_000_000)))?;
//! turn.interrupt();
//! let error = turn.wait().unwrap_err();
//! assert_eq!(error.cancel_reason(), Some(CancelReason::Interrupted));
//! # Ok::<(), turnwise::SessionError>(())
//! ```
//!
//! Test these cases with every agent: an interrupt during a turn, and a turn after it; a resumed history; two sessions
//! at once; an error of a dependency; an empty prompt, and a huge one.
//!
//! For the program around the agents, use the feature `testkit`: gates that hold a turn at a chosen point, a clock
//! that the test advances, seeded ids, event recorders. With these tools no test needs a sleep. See
//! `turnwise::testkit`.
//!
//! # Keeping a service in a struct
//!
//! A service is generic over its builder, and a closure's type has no name. There are three ways to keep a service in a
//! struct. To share a service among threads, clone it: it is a handle, and needs no `Arc` and no lock.
//!
//! **As a trait object**, if the struct only makes the calls of a host. [`SessionService`](crate::SessionService) is
//! object-safe. [`ServiceControl`](crate::ServiceControl) adds statistics and shutdown.
//!
//! ```
//! use std::sync::Arc;
//! use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, ServiceControl, SessionError, SessionId};
//!
//! struct App {
//!     sessions: Arc<dyn ServiceControl>,
//!     current: Option<SessionId>,
//! }
//!
//! impl App {
//!     fn new() -> Self {
//!         let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
//!         Self { sessions: Arc::new(EphemeralSessionService::new(agent, 8)), current: None }
//!     }
//!
//!     fn say(&mut self, text: &str) -> Result<String, SessionError> {
//!         let answer = self.sessions.create_session(CreateSessionRequest::new(text))?;
//!         self.current = Some(answer.session_id);
//!         Ok(answer.text)
//!     }
//! }
//!
//! assert_eq!(App::new().say("hello")?, "hello");
//! # Ok::<(), turnwise::SessionError>(())
//! ```
//!
//! **With a builder type of your own**, if the builder has a configuration: the field is an
//! `EphemeralSessionService<MyBuilder>`. **With a boxed agent**, if the builder is a closure that must be named: an
//! `Arc<dyn SessionAgentBuilder<Agent = Box<dyn SessionAgent>>>` is a builder.
//!
//! ```
//! use std::sync::Arc;
//! use turnwise::{agent_fn, builder_fn, EphemeralSessionService, SessionAgent, SessionAgentBuilder};
//!
//! type AnyBuilder = Arc<dyn SessionAgentBuilder<Agent = Box<dyn SessionAgent>>>;
//!
//! struct App {
//!     sessions: EphemeralSessionService<AnyBuilder>,
//! }
//!
//! let echo = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
//! let builder: AnyBuilder = Arc::new(builder_fn(move |spec, session| {
//!     Ok(Box::new(echo.build_agent(spec, session)?) as Box<dyn SessionAgent>)
//! }));
//! let app = App { sessions: EphemeralSessionService::new(builder, 8) };
//! # drop(app.sessions);
//! ```
//!
//! An agent that holds a handle of its own service keeps that service alive for ever. It should hold a
//! [`WeakService`](crate::WeakService) instead, which [`SessionContext::service`](crate::SessionContext::service)
//! returns.
//!
//! # Using sub-agents
//!
//! A sub-agent is a session of its own. An agent begins one with
//! [`TurnContext::sub_session`](crate::TurnContext::sub_session): it ends with the agent's turn, is interrupted with it,
//! and has at most the time that remains to it. [`TurnContext::wait_any`](crate::TurnContext::wait_any) waits for the
//! first of several. For sessions that outlive the turn there is
//! [`TurnContext::service`](crate::TurnContext::service), whose waits belong to the turn on all of its threads. The
//! service that an agent keeps from its build does so on the session thread only. `examples/sub_agents.rs` asks three
//! sub-agents under a deadline, and keeps what is there in time.
//!
//! # Which limits to set
//!
//! | Limit | Default | Set it |
//! |---|---|---|
//! | [`max_sessions`](crate::ServiceConfig::max_sessions) | 64, or the argument of `new` | always: it bounds the program's memory and threads. An idle session takes 40 KiB plus its agent |
//! | [`max_running_turns`](crate::ServiceConfig::max_running_turns) | none | to the number of cores if turns compute; leave it unset if turns wait for a model or a person |
//! | [`timeout`](crate::StartTurnRequest#structfield.timeout) of a request | none | if no user can interrupt the turn. It stops only agents that check their token |
//! | [`stack_size`](crate::ServiceConfig::stack_size) | 2 MiB | higher for agents that recurse, such as interpreters; lower for ten thousand sessions |
//! | [`inbox_capacity`](crate::ServiceConfig::inbox_capacity) | 256 | to the backlog at which senders should get an error |
//! | [`turn_queue`](crate::ServiceConfig::turn_queue) | 16 | to the turns that may wait for one busy session, if requests [queue](crate::WhenBusy); 0 if none may |
//! | [`event_history`](crate::ServiceConfig::event_history) | 0 | if subscribers reconnect and replay missed events |
//! | [`idle_threads`](crate::ServiceConfig::idle_threads) | 4 | to 0 if a session's end must drop its thread-local values |
//! | [`Subscription::capacity`](crate::Subscription::capacity) | 1,024 | together with the [overflow](crate::Overflow): for a display drop old events, for a log block |
//! | your own event channel | as you create it | bounded: a full channel blocks the turn, so a slow reader cannot fill the memory |
//!
//! Three limits in this table make a turn wait: the running permits, the room in an event channel, and the room of a
//! subscriber with [`Overflow::Block`](crate::Overflow::Block). A turn lends its permit in each wait through its
//! [context](crate::TurnContext): [`sleep`](crate::TurnContext::sleep), [`recv`](crate::TurnContext::recv),
//! [`request_input`](crate::TurnContext::request_input), or [`without_permit`](crate::TurnContext::without_permit) for
//! any other wait. A turn whose request says so ([`WhenBusy::Queue`](crate::WhenBusy::Queue)) also waits for the turns
//! before it. Beyond a limit a call fails at once:
//! [`CapacityExceeded`](crate::SessionError::CapacityExceeded), [`Busy`](crate::SessionError::Busy),
//! [`QueueFull`](crate::SessionError::QueueFull), [`InjectError::Full`](crate::InjectError::Full). The program decides
//! whether to retry, and for how long; [`try_begin_turn`](crate::SessionService::try_begin_turn) gives the request back.
//! To wait for
//! capacity instead, [`reserve`](crate::EphemeralSessionService::reserve) it with a timeout, and pass the
//! [`Reservation`](crate::Reservation) to the create.
//!
//! # Hosting agents that are not `Send`
//!
//! All threads share the builder, so it is `Send + Sync`. The agent that it builds never leaves its session thread. So
//! the agent may hold an `Rc`, an interpreter, a window, or a C library's handle that belongs to one thread. Create
//! these values in [`build_agent`](crate::SessionAgentBuilder::build_agent), not before.
//!
//! ```
//! use std::cell::RefCell;
//! use std::collections::HashMap;
//! use std::rc::Rc;
//! use turnwise::{builder_fn, AgentError, CreateSessionRequest, EphemeralSessionService};
//! use turnwise::{RunResult, Session, SessionAgent, SessionService, StartTurnRequest, TurnContext};
//!
//! /// An interpreter of assignments. It holds the variables in an `Rc`, so it is not `Send`.
//! struct Interpreter {
//!     variables: Rc<RefCell<HashMap<String, String>>>,
//!     history: Session,
//! }
//!
//! impl SessionAgent for Interpreter {
//!     fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
//!         if let Some((name, value)) = prompt.split_once('=') {
//!             self.variables.borrow_mut().insert(name.to_owned(), value.to_owned());
//!             return Ok(turn.finish("done"));
//!         }
//!         let value = self.variables.borrow().get(&prompt).cloned();
//!         Ok(turn.finish(value.ok_or_else(|| AgentError::Config(format!("no variable '{prompt}'")))?))
//!     }
//!
//!     fn session_clone(&self) -> Session {
//!         self.history.clone()
//!     }
//! }
//!
//! let service = EphemeralSessionService::new(
//!     builder_fn(|spec, _| {
//!         let history = spec.history();
//!         Ok(Interpreter { variables: Rc::default(), history })
//!     }),
//!     4,
//! );
//! let id = service.create_session(CreateSessionRequest::new("x=42"))?.session_id;
//! assert_eq!(service.start_turn(id, StartTurnRequest::new("x"))?.text, "42");
//! # Ok::<(), turnwise::SessionError>(())
//! ```
//!
//! Agents of several kinds in one service are `Box<dyn SessionAgent>`, which is an agent too. Builders of several
//! kinds are `Arc<dyn SessionAgentBuilder<Agent = Box<dyn SessionAgent>>>`.
//!
//! Some libraries need a set-up on every thread that uses them (`CoInitialize`, an OpenGL context, a thread-local
//! interpreter). Set them up in `build_agent` and tear them down in the agent's `Drop`: both run on the session
//! thread. If such a library leaves thread-local values behind,
//! [`idle_threads(0)`](crate::ServiceConfig::idle_threads) gives every session a new thread.
//!
//! An agent cannot run on *the main thread*, as some windowing systems require. Let the agent send requests to the
//! main thread over a channel, and wait for the answers and the turn's token in one `select!`.
//!
//! # What to do at shutdown
//!
//! A program need not shut down its services before it exits: the end of the process ends all threads at once. The drop
//! of the last handle closes every session and cancels every turn, and waits for none.
//!
//! If agents have work to finish (a file, a transaction, a connection), shut down in this order:
//!
//! ```
//! use std::time::Duration;
//! use turnwise::{agent_fn, ArchiveMode, EphemeralSessionService, SessionService, SessionSpec};
//!
//! let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
//! # let id = service.open_session(SessionSpec::new())?;
//!
//! // 1. Export the histories that you need, while the sessions exist. A `PersistentSessionService` has saved them.
//! let history = service.export_session_timeout(id, Duration::from_secs(1)); // an error if a turn takes longer
//!
//! // 2. Refuse new work; running turns may finish within the timeout.
//! let mut report = service.shutdown_with(ArchiveMode::Drain, Duration::from_secs(5));
//!
//! // 3. Cancel the turns that have not finished.
//! if !report.stuck.is_empty() {
//!     report = service.shutdown(Duration::from_secs(2));
//! }
//!
//! // 4. The remaining agents ignore their tokens. Report them: the end of the process ends them.
//! for id in report.stuck {
//!     eprintln!("session {id} does not end");
//! }
//! # drop(history);
//! # Ok::<(), turnwise::SessionError>(())
//! ```
//!
//! The thread that handles signals can do the same: `shutdown` may be called from any thread, and more than once.
//!
//! A host may unload the agents' code, such as a plugin's library. Before that it must see no stuck session, and
//! [`ServiceStats::threads`](crate::ServiceStats::threads) at 0. The documentation of
//! [`shutdown`](crate::EphemeralSessionService::shutdown) lists which other values the host must drop first.
