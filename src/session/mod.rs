//! One session: its shared [handle](handle::SessionHandle), and the [session thread](thread), which runs the agent.
//!
//! # Ownership
//!
//! Owned by the session thread:
//!
//! - the agent, and the builder and the specification from which a [restart] builds it again
//! - the running turn, with its context and its [guards](running::TurnGuards)
//! - the turn in host mode, between two interactions
//! - the takes that wait for the end of a turn
//!
//! Shared by all threads, through the [`SessionHandle`](handle::SessionHandle):
//!
//! - the [gate](crate::status::gate): one atomic word, with the number of the most recently accepted turn, a count of
//!   changes and five flags
//! - the [admissions](admission), under one lock: the *active entry*, with the cancel token of the admitted turn or of
//!   the build, and the queue of accepted turns
//! - the command queue: any thread sends a command, the session thread takes it
//! - the published snapshot, from which reads are answered, and the committed history, from which a restart begins
//! - the inbox, the event bus, and the agent's endpoints for messages
//!
//! # Admission
//!
//! A caller admits a turn with one compare-and-swap at the gate, which sets RUNNING and the next turn number. It then
//! stores the turn's cancel token in the active entry. Both happen under the lock of the admissions. The first turn
//! needs neither step: its gate and its entry are created with it, before any other thread has the handle.
//!
//! # The queue
//!
//! A turn of a busy session may be *accepted* without being admitted: it gets the next number and a place in the queue.
//! Later the end of the turn before it hands the admission over. RUNNING stays set from the first turn to the last one:
//!
//! ```text
//! the end of turn 1                        a caller with WhenBusy::Queue      a caller with WhenBusy::Refuse
//! seal its token
//! release its running permit               lock the admissions                lock the admissions
//! lock the admissions                        gate: admit? RUNNING is set        gate: admit? RUNNING is set
//!   a turn is queued?                        gate: compare-and-swap, number+1   Busy, with the entry's turn
//!     yes: take it; store its token          push the turn                    unlock
//!     no: clear the entry and RUNNING      unlock
//! unlock                                   arm its withdrawal
//! yes: send its command
//! answer the caller of turn 1
//! ```
//!
//! - **Queue, entry and RUNNING change under one lock.** A caller that finds RUNNING set pushes its turn before the end
//!   of turn 1 looks into the queue. Otherwise the turn could be pushed after the end has found an empty queue. No thread
//!   would ever start it.
//! - **RUNNING is not cleared between two queued turns.** Otherwise a third caller could be admitted in between, again
//!   and again.
//! - **The entry of turn 1 stays until the entry of turn 2 is stored.** So an interrupt of the session finds one of them at
//!   any time. If it finds turn 1 after the seal, it has come too late, as an interrupt that finds a turn whose agent has
//!   just returned.
//! - **The whole turn exists before it is pushed**, with its deadline and its answer, and its caller has announced its
//!   wait. As soon as the lock is free, another thread may start it.
//!
//! A queued turn is *withdrawn* by the thread that takes it out of the queue, and that thread answers it. Its own cancel
//! token leads there by a hook, which the caller arms after the push. If the token was cancelled before, by a short
//! deadline, the hook runs at once. The hook's guard is dropped with no lock held, because that drop waits for a hook
//! that runs:
//!
//! ```text
//! the end of turn 1                        an interrupt of turn 2 by its handle
//! lock; take turn 2; unlock                token: cancel; run the hook
//! drop the guard of its hook: waits          lock; turn 2 is not queued; unlock
//! send its command                         the interrupt has reached an admitted turn
//! ```
//!
//! Under the lock, the end of turn 1 would wait for the hook, and the hook for the lock.
//!
//! `WhenBusy::Interrupt` pushes to the front and copies the token of the active entry under one lock. It cancels that
//! token afterwards, with no lock held, because the hooks are user code. If turn 1 ends in between, its token is sealed,
//! and the cancellation has no effect on the next turn.
//!
//! The end of a build without a turn hands over too, and ends BUILDING under the same lock. A build that fails takes the
//! queue and closes it before it gives its admission back. Otherwise the admission would pass to a turn that no agent
//! runs.
//!
//! A fault sets FAULTED, and then takes the queue. An accept that comes before FAULTED holds the lock, so the fault finds
//! its turn. A later one is refused by the gate, until a [restart] begins.
//!
//! **Invariants.** CLOSED without RUNNING implies that no turn is queued. Takes are decided only while no turn is queued.
//!
//! # Close
//!
//! A turn is either admitted before the close of its session, and then answered, or it is refused. The gate decides.
//!
//! | Close | Sets CLOSED | The admitted turn |
//! |---|---|---|
//! | `ArchiveMode::Interrupt` | the caller, in any state | is cancelled, by the token in the active entry; queued turns are withdrawn |
//! | `ArchiveMode::Drain` | the caller, in any state | may finish, and the queued turns after it; the token is read only to cancel a [restart] that no turn needs |
//! | a take | the session thread, if RUNNING is not set | does not exist: a take waits for the end of the last turn |
//! | a take in host mode | the session thread, between two interactions, if no turn is queued | ends with the result so far |
//!
//! After every close the session thread is woken, and the inbox and the bus are closed. A close that cancels must find
//! the token of a turn that is admitted at the same time:
//!
//! ```text
//! begin_turn                               close(Interrupt)
//! lock the admissions                      gate: set CLOSED
//!   gate: compare-and-swap to RUNNING      lock the admissions
//!   store the token, or push the turn        copy the token, if there is one; take the queue
//! unlock                                   unlock
//! send the command                         cancel the token, withdraw the turns, wake the session thread
//! ```
//!
//! - **The lock covers the swap and the token.** A swap that succeeds comes before CLOSED, and its caller holds the
//!   lock. So the close gets the lock after the token is stored, and finds it. Without the lock, a close between the
//!   two steps would find no token. The turn would run uncancelled after a shutdown.
//! - **CLOSED is set before the token is read.** Once CLOSED is set, no turn is admitted. In the other order, a turn
//!   could be admitted after the close has looked for a token and before it sets CLOSED. That turn too would run
//!   uncancelled. The same holds for a turn that is queued.
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
//! The token is sealed first. Then, under one lock, the active entry is replaced by that of the next queued turn, or the
//! entry and RUNNING are cleared. In two steps, another thread could admit the next turn in between. The turn that ends
//! would then remove the token of the next one, which no interrupt and no close could cancel any more. The result is
//! delivered afterwards, so that its caller can start the next turn at once. [`running::TurnGuards`] states the whole
//! order, and keeps it on every exit.
//!
//! # Reads
//!
//! A read loads the gate, then the published snapshot, then the gate again, and repeats this until both loads of the
//! gate are equal. The gate never returns to a value that it has left: RUNNING is set only together with a higher turn
//! number or by a restart. A restart, a wait for input and a turn that leaves the queue raise the count of changes.
//! FAULTED is set at most once between two of these, and every other flag changes once. So equal loads mean that the
//! gate has not changed in between, and that state and figures are from one instant.
//! The length of the queue is read together with the gate: under the lock of the admissions by `read`, and through
//! [`QueueLength`](crate::status::queue_length::QueueLength) by `list`.
//!
//! # Not here
//!
//! The registry and the capacity: see [`ephemeral`](crate::ephemeral). The reservation of a session is released after
//! its thread has dropped everything that it owns.

pub(crate) mod admission;
pub(crate) mod command;
pub(crate) mod first;
pub(crate) mod handle;
mod hosting;
pub(crate) mod idle;
pub(crate) mod queue;
pub(crate) mod restart;
pub(crate) mod running;
mod steering;
pub(crate) mod thread;
pub(crate) mod unload;
