//! Sessions on a Redis or Valkey server, which several machines share. With the feature `redis`.
//!
//! An [`Engine`] is one namespace on a server: one primary of version 7.0 or later, not in cluster mode. A [`RedisStore`]
//! keeps sessions there, for a [`PersistentSessionService`](crate::store::PersistentSessionService) on each machine.
//!
//! - **The server decides.** A save compares the revision of the record and writes it, in one step of the server. So two
//!   machines never overwrite each other, whatever their clocks say: the later one gets a
//!   [`StoreError::Conflict`](crate::store::StoreError::Conflict).
//! - **A server that is away for less than one [lease](EngineConfig::lease) costs time and nothing else.** Calls connect
//!   again and repeat themselves. A repeated call changes nothing twice.
//! - **A server that has lost its data is an error.** It has another id, or none. The engine then refuses every call with
//!   [`EngineError::Replaced`], and writes nothing into the new data.
//! - **A full server is an error**, [`EngineError::OutOfMemory`]: the turn fails, its agent keeps it, and the next turn
//!   saves both. Reads and deletes still work. A server that would delete keys instead is refused at the open.
//!
//! ```no_run
//! use turnwise::cluster::{Engine, EngineConfig, RedisStore};
//! use turnwise::store::PersistentSessionService;
//! use turnwise::{agent_fn, CreateSessionRequest, SessionService};
//!
//! let engine = Engine::open("redis://:password@db.example:6379", EngineConfig::new())?;
//! let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
//! let service = PersistentSessionService::new(agent, 8, RedisStore::new(engine));
//! service.create_session(CreateSessionRequest::new("hello"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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
//! depend on the length of the record. An engine uses two connections.
//!
//! A user for the library needs these rights and no others, for the default namespace:
//!
//! ```text
//! ACL SETUSER turnwise on >password ~turnwise:* +@all -@admin -@dangerous +info
//! ```
//!
//! Whoever may write to the namespace is trusted. A connection is encrypted if the URL begins with `rediss`, which needs the
//! feature `redis-tls`.
//!
//! A server that is away, and its return, are logged as warnings, once for each batch of calls.
//!
//! # Versions
//!
//! A namespace has a version, which changes with the scripts. A program of another version gets
//! [`EngineError::OtherVersion`] at the open, so that mixed versions never work on one namespace.

mod client;
mod config;
mod engine;
mod error;
mod messages;
pub(crate) mod pipeline;
mod scripts;
mod store;
mod wire;

pub use client::{ClusterService, RequestOutcome};
pub use config::{Durability, EngineConfig};
pub use engine::Engine;
pub use error::EngineError;
pub use store::RedisStore;
