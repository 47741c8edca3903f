//! Sessions on a Redis or Valkey server, which several machines share. With the feature `redis`.
//!
//! An [`Engine`] is one namespace on a server: one primary of version 7.0 or later, not in cluster mode. There are two ways
//! to use it.
//!
//! **Workers and clients.** A [`Worker`] hosts sessions in its process, on any machine. A [`ClusterService`] is a
//! [`SessionService`](crate::SessionService) in any other process, or in the same one: it begins turns, streams their events,
//! interrupts, responds, reads and archives, and need not know where a session is. The engine gives each session to one
//! worker at a time.
//!
//! ```no_run
//! use turnwise::cluster::{ClusterService, Engine, EngineConfig, Worker};
//! use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
//!
//! // On one machine, or on several:
//! let engine = Engine::open("redis://:password@db.example:6379", EngineConfig::new())?;
//! let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt.to_uppercase())));
//! let worker = Worker::start(EphemeralSessionService::configure(agent).max_sessions(100), engine)?;
//!
//! // In another program:
//! let engine = Engine::open("redis://:password@db.example:6379", EngineConfig::new())?;
//! let service = ClusterService::new(engine)?;
//! assert_eq!(service.create_session(CreateSessionRequest::new("hello"))?.text, "HELLO");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **A store.** A [`RedisStore`] keeps the sessions of a
//! [`PersistentSessionService`](crate::store::PersistentSessionService) on each machine. The callers of a session have to be
//! routed to one machine then.
//!
//! # What is promised
//!
//! - **The server decides.** A save compares the revision of the record, and that of a worker also who has the session. It
//!   writes in the same step. So two machines never overwrite each other, whatever their clocks say.
//! - **A turn has one end.** History, result and the messages to its callers are one step. A caller that got a result finds
//!   the turn in the history, exactly once. No turn is run a second time by the engine.
//! - **A worker that dies loses what it was running, and says so.** The callers get
//!   [`SessionError::WorkerLost`](crate::SessionError::WorkerLost) after about one [lease](EngineConfig::lease): that turn is
//!   not in the history, and never will be. The next turn of the session runs on another worker, from the last answered
//!   turn. What the agent did outside of the session may have happened; [`TurnContext::fence`](crate::TurnContext::fence)
//!   is for systems that have to know.
//! - **A server that is away for less than one lease costs time and nothing else.** Calls connect again and repeat
//!   themselves, and a repeated call changes nothing twice. A longer outage ends every running turn. A caller whose turn may
//!   have begun gets [`SessionError::OutcomeUnknown`](crate::SessionError::OutcomeUnknown), and can ask later.
//! - **A server that has lost its data is an error.** It has another id, or none. The engine then refuses every call with
//!   [`EngineError::Replaced`], and writes nothing into the new data.
//! - **A full server is an error**, [`EngineError::OutOfMemory`]: no turn begins. Turns that run can end and are kept; reads
//!   and deletes work. With a [`RedisStore`] alone a turn fails, its agent keeps it, and the next turn saves both. A server
//!   that would delete keys instead is refused at the open.
//!
//! # What survives
//!
//! | Server | An answered turn survives |
//! |---|---|
//! | append-only file, `appendfsync always` | a kill of the server and a loss of power: the answer follows the sync |
//! | append-only file, `appendfsync everysec` | a kill of the server mostly; a loss of power takes the last one or two seconds of *answered* turns |
//! | with replicas and a fail-over | the loss of a machine mostly, and no promise: replicas lag behind |
//! | snapshots alone | nothing later than the last snapshot |
//!
//! The last row is refused at the open, unless the program asks for [`Durability::Any`]. While the server keeps its data,
//! no row has a lost update. After a fail-over an older record may come back; the machine that has saved a newer one gets a
//! conflict at its next save.
//!
//! # The server
//!
//! `maxmemory-policy` must be `noeviction`, the default. A session takes about as much memory as its messages have text in
//! JSON, and 2 KiB. A record of 8 MiB that is loaded or rewritten holds up the server for some 25 ms; an append does not
//! depend on the length of the record. An engine uses two connections, a worker one more, and a client one more.
//!
//! A user for the library needs these rights and no others, for the default namespace:
//!
//! ```text
//! ACL SETUSER turnwise on >password ~turnwise:* +@all -@admin -@dangerous +info
//! ```
//!
//! Every program that may write to the namespace is trusted. A connection is encrypted if the URL begins with `rediss`, which needs the
//! feature `redis-tls`.
//!
//! A server that is away, and its return, are logged as warnings, once for each batch of calls.
//!
//! # Operations
//!
//! - **Sizing.** A session is live in its worker from its first use until the worker needs the room:
//!   [`max_sessions`](crate::ServiceConfig::max_sessions) limits the live ones, which take threads and memory. The server
//!   holds all sessions. One step of a turn takes the server some 20 to 50 µs, so one server serves some thousands of turns a
//!   second; `docs/PERFORMANCE.md` has figures.
//! - **Leases.** A short lease reports a dead worker soon. It must be longer than any pause of a worker's process and any
//!   ordinary outage of the network: a worker without a lease loses the turns that it runs. All programs of a namespace should
//!   have the same.
//! - **Upgrades.** Start a worker of the new version, then [drain](Worker::drain) one of the old version: its turns finish,
//!   and its sessions go to others when they are used next. Then the next one. No caller notices.
//! - **Mixed versions.** A namespace has a version, which changes with the scripts. A program of another version gets
//!   [`EngineError::OtherVersion`] at the open, so mixed versions never work on one namespace. Records have a format of their
//!   own. An older program refuses a record of a newer format
//!   ([`StoreError::Newer`](crate::store::StoreError::Newer)) and leaves it as it is.
//! - **Metrics.** [`Worker::stats`] has sessions, turns, the age of the lease and the reconnects. An age above one half of the
//!   lease, and every new incarnation, are worth an alarm.
//! - **Fail-over.** After a fail-over to a replica that lagged behind, turns that were answered may be missing. A client that
//!   has seen one of them gets [`SessionError::HistoryLost`](crate::SessionError::HistoryLost) at its next turn of the session,
//!   once; what is left goes on from there.

mod client;
mod config;
mod engine;
mod error;
mod messages;
pub(crate) mod pipeline;
mod scripts;
mod store;
mod wire;
mod worker;

pub use client::{ClusterService, RequestOutcome};
pub use config::{Durability, EngineConfig};
pub use engine::Engine;
pub use error::EngineError;
pub use store::RedisStore;
pub use worker::{DrainReport, StartError, Worker, WorkerStats};
