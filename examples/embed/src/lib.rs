//! A C interface to the library `turnwise`, and the safe layer below it that the Python package shares.
//!
//! The library itself has no `unsafe` code; this package has, and each block says why it is sound. The files are
//! `libturnwise.a`, `libturnwise.so` and `include/turnwise.h`, which is generated from [`abi`] and checked in.
//!
//! # Who owns what
//!
//! - **A handle** is a number of kind, generation and index (`abi/handles.rs`). The table owns one share of the object,
//!   and every call takes another one for its length. A close takes the object out of the table, wakes its waiters with
//!   `CLOSED`, and drops the table's share. The last user frees the object, on whichever thread that is.
//! - **A service** ([`host::service::Service`]) owns the service of the library, its queue, and its descriptor. Turns and
//!   subscriptions do not keep it alive. The close of a service cancels its turns and waits for none. A session thread
//!   of a closed service ends when its agent returns.
//! - **The agent's table** is copied. The service and its session threads share it, and the last of them frees the host's
//!   context. An agent's data belongs to its session thread, from `build` to `drop_state`.
//! - **A context** (`abi/contexts.rs`) is a borrow of the turn, for the length of one callback on one thread. Its handle is
//!   stale afterwards, and refused on any other thread meanwhile.
//! - **A text** that goes out belongs to the host and is registered (`abi/text.rs`). A text that comes in is read within
//!   the call.
//!
//! # Threads
//!
//! Session threads, the threads behind deadlines, and at most one thread for the descriptor of each service. All of them
//! start with signals blocked ([`host::signals`]). The thread behind the descriptor runs no code of the host. Callbacks
//! run on session threads; `on_cancel`, which a host has to ask for, runs on the thread that cancels.
//!
//! # Waits
//!
//! A wait outside of a callback parks for its result, for the close of its handle, and for the close of the service. In a
//! callback it goes through the library in slices: it gives the turn's running permit back, ends when that turn is told
//! to stop, and is refused where it would close a cycle. A shutdown is refused in a callback (`REENTRANT`).
//!
//! # Errors
//!
//! [`codes`] has every code. Every exported function goes through `abi/entry.rs`, which refuses forked children, catches
//! panics, and reports the failure. The size of a struct is read before its fields (`abi/structs.rs`).
//!
//! # The descriptor
//!
//! [`host::notifier`] describes it: a level, raised by one thread that selects over the queues, and lowered by the reader
//! that empties the last of them.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[cfg(not(unix))]
compile_error!("the C interface needs the signals and the descriptors of Unix");

#[expect(clippy::missing_safety_doc, reason = "the header says once which pointers are valid")]
pub mod abi;
pub mod codes;
pub mod host;
