//! # Coming from an async session service
//!
//! This crate follows the API of `meerkat-session` 0.3, so that a program can be ported call by call. A call that is
//! `await`ed there blocks here, or has a non-blocking sibling.
//!
//! | There | Here | Difference |
//! |---|---|---|
//! | `EphemeralSessionService::new(builder, max)` | [`EphemeralSessionService::new`], or [`configure`](crate::EphemeralSessionService::configure) | a cheap handle to clone; it needs no `Arc` |
//! | `create_session(req).await` | [`create_session`]; [`begin_session`] returns before the agent is built | the id is known before the build, so a session that is being built can be interrupted and archived |
//! | | [`open_session`] | a session without a first turn |
//! | `start_turn(&id, req).await` | [`start_turn`]; [`begin_turn`] returns a [`TurnHandle`] to poll, wait for, select over | in both, a busy session is `Busy` at once; [`when_busy`](crate::StartTurnRequest#structfield.when_busy) queues the turn, or supersedes the running one |
//! | `tokio::spawn(start_turn(..))` | [`begin_turn`] | the turn is admitted when the call returns, and the handle may be dropped |
//! | `event_tx: mpsc::Sender` | [`event_tx`](crate::StartTurnRequest#structfield.event_tx): a crossbeam sender; or [`stream_turn`], an iterator | no task in between; the receiver disconnects when the turn ends |
//! | `interrupt(&id).await` | [`interrupt`] | does not wait for the turn; [`interrupt_turn`] never reaches the next one |
//! | `SessionAgent::cancel` to stop a turn | the turn's [`CancelToken`]; [`SessionAgent::cancel`] rolls back afterwards | the library never calls an agent while it runs |
//! | `read(&id).await`, `list(query).await` | [`read`], [`list`] | never wait for a turn |
//! | `archive(&id).await` | [`archive`]; [`archive_with`] to cancel the turn; [`archive_wait`] to wait for the end | capacity is released when the agent is dropped |
//! | `export_session(&id).await` | [`export_session`], [`export_session_timeout`]; [`take_session`] archives as well; [`history`] ends with the last finished turn | an export waits for the running turn, a history does not |
//! | `event_injector(&id).await` | [`event_injector`](crate::SessionService::event_injector) | every session has an inbox |
//! | `comms_runtime(&id).await` | [`comms_runtime`](crate::SessionService::comms_runtime) | [`LocalComms`](crate::LocalComms) comes with the crate |
//! | `wait_session_registered().await` | [`wait_session_registered`](crate::EphemeralSessionService::wait_session_registered) | counts registrations, so none is missed; takes a timeout |
//! | `shutdown().await` | [`shutdown`](crate::EphemeralSessionService::shutdown) | joins the threads in time, or reports the stuck sessions |
//! | `PersistentSessionService::new(builder, max, store)` | `store::PersistentSessionService`, with the feature `store` | resumes sessions; a result is returned only after its turn is on disk; see [that page](super::lives) |
//! | a store that gets whole sessions | `store::SessionStore::save` | gets what a turn has added, and the revision that it replaces |
//! | every session in memory | `store::PersistentConfig` | unloads idle sessions; their next turn resumes them |
//! | `run_host_mode` of the agent | [`host_mode`](crate::StartTurnRequest#structfield.host_mode) of the request, [`SessionAgent::run_interaction`] | the library waits for interactions, the agent answers them |
//! | `SessionAgentBuilder::Agent: Send` | no bound | see [that page](super::not_send) |
//! | events of one turn, through its channel | [`subscribe`](crate::SessionService::subscribe), `subscribe_all` | numbered; [`history_at`](crate::SessionService::history_at) tells the number to follow from |
//! | questions to a person, built by hand | [`request_input`](crate::TurnContext::request_input), [`respond`](crate::SessionService::respond) | cancelled with the turn; no running permit is held |
//! | a panic leaves the session busy | [`SessionError::Faulted`] | the session can be read, exported, archived and [restarted](crate::SessionService::restart) |
//!
//! [`EphemeralSessionService::new`]: crate::EphemeralSessionService::new
//! [`create_session`]: crate::SessionService::create_session
//! [`begin_session`]: crate::SessionService::begin_session
//! [`open_session`]: crate::SessionService::open_session
//! [`start_turn`]: crate::SessionService::start_turn
//! [`begin_turn`]: crate::SessionService::begin_turn
//! [`stream_turn`]: crate::SessionService::stream_turn
//! [`TurnHandle`]: crate::TurnHandle
//! [`interrupt`]: crate::SessionService::interrupt
//! [`interrupt_turn`]: crate::SessionService::interrupt_turn
//! [`CancelToken`]: crate::CancelToken
//! [`SessionAgent::cancel`]: crate::SessionAgent::cancel
//! [`SessionAgent::run_interaction`]: crate::SessionAgent::run_interaction
//! [`read`]: crate::SessionService::read
//! [`list`]: crate::SessionService::list
//! [`archive`]: crate::SessionService::archive
//! [`archive_with`]: crate::SessionService::archive_with
//! [`archive_wait`]: crate::SessionService::archive_wait
//! [`export_session`]: crate::SessionService::export_session
//! [`history`]: crate::SessionService::history
//! [`export_session_timeout`]: crate::SessionService::export_session_timeout
//! [`take_session`]: crate::SessionService::take_session
//! [`SessionError::Faulted`]: crate::SessionError::Faulted
//!
//! An agent whose model call is async can block on that call: its session thread is there to be blocked. A small
//! executor for one future is enough. To let an interrupt end the call, select over
//! [`CancelToken::cancelled`](crate::CancelToken::cancelled), or abort the call in a hook
//! ([`on_cancel`](crate::CancelToken::on_cancel)).
//!
//! An async program should use an async service. If it must use this one, make the calls in `spawn_blocking` or on
//! other threads that may block. Forward the end of a turn from a thread that waits for it.
