//! One session: its shared [handle](handle::SessionHandle), and the [session thread](thread), which runs the agent.
//!
//! # Ownership
//!
//! Owned by the session thread:
//!
//! - the agent
//! - the running turn, with its context and its [guards](running::TurnGuards)
//! - the turn in host mode, between two interactions
//! - the takes that wait for the end of a turn
//!
//! Shared by all threads, through the [`SessionHandle`](handle::SessionHandle):
//!
//! - the [gate](crate::status::gate): one atomic word, with the number of the most recently admitted turn and four
//!   flags
//! - the active entry: the cancel token of the admitted turn, or of the build
//! - the command queue: any thread sends a command, the session thread takes it
//! - the published snapshot, from which reads are answered
//! - the inbox, the event bus, and the agent's endpoints for messages
//!
//! # Admission
//!
//! A caller admits a turn with one compare-and-swap at the gate, which sets RUNNING and the next turn number. It then
//! stores the turn's cancel token in the active entry. Both happen under the lock of the active entry. The first turn
//! needs neither step: its gate and its entry are created with it, before any other thread has the handle.
//!
//! # Close
//!
//! A turn is either admitted before the close of its session, and then answered, or it is refused. The gate decides.
//!
//! | Close | Sets CLOSED | The admitted turn |
//! |---|---|---|
//! | `ArchiveMode::Interrupt` | the caller, in any state | is cancelled, by the token in the active entry |
//! | `ArchiveMode::Drain` | the caller, in any state | may finish; the token is not read |
//! | a take | the session thread, if RUNNING is not set | does not exist: a take waits for the end of the turn |
//! | a take in host mode | the session thread, between two interactions | ends with the result so far |
//!
//! After every close the session thread is woken, and the inbox and the bus are closed. A close that cancels must find
//! the token of a turn that is admitted at the same time:
//!
//! ```text
//! begin_turn                               close(Interrupt)
//! lock the active entry                    gate: set CLOSED
//!   gate: compare-and-swap to RUNNING      lock the active entry
//!   store the token                          copy the token, if there is one
//! unlock                                   unlock
//! send the command                         cancel the token, wake the session thread
//! ```
//!
//! - **The lock covers the swap and the token.** A swap that succeeds comes before CLOSED, and its caller holds the
//!   lock. So the close gets the lock after the token is stored, and finds it. Without the lock, a close between the
//!   two steps would find no token. The turn would run uncancelled after a shutdown.
//! - **CLOSED is set before the token is read.** Once CLOSED is set, no turn is admitted. In the other order, a turn
//!   could be admitted after the close has looked for a token and before it sets CLOSED. That turn too would run
//!   uncancelled.
//!
//! # End of the session thread
//!
//! The session thread ends when CLOSED is set and RUNNING is not. Before it ends, it takes the commands that are
//! already in the queue. An export among them still gets the history.
//!
//! While both flags are set, a turn is admitted whose command may not be in the queue yet, and the thread waits for it.
//! If the caller gives the admission up instead, it clears RUNNING and wakes the thread. Without that wake-up the
//! thread would wait forever for a command that no caller sends.
//!
//! If the thread ended on CLOSED alone, it would drop the command of an admitted turn. [Every command answers its
//! caller when it is dropped](command), so no caller would hang. But the turn would not run, and its caller would get
//! `NotFound`.
//!
//! # End of a turn
//!
//! The active entry is cleared first, then RUNNING. In the other order, another thread could admit the next turn in
//! between. The turn that ends would then remove the token of the next one, which no interrupt and no close could
//! cancel any more. The result is delivered after RUNNING is cleared, so that its caller can start the next turn at
//! once. [`running::TurnGuards`] states the whole order, and keeps it on every exit.
//!
//! # Reads
//!
//! A read loads the gate, then the published snapshot, then the gate again, and repeats this until both loads of the
//! gate are equal. The gate never returns to a value that it has left: RUNNING is set only together with a higher turn
//! number, and every other flag changes once. So equal loads mean that the gate has not changed in between, and that
//! state and figures are from one instant.
//!
//! # Not here
//!
//! The registry and the capacity: see [`ephemeral`](crate::ephemeral). The reservation of a session is released after
//! its thread has dropped everything that it owns.

pub(crate) mod command;
pub(crate) mod first;
pub(crate) mod handle;
mod hosting;
pub(crate) mod idle;
pub(crate) mod running;
pub(crate) mod thread;
