//! Hosts stateful, turn-based agents in programs that block: one OS thread per session, no async runtime.
//!
//! An *agent* is anything that keeps a state and is asked something again and again: a conversation with a language model,
//! a script interpreter, a game master, an assistant with tools. A *session* is an agent that lives; a *turn* is one prompt
//! and its answer. This crate runs them for command-line tools, GUIs, game loops, plugins, embedded hosts and tests, with
//! nothing but threads.
//!
//! The concepts, in the order in which one meets them:
//!
//! # Service
//!
//! [`EphemeralSessionService`] hosts sessions: it gives them ids, threads and a limit to their number. It is a cheap handle,
//! shared by cloning; its calls are the trait [`SessionService`], which every pointer to a service implements too, so
//! that a program can be written against `&dyn SessionService`.
//!
//! ```
//! use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, StartTurnRequest};
//!
//! let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt.to_uppercase())));
//! let service = EphemeralSessionService::new(agent, 8); // at most 8 sessions at a time
//! let first = service.create_session(CreateSessionRequest::new("hello"))?;
//! let second = service.start_turn(first.session_id, StartTurnRequest::new("again"))?;
//! assert_eq!(second.text, "AGAIN");
//! # Ok::<(), turnwise::SessionError>(())
//! ```
//!
//! # Session
//!
//! A session is one OS thread that builds an agent, runs its turns one at a time, and drops it. It holds a place in the
//! service's capacity from its creation until the thread holds nothing of it any more. Then the thread may serve another
//! session: [`ServiceConfig::idle_threads`] says what that means, and turns it off.
//!
//! [`create_session`](SessionService::create_session) builds and runs the first turn;
//! [`open_session`](SessionService::open_session) only builds; [`begin_session`](SessionService::begin_session) returns
//! before the agent is built, for programs that must not wait. [`read`](SessionService::read) and
//! [`list`](SessionService::list) answer at once, whatever the session is doing.
//! [`export_session`](SessionService::export_session) hands out the history as a [`Session`], which
//! [`SessionSpec::resume`](SessionSpec#structfield.resume) takes back, in this process or another.
//! [`archive`](SessionService::archive) ends a session; [`take_session`](SessionService::take_session) does it with its
//! history in hand.
//!
#![doc = include_str!("../docs/states.svg")]
//!
//! # Agent
//!
//! [`SessionAgent`] is what a user of this crate implements, and [`SessionAgentBuilder`] makes one for each session.
//! For small agents [`agent_fn`] does both. Agents are built, run and dropped on their session's thread, so they need not
//! be `Send`: `Rc`, script engines and handles with thread affinity are welcome. They may block, that is what the thread
//! is for.
//!
//! ```
//! use std::rc::Rc;
//! use turnwise::{builder_fn, AgentError, EphemeralSessionService, Message, RunResult};
//! use turnwise::{Session, SessionAgent, TurnContext};
//!
//! struct Parrot { history: Session, phrases: Vec<Rc<str>> }
//!
//! impl SessionAgent for Parrot {
//!     fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
//!         self.phrases.push(prompt.as_str().into());
//!         let answer = self.phrases.join(" ");
//!         self.history.push_batch([Message::user(prompt), Message::assistant(answer.as_str())]);
//!         Ok(turn.finish(answer))
//!     }
//!
//!     fn session_clone(&self) -> Session {
//!         self.history.clone() // shares the messages: costs the same however many there are
//!     }
//! }
//!
//! let builder = builder_fn(|spec, _| Ok(Parrot { history: spec.history(), phrases: Vec::new() }));
//! let service = EphemeralSessionService::new(builder, 8);
//! # drop(service);
//! ```
//!
//! # Turn
//!
//! Turns of a session do not queue: while one is admitted, everybody else gets [`SessionError::Busy`] at once.
//! [`start_turn`](SessionService::start_turn) waits for the result; [`begin_turn`](SessionService::begin_turn) gives a
//! [`TurnHandle`], to wait for, to poll in a frame loop, or to `select!` over. Once a result is there the session is free
//! for the next turn, and `read` shows what this one has left.
//!
//! The agent is lent a [`TurnContext`]: who it is, whether it should stop, where its events go.
//!
#![doc = include_str!("../docs/turn.svg")]
//!
//! # Interrupt
//!
//! [`interrupt`](SessionService::interrupt) does not wait for the turn that it stops: it sets the turn's [`CancelToken`],
//! wherever the turn is. The agent notices by [`TurnContext::check`], by emitting an event, in
//! [`TurnContext::sleep`], through a channel in its own `select!`, or by a hook that aborts a blocking call
//! ([`CancelToken::on_cancel`]). The session stays usable. An interrupt that comes too late does nothing: it never reaches
//! the next turn. A [timeout](StartTurnRequest#structfield.timeout) is an interrupt by the clock.
//!
//! What cannot be done is stopping code that does not look: an agent that neither returns nor heeds its token keeps its
//! thread, its capacity and its place, and a shutdown reports it.
//!
//! # Events
//!
//! A turn's [`AgentEvent`]s go straight from the emitting thread into the receiver's channel. The library emits
//! `RunStarted` first and `RunCompleted` or `RunFailed` last, then the channel disconnects. A full channel makes the turn
//! wait, until it is interrupted; a dropped receiver is logged once, and the turn goes on.
//! [`stream_turn`](SessionService::stream_turn) gives them as an iterator; with an
//! [`event_tx`](StartTurnRequest#structfield.event_tx) they go to any channel of yours.
//!
//! A turn's receiver ends with the turn. [`subscribe`](SessionService::subscribe) listens to a session across turns, and
//! [`subscribe_all`](EphemeralSessionService::subscribe_all) to all of them: an [`EventStream`] of [`SessionEvent`]s, each
//! with its number in the session. A [`Subscription`] says how many unread events there may be and what happens then
//! ([`Overflow`]).
//!
//! # Inbox and host mode
//!
//! Not everything that reaches an agent is a prompt: a webhook, a timer, a line from another program. Every session has an
//! inbox; [`event_injector`](SessionService::event_injector) puts messages into it, from any thread and without ever
//! waiting, and lets whoever wants to follow what becomes of one. A running turn may look into the inbox with
//! [`TurnContext::drain_inbox`]. A turn in [host mode](StartTurnRequest#structfield.host_mode) stays after its prompt, and
//! runs what arrives as *interactions*, until it is dismissed, interrupted or archived.
//!
//! ```
//! use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, EventSource, SessionService};
//!
//! let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt.to_uppercase()))), 8);
//! let hosting = service.begin_session(CreateSessionRequest::new("hello").host_mode(true))?;
//! let injector = service.event_injector(hosting.session_id()).expect("the session is there");
//!
//! let ping = injector.inject_with_subscription("ping".into(), EventSource::Tcp)?;
//! for event in ping.events {
//!     println!("{event:?}"); // ends with InteractionComplete
//! }
//! injector.dismiss(EventSource::Tcp)?;
//! assert_eq!(hosting.wait()?.text, "PING");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Comms
//!
//! Sessions that converse do so through a [`CommsRuntime`]: an agent that [has one](SessionAgent::comms_runtime) gets what
//! its peers send as interactions too. [`LocalComms`] connects the sessions of one process by name. Sending never waits: a
//! peer that is full or gone is an error to the sender.
//!
//! # Errors
//!
//! Calls fail with a [`SessionError`]: it carries the session's id, and a [`code`](SessionError::code) that does not change
//! between releases. A turn's own failure is in it as [`SessionError::Agent`] with the [`AgentError`] that the agent
//! returned; the session goes on. A panic in an agent faults its session and no other: its caller gets
//! [`SessionError::Faulted`], and the session can still be read, exported and archived. That takes `panic = "unwind"`,
//! Cargo's default: with `panic = "abort"` a panic in any agent ends the program.
//!
//! An agent may call the service that hosts it ([`SessionContext::service`]): other sessions are its sub-agents. Its waits
//! end when its own turn is cancelled, and one that would wait for itself, however long the chain, gets
//! [`SessionError::Reentrant`] instead of a deadlock.
//!
//! # Shutdown
//!
//! [`shutdown`](EphemeralSessionService::shutdown) refuses new work, cancels every turn, joins every thread, and says who
//! is stuck if they do not all end in time. Dropping the last handle does the same without waiting.
//!
//! # Keeping sessions
//!
//! An [`EphemeralSessionService`] is in memory. With the feature `store` there is a service beside it, in the module `store`, that
//! has every finished turn in a file before its result is returned, and resumes sessions that are not live on their next turn.
//!
//! # Tests
//!
//! With the feature `testkit` there is a module `testkit` for the tests of hosts: scripted agents, gates that hold a turn
//! where the test wants it, a clock that the test advances, ids by a seed, and recorders of events. Its documentation teaches how
//! an agent is tested without a sleep.
//!
//! # More
//!
//! The [`guide`] answers what comes up with a first program: how calls of an async session service are said here, how an
//! agent is tested, which limits to set, how agents that are not `Send` are hosted, what to do at shutdown.
//!
//! # Features
//!
//! | Feature | Default | What it adds | Dependencies |
//! |---|---|---|---|
//! | `serde` | no | `Serialize` and `Deserialize` for histories, events, results, and what is read and listed | serde |
//! | `store` | no | the module `store`: sessions that outlive the process, in a file that survives a crash | serde, serde_json, redb, crc32fast |
//! | `testkit` | no | the module `testkit`, for the tests of hosts; a clock and ids for a service | |
//!
//! # Logging
//!
//! Through the `log` crate: the life of sessions and turns at *debug* (target `turnwise::session`, `turnwise::service`),
//! a dropped event receiver at *warn* (`turnwise::events`), what a store could not keep at *warn* (`turnwise::store`), a panic at
//! *error*. Prompts, answers, panic messages and the texts of a store's errors are never logged, and `Debug` shows them by their length;
//! a store's error is logged by its code, and by the kind of the system's error behind it. A logger that panics costs its record only.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod agent;
mod cancel;
mod comms;
mod ephemeral;
mod error;
mod exiting_threads;
pub mod guide;
mod ids;
mod inbox;
mod model;
mod panics;
mod permits;
mod reentrancy;
mod service;
mod session;
mod status;
#[cfg(feature = "store")]
pub mod store;
mod subscription;
mod sync;
#[cfg(feature = "testkit")]
pub mod testkit;
mod time;
mod timers;
mod turn;
mod wait;

