//! One session: its shared [handle](handle), and the [session thread](thread), which runs the agent.
//!
//! # Ownership
//!
//! | On the session thread | Shared by all callers ([`handle::SessionHandle`]) |
//! |---|---|
//! | the agent | the [gate](crate::status::gate), which admits turns |
//! | the running turn, with its context and guards | the active entry: the token that an interrupt cancels |
//! | the turn in host mode, between two interactions | the commands, which the session thread takes; the published snapshot, from which reads are answered |
//!
//! # Admission and close
//!
//! A turn is either admitted before the close of the session, and then answered, or it is refused. One atomic word, the
//! gate, decides. An interrupt or a close must also find the turn's cancel token, which is in the active entry:
//!
//! ```text
//! begin_turn                           close (archive, shutdown)
//! lock active entry                    gate: set CLOSED
//!   gate: compare-and-swap to RUNNING  lock active entry
//!   store the token                      copy the token
//! unlock                               unlock
//! send the command                     cancel the token, wake the session thread
//! ```
//!
//! If the compare-and-swap succeeds, it came before CLOSED. It runs under the lock, so the close takes the lock after
//! the admission has released it, and finds the token. Without the lock, a close between swap and token would find no
//! token, and the turn would start uncancelled after a shutdown. If the swap fails, the turn is refused.
//!
//! The session thread ends when the gate is CLOSED and not RUNNING. If it is both, the thread waits for the command of
//! the admitted turn. If the thread ended on CLOSED alone, a command sent just then would not be answered.
//!
//! # End of a turn
//!
//! The active entry is cleared *before* the gate. In the other order, the next turn could be admitted in between, and
//! the end of the last turn would remove the next turn's token. The result is delivered after the gate is free, so that
//! the caller can start the next turn at once. [`running::TurnGuards`] states the whole order, and keeps it on every
//! exit.
//!
//! # Reads
//!
//! A read loads the gate, then the published snapshot, then the gate again, until both loads of the gate agree. Turn
//! numbers only rise, so equal loads mean an unchanged gate: state and figures are from one instant.

pub(crate) mod command;
pub(crate) mod first;
pub(crate) mod handle;
mod hosting;
pub(crate) mod idle;
pub(crate) mod running;
pub(crate) mod thread;
