//! # What to do at shutdown
//!
//! A program need not shut down its services before it exits: the end of the process ends all threads at once. The drop
//! of the last handle closes every session and cancels every turn, and waits for none.
//!
//! If agents have work to finish (a file, a transaction, a connection), shut down in this order:
//!
//! ```
//! use std::time::Duration;
//! use turnwise::{agent_fn, ArchiveMode, EphemeralSessionService, SessionService, SessionSpec};
//!
//! let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 8);
//! # let id = service.open_session(SessionSpec::new())?;
//!
//! // 1. Export the histories that you need, while the sessions exist. A `PersistentSessionService` has saved them.
//! let history = service.export_session_timeout(id, Duration::from_secs(1)); // an error if a turn takes longer
//!
//! // 2. Refuse new work; running turns may finish within the timeout.
//! let mut report = service.shutdown_with(ArchiveMode::Drain, Duration::from_secs(5));
//!
//! // 3. Cancel the turns that have not finished.
//! if !report.stuck.is_empty() {
//!     report = service.shutdown(Duration::from_secs(2));
//! }
//!
//! // 4. The remaining agents ignore their tokens. Report them: the end of the process ends them.
//! for id in report.stuck {
//!     eprintln!("session {id} does not end");
//! }
//! # drop(history);
//! # Ok::<(), turnwise::SessionError>(())
//! ```
//!
//! The thread that handles signals can do the same: `shutdown` may be called from any thread, and more than once.
//!
//! A host may unload the agents' code, such as a plugin's library. Before that it must see no stuck session, and
//! [`ServiceStats::threads`](crate::ServiceStats::threads) at 0. The documentation of
//! [`shutdown`](crate::EphemeralSessionService::shutdown) lists which other values the host must drop first.
