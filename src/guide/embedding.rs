//! # Hosts in other languages
//!
//! The package `examples/embed` of the repository has a C interface and a Python package. The first is a static and a
//! shared library, `libturnwise`, with one header for C and C++; the second is one wheel for Python 3.10 and later. They
//! are a package of their own because a border between languages needs `unsafe` code, and this crate has none.
//!
//! | In Rust | In C | In Python |
//! |---|---|---|
//! | [`SessionAgent`](crate::SessionAgent) and its [builder](crate::SessionAgentBuilder) | `TurnwiseAgent`, a table of functions | `turnwise.Agent`, a class |
//! | [`TurnContext`](crate::TurnContext) | a handle, for the `turnwise_context_` calls | `Context` |
//! | [`start_turn`](crate::SessionService::start_turn) | `turnwise_start_turn` | `session.run` |
//! | [`TurnHandle`](crate::TurnHandle) | `turnwise_turn_poll`, `turnwise_turn_wait`, `turnwise_turn_interrupt` | `session.begin`, a `Turn` |
//! | [`TurnStream`](crate::TurnStream), [`EventStream`](crate::EventStream) | `turnwise_next_event` | `session.stream`, `subscribe`: iterators |
//! | [`SessionError`](crate::SessionError) | a code and a message | an exception class for each code |
//! | a `select!` | `turnwise_service_fd`, a descriptor to poll | `service.fileno()` |
//! | `Drop` | `turnwise_close` | `with`, `close`, or the garbage collector |
//!
//! # What is different at the border
//!
//! - **A host pulls.** No function of the host is called on a foreign thread unless the host asks for it. Agents run on
//!   the threads of their sessions.
//! - **A close wakes.** Another thread may close a handle that a thread waits for. In Rust a handle cannot be dropped
//!   while it is borrowed.
//! - **A context is checked, not borrowed.** It is refused on another thread and after its callback.
//! - **What is structured is JSON.** Histories and events are those of the feature `serde`.
//! - **An extension of a specification** ([`extension`](crate::SessionSpec#structfield.extension)), a
//!   [reservation](crate::Reservation), [comms](crate::CommsRuntime), the clock of tests and spans stay in Rust.
//!
//! # Writing an interface of your own
//!
//! - Keep objects in a table of checked numbers, and let a call take a share of the object. Then a close while a thread
//!   waits is no use after free.
//! - Catch panics at every entry. Build with `panic = "unwind"`, which a service needs in any case.
//! - Block signals around each call that may start a thread. A thread inherits the mask, and the host keeps its signals.
//! - Refuse forked children. They have the sessions' memory without the sessions' threads.
//! - For an event loop, watch the readiness of the [receivers](crate::TurnStream::events) with crossbeam's `Select` on one
//!   thread, and raise one descriptor. Watch [`finished`](crate::TurnHandle::finished) too: the last event of a turn
//!   arrives a moment before the session is free for the next one.
//! - In an interpreter with a lock, wait without the lock, and never join a session thread while you hold it: the agent on
//!   that thread needs the lock to end.
