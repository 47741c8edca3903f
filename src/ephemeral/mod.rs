//! The sessions of a service in one process: the registry, the capacity, and the shutdown of all sessions.

mod calls;
mod config;
mod core;
pub(crate) mod launch;
mod registry;
mod reserve;
mod service;
mod settings;
mod shutdown;
pub(crate) mod started;
mod threads;
#[cfg(feature = "store")]
pub(crate) mod wrapped;

pub use config::ServiceConfig;
pub use service::EphemeralSessionService;
#[cfg(feature = "store")]
pub(crate) use settings::Settings;
