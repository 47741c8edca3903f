//! Answers to common questions about programs that use this crate.
//!
//! For the host:
//!
//! - [Coming from an async session service](porting): the calls there, and the calls here.
//! - [Keeping a service in a struct](in_a_struct): a trait object, a builder type, or a boxed agent.
//! - [When a session is busy](busy): refuse, queue or supersede a turn, and wait for a session.
//! - [Asking a person](asking): how a turn asks, and how the host answers.
//! - An agent in an editor (`acp`, with the feature of this name): the Agent Client Protocol.
//! - [Retries and back-off](retries): which errors are worth a retry, and where to retry.
//! - [Which limits to set](limits): capacity, permits, queues, timeouts.
//! - [A service that outlives its process and its memory](lives): kept sessions, unloading, several processes.
//! - [What to do at shutdown](shutdown): in which order.
//! - [Observing a service](observing): statistics, the times of a turn, log records, spans.
//! - [Hosts in other languages](embedding): the C interface, the Python package, and what differs at the border.
//!
//! For the agent:
//!
//! - [Using sub-agents](sub_agents): permits, deadlines, partial results.
//! - [Hosting agents that are not `Send`](not_send): interpreters, windows, handles of C libraries.
//! - [Testing your agent](testing): in a service, without sleeps.

#[cfg(feature = "acp")]
pub mod acp;
pub mod asking;
pub mod busy;
pub mod embedding;
pub mod in_a_struct;
pub mod limits;
pub mod lives;
pub mod not_send;
pub mod observing;
pub mod porting;
pub mod retries;
pub mod shutdown;
pub mod sub_agents;
pub mod testing;
