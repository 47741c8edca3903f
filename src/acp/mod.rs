//! A service as an agent of the [Agent Client Protocol](https://agentclientprotocol.com), which editors speak. With the
//! feature `acp`.
//!
//! An editor starts the agent as a child process. Both sides exchange lines of JSON-RPC over standard input and output.
//! [`serve`] speaks version 1 of the protocol for any [`AcpService`], until the client ends the connection:
//!
//! ```no_run
//! use turnwise::acp::{serve, AcpClients, AcpConfig};
//! use turnwise::{agent_fn, EphemeralSessionService};
//!
//! let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt.to_uppercase()))), 8);
//! let clients = AcpClients::new();
//! serve(service, AcpConfig::new(clients), std::io::stdin(), std::io::stdout())?;
//! # Ok::<(), turnwise::acp::AcpError>(())
//! ```
//!
//! The [guide](crate::guide::acp) has the mapping of events, the input requests, and a longer example. Nothing but the
//! protocol may be written to `output`: a program that prints to standard output breaks the connection.
//!
//! # What a client can do
//!
//! | Method | What happens |
//! |---|---|
//! | `session/new` | opens a session; its working directory is the label [`CWD_LABEL`] |
//! | `session/load`, `session/resume` | makes a session live; `load` also replays its history as updates |
//! | `session/list` | lists the sessions that have the label [`CWD_LABEL`] |
//! | `session/prompt` | runs a turn; its events become updates |
//! | `session/cancel`, `$/cancel_request` | interrupts the prompts of a session, or one prompt |
//! | `session/close` | cancels the prompts of a session and unloads it; it is not archived |
//! | `session/delete` | cancels the prompts of a session and deletes it |
//!
//! An agent calls its client through an [`AcpClient`]: files of the editor with their unsaved changes, and terminals.
//!
//! # Threads
//!
//! All calls block; there is no async runtime. Apart from the session threads of the service there are these threads:
//!
//! ```text
//!  client ──lines──▶ reader ──────── commands ────────▶ worker (one per active session)
//!                      │  cancel: interrupts              │ begins turns, reads their events,
//!                      │  replies: answers the waiters    │ makes updates, waits for results
//!                      ▼                                  ▼
//!                   PendingCalls ◀── AcpClient ──▶     Outbox ────▶ writer ──lines──▶ client
//!                                 (session threads)   (one queue)
//! ```
//!
//! - The caller of [`serve`] waits for the end of the connection, and then ends everything else.
//! - The *reader* (`dispatch`) splits the input into lines (`frame`), classifies them (`message`) and passes requests on.
//!   It waits for no session and no disk, so a cancellation is not delayed by a build.
//! - A *worker* (`worker`) owns one session's part of the connection, from the `new`, `load` or `resume` to the end. It
//!   carries out the commands of its session in their order. A list of sessions has a short-lived thread of its own.
//! - A cancellation that finds a turn has a short-lived thread, on which the cancel hooks of the turn run. So a hook that does
//!   not return delays no other session, and not the end of the connection. The shutdown has such a thread too.
//! - The *writer* (`outbox`) owns the output. The order of its queue is the order of the lines. A worker puts the updates
//!   of a prompt into the queue before the answer, so the client sees them in this order.
//!
//! # Ownership
//!
//! `Connection` (`dispatch`) has the service and the table of active sessions. The workers share it; the
//! reader has a weak reference, because a reader that waits for input cannot be stopped. `Link` (`link`) has what
//! needs no service: the outbox, the calls that wait for a reply, the client's capabilities, and the end of the
//! connection. [`AcpClients`] maps each session to a weak reference of the link that loaded it. An [`AcpClient`] looks
//! its link up for every call, so an agent finds the connection in every build, and also after another load.
//!
//! # Back-pressure
//!
//! An update takes one of a fixed number of places in the queue of the writer. If the client does not read, the worker
//! waits for a place, then the event channel of the turn is full, and then the turn waits in `emit` without a permit.
//! Three things end the wait of a worker: a place, the end of its turn, and the end of the connection. An interrupt ends
//! the turn, because a cancelled turn does not wait for its event channel. The worker then puts the rest of the events
//! above the limit, which is bounded by the capacity of the channel, and the answer behind them.
//!
//! # Cancellation
//!
//! A prompt is in the list of its session from the moment in which the reader has read it. A cancellation marks every
//! prompt of the list, and then interrupts those whose turns have begun, the latest first. So no queued turn starts
//! between two interrupts. The worker checks the mark after it has begun a turn:
//!
//! ```text
//! reader                           worker                          without the second check
//!                                  takes the prompt; no mark
//! marks it; it has no turn yet
//!                                  begins the turn
//!                                  stores the turn; sees the mark  the turn runs on,
//!                                  interrupts the turn             and the cancellation is lost  ✗
//! ```
//!
//! The mark decides the answer: a marked prompt is answered as `cancelled`, however its turn has ended. A prompt gives its
//! turn away once, to the first cancellation that finds it or to the worker. So there are no more threads that interrupt
//! than prompts.
//!
//! # The end
//!
//! The end of the input or a failed write ends the connection. [`serve`] then cancels all prompts, answers the calls of
//! agents, waits for the workers, shuts the service down, and writes what is in the queue, all within
//! [`AcpConfig::grace`]. What has not ended by then is abandoned: a thread that waits for input or output cannot be
//! stopped, and ends with the process.
//!
//! # A service that unloads sessions
//!
//! The service may unload a session that its client has open. The worker does not notice: it begins each turn by the id of
//! the session, and the service resumes it. The entry in [`AcpClients`] stays, so the new agent finds the client. It is
//! removed by the close, and not by the end of a life.
//!
//! **Invariants.**
//! - Every request gets exactly one answer, unless the connection ends first.
//! - The reader never waits for a session. It waits for room only if the client leaves many refusals unread, and then at
//!   most for the grace. After that the connection ends.
//! - The queue of the writer is bounded: updates, refusals, and the answers of accepted requests take places. Each thread of
//!   an agent has one call in it at most, beside the releases of its terminals.
//! - No record of the log has text of the client, not even the name of a method.

mod client;
mod config;
mod content;
mod dispatch;
mod frame;
mod input;
mod link;
mod listing;
mod message;
mod outbox;
mod pending;
mod prompts;
mod replay;
mod serve;
mod service;
mod stop;
mod updates;
mod worker;

pub use agent_client_protocol_schema::v1 as schema;
pub use client::{AcpClient, AcpClients, CallError, Terminal};
pub use config::{AcpConfig, AcpError, ToolDisplay};
pub use serve::serve;
pub use service::AcpService;
pub use updates::update_event;

/// The label with the working directory of a session. `session/list` finds a session by it, and lists no session without
/// it.
pub const CWD_LABEL: &str = "acp.cwd";

/// The label with the title of a session in `session/list`. A host may set it; the module does not.
pub const TITLE_LABEL: &str = "acp.title";