#[cfg(test)]
#[path = "../tests/models/mod.rs"]
mod models;

pub use agent::{agent_fn, builder_fn, AgentFn, FnAgent, SessionAgent, SessionAgentBuilder, SessionContext};
pub use cancel::{CancelHook, CancelToken};
pub use comms::local::{LocalComms, LocalPeer, NameTaken};
pub use comms::{CommsError, CommsRuntime};
pub use ephemeral::{EphemeralSessionService, ServiceConfig};
pub use error::{AgentError, BuildError, CancelReason, Cancelled, ConfigError, LlmFailure, SessionError};
pub use inbox::injector::{EventInjector, InjectError, InteractionSubscription, SubscribableInjector};
pub use model::{
    AgentEvent, AssistantBlock, BudgetType, EventSource, InboxInteraction, InteractionContent, InteractionId,
    InvalidId, Labels, Message, ResponseStatus, RunResult, Session, SessionEvent, SessionId, SessionSnapshot, SkillId,
    StopReason, ToolResult, TurnId, Usage,
};
pub use service::{
    ArchiveMode, CreateSessionRequest, ServiceControl, ServiceStats, SessionInfo, SessionQuery, SessionService,
    SessionSpec, SessionState, SessionSummary, SessionUsage, SessionView, ShutdownReport, StartTurnRequest,
    WeakService,
};
pub use subscription::stream::EventStream;
pub use subscription::{Overflow, Subscription};
pub use turn::context::TurnContext;
pub use turn::events::EventSender;
pub use turn::handle::TurnHandle;
pub use turn::stream::TurnStream;

/// The channels that events come through: receivers fit into a `select!` of the host's own.
pub use crossbeam_channel;
