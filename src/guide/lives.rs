//! # A service that outlives its process and its memory
//!
//! This page is about the feature `store`. A `PersistentSessionService` saves every session in a store. So a
//! conversation may last longer than the process, and there may be more conversations than threads.
//!
//! # What survives
//!
//! A caller that has the result of a turn will find that turn again: it is on the disk before the result is returned. A
//! process that is killed loses the turns that were running, and nothing else. After a restart of the program every
//! session is there. It has its history, labels, numbers and settings. Its agent is built again with the next turn,
//! from [`SessionSpec::history`](crate::SessionSpec::history).
//!
//! What an agent needs beyond its history does not survive by itself. Put it into the history, into the labels, or get
//! it from the builder.
//!
#![cfg_attr(feature = "store", doc = "```")]
#![cfg_attr(not(feature = "store"), doc = "```ignore")]
//! # let folder = std::env::temp_dir().join(format!("turnwise-guide-{}", turnwise::SessionId::new()));
//! # std::fs::create_dir(&folder)?;
//! use std::time::Duration;
//! use turnwise::store::{FileStore, PersistentSessionService};
//! use turnwise::{agent_fn, EphemeralSessionService, SessionQuery, SessionService, SessionSpec, StartTurnRequest};
//!
//! // The beginning of the program. `agent_fn` makes agents that resume.
//! let start = || -> Result<_, Box<dyn std::error::Error>> {
//!     let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
//!     let config = EphemeralSessionService::configure(agent).max_sessions(2);
//!     let store = FileStore::open(folder.join("sessions.redb"))?;
//!     Ok(PersistentSessionService::configure(config, store)
//!         .unload_idle_after(Duration::from_secs(15 * 60))
//!         .unload_when_full(true)
//!         .build()?)
//! };
//!
//! let service = start()?;
//! for user in ["ada", "grace", "barbara", "frances"] {
//!     let id = service.open_session(SessionSpec::new().label("user", user))?;
//!     service.start_turn(id, StartTurnRequest::new("hello"))?;
//! }
//! service.shutdown(Duration::from_secs(10));
//! drop(service); // and the program ends
//!
//! let service = start()?;
//! let of_ada = service.list(SessionQuery::new().label("user", "ada"))?[0].session_id;
//! assert!(!service.is_live(of_ada));
//! let result = service.start_turn(of_ada, StartTurnRequest::new("again"))?;
//! assert_eq!(result.turn_id.get(), 2); // the numbers go on
//! # drop(service);
//! # std::fs::remove_dir_all(folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # More sessions than memory
//!
//! A live session has a thread and an agent; a stored one has a record. Three settings decide how many are live:
//!
//! | Setting | What it does |
//! |---|---|
//! | [`max_sessions`](crate::ServiceConfig::max_sessions) | the limit of live sessions |
//! | `unload_when_full` | at the limit, the session that has been idle for longest gives way. Without it, the call that needs room fails with [`CapacityExceeded`](crate::SessionError::CapacityExceeded) |
//! | `unload_idle_after` | a session that has been idle for this time gives way, needed or not |
//!
//! With `unload_when_full` set `max_sessions` to what the memory has room for. A turn of a session that is not live
//! costs a load and a build more. If the agent's build is slow, because it loads a model say, set `unload_idle_after`
//! to none and `max_sessions` high.
//!
//! No session in use is unloaded: not with a turn that runs, waits or is queued, not in host mode, not with a stream of
//! its own, not with a message in its inbox. So a display that stays subscribed keeps its session live. If it should
//! not, let it subscribe to [all sessions](crate::ServiceControl::subscribe_all), or drop the stream between two turns
//! and subscribe again [from the next number](crate::Subscription::from_seq).
//!
//! # What a kept turn costs
//!
//! A turn writes what it adds. The history of ten thousand turns makes the next one no slower, if the agent pushes to
//! the [`Session`](crate::Session) that it was given. An agent that changes earlier messages, or builds a new `Session`
//! for every [`session_clone`](crate::SessionAgent::session_clone), pays for its whole history in every turn.
//!
//! # Faults
//!
//! An agent that panics faults its session, and the record keeps the turn before. With
//! [`restart_faulted`](crate::ServiceConfig::restart_faulted) the session is built again by itself, a few times. A
//! store that fails makes the turn fail with [`SessionError::Store`](crate::SessionError::Store) or with the store's
//! error; the next turn saves both.
//!
//! # Several processes
//!
//! `FileStore` belongs to one process at a time. A store of your own may be shared: every save names the revision that
//! it replaces. A service that is out of date gets a `StoreError::Conflict`, ends its session, and loads the newer
//! record for the next turn. So no answered turn is undone, whichever process had the session. The turn that met the
//! conflict has failed, and its caller repeats it.
