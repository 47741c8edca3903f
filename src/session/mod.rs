//! One session: the half that others hold ([`handle`]), and the thread that runs the agent ([`thread`]).
//!
//! # Who owns what
//!
//! | On the session's thread | Shared with everybody ([`handle::SessionHandle`]) |
//! |---|---|
//! | the agent | the [gate](crate::status::gate): who may run |
//! | the receiving end of the commands | the active entry: whom an interrupt reaches |
//! | the running turn, with its context and guards | the published snapshot: what reads are answered from |
//!
//! # Admission and close
//!
//! A turn is either admitted before the session is closed, and then answered, or it is refused. What decides is one atomic
//! word, the gate; what needs care is the cancel token, which has to be where an interrupt or a close looks for it.
//!
//! ```text
//! begin_turn                           close (archive, shutdown)
//! lock active entry                    gate: set CLOSED
//!   gate: compare-and-swap to RUNNING  lock active entry
//!   put the token there                  copy the token
//! unlock                               unlock
//! send the command                     cancel the token, wake the thread
//! ```
//!
//! If the swap succeeds it came before CLOSED, so the close takes its lock after the admission has released it (the swap
//! happens inside), and finds the token. Without the lock, a close between swap and token would find no token, and the turn
//! would start uncancelled after a shutdown. If the swap fails the turn is refused.
//!
//! The thread ends on CLOSED and not RUNNING. With both it waits: an admitted command is on its way. Were it to end on
//! CLOSED alone, a command sent just then would be answered by nobody.
//!
//! # End of a turn
//!
//! The active entry is cleared *before* the gate. The other way round, the next turn could be admitted in between, and the
//! late end of the last turn would remove the next one's token. The result is given after the gate is free, so that a
//! caller that has it can start the next turn. [`guards::TurnGuards`] states the whole order, and keeps it on every way out.
//!
//! # Reading
//!
//! Gate, published value, gate again, until both looks at the gate agree. Turn numbers only rise, so agreement means that
//! the gate did not change in between, and state and figures are from one instant.

pub(crate) mod command;
pub(crate) mod first;
pub(crate) mod handle;
mod hosting;
pub(crate) mod running;
pub(crate) mod thread;
