//! Hosts stateful, turn-based agents in programs that block: one OS thread per session, no async runtime.
//!
//! An *agent* keeps a state and answers prompts: a conversation with a language model, a script interpreter, a game
//! master, an assistant with tools. A *session* hosts one agent. A *turn* is one prompt and its answer. The crate
//! serves command-line tools, GUIs, game loops, plugins, embedded hosts and tests, and uses nothing but threads.
//!
//! The concepts, in reading order:
//!
//! # Service
//!
//! [`EphemeralSessionService`] hosts sessions: it gives each an id and a thread, and limits their number. It is a
//! cheap handle; its clones share one service. Its calls form the trait [`SessionService`]. A reference, box or `Arc`
//! of a service implements the trait too, so a program can be written against `&dyn SessionService`.
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
//! A session is one OS thread that builds an agent, runs its turns one at a time, and drops it. The session holds one
//! unit of the service's capacity from its creation until its thread holds nothing of it. Afterwards the thread may
//! serve another session. [`ServiceConfig::idle_threads`] describes this reuse and can turn it off.
//!
//! [`create_session`](SessionService::create_session) builds the agent and runs the first turn.
//! [`open_session`](SessionService::open_session) builds the agent and runs no turn.
//! [`begin_session`](SessionService::begin_session) returns before the agent is built, for programs that must not
//! block. [`read`](SessionService::read) and [`list`](SessionService::list) never wait for a turn. A create never waits
//! for capacity. [`reserve`](EphemeralSessionService::reserve) does, and a later create spends the [`Reservation`].
//!
//! [`export_session`](SessionService::export_session) returns the history as a [`Session`].
//! [`SessionSpec::resume`](SessionSpec#structfield.resume) starts a session from it, in this process or another.
//! [`archive`](SessionService::archive) ends a session. [`take_session`](SessionService::take_session) exports and
//! archives in one step.
//!
#![doc = include_str!("../docs/states.svg")]
//!
//! # Agent
//!
//! The host implements [`SessionAgent`], and a [`SessionAgentBuilder`] that builds one agent for each session. For
//! small agents [`agent_fn`] does both. An agent is built, run and dropped on its session thread, so it need not be
//! `Send`: it may hold an `Rc`, a script engine, or a handle that belongs to one thread. An agent may block, because it
//! has a thread of its own.
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
//!         self.history.clone() // shares the messages: constant cost
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
//! A session runs one turn at a time. While one is admitted, every other caller gets [`SessionError::Busy`] at once. A
//! request may say instead that its turn waits in the session's queue, or supersedes the admitted one ([`WhenBusy`]).
//! [`start_turn`](SessionService::start_turn) waits for the result. [`begin_turn`](SessionService::begin_turn) returns
//! a [`TurnHandle`]. The caller can wait for it, poll it in a frame loop, or use it in a `select!`. When the result is
//! available, the session is free for the next turn, and `read` shows the state after this turn.
//!
//! During a turn the agent borrows a [`TurnContext`]: the ids of the session and turn, the cancel token, and the event
//! sender.
//!
#![doc = include_str!("../docs/turn.svg")]
//!
//! # Interrupt
//!
//! [`interrupt`](SessionService::interrupt) sets the turn's [`CancelToken`] and does not wait for the turn. The agent
//! observes the token by [`TurnContext::check`], by emitting an event, in [`TurnContext::sleep`], through a channel in
//! its own `select!`, or by a hook that aborts a blocking call ([`CancelToken::on_cancel`]). The session stays usable.
//! An interrupt of an idle session has no effect on the next turn. An interrupt through a [`TurnHandle`] or by
//! [turn id](SessionService::interrupt_turn) cancels that turn and never another one. A
//! [timeout](StartTurnRequest#structfield.timeout) cancels the turn at a deadline.
//!
//! Cancellation is cooperative. An agent that neither returns nor checks its token keeps its thread and its capacity,
//! and a shutdown reports it as stuck.
//!
//! # Events
//!
//! A turn's [`AgentEvent`]s go straight from the emitting thread into the receiver's channel. The library emits
//! `RunStarted` first and `RunCompleted` or `RunFailed` last; then the channel disconnects. A full channel blocks the
//! turn until there is room or the turn is cancelled. A dropped receiver is logged once, and the turn goes on.
//! [`stream_turn`](SessionService::stream_turn) returns the events as an iterator. With
//! [`event_tx`](StartTurnRequest#structfield.event_tx) the caller passes the sender of its own channel.
//!
//! A turn's receiver ends with the turn. [`subscribe`](SessionService::subscribe) follows a session across turns, and
//! [`subscribe_all`](EphemeralSessionService::subscribe_all) follows all sessions. Both return an [`EventStream`] of
//! [`SessionEvent`]s, each with its sequence number in the session. A [`Subscription`] limits the unread events and
//! chooses what happens beyond the limit ([`Overflow`]).
//!
//! # Inbox and host mode
//!
//! Besides prompts, a session can receive messages, for example from a webhook, a timer or another program. Every
//! session has an inbox. An [`event_injector`](SessionService::event_injector) puts messages into it, from any thread
//! and without waiting. The sender may subscribe to the result of a message. A running turn may take messages out with
//! [`TurnContext::drain_inbox`]. A turn in [host mode](StartTurnRequest#structfield.host_mode) continues after its
//! prompt, and runs each message as an *interaction*, until it is dismissed, cancelled or closed.
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
//! Sessions exchange messages through a [`CommsRuntime`], if their agents [have one](SessionAgent::comms_runtime). In
//! host mode, messages from peers run as interactions too. [`LocalComms`] connects the sessions of one process by name.
//! Sending never blocks: a full or closed peer is an error to the sender.
//!
//! # Errors
//!
//! Calls fail with a [`SessionError`]. It has a stable [`code`](SessionError::code), and the id of the session if it is
//! about one. A failed turn is a [`SessionError::Agent`] with the [`AgentError`] that the agent returned; the session
//! goes on. A panic in an agent faults its session and no other. The turn's caller gets [`SessionError::Faulted`], and
//! the session can still be read, exported and archived. A [`restart`](SessionService::restart) builds its agent again
//! from the last committed history; a [`RestartPolicy`] does so by itself. This needs `panic = "unwind"`, Cargo's default: with
//! `panic = "abort"` a panic in any agent ends the program.
//!
//! An agent may call the service that hosts it ([`TurnContext::service`]), and use other sessions as sub-agents. A
//! cancellation of its turn ends its waits for them, on all of its threads. [`TurnContext::sub_session`] begins a
//! sub-agent that ends with the turn. A wait that would close a cycle of waiting sessions, of any length, fails with
//! [`SessionError::Reentrant`] instead of a deadlock.
//!
//! # Shutdown
//!
//! [`shutdown`](EphemeralSessionService::shutdown) refuses new work, cancels every turn, and joins every thread within
//! its timeout. It reports the sessions that have not ended by then. The drop of the last handle closes every session
//! and cancels every turn, and does not wait.
//!
//! # Keeping sessions
//!
//! An [`EphemeralSessionService`] keeps sessions in memory only. With the feature `store`, the service in the module
//! `store` saves every finished turn before it returns the result. If a session is not live, its next turn resumes it. With
//! the feature `redis`, the module `cluster` has a store on a server that several machines share.
//!
//! # Editors
//!
//! With the feature `acp`, the module `acp` connects a service to an editor, by the Agent Client Protocol over standard
//! input and output. The guide has a page about it.
//!
//! # Tests
//!
//! With the feature `testkit`, the module `testkit` supports the tests of hosts: scripted agents, gates that hold a
//! turn at a chosen point, a clock that the test advances, seeded ids, and event recorders. Its documentation shows
//! how to test an agent without sleeping.
//!
//! # More
//!
//! The [`guide`] answers common questions: how to port from an async session service, how to keep a service in a struct,
//! what to do when a session is busy, how to ask a person, when to retry, how to use sub-agents, how to observe a service,
//! how to test an agent, and others.
//!
//! # Features
//!
//! | Feature | Default | What it adds | Dependencies |
//! |---|---|---|---|
//! | `acp` | no | the module `acp`: a service as an agent for editors, by the Agent Client Protocol | agent-client-protocol-schema, serde, serde_json |
//! | `serde` | no | `Serialize` and `Deserialize` for histories, events, results, and the results of `read` and `list` | serde |
//! | `redis` | no | the module `cluster`: sessions on a Redis or Valkey server, which several machines share | those of `store`, redis |
//! | `redis-tls` | no | connections to that server over TLS, with the system's root certificates or the program's own | rustls |
//! | `store` | no | the module `store`: sessions that outlive the process, in a crash-safe file | serde, serde_json, redb, crc32fast, tempfile |
//! | `testkit` | no | the module `testkit`, for the tests of hosts; a clock and ids for a service | |
//! | `tracing` | no | a span for each session and each turn, entered while the agent's code runs ([how](guide::observing)) | tracing |
//!
//! # Logging
//!
//! The library logs through the `log` crate:
//!
//! - *debug*: the life of sessions and turns (`turnwise::session`), creates and shutdowns (`turnwise::service`).
//! - *debug* and *warn*: the end of a client, and sessions that it leaves stuck (`turnwise::acp`).
//! - *warn*: a dropped event receiver (`turnwise::events`), a failed save or read of a store (`turnwise::store`), a server
//!   that is away, and that is back (`turnwise::cluster`).
//! - *error*: a panic (`turnwise::session`).
//!
//! Prompts, answers, panic messages and the texts of a store's errors are never logged; `Debug` shows at most their
//! lengths. A store's error is logged by its code, and by the kind of the system's error behind it. If a logger panics,
//! only that record is lost.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[cfg(feature = "acp")]
pub mod acp;
mod agent;
mod cancel;
#[cfg(feature = "redis")]
pub mod cluster;
mod comms;
mod context;
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
mod spans;
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
pub use context::service::TurnService;
pub use context::sub_session::SubSession;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use context::turn::Fence;
pub use context::turn::TurnContext;
pub use ephemeral::{EphemeralSessionService, ServiceConfig};
pub use error::{AgentError, BuildError, CancelReason, Cancelled, ConfigError, InputError, LlmFailure, SessionError};
pub use inbox::injector::{EventInjector, InjectError, InteractionSubscription, SubscribableInjector};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use model::RequestId;
pub use model::{
    AgentEvent, AssistantBlock, BudgetType, CallbackPending, EventSource, InboxInteraction, InputId, InputOption,
    InputOutcome, InputRequest, InputResponse, InteractionContent, InteractionId, InvalidId, Labels, Message,
    PendingInput, ResponseStatus, RunResult, Session, SessionEvent, SessionId, SessionSnapshot, SkillId, StopReason,
    ToolResult, TurnId, TurnTimings, Usage,
};
pub use permits::reservation::Reservation;
pub use service::{
    ArchiveMode, CreateSessionRequest, RefusedTurn, RestartPolicy, ServiceControl, ServiceStats, SessionInfo,
    SessionQuery, SessionService, SessionSpec, SessionState, SessionSummary, SessionUsage, SessionView, ShutdownReport,
    StartTurnRequest, WeakService, WhenBusy,
};
pub use subscription::stream::EventStream;
pub use subscription::{Overflow, Subscription};

pub use turn::any::wait_any;
pub use turn::events::EventSender;
pub use turn::handle::TurnHandle;
pub use turn::stream::TurnStream;

/// The channels that carry events. Their receivers fit into the host's own `select!`.
#[cfg(not(turnwise_shuttle))]
pub use crossbeam_channel;

/// The channels that carry events, in a build with `--cfg turnwise_shuttle`: those of crossbeam, but for `select!`, on
/// threads that the model checker schedules.
#[cfg(turnwise_shuttle)]
pub use sync::channels as crossbeam_channel;
