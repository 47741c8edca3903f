//! Sessions on a Redis or Valkey server, which several machines share. With the feature `redis`.
//!
//! An [`Engine`] is one namespace on a server.

mod config;
mod engine;
mod error;
mod scripts;
mod store;
mod wire;

pub use config::{Durability, EngineConfig};
pub use engine::Engine;
pub use error::EngineError;
pub use store::RedisStore;
