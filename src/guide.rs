//! How to: questions that come up with a first program, and with the second.
//!
//! - [Coming from an async session service](#coming-from-an-async-session-service)
//! - [Testing your agent](#testing-your-agent)
//! - [Which limits to set](#which-limits-to-set)
//! - [Hosting agents that are not `Send`](#hosting-agents-that-are-not-send)
//! - [What to do at shutdown](#what-to-do-at-shutdown)
//!
//! # Coming from an async session service
//!
//! This crate has the shape of `meerkat-session` 0.3, so that a program can change over call by call. What was `await`ed there
//! blocks here, or has a sibling that does not.
//!
//! | There | Here | What is different |
//! |---|---|---|
//! | `EphemeralSessionService::new(builder, max)` | [`EphemeralSessionService::new`], or [`configure`](crate::EphemeralSessionService::configure) | a cheap handle to clone: no `Arc` around it |
//! | `create_session(req).await` | [`create_session`]; [`begin_session`] returns before the agent is built | the id is there before the build, so a session that is being built can be interrupted and archived |
//! | | [`open_session`] | a session without a first turn |
//! | `start_turn(&id, req).await` | [`start_turn`]; [`begin_turn`] gives a [`TurnHandle`] to poll, wait for, select over | `Busy` at once, as there |
//! | `tokio::spawn(start_turn(..))` | [`begin_turn`] | the turn is admitted when the call returns, and the handle may be dropped |
//! | `event_tx: mpsc::Sender` | [`event_tx`](crate::StartTurnRequest#structfield.event_tx): a crossbeam sender; or [`stream_turn`], which is an iterator | no task in between; the receiver ends with the turn |
//! | `interrupt(&id).await` | [`interrupt`] | does not wait for the turn; [`interrupt_turn`] never hits the next one |
//! | `SessionAgent::cancel` to stop a turn | the turn's [`CancelToken`]; [`SessionAgent::cancel`] rolls back afterwards | an agent is never called while it runs |
//! | `read(&id).await`, `list(query).await` | [`read`], [`list`] | do not wait for a turn, nor for anything else |
//! | `archive(&id).await` | [`archive`]; [`archive_with`] to cancel the turn; [`archive_wait`] to wait for the end | capacity comes back when the agent is dropped |
//! | `export_session(&id).await` | [`export_session`], [`export_session_timeout`]; [`take_session`] archives as well | |
//! | `event_injector(&id).await` | [`event_injector`](crate::SessionService::event_injector) | every session has an inbox |
//! | `comms_runtime(&id).await` | [`comms_runtime`](crate::SessionService::comms_runtime) | [`LocalComms`](crate::LocalComms) comes with the crate |
//! | `wait_session_registered().await` | [`wait_session_registered`](crate::EphemeralSessionService::wait_session_registered) | counts, so that none is missed; with a timeout |
//! | `shutdown().await` | [`shutdown`](crate::EphemeralSessionService::shutdown) | joins the threads in time, or says who is stuck |
//! | `PersistentSessionService::new(builder, max, store)` | `store::PersistentSessionService`, with the feature `store` | resumes sessions; an answered turn is on the disk |
//! | `run_host_mode` of the agent | [`host_mode`](crate::StartTurnRequest#structfield.host_mode) of the request, [`SessionAgent::run_interaction`] | the library waits, the agent answers |
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
//! An agent whose model call is async stays so: it blocks on the call, on its session's thread, which is there to be blocked. A
//! small executor for one future will do. To have an interrupt end the call, select over
//! [`CancelToken::cancelled`](crate::CancelToken::cancelled), or abort it in a hook
//! ([`on_cancel`](crate::CancelToken::on_cancel)).
//!
//! A program that is async itself should stay with an async service. If it has to have this one, its calls belong where
//! blocking calls belong (`spawn_blocking`), and a turn's end can be passed on from a thread that waits.
//!
//! # Testing your agent
//!
//! An agent is a value with a method, but the method wants a [`TurnContext`](crate::TurnContext), and only a service makes one.
//! That is no detour: a service costs nothing to make, and its test is that of the real thing.
//!
//! ```
//! use std::time::Duration;
//! use turnwise::{agent_fn, AgentEvent, CancelReason, CreateSessionRequest, EphemeralSessionService, SessionService};
//!
//! // The agent under test: says each word, and takes its time.
//! let agent = || agent_fn(|prompt, turn| {
//!     for word in prompt.split(' ') {
//!         turn.emit(AgentEvent::TextDelta { delta: word.to_owned() })?;
//!         turn.sleep(Duration::from_millis(1))?;
//!     }
//!     Ok(turn.finish(prompt))
//! });
//!
//! // What it answers, and what it says on the way.
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
//! // What is left in its history, and that it goes on from one.
//! let history = service.take_session(answer.session_id, Duration::from_secs(5))?;
//! assert_eq!(history.messages().len(), 2);
//!
//! // That it stops when it is told to, wherever it is.
//! let turn = service.begin_session(CreateSessionRequest::new("word ".repeat(1_000_000)))?;
//! turn.interrupt();
//! let error = turn.wait().unwrap_err();
//! assert_eq!(error.cancel_reason(), Some(CancelReason::Interrupted));
//! # Ok::<(), turnwise::SessionError>(())
//! ```
//!
//! Worth a test of its own in every agent: an interrupt in the middle and a turn after it; a resumed history; two sessions at
//! once; an error of what it stands on; a prompt that is empty, and one that is huge.
//!
//! For the program around the agents there is the feature `testkit`: gates that hold a turn where the test wants it, a clock
//! that the test advances, ids by a seed, recorders of events. With it no test needs a sleep. `turnwise::testkit` teaches it.
//!
//! # Which limits to set
//!
//! | Limit | Default | Set it |
//! |---|---|---|
//! | [`max_sessions`](crate::ServiceConfig::max_sessions) | 64, or what `new` is given | always: it is how much memory and how many threads the program may take. An idle session is 40 KiB and its agent |
//! | [`max_running_turns`](crate::ServiceConfig::max_running_turns) | none | to the number of cores where turns compute; not at all where they wait for a model or a person |
//! | [`timeout`](crate::StartTurnRequest#structfield.timeout) of a request | none | where nobody is there to interrupt. It reaches agents that heed their token; those that do not, nothing reaches |
//! | [`stack_size`](crate::ServiceConfig::stack_size) | 2 MiB | up for agents that recurse (interpreters), down for ten thousand sessions |
//! | [`inbox_capacity`](crate::ServiceConfig::inbox_capacity) | 256 | to what a session may fall behind by, before its senders are told |
//! | [`event_history`](crate::ServiceConfig::event_history) | 0 | where subscribers come back and want to know what they have missed |
//! | [`idle_threads`](crate::ServiceConfig::idle_threads) | 4 | to 0 where a session's end has to take its thread-local values along |
//! | [`Subscription::capacity`](crate::Subscription::capacity) | 1,024 | with the [overflow](crate::Overflow) that suits the reader: a display drops old events, a log blocks |
//! | an event channel of your own | yours | bounded: a full one makes the turn wait, which is what keeps a slow reader from filling the memory |
//!
//! Turns wait for a permit to run, and for room in an event channel and with a subscriber that blocks. For nothing else in this table
//! does anybody wait: what is refused is refused at once, by an error, and never queued: [`CapacityExceeded`](crate::SessionError::CapacityExceeded),
//! [`Busy`](crate::SessionError::Busy), [`InjectError::Full`](crate::InjectError::Full). Whether to wait, and for how long, is the
//! program's to decide.
//!
//! # Hosting agents that are not `Send`
//!
//! A builder is shared by all threads, so it is `Send + Sync`. What it builds never leaves the thread that builds it, so that may
//! hold an `Rc`, an interpreter, a window, a handle of a C library that belongs to one thread. The one rule: build it in
//! [`build_agent`](crate::SessionAgentBuilder::build_agent), not before.
//!
//! ```
//! use std::cell::RefCell;
//! use std::collections::HashMap;
//! use std::rc::Rc;
//! use turnwise::{builder_fn, AgentError, CreateSessionRequest, EphemeralSessionService};
//! use turnwise::{RunResult, Session, SessionAgent, SessionService, StartTurnRequest, TurnContext};
//!
//! /// An interpreter of assignments, whose variables are shared by parts of it: not `Send`.
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
//! Agents of several kinds in one service are `Box<dyn SessionAgent>`, which is an agent too; builders of several kinds are
//! `Arc<dyn SessionAgentBuilder<Agent = Box<dyn SessionAgent>>>`.
//!
//! A library that wants to be set up once on every thread that uses it (`CoInitialize`, an OpenGL context, a thread-local
//! interpreter) is set up in `build_agent` and torn down in the agent's `Drop`: both run on the session's thread. Where it leaves
//! thread-local values behind, [`idle_threads(0)`](crate::ServiceConfig::idle_threads) gives every session a thread that nobody
//! has used before.
//!
//! What has to be on *the main thread*, as some windowing systems want it, cannot be an agent. Let the agent send it requests over
//! a channel, and wait for the answers with the turn's token in the same `select!`.
//!
//! # What to do at shutdown
//!
//! Nothing, in a program that just ends: a process takes its threads along, whatever they are doing. The last handle's drop
//! closes every session and cancels every turn, and waits for none.
//!
//! Where agents have something to finish (a file, a transaction, a connection), in this order:
//!
//! ```
//! use std::time::Duration;
//! use turnwise::{agent_fn, ArchiveMode, EphemeralSessionService, SessionService, SessionSpec};
//!
//! let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
//! # let id = service.open_session(SessionSpec::new())?;
//!
//! // 1. What is worth keeping, while the sessions are there. With the feature `store` that is done already.
//! let history = service.export_session_timeout(id, Duration::from_secs(1)); // an error where a turn takes longer
//!
//! // 2. No new work from here on; turns that run may finish, for as long as people will wait.
//! let mut report = service.shutdown_with(ArchiveMode::Drain, Duration::from_secs(5));
//!
//! // 3. What has not finished is told to stop.
//! if !report.stuck.is_empty() {
//!     report = service.shutdown(Duration::from_secs(2));
//! }
//!
//! // 4. What is left heeds nothing. Say so: the process will end it.
//! for id in report.stuck {
//!     eprintln!("session {id} does not end");
//! }
//! # drop(history);
//! # Ok::<(), turnwise::SessionError>(())
//! ```
//!
//! In a signal handler's thread the same: `shutdown` may be called from any, and twice. A host that unloads the agents' code, a
//! plugin's library, may do so when nobody is stuck and [`ServiceStats::threads`](crate::ServiceStats::threads) is 0, and not before:
//! [`shutdown`](crate::EphemeralSessionService::shutdown) says what else may hold values of it.
